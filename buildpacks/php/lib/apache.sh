# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by serve.sh: Apache before PHP-FPM, as an ordinary user; files .htaccess are read.
modules=/usr/lib/apache2/modules
hidden=
# An app that serves its own root shows what is not meant for the world.
if [ "$root" = "$HOME" ]; then
	hidden="<LocationMatch \"^/(vendor/|composer\\.|Procfile\$|app\\.json\$|package)\">
	Require all denied
</LocationMatch>"
fi
{
	for module in mpm_event authn_core authn_file authz_core authz_host authz_user auth_basic access_compat alias autoindex \
		deflate dir env expires filter headers mime negotiation proxy proxy_fcgi rewrite setenvif; do
		[ ! -f "$modules/mod_$module.so" ] || echo "LoadModule ${module}_module $modules/mod_$module.so"
	done
	cat <<END
ServerRoot $run
ServerName localhost
UseCanonicalName Off
ServerTokens Prod
ServerSignature Off
TraceEnable Off
PidFile $run/apache.pid
DefaultRuntimeDir $run
Listen $port
StartServers 1
ErrorLog "|$ exec cat >&2"
ErrorLogFormat "[%-m:%l] %M"
LogLevel $([ -n "$verbose" ] && echo info || echo warn)
Timeout 600
KeepAlive On
KeepAliveTimeout 95
MaxKeepAliveRequests 0
TypesConfig $HOME/.heroku/php/mime.types
DocumentRoot $root
DirectoryIndex index.php index.html index.htm
SetEnvIf X-Forwarded-Proto https HTTPS=on
RequestHeader unset Proxy early
<Directory />
	Require all denied
</Directory>
<Directory $root>
	Options FollowSymLinks
	AllowOverride All
	CGIPassAuth On
	Require all granted
</Directory>
<DirectoryMatch "^$root/(.*/)?\\.(?!well-known)">
	Require all denied
</DirectoryMatch>
<FilesMatch "^\\.">
	Require all denied
</FilesMatch>
$hidden
<FilesMatch "\\.php\$">
	<If "-f %{REQUEST_FILENAME}">
		SetHandler "proxy:unix:$socket|fcgi://heroku-fcgi"
	</If>
</FilesMatch>
ProxyTimeout 600
END
	[ -z "$include" ] || echo "Include $(realpath "$include")"
} >"$run/apache.conf"

# Has it finish its requests first.
graceful=WINCH
start_server() { exec apache2 -f "$run/apache.conf" -DFOREGROUND -DNO_DETACH; }
