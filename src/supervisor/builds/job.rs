//! One build: source, dyno, slug, release.
#![forbid(unsafe_code)]

use super::report::{Failure, human_size};
use super::stack::Ground;
use super::{Inner, Settings, Source, Ticket};
use crate::build::compile::{self, Compile};
use crate::build::{Buildpack, Choice, Manifest, Outcome, Stage, outcome, room};
use crate::domain::build::BuildStatus;
use crate::domain::config_vars::ConfigVars;
use crate::domain::dyno::{DynoId, DynoName, Exit, Purpose};
use crate::domain::formation::Formation;
use crate::domain::limits::DynoSize;
use crate::domain::log::clean;
use crate::domain::procfile::{ProcessType, ProcessTypes};
use crate::domain::release::{Change, History, Release, ReleaseError, ReleaseId, ReleaseStatus};
use crate::domain::slug::{Slug, SlugId};
use crate::domain::stack::StackName;
use crate::dyno::{Io, Labels, Launch, Ready};
use crate::logs::OutputWriter;
use crate::slug::{Packed, UnpackLimits};
use crate::store;
use crate::supervisor::LaunchFailure;
use crate::sys::tree::Unmeasured;
use jiff::Timestamp;
use std::collections::BTreeMap;
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
    /// What `app.json` wants run after the app's first release.
    postdeploy: Option<String>,
    cleaning: JoinHandle<()>,
}

/// A committed release and what is still to be done for it.
struct Made {
    release: Release,
    phase: bool,
    postdeploy: Option<String>,
}

/// What the store says about the app when its build starts.
pub(super) struct Known {
    listed: Vec<String>,
    config: ConfigVars,
    /// What the serving code was built from.
    commit: Option<String>,
    /// No code has been deployed that could serve.
    first: bool,
}

/// What a build works by.
pub(super) struct Prepared {
    pub(super) choice: Choice,
    /// With the defaults of `app.json`.
    config: ConfigVars,
    /// Of an app's first deploy, empty otherwise.
    manifest: Manifest,
    pub(super) stack: StackName,
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
        let cleaning = spawn_blocking(move || remove(stage));
        match result {
            Ok(Made { release, phase, postdeploy }) => Ok(Released { release, phase, postdeploy, cleaning }),
            Err(failure) => {
                // A failed build is gone without a trace by the time its pusher hears of it.
                cleaning.await.map_err(|_| Failure::Interrupted)?;
                Err(failure)
            }
        }
    }

    async fn compile_and_release(self: &Arc<Self>, ticket: &Ticket, stage: &Stage) -> Result<Made, Failure> {
        let known = self.known(ticket).await?;
        let manifest = self.unpack(ticket, stage, &known).await?;
        let on = self.choose_stack(ticket, &manifest).await?;
        let prepared = self.prepare(ticket, stage, &known, manifest, on).await?;
        let ground = self.ground(ticket, stage, &prepared, &known).await?;
        self.run(ticket, stage, &prepared, &known, &ground).await?;
        ticket.alive()?;
        let outcome = outcome::read(stage, &prepared.choice)?;
        outcome.report.iter().for_each(|line| ticket.say(line));
        if known.first {
            prepared.manifest.addons.iter().chain(&outcome.addons).for_each(|plan| ticket.say(&no_addon(plan)));
        }
        ticket.say("");
        let packed = self.pack(ticket, stage).await?;
        ticket.say("-----> Launching...");
        let phase = outcome.types.contains_key(&ProcessType::release());
        let release = self.release(ticket, &prepared, outcome, packed, &known, ground).await?;
        self.keep_cache(ticket, stage).await;
        self.reach.wake(ticket.build.app);
        Ok(Made { release, phase, postdeploy: prepared.manifest.postdeploy })
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
                    first: store::releases::standing(tx, app)?.is_none_or(|release| release.slug.is_none()),
                    listed: store::buildpacks::get(tx, app)?,
                    config: store::releases::newest(tx, app)?.map(|release| release.vars()).unwrap_or_default(),
                    commit: slug
                        .map(|id| store::slugs::get(tx, id))
                        .transpose()?
                        .flatten()
                        .and_then(|slug| slug.commit),
                })
            })
            .await
    }

    /// Lays out the source. What its `app.json` says is for an app's first deploy.
    async fn unpack(self: &Arc<Self>, ticket: &Ticket, stage: &Stage, known: &Known) -> Result<Manifest, Failure> {
        let (stage, archive, first) = (stage.clone(), self.archive(ticket), known.first);
        // Archives made of a commit have a folder around everything only when the repository has it.
        let limits = UnpackLimits { strip_single_root: ticket.commit(known).is_none(), ..UnpackLimits::default() };
        self.blocking(move |inner| {
            room::check(&inner.settings, fs::metadata(&archive)?.len())?;
            inner.parts.slugs.unpack_source(&archive, &stage.source(), limits).map_err(Failure::Source)?;
            let manifest = if first { Manifest::read(&stage)? } else { None };
            Ok(manifest.unwrap_or_default())
        })
        .await
    }

    /// The app's stack, or, as long as its owner has chosen none and it has no code, the one of `app.json`.
    async fn choose_stack(&self, ticket: &Ticket, manifest: &Manifest) -> Result<StackName, Failure> {
        let app = &ticket.request.app;
        let declared = if app.stack_chosen { None } else { manifest.stack()? };
        let stack = declared.unwrap_or(app.stack);
        let by = if declared.is_some() { ", as app.json says" } else { "" };
        ticket.say(&format!("-----> Building on the {} stack{by}", self.stack_id(stack)));
        if stack != app.stack {
            let build = ticket.build.id;
            self.parts.store.write(move |tx| store::builds::set_stack(tx, build, stack)).await?;
        }
        Ok(stack)
    }

    /// Lays out what else the dyno will see: cache, buildpacks.
    async fn prepare(
        self: &Arc<Self>,
        ticket: &Ticket,
        stage: &Stage,
        known: &Known,
        manifest: Manifest,
        on: StackName,
    ) -> Result<Prepared, Failure> {
        let named = if ticket.listed.is_empty() {
            known.listed.iter().map(|text| Buildpack::parse(text)).collect::<Result<_, _>>()?
        } else {
            ticket.listed.clone()
        };
        if !named.is_empty() && known.config.get("BUILDPACK_URL").is_some() {
            ticket.say(" !     BUILDPACK_URL is not used: buildpacks are set for this app (see hokku buildpacks).");
        }
        let (stage, app, config) = (stage.clone(), ticket.build.app, known.config.clone());
        let prepared = self
            .blocking(move |inner| {
                let root = &inner.settings.root;
                let config = config.with_defaults(&manifest.defaults).map_err(ReleaseError::Config)?;
                manifest.check(&config)?;
                let choice = match named {
                    packs if !packs.is_empty() => Choice::listed(packs),
                    _ => Choice::unset(&config, Some(&manifest), &stage)?,
                };
                stage.take_cache(root, app)?;
                stage.lay_packs(&choice.packs)?;
                Ok(Prepared { choice, config, manifest, stack: on })
            })
            .await?;
        ticket.alive()?;
        Ok(prepared)
    }

    fn archive(&self, ticket: &Ticket) -> PathBuf {
        match &ticket.request.source {
            Source::Archive(path) => path.clone(),
            Source::Last => self.kept_source(ticket.build.app),
        }
    }

    /// Runs the build dyno to its end.
    pub(super) async fn run(
        &self,
        ticket: &Ticket,
        stage: &Stage,
        prepared: &Prepared,
        known: &Known,
        ground: &Ground,
    ) -> Result<(), Failure> {
        let name = dyno_name(ticket.build.id.0);
        let dyno = name.to_string();
        let commit = ticket.commit(known);
        let compile = Compile {
            build: ticket.build.id,
            choice: &prepared.choice,
            config: &prepared.config,
            version: ticket.request.version.as_deref().or(commit.as_deref()),
            stack: &ground.stack,
            settings: &self.settings,
            stage,
            dyno: &dyno,
            phase: ground.phase,
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
                _ = tick.tick(), if stopped.is_none() => match self.disk_is_full() {
                    Some(full) => stopped = Some(full),
                    None => continue,
                },
            }
            self.reach.kill(dyno);
        };
        match stopped {
            Some(failure) => Err(failure),
            None => self.judge(ended, began.elapsed()),
        }
    }

    fn disk_is_full(&self) -> Option<Failure> {
        let Settings { root, reserve_mb, .. } = &self.settings;
        let free = room::free_disk(root).ok()?;
        (free < reserve_mb << 20).then(|| Failure::Disk { least: *reserve_mb, place: root.display().to_string() })
    }

    fn judge(&self, ended: Result<Exit, LaunchFailure>, took: Duration) -> Result<(), Failure> {
        let settings = &self.settings;
        match ended? {
            exit if exit.success() => Ok(()),
            exit if exit.box_full => Err(Failure::BoxMemory),
            exit if exit.oom => Err(Failure::Memory(settings.memory_mb)),
            _ if took >= settings.time_limit => Err(Failure::Time(settings.time_limit.as_secs().div_ceil(60))),
            Exit { signal: Some(signal), .. } => Err(Failure::Signal(signal)),
            // Faster than it was looked for: what wrote last has failed by itself.
            _ => Err(self.disk_is_full().unwrap_or(Failure::Compile)),
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
        prepared: &Prepared,
        outcome: Outcome,
        packed: Packed,
        known: &Known,
        ground: Ground,
    ) -> Result<Release, Failure> {
        let (app, build, actor) = (ticket.build.app, ticket.build.id, ticket.build.actor.clone());
        let slug = Slug {
            id: SlugId(Uuid::new_v4()),
            app,
            digest: packed.digest,
            size: packed.size,
            commit: ticket.commit(known),
            commit_description: None,
            checksum: None,
            stack: ground.stack.id.clone(),
            languages: ground.languages,
            process_types: outcome.types,
            buildpack_description: Some(outcome.name),
            created_at: Timestamp::now(),
        };
        let version = slug.commit.clone().or_else(|| ticket.request.version.clone());
        let choice = &prepared.choice;
        let used: Vec<String> = match outcome.detected {
            Some(index) => vec![choice.packs[index].written.clone()],
            None => choice.packs.iter().map(|pack| pack.written.clone()).collect(),
        };
        let stack = (prepared.stack != ticket.request.app.stack).then_some(prepared.stack);
        let pinned = (choice.pin && known.listed.is_empty()).then(|| used.clone());
        let (defaults, formation) = first_deploy(known, prepared, outcome.config_vars, &slug.process_types);
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
                let change = Change::Deploy { slug: slug.id, commit: version.as_deref(), defaults: &defaults };
                let release = Release::next(ReleaseId(Uuid::new_v4()), app, history, &change, actor, now)?;
                store::releases::insert(tx, &release)?;
                store::builds::set_buildpacks(tx, build, &used)?;
                if !formation.0.is_empty() {
                    store::formations::put(tx, app, &formation)?;
                }
                if let Some(stack) = stack {
                    store::apps::pin_stack(tx, app, stack)?;
                }
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
        let (stage, app, limit) = (stage.clone(), ticket.build.app, self.settings.cache_mb);
        let kept = self.blocking(move |inner| {
            let unfit = match stage.cache_size() {
                Ok(size) if size > limit << 20 => format!("{}, more than {limit} MB", human_size(size)),
                Ok(_) => {
                    stage.keep_cache(&inner.settings.root, app)?;
                    return Ok(None);
                }
                Err(Unmeasured::Io(error)) => return Err(error.into()),
                Err(unfit) => unfit.to_string(),
            };
            Ok(Some(unfit))
        });
        match kept.await {
            Ok(None) => {}
            Ok(Some(unfit)) => {
                ticket.say(&format!(" !     The cache has {unfit}: that of the build before stays."));
                ticket.say(" !     hokku builds:cache:purge begins a new one.");
            }
            Err(error) => tracing::warn!("can't keep the cache of build {}: {error}", ticket.build.id),
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
        let Released { release, phase, postdeploy, cleaning } = released;
        let settled =
            if phase { self.follow_phase(ticket, release.id).await } else { self.reach.settled(release.id).await };
        let release = settled.unwrap_or(release);
        self.consume_source(ticket, release.status != ReleaseStatus::Failed).await;
        if let Some(command) = postdeploy.filter(|_| release.status == ReleaseStatus::Succeeded) {
            self.postdeploy(ticket, &release, command).await;
        }
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

fn no_addon(plan: &str) -> String {
    let plan = clean(plan.as_bytes());
    format!(" !     The app asks for the add-on {plan}, which is not made here. Set its config vars yourself.")
}

/// What an app's first deploy sets besides its code: config vars without a value, the scale of its process types.
fn first_deploy(
    known: &Known,
    prepared: &Prepared,
    of_the_pack: BTreeMap<String, String>,
    types: &ProcessTypes,
) -> (BTreeMap<String, String>, Formation) {
    if !known.first {
        return Default::default();
    }
    let mut defaults = of_the_pack;
    defaults.extend(prepared.manifest.defaults.clone());
    let mut formation = prepared.manifest.formation.clone();
    formation.0.retain(|kind, _| types.contains_key(kind));
    (defaults, formation)
}

impl Ticket {
    pub(super) fn alive(&self) -> Result<(), Failure> {
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
        by: None,
    }
}

pub(super) async fn copy(mut lines: mpsc::UnboundedReceiver<Vec<u8>>, output: OutputWriter) {
    while let Some(mut line) = lines.recv().await {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        output.write(&line);
    }
}

fn remove(stage: Stage) {
    if let Err(error) = stage.remove() {
        tracing::warn!("can't remove the directories of a build: {error}");
    }
}
