//! A worker's idle connections to dynos.
#![forbid(unsafe_code)]

use super::body::RequestBody;
use super::table::Dyno;
use crate::domain::dyno::DynoId;
use hyper::client::conn::http1::SendRequest;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Idle connections kept for one dyno.
const PER_DYNO: usize = 128;

/// Idle connections by dyno, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: HashMap<DynoId, Idle>,
}

#[derive(Debug)]
struct Idle {
    dyno: Arc<Dyno>,
    connections: Vec<(Instant, SendRequest<RequestBody>)>,
}

impl Pool {
    /// A connection that can send at once and was idle for at most `age`.
    pub(super) fn take(&mut self, dyno: DynoId, age: Duration) -> Option<SendRequest<RequestBody>> {
        let connections = &mut self.idle.get_mut(&dyno)?.connections;
        for at in (0..connections.len()).rev() {
            let (since, sender) = &connections[at];
            if sender.is_closed() {
                connections.remove(at);
            } else if since.elapsed() > age {
                return None;
            } else if sender.is_ready() {
                return Some(connections.remove(at).1);
            }
            // Otherwise it was put back a moment ago and has not seen the end of its response yet.
        }
        None
    }

    pub(super) fn put(&mut self, dyno: &Arc<Dyno>, sender: SendRequest<RequestBody>) {
        if sender.is_closed() || !dyno.listed() {
            return;
        }
        let idle = self.idle.entry(dyno.id).or_insert_with(|| Idle { dyno: Arc::clone(dyno), connections: Vec::new() });
        if idle.connections.len() < PER_DYNO {
            idle.connections.push((Instant::now(), sender));
        }
    }

    /// One of them was dead: the others are hardly better.
    pub(super) fn forget(&mut self, dyno: DynoId) {
        self.idle.remove(&dyno);
    }

    /// Closes connections to dynos that left the table, and old ones.
    pub(super) fn sweep(&mut self, age: Duration) {
        self.idle.retain(|_, idle| {
            idle.connections.retain(|(since, sender)| since.elapsed() <= age && !sender.is_closed());
            idle.dyno.listed() && !idle.connections.is_empty()
        });
    }
}
