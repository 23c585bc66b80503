//! From what serves to the table the router works by.
#![forbid(unsafe_code)]

use super::reconcile::Reconciler;
use super::want::Wanted;
use super::wording;
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoId, DynoName};
use crate::domain::plan::{self, Have, Plan, Replacement, Want};
use crate::domain::route::{AppRoute, RouteTable, Target};
use crate::dyno::Shortage;
use jiff::Timestamp;

impl Reconciler {
    /// Brings the app's part of the table up to date.
    pub(super) fn route(&mut self, app: AppId, wanted: Option<&Wanted>) {
        let Some(Wanted { app: record, want, hosts, .. }) = wanted else { return };
        let target = plan::target(want, &self.have(app));
        let route = AppRoute { name: record.name.to_string(), maintenance: record.maintenance, target };
        let seen = self.apps.entry(app).or_default();
        if seen.route.as_ref() != Some(&route) || seen.name != record.name.as_str() || seen.hosts != *hosts {
            seen.name = record.name.to_string();
            seen.hosts.clone_from(hosts);
            seen.route = Some(route);
            self.unpublished = true;
        }
    }

    /// Takes one dyno out of the app's route without asking the store; `true` when requests are held until it is replaced.
    pub(super) fn reroute(&mut self, app: AppId, gone: DynoId) -> bool {
        let Some(seen) = self.apps.get_mut(&app) else { return false };
        let Some(AppRoute { target: Target::Dynos { dynos }, .. }) = &mut seen.route else { return false };
        let before = dynos.len();
        dynos.retain(|dyno| dyno.id != gone);
        if dynos.is_empty() && before > 0 {
            // `plan` decides what the visitors see instead; until then they wait.
            if let Some(route) = &mut seen.route {
                route.target = match seen.replacement {
                    Replacement::Overlap => Target::Booting,
                    Replacement::Swap => Target::Held,
                };
            }
        }
        let held = matches!(&seen.route, Some(AppRoute { target: Target::Held, .. }));
        self.unpublished |= before > 0;
        held
    }

    /// Plans the app; by [`Replacement::Swap`] when there is no memory for what the plan would have run beside each other,
    /// and then until nothing is being replaced any more.
    pub(super) fn plan_within_room(&mut self, app: AppId, want: &mut Want, have: &[Have]) -> Plan {
        let now = Timestamp::now();
        let asked_for = want.replacement == Replacement::Swap;
        let mut short = !asked_for && self.apps.get(&app).is_some_and(|seen| seen.short);
        if short {
            want.replacement = Replacement::Swap;
        }
        let mut plan = plan::plan(want, have, now);
        if want.replacement == Replacement::Overlap
            && let Some((first, shortage)) = self.shortage(&plan, have)
        {
            self.log(app, wording::of_dyno(&first, wording::no_room(&shortage)));
            short = true;
            want.replacement = Replacement::Swap;
            plan = plan::plan(want, have, now);
        } else if short && plan.actions.is_empty() && plan::is_quiet(want, have) {
            short = false;
        }
        let seen = self.apps.entry(app).or_default();
        (seen.short, seen.replacement) = (short, want.replacement);
        plan
    }

    /// What is missing for those dynos that the plan would have run beside each other, and the first of them.
    fn shortage(&self, plan: &Plan, have: &[Have]) -> Option<(DynoName, Shortage)> {
        let doubled = plan::doubled(&plan.actions, have);
        let first = have.iter().find(|dyno| doubled.contains(&dyno.id))?;
        let shortage = self.parts.engine.room_beside(&doubled).err()?;
        Some((first.name.clone(), shortage))
    }

    pub(super) fn publish(&mut self) {
        self.unpublished = false;
        let mut table = RouteTable { version: self.table.version + 1, ..RouteTable::default() };
        for (app, seen) in &self.apps {
            if let Some(route) = &seen.route {
                table.hosts.extend(seen.hosts.iter().map(|host| (host.clone(), *app)));
                table.apps.insert(*app, route.clone());
            }
        }
        // Names of our own come last: which they are may have changed since others were added.
        for (app, seen) in self.apps.iter().filter(|(_, seen)| seen.route.is_some()) {
            table.hosts.insert(format!("{}.{}", seen.name, self.parts.settings.domain), *app);
        }
        if table.hosts == self.table.hosts && table.apps == self.table.apps && self.table.version > 0 {
            return;
        }
        if let Some(router) = &self.parts.router {
            router.publish(table.clone());
        }
        self.table = table;
    }
}
