//! Where Debian packages come from: the host's own apt sources with another suite in them, or a mirror that the
//! operator names. hokku itself names no server.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Debian's keys on every Debian; for sources that don't say by which they are signed.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourcesError {
    #[error(
        "This machine has no apt sources of Debian's to make the stack from: name a mirror with --mirror URL, or import the stack with hokku stack:import"
    )]
    None,
    #[error(
        "{0:?} is not a mirror: give the URL of a Debian archive, or a whole line of sources.list that begins with deb"
    )]
    Mirror(String),
}

/// One archive and suite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    uri: String,
    suite: String,
    signed_by: Option<String>,
    trusted: bool,
}

/// The lines of a sources.list for `suite`: from `mirrors` when there are any, else from the files below `etc_apt` and
/// the host's os-release.
///
/// # Errors
/// When there is nothing to make them from.
pub(super) fn sources(
    etc_apt: &Path,
    os_release: &str,
    suite: &str,
    mirrors: &[String],
) -> Result<String, SourcesError> {
    if !mirrors.is_empty() {
        return mirrors.iter().map(|mirror| of_mirror(mirror, suite)).collect();
    }
    let mut found = of_host(etc_apt, &suites(os_release), suite);
    found.sort();
    found.dedup();
    if found.is_empty() { Err(SourcesError::None) } else { Ok(found.iter().map(line).collect()) }
}

fn line(source: &Source) -> String {
    let mut options = Vec::new();
    if let Some(key) = &source.signed_by {
        options.push(format!("signed-by={key}"));
    }
    if source.trusted {
        options.push("trusted=yes".to_owned());
    }
    let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
    format!("deb {options}{} {} main\n", source.uri, source.suite)
}

/// A mirror's security archive is known by its name, as every Debian mirror calls it.
fn of_mirror(mirror: &str, suite: &str) -> Result<String, SourcesError> {
    let wrong = || SourcesError::Mirror(mirror.to_owned());
    if mirror.chars().any(char::is_control) {
        return Err(wrong());
    }
    if mirror.starts_with("deb ") {
        return Ok(format!("{mirror}\n"));
    }
    let schemes = ["http://", "https://", "file:/", "copy:/", "mirror+"];
    if mirror.contains(char::is_whitespace) || !schemes.iter().any(|scheme| mirror.starts_with(scheme)) {
        return Err(wrong());
    }
    let uri = mirror.trim_end_matches('/').to_owned();
    let suites: &[&str] = if uri.ends_with("security") { &["-security"] } else { &["", "-updates"] };
    let signed_by = Path::new(KEYRING).exists().then(|| KEYRING.to_owned());
    let source = |end: &&str| Source {
        uri: uri.clone(),
        suite: format!("{suite}{end}"),
        signed_by: signed_by.clone(),
        trusted: false,
    };
    Ok(suites.iter().map(|end| line(&source(end))).collect())
}

/// What Debian's suites may be called in the host's sources; none when the host is no Debian, because its archives have
/// no Debian suite.
fn suites(os_release: &str) -> Vec<String> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    if value("ID").as_deref() != Some("debian") {
        return Vec::new();
    }
    let names = ["stable", "testing", "unstable", "sid", "oldstable"].map(str::to_owned);
    names.into_iter().chain(value("VERSION_CODENAME")).collect()
}

fn of_host(etc_apt: &Path, known: &[String], suite: &str) -> Vec<Source> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(etc_apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|end| end.to_str()) {
            Some("list") => found.extend(text.lines().filter_map(one_line)),
            Some("sources") => found.extend(stanzas(&text)),
            _ => {}
        }
    }
    let translated = found.into_iter().filter_map(|source| {
        let name = known.iter().find(|name| source.suite.strip_prefix(name.as_str()).is_some_and(is_end))?;
        // Older releases called it buster/updates.
        let end = source.suite[name.len()..].replace("/updates", "-security");
        Some(Source { suite: format!("{suite}{end}"), ..source })
    });
    translated.collect()
}

/// What follows a release's name in the suites that belong to it; backports and proposals are not what a stack is of.
fn is_end(end: &str) -> bool {
    matches!(end, "" | "-updates" | "-security" | "/updates")
}

/// `deb [signed-by=KEY] URI SUITE COMPONENTS…`
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let option = |key: &str| {
        options.split_whitespace().find_map(|option| Some(option.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
    words.any(|component| component == "main").then(|| Source {
        uri,
        suite,
        signed_by: option("signed-by").filter(|key| key.starts_with('/')),
        trusted: option("trusted").as_deref() == Some("yes"),
    })
}

/// The newer form: stanzas of `Key: value`.
fn stanzas(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for stanza in text.split("\n\n") {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut last = String::new();
        for line in stanza.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with([' ', '\t']) {
                // Fields go on in lines that are indented.
                let _ = write!(fields.entry(last.clone()).or_default(), "\n{}", line.trim());
            } else if let Some((key, value)) = line.split_once(':') {
                last = key.trim().to_ascii_lowercase();
                fields.insert(last.clone(), value.trim().to_owned());
            }
        }
        let words = |key: &str| fields.get(key).map_or("", String::as_str).split_whitespace().map(str::to_owned);
        let is = |key: &str, word: &str| fields.get(key).is_some_and(|value| value.eq_ignore_ascii_case(word));
        if is("enabled", "no") || !words("types").any(|kind| kind == "deb") || !words("components").any(|c| c == "main")
        {
            continue;
        }
        for uri in words("uris") {
            found.extend(words("suites").map(|suite| Source {
                uri: uri.clone(),
                suite,
                // A key can also be written there in full; then the host's keyrings have to do.
                signed_by: words("signed-by").next().filter(|key| key.starts_with('/')),
                trusted: is("trusted", "yes"),
            }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: &str = "ID=debian\nVERSION_CODENAME=bookworm\n";

    fn of(files: &[(&str, &str)], os_release: &str) -> Result<String, SourcesError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        sources(dir.path(), os_release, "trixie", &[])
    }

    #[test]
    fn the_hosts_debian_sources_are_taken_with_another_suite_and_nobody_elses() {
        let deb822 = "# comment\nTypes: deb deb-src\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates bookworm-backports\n\
                      Components: main contrib\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://b.example/x\nSuites: nodistro\nComponents: main\n\n\
                      Enabled: no\nTypes: deb\nURIs: http://c.example/debian\nSuites: bookworm\nComponents: main\n";
        let list = "deb http://d.example/sec bookworm-security main\n# deb http://e.example bookworm main\n\
                    deb [arch=amd64 signed-by=/x.gpg] http://f.example tool-bookworm main\n";
        let found = of(&[("sources.list.d/debian.sources", deb822), ("sources.list", list)], BOOKWORM).unwrap();
        assert_eq!(
            found,
            "deb [signed-by=/k.gpg] http://a.example/debian trixie main\n\
             deb [signed-by=/k.gpg] http://a.example/debian trixie-updates main\n\
             deb http://d.example/sec trixie-security main\n"
        );
    }

    #[test]
    fn a_machine_without_debian_sources_is_told_what_to_do() {
        let noble = "ID=ubuntu\nVERSION_CODENAME=noble\n";
        let files = [("sources.list", "deb http://a.example noble main\n")];
        assert_eq!(of(&files, noble), Err(SourcesError::None));
        assert_eq!(of(&[], BOOKWORM), Err(SourcesError::None));
    }

    #[test]
    fn mirrors_are_urls_or_whole_lines() {
        let of = |mirror: &str| sources(Path::new("/nowhere"), "", "trixie", &[mirror.to_owned()]);
        let plain = of("http://m.example/debian/").unwrap();
        assert!(plain.contains("http://m.example/debian trixie main\n"), "{plain}");
        assert!(plain.contains("http://m.example/debian trixie-updates main\n"), "{plain}");
        assert!(of("http://m.example/debian-security").unwrap().ends_with(" trixie-security main\n"));
        assert_eq!(of("deb [trusted=yes] file:/srv/x ./").unwrap(), "deb [trusted=yes] file:/srv/x ./\n");
        for wrong in ["m.example", "http://a b", "http://a\nb", ""] {
            assert_eq!(of(wrong), Err(SourcesError::Mirror(wrong.to_owned())), "{wrong}");
        }
    }
}
