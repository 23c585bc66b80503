//! From what serves to the table the router works by.
#![forbid(unsafe_code)]

use super::reconcile::Reconciler;
use super::want::Wanted;
use crate::domain::app::AppId;
use crate::domain::dyno::DynoId;
use crate::domain::plan;
use crate::domain::route::{AppRoute, RouteTable, Target};

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

    /// Takes one dyno out of the app's route without asking the store.
    pub(super) fn reroute(&mut self, app: AppId, gone: DynoId) {
        let Some(seen) = self.apps.get_mut(&app) else { return };
        let Some(AppRoute { target: Target::Dynos { dynos }, .. }) = &mut seen.route else { return };
        let before = dynos.len();
        dynos.retain(|dyno| dyno.id != gone);
        if dynos.is_empty() && before > 0 {
            // `plan` decides what the visitors see instead; until then they wait.
            if let Some(route) = &mut seen.route {
                route.target = Target::Booting;
            }
        }
        self.unpublished |= before > 0;
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
