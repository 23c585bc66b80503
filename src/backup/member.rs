//! What may be in a backup, by its name.
#![forbid(unsafe_code)]

use crate::domain::app::AppId;
use crate::domain::slug::Digest;
use crate::store;

pub(super) const AUTHORITY: &str = "ca.pem";
pub(super) const AUTHORITY_KEY: &str = "ca.key";
pub(super) const AUTHORITY_SEALED: &str = "ca.key.sealed";
pub(super) const CONFIG: &str = "hokku.toml";
pub(super) const STACKS: &str = "stacks.tar.zst";

pub(super) fn slug(digest: &Digest) -> String {
    format!("slugs/{digest}.tar.zst")
}

pub(super) fn source(app: AppId) -> String {
    format!("sources/{app}.tar.zst")
}

pub(super) fn repository(app: AppId) -> String {
    format!("repos/{app}.git")
}

/// Whether a member of that name may be written below a ROOT.
pub(super) fn is_known(name: &str) -> bool {
    let single = [store::FILE, store::KEY_FILE, AUTHORITY, AUTHORITY_KEY, AUTHORITY_SEALED, CONFIG, STACKS];
    if single.contains(&name) {
        return true;
    }
    let parts: Vec<&str> = name.split('/').collect();
    match &parts[..] {
        ["slugs", file] => file
            .strip_suffix(".tar.zst")
            .is_some_and(|it| it.parse::<Digest>().is_ok_and(|digest| digest.as_str() == it)),
        ["sources", file] => file.strip_suffix(".tar.zst").is_some_and(is_app),
        ["repos", dir, rest @ ..] if !rest.is_empty() => {
            let plain = |part: &&str| !matches!(*part, "" | "." | "..") && !part.contains('\0');
            dir.strip_suffix(".git").is_some_and(is_app) && rest.iter().all(plain)
        }
        _ => false,
    }
}

/// In the one form that its files have.
fn is_app(text: &str) -> bool {
    text.parse::<AppId>().is_ok_and(|app| app.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_beside_a_root_or_where_the_server_puts_other_things() {
        let app = uuid::Uuid::from_u128(7);
        let digest = "a".repeat(64);
        for good in [
            "db.sqlite".to_owned(),
            "key".to_owned(),
            format!("slugs/{digest}.tar.zst"),
            format!("sources/{app}.tar.zst"),
            format!("repos/{app}.git/refs/heads/a..b"),
        ] {
            assert!(is_known(&good), "{good}");
        }
        for bad in [
            String::new(),
            "/etc/passwd".to_owned(),
            "lock".to_owned(),
            "db.sqlite-wal".to_owned(),
            "slugs/../key".to_owned(),
            format!("slugs/{}.tar.zst", digest.to_uppercase()),
            format!("sources/{app}"),
            format!("repos/{app}.git"),
            format!("repos/{app}.git/../../key"),
            format!("repos/{app}.git//x"),
            format!("repos/{app}.git/"),
        ] {
            assert!(!is_known(&bad), "{bad}");
        }
    }
}
