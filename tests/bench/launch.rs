//! `bench launch`: a resident engine that launches dynos on request.
//!
//! ```text
//! run          → {"start", "stamp", "ended"}    the payload's own time stamp; ended: its Exited event
//! port         → {"start", "ready"}             until the port accepts, seen by the engine
//! loop N       → {"seconds"}                    N launches one after the other, each to its end
//! facts ARGV…  → {"lines"}                      what a command prints inside
//! ```
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC`, which payload, script and driver share. End of input ends the instance.
#![forbid(unsafe_code)]

use super::answer;
use hokku::domain::app::AppId;
use hokku::domain::dyno::{DynoId, Purpose};
use hokku::domain::limits::DynoSize;
use hokku::dyno::scratch::{self, Way};
use hokku::dyno::{Body, Dynos, Event, Io, Labels, Launch, Mount, Ready, Settings, What, destroy, instances, policy};
use hokku::logs::{Hub, HubLimits};
use hokku::stack;
use hokku::sys::seccomp;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

const PORT: u16 = 5000;
const WITHIN: Duration = Duration::from_secs(20);

struct Bench {
    dynos: Dynos,
    events: mpsc::UnboundedReceiver<Event>,
    app: AppId,
    layers: Vec<PathBuf>,
    binds: Vec<Mount>,
}

/// First says what others need to do the same: the stack's base, the system call filter, whether dynos have IPv6, and the
/// empty file system that writable layers are copies of, if they are.
///
/// Reading what the script asks blocks the main thread; the engine's tasks have a thread of their own.
pub(super) fn serve(hokku: &Path, root: &Path, name: &str, tree: &Path) -> Result<(), Box<dyn Error>> {
    let (instance, claim) = instances::claim(name.parse()?, root)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = runtime.block_on(async {
        let stack = stack::host(root, &[])?;
        let hub = Hub::open(root.join("logs"), HubLimits::default())?;
        let (sender, events) = mpsc::unbounded_channel();
        let settings = Settings { executable: hokku.to_owned(), ..Settings::default() };
        let (dynos, _) = Dynos::start(instance.clone(), settings, hub, sender).await?;
        let filter = root.join("filter.bpf");
        let policy = policy::read(&serde_json::from_value(policy::seccomp())?)?;
        std::fs::write(&filter, seccomp::compile(&policy).to_bytes())?;
        let empty = empty_image(root).await;
        let ipv6 = instances::forwards_ipv6();
        let base = json!({"base": stack.layers[0], "filter": filter, "ipv6": ipv6, "empty": empty});
        let binds = stack.binds.into_iter();
        let binds = binds.map(|bind| Mount { source: bind.source, target: bind.target, read_only: true }).collect();
        let layers = std::iter::once(tree.to_owned()).chain(stack.layers).collect();
        let mut bench = Bench { dynos, events, app: AppId(Uuid::now_v7()), layers, binds };
        answer(&base)?;
        let served = bench.serve().await;
        bench.dynos.shutdown().await;
        served
    });
    let cleared = runtime.block_on(destroy(&instance, Duration::ZERO));
    drop(claim);
    result.and(cleared.map_err(Into::into))
}

/// What the engine copies for each writable layer, if it keeps them in images here.
async fn empty_image(root: &Path) -> Option<PathBuf> {
    let path = root.join(format!("scratch/ext4-{}", DynoSize::Basic.limits().disk));
    let begun = Instant::now();
    while scratch::examine(root).0 == Way::Image && begun.elapsed() < WITHIN {
        if path.exists() {
            return Some(path);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

impl Bench {
    async fn serve(&mut self) -> Result<(), Box<dyn Error>> {
        for line in io::stdin().lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["run"] => answer(&self.run().await?)?,
                ["port"] => answer(&self.port().await?)?,
                ["loop", times] => answer(&self.repeat(times.parse()?).await?)?,
                ["facts", ref argv @ ..] => answer(&self.facts(argv).await?)?,
                _ => return Err(format!("what is {line:?}?").into()),
            }
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<Value, Box<dyn Error>> {
        let (sender, mut lines) = mpsc::unbounded_channel();
        let start = now();
        let id = self.launch(&["/app/stamp"], Ready::Started, Io::Lines(sender), &[]);
        self.until(id, |what| matches!(what, What::Exited(_))).await?;
        let ended = now();
        self.dynos.forget(id);
        let line = lines.recv().await.ok_or("the payload printed nothing")?;
        let stamp: i64 = String::from_utf8(line)?.trim().parse()?;
        Ok(json!({"start": start, "stamp": stamp, "ended": ended}))
    }

    async fn port(&mut self) -> Result<Value, Box<dyn Error>> {
        let start = now();
        let ready = Ready::Port { port: PORT, within: WITHIN };
        let id = self.launch(&["/app/stamp"], ready, Io::Log, &[("PORT", &PORT.to_string())]);
        self.until(id, |what| matches!(what, What::Ready { .. })).await?;
        let ready = now();
        self.until(id, |what| matches!(what, What::Exited(_))).await?;
        self.dynos.forget(id);
        Ok(json!({"start": start, "ready": ready}))
    }

    async fn repeat(&mut self, times: u32) -> Result<Value, Box<dyn Error>> {
        let start = Instant::now();
        for _ in 0..times {
            self.run().await?;
        }
        Ok(json!({"seconds": start.elapsed().as_secs_f64()}))
    }

    async fn facts(&mut self, argv: &[&str]) -> Result<Value, Box<dyn Error>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let id = self.launch(argv, Ready::Started, Io::Lines(sender), &[]);
        self.until(id, |what| matches!(what, What::Exited(_))).await?;
        self.dynos.forget(id);
        let mut lines = Vec::new();
        while let Some(line) = receiver.recv().await {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        Ok(json!({"lines": lines}))
    }

    fn launch(&self, command: &[&str], ready: Ready, io: Io, more: &[(&str, &str)]) -> DynoId {
        let env = [("HOME", "/app"), ("PATH", "/usr/local/bin:/usr/bin:/bin")];
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let body = Body {
            layers: self.layers.clone(),
            binds: self.binds.clone(),
            command: command.iter().map(ToString::to_string).collect(),
            env: env.iter().chain(more).map(own).collect(),
            files: Vec::new(),
            limits: DynoSize::Basic.limits(),
            hostname: "bench".to_owned(),
            network: true,
            time_limit: None,
        };
        let labels = Labels {
            app: self.app,
            app_name: "bench".to_owned(),
            name: "web.1".parse().expect("a dyno's name"),
            purpose: Purpose::Formation,
            version: 1,
            epoch: 0,
            streak: 0,
            size: DynoSize::Basic,
            command: command.join(" "),
            launched_at: Timestamp::now(),
            by: None,
        };
        let id = DynoId(Uuid::now_v7());
        self.dynos.launch(Launch { id, labels, body, ready, io });
        id
    }

    async fn until(&mut self, id: DynoId, wanted: impl Fn(&What) -> bool) -> Result<(), Box<dyn Error>> {
        loop {
            let event = tokio::time::timeout(WITHIN, self.events.recv()).await?.ok_or("the engine is gone")?;
            match event.what {
                _ if event.id != id => {}
                what if wanted(&what) => return Ok(()),
                What::Failed { step, message } => return Err(format!("could not {step}: {message}").into()),
                What::Exited(exit) => return Err(format!("the dyno ended: {exit:?}").into()),
                _ => {}
            }
        }
    }
}

fn now() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
