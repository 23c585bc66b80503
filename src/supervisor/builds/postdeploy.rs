//! The command that `app.json` wants run once, when an app's first release serves.
#![forbid(unsafe_code)]

use super::job::copy;
use super::{Inner, Ticket};
use crate::domain::dyno::{DynoId, DynoName, Exit, Purpose};
use crate::domain::limits::DynoSize;
use crate::domain::procfile::ProcessType;
use crate::domain::release::Release;
use crate::dyno::Io;
use crate::supervisor::launch::{self, Order};
use std::sync::Arc;
use tokio::sync::mpsc;
use uuid::Uuid;

impl Inner {
    /// Its output goes to the pusher. The release stays whatever becomes of it: as on Heroku, a script that fails is
    /// told and can be run again by hand.
    pub(super) async fn postdeploy(self: &Arc<Self>, ticket: &Ticket, release: &Release, command: String) {
        ticket.say("-----> Running the postdeploy script of app.json...");
        let order = Order {
            id: DynoId(Uuid::now_v7()),
            app: release.app,
            name: DynoName::new(ProcessType::parse("postdeploy").expect("`postdeploy` is a process type"), 1),
            purpose: Purpose::Run,
            version: release.version,
            epoch: 0,
            streak: 0,
            size: DynoSize::default(),
            command: command.clone(),
            env: Vec::new(),
            by: None,
        };
        let (sender, lines) = mpsc::unbounded_channel();
        let copying = tokio::spawn(copy(lines, ticket.output.clone()));
        let why = match launch::prepare(&self.parts, order, Io::Lines(sender)).await {
            Ok(launch) => match self.reach.run_build(launch).await {
                Ok(exit) if exit.success() => None,
                Ok(Exit { signal: Some(signal), .. }) => Some(format!("was ended by signal {signal}")),
                Ok(exit) => Some(format!("ended with status {}", exit.code)),
                Err(failure) => Some(format!("could not be started: {failure}")),
            },
            Err(failure) => Some(format!("could not be started: {failure}")),
        };
        if copying.await.is_err() {
            tracing::warn!("the output of build {} has no end", ticket.build.id);
        }
        if let Some(why) = why {
            ticket.say(&format!("\n !     The postdeploy script {why}. It can be run again: hokku run '{command}'\n"));
        }
    }
}
