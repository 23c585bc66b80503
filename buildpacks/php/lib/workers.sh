# shellcheck shell=bash
# Sourced by serve.sh after memory.sh in the same file: how many PHP processes of the size that php.ini allows fit.
php_workers() {
	local limit
	if [ -n "${WEB_CONCURRENCY-}" ]; then
		echo "$WEB_CONCURRENCY"
		return
	fi
	limit=$(php -r 'echo ini_get("memory_limit");' | tr '[:upper:]' '[:lower:]')
	case $limit in
	*g) limit=$((${limit%g} * 1024)) ;;
	*m) limit=${limit%m} ;;
	*) limit=128 ;;
	esac
	# The command line has no limit, servers have.
	[ "$limit" -gt 0 ] || limit=128
	local workers=$(($(hokku_memory) / limit))
	[ "$workers" -ge 1 ] || workers=1
	[ "$workers" -le 100 ] || workers=100
	echo "$workers"
}
