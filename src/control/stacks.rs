//! Stacks: which there are, and work on the layers of `debian-13`.
//!
//! Making layers takes minutes, so it is a job with an output that can be followed, as a build has. A restart forgets
//! jobs; what they had made by then is kept, what they had begun is not.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::domain::stack::{Language, Layer, StackName};
use crate::dyno::roots;
use crate::logs::OutputWriter;
use crate::stack::{Debian, Generation, LayersError, Origin, TransferError};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Jobs that are remembered, and whose output is kept.
const REMEMBERED: usize = 10;

/// How often it is looked for layers that nothing needs any more.
const COLLECT: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct NewWork {
    pub what: Work,
    /// Instead of the host's own apt sources.
    pub mirrors: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum Work {
    /// The base, the compilers, and these languages, as far as they are missing.
    Build(Vec<Language>),
    /// What has newer packages by now.
    Update,
}

/// One job, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: Uuid,
    pub status: Status,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Pending,
    Succeeded,
    /// A sentence for people.
    Failed(String),
}

/// The last jobs. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Jobs(Arc<Mutex<VecDeque<(Job, CancellationToken)>>>);

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Job, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a job; the outputs of those that are forgotten for it are to be removed.
    fn begin(&self, id: Uuid) -> (CancellationToken, Vec<Uuid>) {
        let mut jobs = self.lock();
        let token = CancellationToken::new();
        jobs.push_back((Job { id, status: Status::Pending }, token.clone()));
        let mut forgotten = Vec::new();
        while jobs.len() > REMEMBERED && jobs.front().is_some_and(|(job, _)| job.status != Status::Pending) {
            forgotten.extend(jobs.pop_front().map(|(job, _)| job.id));
        }
        (token, forgotten)
    }

    fn end(&self, id: Uuid, status: Status) {
        if let Some((job, _)) = self.lock().iter_mut().find(|(job, _)| job.id == id) {
            job.status = status;
        }
    }

    fn find(&self, id: Uuid) -> Option<(Job, CancellationToken)> {
        self.lock().iter().find(|(job, _)| job.id == id).cloned()
    }
}

/// Begins a job.
///
/// # Errors
/// When the stack has no layers, or the output can't be kept.
pub fn start(control: &Control, stack: &str, work: NewWork) -> Result<Job, ControlError> {
    layered(stack)?;
    let id = Uuid::new_v4();
    let output = control.outputs.create(id)?;
    let (token, forgotten) = control.jobs.begin(id);
    for old in forgotten {
        // There is nobody to tell, and it is a few lines.
        let _ = control.outputs.remove(old);
    }
    let control = control.clone();
    tokio::spawn(async move {
        let done = tokio::select! {
            done = run(&control, &work, &output) => done,
            () = token.cancelled() => Err("it was cancelled".to_owned()),
        };
        let status = match done {
            Ok(()) => Status::Succeeded,
            Err(reason) => {
                write(&output, &format!("\n !     {reason}.\n"));
                Status::Failed(reason)
            }
        };
        control.jobs.end(id, status);
        output.finish();
    });
    Ok(Job { id, status: Status::Pending })
}

async fn run(control: &Control, NewWork { what, mirrors }: &NewWork, output: &OutputWriter) -> Result<(), String> {
    let say = |line: &str| match line.strip_prefix("  ") {
        Some(step) => write(output, &format!("       {step}")),
        None => write(output, &format!("-----> {line}")),
    };
    let (debian, origin) = (control.stacks.debian(), Origin { mirrors: mirrors.clone() });
    match what {
        Work::Build(languages) => {
            let languages = languages.iter().copied().map(Layer::Language);
            let layers: Vec<Layer> = [Layer::Compilers].into_iter().chain(languages).collect();
            let made = debian.make(&layers, &origin, &say).await.map_err(|error| chain(&error))?;
            if made.is_empty() {
                write(output, "       Everything is there already.");
            }
        }
        Work::Update => {
            let renewed = debian.update(&origin, &say).await.map_err(|error| chain(&error))?;
            if renewed.is_empty() {
                write(output, "       debian-13 is up to date.");
            }
            tell_outdated(control, output);
        }
    }
    Ok(())
}

fn tell_outdated(control: &Control, output: &OutputWriter) {
    let apps = outdated_apps(control);
    if !apps.is_empty() {
        write(output, "       These apps run on old layers until their next restart (hokku ps:restart -a APP):");
        write(output, &format!("         {}", apps.join(", ")));
    }
}

fn write(output: &OutputWriter, line: &str) {
    output.write(format!("{line}\n").as_bytes());
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// # Errors
/// When there is no such job, or not any more.
pub fn find(control: &Control, id: &str) -> Result<Job, ControlError> {
    let found = id.parse().ok().and_then(|id| control.jobs.find(id));
    found.map(|(job, _)| job).ok_or(ControlError::NotFound(Resource::Build))
}

/// # Errors
/// When there is no such job, or it has ended.
pub fn cancel(control: &Control, id: &str) -> Result<Job, ControlError> {
    let found = id.parse().ok().and_then(|id| control.jobs.find(id));
    let (job, token) = found.ok_or(ControlError::NotFound(Resource::Build))?;
    if job.status != Status::Pending {
        return Err(ControlError::Conflict("That work has ended already.".into()));
    }
    token.cancel();
    Ok(job)
}

/// The languages that `debian-13` has on this box, or those of `wanted` that it may have.
///
/// # Errors
/// A name that is no language's.
pub fn languages(wanted: &[String]) -> Result<Vec<Language>, ControlError> {
    let parsed = wanted.iter().map(|text| text.trim().parse::<Language>()).collect::<Result<Vec<_>, _>>();
    parsed.map_err(|error| ControlError::Invalid(format!("{error}.")))
}

/// # Errors
/// When there is no such stack, or it has no layers.
fn layered(stack: &str) -> Result<(), ControlError> {
    match stack.parse::<StackName>() {
        Ok(StackName::Debian13) => Ok(()),
        Ok(StackName::Host) => {
            Err(ControlError::Invalid("The host stack has no layers: it is what is installed on this machine.".into()))
        }
        Err(error) => Err(ControlError::Invalid(format!("{error}."))),
    }
}

/// An exported stack while it is being made.
#[derive(Debug)]
pub struct Export {
    pipe: io::PipeReader,
    making: Option<JoinHandle<Result<(), TransferError>>>,
}

impl io::Read for Export {
    /// The end is only told when everything has been written.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.pipe.read(buffer)?;
        if read == 0
            && let Some(making) = self.making.take()
        {
            let made = making.join().map_err(|_| io::Error::other("interrupted"))?;
            made.map_err(|error| io::Error::other(chain(&error)))?;
        }
        Ok(read)
    }
}

///
/// # Errors
/// Layers that are not there.
pub fn export(control: &Control, stack: &str, wanted: Option<Vec<Language>>) -> Result<Export, ControlError> {
    layered(stack)?;
    let debian = control.stacks.debian().clone();
    let layers: Vec<Layer> = match wanted {
        Some(languages) => [Layer::Compilers].into_iter().chain(languages.into_iter().map(Layer::Language)).collect(),
        None => debian.current().into_keys().filter(|layer| *layer != Layer::Base).collect(),
    };
    let missing = debian.missing(&layers);
    if !missing.is_empty() {
        return Err(ControlError::Invalid(format!("{}.", LayersError::Missing(missing))));
    }
    let (pipe, writer) = io::pipe()?;
    let making = std::thread::spawn(move || debian.export(&layers, writer));
    Ok(Export { pipe, making: Some(making) })
}

/// Takes in an uploaded archive of layers.
///
/// # Errors
/// When nothing was uploaded, something else, or what is no stack for this machine.
pub async fn import(
    control: &Control,
    stack: &str,
    secret: &str,
    checksum: Option<&str>,
) -> Result<Generation, ControlError> {
    layered(stack)?;
    let archive = control.sources.take(secret, checksum)?;
    let debian = control.stacks.debian().clone();
    let imported = tokio::task::spawn_blocking(move || {
        let imported = debian.import(&archive);
        // It was moved nowhere; the upload is of no more use.
        let _ = std::fs::remove_file(&archive);
        imported
    });
    imported.await.map_err(io::Error::other)?.map_err(|error| match error {
        TransferError::DiskFull => ControlError::DiskFull,
        TransferError::Io(error) => error.into(),
        TransferError::Layers(LayersError::Io { source, .. }) => source.into(),
        error => ControlError::Invalid(format!("{}.", chain(&error))),
    })
}

/// Apps with dynos on layers that new dynos would not get, by name.
pub fn outdated_apps(control: &Control) -> Vec<String> {
    let debian = control.stacks.debian();
    let roots = roots(&control.place.instance).unwrap_or_default();
    let old = roots.into_iter().filter(|root| root.layers.iter().any(|layer| debian.is_superseded(layer)));
    old.map(|root| root.labels.app_name).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Removes layers when nothing needs them any more, for as long as the server runs.
pub async fn keep_collecting(control: Control) {
    let mut tick = tokio::time::interval(COLLECT);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = control.closing.cancelled() => return,
        }
        let (debian, instance) = (control.stacks.debian().clone(), control.place.instance.clone());
        let collected = tokio::task::spawn_blocking(move || collect(&debian, &instance)).await;
        if let Ok(Err(error)) = collected {
            tracing::warn!("can't remove old layers of debian-13: {error}");
        }
    }
}

fn collect(debian: &Debian, instance: &crate::domain::instance::Instance) -> io::Result<()> {
    if !debian.has_superseded()? {
        return Ok(());
    }
    let in_use: BTreeSet<PathBuf> = roots(instance)?.into_iter().flat_map(|root| root.layers).collect();
    debian.collect(&in_use)
}
