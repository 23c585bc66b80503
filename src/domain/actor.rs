//! Who did it: an account, recorded on every release and build.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

super::id! {
    /// An account's id.
    AccountId
}

/// The account on whose behalf something is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub id: AccountId,
    pub email: String,
}
