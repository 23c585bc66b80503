# shellcheck shell=bash
# Sourced when a dyno of this app starts, after memory.sh in the same file:
# as many workers as the processors and the memory (256 MB each) are good for.
export DYNO_RAM="${DYNO_RAM:-$(hokku_memory)}"
if [ -z "${WEB_CONCURRENCY-}" ]; then
	WEB_CONCURRENCY=$((2 * $(nproc) + 1))
	[ "$WEB_CONCURRENCY" -le $((DYNO_RAM / 256)) ] || WEB_CONCURRENCY=$((DYNO_RAM / 256))
	[ "$WEB_CONCURRENCY" -ge 1 ] || WEB_CONCURRENCY=1
	export WEB_CONCURRENCY WEB_CONCURRENCY_SET_BY="${WEB_CONCURRENCY_SET_BY:-heroku/python}"
fi
