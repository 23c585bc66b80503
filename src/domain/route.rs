//! Which requests go where: hostname → app → dynos. The router knows nothing else.
#![forbid(unsafe_code)]

use super::app::AppId;
use super::dyno::{DynoId, DynoName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The whole of what the router needs to know, in one numbered snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Counts up with every snapshot; the router acknowledges it.
    pub version: u64,
    /// Lower-case hostname without a port → app. `*.example.com` stands for all names below.
    pub hosts: BTreeMap<String, AppId>,
    pub apps: BTreeMap<AppId, AppRoute>,
}

/// What makes the next table of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The next table's.
    pub version: u64,
    /// What is new or different; `None` for what is gone.
    pub hosts: BTreeMap<String, Option<AppId>>,
    pub apps: BTreeMap<AppId, Option<AppRoute>>,
}

impl RouteTable {
    pub fn change_to(&self, next: &Self) -> Change {
        Change {
            version: next.version,
            hosts: changed(&self.hosts, &next.hosts),
            apps: changed(&self.apps, &next.apps),
        }
    }

    pub fn apply(&mut self, change: Change) {
        self.version = change.version;
        apply(&mut self.hosts, change.hosts);
        apply(&mut self.apps, change.apps);
    }
}

fn changed<K: Ord + Clone, V: PartialEq + Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeMap<K, Option<V>> {
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(|key| (key.clone(), None));
    let other = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    gone.chain(other.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

fn apply<K: Ord, V>(table: &mut BTreeMap<K, V>, change: BTreeMap<K, Option<V>>) {
    for (key, value) in change {
        match value {
            Some(value) => table.insert(key, value),
            None => table.remove(&key),
        };
    }
}

/// How one app is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRoute {
    /// For the access lines.
    pub name: String,
    pub maintenance: bool,
    pub target: Target,
}

/// What answers an app's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Target {
    /// No code yet: H81.
    Blank,
    /// `web` is scaled to zero or not declared: H14.
    NoWeb,
    /// Web dynos are wanted and none is up, but some are booting: hold the request, H20 after 75 s.
    Booting,
    /// The only web dyno is being replaced: hold the request, H20 after 75 s.
    Held,
    /// All web dynos have crashed: H10.
    Crashed,
    Dynos {
        dynos: Vec<Backend>,
    },
}

/// A dyno that accepts requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub id: DynoId,
    pub name: DynoName,
    pub addr: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> impl Strategy<Value = RouteTable> {
        let app = || (0_u128..6).prop_map(|id| AppId(uuid::Uuid::from_u128(id)));
        let targets = [Target::Blank, Target::NoWeb, Target::Held, Target::Dynos { dynos: Vec::new() }];
        let route = ("[a-c]", any::<bool>(), proptest::sample::select(targets.to_vec()));
        let route = route.prop_map(|(name, maintenance, target)| AppRoute { name, maintenance, target });
        let hosts = proptest::collection::btree_map("[a-e]", app(), 0..6);
        let apps = proptest::collection::btree_map(app(), route, 0..6);
        (any::<u64>(), hosts, apps).prop_map(|(version, hosts, apps)| RouteTable { version, hosts, apps })
    }

    proptest! {
        #[test]
        fn a_table_with_the_change_to_another_is_that_other(old in table(), new in table()) {
            let mut changed = old.clone();
            changed.apply(old.change_to(&new));
            prop_assert_eq!(changed, new);
        }

        #[test]
        fn what_has_not_changed_is_not_said(table in table()) {
            let change = table.change_to(&table);
            prop_assert!(change.hosts.is_empty() && change.apps.is_empty());
        }
    }
}
