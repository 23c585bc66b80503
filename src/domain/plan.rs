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
//! Web dynos are replaced by overlap: the successor accepts before the old one is stopped. All others are stopped
//! first, so that a worker's work is never done twice. One-off dynos are never touched.
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
    let mut planner = Planner { want, have, now, plan: Plan::default() };
    planner.pending();
    planner.current();
    planner.superfluous();
    planner.plan
}

struct Planner<'a> {
    want: &'a Want,
    have: &'a [Have],
    now: Timestamp,
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
                    self.act(Action::PassPhase { version })
                }
                None => self.act(Action::RunPhase { version }),
                Some((id, DynoState::Complete { exit })) if !exit.success() => {
                    self.act(Action::Fail { version, cause: id });
                }
                Some((_, DynoState::Complete { .. })) => self.act(Action::PassPhase { version }),
                Some((id, DynoState::Crashed { .. } | DynoState::Gone)) => {
                    self.act(Action::Fail { version, cause: id })
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
                    self.act(Action::Launch { epoch: self.epoch(&name), name, version, streak: 0 });
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
            let version = self.want.current.as_ref().map_or(0, |code| code.version);
            let epoch = self.epoch(&name);
            let fresh = |dyno: &&Have| dyno.version == version && dyno.epoch >= epoch;
            let mine: Vec<&'a Have> = self.formation().filter(|dyno| dyno.name == name).collect();
            let stale_live =
                mine.iter().copied().find(|dyno| !fresh(dyno) && dyno.state.is_live() && !self.is_candidate(dyno));
            match mine.iter().copied().find(|dyno| fresh(dyno) && !matches!(dyno.state, DynoState::Gone)) {
                Some(dyno) => self.keep(dyno, &name, version, epoch),
                None if name.kind.is_web() || stale_live.is_none() => {
                    self.act(Action::Launch { name, version, epoch, streak: 0 });
                }
                None => {} // `superfluous` stops the old one first
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
        let mut others: Vec<&'a Have> = self.formation().filter(|dyno| !self.is_wanted(dyno)).collect();
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
        let Some(code) = &self.want.current else { return false };
        if !self.want.current_names().contains(&dyno.name) {
            return false;
        }
        let epoch = self.epoch(&dyno.name);
        if dyno.version == code.version && dyno.epoch >= epoch {
            return true;
        }
        // An old web dyno serves on until its successor does.
        let successor_up = self.formation().any(|other| {
            other.name == dyno.name
                && other.version == code.version
                && other.epoch >= epoch
                && matches!(other.state, DynoState::Up { .. })
        });
        dyno.name.kind.is_web() && matches!(dyno.state, DynoState::Up { .. }) && !successor_up
    }

    /// Belongs to the pending release's proof.
    fn is_candidate(&self, dyno: &Have) -> bool {
        let failing = |pending: &Pending| {
            self.plan.actions.contains(&Action::Fail { version: pending.code.version, cause: dyno.id })
        };
        self.want.pending.as_ref().is_some_and(|pending| {
            dyno.version == pending.code.version && !failing(pending) && pending.web_names().contains(&dyno.name)
        })
    }

    fn formation(&self) -> impl Iterator<Item = &'a Have> + use<'a> {
        self.have.iter().filter(|dyno| dyno.purpose == Purpose::Formation)
    }

    fn find(&self, name: &DynoName, version: u32) -> Option<&Have> {
        self.formation().find(|dyno| {
            dyno.name == *name
                && dyno.version == version
                && !matches!(dyno.state, DynoState::Gone | DynoState::Stopping { .. })
        })
    }

    fn epoch(&self, name: &DynoName) -> u64 {
        self.want.epochs.get(name).copied().unwrap_or(0)
    }
}

impl Pending {
    fn web_names(&self) -> Vec<DynoName> {
        names(&self.formation, &self.code).filter(|name| name.kind.is_web()).collect()
    }
}

impl Want {
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

/// Where one app's requests go now.
pub fn target(want: &Want, have: &[Have]) -> Target {
    let Some(code) = &want.current else {
        // A first deploy that is still proving itself holds its first visitors.
        return if want.pending.is_some() { Target::Booting } else { Target::Blank };
    };
    let pending = want.pending.as_ref().map(|pending| pending.code.version);
    let web = || have.iter().filter(|dyno| dyno.purpose == Purpose::Formation && dyno.name.kind.is_web());
    let up = |wanted: &dyn Fn(u32) -> bool| -> Vec<Backend> {
        web()
            .filter(|dyno| wanted(dyno.version) && matches!(dyno.state, DynoState::Up { .. }))
            .filter_map(|dyno| Some(Backend { id: dyno.id, name: dyno.name.clone(), addr: dyno.addr? }))
            .collect()
    };
    // Those of the current release; until there are any, the old ones that still serve.
    let mut dynos = up(&|version| version == code.version);
    if dynos.is_empty() {
        dynos = up(&|version| Some(version) != pending);
    }
    let wanted =
        if code.types.contains_key(&ProcessType::web()) { want.formation.quantity(&ProcessType::web()) } else { 0 };
    if !dynos.is_empty() && wanted > 0 {
        Target::Dynos { dynos }
    } else if wanted == 0 {
        Target::NoWeb
    } else if web().any(|dyno| dyno.version == code.version && matches!(dyno.state, DynoState::Crashed { .. })) {
        Target::Crashed
    } else {
        Target::Booting
    }
}
