//! One dyno, launched for real by an engine with all that belongs to it: what other checks try one by one has to work
//! together.
#![forbid(unsafe_code)]

use super::machine::nearest;
use super::{Check, told};
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoId, DynoName, Purpose};
use crate::domain::instance::Instance;
use crate::domain::limits::DynoSize;
use crate::domain::procfile::ProcessType;
use crate::dyno::instances::{self, ClaimError};
use crate::dyno::{self, ADVICE, Body, Dynos, Event, Io, Labels, Launch, Mount, Ready, Settings, What};
use crate::logs::{Hub, HubLimits};
use crate::stack::{self, Bind, Stack};
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

const NAME: &str = "trial launch";
/// What the trial's own instance is called, before the number of its process.
const INSTANCE: &str = "doctor-";
/// What takes longer than this hangs, also on a machine that is emulated and has others beside it.
const PATIENCE: Duration = Duration::from_secs(40);
/// What `true` and its like may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What went wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{found}{ADVICE}{advice}")]
pub struct TrialError {
    pub found: String,
    pub advice: String,
}

impl TrialError {
    fn new(found: impl Into<String>) -> Self {
        let advice = "look at what else hokku doctor finds, and at dmesg".to_owned();
        Self { found: found.into(), advice }
    }

    /// An engine's words, which may have advice in them already.
    fn said(text: &str) -> Self {
        match text.split_once(ADVICE) {
            Some((found, advice)) => Self { found: found.to_owned(), advice: advice.to_owned() },
            None => Self::new(text),
        }
    }
}

/// Launches a program that ends at once, on the host stack, and waits for its end; returns how long that took. Its own
/// layer of the root is made in `root` and gone afterwards. Events of other dynos are passed over.
///
/// # Errors
/// When it was not launched or did not end well.
pub async fn launch(
    dynos: &Dynos,
    events: &mut mpsc::UnboundedReceiver<Event>,
    root: &Path,
    stack: &Stack,
) -> Result<Duration, TrialError> {
    let layer = Scratch::make(root.join(format!("trial-{}", std::process::id())))?;
    let app = layer.0.join("app");
    fs::create_dir(&app).map_err(|error| TrialError::new(format!("make {}: {error}", app.display())))?;
    let id = DynoId(Uuid::now_v7());
    let begun = Instant::now();
    // Whatever it prints is of no interest; the channel has no reader.
    let io = Io::Lines(mpsc::unbounded_channel().0);
    dynos.launch(Launch { id, labels: labels(), body: body(&layer.0, stack), ready: Ready::Started, io });
    let ended = tokio::time::timeout(PATIENCE, end_of(id, events)).await;
    if ended.is_err() {
        dynos.kill(id);
    }
    dynos.forget(id);
    match ended {
        Ok(Some(What::Exited(exit))) if exit.code == 0 => Ok(begun.elapsed()),
        Ok(Some(What::Exited(exit))) => Err(TrialError::new(format!("the program ended with status {}", exit.code))),
        Ok(Some(What::Failed { step, message })) => Err(TrialError::said(&format!("{step}: {message}"))),
        Ok(_) => Err(TrialError::new("the engine has ended")),
        Err(_) => Err(TrialError::new(format!("no end within {} seconds", PATIENCE.as_secs()))),
    }
}

async fn end_of(id: DynoId, events: &mut mpsc::UnboundedReceiver<Event>) -> Option<What> {
    loop {
        let event = events.recv().await?;
        if event.id == id && matches!(event.what, What::Exited(_) | What::Failed { .. }) {
            return Some(event.what);
        }
    }
}

fn labels() -> Labels {
    Labels {
        app: AppId(Uuid::nil()),
        app_name: "hokku".to_owned(),
        name: DynoName::new(ProcessType::web(), 1),
        // Its output is nobody's, and a server that is started while it runs ends it.
        purpose: Purpose::Build,
        version: 0,
        epoch: 0,
        streak: 0,
        size: DynoSize::default(),
        command: NAME.to_owned(),
        launched_at: Timestamp::now(),
        by: None,
    }
}

fn body(layer: &Path, stack: &Stack) -> Body {
    let bind = |bind: &Bind| Mount { source: bind.source.clone(), target: bind.target.clone(), read_only: true };
    Body {
        layers: std::iter::once(layer.to_owned()).chain(stack.layers.iter().cloned()).collect(),
        binds: stack.binds.iter().map(bind).collect(),
        command: vec!["true".to_owned()],
        env: stack.env.clone(),
        files: Vec::new(),
        limits: DynoSize::default().limits(),
        hostname: "trial".to_owned(),
        network: true,
        time_limit: Some(TIME_LIMIT),
    }
}

/// A directory that is removed with this.
struct Scratch(PathBuf);

impl Scratch {
    fn make(path: PathBuf) -> Result<Self, TrialError> {
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(TrialError {
                found: format!("make {}: {error}", path.display()),
                advice: "the state must be on a file system that can be written: choose another with --root".to_owned(),
            }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Of a trial that hangs, something may be in use; what is left has a few small files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The trial in an instance of its own, which is gone afterwards. It has its state where `root` is or will be, because
/// that is a matter of file systems. `program` is the hokku binary, which the engine starts its launcher from.
pub(super) fn check(root: &Path, program: &Path) -> Check {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(examine(nearest(root), program)),
        Err(error) => Check::warning(NAME, told(&error), "it was not tried"),
    }
}

async fn examine(place: &Path, program: &Path) -> Check {
    clear_left_overs().await;
    let name = format!("{INSTANCE}{}", std::process::id());
    let state = match Scratch::make(place.join(state_of(&name))) {
        Ok(state) => state,
        Err(error) => return Check::missing(NAME, error.found, error.advice),
    };
    let claimed = name.parse().map_err(|error| format!("{error}"));
    let claimed = claimed.and_then(|name| instances::claim(name, &state.0).map_err(|error: ClaimError| told(&error)));
    let (instance, _claim) = match claimed {
        Ok(claimed) => claimed,
        Err(error) => return Check::missing(NAME, error, "/run/hokku must be writable for root"),
    };
    let tried = try_in(&instance, program).await;
    if let Err(error) = dyno::destroy(&instance, Duration::ZERO).await {
        // Without it the number would stay taken until the next boot.
        let _ = instances::release(&instance);
        let advice = format!("remove by hand what is called {} (nft list tables, /sys/fs/cgroup)", instance.cgroup());
        return match tried {
            Err(error) => Check::missing(NAME, error.found, error.advice),
            Ok(_) => Check::warning(NAME, told(&error), advice),
        };
    }
    match tried {
        Ok(took) => Check::ok(NAME, format!("a dyno has run, in {} ms from its order to its end", took.as_millis())),
        Err(error) => Check::missing(NAME, error.found, error.advice),
    }
}

fn state_of(name: &str) -> String {
    format!(".hokku-{name}")
}

/// Takes away what trials have left that were killed.
async fn clear_left_overs() {
    for instance in instances::list().unwrap_or_default() {
        let name = instance.name.as_str();
        let is_one = name.starts_with(INSTANCE) && instance.root.file_name() == Some(state_of(name).as_ref());
        // It is refused while the trial runs.
        if is_one && let Ok((instance, _claim)) = instances::claim(instance.name.clone(), &instance.root) {
            let _state = Scratch(instance.root.clone());
            if let Err(error) = dyno::destroy(&instance, Duration::ZERO).await {
                tracing::warn!("can't remove what is left of {}: {}", instance.name, told(&error));
            }
        }
    }
}

async fn try_in(instance: &Instance, program: &Path) -> Result<Duration, TrialError> {
    let root = &instance.root;
    let hub = Hub::open(root.join("logs"), HubLimits::default()).map_err(|error| TrialError::new(told(&error)))?;
    let stack = stack::host(root, &[]).map_err(|error| TrialError::new(told(&error)))?;
    let (sender, mut events) = mpsc::unbounded_channel();
    let settings = Settings { executable: program.to_owned(), prepared: 0, ..Settings::default() };
    let started = Dynos::start(instance.clone(), settings, hub, sender).await;
    let (dynos, _) = started.map_err(|error| TrialError::said(&told(&error)))?;
    let tried = launch(&dynos, &mut events, root, &stack).await;
    dynos.shutdown().await;
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_that_was_given_is_told_apart_from_what_happened() {
        let error = TrialError::said("start the program: true: No such file -> look for it");
        assert_eq!(
            (error.found.as_str(), error.advice.as_str()),
            ("start the program: true: No such file", "look for it")
        );
        assert_eq!(error.to_string(), "start the program: true: No such file -> look for it");
        assert!(TrialError::said("it broke").advice.contains("hokku doctor"));
    }
}
