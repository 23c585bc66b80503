//! Public keys of people. Nothing is reached by SSH yet; they are kept for what will be.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::domain::actor::Actor;
use crate::store;
use crate::store::keys::Key;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The longest line, in bytes: an RSA key of 16384 bits fits.
const LONGEST: usize = 4096;
/// Of one account.
const MOST: usize = 100;

/// Oldest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, actor: &Actor) -> Result<Vec<Key>, ControlError> {
    let account = actor.id;
    control.store.read(move |tx| Ok(store::keys::list(tx, account)?)).await
}

/// By UUID, fingerprint or comment.
///
/// # Errors
/// When there is none.
pub async fn find(control: &Control, actor: &Actor, which: &str) -> Result<Key, ControlError> {
    let mut keys = list(control, actor).await?;
    let at = keys.iter().position(|key| {
        key.id.to_string() == which || key.fingerprint == which || (!which.is_empty() && key.comment == which)
    });
    at.map(|at| keys.swap_remove(at)).ok_or(ControlError::NotFound(Resource::Key))
}

/// # Errors
/// When it is no public key of SSH, known already, or one too many.
pub async fn add(control: &Control, actor: &Actor, text: &str) -> Result<Key, ControlError> {
    let (public_key, comment, fingerprint) = parse(text)?;
    let now = Timestamp::now();
    let key = Key { id: Uuid::new_v4(), account: actor.id, public_key, comment, fingerprint, created_at: now };
    control
        .store
        .write(move |tx| {
            if store::keys::is_known(tx, &key.fingerprint)? {
                return Err(ControlError::Invalid("That key is known already: fingerprints are unique.".to_owned()));
            }
            if store::keys::list(tx, key.account)?.len() >= MOST {
                return Err(ControlError::Invalid(format!("An account has at most {MOST} keys.")));
            }
            store::keys::insert(tx, &key)?;
            Ok(key)
        })
        .await
}

/// # Errors
/// When there is none.
pub async fn remove(control: &Control, actor: &Actor, which: &str) -> Result<Key, ControlError> {
    let key = find(control, actor, which).await?;
    let id = key.id;
    control.store.write(move |tx| Ok::<_, ControlError>(store::keys::delete(tx, id)?)).await?;
    Ok(key)
}

/// The line itself, its comment and its fingerprint: `TYPE BASE64 [COMMENT]`, where the decoded part says the type again
/// (RFC 4253, section 6.6).
fn parse(text: &str) -> Result<(String, String, String), ControlError> {
    let wrong = |why: &str| {
        ControlError::Invalid(format!("That is no public key of SSH: {why}. It is what a file ending in .pub has."))
    };
    let line = text.trim();
    if line.contains("PRIVATE KEY") {
        return Err(wrong("it is a private one, which nobody else should ever see"));
    }
    if line.len() > LONGEST || line.chars().any(char::is_control) {
        return Err(wrong("it is not one line of at most 4096 characters"));
    }
    let mut parts = line.splitn(3, ' ');
    let (kind, encoded) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let comment = parts.next().unwrap_or_default().trim().to_owned();
    let decoded = STANDARD.decode(encoded).map_err(|_| wrong("its second word is not Base64"))?;
    let length = decoded.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize);
    let inner = length.and_then(|length| decoded.get(4..4 + length));
    if kind.is_empty() || inner != Some(kind.as_bytes()) {
        return Err(wrong("its two first words do not fit together"));
    }
    let fingerprint = format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&decoded)));
    Ok((line.to_owned(), comment, fingerprint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        // Made with `ssh-keygen -t ed25519`, printed with `ssh-keygen -lf`.
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAgRfZvgvaUWFbVIgTHzZXpAJT6DbVnmGcySz85p4iCG ann laptop";
        let (kept, comment, fingerprint) = parse(&format!("{line}\n")).unwrap();
        assert_eq!((kept.as_str(), comment.as_str()), (line, "ann laptop"));
        assert_eq!(fingerprint, "SHA256:2O5MtrQu80BUlYjOEpYL5Oa9t0WXWeac7kCgWKVVHRM");
        for bad in [
            "",
            "ssh-rsa",
            "ssh-rsa AAAA",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAgRfZvgvaUWFbVIgTHzZXpAJT6DbVnmGcySz85p4iCG",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-rsa /////w==",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_a_line_with_a_fingerprint(
            text in "\\PC{0,200}|(ssh-rsa|ssh-ed25519|) [A-Za-z0-9+/=]{0,80}( \\PC{0,20})?"
        ) {
            if let Ok((line, _, fingerprint)) = parse(&text) {
                prop_assert!(!line.contains('\n') && fingerprint.len() == "SHA256:".len() + 43);
            }
        }
    }
}
