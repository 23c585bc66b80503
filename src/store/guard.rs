//! What was looked at before a write and has to hold still when it is made: checked in its transaction.
#![forbid(unsafe_code)]

use super::{StoreError, Tx};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Fails when it does not hold any more.
#[derive(Clone)]
pub struct Check(Arc<Holds>);

type Holds = dyn Fn(&Tx<'_>) -> Result<(), StoreError> + Send + Sync;

impl Check {
    pub fn new(check: impl Fn(&Tx<'_>) -> Result<(), StoreError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    pub(super) fn holds(&self, tx: &Tx<'_>) -> Result<(), StoreError> {
        (self.0)(tx)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check")
    }
}

tokio::task_local! {
    static CHECKS: Mutex<Vec<Check>>;
}

/// Does something of whose writes none is made unless `check` holds. What it spawns is on its own.
pub async fn guarded<F: Future>(check: Check, doing: F) -> F::Output {
    CHECKS.scope(Mutex::new(vec![check]), doing).await
}

/// One more check for what is being done; without effect where nothing is [`guarded`].
pub fn also(check: Check) {
    let _ = CHECKS.try_with(|checks| lock(checks).push(check));
}

pub(super) fn checks() -> Vec<Check> {
    CHECKS.try_with(|checks| lock(checks).clone()).unwrap_or_default()
}

fn lock(checks: &Mutex<Vec<Check>>) -> MutexGuard<'_, Vec<Check>> {
    checks.lock().unwrap_or_else(PoisonError::into_inner)
}
