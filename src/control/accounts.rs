//! The people who may use this instance, and their passwords.
#![forbid(unsafe_code)]

use super::tokens::{self, Kind, Peer, Proof};
use super::{Control, ControlError, Resource};
use crate::domain::access::Caller;
use crate::domain::actor::Actor;
use crate::domain::app::AppName;
use crate::domain::scope::Scope;
use crate::store::accounts::Account;
use crate::store::{self, StoreError};
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use jiff::Timestamp;
use std::net::IpAddr;
use std::sync::LazyLock;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// The shortest password (NIST SP 800-63B asks for at least eight characters).
const SHORTEST: usize = 8;
/// The longest, in bytes: hashing takes its time for each.
const LONGEST: usize = 256;

/// Hashing takes a core and 19 MiB for a while, whoever asks.
static HASHING: Semaphore = Semaphore::const_new(1);
/// So many log-ins may wait for it; others are sent away.
static LOG_INS: Semaphore = Semaphore::const_new(32);
/// So many whom we know already, who make an account or change a password.
static OTHERS: Semaphore = Semaphore::const_new(8);

/// By address.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control) -> Result<Vec<Account>, ControlError> {
    control.store.read(|tx| Ok(store::accounts::list(tx)?)).await
}

/// By address or UUID.
///
/// # Errors
/// When there is none.
pub async fn find(control: &Control, which: &str) -> Result<Account, ControlError> {
    let which = which.to_owned();
    let found = control.store.read(move |tx| Ok::<_, ControlError>(store::accounts::find(tx, &which)?)).await?;
    found.ok_or(ControlError::NotFound(Resource::User))
}

/// Makes an account; returns the password too when none was given and one was made up. Its text is known this once.
///
/// # Errors
/// When the address is none or taken, or the password too short or too long.
pub async fn create(
    control: &Control,
    email: &str,
    password: Option<String>,
    admin: bool,
) -> Result<(Account, Option<String>), ControlError> {
    check_email(email)?;
    let (password, made) = given_or_made(password)?;
    let hash = hash(password).await?;
    let email = email.to_owned();
    let account = control
        .store
        .write(move |tx| {
            if store::accounts::find(tx, &email)?.is_some() {
                return Err(ControlError::Invalid(format!("{email} has an account already.")));
            }
            let now = Timestamp::now();
            store::accounts::insert(tx, &email, admin, now)?;
            let made = store::accounts::find(tx, &email)?.ok_or(ControlError::NotFound(Resource::User))?;
            store::accounts::set_password(tx, made.id, &hash, now)?;
            Ok(Account { has_password: true, ..made })
        })
        .await?;
    Ok((account, made))
}

/// Something of the form that mail addresses have; nothing is ever sent there.
fn check_email(text: &str) -> Result<(), ControlError> {
    let parts = text.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    let plain = text.chars().all(|c| c.is_ascii_graphic() && !"\"<>()[],;:\\".contains(c));
    if parts.is_some() && plain && text.len() <= 254 {
        return Ok(());
    }
    let text: String = text.chars().take(60).collect();
    Err(ControlError::Invalid(format!("{text:?} is no mail address.")))
}

fn given_or_made(password: Option<String>) -> Result<(String, Option<String>), ControlError> {
    if let Some(password) = password {
        if password.chars().count() < SHORTEST || password.len() > LONGEST {
            return Err(ControlError::Invalid(format!("A password has {SHORTEST} to {LONGEST} characters.")));
        }
        if password.starts_with(tokens::PREFIX) {
            return Err(ControlError::Invalid(format!(
                "A password does not begin like a token, with {}.",
                tokens::PREFIX
            )));
        }
        return Ok((password, None));
    }
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(StoreError::Random)?;
    let made = hex::encode(random);
    Ok((made.clone(), Some(made)))
}

async fn hash(password: String) -> Result<String, ControlError> {
    let hashed = slowly(&OTHERS, move || {
        let hash: Result<PasswordHash, _> = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string())
    });
    hashed.await?.map_err(|error| ControlError::Io(std::io::Error::other(format!("can't hash a password: {error}"))))
}

async fn slowly<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ControlError> {
    let place = places.try_acquire().map_err(|_| ControlError::Busy)?;
    let turn = HASHING.acquire().await;
    // With the work, which goes on though whoever asked has gone.
    let work = move || {
        let _held = (place, turn);
        work()
    };
    Ok(tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?)
}

/// The account of that address and password, and its hash; what is wrong is not said, nor does the time tell it. How often
/// `from` may be wrong is bounded.
///
/// # Errors
/// [`ControlError::Denied`], or [`ControlError::TooManyGuesses`] when it has been so too often.
async fn by_password(
    control: &Control,
    places: &'static Semaphore,
    from: Option<IpAddr>,
    (email, password): (String, String),
) -> Result<(Caller, String), ControlError> {
    let guess = control.guesses.begin(from, &email)?;
    match verify(control, places, email, password).await {
        Err(ControlError::Denied) => Err(ControlError::Denied),
        other => {
            guess.right(other.is_ok());
            other
        }
    }
}

async fn verify(
    control: &Control,
    places: &'static Semaphore,
    email: String,
    password: String,
) -> Result<(Caller, String), ControlError> {
    static NOBODY: LazyLock<String> = LazyLock::new(|| {
        let hash: Result<PasswordHash, _> = Argon2::default().hash_password(b"nobody's");
        hash.map(|hash| hash.to_string()).unwrap_or_default()
    });
    if password.len() > LONGEST {
        return Err(ControlError::Denied);
    }
    let (account, kept) = control
        .store
        .read(move |tx| {
            let account = store::accounts::find(tx, &email)?;
            let kept = account.as_ref().map(|account| store::accounts::password(tx, account.id)).transpose()?.flatten();
            Ok::<_, ControlError>((account, kept))
        })
        .await?;
    let hash = kept.clone();
    let right = slowly(places, move || {
        let kept = kept.unwrap_or_else(|| NOBODY.clone());
        let parsed = PasswordHash::new(&kept);
        parsed.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    });
    let right = right.await?;
    match (account, hash) {
        (Some(account), Some(hash)) if right => Ok((Caller { actor: account.actor(), admin: account.admin }, hash)),
        _ => Err(ControlError::Denied),
    }
}

/// Who asks for a token: by what every request shows, or by address and password, which is good for nothing else.
///
/// # Errors
/// [`ControlError::Denied`] when neither is right; [`ControlError::Forbidden`] when the token is for less than all.
pub async fn log_in(
    control: &Control,
    (peer, from): (Peer, Option<IpAddr>),
    authorization: Option<&str>,
) -> Result<(Caller, Proof), ControlError> {
    if let Some((email, password)) = authorization.and_then(tokens::basic)
        && !password.starts_with(tokens::PREFIX)
    {
        let (caller, hash) = by_password(control, &LOG_INS, from, (email, password)).await?;
        return Ok((caller, Proof(Kind::Password(hash))));
    }
    let shown = tokens::shown_by(peer, authorization);
    let (caller, scopes, _) = control.store.read(move |tx| tokens::caller(tx, shown)).await?;
    if !scopes.permit(Scope::Global) {
        return Err(ControlError::Forbidden { has: scopes });
    }
    Ok((caller, Proof(Kind::Shown(shown))))
}

/// The hash of the account's password so far, if it is that.
///
/// # Errors
/// [`ControlError::Invalid`] when it is not.
pub async fn check_password(
    control: &Control,
    actor: &Actor,
    from: Option<IpAddr>,
    password: String,
) -> Result<String, ControlError> {
    let wrong = |error| match error {
        ControlError::Denied => wrong_password(),
        error => error,
    };
    let found = by_password(control, &OTHERS, from, (actor.email.clone(), password)).await;
    found.map(|(_, hash)| hash).map_err(wrong)
}

fn wrong_password() -> ControlError {
    ControlError::Invalid("That is not the password so far.".to_owned())
}

/// A password for the first administrator, made up once, when there is nobody yet who has one.
///
/// # Errors
/// When the store refuses or there are no random numbers.
pub async fn first_password(control: &Control) -> Result<Option<(Account, String)>, ControlError> {
    let accounts = list(control).await?;
    if accounts.iter().any(|account| account.has_password) {
        return Ok(None);
    }
    let Some(admin) = accounts.iter().find(|account| account.admin) else { return Ok(None) };
    let patch = Patch { password: Some(NewPassword::Made), ..Patch::default() };
    let (account, made) = update(control, &admin.id.to_string(), patch).await?;
    Ok(made.map(|password| (account, password)))
}

/// What is to be different; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    pub admin: Option<bool>,
    /// An empty one takes it away.
    pub name: Option<String>,
    pub password: Option<NewPassword>,
    /// The hash that the password must still have for anything to be changed.
    pub so_far: Option<String>,
    /// What becomes of the account's tokens with a new password.
    pub tokens: Tokens,
}

/// Who changes a password because somebody else may know it wants an end of what that one has made by it, as on Heroku.
#[derive(Clone, Copy, Debug, Default)]
pub enum Tokens {
    #[default]
    Stay,
    /// All but the one that the change is made with.
    End { but: Option<Uuid> },
}

#[derive(Clone, Debug)]
pub enum NewPassword {
    Given(String),
    /// Made up here and returned.
    Made,
}

/// # Errors
/// When there is no such account, the password is too short or long, or no administrator would be left.
pub async fn update(control: &Control, which: &str, patch: Patch) -> Result<(Account, Option<String>), ControlError> {
    let account = find(control, which).await?;
    let (mut made, mut hashed) = (None, None);
    if let Some(wanted) = patch.password {
        let (password, shown) = given_or_made(match wanted {
            NewPassword::Given(text) => Some(text),
            NewPassword::Made => None,
        })?;
        (made, hashed) = (shown, Some(hash(password).await?));
    }
    if patch.name.as_ref().is_some_and(|name| name.chars().count() > 100 || name.chars().any(char::is_control)) {
        return Err(ControlError::Invalid("A name has at most 100 characters.".to_owned()));
    }
    let id = account.id;
    let account = control
        .store
        .write(move |tx| {
            if patch.so_far.is_some() && store::accounts::password(tx, id)? != patch.so_far {
                return Err(wrong_password());
            }
            let now = Timestamp::now();
            if let Some(admin) = patch.admin {
                store::accounts::set_admin(tx, id, admin, now)?;
            }
            if let Some(name) = &patch.name {
                store::accounts::set_name(tx, id, Some(name.as_str()).filter(|name| !name.is_empty()), now)?;
            }
            if let Some(hash) = &hashed {
                store::accounts::set_password(tx, id, hash, now)?;
                if let Tokens::End { but } = patch.tokens {
                    store::tokens::delete_all(tx, id, but)?;
                }
            }
            an_administrator_is_among(store::accounts::list(tx)?)?;
            store::accounts::get(tx, id)?.ok_or(ControlError::NotFound(Resource::User))
        })
        .await?;
    Ok((account, made))
}

fn an_administrator_is_among(left: impl IntoIterator<Item = Account>) -> Result<(), ControlError> {
    if left.into_iter().any(|account| account.admin) {
        return Ok(());
    }
    Err(ControlError::Invalid("The last administrator stays one: make another first.".to_owned()))
}

/// Its tokens end now, and its access to apps. What it made stays; the apps that it owns are given to `heir`, all that
/// there are in that moment, which are returned by name. With `so_far` only while its password has that hash.
///
/// # Errors
/// When there is no such account or heir, it owns apps and nobody is to have them, or no administrator would be left.
pub async fn remove(
    control: &Control,
    which: &str,
    heir: Option<&str>,
    so_far: Option<String>,
) -> Result<(Account, Vec<AppName>), ControlError> {
    let account = find(control, which).await?;
    let id = account.id;
    let heir = heir.map(str::to_owned);
    control
        .store
        .write(move |tx| {
            if so_far.is_some() && store::accounts::password(tx, id)? != so_far {
                return Err(wrong_password());
            }
            let owned = store::apps::owned_by(tx, id)?;
            if let Some(heir) = &heir {
                let heir = store::accounts::find(tx, heir)?.filter(|heir| heir.id != id);
                let heir = heir.ok_or(ControlError::Invalid("There is no such account to give the apps to.".into()))?;
                for name in &owned {
                    let app = store::apps::find(tx, name.as_str())?.ok_or(ControlError::NotFound(Resource::App))?;
                    store::apps::set_owner(tx, app.id, heir.id)?;
                    store::collaborators::remove(tx, app.id, heir.id)?;
                }
            } else if !owned.is_empty() {
                let names: Vec<&str> = owned.iter().map(AppName::as_str).collect();
                // Only an administrator, who needs no password, can give them away in the same moment.
                let or = if so_far.is_none() { ", or remove it with --transfer-to EMAIL" } else { "" };
                return Err(ControlError::Invalid(format!(
                    "{} owns {}: transfer or destroy what it owns first{or}.",
                    account.email,
                    names.join(", ")
                )));
            }
            let others = store::accounts::list(tx)?.into_iter().filter(|other| other.id != id);
            an_administrator_is_among(others)?;
            store::accounts::remove(tx, id, Timestamp::now())?;
            Ok((account, owned))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_for_their_form_only() {
        for good in ["a@b", "ann.o'neil+hokku@example.com", "admin@localhost"] {
            assert!(check_email(good).is_ok(), "{good}");
        }
        for bad in ["", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "é@b", "a,b@c", "<a@b>", &"a@".repeat(200)] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
    }
}
