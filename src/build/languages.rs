//! Which languages of a layered stack a build and its dynos need: those of the buildpacks that take part.
#![forbid(unsafe_code)]

use super::buildpack::{Buildpack, Source};
use crate::domain::stack::Language;
use std::collections::BTreeSet;

/// Ours name theirs. What others' packs want nobody knows, so they get all that are `present` on the box; most bring
/// their own. `node` tells whether the app has a package.json: asset pipelines of Ruby and PHP run on Node.js.
pub fn needed<'a>(
    packs: impl IntoIterator<Item = &'a Buildpack>,
    node: bool,
    present: impl IntoIterator<Item = Language>,
) -> Vec<Language> {
    let mut needed = BTreeSet::new();
    let mut foreign = false;
    for pack in packs {
        match &pack.source {
            Source::Own(folder) => needed.extend(of_own(folder, node)),
            _ => foreign = true,
        }
    }
    if foreign {
        needed.extend(present);
    }
    needed.into_iter().collect()
}

/// A pack's folder is called like its language, but for those that share one.
fn of_own(folder: &str, node: bool) -> Vec<Language> {
    let language = match folder {
        "gradle" | "jvm" => Some(Language::Java),
        folder => folder.parse().ok(),
    };
    let assets = node && matches!(language, Some(Language::Ruby | Language::Php));
    language.into_iter().chain(assets.then_some(Language::Nodejs)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(packs: &[&str], node: bool) -> Vec<Language> {
        let packs: Vec<_> = packs.iter().map(|text| Buildpack::parse(text).unwrap()).collect();
        needed(&packs, node, [Language::Go, Language::Python])
    }

    #[test]
    fn our_own_packs_name_their_languages_and_others_get_all_there_are() {
        assert_eq!(of(&["nodejs"], false), [Language::Nodejs]);
        assert_eq!(of(&["python", "nodejs"], false), [Language::Nodejs, Language::Python]);
        assert_eq!(of(&["https://example.org/x.git"], false), [Language::Go, Language::Python]);
        assert_eq!(of(&["inline", "nodejs"], false), [Language::Go, Language::Nodejs, Language::Python]);
        assert_eq!(of_own("gradle", true), [Language::Java]);
        assert_eq!(of_own("ruby", true), [Language::Ruby, Language::Nodejs]);
        assert_eq!(of_own("ruby", false), [Language::Ruby]);
    }
}
