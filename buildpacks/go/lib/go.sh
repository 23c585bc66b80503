# shellcheck shell=bash
# Which Go: one of the stack or the box's store that is what the app asks for, else a toolchain of the module proxy,
# where every release since 1.21 is a module whose digest the checksum database has.

# Sets WANTED (`1.22`, `1.22.3`), WANTED_BY, and LEAST when a newer one is as good.
wanted_go() {
	local text
	LEAST=
	WANTED=${GOVERSION-} WANTED_BY="the config var GOVERSION"
	if [ -z "$WANTED" ]; then
		WANTED=$(sed -n 's|^//[[:space:]]*+heroku[[:space:]][[:space:]]*goVersion[[:space:]][[:space:]]*||p' go.mod | head -n 1)
		WANTED_BY="go.mod (+heroku goVersion)"
	fi
	if [ -z "$WANTED" ]; then
		WANTED=$(sed -n 's/^toolchain[[:space:]][[:space:]]*//p' go.mod | grep -v '^default' | head -n 1)
		WANTED_BY="go.mod (toolchain)" LEAST=yes
	fi
	if [ -z "$WANTED" ]; then
		WANTED=$(sed -n 's/^go[[:space:]][[:space:]]*//p' go.mod | head -n 1)
		WANTED_BY="go.mod" LEAST=yes
	fi
	text=$(tr -d '[:space:]' <<<"${WANTED%%//*}")
	WANTED=${text#go}
	[[ $WANTED =~ ^(1(\.[0-9]+){1,2}((rc|beta)[0-9]+)?)?$ ]] || fail "$WANTED_BY does not name a version of Go: $text" \
		"Write for example 1.22 or go1.22.3."
}

fits() { # VERSION
	[ -z "$WANTED" ] && return
	if [ -n "$LEAST" ]; then at_least "$1" "$WANTED"; else [[ $1. == "$WANTED".* ]]; fi
}

choose_go() {
	local version dir have=
	wanted_go
	while read -r version dir; do
		have="${have:+$have, }$version"
		fits "$version" && use_go "$version" "$dir" && return
	done < <(installed_go && runtimes go)
	[ -n "$have" ] || fail "Go is not installed on this machine." \
		"Apps on the host stack use the machine's own programs. Its administrator can install" \
		"the Debian package golang-go, and you push again."
	fetch_go "$have"
}

# A line `VERSION DIRECTORY` for each Go of the stack, the usual one first.
installed_go() {
	local dir found=
	for dir in "$(dirname "$(realpath "$(command -v go || echo /usr/bin/go)")")/.." /usr/local/go /usr/lib/go /usr/lib/go-*; do
		[ -x "$dir/bin/go" ] || continue
		dir=$(realpath "$dir")
		[[ $found == *":$dir:"* ]] && continue
		found="$found:$dir:"
		printf '%s %s\n' "$(GOTOOLCHAIN=local "$dir/bin/go" env GOVERSION | sed 's/^go//')" "$dir"
	done
}

use_go() { # VERSION DIRECTORY
	export GOROOT=$2 PATH="$2/bin:$PATH"
	if [ -n "$WANTED" ]; then
		say "Using go$1 ($WANTED_BY asks for $WANTED${LEAST:+ or newer})"
	else
		say "Using go$1"
	fi
}

fetch_go() { # HAVE
	local platform name version dir
	read -r _ dir < <(installed_go && runtimes go)
	[ -n "$dir" ] || no_go "$1"
	platform=$(GOTOOLCHAIN=local "$dir/bin/go" env GOOS)-$(GOTOOLCHAIN=local "$dir/bin/go" env GOARCH)
	say "Fetching a toolchain for $WANTED, this machine has $1"
	name=$(newest_toolchain "$dir" "$platform") || no_go "$1"
	version=${name#v0.0.1-go}
	version=${version%".$platform"}
	if ! dir=$(in_scratch "$dir" mod download -json "golang.org/toolchain@$name" 2>"$LOG" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p') ||
		[ -z "$dir" ]; then
		indent <"$LOG"
		no_go "$1"
	fi
	# A module's files have no right to execute.
	mkdir -p "$(dirname "$(runtime_home go "$version")")"
	mv "$dir" "$(runtime_home go "$version")"
	dir=$(runtime_home go "$version")
	chmod -R u+w "$dir" && chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/*
	rm -rf "$GOMODCACHE/cache/download/golang.org/toolchain"
	runtime_rest go "$dir"
	use_go "$version" "$dir"
}

# An exact version is asked for by its name; of `1.22` the newest is looked up in the proxy's list.
newest_toolchain() { # GO-DIRECTORY PLATFORM
	local proxy
	if [[ $WANTED =~ ^1\.[0-9]+(\.|rc|beta) ]]; then
		echo "v0.0.1-go$WANTED.$2"
		return
	fi
	proxy=$(GOTOOLCHAIN=local "$1/bin/go" env GOPROXY | tr ',|' '\n' | grep -E '^(https?|file)://' | head -n 1)
	curl --fail --silent --show-error --location --retry 2 --max-time 60 "$proxy/golang.org/toolchain/@v/list" 2>"$LOG" |
		grep -E "^v0\.0\.1-go${WANTED//./\\.}(\.[0-9]+)?\.$2\$" | sort -V | tail -n 1 | grep .
}

# in_scratch GO-DIRECTORY ARGUMENT…: that Go, away from the app's go.mod, which it may not understand.
in_scratch() {
	local scratch=$TMPDIR/go-scratch
	mkdir -p "$scratch"
	[ -f "$scratch/go.mod" ] || echo "module scratch" >"$scratch/go.mod"
	(cd "$scratch" && GOFLAGS=-modcacherw GOTOOLCHAIN=local "$1/bin/go" "${@:2}")
}

no_go() { # HAVE
	if offline; then explain_offline "The Go module proxy" GOPROXY; fi
	fail "$WANTED_BY asks for Go $WANTED, but this machine has ${1:-none}." \
		"The module proxy has every release since 1.21; for others change the version, or have a fitting Go" \
		"installed on the machine $IMPORT."
}
