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

# offline: whether $LOG says that the network is not there, in the words of any of the tools.
offline() {
	# Node.js's codes as they are written: `FileNotFoundException` has one of them in it.
	grep -qE '\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ECONNRESET|ENETUNREACH)\b' "$LOG" ||
		grep -qiE 'name resolution|resolve host|unknown host|UnknownHostException|no such host|connection refused|timed out|network is unreachable|SocketError|Failed to open TCP|dns error|No route to host' "$LOG"
}

# explain_offline WHAT VARIABLE: what to do about it.
explain_offline() {
	warn "$1 can't be reached from this machine." \
		"Try again later; behind a proxy set https_proxy and $2 in [build.env]."
}

# distrusted: whether $LOG says that a certificate is not trusted.
distrusted() {
	grep -qE 'CERTIFICATE_VERIFY_FAILED|CERT_IN_CHAIN|UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER|PKIX path building|certificate signed by unknown|certificate verify failed|SSL certificate problem' "$LOG"
}

explain_distrust() {
	warn "The certificate of $1 is not trusted." \
		"Add your network's certificate authority to the machine (update-ca-certificates)."
}

# quietly COMMAND…: runs it with its output kept in $LOG only.
quietly() { "$@" >"$LOG" 2>&1; }
