#!/usr/bin/env bash
# Starts PHP-FPM and a web server before it, and ends when either of them does. The options are those of Heroku's
# launchers of the same name.
#
#   heroku-php-nginx|heroku-php-apache2 [-C server.conf] [-F fpm.conf] [-i php.ini] [-l log] [-p port] [document root]
# shellcheck disable=SC2034 # some variables are for the server's file
set -uo pipefail
server=$1
shift
cd "$HOME" || exit 1
export PATH="$PATH:/usr/sbin:/sbin"

include='' fpm_include='' ini='' port=${PORT:-5000} logs=() verbose=
die() {
	printf '%s\n' "$@" >&2
	exit 1
}
while getopts ':C:F:i:l:p:vh' option; do
	case $option in
	C) include=$OPTARG ;;
	F) fpm_include=$OPTARG ;;
	i) ini=$OPTARG ;;
	l) logs+=("$OPTARG") ;;
	p) port=$OPTARG ;;
	v) verbose=yes ;;
	h) sed -n '2,6s/^# \{0,1\}//p' "$0" && exit 0 ;;
	*) die "heroku-php-$server: unknown option -$OPTARG; known are -C, -F, -i, -l, -p and -v" ;;
	esac
done
shift $((OPTIND - 1))
for file in "$include" "$fpm_include" "$ini"; do
	[ -z "$file" ] || [ -f "$file" ] || die "heroku-php-$server: there is no file $file"
done
root=$HOME/${1-}
root=${root%/}
[ -d "$root" ] || die "heroku-php-$server: there is no directory ${1-} to serve (the document root)"

minor=$(php -r 'echo PHP_MAJOR_VERSION . "." . PHP_MINOR_VERSION;')
fpm=$(command -v "php-fpm$minor" || command -v php-fpm) ||
	die "There is no PHP-FPM on this machine. Its administrator can install the Debian package php-fpm."
if [ "$server" = apache2 ] && ! command -v apache2 >/dev/null; then
	echo "There is no Apache on this machine, so nginx serves: files .htaccess are not read." >&2
	server=nginx
fi
command -v "$server" >/dev/null ||
	die "There is no $server on this machine. Its administrator can install the Debian package ${server/nginx/nginx-light}."

run=$(mktemp -d /tmp/php-XXXXXX)
# shellcheck disable=SC2034 # for the server's file
socket=$run/fpm.sock
# shellcheck source=buildpacks/php/lib/workers.sh
. "$HOME/.heroku/php/workers.sh"
workers=$(php_workers)
level=warning graceful=TERM
[ -z "$verbose" ] || level=notice
# shellcheck source=/dev/null
. "$HOME/.heroku/php/${server/apache2/apache}.sh"

cat >"$run/fpm.conf" <<END
[global]
daemonize = no
error_log = /dev/null
log_level = $level
[www]
listen = $socket
pm = ondemand
pm.max_children = $workers
pm.process_idle_timeout = 60s
clear_env = no
catch_workers_output = yes
decorate_workers_output = no
END
[ -z "$fpm_include" ] || printf 'include = %s\n' "$(realpath "$fpm_include")" >>"$run/fpm.conf"
options=(--nodaemonize --force-stderr --fpm-config "$run/fpm.conf" -d expose_php=Off -d display_errors=stderr -d log_errors=On)
# On top of the machine's own settings, as a file in the folder where it keeps further ones.
if [ -n "$ini" ]; then
	mkdir "$run/ini" && cp "$ini" "$run/ini/zz-app.ini"
	PHP_INI_SCAN_DIR=":$run/ini"
	export PHP_INI_SCAN_DIR
fi
for log in "${logs[@]}"; do
	touch "$log" && tail -qF -n 0 "$log" &
done

# shellcheck disable=SC2317 # called by the trap
stop() {
	trap - TERM INT
	# The web server finishes its requests first: each of them needs PHP.
	kill -"$graceful" "$web" 2>/dev/null
	wait "$web" 2>/dev/null
	kill -QUIT "$php" 2>/dev/null
	wait "$php" 2>/dev/null
	exit 0
}
"$fpm" "${options[@]}" &
php=$!
until [ -S "$socket" ]; do
	kill -0 "$php" 2>/dev/null || die "PHP-FPM did not start; its output is above."
	sleep 0.05
done
start_server &
web=$!
trap stop TERM INT
echo "Serving ${root#"$HOME"/} by $server and PHP-FPM with $workers processes at most" >&2
wait -n "$php" "$web"
status=$?
kill "$php" "$web" 2>/dev/null
exit "$status"
