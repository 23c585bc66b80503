//! OAuth clients. Their secrets are sealed by whatever writes them, and opened by whatever reads them.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::actor::AccountId;
use crate::domain::oauth::OauthClient;
use rusqlite::{Params, Row};
use uuid::Uuid;

/// Takes the place of one with the same id.
pub fn put(tx: &Tx<'_>, client: &OauthClient) -> Result<(), StoreError> {
    let sealed = tx.seal.seal(client.secret.as_bytes(), client.id.as_bytes())?;
    tx.execute(
        "INSERT INTO oauth_clients (id, account_id, name, redirect_uri, secret, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET name = ?3, redirect_uri = ?4, secret = ?5, updated_at = ?7",
        (
            text(client.id),
            text(client.account),
            client.name.as_str(),
            client.redirect_uri.as_str(),
            sealed,
            nanos(client.created_at),
            nanos(client.updated_at),
        ),
    )?;
    Ok(())
}

/// Oldest first.
pub fn list(tx: &Tx<'_>, account: AccountId) -> Result<Vec<OauthClient>, StoreError> {
    clients(tx, "WHERE account_id = ?1 ORDER BY created_at, id", [text(account)])
}

pub fn get(tx: &Tx<'_>, account: AccountId, id: Uuid) -> Result<Option<OauthClient>, StoreError> {
    Ok(clients(tx, "WHERE account_id = ?1 AND id = ?2", (text(account), text(id)))?.pop())
}

pub fn delete(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM oauth_clients WHERE id = ?1", [text(id)])?;
    Ok(())
}

fn clients(tx: &Tx<'_>, clause: &str, params: impl Params) -> Result<Vec<OauthClient>, StoreError> {
    let sealed = tx.all(&format!("SELECT * FROM oauth_clients {clause}"), params, client)?;
    let open = |(client, sealed): (OauthClient, Vec<u8>)| {
        let plain = tx.seal.open(&sealed, client.id.as_bytes());
        let secret = plain.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(OauthClient { secret: secret.ok_or(StoreError::SealedClient(client.id))?, ..client })
    };
    sealed.into_iter().map(open).collect()
}

fn client(row: &Row<'_>) -> rusqlite::Result<(OauthClient, Vec<u8>)> {
    let client = OauthClient {
        id: parsed(row, "id")?,
        account: parsed(row, "account_id")?,
        name: parsed(row, "name")?,
        redirect_uri: parsed(row, "redirect_uri")?,
        secret: String::new(),
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    };
    Ok((client, row.get("secret")?))
}
