//! Timers and limits.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Every timer and limit of the router; the defaults are Heroku's unless said otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// H19: how long a connection to a dyno may take.
    pub connect: Duration,
    /// How long a dyno that could not be connected to is only tried when there is no other.
    pub quarantine: Duration,
    /// H12: first byte of the response, counted from the end of the request.
    pub first_byte: Duration,
    /// H15 and H28: no byte in either direction once under way.
    pub idle: Duration,
    /// H20: how long a request waits for a dyno that is booting.
    pub boot: Duration,
    /// H20: how long a request is held while the only dyno is replaced.
    pub hold: Duration,
    /// How long a client's connection may wait for its next request, and a request's head may take.
    pub keep_alive: Duration,
    /// How long the handshake of TLS may take.
    pub handshake: Duration,
    /// Handshakes under way in one thread.
    pub handshakes: usize,
    /// A connection to a dyno that was idle for longer is closed.
    pub upstream_idle: Duration,
    /// A request that could not be sent twice only gets a connection that was idle for less: applications close idle
    /// connections after a few seconds, and might do so just now.
    pub trusted_idle: Duration,
    /// Requests that one dyno has not begun to answer. Heroku allows 50 for each of its many routers; a box has one.
    pub active_per_dyno: u32,
    /// H11: requests that wait for one of those places, for each dyno.
    pub backlog_per_dyno: u32,
    /// H11: requests held for one app while it boots or its only dyno is replaced.
    pub held_per_app: u32,
    /// Of those that were held, so many go to each dyno at once; twice as many after each `release_step`.
    pub released_at_once: u32,
    pub release_step: Duration,
    /// Bytes of a request line or of one header line.
    pub line: usize,
    /// Bytes of a whole request head.
    pub head: usize,
    /// Bytes of access lines kept while no server takes them.
    pub unsent: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            quarantine: Duration::from_secs(5),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(55),
            boot: Duration::from_secs(75),
            hold: Duration::from_secs(75),
            keep_alive: Duration::from_secs(55),
            handshake: Duration::from_secs(10),
            handshakes: 1000,
            upstream_idle: Duration::from_secs(30),
            trusted_idle: Duration::from_secs(1),
            active_per_dyno: 500,
            backlog_per_dyno: 500,
            held_per_app: 2000,
            released_at_once: 16,
            release_step: Duration::from_millis(50),
            line: 8 << 10,
            head: 64 << 10,
            unsent: 8 << 20,
        }
    }
}
