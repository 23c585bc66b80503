//! Dynos that only pretend.
#![forbid(unsafe_code)]

use hokku::domain::app::AppId;
use hokku::domain::dyno::{DynoId, Exit, Purpose};
use hokku::domain::egress::Egress;
use hokku::dyno::{Event, Inside, Io, Launch, Shortage, What};
use hokku::supervisor::Engine;
use hokku::wire::attach::{BoxedIo, Frame};
use jiff::Timestamp;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Dynos of the formation are up at once, a release phase passes at once, a build compiles until it is killed, and an
/// attached client is told what was run and what it sent.
pub(crate) struct Pretender {
    events: UnboundedSender<Event>,
    /// What is running; a build's lines end when it is dropped.
    running: Mutex<HashMap<DynoId, Io>>,
}

impl Pretender {
    pub(crate) fn new(events: UnboundedSender<Event>) -> Self {
        Self { events, running: Mutex::default() }
    }

    fn end(&self, id: DynoId, signal: i32) {
        if self.running.lock().unwrap().remove(&id).is_some() {
            tell(&self.events, id, exited(128 + signal));
        }
    }
}

fn tell(events: &UnboundedSender<Event>, id: DynoId, what: What) {
    // Nobody listens any more when the test has ended.
    let _ = events.send(Event { id, what });
}

fn exited(code: i32) -> What {
    let signal = (code > 128).then(|| code - 128);
    What::Exited(Exit { code, signal, oom: false, box_full: false, at: Timestamp::now() })
}

impl Engine for Pretender {
    fn launch(&self, launch: Launch) {
        let Launch { id, labels, io, .. } = launch;
        tell(&self.events, id, What::Started);
        match (labels.purpose, io) {
            (Purpose::Release, Io::Lines(lines)) => {
                lines.send(b"migrated".to_vec()).unwrap();
                tell(&self.events, id, exited(0));
            }
            (_, Io::Attach { stream, .. }) => {
                tell(&self.events, id, What::Ready { addr: None });
                let events = self.events.clone();
                tokio::spawn(async move { tell(&events, id, exited(converse(stream, &labels.command).await)) });
            }
            (_, io) => {
                if let Io::Lines(lines) = &io {
                    lines.send(b"       compiling".to_vec()).unwrap();
                }
                self.running.lock().unwrap().insert(id, io);
                let addr: SocketAddr = "127.0.0.1:9".parse().unwrap();
                tell(&self.events, id, What::Ready { addr: Some(addr) });
            }
        }
    }

    fn inside(&self, _: DynoId, order: Inside, client: BoxedIo, until: CancellationToken) {
        tokio::spawn(until.run_until_cancelled_owned(async move {
            converse(client, order.command.last().unwrap()).await;
        }));
    }

    fn stop(&self, id: DynoId, _: Duration) {
        self.end(id, 15);
    }

    fn kill(&self, id: DynoId) {
        self.end(id, 9);
    }

    fn forget(&self, _: DynoId) {}

    fn set_egress(&self, _: AppId, _: Egress, done: oneshot::Sender<Result<(), String>>) {
        done.send(Ok(())).unwrap();
    }

    fn room_beside(&self, _: &[DynoId]) -> Result<(), Shortage> {
        Ok(())
    }
}

async fn converse(mut stream: BoxedIo, command: &str) -> i32 {
    let mut text = format!("ran {command}; read ").into_bytes();
    while let Ok(Some(frame)) = Frame::read(&mut stream).await {
        match frame {
            Frame::Stdin(bytes) => text.extend(bytes),
            Frame::StdinEnd => break,
            _ => {}
        }
    }
    for frame in [Frame::Stdout(text), Frame::Exit(7)] {
        // The client may have gone.
        let _ = stream.write_all(&frame.encode()).await;
    }
    let _ = stream.shutdown().await;
    7
}
