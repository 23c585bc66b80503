//! One app's log: its files, the ring of its newest lines, its tails.
#![forbid(unsafe_code)]

use super::HubLimits;
use super::segment::{Segment, Stored, encode};
use super::tail::{Kind, Queue, Tail, seconds};
use crate::domain::dyno::DynoId;
use crate::domain::log::{LogFilter, LogFrame, Source};
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Launches whose last number is remembered; the one that has been silent for longest is forgotten first. Far above
/// what can be alive at once.
const LAUNCHES: usize = 4096;

#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    limits: HubLimits,
    state: State,
    ring: VecDeque<Arc<LogFrame>>,
    ring_bytes: u64,
    last: Ledger,
    tails: Vec<Arc<Queue>>,
    /// Lines that reached watchers only, and the time of the first.
    unstored: Option<(u64, Timestamp)>,
}

#[derive(Debug)]
enum State {
    /// Nobody has asked yet.
    Unread,
    /// `None`: there is no file.
    Open(Option<Segment>),
    /// The app is gone.
    Closed,
}

impl Journal {
    pub(super) fn new(dir: PathBuf, limits: HubLimits) -> Self {
        Self {
            dir,
            limits,
            state: State::Unread,
            ring: VecDeque::new(),
            ring_bytes: 0,
            last: Ledger::default(),
            tails: Vec::new(),
            unstored: None,
        }
    }

    pub(super) fn write(&mut self, frame: LogFrame) {
        self.read();
        if matches!(self.state, State::Closed) {
            return;
        }
        let mut frames = Vec::with_capacity(2);
        if let Some((count, since)) = self.unstored {
            frames.push(not_stored(count, since, frame.at));
        }
        let at = frame.at;
        frames.push(frame);
        if self.store(&frames).is_ok() {
            self.unstored = None;
            self.publish(frames);
        } else {
            self.unstored = Some(self.unstored.map_or((1, at), |(count, since)| (count + 1, since)));
            self.publish(frames.into_iter().next_back());
        }
    }

    pub(super) fn write_all(&mut self, mut frames: Vec<LogFrame>) -> io::Result<()> {
        self.read();
        let Some(first) = frames.first().filter(|_| !matches!(self.state, State::Closed)) else { return Ok(()) };
        if let Some((count, since)) = self.unstored {
            let note = not_stored(count, since, first.at);
            frames.insert(0, note);
        }
        self.store(&frames)?;
        self.unstored = None;
        self.publish(frames);
        Ok(())
    }

    pub(super) fn recent(&mut self, filter: &LogFilter, lines: usize) -> Vec<Arc<LogFrame>> {
        self.read();
        let matching = self.ring.iter().rev().filter(|frame| filter.matches(frame));
        let mut found: Vec<_> = matching.take(lines).cloned().collect();
        found.reverse();
        found
    }

    pub(super) fn tail(&mut self, filter: LogFilter, lines: usize) -> Tail {
        let recent = self.recent(&filter, lines);
        self.watched(Tail::new(filter, recent, Kind::Session))
    }

    pub(super) fn drain(&mut self) -> Tail {
        self.read();
        self.watched(Tail::new(LogFilter::default(), Vec::new(), Kind::Drain))
    }

    fn watched(&mut self, (tail, queue): (Tail, Arc<Queue>)) -> Tail {
        self.tails.retain(|tail| !tail.is_closed());
        if matches!(self.state, State::Closed) {
            queue.close();
        }
        self.tails.push(queue);
        tail
    }

    pub(super) fn last_of(&mut self, dyno: DynoId) -> Option<u64> {
        self.read();
        self.last.of(dyno)
    }

    pub(super) fn close(&mut self) {
        self.state = State::Closed;
        self.ring.clear();
        self.tails.drain(..).for_each(|tail| tail.close());
    }

    /// Reads what is on the disk, once. Files that cannot be read are left alone: the log goes on in a new one, and
    /// only its history is missing.
    fn read(&mut self) {
        if !matches!(self.state, State::Unread) {
            return;
        }
        let (segment, stored) = Segment::open(&self.dir, self.limits.ring_lines).unwrap_or((None, Stored::default()));
        self.state = State::Open(segment);
        self.last.restore(stored.last);
        stored.frames.into_iter().for_each(|frame| self.remember(frame));
    }

    fn store(&mut self, frames: &[LogFrame]) -> io::Result<()> {
        let State::Open(open) = &mut self.state else { return Ok(()) };
        let mut lines = Vec::with_capacity(256 * frames.len());
        frames.iter().try_for_each(|frame| encode(frame, &mut lines))?;
        match open {
            Some(segment) if segment.bytes() < self.limits.segment_bytes => segment.append(&lines)?,
            _ => {
                let mut segment = Segment::begin(&self.dir, &self.last.all(), self.limits.segments)?;
                let appended = segment.append(&lines);
                *open = Some(segment);
                appended?;
            }
        }
        frames.iter().filter_map(|frame| frame.origin).for_each(|(dyno, n)| self.last.note(dyno, n));
        Ok(())
    }

    fn publish(&mut self, frames: impl IntoIterator<Item = LogFrame>) {
        for frame in frames {
            let frame = Arc::new(frame);
            self.tails.iter().for_each(|tail| tail.offer(&frame));
            self.remember(frame);
        }
        self.tails.retain(|tail| !tail.is_closed());
    }

    /// Long lines shorten the ring, so that an app cannot make the server hold megabytes for it.
    fn remember(&mut self, frame: Arc<LogFrame>) {
        self.ring_bytes += size(&frame);
        self.ring.push_back(frame);
        while self.ring.len() > self.limits.ring_lines || self.ring_bytes > 2 * self.limits.segment_bytes {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= size(&oldest);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.tails.iter().for_each(|tail| tail.close());
    }
}

fn size(frame: &LogFrame) -> u64 {
    (size_of::<LogFrame>() + frame.process.len() + frame.line.len()) as u64
}

fn not_stored(count: u64, since: Timestamp, at: Timestamp) -> LogFrame {
    let line = format!("Error L10 (output buffer overflow): {count} messages dropped since {}.", seconds(since));
    LogFrame::platform(at, Source::Heroku, "logplex", line)
}

/// How far each launch has been stored.
#[derive(Debug, Default)]
struct Ledger {
    /// Number, and when it was noted.
    launches: HashMap<DynoId, (u64, u64)>,
    clock: u64,
}

impl Ledger {
    fn of(&self, dyno: DynoId) -> Option<u64> {
        self.launches.get(&dyno).map(|(n, _)| *n)
    }

    fn note(&mut self, dyno: DynoId, n: u64) {
        self.clock += 1;
        let noted = self.launches.entry(dyno).or_insert((n, self.clock));
        *noted = (n.max(noted.0), self.clock);
        if self.launches.len() > LAUNCHES {
            let oldest = self.launches.iter().min_by_key(|(_, (_, at))| *at).map(|(dyno, _)| *dyno);
            oldest.and_then(|dyno| self.launches.remove(&dyno));
        }
    }

    fn all(&self) -> HashMap<DynoId, u64> {
        self.launches.iter().map(|(dyno, (n, _))| (*dyno, *n)).collect()
    }

    fn restore(&mut self, stored: HashMap<DynoId, u64>) {
        self.launches = stored.into_iter().map(|(dyno, n)| (dyno, (n, 0))).collect();
    }
}
