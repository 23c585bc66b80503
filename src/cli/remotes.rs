//! The git remotes of the current directory, and what they say about apps.
#![forbid(unsafe_code)]

use super::errors::Failure;
use crate::client::Place;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// The remote that `create` and `git:remote` make.
pub(super) const DEFAULT: &str = "hokku";

/// A remote that may lead to an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) name: String,
    /// `HOST:PORT`.
    authority: String,
    pub(super) app: String,
}

impl Remote {
    /// Out of `http://HOST:PORT/APP.git`.
    fn parse(name: &str, url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
        let (authority, path) = rest.split_once('/')?;
        let app = path.strip_suffix(".git")?;
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        let plain = !app.is_empty() && !app.contains('/');
        plain.then(|| Self { name: name.to_owned(), authority: authority.to_owned(), app: app.to_owned() })
    }
}

/// Whether the current directory belongs to a git work tree.
pub(super) fn in_work_tree() -> bool {
    git(["rev-parse", "--is-inside-work-tree"]).is_some_and(|answer| answer.trim() == "true")
}

/// All remotes that could be an app's.
fn all() -> Vec<Remote> {
    let listed = git(["config", "--get-regexp", r"^remote\..*\.url$"]).unwrap_or_default();
    let parse = |line: &str| {
        let (key, url) = line.split_once(' ')?;
        Remote::parse(key.strip_prefix("remote.")?.strip_suffix(".url")?, url)
    };
    listed.lines().filter_map(parse).collect()
}

/// The remotes that lead to an app of the server at `place`.
pub(super) fn of_server(place: &Place) -> Vec<Remote> {
    all().into_iter().filter(|remote| place.is_at(&remote.authority)).collect()
}

/// The app that the remote called `name` leads to.
pub(super) fn app_of(name: &str) -> Result<String, Failure> {
    let found = all().into_iter().find(|remote| remote.name == name);
    found.map(|remote| remote.app).ok_or_else(|| {
        Failure::usage(format!("there is no git remote {name} that leads to an app"))
            .hint(format!("make it with: hokku git:remote --app APP --remote {name}"))
    })
}

/// The one app that the remotes of the current directory lead to.
pub(super) fn only_app(place: &Place) -> Result<String, Failure> {
    let remotes = of_server(place);
    let mut apps: Vec<&str> = remotes.iter().map(|remote| remote.app.as_str()).collect();
    apps.sort_unstable();
    apps.dedup();
    match apps[..] {
        [app] => Ok(app.to_owned()),
        [] => Err(Failure::usage("no app is named, and no git remote of this directory leads to one")
            .hint("name it with --app APP, or connect this repository with: hokku git:remote --app APP")),
        _ => {
            let list: Vec<_> = remotes.iter().map(|remote| format!("{} ({})", remote.name, remote.app)).collect();
            Err(Failure::usage(format!("several git remotes lead to apps: {}", list.join(", ")))
                .hint("choose one with --remote REMOTE or --app APP"))
        }
    }
}

/// Where a remote leads, if there is one of that name.
pub(super) fn url(name: &str) -> Option<String> {
    git(["config", "--get", &format!("remote.{name}.url")]).map(|url| url.trim().to_owned())
}

/// Writes a remote, new or not. `Ok(true)` when it was there before.
pub(super) fn set(name: &str, to: &str) -> Result<bool, Failure> {
    let known = url(name).is_some();
    let done = if known { git(["remote", "set-url", name, to]) } else { git(["remote", "add", name, to]) };
    done.map(|_| known).ok_or_else(|| Failure::new(format!("git could not write the remote {name}")))
}

/// Takes a remote away.
pub(super) fn remove(name: &str) {
    // The app is gone in any case; a remote that stays behind hurts nobody.
    let _ = git(["remote", "remove", name]);
}

/// Makes `helper` the only one that git asks for the password of `base` (`http://HOST:PORT`), in this repository. The
/// empty entry before it keeps others from storing the token.
pub(super) fn set_helper(base: &str, helper: &str) -> Result<(), Failure> {
    let key = format!("credential.{base}.helper");
    let reset = git(["config", "--local", "--replace-all", &key, ""]);
    let add = reset.and_then(|_| git(["config", "--local", "--add", &key, helper]));
    add.map(|_| ()).ok_or_else(|| Failure::new("git could not write the credential helper"))
}

/// What git prints, when it succeeds.
fn git<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Option<String> {
    let output = Command::new("git").args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_the_form_we_write_name_an_app() {
        let app = |url| Remote::parse("r", url).map(|remote| (remote.authority, remote.app));
        assert_eq!(app("http://localhost:5000/my-app.git"), Some(("localhost:5000".into(), "my-app".into())));
        assert_eq!(app("http://user:secret@box/a.git"), Some(("box".into(), "a".into())));
        for other in ["git@host:me/app.git", "https://forge.example/me/app.git", "/srv/app.git", "http://h/.git"] {
            assert_eq!(app(other), None, "{other}");
        }
    }
}
