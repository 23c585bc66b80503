# shellcheck shell=bash
# hokku_memory: the megabytes that this dyno may use, by the lowest limit its cgroup shows. Copied like output.sh.
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
