# shellcheck shell=bash
# Sourced when a dyno of this app starts, after memory.sh in the same file: workers of 512 MB, none where only one fits
# (Puma then does without the process that would watch over it).
if [ -z "${WEB_CONCURRENCY-}" ]; then
	WEB_CONCURRENCY=$(($(hokku_memory) / 512))
	if [ "$WEB_CONCURRENCY" -ge 2 ]; then
		[ "$WEB_CONCURRENCY" -le $(($(nproc) * 2)) ] || WEB_CONCURRENCY=$(($(nproc) * 2))
		export WEB_CONCURRENCY WEB_CONCURRENCY_SET_BY="${WEB_CONCURRENCY_SET_BY:-heroku/ruby}"
	else
		unset WEB_CONCURRENCY
	fi
fi
