# shellcheck shell=bash
# Sourced when a dyno of a Java app starts, after JAVA_HOME is set and memory.sh is read.
export PATH="$JAVA_HOME/bin:$PATH"

hokku_heap() { # MEGABYTES: what is left for the heap beside threads, code and buffers
	case $1 in
	[0-9] | [0-9][0-9] | [1-4][0-9][0-9] | 50[0-9] | 51[0-2]) echo "-Xmx$(($1 * 58 / 100))m -Xss512k -XX:CICompilerCount=2" ;;
	51[3-9] | 5[2-9][0-9] | [6-9][0-9][0-9] | 10[01][0-9] | 102[0-4]) echo "-Xmx$(($1 * 65 / 100))m" ;;
	*) echo "-XX:MaxRAMPercentage=80.0" ;;
	esac
}

hokku_opts="-Dfile.encoding=UTF-8 -XX:+ExitOnOutOfMemoryError $(hokku_heap "$(hokku_memory)")"
export JAVA_OPTS="${JAVA_OPTS:-$hokku_opts}"
# One-off dynos often run a tool with a memory of its own.
case ${DYNO-} in
run.*) ;;
*) export JAVA_TOOL_OPTIONS="${JAVA_TOOL_OPTIONS:-$hokku_opts}" ;;
esac
unset hokku_opts
unset -f hokku_heap

# What drivers and Spring want to know of a database, from its URL. Without sslmode: a database on the box speaks no TLS.
if [[ ${DATABASE_URL-} =~ ^(postgres|postgresql|mysql)://([^:@/]*)(:([^@/]*))?@([^?]*)(\?(.*))?$ ]]; then
	hokku_kind=${BASH_REMATCH[1]/#postgres*/postgresql}
	hokku_rest=${BASH_REMATCH[7]:+&${BASH_REMATCH[7]}}
	export JDBC_DATABASE_USERNAME="${JDBC_DATABASE_USERNAME:-${BASH_REMATCH[2]}}"
	export JDBC_DATABASE_PASSWORD="${JDBC_DATABASE_PASSWORD:-${BASH_REMATCH[4]}}"
	hokku_url="jdbc:$hokku_kind://${BASH_REMATCH[5]}?user=${BASH_REMATCH[2]}&password=${BASH_REMATCH[4]}$hokku_rest"
	export JDBC_DATABASE_URL="${JDBC_DATABASE_URL:-$hokku_url}"
	export SPRING_DATASOURCE_URL="${SPRING_DATASOURCE_URL:-$JDBC_DATABASE_URL}"
	export SPRING_DATASOURCE_USERNAME="${SPRING_DATASOURCE_USERNAME:-$JDBC_DATABASE_USERNAME}"
	export SPRING_DATASOURCE_PASSWORD="${SPRING_DATASOURCE_PASSWORD:-$JDBC_DATABASE_PASSWORD}"
	unset hokku_kind hokku_rest hokku_url
fi
if [ -n "${REDIS_URL-}" ]; then
	export SPRING_REDIS_URL="${SPRING_REDIS_URL:-$REDIS_URL}" SPRING_DATA_REDIS_URL="${SPRING_DATA_REDIS_URL:-$REDIS_URL}"
fi
