//! One build: source, dyno, slug, release.
#![forbid(unsafe_code)]

use super::report::{Failure, human_size};
use super::{Inner, Source, Ticket};
use crate::build::compile::{self, Choice, Compile};
use crate::build::{Buildpack, Outcome, Stage, outcome, room};
use crate::domain::build::BuildStatus;
use crate::domain::config_vars::ConfigVars;
use crate::domain::dyno::{DynoId, DynoName, Exit, Purpose};
use crate::domain::limits::DynoSize;
use crate::domain::procfile::ProcessType;
use crate::domain::release::{Change, History, Release, ReleaseId, ReleaseStatus};
use crate::domain::slug::{Slug, SlugId};
use crate::dyno::{Io, Labels, Launch, Ready};
use crate::logs::OutputWriter;
use crate::slug::{Packed, UnpackLimits};
use crate::store;
use crate::supervisor::LaunchFailure;
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use uuid::Uuid;

/// How often it is checked that a build does not fill the disk.
const WATCH: Duration = Duration::from_secs(1);

/// Where a slug leaves room for nothing else worth mentioning; a reminder as on Heroku.
const SOFT_LIMIT: u64 = 300 << 20;

/// A release that a build has made, and the removal of its directories, which nobody has to wait for.
pub(super) struct Released {
    release: Release,
    phase: bool,
    cleaning: JoinHandle<()>,
}

/// What the store says about the app when its build starts.
struct Known {
    listed: Vec<String>,
    config: ConfigVars,
    /// What the serving code was built from.
    commit: Option<String>,
}

impl Inner {
    /// Everything up to a committed release.
    pub(super) async fn attempt(self: &Arc<Self>, ticket: &Ticket) -> Result<Released, Failure> {
        let turn = self.turn_of(ticket.build.app);
        let _turn = self.wait_for_turn(ticket, &turn).await?;
        let _slot = self.wait_for_slot(ticket).await?;
        self.log(ticket.build.app, format!("Build started by user {}", ticket.build.actor.email));

        let id = ticket.build.id;
        let stage = self.blocking(move |inner| Ok(Stage::create(&inner.settings.root, id)?)).await?;
        let result = self.compile_and_release(ticket, &stage).await;
        let cleaning = spawn_blocking(move || clean(stage));
        match result {
            Ok((release, phase)) => Ok(Released { release, phase, cleaning }),
            Err(failure) => {
                // A failed build is gone without a trace by the time its pusher hears of it.
                cleaning.await.map_err(|_| Failure::Interrupted)?;
                Err(failure)
            }
        }
    }

    async fn compile_and_release(self: &Arc<Self>, ticket: &Ticket, stage: &Stage) -> Result<(Release, bool), Failure> {
        let known = self.known(ticket).await?;
        ticket.say(&format!("-----> Building on the {} stack", self.parts.stack.id));
        let choice = self.prepare(ticket, stage, &known).await?;
        self.run(ticket, stage, &choice, &known).await?;
        ticket.alive()?;
        let outcome = outcome::read(stage, &choice)?;
        outcome.report.iter().for_each(|line| ticket.say(line));
        ticket.say("");
        let packed = self.pack(ticket, stage).await?;
        ticket.say("-----> Launching...");
        let phase = outcome.types.contains_key(&ProcessType::release());
        let release = self.release(ticket, &choice, outcome, packed, &known).await?;
        self.keep_cache(ticket, stage).await;
        self.reach.wake(ticket.build.app);
        Ok((release, phase))
    }

    async fn wait_for_turn<'a>(
        &self,
        ticket: &Ticket,
        turn: &'a tokio::sync::Mutex<()>,
    ) -> Result<tokio::sync::MutexGuard<'a, ()>, Failure> {
        if let Ok(guard) = turn.try_lock() {
            return Ok(guard);
        }
        ticket.say("-----> Waiting for another build of this app to end");
        tokio::select! {
            guard = turn.lock() => Ok(guard),
            () = ticket.cancel.token.cancelled() => Err(Failure::Cancelled),
        }
    }

    async fn wait_for_slot(&self, ticket: &Ticket) -> Result<tokio::sync::OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(permit);
        }
        ticket.say("-----> Waiting for builds of other apps to end");
        tokio::select! {
            permit = Arc::clone(&self.slots).acquire_owned() => permit.map_err(|_| Failure::Interrupted),
            () = ticket.cancel.token.cancelled() => Err(Failure::Cancelled),
        }
    }

    async fn known(&self, ticket: &Ticket) -> Result<Known, Failure> {
        let app = ticket.build.app;
        self.parts
            .store
            .read(move |tx| {
                store::apps::get(tx, app)?.ok_or(Failure::NoApp)?;
                let slug = store::releases::current(tx, app)?.and_then(|release| release.slug);
                Ok(Known {
                    listed: store::buildpacks::get(tx, app)?,
                    config: store::releases::newest(tx, app)?.map(|release| release.config).unwrap_or_default(),
                    commit: slug
                        .map(|id| store::slugs::get(tx, id))
                        .transpose()?
                        .flatten()
                        .and_then(|slug| slug.commit),
                })
            })
            .await
    }

    /// Lays out what the dyno will see: source, cache, buildpacks.
    async fn prepare(self: &Arc<Self>, ticket: &Ticket, stage: &Stage, known: &Known) -> Result<Choice, Failure> {
        let mut listed = ticket.listed.clone();
        if listed.is_empty() {
            listed = known.listed.iter().map(|text| Buildpack::parse(text)).collect::<Result<_, _>>()?;
        }
        let (stage, app) = (stage.clone(), ticket.build.app);
        let archive = self.archive(ticket);
        // Archives made of a commit have a folder around everything only when the repository has it.
        let limits = UnpackLimits { strip_single_root: ticket.commit(known).is_none(), ..UnpackLimits::default() };
        let choice = self
            .blocking(move |inner| {
                let root = &inner.settings.root;
                room::check(&inner.settings, fs::metadata(&archive)?.len())?;
                inner.parts.slugs.unpack_source(&archive, &stage.source(), limits).map_err(Failure::Source)?;
                let choice = Choice::new(listed, stage.is_inline());
                stage.take_cache(root, app)?;
                stage.lay_packs(&choice.packs)?;
                Ok(choice)
            })
            .await?;
        ticket.alive()?;
        Ok(choice)
    }

    fn archive(&self, ticket: &Ticket) -> PathBuf {
        match &ticket.request.source {
            Source::Archive(path) => path.clone(),
            Source::Last => self.kept_source(ticket.build.app),
        }
    }

    /// Runs the build dyno to its end.
    async fn run(&self, ticket: &Ticket, stage: &Stage, choice: &Choice, known: &Known) -> Result<(), Failure> {
        let name = dyno_name(ticket.build.id.0);
        let dyno = name.to_string();
        let commit = ticket.commit(known);
        let compile = Compile {
            build: ticket.build.id,
            choice,
            config: &known.config,
            version: ticket.request.version.as_deref().or(commit.as_deref()),
            stack: &self.parts.stack,
            settings: &self.settings,
            stage,
            dyno: &dyno,
        };
        let (sender, lines) = mpsc::unbounded_channel();
        let launch = Launch {
            id: DynoId(Uuid::now_v7()),
            labels: labels(ticket, name),
            body: compile::body(&compile, |name| std::env::var(name).ok()),
            ready: Ready::Started,
            io: Io::Lines(sender),
        };
        let copying = tokio::spawn(copy(lines, ticket.output.clone()));
        let ended = self.watch(ticket, launch).await;
        // The engine has let go of the sender by now; nothing can come any more.
        if tokio::time::timeout(Duration::from_secs(5), copying).await.is_err() {
            tracing::warn!("the output of build {} has no end", ticket.build.id);
        }
        ended
    }

    /// Waits for the dyno's end, and brings it about when it is cancelled or the disk fills up.
    async fn watch(&self, ticket: &Ticket, launch: Launch) -> Result<(), Failure> {
        let (dyno, began) = (launch.id, Instant::now());
        let mut stopped = None;
        let mut running = std::pin::pin!(self.reach.run_build(launch));
        let mut tick = tokio::time::interval(WATCH);
        let ended = loop {
            tokio::select! {
                // In this order: the launch is asked for before anything can end it.
                biased;
                ended = &mut running => break ended,
                () = ticket.cancel.token.cancelled(), if stopped.is_none() => stopped = Some(Failure::Cancelled),
                _ = tick.tick(), if stopped.is_none() => match room::free_disk(&self.settings.root) {
                    Ok(free) if free < (self.settings.reserve_mb << 20) => stopped = Some(Failure::Disk),
                    _ => continue,
                },
            }
            self.reach.kill(dyno);
        };
        match stopped {
            Some(failure) => Err(failure),
            None => self.judge(ended, began.elapsed()),
        }
    }

    fn judge(&self, ended: Result<Exit, LaunchFailure>, took: Duration) -> Result<(), Failure> {
        let settings = &self.settings;
        match ended? {
            exit if exit.success() => Ok(()),
            exit if exit.oom => Err(Failure::Memory(settings.memory_mb)),
            _ if took >= settings.time_limit => Err(Failure::Time(settings.time_limit.as_secs().div_ceil(60))),
            Exit { signal: Some(signal), .. } => Err(Failure::Signal(signal)),
            _ => Err(Failure::Compile),
        }
    }

    async fn pack(self: &Arc<Self>, ticket: &Ticket, stage: &Stage) -> Result<Packed, Failure> {
        ticket.say("-----> Compressing...");
        let source = stage.source();
        let packed = self.blocking(move |inner| inner.parts.slugs.pack(&source).map_err(Failure::Pack)).await?;
        let size = human_size(packed.size);
        ticket.say(&format!("       Done: {size}"));
        let limit = self.settings.slug_mb;
        if packed.size > limit << 20 {
            return Err(Failure::Large { size, limit });
        }
        if packed.size > SOFT_LIMIT {
            ticket.say(" !     Large slugs take long to start. A .slugignore keeps files out of them.");
        }
        Ok(packed)
    }

    /// The point of no return: slug, release and the build's success in one transaction.
    async fn release(
        &self,
        ticket: &Ticket,
        choice: &Choice,
        outcome: Outcome,
        packed: Packed,
        known: &Known,
    ) -> Result<Release, Failure> {
        let (app, build, actor) = (ticket.build.app, ticket.build.id, ticket.build.actor.clone());
        let slug = Slug {
            id: SlugId(Uuid::new_v4()),
            app,
            digest: packed.digest,
            size: packed.size,
            commit: ticket.commit(known),
            stack: self.parts.stack.id.clone(),
            process_types: outcome.types,
            buildpack_description: Some(outcome.name),
            created_at: Timestamp::now(),
        };
        let version = slug.commit.clone().or_else(|| ticket.request.version.clone());
        let used: Vec<String> = match outcome.detected {
            Some(index) => vec![choice.packs[index].written.clone()],
            None => choice.packs.iter().map(|pack| pack.written.clone()).collect(),
        };
        let pinned = (outcome.detected.is_some() && known.listed.is_empty()).then(|| used.clone());
        if !ticket.cancel.commit() {
            return Err(Failure::Cancelled);
        }
        let release = self
            .parts
            .store
            .write(move |tx| {
                store::apps::get(tx, app)?.ok_or(Failure::NoApp)?;
                let now = Timestamp::now();
                store::slugs::insert(tx, &slug)?;
                let newest = store::releases::newest(tx, app)?;
                let standing = store::releases::standing(tx, app)?;
                let history = History { newest: newest.as_ref(), standing: standing.as_ref() };
                let change = Change::Deploy { slug: slug.id, commit: version.as_deref() };
                let release = Release::next(ReleaseId(Uuid::new_v4()), app, history, &change, actor, now)?;
                store::releases::insert(tx, &release)?;
                store::builds::set_buildpacks(tx, build, &used)?;
                if let Some(pinned) = pinned {
                    store::buildpacks::put(tx, app, &pinned)?;
                }
                let status = BuildStatus::Succeeded { slug: slug.id, release: Some(release.id) };
                store::builds::settle(tx, build, &status, now)?;
                Ok::<_, Failure>(release)
            })
            .await?;
        let who = &ticket.build.actor.email;
        self.log(app, format!("{} by user {who}", release.description));
        self.log(app, format!("Release v{} created by user {who}", release.version));
        self.log(app, "Build succeeded");
        Ok(release)
    }

    /// Not having a cache costs the next build time, so this is no reason to fail.
    async fn keep_cache(self: &Arc<Self>, ticket: &Ticket, stage: &Stage) {
        let (stage, app) = (stage.clone(), ticket.build.app);
        let kept = self.blocking(move |inner| Ok(stage.keep_cache(&inner.settings.root, app)?)).await;
        if let Err(error) = kept {
            tracing::warn!("can't keep the cache of build {}: {error}", ticket.build.id);
        }
    }

    /// Makes the archive the app's last source, from which its code can be built again, or removes it.
    pub(super) async fn consume_source(self: &Arc<Self>, ticket: &Ticket, serves: bool) {
        let Source::Archive(archive) = ticket.request.source.clone() else { return };
        let last = self.kept_source(ticket.build.app);
        let done = self.blocking(move |_| {
            if !serves {
                return Ok(fs::remove_file(&archive)?);
            }
            fs::create_dir_all(last.parent().unwrap_or(Path::new("/")))?;
            Ok(fs::rename(&archive, &last)?)
        });
        if let Err(error) = done.await {
            tracing::warn!("can't put the source of build {} in its place: {error}", ticket.build.id);
        }
    }

    /// Waits for the release to succeed or fail and tells the pusher.
    pub(super) async fn follow(self: &Arc<Self>, ticket: &Ticket, released: Released) {
        let Released { release, phase, cleaning } = released;
        let settled =
            if phase { self.follow_phase(ticket, release.id).await } else { self.reach.settled(release.id).await };
        let release = settled.unwrap_or(release);
        self.consume_source(ticket, release.status != ReleaseStatus::Failed).await;
        self.tell_settled(ticket, &release);
        // The pusher need not wait for it; the next build has directories of its own.
        let build = ticket.build.id;
        tokio::spawn(async move {
            if cleaning.await.is_err() {
                tracing::warn!("the directories of build {build} were not removed");
            }
        });
    }

    /// The same while the release command's output goes to the pusher.
    async fn follow_phase(&self, ticket: &Ticket, release: ReleaseId) -> Option<Release> {
        ticket.say("-----> Running release command...");
        let mut settled = std::pin::pin!(self.reach.settled(release));
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let mut reader = loop {
            tokio::select! {
                settled = &mut settled => match self.parts.outputs.follow(release.0) {
                    Some(mut reader) => {
                        while let Some(piece) = reader.next().await {
                            ticket.output.write(&piece);
                        }
                        return settled;
                    }
                    None => return settled,
                },
                _ = tick.tick() => if let Some(reader) = self.parts.outputs.follow(release.0) { break reader },
            }
        };
        while let Some(piece) = reader.next().await {
            ticket.output.write(&piece);
        }
        settled.await
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let inner = Arc::clone(self);
        spawn_blocking(move || work(&inner)).await.map_err(|_| Failure::Interrupted)?
    }
}

impl Ticket {
    fn alive(&self) -> Result<(), Failure> {
        if self.cancel.token.is_cancelled() { Err(Failure::Cancelled) } else { Ok(()) }
    }

    /// A rebuild has the commit of the code it builds again.
    fn commit(&self, known: &Known) -> Option<String> {
        let last = || (self.request.source == Source::Last).then(|| known.commit.clone()).flatten();
        self.request.commit.clone().or_else(last)
    }
}

/// `build.4821`: any number serves, builds of one app follow each other.
fn dyno_name(build: Uuid) -> DynoName {
    let kind = ProcessType::parse("build").expect("`build` is a process type");
    let random = u32::from_be_bytes([0, 0, build.as_bytes()[14], build.as_bytes()[15]]);
    DynoName::new(kind, 1000 + random % 9000)
}

fn labels(ticket: &Ticket, name: DynoName) -> Labels {
    Labels {
        app: ticket.build.app,
        app_name: ticket.request.app.name.to_string(),
        name,
        purpose: Purpose::Build,
        version: 0,
        epoch: 0,
        streak: 0,
        size: DynoSize::default(),
        command: "driver.sh".to_owned(),
        launched_at: Timestamp::now(),
    }
}

async fn copy(mut lines: mpsc::UnboundedReceiver<Vec<u8>>, output: OutputWriter) {
    while let Some(mut line) = lines.recv().await {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        output.write(&line);
    }
}

fn clean(stage: Stage) {
    if let Err(error) = stage.remove() {
        tracing::warn!("can't remove the directories of a build: {error}");
    }
}
