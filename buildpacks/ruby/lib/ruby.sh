# shellcheck shell=bash
# shellcheck disable=SC2034 # HAVE is for the script that sources this
# Which Ruby: the stack's or the box's store's that fits what the app asks for.

# Sets WANTED, a requirement in RubyGems' words (`3.1.2`, `~> 3.1`, `>= 3.0, < 4`), and WANTED_BY.
wanted_ruby() {
	local file=.ruby-version
	WANTED_BY="Gemfile"
	WANTED=$(sed -n "s/^[[:space:]]*ruby[[:space:](][[:space:]]*\(['\"][^#]*\)\$/\1/p" Gemfile | head -n 1 |
		sed "s/,[[:space:]]*[a-z_]*:.*//; s/,[[:space:]]*:.*//; s/['\")]//g")
	if [ -z "$WANTED" ] && grep -qE '^[[:space:]]*ruby[[:space:](]*file:' Gemfile; then
		file=$(sed -n "s/^[[:space:]]*ruby[[:space:](]*file:[[:space:]]*['\"]\([^'\"]*\)['\"].*/\1/p" Gemfile | head -n 1)
	fi
	if [ -z "$WANTED" ]; then
		WANTED=$(sed -n '/^RUBY VERSION/{n;s/^[[:space:]]*ruby[[:space:]]*\([0-9.]*\).*/\1/p}' Gemfile.lock)
		WANTED_BY=Gemfile.lock
	fi
	if [ -z "$WANTED" ] && [ -f "$file" ]; then
		WANTED=$(head -n 1 "$file" | tr -d '[:space:]' | sed 's/^ruby-//; s/p[0-9]*$//')
		WANTED_BY=$file
	fi
}

# fits VERSION REQUIREMENT, by RubyGems itself; 2 when that is no requirement.
fits() {
	local words
	IFS=, read -ra words <<<"$2"
	"$RUBY" -e 'begin
		exit Gem::Requirement.new(ARGV.drop(1).map(&:strip)).satisfied_by?(Gem::Version.new(ARGV[0])) ? 0 : 1
	rescue ArgumentError
		exit 2
	end' "$1" "${words[@]}"
}

choose_ruby() {
	local version dir have
	RUBY=$(command -v ruby) || fail "Ruby is not installed on this machine." \
		"Apps on the host stack use the machine's own programs. Its administrator can install" \
		"the Debian packages ruby and bundler, and you push again."
	command -v bundle >/dev/null || fail "Bundler is not installed on this machine." \
		"Its administrator can install the Debian package bundler, and you push again."
	have=$("$RUBY" -e 'print RUBY_VERSION')
	wanted_ruby
	rm -rf .heroku/ruby
	if [ -z "$WANTED" ]; then
		say "Using Ruby $have of this machine"
		HAVE=$have
		return
	fi
	fits "$have" "$WANTED"
	case $? in
	0)
		say "Using Ruby $have as $WANTED_BY asks for $WANTED"
		HAVE=$have
		return
		;;
	2) fail "What $WANTED_BY says is not a version of Ruby: $WANTED" "Write for example \`ruby \"~> 3.1\"\`." ;;
	esac
	while read -r version dir; do
		[ -n "$version" ] && fits "$version" "$WANTED" && store_ruby "$version" "$dir" && return
	done < <(runtimes ruby)
	near_ruby "$have"
}

store_ruby() { # VERSION DIRECTORY
	mkdir -p .heroku && cp --archive --reflink=auto "$2" .heroku/ruby
	export PATH="$BUILD_DIR/.heroku/ruby/bin:$PATH"
	RUBY=$BUILD_DIR/.heroku/ruby/bin/ruby HAVE=$1
	say "Using Ruby $1 as $WANTED_BY asks for $WANTED"
}

# Another patch of the same minor runs the same code. Bundler would refuse it, so the slug's Gemfile asks for less.
near_ruby() { # HAVE
	local all version dir minor=${WANTED%.*}
	all=$(there ruby "$1")
	if [[ $WANTED =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]]; then
		while read -r version dir; do
			[ "${version%.*}" = "$minor" ] || continue
			near "$WANTED_BY" "Ruby $WANTED" "$all" "$version" \
				"Write \`ruby \"~> $minor.0\"\` into the Gemfile if any patch of $minor will do, or have Ruby $WANTED" \
				"installed on the machine $IMPORT."
			sed -i "s/^\([[:space:]]*ruby[[:space:](][[:space:]]*\)['\"]${WANTED}['\"]/\1'~> $minor.0'/" Gemfile
			if [ "$dir" = stack ]; then HAVE=$version; else store_ruby "$version" "$dir"; fi
			return
		done < <(echo "$1 stack" && runtimes ruby)
	fi
	# These record what was last used, and Bundler does not insist on it.
	if [ "$WANTED_BY" = Gemfile.lock ] || [ "$WANTED_BY" = .ruby-version ]; then
		near "$WANTED_BY" "Ruby $WANTED" "$all" "$1" "Mostly that works. If it does not, have Ruby $WANTED installed on" \
			"the machine $IMPORT."
		HAVE=$1
		return
	fi
	fail "$WANTED_BY asks for Ruby $WANTED, but this machine has $all." \
		"Change the version if the app also works with one of these, or have a fitting Ruby installed on" \
		"the machine $IMPORT."
}
