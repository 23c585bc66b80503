//! OAuth clients of an account. They are kept for the programs that read them; nobody logs in by them here.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::domain::actor::Actor;
use crate::domain::oauth::{ClientName, OauthClient, RedirectUri};
use crate::store::{self, StoreError};
use jiff::Timestamp;
use uuid::Uuid;

/// Of one account.
const MOST: usize = 100;

/// Oldest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, actor: &Actor) -> Result<Vec<OauthClient>, ControlError> {
    let account = actor.id;
    control.store.read(move |tx| Ok(store::oauth_clients::list(tx, account)?)).await
}

/// # Errors
/// When the account has none of that UUID.
pub async fn find(control: &Control, actor: &Actor, id: &str) -> Result<OauthClient, ControlError> {
    let missing = || ControlError::NotFound(Resource::OauthClient);
    let (account, id) = (actor.id, id.parse::<Uuid>().map_err(|_| missing())?);
    let found = control.store.read(move |tx| Ok::<_, ControlError>(store::oauth_clients::get(tx, account, id)?));
    found.await?.ok_or_else(missing)
}

/// # Errors
/// When name or address are not allowed, or it is one too many.
pub async fn create(
    control: &Control,
    actor: &Actor,
    name: &str,
    redirect_uri: &str,
) -> Result<OauthClient, ControlError> {
    let (name, redirect_uri, now) = (name.parse()?, redirect_uri.parse()?, Timestamp::now());
    let (id, account, secret) = (Uuid::new_v4(), actor.id, new_secret()?);
    let client = OauthClient { id, account, name, redirect_uri, secret, created_at: now, updated_at: now };
    control
        .store
        .write(move |tx| {
            if store::oauth_clients::list(tx, account)?.len() >= MOST {
                return Err(ControlError::Invalid(format!("An account has at most {MOST} OAuth clients.")));
            }
            store::oauth_clients::put(tx, &client)?;
            Ok(client)
        })
        .await
}

fn new_secret() -> Result<String, ControlError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(StoreError::Random)?;
    Ok(hex::encode(random))
}

/// What is not given stays.
///
/// # Errors
/// When there is no such client, or name or address are not allowed.
pub async fn update(
    control: &Control,
    actor: &Actor,
    id: &str,
    name: Option<&str>,
    redirect_uri: Option<&str>,
) -> Result<OauthClient, ControlError> {
    let name = name.map(str::parse::<ClientName>).transpose()?;
    let redirect_uri = redirect_uri.map(str::parse::<RedirectUri>).transpose()?;
    change(control, actor, id, move |client| {
        client.name = name.unwrap_or_else(|| client.name.clone());
        client.redirect_uri = redirect_uri.unwrap_or_else(|| client.redirect_uri.clone());
    })
    .await
}

/// Another secret; the old one is good for nothing from now on.
///
/// # Errors
/// When there is no such client.
pub async fn rotate(control: &Control, actor: &Actor, id: &str) -> Result<OauthClient, ControlError> {
    let secret = new_secret()?;
    change(control, actor, id, move |client| client.secret = secret).await
}

async fn change(
    control: &Control,
    actor: &Actor,
    id: &str,
    change: impl FnOnce(&mut OauthClient) + Send + 'static,
) -> Result<OauthClient, ControlError> {
    let client = find(control, actor, id).await?;
    control
        .store
        .write(move |tx| {
            let found = store::oauth_clients::get(tx, client.account, client.id)?;
            let mut client = found.ok_or(ControlError::NotFound(Resource::OauthClient))?;
            change(&mut client);
            client.updated_at = Timestamp::now();
            store::oauth_clients::put(tx, &client)?;
            Ok(client)
        })
        .await
}

/// # Errors
/// When there is no such client.
pub async fn remove(control: &Control, actor: &Actor, id: &str) -> Result<OauthClient, ControlError> {
    let client = find(control, actor, id).await?;
    let id = client.id;
    control.store.write(move |tx| Ok::<_, ControlError>(store::oauth_clients::delete(tx, id)?)).await?;
    Ok(client)
}
