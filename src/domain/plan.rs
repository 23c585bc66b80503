//! From what is wanted of one app and what there is, to what to do next.
//!
//! [`plan`] is asked again after every change, so it never plans more than the next step. Its order of work:
//!
//! ```text
//! pending release ── phase to run ──▶ RunPhase ──▶ PassPhase | Fail
//!        │ phase passed
//!        ▼
//!   its web dynos ── all up ──▶ Promote          current release ──▶ one dyno per (type, number)
//!        └────────── one ends ──▶ Fail           everything else ──▶ Stop
//! ```
//!
//! Web dynos are replaced by overlap: the successor accepts before the old one is stopped. Where there is room for one
//! copy only ([`Replacement::Swap`]), each is stopped first, one after the other, and requests are held while none serves.
//! All others are stopped first in any case, so that a worker's work is never done twice. One-off dynos are never touched.
#![forbid(unsafe_code)]

use super::backoff;
use super::dyno::{DynoId, DynoName, DynoState, Purpose};
use super::formation::Formation;
use super::procfile::{ProcessType, ProcessTypes};
use super::route::{Backend, Target};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What is wanted of one app.
#[derive(Clone, Debug, Default)]
pub struct Want {
    /// The release that serves: the newest that succeeded, if it has code.
    pub current: Option<Code>,
    /// The oldest release that is still to be decided.
    pub pending: Option<Pending>,
    pub formation: Formation,
    /// Dynos of this name launched with a lower epoch are to be replaced (`ps:restart`); 0 when not listed.
    pub epochs: BTreeMap<DynoName, u64>,
    pub replacement: Replacement,
}

/// How web dynos are replaced. It may change at any time, also in the middle of a replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replacement {
    /// Two copies at a time; never fewer serve than before.
    #[default]
    Overlap,
    /// One copy at a time, and one name after the other; while none serves, requests are held.
    Swap,
}

/// A release with code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    pub version: u32,
    pub types: ProcessTypes,
}

/// A release that has not proved itself yet.
#[derive(Clone, Debug)]
pub struct Pending {
    pub code: Code,
    pub phase_passed: bool,
    /// What the formation will be with its process types.
    pub formation: Formation,
}

/// A dyno there is, or the record of one that ended.
#[derive(Clone, Debug)]
pub struct Have {
    pub id: DynoId,
    pub name: DynoName,
    pub purpose: Purpose,
    pub version: u32,
    pub epoch: u64,
    pub state: DynoState,
    /// Where its port is, once it has one.
    pub addr: Option<SocketAddr>,
}

impl Have {
    fn is_up(&self) -> bool {
        matches!(self.state, DynoState::Up { .. })
    }
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a formation dyno. `streak`: crashes in a row before this launch.
    Launch {
        name: DynoName,
        version: u32,
        epoch: u64,
        streak: u32,
    },
    /// Take out of the routes, drain, SIGTERM, SIGKILL.
    Stop {
        id: DynoId,
    },
    /// Forget the record of a dyno that ended.
    Forget {
        id: DynoId,
    },
    RunPhase {
        version: u32,
    },
    PassPhase {
        version: u32,
    },
    /// The pending release has proved itself: it is current now.
    Promote {
        version: u32,
    },
    /// The pending release has failed; `cause` is the dyno whose end decided it.
    Fail {
        version: u32,
        cause: DynoId,
    },
}

/// The next steps, and when to look again though nothing has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
}

/// Decides the next steps for one app.
pub fn plan(want: &Want, have: &[Have], now: Timestamp) -> Plan {
    let mut formation = BTreeMap::<_, Vec<_>>::new();
    for dyno in have.iter().filter(|dyno| dyno.purpose == Purpose::Formation) {
        formation.entry(&dyno.name).or_default().push(dyno);
    }
    let mut planner = Planner { want, have, formation, now, turn: None, plan: Plan::default() };
    planner.turn = planner.next_turn();
    planner.pending();
    planner.superfluous();
    planner.current();
    planner.plan
}

/// The web dynos beside which `actions` start another of the same name: for as long as both run, they need memory twice.
pub fn doubled(actions: &[Action], have: &[Have]) -> Vec<DynoId> {
    let launched =
        |dyno: &Have| actions.iter().any(|action| matches!(action, Action::Launch { name, .. } if *name == dyno.name));
    let web = have.iter().filter(|dyno| dyno.purpose == Purpose::Formation && dyno.name.kind.is_web());
    web.filter(|dyno| dyno.state.is_live() && launched(dyno)).map(|dyno| dyno.id).collect()
}

/// No release is to be decided, and no web dyno is on its way up or down.
pub fn is_quiet(want: &Want, have: &[Have]) -> bool {
    let web = have.iter().filter(|dyno| dyno.purpose == Purpose::Formation && dyno.name.kind.is_web());
    let moving = |dyno: &Have| matches!(dyno.state, DynoState::Starting { .. } | DynoState::Stopping { .. });
    want.pending.is_none() && !web.into_iter().any(moving)
}

struct Planner<'a> {
    want: &'a Want,
    have: &'a [Have],
    /// Those of the formation by name: an app may have hundreds, and each is looked at in turn.
    formation: BTreeMap<&'a DynoName, Vec<&'a Have>>,
    now: Timestamp,
    /// In a swap, the web dyno that is to be stopped now, so that its successor can start.
    turn: Option<DynoName>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    fn pending(&mut self) {
        let Some(pending) = &self.want.pending else { return };
        let version = pending.code.version;
        let phase = self.have.iter().find(|dyno| dyno.purpose == Purpose::Release && dyno.version == version);
        if !pending.phase_passed {
            match phase.map(|dyno| (dyno.id, dyno.state)) {
                _ if !pending.code.types.contains_key(&ProcessType::release()) => {
                    self.act(Action::PassPhase { version });
                }
                None => self.act(Action::RunPhase { version }),
                Some((id, DynoState::Complete { exit })) if !exit.success() => {
                    self.act(Action::Fail { version, cause: id });
                }
                Some((_, DynoState::Complete { .. })) => self.act(Action::PassPhase { version }),
                Some((id, DynoState::Crashed { .. } | DynoState::Gone)) => {
                    self.act(Action::Fail { version, cause: id });
                }
                Some(_) => {}
            }
            return;
        }
        let mut all_up = true;
        for name in pending.web_names() {
            match self.find(&name, version).map(|dyno| (dyno.id, dyno.state)) {
                None => {
                    all_up = false;
                    if self.may_start(&name) {
                        self.act(Action::Launch { epoch: self.epoch(&name), name, version, streak: 0 });
                    }
                }
                Some((_, DynoState::Up { .. })) => {}
                Some((id, DynoState::Crashed { .. })) => {
                    self.act(Action::Fail { version, cause: id });
                    return;
                }
                Some(_) => all_up = false,
            }
        }
        if all_up {
            self.act(Action::Promote { version });
        }
    }

    fn current(&mut self) {
        for name in self.want.current_names() {
            if self.successor_is_coming(&name) {
                continue;
            }
            let version = self.want.serving();
            let epoch = self.epoch(&name);
            let fresh = |dyno: &&Have| dyno.version == version && dyno.epoch >= epoch;
            let stale = |dyno: &Have| !fresh(&dyno) && dyno.state.is_live() && !self.is_candidate(dyno);
            let stale_lives = self.named(&name).any(stale);
            let kept = self.named(&name).find(|dyno| fresh(dyno) && !matches!(dyno.state, DynoState::Gone));
            let may_start = if name.kind.is_web() { self.may_start(&name) } else { !stale_lives };
            match kept {
                Some(dyno) => self.keep(dyno, &name, version, epoch),
                None if may_start => self.act(Action::Launch { name, version, epoch, streak: 0 }),
                None => {} // the old one has to be gone first
            }
        }
    }

    /// A dyno that is wanted: restarted when it has crashed and waited long enough.
    fn keep(&mut self, dyno: &Have, name: &DynoName, version: u32, epoch: u64) {
        let DynoState::Crashed { at, streak, .. } = dyno.state else { return };
        let due = at.checked_add(backoff::delay(streak)).unwrap_or(at);
        if due > self.now {
            self.plan.wake_at = Some(self.plan.wake_at.map_or(due, |wake| wake.min(due)));
        } else {
            self.act(Action::Forget { id: dyno.id });
            self.act(Action::Launch { name: name.clone(), version, epoch, streak });
        }
    }

    /// Stops what nobody wants any more, highest numbers first, and forgets what has ended.
    fn superfluous(&mut self) {
        let mut others: Vec<&'a Have> =
            self.formation.values().flatten().copied().filter(|dyno| !self.is_wanted(dyno)).collect();
        others.sort_by(|a, b| b.name.cmp(&a.name));
        for dyno in others {
            match dyno.state {
                DynoState::Starting { .. } | DynoState::Up { .. } => self.act(Action::Stop { id: dyno.id }),
                DynoState::Stopping { .. } => {}
                DynoState::Crashed { .. } | DynoState::Complete { .. } | DynoState::Gone => {
                    self.act(Action::Forget { id: dyno.id });
                }
            }
        }
    }

    fn is_wanted(&self, dyno: &Have) -> bool {
        if matches!(dyno.state, DynoState::Gone) {
            return false;
        }
        if self.is_candidate(dyno) {
            return true;
        }
        if self.turn.as_ref() == Some(&dyno.name) && !self.is_new(dyno) {
            return false;
        }
        let Some(code) = &self.want.current else { return false };
        if !asks_for(&self.want.formation, code, &dyno.name) {
            return false;
        }
        let epoch = self.epoch(&dyno.name);
        if dyno.version == code.version && dyno.epoch >= epoch {
            return !self.is_overtaken(dyno);
        }
        // An old web dyno serves on until its successor does. One of a later version is no old one: it failed.
        let successor_up = self.named(&dyno.name).any(|other| {
            other.version <= code.version && (other.version, other.epoch) > (dyno.version, dyno.epoch) && other.is_up()
        });
        dyno.name.kind.is_web() && dyno.version <= code.version && dyno.is_up() && !successor_up
    }

    /// A restart or relaunch under way when a new release came, while an older dyno still serves: the release's own
    /// dyno will take its place, so a third is not needed.
    fn is_overtaken(&self, dyno: &Have) -> bool {
        matches!(dyno.state, DynoState::Starting { .. }) && self.successor_is_coming(&dyno.name)
    }

    /// This web dyno serves in some older launch, and the pending release is about to replace it.
    /// In a swap, the pending release's own dyno is the next to start in any case.
    fn successor_is_coming(&self, name: &DynoName) -> bool {
        let current = self.want.serving();
        self.proving(name).is_some()
            && (self.swaps() || self.named(name).any(|dyno| dyno.version <= current && dyno.is_up()))
    }

    /// The pending release, if it has to prove itself by a dyno of this name.
    fn proving(&self, name: &DynoName) -> Option<&'a Pending> {
        self.want.pending.as_ref().filter(|pending| pending.phase_passed && pending.proves(name))
    }

    fn swaps(&self) -> bool {
        self.want.replacement == Replacement::Swap
    }

    /// In a swap, no other of that name lives.
    fn may_start(&self, name: &DynoName) -> bool {
        !self.swaps() || !self.named(name).any(|dyno| dyno.state.is_live())
    }

    /// What is to be there in the end, or until the pending release is decided.
    fn is_new(&self, dyno: &Have) -> bool {
        match self.proving(&dyno.name) {
            Some(pending) => dyno.version == pending.code.version,
            None => dyno.version == self.want.serving() && dyno.epoch >= self.epoch(&dyno.name),
        }
    }

    /// In a swap, the first web dyno that is to be replaced, once all others are up, be they old or new.
    fn next_turn(&self) -> Option<DynoName> {
        if !self.swaps() {
            return None;
        }
        let pending = self.want.pending.iter().filter(|pending| pending.phase_passed).flat_map(Pending::web_names);
        let current = self.want.current_names().into_iter().filter(|name| name.kind.is_web());
        let mut next = None;
        for name in pending.chain(current) {
            let is_up = |new: bool| self.named(&name).any(|dyno| dyno.is_up() && self.is_new(dyno) == new);
            match (is_up(true), is_up(false)) {
                (true, _) => {}
                (false, true) => next = next.or(Some(name)),
                (false, false) => return None,
            }
        }
        next
    }

    /// Belongs to the pending release's proof.
    fn is_candidate(&self, dyno: &Have) -> bool {
        let failing = |pending: &Pending| {
            self.plan.actions.contains(&Action::Fail { version: pending.code.version, cause: dyno.id })
        };
        self.want.pending.as_ref().is_some_and(|pending| {
            dyno.version == pending.code.version && !failing(pending) && pending.proves(&dyno.name)
        })
    }

    /// The dynos of the formation with this name: the one that serves, its successor, and records of those that ended.
    fn named(&self, name: &DynoName) -> impl Iterator<Item = &'a Have> + use<'a, '_> {
        self.formation.get(name).into_iter().flatten().copied()
    }

    fn find(&self, name: &DynoName, version: u32) -> Option<&'a Have> {
        self.named(name)
            .find(|dyno| dyno.version == version && !matches!(dyno.state, DynoState::Gone | DynoState::Stopping { .. }))
    }

    fn epoch(&self, name: &DynoName) -> u64 {
        self.want.epochs.get(name).copied().unwrap_or(0)
    }
}

impl Pending {
    fn web_names(&self) -> Vec<DynoName> {
        names(&self.formation, &self.code).filter(|name| name.kind.is_web()).collect()
    }

    /// Whether `name` is one of [`Self::web_names`].
    fn proves(&self, name: &DynoName) -> bool {
        name.kind.is_web() && asks_for(&self.formation, &self.code, name)
    }
}

impl Want {
    /// The version of the release that serves; 0 when there is none.
    fn serving(&self) -> u32 {
        self.current.as_ref().map_or(0, |code| code.version)
    }

    fn current_names(&self) -> Vec<DynoName> {
        self.current.iter().flat_map(|code| names(&self.formation, code)).collect()
    }
}

/// The dynos a formation asks of a release.
fn names<'a>(formation: &'a Formation, code: &'a Code) -> impl Iterator<Item = DynoName> + 'a {
    formation
        .0
        .iter()
        .filter(|(kind, _)| code.types.contains_key(kind) && !kind.is_release())
        .flat_map(|(kind, scale)| (1..=scale.quantity).map(move |number| DynoName::new(kind.clone(), number)))
}

/// Whether `name` is one of [`names`].
fn asks_for(formation: &Formation, code: &Code, name: &DynoName) -> bool {
    let asked = || formation.0.get(&name.kind).is_some_and(|scale| (1..=scale.quantity).contains(&name.number));
    code.types.contains_key(&name.kind) && !name.kind.is_release() && asked()
}

/// Where one app's requests go now.
pub fn target(want: &Want, have: &[Have]) -> Target {
    let Some(code) = &want.current else {
        // A first deploy that is still proving itself holds its first visitors.
        return if want.pending.is_some() { Target::Booting } else { Target::Blank };
    };
    let web = ProcessType::web();
    if !code.types.contains_key(&web) || want.formation.quantity(&web) == 0 {
        return Target::NoWeb;
    }
    let mine = || have.iter().filter(|dyno| dyno.purpose == Purpose::Formation && dyno.name.kind == web);
    let up = |wanted: &dyn Fn(u32) -> bool| -> Vec<Backend> {
        mine()
            .filter(|dyno| wanted(dyno.version) && dyno.is_up())
            .filter_map(|dyno| Some(Backend { id: dyno.id, name: dyno.name.clone(), addr: dyno.addr? }))
            .collect()
    };
    // Those of the current release; until there are any, the older ones that still serve.
    let mut dynos = up(&|version| version == code.version);
    if dynos.is_empty() {
        dynos = up(&|version| version < code.version);
    }
    if !dynos.is_empty() {
        return Target::Dynos { dynos };
    }
    let crashed = |dyno: &Have| dyno.version == code.version && matches!(dyno.state, DynoState::Crashed { .. });
    // After a first crash the next try begins at once, so its requests can wait for it.
    let trying = mine().any(|dyno| dyno.version == code.version && dyno.state.is_live());
    match want.replacement {
        _ if mine().any(crashed) && !trying => Target::Crashed,
        Replacement::Overlap => Target::Booting,
        Replacement::Swap => Target::Held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dyno::{DynoEvent, Exit};
    use crate::domain::formation::Scale;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn code(version: u32, types: &[&str]) -> Code {
        let types = types.iter().map(|kind| (ProcessType::parse(kind).unwrap(), "run".to_owned())).collect();
        Code { version, types }
    }

    fn formation(scales: &[(&str, u32)]) -> Formation {
        let row = |(kind, quantity): &(&str, u32)| {
            (ProcessType::parse(kind).unwrap(), Scale { quantity: *quantity, ..Scale::default() })
        };
        Formation(scales.iter().map(row).collect())
    }

    fn pending(version: u32, types: &[&str], scales: &[(&str, u32)]) -> Pending {
        Pending { code: code(version, types), phase_passed: true, formation: formation(scales) }
    }

    /// A box that obeys plans: one app, its dynos, a clock.
    struct World {
        want: Want,
        have: Vec<Have>,
        now: Timestamp,
        next_id: u128,
        streaks: BTreeMap<DynoId, u32>,
        failed: Vec<u32>,
        /// [`Replacement::Swap`] from the beginning.
        only_swaps: bool,
    }

    impl World {
        fn new(want: Want) -> Self {
            let only_swaps = want.replacement == Replacement::Swap;
            let (streaks, now) = (BTreeMap::new(), at(0));
            Self { want, have: vec![], now, next_id: 1, streaks, failed: vec![], only_swaps }
        }

        fn add(&mut self, name: DynoName, purpose: Purpose, version: u32, epoch: u64, streak: u32) {
            let id = DynoId(Uuid::from_u128(self.next_id));
            self.next_id += 1;
            self.streaks.insert(id, streak);
            let state = DynoState::Starting { since: self.now };
            self.have.push(Have { id, name, purpose, version, epoch, state, addr: Some(([10, 0, 0, 1], 80).into()) });
        }

        fn event(&mut self, index: usize, event: DynoEvent) {
            let dyno = &mut self.have[index];
            dyno.state = dyno.state.on(event, dyno.purpose, self.streaks[&dyno.id], self.now);
        }

        fn exit(&self, code: i32) -> DynoEvent {
            DynoEvent::Exited(Exit { code, signal: None, oom: false, box_full: false, at: self.now })
        }

        /// Plans once and does it; returns what was done.
        fn step(&mut self) -> Plan {
            let plan = plan(&self.want, &self.have, self.now);
            for action in plan.actions.clone() {
                self.obey(action);
            }
            self.check();
            plan
        }

        fn obey(&mut self, action: Action) {
            match action {
                Action::Launch { name, version, epoch, streak } => {
                    self.add(name, Purpose::Formation, version, epoch, streak);
                }
                Action::RunPhase { version } => {
                    self.add(DynoName::new(ProcessType::release(), 1), Purpose::Release, version, 0, 0);
                }
                Action::Stop { id } => {
                    let index = self.have.iter().position(|dyno| dyno.id == id).unwrap();
                    self.check_stop(index);
                    self.event(index, DynoEvent::StopAsked);
                }
                Action::Forget { id } => {
                    let index = self.have.iter().position(|dyno| dyno.id == id).unwrap();
                    assert!(!self.have[index].state.is_live(), "a live dyno was forgotten");
                    self.have.remove(index);
                }
                Action::PassPhase { .. } => self.want.pending.as_mut().unwrap().phase_passed = true,
                Action::Promote { version } => {
                    let pending = self.want.pending.take().unwrap();
                    assert_eq!(pending.code.version, version);
                    self.want.formation = pending.formation;
                    self.want.current = Some(pending.code);
                }
                Action::Fail { version, .. } => {
                    assert_eq!(self.want.pending.take().unwrap().code.version, version);
                    self.failed.push(version);
                }
            }
        }

        /// A serving web dyno that is still wanted by number is stopped only when its successor serves; in a swap, when
        /// all others serve.
        fn check_stop(&self, index: usize) {
            let dyno = &self.have[index];
            let Some(current) = &self.want.current else { return };
            let serves = dyno.is_up() && dyno.name.kind.is_web() && dyno.version <= current.version;
            let names = self.want.current_names();
            if serves && names.contains(&dyno.name) && self.want.replacement == Replacement::Swap {
                for name in names.iter().filter(|name| name.kind.is_web()) {
                    let up = self.have.iter().any(|other| other.name == *name && other.is_up());
                    assert!(up, "{} was stopped while {name} does not serve", dyno.name);
                }
            } else if serves && names.contains(&dyno.name) {
                let successor = |other: &&Have| other.id != dyno.id && other.name == dyno.name && other.is_up();
                assert!(self.have.iter().any(|other| successor(&other)), "{dyno:?} was stopped without a successor");
            }
        }

        fn check(&self) {
            for dyno in &self.have {
                let same = |other: &&Have| {
                    other.name == dyno.name && other.purpose == Purpose::Formation && other.state.is_live()
                };
                let live = self.have.iter().filter(same).count();
                let running =
                    self.have.iter().filter(same).filter(|d| !matches!(d.state, DynoState::Stopping { .. })).count();
                if dyno.name.kind.is_web() && self.only_swaps {
                    assert!(live <= 1, "{} is alive {live} times", dyno.name);
                } else if dyno.name.kind.is_web() {
                    assert!(running <= 2, "{} runs {running} times", dyno.name);
                } else if dyno.purpose == Purpose::Formation {
                    assert!(live <= 1, "{} is alive {live} times", dyno.name);
                }
            }
        }

        /// The machine does its part for every dyno: boots what starts, ends what stops.
        fn settle(&mut self) {
            for index in 0..self.have.len() {
                let event = match (self.have[index].state, self.have[index].purpose) {
                    (DynoState::Starting { .. }, Purpose::Formation) => DynoEvent::Ready,
                    (DynoState::Starting { .. } | DynoState::Stopping { .. }, _)
                    | (DynoState::Up { .. }, Purpose::Release) => self.exit(0),
                    _ => continue,
                };
                self.event(index, event);
            }
        }

        fn converge(&mut self) {
            for _ in 0..40 {
                let plan = self.step();
                self.settle();
                if let Some(wake) = plan.wake_at {
                    self.now = wake;
                } else if plan.actions.is_empty() && plan == super::plan(&self.want, &self.have, self.now) {
                    return;
                }
            }
            panic!("does not converge: {:?} {:?}", self.want, self.have);
        }

        fn up(&self) -> Vec<String> {
            let mut up: Vec<String> =
                self.have.iter().filter(|d| d.is_up()).map(|d| format!("{} v{}", d.name, d.version)).collect();
            up.sort();
            up
        }
    }

    proptest! {
        #[test]
        fn a_name_is_asked_for_when_it_is_listed(web in 0u32..4, release in 0u32..2, kind in 0usize..4, number in 0u32..5) {
            let kinds = ["web", "worker", "release", "clock"].map(|kind| ProcessType::parse(kind).unwrap());
            let name = DynoName::new(kinds[kind].clone(), number);
            let formation = formation(&[("web", web), ("worker", 2), ("release", release)]);
            let code = code(1, &["web", "release", "clock"]);
            prop_assert_eq!(asks_for(&formation, &code, &name), names(&formation, &code).any(|listed| listed == name));
        }
    }

    #[test]
    fn a_first_deploy_boots_and_is_promoted() {
        let mut world = World::new(Want { pending: Some(pending(3, &["web"], &[("web", 1)])), ..Want::default() });
        assert_eq!(target(&world.want, &world.have), Target::Booting);
        world.converge();
        assert_eq!(world.up(), ["web.1 v3"]);
        assert!(matches!(target(&world.want, &world.have), Target::Dynos { dynos } if dynos.len() == 1));
    }

    #[test]
    fn a_release_that_does_not_boot_fails_and_the_old_one_stays() {
        let mut world = World::new(Want { pending: Some(pending(3, &["web"], &[("web", 2)])), ..Want::default() });
        world.converge();
        world.want.pending = Some(pending(4, &["web"], &[("web", 2)]));
        world.step();
        let candidates: Vec<usize> = (0..world.have.len()).filter(|i| world.have[*i].version == 4).collect();
        world.event(candidates[0], DynoEvent::Ready);
        let crash = world.exit(1);
        world.event(candidates[1], crash);
        world.converge();
        assert_eq!((world.failed.as_slice(), world.up()), ([4].as_slice(), vec!["web.1 v3".into(), "web.2 v3".into()]));
    }

    #[test]
    fn the_release_phase_decides_before_anything_boots() {
        for (code, failed) in [(0, vec![]), (1, vec![3])] {
            let mut first = pending(3, &["web", "release"], &[("web", 1), ("release", 0)]);
            first.phase_passed = false;
            let mut world = World::new(Want { pending: Some(first), ..Want::default() });
            assert_eq!(world.step().actions, [Action::RunPhase { version: 3 }]);
            assert_eq!(world.step().actions, []);
            let end = world.exit(code);
            world.event(0, end);
            world.converge();
            assert_eq!(world.failed, failed);
            assert_eq!(world.up().len(), 1 - failed.len());
        }
    }

    #[test]
    fn workers_are_replaced_one_after_the_other_and_web_by_overlap() {
        let types = ["web", "worker"];
        let scales = [("web", 1), ("worker", 1)];
        let want = Want { current: Some(code(3, &types)), formation: formation(&scales), ..Want::default() };
        let mut world = World::new(want);
        world.converge();
        for name in ["web.1", "worker.1"] {
            world.want.epochs.insert(name.parse().unwrap(), 1);
        }
        let done = world.step().actions;
        assert!(
            matches!(&done[..], [Action::Stop { .. }, Action::Launch { name, epoch: 1, .. }] if name.kind.is_web())
        );
        world.converge();
        assert_eq!(world.up(), ["web.1 v3", "worker.1 v3"]);
        assert!(world.have.iter().all(|dyno| dyno.epoch == 1));
    }

    #[test]
    fn a_crash_is_answered_at_once_then_ever_later() {
        let want = Want { current: Some(code(3, &["web"])), formation: formation(&[("web", 1)]), ..Want::default() };
        let mut world = World::new(want);
        let mut waits = vec![];
        for _ in 0..5 {
            world.step();
            world.settle();
            let index = world.have.len() - 1;
            let crash = world.exit(1);
            world.event(index, crash);
            let before = world.now;
            if let Some(wake) = plan(&world.want, &world.have, world.now).wake_at {
                assert_eq!(target(&world.want, &world.have), Target::Crashed);
                world.now = wake;
            }
            waits.push((world.now - before).get_seconds());
        }
        assert_eq!(waits, [0, 1, 2, 4, 8]);
    }

    #[test]
    fn scaling_down_takes_the_highest_numbers_and_one_offs_are_never_touched() {
        let want = Want { current: Some(code(3, &["web"])), formation: formation(&[("web", 3)]), ..Want::default() };
        let mut world = World::new(want);
        world.converge();
        world.add("run.4821".parse().unwrap(), Purpose::Run, 3, 0, 0);
        world.event(3, DynoEvent::Ready);
        world.want.formation = formation(&[("web", 1)]);
        let stopped: Vec<DynoId> = world.have[1..3].iter().rev().map(|dyno| dyno.id).collect();
        assert_eq!(world.step().actions, stopped.into_iter().map(|id| Action::Stop { id }).collect::<Vec<_>>());
        world.want = Want::default();
        world.converge();
        assert_eq!(world.up(), ["run.4821 v3"]);
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Scale(u32, u32),
        Release {
            phase: bool,
            worker: bool,
        },
        Restart(u32),
        Boot(usize),
        Crash(usize),
        Time(i64),
        Plan,
        /// There is room for a second copy, or none any more.
        Room(bool),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            (0u32..4, 0u32..3).prop_map(|(web, worker)| Happening::Scale(web, worker)),
            any::<(bool, bool)>().prop_map(|(phase, worker)| Happening::Release { phase, worker }),
            (1u32..4).prop_map(Happening::Restart),
            any::<usize>().prop_map(Happening::Boot),
            any::<usize>().prop_map(Happening::Crash),
            (0i64..30).prop_map(Happening::Time),
            Just(Happening::Plan),
            any::<bool>().prop_map(Happening::Room),
        ]
    }

    /// Whatever happens, it converges and stays.
    fn play(happenings: Vec<Happening>, replacement: Replacement) {
        let mut world = World::new(Want { replacement, ..Want::default() });
        let mut version = 2;
        for happening in happenings {
            let pick = |index: usize| index % world.have.len().max(1);
            match happening {
                Happening::Scale(web, worker) => {
                    for (kind, quantity) in [("web", web), ("worker", worker)] {
                        if let Some(scale) = world.want.formation.0.get_mut(&ProcessType::parse(kind).unwrap()) {
                            scale.quantity = quantity;
                        }
                    }
                }
                Happening::Release { phase, worker } if world.want.pending.is_none() => {
                    version += 1;
                    let mut types = vec!["web"];
                    types.extend(worker.then_some("worker"));
                    types.extend(phase.then_some("release"));
                    let code = code(version, &types);
                    let formation = world.want.formation.adapt(&code.types, world.want.current.is_none());
                    world.want.pending = Some(Pending { code, phase_passed: !phase, formation });
                }
                Happening::Restart(number) => {
                    let name = DynoName::new(ProcessType::web(), number);
                    *world.want.epochs.entry(name).or_default() += 1;
                }
                Happening::Boot(index) if !world.have.is_empty() => world.event(pick(index), DynoEvent::Ready),
                Happening::Crash(index) if !world.have.is_empty() => {
                    let (index, crash) = (pick(index), world.exit(1));
                    world.event(index, crash);
                }
                Happening::Room(room) if !world.only_swaps => {
                    world.want.replacement = if room { Replacement::Overlap } else { Replacement::Swap };
                }
                Happening::Release { .. } | Happening::Boot(_) | Happening::Crash(_) | Happening::Room(_) => {}
                Happening::Time(seconds) => world.now = at(world.now.as_second() + seconds),
                Happening::Plan => drop(world.step()),
            }
        }
        world.converge();
        let wanted = world.want.current_names().len();
        let up = world.have.iter().filter(|d| d.purpose == Purpose::Formation && d.is_up()).count();
        assert_eq!(up, wanted);
        assert!(world.want.pending.is_none());
    }

    proptest! {
        #[test]
        fn whatever_happens_it_converges_and_stays(happenings in proptest::collection::vec(happening(), 0..60)) {
            play(happenings, Replacement::Overlap);
        }

        #[test]
        fn in_a_swap_it_does_so_with_one_copy_of_each(happenings in proptest::collection::vec(happening(), 0..60)) {
            play(happenings, Replacement::Swap);
        }
    }

    /// Plans and lets the machine do its part until `done`; what was done on the way.
    fn run(world: &mut World, done: impl Fn(&World) -> bool) -> Vec<Target> {
        let mut targets = vec![];
        for _ in 0..40 {
            world.step();
            let target = target(&world.want, &world.have);
            if targets.last() != Some(&target) {
                targets.push(target);
            }
            if done(world) {
                return targets;
            }
            world.settle();
        }
        panic!("is not done: {:?} {:?}", world.want, world.have);
    }

    /// How many dynos serve, or why none does, one after the other.
    fn serving(targets: &[Target]) -> Vec<String> {
        let words = targets.iter().map(|target| match target {
            Target::Dynos { dynos } => dynos.len().to_string(),
            other => format!("{other:?}").to_lowercase(),
        });
        let mut words: Vec<String> = words.collect();
        words.dedup();
        words
    }

    fn swapping(web: u32) -> World {
        let formation = formation(&[("web", web)]);
        let want = Want { current: Some(code(3, &["web"])), formation, ..Want::default() };
        let mut world = World::new(Want { replacement: Replacement::Swap, ..want });
        world.converge();
        world
    }

    #[test]
    fn the_only_dyno_is_swapped_for_a_new_release_while_requests_are_held() {
        let mut world = swapping(1);
        let old = world.have[0].id;
        world.want.pending = Some(pending(4, &["web"], &[("web", 1)]));
        assert_eq!(world.step().actions, [Action::Stop { id: old }]);
        assert_eq!(target(&world.want, &world.have), Target::Held);
        assert_eq!(world.step().actions, [], "not before the old one is gone");
        world.settle();
        let launch = Action::Launch { name: "web.1".parse().unwrap(), version: 4, epoch: 0, streak: 0 };
        assert_eq!(world.step().actions, [launch, Action::Forget { id: old }]);
        assert_eq!(target(&world.want, &world.have), Target::Held);
        world.converge();
        assert_eq!(world.up(), ["web.1 v4"]);
    }

    #[test]
    fn a_release_that_does_not_boot_in_a_swap_gives_way_to_the_one_before() {
        let mut world = swapping(1);
        world.want.pending = Some(pending(4, &["web"], &[("web", 1)]));
        run(&mut world, |world| world.have.iter().any(|dyno| dyno.version == 4));
        let crash = world.exit(1);
        let index = world.have.iter().position(|dyno| dyno.version == 4).unwrap();
        world.event(index, crash);
        let targets = run(&mut world, |world| world.up() == ["web.1 v3"]);
        assert_eq!((world.failed.as_slice(), serving(&targets)), ([4].as_slice(), vec!["held".into(), "1".to_owned()]));
    }

    #[test]
    fn several_are_swapped_one_by_one_and_nothing_is_held_as_long_as_one_serves() {
        let mut world = swapping(3);
        for number in 1..=3 {
            world.want.epochs.insert(DynoName::new(ProcessType::web(), number), 1);
        }
        let all_new = |world: &World| world.have.iter().filter(|dyno| dyno.epoch == 1 && dyno.is_up()).count() == 3;
        assert_eq!(serving(&run(&mut world, all_new)), ["2", "3"]);
        // A release serves once all its dynos have proved themselves.
        world.want.pending = Some(pending(4, &["web"], &[("web", 3)]));
        let promoted = |world: &World| world.want.pending.is_none();
        assert_eq!(serving(&run(&mut world, promoted)), ["2", "1", "held", "3"]);
    }

    #[test]
    fn a_restart_that_fails_goes_no_further_than_the_first_dyno() {
        let mut world = swapping(2);
        for number in 1..=2 {
            world.want.epochs.insert(DynoName::new(ProcessType::web(), number), 1);
        }
        run(&mut world, |world| world.have.iter().any(|dyno| dyno.epoch == 1));
        for _ in 0..5 {
            let index = world.have.iter().position(|dyno| dyno.epoch == 1).unwrap();
            let crash = world.exit(1);
            world.event(index, crash);
            world.now += jiff::SignedDuration::from_secs(60);
            world.step();
            assert_eq!(world.up(), ["web.2 v3"]);
        }
        world.converge();
        assert_eq!(world.up(), ["web.1 v3", "web.2 v3"]);
    }

    #[test]
    fn what_needs_memory_twice_is_told() {
        let want = Want { current: Some(code(3, &["web", "worker"])), ..Want::default() };
        let mut world = World::new(Want { formation: formation(&[("web", 2), ("worker", 1)]), ..want });
        world.converge();
        for name in ["web.2", "worker.1"] {
            world.want.epochs.insert(name.parse().unwrap(), 1);
        }
        let plan = plan(&world.want, &world.have, world.now);
        let old = world.have.iter().find(|dyno| dyno.name.to_string() == "web.2").unwrap().id;
        assert_eq!(doubled(&plan.actions, &world.have), [old]);
        assert_eq!(doubled(&[], &world.have), []);
    }
}
