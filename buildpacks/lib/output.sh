#!/usr/bin/env bash
# How our own buildpacks talk; copied into each of them as lib/output.sh before a build.

step() { printf -- '-----> %s\n' "$*"; }

# Line by line, so that the pusher sees progress and not blocks.
indent() { sed -u 's/^/       /'; }

say() { printf '       %s\n' "$*"; }

# A paragraph that stands out, one argument a line.
warn() {
	printf '\n'
	printf ' !     %s\n' "$@"
	printf '\n'
}

fail() {
	warn "$@"
	exit 1
}

# import_env ENV_DIR DENY-REGEX: config vars become environment variables of the build, except those that would break
# the tools it runs.
import_env() {
	local file name
	for file in "$1"/*; do
		[ -f "$file" ] || continue
		name=${file##*/}
		if [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] && ! [[ $name =~ ^($2)$ ]]; then
			export "$name=$(<"$file")"
		fi
	done
}

# measured COMMAND…: runs it with its output indented and kept in $LOG; returns its status.
measured() {
	"$@" 2>&1 | tee "$LOG" | indent
	return "${PIPESTATUS[0]}"
}
