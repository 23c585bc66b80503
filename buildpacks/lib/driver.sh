#!/usr/bin/env bash
# What a build dyno runs: detect, compile and release of every buildpack, in order, as the app's unprivileged user.
#
#   driver.sh PLAN
#
# PLAN has one fact a line, tab-separated:
#   build DIR · cache DIR · env DIR · packs DIR · result DIR · mode auto|listed|detect|chosen
#   pack LABEL KIND LOCATION REFERENCE      (KIND: ready, git, archive, inline; `-` stands for nothing)
#
# In the mode `detect` it ends when it knows which pack it is, in `chosen` it goes on from there.
#
# A `ready` pack lies in packs/<its number>; others are fetched to that place. What the server wants to know afterwards
# is written below `result`: `pack` (number of the pack that was detected), `name` (what the last one calls the app),
# `release.yml` (what its bin/release printed). The server trusts none of it.
#
# No `set -eu`: the buildpacks' `export` files are sourced here, as on Heroku, and were written without it in mind.
# Names begin with hokku_ so that those files cannot overwrite them by accident.

exec 2>&1 </dev/null

hokku_step() { printf -- '-----> %s\n' "$*"; }
hokku_indent() { sed -u 's/^/       /'; }
hokku_fail() {
	printf '\n !     %s\n' "$1"
	shift
	for hokku_line in "$@"; do printf ' !     %s\n' "$hokku_line"; done
	printf '\n'
	exit 1
}

hokku_labels=() hokku_kinds=() hokku_places=() hokku_refs=()
while IFS=$'\t' read -r hokku_fact hokku_a hokku_b hokku_c hokku_d; do
	case $hokku_fact in
	build) hokku_build=$hokku_a ;;
	cache) hokku_cache=$hokku_a ;;
	env) hokku_env=$hokku_a ;;
	packs) hokku_packs=$hokku_a ;;
	result) hokku_result=$hokku_a ;;
	mode) hokku_mode=$hokku_a ;;
	pack)
		hokku_labels+=("$hokku_a") hokku_kinds+=("$hokku_b") hokku_places+=("$hokku_c")
		hokku_refs+=("${hokku_d/#-/}")
		;;
	esac
done <"$1"
mkdir -p "$HOME" "$TMPDIR" "$hokku_cache" "$hokku_env" "$hokku_packs" "$hokku_result"
cd "$hokku_build" || hokku_fail "The build directory is missing."

hokku_clone() { # URL REFERENCE DIR
	local GIT_TERMINAL_PROMPT=0
	export GIT_TERMINAL_PROMPT
	if git clone --quiet --depth 1 ${2:+--branch "$2"} -- "$1" "$3" 2>"$TMPDIR/clone"; then
		return 0
	fi
	# A commit is not a branch, and plain web servers know no shallow clones: take everything, then look for it.
	rm -rf "$3"
	git clone --quiet -- "$1" "$3" 2>"$TMPDIR/clone" || return 1
	[ -z "$2" ] || git -C "$3" checkout --quiet "$2" -- 2>"$TMPDIR/clone"
}

hokku_download() { # URL DIR
	mkdir -p "$2"
	curl --fail --silent --show-error --location --retry 3 --connect-timeout "$CURL_CONNECT_TIMEOUT" \
		--max-time "$CURL_TIMEOUT" --output "$TMPDIR/pack.archive" -- "$1" 2>"$TMPDIR/clone" || return 1
	tar --extract --file "$TMPDIR/pack.archive" --directory "$2" 2>"$TMPDIR/clone" || return 1
	rm -f "$TMPDIR/pack.archive"
	# Archives of a repository have one folder around everything.
	local inner=("$2"/*)
	if [ ! -e "$2/bin" ] && [ "${#inner[@]}" -eq 1 ] && [ -d "${inner[0]}" ]; then
		mv "${inner[0]}" "$2.inner" && rmdir "$2" && mv "$2.inner" "$2"
	fi
}

hokku_fetch() { # NUMBER: makes hokku_pack the directory of that buildpack
	hokku_pack=$hokku_packs/$1
	case ${hokku_kinds[$1]} in
	ready) ;;
	inline) hokku_pack=$hokku_build ;;
	git) hokku_clone "${hokku_places[$1]}" "${hokku_refs[$1]}" "$hokku_pack" ;;
	archive) hokku_download "${hokku_places[$1]}" "$hokku_pack" ;;
	esac || {
		hokku_indent <"$TMPDIR/clone"
		hokku_fail "Can't fetch the buildpack ${hokku_labels[$1]}."
	}
	if [ ! -f "$hokku_pack/bin/detect" ] || [ ! -f "$hokku_pack/bin/compile" ]; then
		hokku_fail "${hokku_labels[$1]} is not a buildpack: it has no bin/detect and bin/compile."
	fi
	# Many packs are checked in without the executable bit.
	chmod -f +x "$hokku_pack"/bin/{detect,compile,release}
}

hokku_detect() { # output in hokku_said; the first line is the name
	hokku_said=$("$hokku_pack/bin/detect" "$hokku_build" 2>&1)
}

hokku_no_language() {
	printf '\n !     No default language could be detected for this app.\n'
	printf '\t\t\tHINT: This occurs when the buildpack to use for this app cannot be detected automatically:\n'
	printf '\t\t\tno file says that it is one of: %s.\n' "$*"
	printf '\t\t\tCommit such a file, or choose a buildpack with buildpacks:set.\n\n'
	printf ' !     Push failed\n'
	exit 1
}

# Detection: the first that matches is the only one.
if [ "$hokku_mode" = auto ] || [ "$hokku_mode" = detect ]; then
	hokku_step "Determining which buildpack to use for this app"
	hokku_chosen=
	hokku_known=()
	for hokku_i in "${!hokku_labels[@]}"; do
		hokku_fetch "$hokku_i"
		hokku_known+=("${hokku_labels[$hokku_i]}")
		if hokku_detect; then
			hokku_chosen=$hokku_i
			break
		fi
	done
	[ -n "$hokku_chosen" ] || hokku_no_language "${hokku_known[@]}"
	hokku_order=("$hokku_chosen")
	printf '%s\n' "$hokku_chosen" >"$hokku_result/pack"
	[ "$hokku_mode" = auto ] || exit 0
elif [ "$hokku_mode" = chosen ]; then
	hokku_order=("$(<"$hokku_result/pack")")
else
	hokku_order=("${!hokku_labels[@]}")
	if [ "${#hokku_order[@]}" -eq 1 ]; then
		hokku_step "Using buildpack: ${hokku_labels[0]}"
	else
		hokku_step "Using buildpacks:"
		for hokku_i in "${hokku_order[@]}"; do
			printf '       %s. %s\n' $((hokku_i + 1)) "${hokku_labels[$hokku_i]}"
		done
	fi
fi

for hokku_i in "${hokku_order[@]}"; do
	hokku_fetch "$hokku_i"
	if ! hokku_detect; then
		hokku_step "App not compatible with buildpack: ${hokku_labels[$hokku_i]}"
		printf '%s\n' "$hokku_said" | hokku_indent
		hokku_fail "Push failed"
	fi
	hokku_name=${hokku_said%%$'\n'*}
	hokku_name=${hokku_name:-${hokku_labels[$hokku_i]}}
	hokku_step "$hokku_name app detected"

	if ! "$hokku_pack/bin/compile" "$hokku_build" "$hokku_cache" "$hokku_env"; then
		hokku_fail "Push rejected, failed to compile $hokku_name app."
	fi
	cd "$hokku_build" || hokku_fail "The buildpack removed the app's directory."
	# The next pack sees what this one exports; an inline pack's directory is the app, whose `export` is its own.
	if [ "${hokku_kinds[$hokku_i]}" != inline ] && [ -f "$hokku_pack/export" ]; then
		# shellcheck source=/dev/null
		. "$hokku_pack/export"
	fi
done

# The last pack's release says which process types there are without a Procfile.
printf '%s\n' "$hokku_name" >"$hokku_result/name"
if [ -f "$hokku_pack/bin/release" ]; then
	"$hokku_pack/bin/release" "$hokku_build" >"$hokku_result/release.yml" ||
		hokku_fail "Push rejected, bin/release of ${hokku_labels[$hokku_i]} failed."
fi
exit 0
