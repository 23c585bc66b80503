//! Certificates of apps: kept, tied to host names, and given to the router.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId, AppName};
use crate::domain::hostname::Domain;
use crate::domain::sni_endpoint::SniEndpoint;
use crate::router::{Certificates, Router};
use crate::store::{self, StoreError, Tx};
use crate::tls::{self, Described, OwnNames, Pair};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// An app may have so many.
const MOST: usize = 100;

/// After a failure the router's certificates are looked at again.
const AGAIN: Duration = Duration::from_secs(5);

/// An endpoint as clients see it.
#[derive(Clone, Debug)]
pub struct Shown {
    pub endpoint: SniEndpoint,
    pub described: Described,
    /// Those of the app that it is shown for.
    pub domains: Vec<Uuid>,
}

/// Oldest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: AppId) -> Result<Vec<Shown>, ControlError> {
    control
        .store
        .read(move |tx| {
            let domains = store::domains::list(tx, app)?;
            store::sni_endpoints::list(tx, app)?.into_iter().map(|endpoint| shown(endpoint, &domains)).collect()
        })
        .await
}

fn shown(endpoint: SniEndpoint, domains: &[Domain]) -> Result<Shown, ControlError> {
    let described = tls::describe(&endpoint.chain)?;
    let its = domains.iter().filter(|domain| domain.sni_endpoint == Some(endpoint.id));
    Ok(Shown { described, domains: its.map(|domain| domain.id).collect(), endpoint })
}

/// By name or UUID.
///
/// # Errors
/// When the app has no such endpoint.
pub async fn find(control: &Control, app: AppId, which: &str) -> Result<Shown, ControlError> {
    let found = list(control, app).await?.into_iter().find(|shown| is_it(&shown.endpoint, which));
    found.ok_or(ControlError::NotFound(Resource::SniEndpoint))
}

fn is_it(endpoint: &SniEndpoint, which: &str) -> bool {
    endpoint.name == which || which.parse() == Ok(endpoint.id)
}

/// By the id of an endpoint.
///
/// # Errors
/// When the store can't be read.
pub async fn names(control: &Control, app: AppId) -> Result<BTreeMap<Uuid, String>, ControlError> {
    let endpoints: Result<_, ControlError> =
        control.store.read(move |tx| Ok(store::sni_endpoints::list(tx, app)?)).await;
    Ok(endpoints?.into_iter().map(|endpoint| (endpoint.id, endpoint.name)).collect())
}

/// Keeps a certificate, from now on shown for those of the app's host names that it is for and that have none.
///
/// # Errors
/// What is wrong with it, or when the app has too many.
pub async fn add(control: &Control, actor: &Actor, app: &App, chain: &str, key: &str) -> Result<Shown, ControlError> {
    let (id, app_id, now) = (Uuid::new_v4(), app.id, Timestamp::now());
    let (pair, described) = tls::check(chain, key, now)?;
    let made = control
        .store
        .write(move |tx| {
            if store::sni_endpoints::list(tx, app_id)?.len() >= MOST {
                return Err(ControlError::Invalid(format!("An app can have at most {MOST} certificates.")));
            }
            let name = free_name(tx)?;
            let endpoint = SniEndpoint { id, app: app_id, name, chain: pair.chain, created_at: now, updated_at: now };
            store::sni_endpoints::insert(tx, &endpoint, &pair.key)?;
            assign(tx, &endpoint, &described)
        })
        .await?;
    control.log(app.id, format!("Add SNI endpoint {} by user {}", made.endpoint.name, actor.email));
    control.names.notify_one();
    Ok(made)
}

fn free_name(tx: &Tx<'_>) -> Result<String, ControlError> {
    loop {
        let name = AppName::invent(getrandom::u64().map_err(StoreError::Random)?).to_string();
        if !store::sni_endpoints::is_taken(tx, &name)? {
            return Ok(name);
        }
    }
}

/// Ties the endpoint to what it is for, and to nothing else.
fn assign(tx: &Tx<'_>, endpoint: &SniEndpoint, described: &Described) -> Result<Shown, ControlError> {
    let mut domains = store::domains::list(tx, endpoint.app)?;
    for domain in &mut domains {
        let covered = described.covers(domain.hostname.as_str());
        let next = match domain.sni_endpoint {
            None if covered => Some(endpoint.id),
            Some(id) if id == endpoint.id && !covered => None,
            _ => continue,
        };
        domain.sni_endpoint = next;
        store::domains::assign(tx, domain.id, next)?;
    }
    shown(endpoint.clone(), &domains)
}

/// Another certificate in the place of the one there is; host names that it is not for lose it.
///
/// # Errors
/// What is wrong with it, or when the app has no such endpoint.
pub async fn update(
    control: &Control,
    actor: &Actor,
    app: &App,
    which: &str,
    (chain, key): (&str, &str),
) -> Result<Shown, ControlError> {
    let (which, app_id, now) = (which.to_owned(), app.id, Timestamp::now());
    let old = find(control, app_id, &which).await?.endpoint;
    let (pair, described) = tls::check(chain, key, now)?;
    let made = control
        .store
        .write(move |tx| {
            if !store::sni_endpoints::list(tx, app_id)?.iter().any(|endpoint| endpoint.id == old.id) {
                return Err(ControlError::NotFound(Resource::SniEndpoint));
            }
            let endpoint = SniEndpoint { chain: pair.chain, updated_at: now, ..old };
            store::sni_endpoints::update(tx, &endpoint, &pair.key)?;
            assign(tx, &endpoint, &described)
        })
        .await?;
    control.log(app.id, format!("Update SNI endpoint {} by user {}", made.endpoint.name, actor.email));
    control.names.notify_one();
    Ok(made)
}

/// # Errors
/// When the app has no such endpoint.
pub async fn remove(control: &Control, actor: &Actor, app: &App, which: &str) -> Result<Shown, ControlError> {
    let shown = find(control, app.id, which).await?;
    let id = shown.endpoint.id;
    control.store.write(move |tx| Ok::<_, ControlError>(store::sni_endpoints::delete(tx, id)?)).await?;
    control.log(app.id, format!("Remove SNI endpoint {} by user {}", shown.endpoint.name, actor.email));
    control.names.notify_one();
    Ok(shown)
}

/// The endpoint for a host name: the one that is asked for, or the first that is for it.
pub(super) fn endpoint_for(
    tx: &Tx<'_>,
    app: AppId,
    hostname: &str,
    asked: Option<&str>,
) -> Result<Option<Uuid>, ControlError> {
    for endpoint in store::sni_endpoints::list(tx, app)? {
        let described = tls::describe(&endpoint.chain)?;
        let covers = described.covers(hostname);
        match asked {
            Some(asked) if is_it(&endpoint, asked) && !covers => {
                let names = described.names.join(", ");
                return Err(ControlError::Invalid(format!(
                    "The certificate {} is for {names}, not for {hostname}.",
                    endpoint.name
                )));
            }
            Some(asked) if is_it(&endpoint, asked) => return Ok(Some(endpoint.id)),
            None if covers => return Ok(Some(endpoint.id)),
            _ => {}
        }
    }
    if asked.is_some() { Err(ControlError::NotFound(Resource::SniEndpoint)) } else { Ok(None) }
}

/// Gives the router all certificates, and again whenever one has changed or another host name is to have one.
pub async fn keep_serving(control: Control, router: Router, mut own: OwnNames) {
    let mut last = None;
    loop {
        match to_serve(&control, &mut own).await {
            Ok(certificates) if last.as_ref() == Some(&certificates) => {}
            Ok(certificates) => {
                router.certify(certificates.clone());
                last = Some(certificates);
            }
            Err(error) => {
                tracing::error!("the router can't be given its certificates: {error}");
                // A change that comes meanwhile is seen then.
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        }
        control.names.notified().await;
    }
}

async fn to_serve(control: &Control, own: &mut OwnNames) -> Result<Certificates, ControlError> {
    let everything: Result<_, ControlError> = control
        .store
        .read(|tx| {
            let (apps, endpoints) = (store::apps::list(tx)?, store::sni_endpoints::all(tx)?);
            Ok((apps, endpoints, store::domains::all(tx)?))
        })
        .await;
    let (apps, endpoints, domains) = everything?;
    let own_hosts: BTreeMap<AppId, String> =
        apps.iter().map(|app| (app.id, control.place.hostname(app.name.as_str()))).collect();
    let mut others = Vec::new();
    // The certificates of those that have one for their own name come later, and win.
    for host in own_hosts.values() {
        others.extend(own.one(host)?.map(|pair| (vec![host.clone()], pair)));
    }
    for (endpoint, key) in endpoints {
        let its = domains.iter().filter(|domain| domain.sni_endpoint == Some(endpoint.id));
        let mut hosts: Vec<String> = its.map(|domain| domain.hostname.to_string()).collect();
        let described = tls::describe(&endpoint.chain)?;
        hosts.extend(own_hosts.get(&endpoint.app).filter(|host| described.covers(host)).cloned());
        if !hosts.is_empty() {
            others.push((hosts, Pair { chain: endpoint.chain, key }));
        }
    }
    Ok(Certificates { own: own.all()?, others })
}
