# shellcheck shell=bash
# Sourced when a dyno of this app starts: as many workers as the processors and the memory (256 MB each) are good for.
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
export DYNO_RAM="${DYNO_RAM:-$(hokku_memory)}"
if [ -z "${WEB_CONCURRENCY-}" ]; then
	WEB_CONCURRENCY=$((2 * $(nproc) + 1))
	[ "$WEB_CONCURRENCY" -le $((DYNO_RAM / 256)) ] || WEB_CONCURRENCY=$((DYNO_RAM / 256))
	[ "$WEB_CONCURRENCY" -ge 1 ] || WEB_CONCURRENCY=1
	export WEB_CONCURRENCY WEB_CONCURRENCY_SET_BY="${WEB_CONCURRENCY_SET_BY:-heroku/python}"
fi
