//! What rustc and clippy cannot check: the layers, the module docs, the banned names.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module with its layer; a module imports only modules of lower layers.
const LAYERS: [(&str, u8); 24] = [
    ("domain", 0),
    ("sys", 0),
    ("logs", 1),
    ("slug", 1),
    ("stack", 2),
    ("store", 1),
    ("tls", 1),
    ("wire", 1),
    ("client", 2),
    ("drains", 2),
    ("dyno", 2),
    ("router", 2),
    ("build", 3),
    ("doctor", 3),
    ("addons", 3),
    ("backup", 4),
    ("install", 4),
    ("supervisor", 4),
    ("control", 5),
    ("api", 6),
    ("cli", 6),
    ("git", 6),
    ("server", 7),
    ("main", 8),
];

/// Drawers: names under which anything could be put.
const BANNED: [&str; 8] = ["utils", "util", "common", "helpers", "helper", "types", "misc", "manager"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The top-level module a file belongs to.
fn module(path: &Path) -> String {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The top-level modules a source text names by `crate::x` or `hokku::x`.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for root in ["crate::", "hokku::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => found.extend(heads(list)),
                None => found.extend(heads(rest).into_iter().next()),
            }
        }
    }
    found
}

/// The first word of each item of a `use` list, `a, b` of `a::{x, y}, b::z}`.
fn heads(list: &str) -> Vec<String> {
    let (mut heads, mut depth, mut item) = (Vec::new(), 0, String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ';' => break,
            ',' if depth == 0 => heads.push(std::mem::take(&mut item)),
            c if depth == 0 => item.push(c),
            _ => {}
        }
    }
    heads.push(item);
    let word = |item: String| item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    heads.into_iter().map(word).filter(|word| !word.is_empty()).collect()
}

#[test]
fn modules_import_only_lower_layers() {
    let layers: BTreeMap<&str, u8> = LAYERS.into_iter().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module(&path);
        if module == "lib" {
            continue;
        }
        let layer = *layers.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no layer in tests/tidy.rs"));
        for import in imports(&text) {
            match layers.get(import.as_str()) {
                Some(other) if *other >= layer && import != module => {
                    wrong.push(format!("{} imports {import}", path.display()));
                }
                _ => {}
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "layer {LAYERS:?}");
}

#[test]
fn the_import_reader_sees_what_it_has_to() {
    let text = "use crate::domain::{app, dyno};\nuse crate::{store, slug::{a, b}, logs};\n// crate::cli\nlet x = crate::sys::f();";
    assert_eq!(imports(text).into_iter().collect::<Vec<_>>(), ["domain", "logs", "slug", "store", "sys"]);
}

#[test]
fn every_file_says_what_it_is_and_forbids_unsafe_outside_sys() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not begin with its //! doc", path.display());
        let forbids = text.contains("#![forbid(unsafe_code)]");
        let exempt = matches!(module(&path).as_str(), "sys" | "lib");
        assert!(forbids || exempt, "{} does not forbid unsafe code", path.display());
    }
}

#[test]
fn there_are_no_drawers() {
    for (path, _) in sources() {
        for part in path.iter().filter_map(|part| part.to_str()) {
            let name = part.trim_end_matches(".rs");
            assert!(!BANNED.contains(&name), "{} is a drawer", path.display());
        }
    }
}

#[test]
fn architecture_md_shows_the_layers_as_they_are() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    for (module, layer) in LAYERS {
        let exists = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module).exists()
            || Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{module}.rs")).exists();
        if exists && module != "main" {
            let row = text.lines().find(|line| line.starts_with(&format!("| {layer} |")));
            let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for layer {layer}"));
            assert!(row.contains(&format!("`{module}`")), "ARCHITECTURE.md does not name {module} in layer {layer}");
        }
    }
}

/// The names in the last column of the table of attacks.
fn tests_named_in_security_md() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md")).unwrap();
    let table = text.split("\n## Attacks\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let cells = table.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once("| "));
    cells.flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_test_that_security_md_names_exists() {
    let mut tests = String::new();
    for place in ["tests", "src"] {
        for entry in walkdir::WalkDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(place)) {
            let path = entry.unwrap().into_path();
            if path.extension().is_some_and(|ending| ending == "rs") {
                tests.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let named = tests_named_in_security_md();
    assert!(named.len() > 40, "the table was not found: {named:?}");
    let missing: Vec<&String> = named.iter().filter(|name| !is_test(&tests, name)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:?}");
}

/// Whether a function of that name is marked as a test.
fn is_test(source: &str, name: &str) -> bool {
    let marks = ["#[test]\nfn ", "#[test]\n    fn ", "#[tokio::test]\nasync fn ", "#[tokio::test]\n    async fn "];
    marks.iter().any(|mark| source.contains(&format!("{mark}{name}()")))
}
