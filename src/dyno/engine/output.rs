//! What a dyno prints, from its ring to where it is wanted.
//!
//! Lines leave the ring only after they are stored; a server that dies in between leaves them for the next one, which
//! skips those that the hub has already.
#![forbid(unsafe_code)]

use super::record;
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoId, Purpose};
use crate::domain::log::{self, LogFrame, Source};
use crate::dyno::Labels;
use crate::dyno::ring::{Record, Ring, Stream};
use crate::dyno::step::{StepError, step};
use crate::logs::Hub;
use crate::sys::process::Ended;
use jiff::Timestamp;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// Lines stored in one go.
const BATCH: usize = 512;

/// Batches after which a dyno lets others have their turn.
const TURN: usize = 4;

/// What a turn of storing has left.
pub(super) struct Stored {
    /// The shim waits to be told that there is room.
    pub(super) room: bool,
    /// There are more lines.
    pub(super) more: bool,
}

pub(super) enum Sink {
    Log,
    Lines(mpsc::UnboundedSender<Vec<u8>>),
    /// An attached client has it, or the one who wanted it is gone.
    Nowhere,
}

pub(super) struct Output {
    hub: Hub,
    app: AppId,
    id: DynoId,
    name: String,
    release: bool,
    sink: Sink,
    ring: Ring,
    /// The number of the last record that was stored.
    last: u64,
}

impl Output {
    pub(super) fn open(hub: Hub, id: DynoId, labels: &Labels, dir: &Path, sink: Sink) -> Result<Self, StepError> {
        let ring = step("open the log ring", dir.display(), Ring::open(&dir.join(record::RING)))?;
        let (app, name, release) = (labels.app, labels.name.to_string(), labels.purpose == Purpose::Release);
        Ok(Self { hub, app, id, name, release, sink, ring, last: 0 })
    }

    /// For a dyno that an earlier server knew: goes on after what is stored already.
    pub(super) fn go_on(mut self) -> Self {
        self.last = self.hub.last_of(self.app, self.id).unwrap_or(0);
        self
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.ring.ended()
    }

    /// Stores what there is, but of a dyno that prints all the while only so much that others have their turn.
    pub(super) fn store(&mut self) -> io::Result<Stored> {
        let mut room = false;
        for _ in 0..TURN {
            let (records, mark) = self.ring.peek(BATCH);
            if !records.is_empty() {
                self.deliver(&records)?;
            }
            room |= self.ring.take(mark);
            if records.is_empty() && self.ring.want() {
                return Ok(Stored { room, more: false });
            }
        }
        Ok(Stored { room, more: true })
    }

    async fn store_all(&mut self) -> io::Result<()> {
        while self.store()?.more {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn deliver(&mut self, records: &[Record]) -> io::Result<()> {
        let new = records.iter().filter(|record| record.number > self.last);
        if matches!(self.sink, Sink::Log) || (self.release && matches!(self.sink, Sink::Lines(_))) {
            let frames: Vec<LogFrame> = new.clone().map(|record| self.frame(record)).collect();
            self.hub.write_all(self.app, frames)?;
        }
        if let Sink::Lines(lines) = &self.sink {
            for record in new.filter(|record| record.stream != Stream::Dropped) {
                // Nobody may be listening any more; the dyno goes on.
                let _ = lines.send(record.bytes.clone());
            }
        }
        self.last = records.last().map_or(self.last, |record| record.number.max(self.last));
        Ok(())
    }

    fn frame(&self, record: &Record) -> LogFrame {
        let at = Timestamp::from_microsecond(record.micros).unwrap_or_default();
        let (source, line) = match record.gap() {
            Some((count, since)) => (Source::Heroku, overflow(count, since)),
            None => (Source::App, log::clean(&record.bytes)),
        };
        LogFrame { at, source, process: self.name.clone(), line, origin: Some((self.id, record.number)) }
    }

    /// Stores the rest after the shim has gone, also the count of what was dropped at the very end.
    pub(super) async fn finish(&mut self) {
        for pause in [Duration::from_millis(100), Duration::from_secs(1), Duration::ZERO] {
            match self.store_all().await {
                Ok(()) => break,
                Err(error) => tracing::error!(dyno = %self.id, %error, "cannot store the last log lines"),
            }
            tokio::time::sleep(pause).await;
        }
        self.say_dropped();
    }

    /// The same for who can't wait: what can't be stored now is lost.
    pub(super) fn finish_now(&mut self) -> io::Result<()> {
        self.store()?;
        self.say_dropped();
        Ok(())
    }

    fn say_dropped(&self) {
        if let Some((count, since)) = self.ring.take_dropped()
            && matches!(self.sink, Sink::Log)
        {
            let line = overflow(count, since);
            let origin = Some((self.id, self.ring.next_number()));
            let frame =
                LogFrame { at: Timestamp::now(), source: Source::Heroku, process: self.name.clone(), line, origin };
            self.hub.write(self.app, frame);
        }
    }
}

fn overflow(count: u64, since: i64) -> String {
    let since = Timestamp::from_microsecond(since).unwrap_or_default();
    format!(
        "Error L12 (Local buffer overflow) -> {count} messages dropped since {}.",
        since.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    )
}
