//! The build dyno: what it runs, sees and knows.
#![forbid(unsafe_code)]

use super::buildpack::{self, Buildpack, Source};
use super::choice::Choice;
use super::environment::{self, Settings};
use super::stage::Stage;
use crate::domain::build::BuildId;
use crate::domain::config_vars::ConfigVars;
use crate::dyno::{Body, File, Mount};
use crate::stack::Stack;
use crate::stack::runtimes::PLACE;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where the driver and the config vars are inside: in memory, never on a disk.
const SECRETS: &str = "/dev/shm/hokku";
/// Where [`Stage::work`] is inside.
const WORK: &str = "/build";
const APP: &str = "/app";

/// One build.
#[derive(Clone, Debug)]
pub struct Compile<'a> {
    pub build: BuildId,
    pub choice: &'a Choice,
    pub config: &'a ConfigVars,
    /// The commit, or what the client calls its source.
    pub version: Option<&'a str>,
    pub stack: &'a Stack,
    pub settings: &'a Settings,
    pub stage: &'a Stage,
    /// `build.4821`.
    pub dyno: &'a str,
    pub phase: Phase,
}

/// Which part of a build one dyno does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All of it.
    Whole,
    /// Only which of the candidates it is.
    Detect,
    /// The rest, with the one that was detected.
    Chosen,
}

/// See the module [`crate::build`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Own,
    Classic,
}

impl Layout {
    fn of(choice: &Choice) -> Self {
        if choice.packs.iter().all(Buildpack::is_own) { Self::Own } else { Self::Classic }
    }
}

/// What the dyno gets.
pub fn body(compile: &Compile<'_>, host: impl Fn(&str) -> Option<String>) -> Body {
    let layout = Layout::of(compile.choice);
    let build_dir = match layout {
        Layout::Own => PathBuf::from(APP),
        Layout::Classic => PathBuf::from(format!("/tmp/build_{}", compile.build.0.simple())),
    };
    let driver = format!("{SECRETS}/driver.sh");
    let plan = format!("{SECRETS}/plan");
    let mut files = vec![
        File { path: driver.clone().into(), mode: 0o500, contents: buildpack::driver().to_vec() },
        File { path: plan.clone().into(), mode: 0o400, contents: plan_text(compile, &build_dir).into_bytes() },
    ];
    files.extend(compile.config.iter().map(|(key, value)| File {
        path: Path::new(SECRETS).join("env").join(key),
        mode: 0o600,
        contents: value.as_bytes().to_vec(),
    }));
    Body {
        layers: compile.stack.layers.clone(),
        binds: binds(compile, &build_dir),
        command: vec!["/bin/bash".to_owned(), driver, plan],
        env: environment(compile, layout, host).into_iter().collect(),
        files,
        limits: compile.settings.limits(),
        hostname: compile.build.0.to_string(),
        network: true,
        time_limit: Some(compile.settings.time_limit),
    }
}

fn binds(compile: &Compile<'_>, build_dir: &Path) -> Vec<Mount> {
    let stack = compile.stack.binds.iter().map(|bind| Mount {
        source: bind.source.clone(),
        target: bind.target.clone(),
        read_only: true,
    });
    let store = Mount { source: compile.settings.root.join("runtimes"), target: PLACE.into(), read_only: true };
    let own = [(compile.stage.source(), build_dir.to_owned()), (compile.stage.work(), PathBuf::from(WORK))];
    stack.chain([store]).chain(own.map(|(source, target)| Mount { source, target, read_only: false })).collect()
}

/// The classic API's environment, from nothing. `TMPDIR` is an addition: in `/tmp` there is only
/// as much room as a build has beside what it compiles.
fn environment(
    compile: &Compile<'_>,
    layout: Layout,
    host: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let (home, stack) = match layout {
        Layout::Own => ("/tmp/home", compile.stack.id.as_str()),
        Layout::Classic => (APP, heroku_stack(&compile.stack.id)),
    };
    let build = compile.build.to_string();
    let mut env: BTreeMap<String, String> = compile.stack.env.iter().cloned().collect();
    let own = [
        ("HOME", home),
        ("TMPDIR", "/build/tmp"),
        ("STACK", stack),
        ("SOURCE_VERSION", compile.version.unwrap_or_default()),
        ("REQUEST_ID", &build),
        ("DYNO", compile.dyno),
        ("HOKKU_RUNTIMES", PLACE),
        ("CURL_CONNECT_TIMEOUT", "30"),
        ("CURL_TIMEOUT", "180"),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.extend(environment::network(compile.settings, host));
    env
}

/// Heroku's packs refuse a stack they don't know and fetch binaries for it: the one whose C library is not newer.
fn heroku_stack(id: &str) -> &'static str {
    if id.ends_with("debian-12") { "heroku-22" } else { "heroku-24" }
}

fn plan_text(compile: &Compile<'_>, build_dir: &Path) -> String {
    let choice = compile.choice;
    let mode = match compile.phase {
        Phase::Whole if choice.detect => "auto",
        Phase::Whole => "listed",
        Phase::Detect => "detect",
        Phase::Chosen => "chosen",
    };
    let mut text = format!(
        "build\t{}\ncache\t{WORK}/cache\nenv\t{SECRETS}/env\npacks\t{WORK}/packs\nresult\t{WORK}/result\nmode\t{mode}\n",
        build_dir.display()
    );
    for pack in &choice.packs {
        let (kind, place, reference) = match &pack.source {
            Source::Own(_) | Source::Local(_) => ("ready", "-", None),
            Source::Inline => ("inline", "-", None),
            Source::Archive { url } => ("archive", url.as_str(), None),
            Source::Git { url, reference } => ("git", url.as_str(), reference.as_deref()),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "pack\t{pack}\t{kind}\t{place}\t{}", reference.unwrap_or("-"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stack::StackName;
    use uuid::Uuid;

    fn made(listed: &[&str], inline: bool) -> Body {
        let root = tempfile::tempdir().unwrap();
        let build = BuildId(Uuid::nil());
        let stage = Stage::create(root.path(), build).unwrap();
        let binds = vec![crate::stack::Bind { source: "/usr".into(), target: "/usr".into() }];
        let stack = Stack::new(StackName::Host, "host-debian-12".into(), vec!["/base".into()], binds);
        let listed: Vec<_> = listed.iter().map(|text| Buildpack::parse(text).unwrap()).collect();
        let choice = match (listed.is_empty(), inline) {
            (false, _) => Choice::listed(listed),
            (true, true) => Choice::inline(),
            (true, false) => Choice::own(),
        };
        let patch = [("TOKEN".to_owned(), Some("s3cret".to_owned()))].into();
        let (config, _) = ConfigVars::default().merge(&patch).unwrap();
        let compile = Compile {
            build,
            choice: &choice,
            config: &config,
            version: Some("1a2b3c4d"),
            stack: &stack,
            settings: &Settings::new(root.path().to_owned(), "localhost".into(), 80),
            stage: &stage,
            dyno: "build.1",
            phase: Phase::Whole,
        };
        body(&compile, |_| None)
    }

    fn env<'a>(body: &'a Body, name: &str) -> &'a str {
        body.env.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    fn target(body: &Body, end: &str) -> String {
        let found = body.binds.iter().find(|bind| bind.source.ends_with(end)).unwrap();
        assert!(!found.read_only);
        found.target.display().to_string()
    }

    fn plan(body: &Body) -> String {
        String::from_utf8(body.files[1].contents.clone()).unwrap()
    }

    #[test]
    fn our_own_packs_build_where_dynos_will_find_the_result() {
        let body = made(&[], false);
        assert_eq!((target(&body, "source").as_str(), env(&body, "HOME")), ("/app", "/tmp/home"));
        assert_eq!(env(&body, "STACK"), "host-debian-12");
        assert_eq!(
            plan(&body),
            "build\t/app\ncache\t/build/cache\nenv\t/dev/shm/hokku/env\npacks\t/build/packs\nresult\t/build/result\n\
             mode\tauto\n"
                .to_owned()
                + &buildpack::OWN.map(|(folder, _)| format!("pack\theroku/{folder}\tready\t-\t-\n")).concat()
        );
    }

    #[test]
    fn others_get_herokus_layout() {
        let body = made(&["https://example.org/x.git#v1", "nodejs"], false);
        assert_eq!(target(&body, "source"), "/tmp/build_00000000000000000000000000000000");
        assert_eq!((env(&body, "HOME"), env(&body, "STACK")), ("/app", "heroku-22"));
        assert!(plan(&body).ends_with(
            "mode\tlisted\npack\thttps://example.org/x.git#v1\tgit\thttps://example.org/x.git\tv1\n\
             pack\theroku/nodejs\tready\t-\t-\n"
        ));
        assert!(plan(&made(&[], true)).ends_with("mode\tauto\npack\tinline\tinline\t-\t-\n"));
    }

    #[test]
    fn config_vars_are_files_in_memory_and_nothing_else() {
        let body = made(&[], false);
        let file = body.files.iter().find(|file| file.contents == b"s3cret").unwrap();
        assert_eq!(file.path, Path::new("/dev/shm/hokku/env/TOKEN"));
        assert!(!format!("{:?} {:?}", body.env, body.command).contains("s3cret"));
        assert!(body.binds.iter().all(|bind| !file.path.starts_with(&bind.target)));
    }
}
