# shellcheck shell=bash
# Sourced when a dyno of this app starts: how many processes of WEB_MEMORY megabytes fit into it.
hokku_memory() {
	local file bytes least=
	for file in memory.high memory.max memory/memory.soft_limit_in_bytes memory/memory.limit_in_bytes; do
		bytes=$(cat "/sys/fs/cgroup/$file" 2>/dev/null)
		# "max", or a number near 2^63, means no limit.
		[[ $bytes =~ ^[0-9]{1,15}$ ]] || continue
		if [ -z "$least" ] || [ "$bytes" -lt "$least" ]; then least=$bytes; fi
	done
	echo $((${least:-536870912} / 1048576))
}
export MEMORY_AVAILABLE="${MEMORY_AVAILABLE:-$(hokku_memory)}"
export WEB_MEMORY="${WEB_MEMORY:-512}"
if [ -z "${WEB_CONCURRENCY-}" ]; then
	WEB_CONCURRENCY=$((MEMORY_AVAILABLE / WEB_MEMORY))
	[ "$WEB_CONCURRENCY" -ge 1 ] || WEB_CONCURRENCY=1
	[ "$WEB_CONCURRENCY" -le 200 ] || WEB_CONCURRENCY=200
	export WEB_CONCURRENCY WEB_CONCURRENCY_SET_BY="${WEB_CONCURRENCY_SET_BY:-heroku/nodejs}"
fi
