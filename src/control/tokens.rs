//! Who asks: tokens, and root on the Unix socket.
#![forbid(unsafe_code)]

use super::grants::Bearer;
use super::{Control, ControlError, Resource};
use crate::domain::access::Caller;
use crate::domain::actor::{AccountId, Actor};
use crate::domain::scope::Scopes;
use crate::store::accounts::Account;
use crate::store::tokens::TokenRow;
use crate::store::{self, StoreError, Tx};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Where a request comes from, put into its extensions by the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over the Unix socket, with the uid that the kernel vouches for.
    Local { uid: u32 },
    /// Over TCP.
    Network,
}

impl Peer {
    pub fn is_root(self) -> bool {
        self == Self::Local { uid: 0 }
    }
}

/// A token's text shows whose it is when it turns up somewhere it should not be.
pub(super) const PREFIX: &str = "hokku_";

/// Whose request it is, what it is good for, and whom the URLs in its answer are for.
pub(super) fn caller(tx: &Tx<'_>, shown: Shown) -> Result<(Caller, Scopes, Bearer), ControlError> {
    let found = match shown {
        Shown::Token(digest) => store::tokens::caller_of(tx, &digest, Timestamp::now())?
            .map(|(caller, scopes, id)| (caller, scopes, Bearer::Token { id, digest })),
        Shown::Root => {
            let actor = store::accounts::admin(tx)?.actor();
            Some((Caller { actor, admin: true }, Scopes::default(), Bearer::Root))
        }
        Shown::Nothing => None,
    };
    found.ok_or(ControlError::Denied)
}

/// What a request proves its account by: `Bearer TOKEN`, or `Basic` with the token as the password; root on the Unix socket
/// needs none.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    /// The digest of a token.
    Token([u8; 32]),
    Root,
    Nothing,
}

/// What somebody who asks for a token has shown. It is looked at once more when the token is made: a new password may have
/// ended it meanwhile.
#[derive(Clone)]
pub struct Proof(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Shown(Shown),
    /// The password of this hash.
    Password(String),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof")
    }
}

impl Proof {
    fn check(&self, tx: &Tx<'_>, account: AccountId) -> Result<(), ControlError> {
        match &self.0 {
            Kind::Shown(shown) => caller(tx, *shown).map(|_| ()),
            Kind::Password(hash) if store::accounts::password(tx, account)?.as_ref() == Some(hash) => Ok(()),
            Kind::Password(_) => Err(ControlError::Denied),
        }
    }
}

pub(super) fn shown_by(peer: Peer, authorization: Option<&str>) -> Shown {
    match authorization.and_then(token_in) {
        Some(token) => Shown::Token(digest(&token)),
        None if authorization.is_none() && peer.is_root() => Shown::Root,
        None => Shown::Nothing,
    }
}

fn token_in(authorization: &str) -> Option<String> {
    let (scheme, value) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    basic(authorization).map(|(_, password)| password)
}

/// The user and password of a `Basic` header.
pub(super) fn basic(authorization: &str) -> Option<(String, String)> {
    let (scheme, value) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Compares secrets in a time that says nothing about where they differ.
pub fn equal(one: &str, other: &str) -> bool {
    digest(one) == digest(other)
}

fn new_text() -> Result<String, ControlError> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(StoreError::Random)?;
    Ok(format!("{PREFIX}{}", hex::encode(random)))
}

/// Another text for a token, shown this once; the old one is good for nothing from now on.
///
/// # Errors
/// When there are no random numbers or the store refuses.
pub async fn renew(control: &Control, row: &TokenRow) -> Result<String, ControlError> {
    let (token, id) = (new_text()?, row.id);
    let digest = digest(&token);
    control.store.write(move |tx| Ok::<_, ControlError>(store::tokens::renew(tx, id, &digest)?)).await?;
    Ok(token)
}

/// # Errors
/// When the store refuses.
pub async fn describe(control: &Control, row: &TokenRow, description: &str) -> Result<(), ControlError> {
    let (id, description) = (row.id, description.to_owned());
    control.store.write(move |tx| Ok::<_, ControlError>(store::tokens::describe(tx, id, &description)?)).await
}

/// Makes a token; its text is shown this once.
///
/// # Errors
/// When `proof` holds no longer, there are no random numbers or the store refuses.
pub async fn create(
    control: &Control,
    (actor, proof): (&Actor, Proof),
    description: &str,
    scopes: Scopes,
    lifetime: Option<SignedDuration>,
) -> Result<(TokenRow, String), ControlError> {
    let token = new_text()?;
    let (digest, account, description) = (digest(&token), actor.id, description.to_owned());
    let expires_at = match lifetime {
        Some(lifetime) => Some(
            Timestamp::now()
                .checked_add(lifetime)
                .map_err(|_| ControlError::Invalid("That is too long for a token to live.".into()))?,
        ),
        None => None,
    };
    let login = matches!(proof.0, Kind::Password(_));
    let row = control
        .store
        .write(move |tx| {
            // It may have been removed since it was asked who it is.
            store::accounts::get(tx, account)?.ok_or(ControlError::Denied)?;
            proof.check(tx, account)?;
            Ok::<_, ControlError>(store::tokens::insert(
                tx,
                account,
                &digest,
                &description,
                &scopes,
                expires_at,
                login,
            )?)
        })
        .await?;
    Ok((row, token))
}

/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, actor: &Actor) -> Result<Vec<TokenRow>, ControlError> {
    let account = actor.id;
    control.store.read(move |tx| Ok(store::tokens::list(tx, account, Timestamp::now())?)).await
}

/// The token that a request came with, by id and text.
///
/// # Errors
/// When the store can't be read.
pub async fn shown(control: &Control, authorization: Option<&str>) -> Result<Option<(Uuid, String)>, ControlError> {
    let Some(token) = authorization.and_then(token_in) else { return Ok(None) };
    let digest = digest(&token);
    let row = control.store.read(move |tx| Ok::<_, ControlError>(store::tokens::by_digest(tx, &digest)?)).await?;
    Ok(row.map(|row| (row.id, token)))
}

/// By UUID, or `~` for the one that the request came with.
///
/// # Errors
/// When there is no such token of this account.
pub async fn find(
    control: &Control,
    actor: &Actor,
    which: &str,
    authorization: Option<&str>,
) -> Result<TokenRow, ControlError> {
    let missing = || ControlError::NotFound(Resource::Authorization);
    let account = actor.id;
    let row: Option<TokenRow> = if which == "~" {
        let digest = digest(&authorization.and_then(token_in).ok_or_else(missing)?);
        control.store.read(move |tx| Ok::<_, ControlError>(store::tokens::by_digest(tx, &digest)?)).await?
    } else {
        let id: Uuid = which.parse().map_err(|_| missing())?;
        control.store.read(move |tx| Ok::<_, ControlError>(store::tokens::get(tx, account, id)?)).await?
    };
    row.ok_or_else(missing)
}

/// # Errors
/// When it has gone meanwhile.
pub async fn delete(control: &Control, actor: &Actor, id: Uuid) -> Result<(), ControlError> {
    let account = actor.id;
    let deleted = control.store.write(move |tx| Ok::<_, ControlError>(store::tokens::delete(tx, account, id)?)).await?;
    if deleted { Ok(()) } else { Err(ControlError::NotFound(Resource::Authorization)) }
}

/// The account behind an actor.
///
/// # Errors
/// When it has gone meanwhile.
pub async fn account(control: &Control, actor: &Actor) -> Result<Account, ControlError> {
    let id = actor.id;
    let account = control.store.read(move |tx| Ok::<_, ControlError>(store::accounts::get(tx, id)?)).await?;
    account.ok_or(ControlError::NotFound(Resource::User))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_are_found_in_both_schemes() {
        let basic = |text: &str| token_in(&format!("Basic {}", STANDARD.encode(text)));
        assert_eq!(token_in("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token_in("bearer abc").as_deref(), Some("abc"));
        assert_eq!(basic(":abc").as_deref(), Some("abc"));
        assert_eq!(basic("me@example.com:a:b").as_deref(), Some("a:b"));
        assert_eq!(basic("abc"), None);
        let pair = super::basic(&format!("Basic {}", STANDARD.encode("me@example.com:a:b")));
        assert_eq!(pair, Some(("me@example.com".into(), "a:b".into())));
        for bad in ["abc", "Basic %%%", "Digest abc", ""] {
            assert_eq!(token_in(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_passed_over(text in "\\PC{0,80}|(?i)(basic|bearer) {1,3}[ -~]{0,60}") {
            let basic = super::basic(&text).map(|(_, password)| password);
            let bearer = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            prop_assert_eq!(token_in(&text), bearer.map(|(_, token)| token.trim().to_owned()).or(basic));
        }
    }
}
