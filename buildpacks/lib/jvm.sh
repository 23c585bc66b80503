# shellcheck shell=bash
# The Java that Java, Gradle, Scala and Clojure apps share: which one, with what memory, and Maven for fetching single
# files of the central repository. Copied like output.sh; needs runtime.sh.

# Sets JAVA_WANTED (a major version), JAVA_EXACT (what is written of it, `21.0.2`) and JAVA_WANTED_BY.
wanted_java() {
	local text=
	JAVA_WANTED_BY=system.properties
	if [ -f system.properties ]; then
		text=$(sed -n 's/^[[:space:]]*java\.runtime\.version[[:space:]]*[=:][[:space:]]*//p' system.properties | head -n 1)
	fi
	if [ -z "$text" ] && [ -f .java-version ]; then
		JAVA_WANTED_BY=.java-version
		text=$(grep -v '^[[:space:]]*\(#\|$\)' .java-version | head -n 1)
	fi
	text=$(tr -d '[:space:]' <<<"$text")
	# `zulu-21`, `temurin-21.0.2+13`, `1.8.0_292`: the vendor is the machine's, and so is the build.
	JAVA_EXACT=${text##*[a-z]-}
	JAVA_EXACT=${JAVA_EXACT%%[+-]*}
	JAVA_EXACT=${JAVA_EXACT%.[x*]}
	JAVA_WANTED=${JAVA_EXACT#1.}
	JAVA_WANTED=${JAVA_WANTED%%[._]*}
	[[ $JAVA_WANTED =~ ^[0-9]*$ ]] || fail "$JAVA_WANTED_BY does not name a version of Java: $text" \
		"Write for example \`java.runtime.version=21\` into system.properties."
}

# A line `VERSION DIRECTORY` for each JDK of the stack and the store, the stack's usual one first.
javas() {
	local dir found=
	for dir in /usr/lib/jvm/default-java /usr/lib/jvm/*; do
		[ -x "$dir/bin/javac" ] || continue
		dir=$(realpath "$dir")
		[[ $found == *":$dir:"* ]] && continue
		found="$found:$dir:"
		printf '%s %s\n' "$(java_version "$dir")" "$dir"
	done
	runtimes java
}

java_version() { # DIRECTORY
	sed -n 's/^JAVA_VERSION="\(.*\)"/\1/p' "$1/release" 2>/dev/null | grep . ||
		"$1/bin/java" -version 2>&1 | sed -n 's/^.* version "\([^"]*\)".*/\1/p'
}

# The one asked for, else another patch of it, else the lowest newer one, which compiles for older ones too.
choose_java() {
	local version dir major have='' near='' near_dir='' near_major=
	wanted_java
	while read -r version dir; do
		have="${have:+$have, }$version"
		major=${version#1.}
		major=${major%%.*}
		if [ -z "$JAVA_WANTED" ] || { [ "$major" = "$JAVA_WANTED" ] && is_exact "$version"; }; then
			use_java "$version" "$dir" "${JAVA_WANTED:+ as $JAVA_WANTED_BY asks for $JAVA_EXACT}"
			return
		elif [ "$major" -ge "$JAVA_WANTED" ] && { [ -z "$near" ] || [ "$major" -lt "$near_major" ]; }; then
			near=$version near_dir=$dir near_major=$major
		fi
	done < <(javas)
	[ -n "$have" ] || fail "There is no JDK on this machine." \
		"Apps on the host stack use the machine's own programs. Its administrator can install" \
		"the Debian package default-jdk-headless, and you push again."
	local advice=("Have a JDK $JAVA_EXACT installed on the machine (openjdk-$JAVA_WANTED-jdk-headless, where Debian has it)"
		"$IMPORT, or write a version that is there into $JAVA_WANTED_BY.")
	[ -n "$near" ] || fail "$JAVA_WANTED_BY asks for Java $JAVA_EXACT, but this machine has $have." "${advice[@]}"
	near "$JAVA_WANTED_BY" "Java $JAVA_EXACT" "$have" "$near" "Mostly that works. If it does not:" "${advice[@]}"
	use_java "$near" "$near_dir" ""
}

# Whether a version of the right major is the one that was written, as far as it was.
is_exact() { [ "$JAVA_EXACT" = "$JAVA_WANTED" ] || [[ $1. == "$JAVA_EXACT".* || $1. == "1.$JAVA_EXACT".* ]]; }

# The slug has a copy of a JDK that is not the stack's: it outlives the cache.
use_java() { # VERSION DIRECTORY WHY
	export JAVA_HOME=$2
	if [[ $2 != /usr/* ]]; then
		rm -rf .jdk && cp --archive --reflink=auto "$2" .jdk
		JAVA_HOME=$BUILD_DIR/.jdk
	fi
	export PATH="$JAVA_HOME/bin:$PATH"
	say "Using OpenJDK $1$3"
	choose_build_jvm
}

# Sets BUILD_JVM, the options of a JVM that only builds, and has Maven take them. The build dyno's memory is no machine's: a tool that takes a
# quarter of it is too small, one that takes all is killed. And such a JVM ends before the optimizing compiler and a
# collector with threads of its own pay off: without them Maven and sbt need less than half of the CPU time.
choose_build_jvm() {
	BUILD_JVM=("-Xmx$(($(hokku_memory) * 5 / 8))m" -XX:+UseSerialGC -XX:TieredStopAtLevel=1)
	export MAVEN_OPTS=${MAVEN_OPTS:-${BUILD_JVM[*]}}
}

# Where dynos find Java, and what memory it takes: run_time_profile LIB-DIRECTORY
jvm_profile() {
	mkdir -p .profile.d
	{
		if [ -d .jdk ]; then
			# shellcheck disable=SC2016 # for the dyno's shell
			echo 'export JAVA_HOME="$HOME/.jdk"'
		else
			echo "export JAVA_HOME=$JAVA_HOME"
		fi
		cat "$PACK_DIR/lib/memory.sh" "$PACK_DIR/lib/jvm-profile.sh"
	} >.profile.d/jvm.sh
	cat >"$PACK_DIR/export" <<END
export JAVA_HOME="$JAVA_HOME"
export PATH="$JAVA_HOME/bin:\$PATH"
END
}

# use_maven: sets MVN to a Maven that runs, with its repository in the app's cache.
use_maven() {
	command -v mvn >/dev/null || fail "There is no Maven on this machine." \
		"Its administrator can install the Debian package maven," \
		"or add Maven's wrapper to the app (\`mvn wrapper:wrapper\`)."
	MVN=mvn
}

# central GROUP:ARTIFACT:VERSION[:TYPE[:CLASSIFIER]] DIRECTORY: fetches one file, by Maven, which checks its digest.
central() {
	use_maven
	mkdir -p "$2"
	(cd "$TMPDIR" && quietly "$MVN" -B -ntp -q "-Dmaven.repo.local=$CACHE_DIR/.m2/repository" \
		org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy "-Dartifact=$1" "-DoutputDirectory=$2")
}

# Why Maven, sbt and Leiningen fail to get something.
explain_central() {
	if distrusted; then
		explain_distrust "the repository"
	elif offline || grep -q 'transfer failed for ' "$LOG"; then
		explain_offline "The repository of Java packages" MAVEN_MIRROR_URL
	elif grep -qE 'Could not (find|resolve) (artifact|dependenc)|not found: .*\.pom|Could not find artifact|Failed to read artifact' "$LOG"; then
		warn "A dependency or plugin was not found; the lines above say which. Is its version right?"
	elif grep -q 'OutOfMemoryError' "$LOG"; then
		warn "The build tool ran out of memory. Give builds more, or the tool less to do at once."
	fi
}

# biggest_jar DIRECTORY: the one that has everything in it, rather than sources, documentation or a part.
biggest_jar() {
	find "$1" -maxdepth 1 -name '*.jar' -not -name '*-sources.jar' -not -name '*-javadoc.jar' -not -name '*-tests.jar' \
		-not -name '*-plain.jar' -not -name 'original-*' -printf '%s %f\n' 2>/dev/null | sort -rn | head -n 1 | cut -d ' ' -f 2-
}

# framework_command DIRECTORY-OF-JARS FILE…: the web process of what the build files say the app is made with.
framework_command() {
	local jar dir=$1
	shift
	jar=$(biggest_jar "$dir")
	if [ -f "${dir%/libs}/quarkus-app/quarkus-run.jar" ]; then
		# shellcheck disable=SC2016 # for the dyno's shell
		echo "java -Dquarkus.http.host=0.0.0.0 -Dquarkus.http.port=\$PORT \$JAVA_OPTS -jar ${dir%/libs}/quarkus-app/quarkus-run.jar"
	elif [ -z "$jar" ]; then
		return
	elif grep -qs 'spring-boot\|org.springframework.boot' "$@"; then
		echo "java -Dserver.port=\$PORT \$JAVA_OPTS -jar $dir/$jar"
	elif grep -qs 'io.micronaut' "$@"; then
		echo "java -Dmicronaut.server.port=\$PORT \$JAVA_OPTS -jar $dir/$jar"
	fi
}

# release_yaml COMMAND
release_yaml() {
	echo "---"
	[ -z "$1" ] || printf 'default_process_types:\n  web: %s\n' "$1"
}
