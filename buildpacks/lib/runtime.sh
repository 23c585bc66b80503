# shellcheck shell=bash
# Where a runtime is that the stack does not have, and what becomes of an app whose version is nowhere; the one place for
# both. Copied like output.sh; needs $CACHE_DIR.
#
#   the stack       what PATH and /usr have: each pack asks for that first, by itself
#   the box's store $HOKKU_RUNTIMES/<language>/<version>/, read-only, when the platform mounts one
#   the app's cache $CACHE_DIR/runtimes/<language>/<version>/, what an earlier build fetched

# runtimes LANGUAGE: a line `VERSION DIRECTORY` for each, the newest first.
runtimes() {
	local place dir
	for place in "${HOKKU_RUNTIMES:-/opt/hokku/runtimes}" "$CACHE_DIR/runtimes"; do
		for dir in "$place/$1"/*/; do
			[ -d "$dir" ] && printf '%s %s\n' "$(basename "$dir")" "${dir%/}"
		done
	done | sort -rV
}

# runtime_home LANGUAGE VERSION: the directory into which a version is fetched, for later builds.
runtime_home() { printf '%s/runtimes/%s/%s\n' "$CACHE_DIR" "$1" "$2"; }

# runtime_rest LANGUAGE DIRECTORY: forgets what the cache has of a language but that directory.
runtime_rest() {
	local dir
	for dir in "$CACHE_DIR/runtimes/$1"/*/; do
		[ "${dir%/}" = "$2" ] || rm -rf "$dir"
	done
}

# at_least VERSION LEAST: compares as versions, number by number.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# there LANGUAGE VERSION…: what there is, for people: the VERSIONs of the stack and what is kept.
there() { { printf '%s\n' "${@:2}" && runtimes "$1" | cut -d ' ' -f 1; } | awk 'NF && !seen[$0]++' | paste -sd , | sed 's/,/, /g'; }

# What an owner can do about a version that is nowhere; for the end of a paragraph.
# shellcheck disable=SC2034 # used by packs
IMPORT="or brought to it as a file (\`hokku runtime:import FILE\`)"

# strict: whether the app wants the version it asks for or none, by its config var HOKKU_STRICT_RUNTIME.
strict() {
	case ${HOKKU_STRICT_RUNTIME-} in
	'' | 0 | false | no | off) return 1 ;;
	esac
}

# near BY WANTED THERE NEAREST ADVICE…: instead of what BY asks for (`Java 11`) the app gets the NEAREST of what is THERE,
# and is told so loudly; a strict app is not built. ADVICE says how to get the other.
near() {
	strict || {
		warn "$1 asks for $2, but this machine has $3: using $4." "${@:5}"
		return
	}
	fail "$1 asks for $2, but this machine has $3." "${@:5}" \
		"The config var HOKKU_STRICT_RUNTIME forbids another version. Unset it to have the app built with $4."
}
