//! Host names of an app's own, beside the one it has by its name.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource, certs};
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::domain::hostname::{Domain, Hostname};
use crate::store;
use jiff::Timestamp;
use uuid::Uuid;

/// An app may have so many (as on Heroku).
const MOST: usize = 1000;

/// By host name.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: AppId) -> Result<Vec<Domain>, ControlError> {
    control.store.read(move |tx| Ok(store::domains::list(tx, app)?)).await
}

/// By host name or UUID.
///
/// # Errors
/// When the app has no such domain.
pub async fn find(control: &Control, app: AppId, which: &str) -> Result<Domain, ControlError> {
    let (id, name) = (which.parse::<Uuid>().ok(), which.to_ascii_lowercase());
    let is_it = |domain: &Domain| Some(domain.id) == id || domain.hostname.as_str() == name;
    list(control, app).await?.into_iter().find(is_it).ok_or(ControlError::NotFound(Resource::Domain))
}

/// From now on the router sends its requests to the app, and shows the certificate that is asked for, or one of the app's
/// that is for it.
///
/// # Errors
/// When it is no host name, is taken, or is the platform's own.
pub async fn add(
    control: &Control,
    actor: &Actor,
    app: &App,
    hostname: &str,
    endpoint: Option<String>,
) -> Result<Domain, ControlError> {
    let hostname = Hostname::parse(hostname)?;
    let own = &control.place.domain;
    if hostname.is_of(own) {
        return Err(ControlError::Invalid(format!(
            "{hostname} is one of the server's own: an app is at its name below {own} without being told."
        )));
    }
    let domain = Domain { id: Uuid::new_v4(), app: app.id, hostname, created_at: Timestamp::now(), sni_endpoint: None };
    let domain = control
        .store
        .write(move |tx| {
            let mut kept = domain;
            match store::domains::by_hostname(tx, &kept.hostname)? {
                Some(other) if other.app == kept.app => {
                    return Err(ControlError::Invalid(format!("{} is this app's already.", kept.hostname)));
                }
                Some(_) => return Err(ControlError::Invalid(format!("{} is in use by another app.", kept.hostname))),
                None => {}
            }
            if store::domains::list(tx, kept.app)?.len() >= MOST {
                return Err(ControlError::Invalid(format!("An app can have at most {MOST} domains.")));
            }
            kept.sni_endpoint = certs::endpoint_for(tx, kept.app, kept.hostname.as_str(), endpoint.as_deref())?;
            store::domains::insert(tx, &kept)?;
            Ok(kept)
        })
        .await?;
    control.log(app.id, format!("Add {} domain by user {}", domain.hostname, actor.email));
    control.supervisor.wake(app.id);
    control.names.notify_one();
    Ok(domain)
}

/// Has another certificate of the app's shown for it, or the instance's own.
///
/// # Errors
/// When the app has no such domain or endpoint, or the certificate is for others.
pub async fn assign(
    control: &Control,
    app: AppId,
    which: &str,
    endpoint: Option<String>,
) -> Result<Domain, ControlError> {
    let mut domain = find(control, app, which).await?;
    let domain = control
        .store
        .write(move |tx| {
            domain.sni_endpoint = match endpoint {
                Some(asked) => certs::endpoint_for(tx, app, domain.hostname.as_str(), Some(&asked))?,
                None => None,
            };
            store::domains::assign(tx, domain.id, domain.sni_endpoint)?;
            Ok::<_, ControlError>(domain)
        })
        .await?;
    control.names.notify_one();
    Ok(domain)
}

/// # Errors
/// When the app has no such domain.
pub async fn remove(control: &Control, actor: &Actor, app: &App, which: &str) -> Result<Domain, ControlError> {
    let domain = find(control, app.id, which).await?;
    let gone = domain.clone();
    control.store.write(move |tx| Ok::<_, ControlError>(store::domains::delete(tx, &gone)?)).await?;
    control.log(app.id, format!("Remove {} domain by user {}", domain.hostname, actor.email));
    control.supervisor.wake(app.id);
    control.names.notify_one();
    Ok(domain)
}
