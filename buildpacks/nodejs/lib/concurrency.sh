# shellcheck shell=bash
# Sourced when a dyno of this app starts, after memory.sh in the same file:
# how many processes of WEB_MEMORY megabytes fit into it.
export MEMORY_AVAILABLE="${MEMORY_AVAILABLE:-$(hokku_memory)}"
export WEB_MEMORY="${WEB_MEMORY:-512}"
if [ -z "${WEB_CONCURRENCY-}" ]; then
	WEB_CONCURRENCY=$((MEMORY_AVAILABLE / WEB_MEMORY))
	[ "$WEB_CONCURRENCY" -ge 1 ] || WEB_CONCURRENCY=1
	[ "$WEB_CONCURRENCY" -le 200 ] || WEB_CONCURRENCY=200
	export WEB_CONCURRENCY WEB_CONCURRENCY_SET_BY="${WEB_CONCURRENCY_SET_BY:-heroku/nodejs}"
fi
