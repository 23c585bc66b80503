//! `hokku down`: everything of an instance that runs, or is on the host.
#![forbid(unsafe_code)]

use super::EngineError;
use super::output::{Output, Sink};
use crate::domain::dyno::Purpose;
use crate::domain::instance::Instance;
use crate::dyno::protocol::{self, CONTROL, Hello, Order, VERSION};
use crate::dyno::step::step;
use crate::dyno::{instances, launcher, network, record};
use crate::logs::{Hub, HubLimits};
use crate::sys::cgroup::{self, Group};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a killed dyno's shim may take to clean up before we do it.
const SHIM_WITHIN: Duration = Duration::from_secs(10);
/// How long a group may take to be empty: processes that the kernel does not let go of are waited for.
const EMPTY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Ends all dynos of an instance and removes every trace of it from the host; its ROOT stays, and gets what they said last. Its server must not run.
/// Dynos have `grace` between SIGTERM and SIGKILL; without, they are killed at once.
///
/// # Errors
/// When something can't be removed.
pub async fn destroy(instance: &Instance, grace: Duration) -> Result<(), EngineError> {
    let instance = instance.clone();
    tokio::task::spawn_blocking(move || clear(&instance, grace)).await?
}

fn clear(instance: &Instance, grace: Duration) -> Result<(), EngineError> {
    // First the launcher, so that there is no new shim; one that is gone already is fine.
    if let Ok(mut launcher) = UnixStream::connect(launcher::socket(instance)) {
        let _ = launcher.write_all(&Hello::Quit.encode());
        let _ = launcher.set_read_timeout(Some(SHIM_WITHIN));
        let _ = launcher.read(&mut [0]);
    }
    // One that is only about to start sees by this that it comes too late.
    step("end the launcher", &instance.name, launcher::forget(instance))?;
    end_shims(instance, grace)?;
    let hierarchy = instances::hierarchy(instance).map_err(std::io::Error::other);
    let hierarchy = step("find the cgroups", instance.cgroup(), hierarchy)?;
    let names = cgroup::children(&hierarchy, &instance.cgroup());
    for name in step("list the cgroups", instance.cgroup(), names)? {
        let group = Group::open(&hierarchy, &instance.cgroup(), &name);
        step("end a dyno", &name, group.kill())?;
        let until = Instant::now() + EMPTY_WITHIN;
        while group.procs().is_ok_and(|left| !left.is_empty()) && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
        step("remove a cgroup", &name, group.remove())?;
    }
    step("remove a cgroup", instance.cgroup(), cgroup::remove_parent(&hierarchy, &instance.cgroup()))?;
    keep_last_words(instance);
    network::teardown(instance)?;
    instances::release(instance)?;
    Ok(())
}

fn end_shims(instance: &Instance, grace: Duration) -> Result<(), EngineError> {
    let all = step("look for dynos", instance.run.display(), record::all(&instance.run))?;
    let mut shims = Vec::new();
    for (_, dir) in all {
        let Ok(mut shim) = UnixStream::connect(dir.join(record::SOCKET)) else { continue };
        let mut order = vec![VERSION, CONTROL];
        order.extend(protocol::encode(&match u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) {
            0 => Order::Kill,
            grace => Order::Stop { grace },
        }));
        let told = shim.write_all(&order).and_then(|()| shim.set_read_timeout(Some(grace + SHIM_WITHIN)));
        if told.is_ok() {
            shims.push(shim);
        }
    }
    for mut shim in shims {
        // Until it hangs up; what a stuck one leaves is removed after this.
        let mut rest = Vec::new();
        let _ = shim.read_to_end(&mut rest);
    }
    Ok(())
}

/// What dynos have said since there was no server any more goes where the next one looks for their logs. A box that is shut
/// down does not wait for what a full disk does not take.
fn keep_last_words(instance: &Instance) {
    let logs = instance.root.join("logs");
    if !logs.is_dir() {
        return;
    }
    let Ok(hub) = Hub::open(logs, HubLimits::default()) else { return };
    for (id, dir) in record::all(&instance.run).unwrap_or_default() {
        let Some(labels) = record::labels(&dir).ok().filter(|labels| labels.purpose != Purpose::Build) else {
            continue;
        };
        if let Ok(output) = Output::open(hub.clone(), id, &labels, &dir, Sink::Log)
            && let Err(error) = output.go_on().finish_now()
        {
            tracing::warn!(dyno = %id, %error, "cannot store the last log lines");
        }
    }
}
