//! Keeps the rules in step with the dynos: before each launch, after each end, and when an app's egress changes.
#![forbid(unsafe_code)]

use super::{Dynos, EngineError, Shared, record};
use crate::domain::app::AppId;
use crate::domain::dyno::Purpose;
use crate::domain::egress::Egress;
use crate::domain::instance::Instance;
use crate::dyno::firewall::{Firewall, FirewallError};
use crate::dyno::step::{StepError, step};
use crate::dyno::{Labels, spec};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Dynos {
    /// Changes where an app's dynos may connect to; when this returns it holds for all there are and will be.
    ///
    /// # Errors
    /// When the kernel could not be told. Until it could, no dyno of any app is started.
    pub async fn set_egress(&self, app: AppId, egress: Egress) -> Result<(), EngineError> {
        on_firewall(&self.shared, move |firewall| firewall.set_egress(app, egress)).await
    }
}

/// Whose egress a dyno obeys. Builds have the Internet.
fn bound_by(labels: &Labels) -> Option<AppId> {
    (labels.purpose != Purpose::Build).then_some(labels.app)
}

/// Which apps' dynos may live, by slot, before it is known whether they do: what holds for them must go on holding.
pub(super) fn survivors(instance: &Instance) -> Result<BTreeMap<u16, AppId>, StepError> {
    let all = step("look for dynos", instance.run.display(), record::all(&instance.run))?;
    let mut slots = BTreeMap::new();
    for (_, dir) in all {
        let Ok(labels) = record::labels(&dir) else { continue };
        let slot = spec::Config::read(&dir).ok().and_then(|config| spec::number(&config.spec, spec::SLOT));
        if record::exit(&dir).is_ok_and(|exit| exit.is_none()) {
            slots.extend(slot.zip(bound_by(&labels)));
        }
    }
    Ok(slots)
}

impl Shared {
    /// Before a launch: the rules hold for the dyno from its first moment on.
    pub(super) async fn admit(self: &Arc<Self>, slot: u16, labels: &Labels) -> Result<(), StepError> {
        let Some(app) = bound_by(labels) else { return Ok(()) };
        if self.firewall.admit(slot, app) {
            return Ok(());
        }
        let restricted = on_firewall(self, move |firewall| firewall.restrict(slot)).await;
        restricted.map_err(|error| StepError::caused("restrict the network", "nft", &error))
    }

    /// After a dyno's end: its slot is another's from now on.
    pub(super) async fn vacate(self: &Arc<Self>, slot: u16) {
        if self.firewall.left_something(slot)
            && let Err(error) = on_firewall(self, move |firewall| firewall.dismiss(slot)).await
        {
            let error = StepError::caused("take a dyno's rules away", slot, &error);
            tracing::warn!("{error}; no other is started before it is done");
        }
        self.lock_slots().release(slot);
    }
}

/// Forgets those of [`survivors`] that did not.
pub(super) async fn forget_the_dead(shared: &Arc<Shared>) -> Result<(), EngineError> {
    let used = shared.lock_slots().used.clone();
    let live = move |slot: u16| used.get(usize::from(slot)).copied().unwrap_or(false);
    on_firewall(shared, move |firewall| firewall.keep(live)).await
}

async fn on_firewall<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Firewall) -> Result<T, FirewallError> + Send + 'static,
) -> Result<T, EngineError> {
    let firewall = shared.firewall.clone();
    Ok(tokio::task::spawn_blocking(move || work(&firewall)).await??)
}
