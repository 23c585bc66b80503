//! The launcher, as long as the server lives: one that dies is replaced at once, and not with the next launch only. It asks
//! the host's name server for the dynos, and the shims that waited have died with it and left their places.
#![forbid(unsafe_code)]

use super::Shared;
use crate::dyno::protocol::Hello;
use crate::dyno::step::{StepError, step};
use crate::dyno::{launcher, slot};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Who hangs up as quickly as that may be of an earlier version, which does not stay connected.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So often in a row only they do it. Once may also be one that was killed, whose socket a child of its had for a moment
/// more, or another task has started the next already.
const HANG_UPS: u32 = 3;

/// Tells the launcher, which is started if there is none, that a server begins anew. The connection ends with the launcher.
pub(super) async fn begin(shared: &Shared) -> Result<UnixStream, StepError> {
    let mut launcher = shared.launcher().await?;
    step("talk to the launcher", "launcher.sock", launcher.write_all(&Hello::Forget.encode()).await)?;
    Ok(launcher)
}

/// Stays with the launcher, and with the next when it has died.
pub(super) async fn attend(shared: Arc<Shared>, mut launcher: UnixStream) {
    sweep(&shared).await;
    let mut hung_up = 0;
    loop {
        let since = Instant::now();
        // It has nothing to say: this is its end.
        let _ = launcher.read(&mut [0]).await;
        if since.elapsed() < AT_ONCE {
            hung_up += 1;
            tokio::time::sleep(AT_ONCE).await;
            if hung_up == HANG_UPS && UnixStream::connect(launcher::socket(&shared.instance)).await.is_ok() {
                return;
            }
        } else {
            hung_up = 0;
        }
        if !shared.instance.run.exists() {
            // The instance was taken down.
            return;
        }
        tracing::warn!("the launcher has ended; another is started");
        let had = shared.lock_slots().forget_ahead();
        launcher = loop {
            match begin(&shared).await {
                Ok(launcher) => break launcher,
                Err(error) => tracing::error!("cannot start a launcher: {error}"),
            }
            tokio::time::sleep(AT_ONCE).await;
        };
        sweep(&shared).await;
        if had > 0 {
            let slots = shared.lock_slots().reserve(shared.settings.prepared);
            shared.prepare(slots);
        }
    }
}

/// Clears away what is left of slots that nobody has.
async fn sweep(shared: &Arc<Shared>) {
    let shared = shared.clone();
    let swept = tokio::task::spawn_blocking(move || {
        for slot in slot::traces(&shared.instance)? {
            if shared.lock_slots().claim(slot) {
                slot::clear(&shared.instance, slot);
                shared.lock_slots().release(slot);
            }
        }
        Ok::<_, std::io::Error>(())
    });
    if let Ok(Err(error)) = swept.await {
        tracing::warn!("cannot look for what killed shims have left: {error}");
    }
}
