//! The route table as workers use it, with what outlives one table: counts per dyno and queues per app.
#![forbid(unsafe_code)]

use crate::domain::app::AppId;
use crate::domain::dyno::DynoId;
use crate::domain::hostname;
use crate::domain::route::{Backend, RouteTable, Target};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Instant;
use tokio::sync::Notify;

/// One table, never changed once made.
#[derive(Debug, Default)]
pub(super) struct Routes {
    hosts: HashMap<Arc<str>, Arc<App>>,
}

impl Routes {
    /// The app at this (lower-case) host name, with the name to keep.
    pub(super) fn find(&self, host: &str) -> Option<(Arc<str>, &Arc<App>)> {
        match self.hosts.get_key_value(host) {
            Some((host, app)) => Some((Arc::clone(host), app)),
            None => self.by_wildcard(host).map(|app| (Arc::from(host), app)),
        }
    }

    /// The app at this (lower-case) host name.
    pub(super) fn app(&self, host: &str) -> Option<&Arc<App>> {
        self.hosts.get(host).or_else(|| self.by_wildcard(host))
    }

    fn by_wildcard(&self, host: &str) -> Option<&Arc<App>> {
        hostname::wildcards(host).find_map(|name| self.hosts.get(name.as_str()))
    }
}

#[derive(Debug)]
pub(super) struct App {
    pub(super) id: AppId,
    pub(super) maintenance: bool,
    pub(super) reach: Reach,
    pub(super) queue: Arc<Queue>,
}

#[derive(Debug)]
pub(super) enum Reach {
    Blank,
    NoWeb,
    Booting,
    Held,
    Crashed,
    Dynos(Vec<Arc<Dyno>>),
    /// The table names a host but not its app.
    Missing,
}

/// A dyno and what all workers count about it.
#[derive(Debug)]
pub(super) struct Dyno {
    pub(super) id: DynoId,
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    /// In the newest table: its idle connections are worth keeping.
    listed: AtomicBool,
    /// Requests and `WebSockets` it has.
    open: AtomicU32,
    /// Requests it has not begun to answer.
    unanswered: AtomicU32,
    /// Milliseconds of the router's clock until which it is only the last resort.
    shunned_until: AtomicU64,
}

impl Dyno {
    fn new(backend: &Backend) -> Self {
        Self {
            id: backend.id,
            name: backend.name.to_string(),
            addr: backend.addr,
            listed: AtomicBool::new(true),
            open: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            shunned_until: AtomicU64::new(0),
        }
    }

    pub(super) fn listed(&self) -> bool {
        self.listed.load(SeqCst)
    }

    pub(super) fn shun(&self, until: u64) {
        self.shunned_until.store(until, SeqCst);
    }
}

/// Requests that wait for a place at one of an app's dynos.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: AtomicU32,
    /// Requests that have had to wait since the app was last held.
    held: AtomicU32,
    pub(super) freed: Notify,
}

impl Queue {
    /// Joins the queue unless `limit` are in it.
    pub(super) fn join(self: &Arc<Self>, limit: u32) -> Option<Waiting> {
        if self.waiting.fetch_add(1, SeqCst) >= limit {
            self.waiting.fetch_sub(1, SeqCst);
            return None;
        }
        Some(Waiting(Arc::clone(self)))
    }

    /// One more that waits because the app is held.
    pub(super) fn count_held(&self) {
        self.held.fetch_add(1, SeqCst);
    }
}

/// Being in a queue.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Queue>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

/// A request's place at a dyno, counted until dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) dyno: Arc<Dyno>,
    queue: Arc<Queue>,
    unanswered: bool,
}

impl Seat {
    fn take(dyno: &Arc<Dyno>, queue: &Arc<Queue>) -> Self {
        dyno.open.fetch_add(1, SeqCst);
        dyno.unanswered.fetch_add(1, SeqCst);
        Self { dyno: Arc::clone(dyno), queue: Arc::clone(queue), unanswered: true }
    }

    /// The dyno has begun to answer: a long answer takes no place that others wait for.
    pub(super) fn answered(&mut self) {
        if std::mem::take(&mut self.unanswered) {
            self.dyno.unanswered.fetch_sub(1, SeqCst);
            if self.queue.waiting.load(SeqCst) > 0 {
                self.queue.freed.notify_one();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.answered();
        self.dyno.open.fetch_sub(1, SeqCst);
    }
}

/// What came of looking for a dyno.
#[derive(Debug)]
pub(super) enum Pick {
    Seat(Seat),
    /// All have as many requests as they may.
    Full,
    /// All have been tried.
    Exhausted,
}

/// Picks the less busy of two dynos taken at random; one in quarantine only when there is no other.
pub(super) fn pick(app: &App, dynos: &[Arc<Dyno>], tried: &[DynoId], limit: u32, now: u64, random: u64) -> Pick {
    let load = |dyno: &Dyno| dyno.unanswered.load(SeqCst);
    let free = |dyno: &Dyno| load(dyno) < limit && !tried.contains(&dyno.id);
    let sound = |dyno: &Dyno| free(dyno) && dyno.shunned_until.load(SeqCst) <= now;
    let seat = |dyno: &Arc<Dyno>| Pick::Seat(Seat::take(dyno, &app.queue));
    if dynos.is_empty() {
        return Pick::Exhausted;
    }
    let size = dynos.len() as u64;
    let at = |random: u64| &dynos[usize::try_from(random % size).expect("less than a usize")];
    let (one, other) = (at(random & 0xffff_ffff), at(random >> 32));
    let better = if load(other) < load(one) { other } else { one };
    if sound(better) {
        return seat(better);
    }
    let least = |fine: &dyn Fn(&Dyno) -> bool| dynos.iter().filter(|dyno| fine(dyno)).min_by_key(|dyno| load(dyno));
    if let Some(dyno) = least(&sound).or_else(|| least(&free)) {
        return seat(dyno);
    }
    if dynos.iter().all(|dyno| tried.contains(&dyno.id)) { Pick::Exhausted } else { Pick::Full }
}

/// What outlives one table; the control task's.
#[derive(Debug, Default)]
pub(super) struct Registry {
    dynos: HashMap<DynoId, Arc<Dyno>>,
    queues: HashMap<AppId, Arc<Queue>>,
    /// The apps whose requests are held, and since when.
    holds: HashMap<AppId, Instant>,
}

/// An app's requests are held no more.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) app: AppId,
    queue: Arc<Queue>,
    begun: Instant,
}

impl Hold {
    /// For the app's log; only right once all workers know that it is over.
    pub(super) fn line(&self) -> String {
        let (count, held) = (self.queue.held.swap(0, SeqCst), self.begun.elapsed().as_millis());
        format!("at=info desc=\"Requests held\" count={count} held={held}ms")
    }
}

impl Registry {
    /// Makes workers' routes of a table, keeping the counts of dynos that were known before.
    pub(super) fn routes(&mut self, table: &RouteTable) -> Routes {
        let mut listed = HashSet::new();
        let mut apps = HashMap::new();
        for (&id, route) in &table.apps {
            let reach = match &route.target {
                Target::Blank => Reach::Blank,
                Target::NoWeb => Reach::NoWeb,
                Target::Booting => Reach::Booting,
                Target::Held => Reach::Held,
                Target::Crashed => Reach::Crashed,
                Target::Dynos { dynos } => {
                    listed.extend(dynos.iter().map(|backend| backend.id));
                    Reach::Dynos(dynos.iter().map(|backend| self.dyno(backend)).collect())
                }
            };
            apps.insert(id, Arc::new(self.app(id, route.maintenance, reach)));
        }
        let mut hosts = HashMap::new();
        for (host, &id) in &table.hosts {
            let app = apps.entry(id).or_insert_with(|| Arc::new(self.app(id, false, Reach::Missing)));
            hosts.insert(Arc::from(host.as_str()), Arc::clone(app));
        }
        for dyno in self.dynos.values() {
            dyno.listed.store(listed.contains(&dyno.id), SeqCst);
        }
        self.dynos.retain(|_, dyno| dyno.listed() || dyno.open.load(SeqCst) > 0);
        self.queues.retain(|id, queue| apps.contains_key(id) || Arc::strong_count(queue) > 1);
        Routes { hosts }
    }

    /// Those holds that `table` is the end of.
    pub(super) fn holds(&mut self, table: &RouteTable) -> Vec<Hold> {
        let is_held = |app: &AppId| table.apps.get(app).is_some_and(|route| route.target == Target::Held);
        let ended = self
            .holds
            .extract_if(|app, _| !is_held(app))
            .filter_map(|(app, begun)| Some(Hold { app, queue: Arc::clone(self.queues.get(&app)?), begun }));
        let ended = ended.collect();
        for &app in table.apps.keys().filter(|app| is_held(app)) {
            self.holds.entry(app).or_insert_with(Instant::now);
        }
        ended
    }

    fn app(&mut self, id: AppId, maintenance: bool, reach: Reach) -> App {
        App { id, maintenance, reach, queue: Arc::clone(self.queues.entry(id).or_default()) }
    }

    fn dyno(&mut self, backend: &Backend) -> Arc<Dyno> {
        let dyno = self.dynos.entry(backend.id).or_insert_with(|| Arc::new(Dyno::new(backend)));
        if dyno.addr != backend.addr {
            *dyno = Arc::new(Dyno::new(backend));
        }
        Arc::clone(dyno)
    }

    /// Requests and `WebSockets` that a dyno has.
    pub(super) fn open(&self, id: DynoId) -> u32 {
        self.dynos.get(&id).map_or(0, |dyno| dyno.open.load(SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::route::AppRoute;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    fn table(version: u64, dynos: &[u128]) -> RouteTable {
        let app = AppId(Uuid::from_u128(1));
        let backend = |&id: &u128| Backend {
            id: DynoId(Uuid::from_u128(id)),
            name: "web.1".parse().unwrap(),
            addr: ([127, 0, 0, 1], 1).into(),
        };
        let target = Target::Dynos { dynos: dynos.iter().map(backend).collect() };
        RouteTable {
            version,
            hosts: BTreeMap::from([("a.localhost".into(), app)]),
            apps: BTreeMap::from([(app, AppRoute { name: "a".into(), maintenance: false, target })]),
        }
    }

    fn choose(routes: &Routes, tried: &[DynoId], limit: u32, random: u64) -> Pick {
        let app = routes.app("a.localhost").unwrap();
        let Reach::Dynos(dynos) = &app.reach else { panic!("{app:?}") };
        pick(app, dynos, tried, limit, 0, random)
    }

    #[test]
    fn counts_follow_a_dyno_from_table_to_table_and_end_with_its_last_request() {
        let mut registry = Registry::default();
        let first = registry.routes(&table(1, &[7]));
        let Pick::Seat(seat) = choose(&first, &[], 10, 0) else { panic!() };
        let id = seat.dyno.id;
        registry.routes(&table(2, &[7]));
        assert_eq!(registry.open(id), 1);
        registry.routes(&table(3, &[8]));
        assert_eq!((registry.open(id), seat.dyno.listed()), (1, false));
        drop(seat);
        assert_eq!(registry.open(id), 0);
    }

    #[test]
    fn a_wildcard_stands_for_names_that_are_not_there_themselves() {
        let mut table = table(1, &[1]);
        let other = AppId(Uuid::from_u128(2));
        table.hosts.insert("*.example.com".into(), other);
        table.hosts.insert("www.example.com".into(), AppId(Uuid::from_u128(1)));
        let routes = Registry::default().routes(&table);
        let found = |host: &str| routes.find(host).map(|(name, app)| (name.to_string(), app.id.0.as_u128()));
        assert_eq!(found("a.example.com"), Some(("a.example.com".to_owned(), 2)));
        assert_eq!(found("a.b.example.com"), Some(("a.b.example.com".to_owned(), 2)));
        assert_eq!(found("www.example.com"), Some(("www.example.com".to_owned(), 1)));
        assert_eq!((found("example.com"), found("x.a.localhost"), found("com")), (None, None, None));
    }

    #[test]
    fn tried_full_and_shunned_dynos_are_avoided_in_this_order() {
        let mut registry = Registry::default();
        let routes = registry.routes(&table(1, &[1, 2]));
        let Pick::Seat(first) = choose(&routes, &[], 1, 0) else { panic!() };
        let Pick::Seat(second) = choose(&routes, &[], 1, 0) else { panic!() };
        assert_ne!(first.dyno.id, second.dyno.id, "the less busy one");
        assert!(matches!(choose(&routes, &[], 1, 0), Pick::Full));
        let both = [first.dyno.id, second.dyno.id];
        assert!(matches!(choose(&routes, &both, 9, 0), Pick::Exhausted));
        first.dyno.shun(5);
        for random in 0..4 {
            let Pick::Seat(seat) = choose(&routes, &[], 9, random) else { panic!() };
            assert_eq!(seat.dyno.id, second.dyno.id);
        }
        let Pick::Seat(last) = choose(&routes, &[second.dyno.id], 9, 0) else { panic!() };
        assert_eq!(last.dyno.id, first.dyno.id, "in quarantine, but the only one");
    }
}
