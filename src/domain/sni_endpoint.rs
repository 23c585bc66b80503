//! Certificates that apps have: which one a client is shown is told by the host name it asks for (SNI).
#![forbid(unsafe_code)]

use super::app::AppId;
use jiff::Timestamp;
use uuid::Uuid;

/// A certificate with its chain. The private key is not part of it: nobody is shown that again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SniEndpoint {
    pub id: Uuid,
    pub app: AppId,
    /// Of no other app's either.
    pub name: String,
    /// PEM, the host's own certificate first.
    pub chain: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
