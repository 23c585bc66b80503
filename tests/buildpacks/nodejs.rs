//! Node.js apps: npm, Yarn and pnpm install from the real registry.

use crate::bench::Bench;
use std::path::Path;
use std::process::Command;

#[test]
fn a_node_app_is_detected_installed_and_cached() {
    let bench = Bench::new("node-hello");
    let first = bench.build().succeeded().said("-----> Node.js app detected").said("Installing node modules");
    assert_eq!(first.types(), ["web: npm start"]);
    assert_eq!(first.outcome().detected.map(|index| first.choice.packs[index].to_string()).unwrap(), "heroku/nodejs");
    assert!(first.made("node_modules/ms/index.js").is_file());
    assert!(!first.made("node_modules/is-number").exists(), "development packages are pruned");
    let seen = first.in_a_dyno("echo $NODE_ENV $WEB_MEMORY; node -p \"require('ms')('1s')\"");
    assert_eq!(seen, "production 512\n1000");

    let second = bench.build().succeeded().said("using the packages of the last build");
    assert!(second.made("node_modules/ms/index.js").is_file() && !second.made("node_modules/is-number").exists());
}

#[test]
fn the_scripts_of_package_json_run_in_herokus_order() {
    let scripts = r#"{"name":"x","version":"1.0.0","private":true,"main":"serve.js","scripts":{
        "heroku-prebuild":"echo one $FROM_CONFIG >trace","build":"echo never","heroku-postbuild":"echo two >>trace",
        "heroku-cleanup":"echo three >>trace"}}"#;
    let built = Bench::new("node-hello")
        .file("package.json", scripts)
        .file("package-lock.json", r#"{"name":"x","version":"1.0.0","lockfileVersion":3,"packages":{}}"#)
        .file("serve.js", "")
        .config("FROM_CONFIG", "config")
        .build()
        .succeeded();
    assert_eq!(built.text("trace"), "one config\ntwo\nthree\n");
    // server.js is there as well and wins over "main".
    assert_eq!(built.types(), ["web: node server.js"]);
}

#[test]
fn development_packages_are_there_while_building_and_gone_afterwards() {
    let package = r#"{"name":"node-hello","version":"1.0.0","private":true,"engines":{"node":">=18"},
        "scripts":{"build":"node -p \"'7 is a number: ' + require('is-number')(7)\""},
        "dependencies":{"ms":"2.1.3"},"devDependencies":{"is-number":"7.0.0"}}"#;
    let bench = Bench::new("node-hello").file("package.json", package);
    for _ in 0..2 {
        let built = bench.build().succeeded().said("       7 is a number: true\n");
        assert!(built.made("node_modules/ms").exists() && !built.made("node_modules/is-number").exists());
    }
}

#[test]
fn mistakes_of_node_apps_end_in_a_paragraph() {
    let node = || Bench::new("node-hello");
    let failed = |bench: Bench| bench.build().failed();
    let text = failed(node().file("yarn.lock", ""));
    assert!(text.contains("Two different lockfiles found: package-lock.json and yarn.lock."), "{text}");
    assert!(text.contains(" !     Push rejected, failed to compile Node.js app."), "{text}");

    let text = failed(node().file("package.json", "{"));
    assert!(text.contains("package.json can't be read"), "{text}");

    let text = failed(node().file("package.json", r#"{"engines":{"node":"99.x"}}"#));
    let said = "There is no release of Node.js that package.json (engines.node) asks for: 99.x";
    assert!(text.contains(said), "{text}");

    let text = failed(node().file("package.json", r#"{"engines":{"node":"newest"}}"#));
    assert!(text.contains("What package.json (engines.node) says is not a version range: newest"), "{text}");

    let text = failed(node().file("package.json", r#"{"dependencies":{"ms":"2.1.2"}}"#));
    assert!(text.contains("package.json and package-lock.json do not fit together."), "{text}");

    let text = failed(node().file(
        "package.json",
        r#"{"scripts":{"build":"echo broken; exit 7"},"dependencies":{"ms":"2.1.3"},"devDependencies":{"is-number":"7.0.0"}}"#,
    ));
    assert!(text.contains("       broken\n") && text.contains("The script \"build\" of package.json failed"), "{text}");
}

/// The three package managers install what their lockfile says, drop what is only for development, and their second
/// build takes nothing from the registry.
#[test]
fn yarn_and_pnpm_apps_are_installed_from_their_lockfiles() {
    for (app, said) in [("apps/nodejs-yarn", "Using yarn 1.22"), ("apps/nodejs-pnpm", "Using pnpm 10.")] {
        let bench = Bench::new(app);
        let built = bench.build().succeeded().said(said).said("       true\n");
        assert_eq!(built.types(), ["web: npm start"]);
        assert!(!built.made("node_modules/is-number").exists(), "development packages are pruned");
        assert_eq!(built.in_a_dyno("node -p \"require('ms')('1s')\""), "1000");
        let manager = app.rsplit('-').next().unwrap();
        assert!(!built.in_a_dyno(&format!("{manager} --version")).is_empty(), "a Procfile may start it by {manager}");
        // The lockfile of Yarn names no registry, so Yarn has to ask one.
        Bench { cut_off: manager == "pnpm", ..bench }.build().succeeded().said(said);
    }
}

#[test]
fn yarn_without_node_modules_brings_its_archives() {
    let bench = Bench::new("apps/nodejs-yarn-pnp");
    let built = bench.build().succeeded().said("Using yarn 4.18.1");
    assert_eq!(built.types(), ["web: yarn start"]);
    assert_eq!(built.in_a_dyno("yarn node -p \"require('ms')('1s')\""), "1000");
}

#[test]
fn a_lockfile_out_of_date_is_said_by_yarn_and_pnpm() {
    for app in ["apps/nodejs-yarn", "apps/nodejs-pnpm"] {
        let package = r#"{"name":"x","version":"1.0.0","dependencies":{"ms":"2.1.2"}}"#;
        let text = Bench::new(app).file("package.json", package).build().failed();
        assert!(text.contains("do not fit together.") && text.contains(" install` on your machine"), "{text}");
    }
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_node_that_the_machine_has_not_comes_from_the_registry_and_stays_with_the_app() {
    let bench = Bench::new("apps/nodejs-bare").file(".nvmrc", "v22.9\n").file("package.json", r#"{"name":"x"}"#);
    let built = bench.build().succeeded().said("Using Node.js 22.9.0 as .nvmrc asks for 22.9");
    assert_eq!(built.in_a_dyno("node --version"), "v22.9.0");
    let again = Bench { cut_off: true, ..bench }.build().succeeded();
    assert_eq!(again.in_a_dyno("node --version; npm --version >/dev/null && echo npm"), "v22.9.0\nnpm");
}

#[test]
fn version_ranges_are_read_as_npm_does() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("buildpacks/nodejs/lib/package.js");
    let verdict = |version: &str, range: &str| {
        Command::new("node").arg(&script).args(["satisfies", version, range]).status().unwrap().code().unwrap()
    };
    for range in
        ["", "*", "x", ">=18", "20.x", "20", "^18 || ^20.1", "18 - 20", ">= 20.0.0", "~20.20", "<=20", "v20.20.2"]
    {
        assert_eq!(verdict("20.20.2", range), 0, "{range}");
    }
    for range in [">=18 <20", "~20.19", "^0.2.3", ">20", "<20.20.2", "18 || 19", "1.2.3-beta"] {
        assert_eq!(verdict("20.20.2", range), 1, "{range}");
    }
    assert_eq!((verdict("0.2.9", "^0.2.3"), verdict("0.3.0", "^0.2.3"), verdict("0.0.4", "^0.0.3")), (0, 1, 1));
    for range in ["latest", "1.2.3.4", "lts/*"] {
        assert_eq!(verdict("20.20.2", range), 2, "{range}");
    }
}
