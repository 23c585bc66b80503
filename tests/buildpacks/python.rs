//! Python apps: pip, Pipenv, Poetry and uv install from the real registry.

use crate::bench::{APP, Bench, answers, fixtures};
use std::fs;
use std::process::Command;

#[test]
fn a_python_app_is_detected_installed_and_cached() {
    let bench = Bench::new("python-hello");
    let first = bench.build().succeeded().said("-----> Python app detected").said("Installing requirements with pip");
    assert_eq!(first.types(), ["web: python app.py"]);
    let seen = first.in_a_dyno("python -c 'import six, sys; print(six.__version__, sys.prefix)'");
    assert_eq!(seen, "1.17.0 /app/.heroku/python");
    assert_eq!(first.in_a_dyno("pip --version | cut -d ' ' -f 1"), "pip", "scripts find their interpreter");

    let second = bench.build().succeeded().said("using the packages of the last build");
    assert_eq!(second.in_a_dyno("python -c 'import six; print(six.__version__)'"), "1.17.0");
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn pipenv_poetry_and_uv_install_from_their_lockfiles() {
    for (manager, app) in [("Pipenv", "apps/python-pipenv"), ("Poetry", "apps/python-poetry"), ("uv", "apps/python-uv")]
    {
        let bench = Bench::new(app);
        let built = bench.build().succeeded().said(&format!("Installing dependencies with {manager}"));
        answers(&built, "hello from web.1, six 1.17.0");
        let seen = built.in_a_dyno("python -c 'import iniconfig' 2>/dev/null || echo none");
        assert_eq!(seen, "none", "{manager}: development packages stay out");
        bench.build().succeeded().said("using the packages of the last build");
    }
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_lockfile_out_of_date_is_said_by_pipenv_poetry_and_uv() {
    let wheel = "wheels/six-1.17.0-py2.py3-none-any.whl";
    let bench = Bench::new("apps/python-pipenv").file("Pipfile", "[packages]\nsix = \"==1.16.0\"\n");
    let text = bench.build().failed();
    assert!(text.contains("Pipfile.lock is out of date. Run `pipenv lock`"), "{text}");
    let pyproject = "[tool.poetry]\npackage-mode = false\n[tool.poetry.dependencies]\npython = \">=3.9\"\n";
    let bench = Bench::new("apps/python-poetry").file("pyproject.toml", pyproject).bytes(wheel, Vec::new());
    let text = bench.build().failed();
    assert!(text.contains("poetry.lock is out of date. Run `poetry lock`"), "{text}");
    let lock = "version = 1\nrevision = 3\nrequires-python = \">=3.9\"\n";
    let text = Bench::new("apps/python-uv").file("uv.lock", lock).build().failed();
    assert!(text.contains("uv.lock is out of date. Run `uv lock`"), "{text}");
}

/// The machine's own Python in another place, where it has a version of its own.
#[test]
fn a_python_of_the_store_is_carried_by_the_slug() {
    let bench = Bench::new("apps/python-bare").file(".python-version", "3.77\n");
    let text = bench.build().failed();
    assert!(text.contains(".python-version asks for Python 3.77, but this machine has 3.1"), "{text}");
    assert!(text.contains("`hokku runtime:import FILE`"), "{text}");

    // The cache has the form of the store, and a test may write there.
    let place = bench.root.path().join(format!("cache/{APP}/python/runtimes/python/3.77.1"));
    let copy = "mkdir -p \"$1/bin\" \"$1/lib\" && p=$(realpath /usr/bin/python3) && cp \"$p\" \"$1/bin/python3\" &&
        cp -r \"/usr/lib/${p##*/}\" \"$1/lib/\" && sed -i 's/^def python_version():$/&\\n    return \"3.77.1\"/' \"$1\"/lib/*/platform.py &&
        chown -R 1000:1000 \"${1%/python/runtimes/*}\"";
    assert!(Command::new("sh").args(["-euc", copy, "-"]).arg(&place).status().unwrap().success());
    let built = bench.build().succeeded().said("Using Python 3.77.1 as .python-version asks for 3.77");
    let asks = "import platform, sys; print(platform.python_version(), sys.prefix, sys.base_prefix)";
    let said = built.in_a_dyno(&format!("python -c '{asks}'"));
    assert_eq!(said, "3.77.1 /app/.heroku/python /app/.heroku/cpython");
    answers(&built, "hello from web.1, Python 3.77.1");
    bench.build().succeeded().said("using the packages of the last build");
    let bench = bench.file(".python-version", "3.77.9\n");
    let said = ".python-version asks for Python 3.77.9, but this machine has 3.1";
    bench.build().succeeded().said(said).said("3.77.1: using 3.77.1.");
}

#[test]
fn static_files_of_a_django_app_are_collected() {
    let bench = Bench::new("apps/python-django");
    let built = bench.build().succeeded().said("-----> Collecting static files").said("static file copied to");
    assert_eq!(built.text("staticfiles/shop.css"), "body { color: black }\n");
    assert_eq!(built.types(), ["web: gunicorn shop.wsgi"]);

    let settings = fs::read_to_string(fixtures().join("apps/python-django/shop/settings.py")).unwrap();
    let without: Vec<&str> = settings.lines().filter(|line| !line.contains("STATIC_ROOT")).collect();
    let without = without.join("\n") + "\n";
    let text = bench.bytes("shop/settings.py", without.into_bytes()).build().failed();
    assert!(text.contains("STATIC_ROOT = BASE_DIR / \"staticfiles\""), "{text}");
    assert!(text.contains("collectstatic --noinput` failed; its output is above."), "{text}");
    let bench = Bench::new("apps/python-django").config("DISABLE_COLLECTSTATIC", "1");
    bench.build().succeeded().said("Skipped because DISABLE_COLLECTSTATIC is set");
}

#[test]
fn a_django_app_has_a_default_web_process() {
    let manage = "import os\nos.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\n";
    let built = Bench::new("python-hello").file("manage.py", manage).file("Procfile", "worker: x").build().succeeded();
    assert_eq!(built.types(), ["web: python manage.py runserver 0.0.0.0:$PORT", "worker: x"]);
}

#[test]
fn mistakes_of_python_apps_end_in_a_paragraph() {
    let python = || Bench::new("python-hello");
    let failed = |bench: Bench| bench.build().failed();
    let text = failed(python().file("poetry.lock", ""));
    assert!(text.contains("Files of several package managers found: requirements.txt poetry.lock."), "{text}");
    assert!(text.contains(" !     Push rejected, failed to compile Python app."), "{text}");

    let text = failed(python().file("runtime.txt", "python-2.7.18"));
    assert!(text.contains("runtime.txt does not name a Python version: 2.7.18"), "{text}");

    let text = failed(python().file(".python-version", "3.1"));
    assert!(text.contains(".python-version asks for Python 3.1, but this machine has"), "{text}");

    let text = failed(python().file("requirements.txt", "six==0.0.1\n"));
    assert!(text.contains("A package or version that requirements.txt asks for does not exist"), "{text}");
}
