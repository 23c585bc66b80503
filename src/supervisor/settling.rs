//! Who waits for what becomes of a release, and when they are told: once the router has the table in which it serves.
#![forbid(unsafe_code)]

use super::Command;
use super::reconcile::Reconciler;
use crate::domain::release::{Release, ReleaseId, ReleaseStatus};
use crate::store::{self, StoreError};
use tokio::sync::oneshot;

impl Reconciler {
    pub(super) async fn settled(&mut self, release: ReleaseId, reply: oneshot::Sender<Release>) {
        match self.parts.store.read(move |tx| store::releases::get(tx, release)).await {
            Ok(Some(found)) if found.status != ReleaseStatus::Pending => drop(reply.send(found)),
            Ok(Some(_)) => self.settling.entry(release).or_default().push(reply),
            Ok(None) => {}
            Err(error) => {
                let error: StoreError = error;
                tracing::error!("can't read release {release}: {error}");
            }
        }
    }

    /// Tells who waits once the router has the table in which the release serves.
    pub(super) async fn tell_settled(&mut self, release: ReleaseId) {
        let read = self.parts.store.read(move |tx| store::releases::get(tx, release)).await;
        let release = match read {
            Ok(Some(release)) if release.status != ReleaseStatus::Pending => release,
            Ok(Some(_)) => return,
            Ok(None) => {
                self.settling.remove(&release); // destroyed with its app; dropping the senders says so
                return;
            }
            Err(error) => {
                let error: StoreError = error;
                tracing::error!("can't read release {release}: {error}");
                return;
            }
        };
        let (commands, router, version) = (self.commands.clone(), self.parts.router.clone(), self.table.version);
        tokio::spawn(async move {
            if let Some(router) = router {
                router.acknowledged(version).await;
            }
            let _ = commands.send(Command::Reachable(vec![release])); // the server goes down
        });
    }

    pub(super) fn announce(&mut self, release: &Release) {
        for reply in self.settling.remove(&release.id).unwrap_or_default() {
            let _ = reply.send(release.clone()); // who asked may have gone
        }
    }
}
