//! Where an app's dynos may connect to.
#![forbid(unsafe_code)]

use super::{Control, ControlError};
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::domain::egress::Egress;
use crate::store;

/// # Errors
/// When the store can't be read.
pub async fn get(control: &Control, app: AppId) -> Result<Egress, ControlError> {
    control.store.read(move |tx| Ok(store::egress::get(tx, app)?)).await
}

/// Changes it for dynos that run, at once, and for those to come.
///
/// # Errors
/// When the store can't be written, or the kernel can't be told. It is kept all the same then, and no dyno is started
/// before the kernel could be.
pub async fn set(control: &Control, actor: &Actor, app: &App, egress: Egress) -> Result<Egress, ControlError> {
    // One change after the other, so that what holds is what was kept last.
    let _turn = control.egress_turn.lock().await;
    let (id, kept) = (app.id, egress.clone());
    let changed = control
        .store
        .write(move |tx| {
            let changed = store::egress::get(tx, id)? != kept;
            store::egress::put(tx, id, &kept)?;
            Ok::<_, ControlError>(changed)
        })
        .await?;
    control.supervisor.set_egress(app.id, egress.clone()).await.map_err(ControlError::Egress)?;
    if changed {
        control.log(app.id, format!("Set egress to {egress} by user {}", actor.email));
    }
    Ok(egress)
}
