//! Ruby apps: the real Bundler; its gems are made of Debian's packages.

use crate::LOCK;
use crate::bench::{Bench, answers, fixtures};
use crate::loopback::Served;
use std::fs;
use std::process::Command;

#[test]
fn a_ruby_app_without_gems_is_built() {
    let built = Bench::new("apps/ruby-bare").build().succeeded().said("-----> Ruby app detected");
    built.said("as Gemfile asks for ~> 3.1").in_a_dyno("ruby -e 'puts RUBY_VERSION'");
}

/// The app with the gems of Debian's packages in `vendor/cache`, where Bundler looks first, and a lockfile for them.
fn sinatra() -> Bench {
    let mut bench = Bench::new("apps/ruby-sinatra");
    let app = with_gems();
    bench = bench.bytes("Gemfile.lock", fs::read(app.path().join("Gemfile.lock")).unwrap());
    for file in fs::read_dir(app.path().join("vendor/cache")).unwrap() {
        let path = file.unwrap().path();
        let name = format!("vendor/cache/{}", path.file_name().unwrap().to_str().unwrap());
        bench = bench.bytes(name, fs::read(path).unwrap());
    }
    bench
}

fn with_gems() -> tempfile::TempDir {
    let app = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("apps/ruby-sinatra/Gemfile"), app.path().join("Gemfile")).unwrap();
    let script = fixtures().join("registries/gems.rb");
    assert!(Command::new("/usr/bin/ruby").arg(script).arg(app.path()).status().unwrap().success());
    app
}

#[test]
fn gems_come_from_vendor_cache_without_a_network_and_those_for_development_stay_out() {
    let bench = Bench { cut_off: true, ..sinatra() };
    let built = bench.build().succeeded().said("Installing sinatra ");
    let console = "console: bundle exec irb";
    assert_eq!(built.types(), [console, "web: bundle exec puma -p ${PORT:-5000} -e ${RACK_ENV:-production} config.ru"]);
    answers(&built, "hello from web.1, Sinatra ");
    assert!(!built.made("vendor/bundle/bin/rake").exists());
    bench.build().succeeded().said("-----> Restoring cache\n       - gems").said("Using sinatra ");
}

#[test]
fn gems_come_from_a_gem_server_and_assets_are_precompiled() {
    let place = tempfile::tempdir().unwrap();
    let app = with_gems();
    fs::rename(app.path().join("vendor/cache"), place.path().join("gems")).unwrap();
    let index = Command::new("gem").args(["generate_index", "--silent", "-d"]).arg(place.path()).status().unwrap();
    assert!(index.success());
    let server = Served::http(place.path());
    let named = |file: &str| {
        let text = fs::read_to_string(app.path().join(file)).unwrap();
        // Rake for production as well.
        text.replace("https://gems.invalid", &format!("http://127.0.0.1:{}", server.port))
            .replace("group :development do", "group :production do")
    };
    let rakefile = "namespace(:assets) { task(:precompile) { mkdir_p 'public/assets'; touch 'public/assets/x.css' } }";
    let bench = Bench::new("apps/ruby-sinatra").file("Gemfile", &named("Gemfile")).file("Rakefile", rakefile);
    let built = bench.file("Gemfile.lock", &named("Gemfile.lock")).build().succeeded();
    let built = built.said("Fetching sinatra ").said("-----> Precompiling assets");
    assert!(built.made("public/assets/x.css").is_file());
    assert!(built.types().contains(&"rake: bundle exec rake".to_owned()), "{:?}", built.types());
}

/// A gem that wants to be compiled with a header that no package has.
const NEEDY: &str = r#"
mkdir ext && cat >ext/extconf.rb <<'END'
require "mkmf"
find_header("of_no_package.h") or abort "of_no_package.h is missing"
END
cat >needy.gemspec <<'END'
Gem::Specification.new { |s| s.name = "needy"; s.version = "1.0"; s.summary = s.author = "x"; s.extensions = ["ext/extconf.rb"]; s.files = s.extensions }
END
gem build --silent needy.gemspec
"#;

#[test]
fn a_gem_that_lacks_a_header_is_told_with_what_to_install() {
    let place = tempfile::tempdir().unwrap();
    let made = Command::new("bash").args(["-euc", NEEDY]).current_dir(place.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let lock = "GEM\n  remote: https://gems.invalid/\n  specs:\n    needy (1.0)\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n  needy\n";
    let bench = Bench::new("apps/ruby-bare").file("Gemfile", "source 'https://gems.invalid'\ngem 'needy'\n");
    let gem = fs::read(place.path().join("needy-1.0.gem")).unwrap();
    let text = bench.file("Gemfile.lock", lock).bytes("vendor/cache/needy-1.0.gem", gem).build().failed();
    assert!(text.contains("A gem has to be compiled, but this machine lacks what that needs"), "{text}");
    // Without ruby-dev it is Ruby's own header that is missed first.
    let why = ["of_no_package.h is missing", "can't find header files for ruby"];
    assert!(why.iter().any(|why| text.contains(why)), "{text}");
}

#[test]
fn mistakes_of_ruby_apps_end_in_a_paragraph() {
    let failed = |bench: Bench| bench.build().failed();
    let bare = || Bench::new("apps/ruby-bare");
    let text = failed(Bench::new("inline-hello/public").file("Gemfile", ""));
    assert!(text.contains("There is a Gemfile but no Gemfile.lock."), "{text}");
    let text = failed(bare().file("Gemfile", "ruby '~> 9.1'\n"));
    assert!(text.contains("Gemfile asks for Ruby ~> 9.1, but this machine has"), "{text}");
    let text = failed(bare().file("Gemfile", "ruby 'newest'\n"));
    assert!(text.contains("What Gemfile says is not a version of Ruby: newest"), "{text}");
    let text = failed(sinatra().file("Gemfile", "source 'https://gems.invalid'\ngem 'sinatra', '~> 4.0'\n"));
    assert!(text.contains("Gemfile and Gemfile.lock do not fit together."), "{text}");
    let text = failed(bare().file("Gemfile", "gem 'puma\n").file("Gemfile.lock", LOCK));
    assert!(text.contains("The Gemfile can't be read; the lines above say where."), "{text}");
    let text = failed(Bench { cut_off: true, ..Bench::new("apps/ruby-sinatra") });
    assert!(text.contains("The gem server can't be reached from this machine."), "{text}");
    bare()
        .file("Gemfile", "ruby '3.1.99'\n")
        .build()
        .succeeded()
        .said("Gemfile asks for Ruby 3.1.99, but this machine");
}
