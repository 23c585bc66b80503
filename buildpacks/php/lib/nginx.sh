# shellcheck shell=bash disable=SC2154,SC2016,SC2034
# Sourced by serve.sh: nginx before PHP-FPM, as an ordinary user.
hidden=
# An app that serves its own root shows what is not meant for the world.
if [ "$root" = "$HOME" ]; then
	hidden='location ~ ^/(vendor/|composer\.|Procfile|app\.json|package) { deny all; }'
fi
cat >"$run/nginx.conf" <<END
daemon off;
pid $run/nginx.pid;
error_log stderr $([ -n "$verbose" ] && echo info || echo error);
worker_processes 2;
events { worker_connections 1024; }
http {
	types {
$(sed 's/$/;/' "$HOME/.heroku/php/mime.types")
	}
	default_type application/octet-stream;
	access_log off;
	server_tokens off;
	sendfile on;
	keepalive_timeout 95s;
	client_max_body_size 100m;
	fastcgi_buffers 256 4k;
	client_body_temp_path $run/body;
	fastcgi_temp_path $run/fastcgi;
	proxy_temp_path $run/proxy;
	uwsgi_temp_path $run/uwsgi;
	scgi_temp_path $run/scgi;
	upstream php { server unix:$socket; }
	upstream heroku-fcgi { server unix:$socket; }
	server {
		listen $port;
		server_name localhost;
		port_in_redirect off;
		root $root;
		index index.php index.html index.htm;
		location ~ /\\.(?!well-known) { deny all; }
		$hidden
		${include:+include $(realpath "${include:-.}");}
		$([ -n "$include" ] || echo 'location / { try_files $uri $uri/ /index.php?$query_string; }')
		location ~ \\.php(/|\$) {
			fastcgi_split_path_info ^(.+?\\.php)(/.*)\$;
			try_files \$fastcgi_script_name =404;
			fastcgi_param SCRIPT_FILENAME \$document_root\$fastcgi_script_name;
			fastcgi_param SCRIPT_NAME \$fastcgi_script_name;
			fastcgi_param PATH_INFO \$fastcgi_path_info;
			fastcgi_param QUERY_STRING \$query_string;
			fastcgi_param REQUEST_METHOD \$request_method;
			fastcgi_param CONTENT_TYPE \$content_type;
			fastcgi_param CONTENT_LENGTH \$content_length;
			fastcgi_param REQUEST_URI \$request_uri;
			fastcgi_param DOCUMENT_URI \$document_uri;
			fastcgi_param DOCUMENT_ROOT \$document_root;
			fastcgi_param SERVER_PROTOCOL \$server_protocol;
			fastcgi_param REQUEST_SCHEME \$http_x_forwarded_proto;
			fastcgi_param HTTPS \$https_on if_not_empty;
			fastcgi_param GATEWAY_INTERFACE CGI/1.1;
			fastcgi_param SERVER_SOFTWARE nginx;
			fastcgi_param REMOTE_ADDR \$remote_addr;
			fastcgi_param REMOTE_PORT \$remote_port;
			fastcgi_param SERVER_ADDR \$server_addr;
			fastcgi_param SERVER_PORT \$server_port;
			fastcgi_param SERVER_NAME \$host;
			fastcgi_param HTTP_PROXY "";
			fastcgi_read_timeout 600s;
			fastcgi_pass php;
		}
	}
	map \$http_x_forwarded_proto \$https_on { default ""; https on; }
}
END

# Has it finish its requests first.
graceful=QUIT
start_server() { exec nginx -e stderr -p "$run" -c "$run/nginx.conf"; }
