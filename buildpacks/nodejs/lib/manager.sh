# shellcheck shell=bash
# Which package manager: the one whose lockfile is there. npm is the stack's; yarn and pnpm come from the registry, in
# the version that package.json names.

choose_manager() {
	local found=() file
	for file in package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml; do
		[ -f "$file" ] && found+=("$file")
	done
	# npm-shrinkwrap.json is npm's own and wins over package-lock.json, which may lie beside it.
	[ "${found[*]-}" = "package-lock.json npm-shrinkwrap.json" ] && found=(npm-shrinkwrap.json)
	if [ "${#found[@]}" -gt 1 ]; then
		fail "Two different lockfiles found: ${found[0]} and ${found[1]}." \
			"They belong to different package managers, which would install different versions." \
			"Keep the one that you use, \`git rm\` the other, commit and push again."
	fi
	LOCKFILE=${found[0]-}
	rm -rf .heroku/yarn .heroku/pnpm
	case $LOCKFILE in
	yarn.lock) choose_yarn ;;
	pnpm-lock.yaml) choose_pnpm ;;
	*) choose_npm ;;
	esac
}

choose_npm() {
	MANAGER=npm
	command -v npm >/dev/null || fail \
		"This app is installed by npm (${LOCKFILE:-package.json}), but there is no npm on this machine." \
		"Its administrator can install it (\`apt-get install npm\`)," \
		"or commit the lockfile of a package manager that is there."
	say "Using npm $(npm --version) of this machine"
}

# The version in `packageManager` of package.json (`pnpm@9.1.0+sha512.…`), else in `engines`; nothing when in neither.
named_version() { # NAME
	local text=${PACKAGE[packageManager]-}
	if [[ $text =~ ^$1@([0-9][0-9A-Za-z.-]*) ]]; then
		echo "${BASH_REMATCH[1]}"
	else
		echo "${PACKAGE[engines.$1]-}"
	fi
}

# Yarn 1 reads another lockfile than all later ones, which many apps carry along as a file of their own.
choose_yarn() {
	MANAGER=yarn YARN_MODERN=
	local version own
	version=$(named_version yarn)
	grep -q '^__metadata:' yarn.lock && YARN_MODERN=yes
	own=$(sed -n 's/^yarnPath: *"\{0,1\}\([^"]*\)"\{0,1\} *$/\1/p' .yarnrc.yml 2>/dev/null | head -n 1)
	if [ -n "$own" ] && [ -f "$own" ]; then
		mkdir -p .heroku/yarn/bin
		printf '#!/bin/sh\nexec node "%s/%s" "$@"\n' /app "$own" >.heroku/yarn/bin/yarn
		chmod +x .heroku/yarn/bin/yarn
		export PATH="$BUILD_DIR/.heroku/yarn/bin:$PATH"
		[ -e "/app/$own" ] || sed -i "s|\"/app/|\"$BUILD_DIR/|" .heroku/yarn/bin/yarn
		say "Using the Yarn of this app ($own)"
	elif [ -n "$YARN_MODERN" ]; then
		fetch_manager yarn @yarnpkg/cli-dist "${version:-4.x}"
	else
		fetch_manager yarn yarn "${version:-1.x}"
	fi
	[ -z "$YARN_MODERN" ] || place_archives
}

# Without node_modules (Plug'n'Play) the packages' archives are what runs, so they have to be in the slug.
place_archives() {
	if grep -q '^nodeLinker: *"\{0,1\}\(node-modules\|pnpm\)' .yarnrc.yml 2>/dev/null; then
		export YARN_ENABLE_GLOBAL_CACHE=true
	else
		export YARN_ENABLE_GLOBAL_CACHE=false YARN_CACHE_FOLDER=$BUILD_DIR/.yarn/cache
	fi
}

choose_pnpm() {
	# shellcheck disable=SC2034 # for the script that sources this
	MANAGER=pnpm
	local version
	version=$(named_version pnpm)
	case $(sed -n "s/^lockfileVersion: *'\{0,1\}\([0-9]*\).*/\1/p" pnpm-lock.yaml | head -n 1) in
	5) fetch_manager pnpm pnpm "${version:-7.x}" ;;
	6) fetch_manager pnpm pnpm "${version:-8.x}" ;;
	*) fetch_manager pnpm pnpm "${version:-10.x}" ;;
	esac
}

# fetch_manager NAME PACKAGE RANGE: into the slug, where `yarn start` of a Procfile finds it, by way of the cache.
fetch_manager() {
	local kept=$CACHE_DIR/tools/$1-${3//[^0-9A-Za-z.]/_}
	if [ ! -d "$kept/node_modules/$2" ]; then
		rm -rf "$CACHE_DIR/tools"
		if ! quietly npm install --prefix "$kept" --no-save --ignore-scripts --no-audit --no-fund --no-package-lock "$2@$3"; then
			indent <"$LOG"
			if offline; then explain_offline "The package registry" npm_config_registry; fi
			fail "Can't get $1 $3, which this app is installed by ($LOCKFILE)." \
				"Is the version that package.json asks for right?"
		fi
	fi
	mkdir -p .heroku
	cp --archive --reflink=auto "$kept" ".heroku/$1"
	ln -sfn node_modules/.bin ".heroku/$1/bin"
	export PATH="$BUILD_DIR/.heroku/$1/bin:$PATH"
	say "Using $1 $("$1" --version 2>/dev/null)"
}
