//! An app of each language by the whole path: pushed, built, started, asked, scaled, run.
//!
//! One app a language is in every run of the suite; the others, and what takes minutes, `scripts/test --all` runs.

use crate::hokku::{Hokku, Repository, text};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What an app answers at `/`, and what a one-off command says about its language.
pub(crate) struct Expected<'a> {
    pub(crate) answer: &'a str,
    pub(crate) run: &'a str,
    pub(crate) says: &'a str,
}

fn deploys(fixture: &str, expected: &Expected<'_>) {
    let hokku = Hokku::start();
    let repository = hokku.app("app", fixture);
    works(&hokku, "app", &repository, expected);
}

/// Pushes the app, asks it, scales it, and runs something in it.
pub(crate) fn works(hokku: &Hokku, app: &str, repository: &Repository, expected: &Expected<'_>) -> String {
    let output = hokku.push(repository).expect_success();
    assert!(output.contains("app detected") && output.contains("deployed to hokku"), "{output}");
    let answer = hokku.get(app, "/");
    assert_eq!(answer.status, 200, "{answer:?}\n{}", hokku.log(app));
    assert!(answer.body.contains(expected.answer), "{}", answer.body);
    hokku.ok(&["ps:scale", "web=2", "-a", app]);
    hokku.wait_until_up(app, 2);
    let said = hokku.ok(&["run", expected.run, "-a", app]);
    assert!(said.contains(expected.says), "{said}");
    output
}

/// Puts gems of Debian's packages into the app, and a lockfile for them: of those that are installed, or of unpacked ones.
pub(crate) fn add_gems(repository: &Repository, packages: Option<&Path>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/registries/gems.rb");
    let made = Command::new("/usr/bin/ruby").arg(script).arg(repository.path()).args(packages).status().unwrap();
    assert!(made.success());
    repository.commit("gems");
}

/// Unpacks Debian packages of a release, or of the host's own (`-`).
pub(crate) fn unpack(dir: &Path, release: &str, packages: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/registries/debs.sh");
    assert!(Command::new(script).arg(dir).arg(release).args(packages.split_whitespace()).status().unwrap().success());
}

#[test]
fn a_go_app() {
    let run = "ls bin";
    deploys("apps/go-bare", &Expected { answer: "hello from web.1, go1.", run, says: "hello" });
}

#[test]
#[ignore = "one app of each language is enough; scripts/test --all runs it"]
fn a_go_app_with_chi() {
    deploys("apps/go-chi", &Expected { answer: "hello from web.1, chi", run: "ls bin", says: "worker" });
}

#[test]
fn a_java_app() {
    let run = "java -version 2>&1";
    deploys("apps/java-bare", &Expected { answer: "hello from web.1, Java ", run, says: "openjdk" });
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_spring_boot_app() {
    let run = "java -version 2>&1";
    deploys("apps/java-spring", &Expected { answer: "hello from web.1, Spring Boot 3.5.7", run, says: "openjdk" });
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_quarkus_app() {
    let run = "java -version 2>&1";
    deploys("apps/java-quarkus", &Expected { answer: "hello from web.1, Quarkus 3.20.3", run, says: "openjdk" });
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_micronaut_app() {
    let run = "java -version 2>&1";
    deploys("apps/java-micronaut", &Expected { answer: "hello from web.1, Micronaut 4.10", run, says: "openjdk" });
}

#[test]
fn a_ruby_app_with_sinatra() {
    let hokku = Hokku::start();
    let repository = hokku.app("app", "apps/ruby-sinatra");
    add_gems(&repository, None);
    let expected = Expected { answer: "hello from web.1, Sinatra ", run: "ruby --version", says: "ruby 3." };
    works(&hokku, "app", &repository, &expected);
}

#[test]
#[ignore = "one app of each language is enough; scripts/test --all runs it"]
fn a_ruby_app() {
    deploys("apps/ruby-bare", &Expected { answer: "hello from web.1, Ruby 3.", run: "irb --version", says: "irb" });
}

/// What Rails 6.1 is made of and the host need not have installed.
const RAILS: &str = "racc ruby-actioncable ruby-actionmailbox ruby-actionmailer ruby-actionpack ruby-actiontext \
    ruby-actionview ruby-activejob ruby-activemodel ruby-activerecord ruby-activestorage ruby-activesupport ruby-builder \
    ruby-concurrent ruby-crass ruby-erubi ruby-globalid ruby-i18n ruby-loofah ruby-mail ruby-marcel ruby-method-source \
    ruby-mini-mime ruby-mini-portile2 ruby-nokogiri ruby-rack-test ruby-rails ruby-rails-deprecated-sanitizer \
    ruby-rails-dom-testing ruby-rails-html-sanitizer ruby-railties ruby-sprockets ruby-sprockets-rails ruby-thor \
    ruby-tzinfo ruby-websocket-driver ruby-websocket-extensions ruby-zeitwerk";

#[test]
#[ignore = "fetches forty packages of Debian; scripts/test --all runs it"]
fn a_rails_app_without_a_procfile() {
    let hokku = Hokku::start();
    let repository = hokku.app("app", "apps/ruby-rails");
    let packages = tempfile::tempdir().unwrap();
    unpack(packages.path(), "-", RAILS);
    add_gems(&repository, Some(packages.path()));
    let run = "rails runner 'puts [Rails.env, 6 * 7].inspect'";
    let expected = Expected { answer: "hello from web.1, Rails 6.1.7", run, says: r#"["production", 42]"# };
    let output = works(&hokku, "app", &repository, &expected);
    assert!(output.contains("-----> Precompiling assets"), "{output}");
    assert!(output.contains("Default types for Ruby -> console, rake, web"), "{output}");

    // The sheet is served by the app itself, under the name that it was given when it was precompiled.
    let page = hokku.get("app", "/").body;
    let sheet = page.split('"').find(|part| part.starts_with("/assets/application-")).expect(&page);
    assert_eq!(hokku.get("app", sheet).body, "body { color: darkred; }\n");
    hokku.wait_for_log("app", "Processing by WelcomeController#index");

    // Cookies of an older release are read by the next: the secret is made once, and a config var goes before it.
    let secret =
        || hokku.ok(&["run", "-a", "app", "--no-tty", "--", "rails runner 'puts Rails.application.secret_key_base'"]);
    let made = secret();
    assert_eq!(made.trim().len(), 128, "{made}");
    repository.commit("again");
    assert!(hokku.push(&repository).expect_success().contains("Using rails 6.1.7"));
    assert_eq!(secret(), made);
    let tasks = hokku.ok(&["run", "-a", "app", "--no-tty", "--", "rake -T assets; bin/rails about"]);
    assert!(tasks.contains("rake assets:precompile") && tasks.contains("Rails version      6.1.7"), "{tasks}");
    hokku.ok(&["config:set", "SECRET_KEY_BASE=of the owner", "-a", "app"]);
    assert_eq!(secret(), "of the owner\n");
}

/// Another's files in a fixture's place.
fn lay_over(repository: &Repository, fixture: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
    let copied = Command::new("cp").arg("-R").arg(from.join(".")).arg(repository.path()).status().unwrap();
    assert!(copied.success());
}

/// The app of the test before with `ActiveRecord` and a database in a file, which is each dyno's own.
pub(crate) fn rails_with_sqlite(hokku: &Hokku, packages: &Path, version: &str) {
    let repository = hokku.app("app", "apps/ruby-rails");
    lay_over(&repository, "apps/ruby-rails-sqlite");
    add_gems(&repository, Some(packages));
    let run = "bin/rails db:migrate && rails runner 'puts [Note.create!(text: %q(one)).text, Note.count].inspect'";
    let answer = format!("hello from web.1, Rails {version}");
    let expected = Expected { answer: &answer, run, says: r#"["one", 1]"# };
    let output = works(hokku, "app", &repository, &expected);
    assert!(output.contains("-----> Precompiling assets"), "{output}");
    assert!(output.contains("Default types for Ruby -> console, rake, web"), "{output}");

    // What is typed at the console is asked of the same database that was migrated in that dyno.
    let mut console = hokku.command(&["run", "-a", "app", "--no-tty", "--", "bin/rake db:migrate && rails console"]);
    let mut console = console.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    console.stdin.take().unwrap().write_all(b"puts \"#{Note.count + 41} in #{Rails.env}\"\n").unwrap();
    let said = text(&console.wait_with_output().unwrap().stdout);
    assert!(said.contains("CreateNotes: migrated") && said.contains("41 in production"), "{said}");

    let procfile = "release: bin/rails db:migrate\nweb: bin/rails db:migrate && exec bin/rails server -p $PORT\n";
    repository.write("Procfile", procfile).commit("migrate");
    let output = hokku.push(&repository).expect_success();
    let (_, phase) = output.split_once("-----> Running release command...").expect(&output);
    assert!(phase.contains("CreateNotes: migrated"), "{output}");
    hokku.ok(&["ps:scale", "web=1", "-a", "app"]);
    hokku.wait_until_up("app", 1);
    assert_eq!(["", ""].map(|_| hokku.get("app", "/notes").body), ["1 notes\n", "2 notes\n"]);

    // One that can't be made keeps the code that needs it from being used.
    let wrong = "class Wrong < ActiveRecord::Migration[6.1]\n  def change = drop_table(:none)\nend\n";
    repository.write("db/migrate/20260102000000_wrong.rb", wrong).commit("wrong");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("no such table: none"), "{output}");
    assert_eq!(hokku.get("app", "/notes").body, "3 notes\n", "the dyno before serves on");
}

#[test]
#[ignore = "fetches forty packages of Debian; scripts/test --all runs it"]
fn a_rails_app_with_a_database_and_a_release_phase() {
    let packages = tempfile::tempdir().unwrap();
    unpack(packages.path(), "-", &format!("{RAILS} ruby-sqlite3"));
    rails_with_sqlite(&Hokku::start(), packages.path(), "6.1.7");
}

#[test]
fn a_php_app_with_composer() {
    let run = "php --version";
    deploys("apps/php-composer", &Expected { answer: "hello from web.1 at /, PHP 8.", run, says: "PHP 8." });
}

#[test]
#[ignore = "one app of each language is enough; scripts/test --all runs it"]
fn a_php_app() {
    let run = "php -r 'echo PHP_VERSION;'";
    deploys("apps/php-bare", &Expected { answer: "hello from web.1, PHP 8.", run, says: "8." });
}

#[test]
#[ignore = "one app of each language is enough; scripts/test --all runs it"]
fn a_php_app_behind_apache() {
    let says = "Server version: Apache";
    deploys(
        "apps/php-apache",
        &Expected { answer: "hello from web.1 at / by Apache and PHP 8.", run: "apache2 -v", says },
    );
}

#[test]
fn a_scala_app() {
    let run = "java -version 2>&1";
    deploys("apps/scala-bare", &Expected { answer: "hello from web.1, Scala 2.13.16", run, says: "openjdk" });
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_scala_app_with_a_procfile() {
    let hokku = Hokku::start();
    let repository = hokku.app("app", "apps/scala-bare");
    let command = "target/universal/stage/bin/hello -Dhttp.port=$PORT";
    repository.write("Procfile", &format!("web: {command}\nworker: {command} -Dof=worker\n")).commit("Procfile");
    let (answer, run) = ("hello from web.1, Scala 2.13.16", "java -version 2>&1");
    let output = works(&hokku, "app", &repository, &Expected { answer, run, says: "openjdk" });
    assert!(output.contains("web, worker"), "{output}");
}

/// Its `app.json` has the secret made without which it does not start.
#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_play_app() {
    let run = "ls target/universal/stage/bin";
    deploys("apps/scala-play", &Expected { answer: "hello from web.1, Play 3.0.9", run, says: "hello" });
}

#[test]
fn a_clojure_app() {
    let run = "java -version 2>&1";
    deploys("apps/clojure-lein", &Expected { answer: "hello from web.1, Clojure 1.11.1", run, says: "openjdk" });
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_clojure_app_with_deps_edn() {
    let run = "java -version 2>&1";
    deploys("apps/clojure-deps", &Expected { answer: "hello from web.1, Clojure 1.11.1", run, says: "openjdk" });
}

/// What Ring and its Jetty adapter are made of.
const RING: &str = "libapache-pom-java libclojure-java libcommons-codec-java libcommons-fileupload-java libcommons-io-java \
    libcommons-parent-java libcore-specs-alpha-clojure libcrypto-equality-clojure libcrypto-random-clojure \
    libjetty9-java libring-codec-clojure libring-core-clojure libring-jetty-adapter-clojure libring-servlet-clojure \
    libservlet-api-java libspec-alpha-clojure";

/// Its libraries are in the app, as those are that no registry has.
#[test]
#[ignore = "fetches packages of Debian; scripts/test --all runs it"]
fn a_ring_app_of_leiningen_becomes_an_uberjar() {
    let hokku = Hokku::start();
    let repository = hokku.app("app", "apps/clojure-ring");
    let packages = tempfile::tempdir().unwrap();
    unpack(packages.path(), "-", RING);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/registries/maven.sh");
    let made = Command::new(script).arg(repository.path().join("maven_repository")).arg(packages.path()).status();
    assert!(made.unwrap().success());
    repository.commit("libraries");
    let expected = Expected {
        answer: "hello from web.1, Ring on Clojure 1.11.1",
        run: "java -version 2>&1; unzip -l target/hello-standalone.jar",
        says: "ring/adapter/jetty.clj",
    };
    let output = works(&hokku, "app", &repository, &expected);
    assert!(output.contains("Default types for Clojure -> web"), "{output}");
    assert!(hokku.get("app", "/?name=Rich").body.contains(", Rich on Clojure"));
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_clojure_app_with_a_build_clj() {
    let run = "java -version 2>&1";
    deploys("apps/clojure-build", &Expected { answer: "hello from web.1, Clojure 1.11.1", run, says: "openjdk" });
}

#[test]
#[ignore = "one app of each language is enough; scripts/test --all runs it"]
fn a_node_app_without_packages() {
    let run = "node --version";
    deploys("apps/nodejs-bare", &Expected { answer: "hello from web.1, Node.js v", run, says: "v" });
}

#[test]
#[ignore = "one app of each language is enough; scripts/test --all runs it"]
fn node_apps_of_yarn_and_pnpm() {
    for (fixture, run) in [("nodejs-yarn", "yarn"), ("nodejs-yarn-pnp", "yarn"), ("nodejs-pnpm", "pnpm")] {
        let run = format!("{run} --version");
        let expected = Expected { answer: "hello, a day has 86400000 ms", run: &run, says: "." };
        deploys(&format!("apps/{fixture}"), &expected);
    }
}

#[test]
#[ignore = "one app of each language is enough; scripts/test --all runs it"]
fn a_python_app_of_the_standard_library() {
    let run = "python --version";
    deploys("apps/python-bare", &Expected { answer: "hello from web.1, Python 3.", run, says: "Python 3." });
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn python_apps_of_pipenv_poetry_and_uv() {
    for manager in ["pipenv", "poetry", "uv"] {
        let run = "python -c 'import six; print(six.__version__)'";
        let expected = Expected { answer: "hello from web.1, six 1.17.0", run, says: "1.17.0" };
        deploys(&format!("apps/python-{manager}"), &expected);
    }
}

#[test]
#[ignore = "one app of each language is enough; scripts/test --all runs it"]
fn a_django_app() {
    let run = "python manage.py check";
    deploys("apps/python-django", &Expected { answer: "hello from web.1, Django 4.2", run, says: "no issues" });
}
