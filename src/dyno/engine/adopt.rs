//! What a starting server finds in RUN: live dynos, ended ones, and what crashes have left.
#![forbid(unsafe_code)]

use super::memory::Memory;
use super::output::{Output, Sink};
use super::probe::Probe;
use super::task::{self, Watched};
use super::{EngineError, Shared, record, remove};
use crate::domain::dyno::{DynoId, Purpose};
use crate::dyno::step::{StepError, step};
use crate::dyno::{Found, Labels, What, spec};
use jiff::Timestamp;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Looks at every dyno's directory: its socket answers, or it has left an exit record, or it is cleared away.
pub(super) async fn adopt(shared: &Arc<Shared>) -> Result<Vec<Found>, EngineError> {
    let all = step("look for dynos", shared.instance.run.display(), record::all(&shared.instance.run))?;
    let mut found = Vec::new();
    for (id, dir) in all {
        let Ok(labels) = record::labels(&dir) else {
            // Its launch had hardly begun.
            let (instance, its_dir) = (shared.instance.clone(), dir.clone());
            tokio::task::spawn_blocking(move || {
                task::clean_up(&instance, id, &its_dir, None);
                remove(&its_dir);
            })
            .await?;
            continue;
        };
        found.push(one(shared, id, dir, labels).await?);
    }
    Ok(found)
}

/// What a launch was to be, from its `config.json`.
struct Plan {
    slot: Option<u16>,
    port: Option<u16>,
    within: Duration,
    /// Bytes.
    memory: u64,
}

impl Plan {
    fn read(dir: &Path) -> Self {
        let config = spec::Config::read(dir).ok();
        let number = |key: &str| config.as_ref().and_then(|config| spec::number::<u64>(&config.spec, key));
        let small = |key: &str| number(key).and_then(|number| u16::try_from(number).ok());
        let within = Duration::from_millis(number(spec::BOOT_TIMEOUT).unwrap_or(60_000));
        let memory = config.as_ref().and_then(|config| spec::memory_quota(&config.spec)).unwrap_or(u64::MAX);
        Self { slot: small(spec::SLOT), port: small(spec::PORT), within, memory }
    }
}

async fn one(shared: &Arc<Shared>, id: DynoId, dir: PathBuf, labels: Labels) -> Result<Found, EngineError> {
    let plan = Plan::read(&dir);
    let addr = plan.slot.zip(plan.port).map(|(slot, port)| (shared.instance.address(slot), port).into());
    let was_ready = plan.port.is_none() || record::was_ready(&dir);
    let found = |exit| Found { id, labels: labels.clone(), addr, exit, ready_port: plan.port, was_ready };
    if let Some(slot) = plan.slot
        && let Some(control) = reach(&dir).await
        && let Ok(output) = output(shared, id, &labels, &dir)
    {
        shared.lock_slots().occupy(slot);
        let orders = shared.expect_orders(id);
        let (ready, probe) = readiness(&labels, &plan, addr, &dir);
        let memory = Memory::new(shared, slot, plan.memory);
        let watched = Watched { id, dir, slot, control, orders, output, memory, probe, attached: None };
        shared.spawn(task::watch(shared.clone(), watched, ready));
        return Ok(found(None));
    }
    // Its last lines may be in the ring still.
    let mut ended = None;
    if let Ok(mut output) = output(shared, id, &labels, &dir) {
        output.finish().await;
        ended = output.ended();
    }
    let (instance, its_dir) = (shared.instance.clone(), dir);
    let exit = tokio::task::spawn_blocking(move || {
        // A request for it that is still on its way comes too late.
        let _claim = record::claim(&its_dir);
        let recorded = record::exit(&its_dir).ok().flatten();
        // Also after an orderly end: its shim may have been killed before it had taken down everything.
        let settled = task::clean_up(&instance, id, &its_dir, ended);
        recorded.unwrap_or(settled)
    });
    Ok(found(Some(exit.await?)))
}

/// How long a shim that was making a dyno when the last server died may take to answer the next one.
const LAUNCHED_WITHIN: Duration = Duration::from_secs(10);

/// The dyno's shim, if it has one. It may be about to start the program, and not listen yet.
async fn reach(dir: &Path) -> Option<UnixStream> {
    let until = Instant::now() + LAUNCHED_WITHIN;
    loop {
        if let Ok(control) = task::connect(dir).await {
            return Some(control);
        }
        let busy = record::claim(dir).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if !busy || record::exit(dir).is_ok_and(|exit| exit.is_some()) || Instant::now() > until {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn output(shared: &Shared, id: DynoId, labels: &Labels, dir: &Path) -> Result<Output, StepError> {
    // Who read a build's lines is gone with the old server; a release phase's are the log's too.
    let sink = match labels.purpose {
        Purpose::Formation | Purpose::Run | Purpose::Release => Sink::Log,
        Purpose::Build => Sink::Nowhere,
    };
    Ok(Output::open(shared.hub.clone(), id, labels, dir, sink)?.go_on())
}

/// Whether it is ready, or what it still has to do to be.
fn readiness(labels: &Labels, plan: &Plan, addr: Option<SocketAddr>, dir: &Path) -> (Option<What>, Option<Probe>) {
    let Some(addr) = addr else { return (Some(What::Ready { addr: None }), None) };
    if record::was_ready(dir) {
        return (Some(What::Ready { addr: Some(addr) }), None);
    }
    let passed = Timestamp::now().duration_since(labels.launched_at).unsigned_abs();
    // A server that was away for long has not looked yet.
    let left = plan.within.saturating_sub(passed).max(Duration::from_secs(1));
    (None, Some(Probe { addr, until: Instant::now() + left }))
}
