//! The client's side of an attached dyno: stdin, signals and window size go there as frames, output and the exit status
//! come back.
//!
//! ```text
//! stdin (a thread) ─┐
//! signals (a task) ─┴▶ frames ▶ writer (a task) ▶ server ▶ reader ▶ stdout, stderr, the end
//! ```
#![forbid(unsafe_code)]

use super::errors::Failure;
use super::output::Output;
use super::terminal;
use crate::wire::attach::{Frame, MAX_PAYLOAD};
use std::io::{self, Read as _};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The dyno's process ended with this status.
    Exit(i32),
    /// The dyno could not be run or attached to.
    Error(String),
    /// The connection ended before the dyno.
    Lost,
    /// This side left, with the status to end with.
    Left(u8),
}

/// Who reads the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The dyno has a pty, the terminal here is raw.
    Tty,
    /// Plain streams.
    Pipes,
}

/// Ctrl-C as a key.
const INTERRUPT: u8 = 3;
/// So many Ctrl-C within a second leave a dyno that does not listen, as with Heroku's CLI.
const IMPATIENCE: usize = 4;

/// Runs until the dyno ends or one side leaves.
pub(super) async fn session<S>(out: Output, stream: S, mode: Mode) -> Result<End, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let signals = Signals::listen().map_err(|error| Failure::local("signals", &error))?;
    let raw = match mode {
        Mode::Tty => Some(terminal::Raw::begin().map_err(|error| Failure::local("the terminal", &error))?),
        Mode::Pipes => None,
    };
    let (reader, writer) = tokio::io::split(stream);
    let (frames, outgoing) = mpsc::channel(16);
    let (leave, mut left) = mpsc::channel(1);
    tokio::spawn(send(writer, outgoing));
    tokio::spawn(signals.forward(mode, frames.clone(), leave.clone()));
    std::thread::spawn(move || read_stdin(mode, &frames, &leave));
    let end = tokio::select! {
        end = receive(out, reader) => end,
        Some(status) = left.recv() => Ok(End::Left(status)),
    };
    drop(raw);
    end
}

async fn receive(out: Output, mut reader: ReadHalf<impl AsyncRead>) -> Result<End, Failure> {
    loop {
        match Frame::read(&mut reader).await {
            Ok(Some(Frame::Stdout(bytes))) => out.bytes(&bytes)?,
            Ok(Some(Frame::Stderr(bytes))) => out.say_bytes(&bytes),
            Ok(Some(Frame::Exit(code))) => return Ok(End::Exit(code)),
            Ok(Some(Frame::Error(text))) => return Ok(End::Error(text)),
            // What only we may send means nothing from there.
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Ok(End::Lost),
        }
    }
}

/// The only writer, so that frames never mix.
async fn send(mut writer: WriteHalf<impl AsyncWrite>, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        // The reader sees the same end and tells it.
        if writer.write_all(&frame.encode()).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

/// Blocks in `read`; the thread ends with the process.
fn read_stdin(mode: Mode, frames: &mpsc::Sender<Frame>, leave: &mpsc::Sender<u8>) {
    let mut impatience = Impatience::default();
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        match io::stdin().lock().read(&mut buffer) {
            Ok(0) => {
                let _ = frames.blocking_send(Frame::StdinEnd);
                return;
            }
            Ok(n) => {
                let keys = buffer[..n].iter().copied();
                if mode == Mode::Tty && impatience.add(keys.filter(|key| *key == INTERRUPT), Instant::now()) {
                    let _ = leave.blocking_send(super::errors::status::ERROR);
                }
                if frames.blocking_send(Frame::Stdin(buffer[..n].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                let _ = frames.blocking_send(Frame::StdinEnd);
                return;
            }
        }
    }
}

/// Remembers when Ctrl-C came.
#[derive(Debug, Default)]
struct Impatience(Vec<Instant>);

impl Impatience {
    /// Whether it is enough now.
    fn add(&mut self, interrupts: impl IntoIterator<Item = u8>, now: Instant) -> bool {
        self.0.retain(|at| now.duration_since(*at) < Duration::from_secs(1));
        self.0.extend(interrupts.into_iter().map(|_| now));
        self.0.len() >= IMPATIENCE
    }
}

struct Signals {
    window: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hangup: Signal,
}

const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGTERM: u8 = 15;

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            window: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// With a pty the keys carry Ctrl-C, so a signal is meant for this process: it leaves. Without one the dyno gets
    /// the signal as if it ran here.
    async fn forward(mut self, mode: Mode, frames: mpsc::Sender<Frame>, leave: mpsc::Sender<u8>) {
        let mut impatience = Impatience::default();
        if mode == Mode::Tty {
            resize(&frames).await;
        }
        loop {
            let number = tokio::select! {
                _ = self.window.recv() => {
                    if mode == Mode::Tty {
                        resize(&frames).await;
                    }
                    continue;
                }
                _ = self.interrupt.recv() => SIGINT,
                _ = self.quit.recv() => SIGQUIT,
                _ = self.terminate.recv() => SIGTERM,
                _ = self.hangup.recv() => SIGHUP,
            };
            let impatient = number == SIGINT && impatience.add([INTERRUPT], Instant::now());
            if mode == Mode::Tty || impatient {
                let _ = leave.send(128 + number).await;
                return;
            }
            let _ = frames.send(Frame::Signal(number)).await;
        }
    }
}

async fn resize(frames: &mpsc::Sender<Frame>) {
    if let Some((columns, rows)) = terminal::size() {
        let _ = frames.send(Frame::Resize { columns, rows }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_interrupts_within_a_second_are_enough() {
        let (mut impatience, start) = (Impatience::default(), Instant::now());
        assert!(!impatience.add([INTERRUPT; 3], start));
        assert!(!impatience.add([INTERRUPT; 1], start + Duration::from_secs(2)));
        assert!(!impatience.add([INTERRUPT; 2], start + Duration::from_millis(2100)));
        assert!(impatience.add([INTERRUPT; 1], start + Duration::from_millis(2200)));
    }
}
