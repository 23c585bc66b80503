//! PHP apps: the real Composer, and PHP-FPM behind a web server.

use crate::bench::{Bench, fixtures, served};
use crate::loopback::free_port;
use std::fs;

#[test]
fn a_php_app_is_served_by_fpm_behind_nginx() {
    let built = Bench::new("apps/php-bare").build().succeeded().said("-----> PHP app detected");
    assert_eq!(built.types(), ["web: heroku-php-nginx"]);
    let answer = served(&built, "/");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello from web.1, PHP 8."), "{answer}");
    let own = "command -v nginx php-fpm$(php -r 'echo PHP_MAJOR_VERSION.\".\".PHP_MINOR_VERSION;')";
    let found = built.in_a_dyno(own);
    assert!(found.starts_with("/usr/sbin/nginx\n/usr/sbin/php-fpm8."), "a Procfile may start them by itself: {found}");
    assert!(served(&built, "/.profile.d/php.sh").starts_with("HTTP/1.1 403"), "what begins with a dot is not shown");
}

#[test]
fn a_php_app_is_served_by_fpm_behind_apache_which_reads_its_htaccess() {
    let built = Bench::new("apps/php-apache").build().succeeded();
    assert_eq!(built.types(), ["web: heroku-php-apache2 public/"]);
    let answer = served(&built, "/deep/path?x=1");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("X-Htaccess: read\n"), "{answer}");
    assert!(answer.contains("hello from web.1 at /deep/path?x=1 by Apache and PHP 8."), "{answer}");
    assert!(served(&built, "/style.css").contains("Content-Type: text/css"));
    for path in ["/private/x", "/.htaccess"] {
        assert!(served(&built, path).starts_with("HTTP/1.1 403"), "{path}");
    }
    let answer = served(&built, "/ -u ada:secret -H X-Forwarded-Proto:https");
    assert!(answer.contains(" to ada by https"), "{answer}");

    // Without a document root of its own nothing but the app's pages is shown.
    let bare = Bench::new("apps/php-bare").file("Procfile", "web: heroku-php-apache2\n").build().succeeded();
    assert!(served(&bare, "/").contains("hello from web.1, PHP 8."));
    for path in ["/.profile.d/php.sh", "/Procfile", "/vendor/bin/heroku-php-nginx"] {
        assert!(served(&bare, path).starts_with("HTTP/1.1 403"), "{path}");
    }
}

/// Starts a web process, asks for what takes until somebody lets it end, and stops the process meanwhile.
const STOPPED_WHILE_IT_ANSWERS: &str = r#"
    exec 2>&1
    heroku-php-$SERVER public/ >/tmp/log & web=$!
    until curl -s -o /dev/null http://127.0.0.1:$PORT/; do kill -0 $web || { cat /tmp/log; exit 1; }; sleep 0.05; done
    curl -s "http://127.0.0.1:$PORT/index.php?wait" & answer=$!
    until [ -e /tmp/begun ]; do kill -0 $answer || exit 1; sleep 0.05; done
    kill $web
    while curl -s -m 1 -o /dev/null http://127.0.0.1:$PORT/style.css; do sleep 0.05; done
    touch /tmp/end
    wait $answer; echo "curl: $?"
    wait $web; echo "web: $?""#;

#[test]
fn a_web_process_of_php_finishes_its_requests_before_it_stops() {
    let built = Bench::new("apps/php-apache").build().succeeded();
    for (server, name) in [("apache2", "Apache"), ("nginx", "nginx")] {
        let script = format!("export PORT={} DYNO=web.1 SERVER={server}; {STOPPED_WHILE_IT_ANSWERS}", free_port());
        let said = built.in_a_dyno(&script);
        assert!(said.contains(&format!(" at /index.php?wait by {name} and PHP ")), "{said}");
        assert!(said.ends_with("curl: 0\nweb: 0"), "{server}: {said}");
    }
}

#[test]
fn packages_of_a_php_app_are_installed_by_composer_from_the_lockfile() {
    let bench = Bench { cut_off: true, ..Bench::new("apps/php-composer") };
    let built = bench.build().succeeded().said("Installing example/greeter").said("-----> Running composer compile");
    assert_eq!(built.text("compiled.txt"), "compiled\n");
    assert_eq!(built.types(), ["web: vendor/bin/heroku-php-nginx public/"]);
    let answer = served(&built, "/deep/path?x=1");
    assert!(answer.contains("hello from web.1 at /deep/path?x=1, PHP 8."), "{answer}");
    assert!(served(&built, "/style.css").contains("Content-Type: text/css"));
}

#[test]
fn mistakes_of_php_apps_end_in_a_paragraph() {
    let failed = |bench: Bench| bench.build().failed();
    let text = failed(Bench::new("apps/php-composer").file("composer.json", "{"));
    assert!(text.contains("composer.json can't be read: Syntax error."), "{text}");
    let text = failed(Bench::new("apps/php-bare").file("composer.json", r#"{"require":{"a/b":"1"}}"#));
    assert!(text.contains("composer.json requires packages, but there is no composer.lock."), "{text}");
    let composer = || fs::read_to_string(fixtures().join("apps/php-composer/composer.json")).unwrap();
    let lock = || fs::read_to_string(fixtures().join("apps/php-composer/composer.lock")).unwrap();
    let with = |from: &str, to: &str| {
        let bench = Bench { cut_off: true, ..Bench::new("apps/php-composer") };
        bench.file("composer.json", &composer().replace(from, to)).file("composer.lock", &lock().replace(from, to))
    };
    let text = failed(with("\"php\": \">=8.1\"", "\"php\": \">=9.1\""));
    assert!(text.contains("asks for another version of PHP than this machine's 8."), "{text}");
    let text = failed(with("\"php\": \">=8.1\"", "\"ext-rdkafka\": \"*\""));
    assert!(text.contains("The app needs the PHP extension rdkafka") && text.contains("php-rdkafka"), "{text}");
    let text = failed(with("\"example/greeter\": \"1.0.0\"", "\"example/greeter\": \"1.0.0\", \"a/b\": \"1.0\""));
    assert!(text.contains("composer.json and composer.lock do not fit together."), "{text}");
}
