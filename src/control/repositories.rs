//! Which repositories git works in at the moment. That of a destroyed app goes only when git has left it: a pusher is to
//! read that the app is gone, not what git says of a directory that vanishes under its feet.
#![forbid(unsafe_code)]

use crate::domain::app::AppId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// How long a client that reads slowly can hold up the removal.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default)]
pub struct Repositories(Arc<Mutex<HashMap<AppId, Arc<RwLock<()>>>>>);

impl Repositories {
    /// To be kept for as long as git works in the app's repository.
    pub async fn enter(&self, app: AppId) -> OwnedRwLockReadGuard<()> {
        self.of(app).read_owned().await
    }

    /// Waits until git has left the repository of an app that nobody can enter any more.
    pub(super) async fn left(&self, app: AppId) {
        // After that long it is removed all the same.
        let _ = tokio::time::timeout(PATIENCE, self.of(app).write()).await;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&app);
    }

    fn of(&self, app: AppId) -> Arc<RwLock<()>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(app).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_repository_is_left_when_the_last_git_has_ended() {
        let repositories = Repositories::default();
        let [app, other] = [1, 2].map(|number| AppId(uuid::Uuid::from_u128(number)));
        let (first, second) = (repositories.enter(app).await, repositories.enter(app).await);
        let mut left = std::pin::pin!(repositories.left(app));
        assert!(left.as_mut().now_or_never().is_none());
        repositories.left(other).await;
        drop(first);
        assert!(left.as_mut().now_or_never().is_none());
        drop(second);
        left.await;
        assert!(repositories.0.lock().unwrap().is_empty());
    }
}
