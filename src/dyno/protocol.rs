//! What server, launcher and shim say to each other.
//!
//! To the launcher (`RUN/launcher.sock`), one connection each: a [`Hello`] of fixed length, then for a launch the request
//! as a frame. The launcher only reads the hello; the connection of a launch, or of what is made ready for one, goes on to
//! the shim it forks: there the request comes, at once or later, and then it is that dyno's first control connection.
//!
//! To a shim (`RUN/dynos/<id>/shim.sock`): the version byte and one byte for the kind of connection. An attach connection
//! goes on with the frames of [`crate::wire::attach`], a control connection with the frames below:
//! `[type u8][length u32 BE][payload]`, of which each side ignores types it doesn't know.
#![forbid(unsafe_code)]

use super::scratch::Bounds;
use super::{File, StepError};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Raised when an older shim could not make sense of what a newer server says.
pub(super) const VERSION: u8 = 1;

/// A frame longer than this is nonsense.
const MAX_FRAME: usize = 256 * 1024 * 1024;

/// What a connection to the launcher is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    Launch {
        slot: u16,
    },
    /// Make this slot's walls now, so that they are there when the request comes, by the same connection. Its end gives
    /// them up; a launcher that ends it at once (one of an earlier version does) has them taken by [`Self::Launch`].
    Prepare {
        slot: u16,
        bounds: Bounds,
    },
    /// There is a new server: the networks made ahead were for one that is gone, and the host may have changed.
    Forget,
    Quit,
}

impl Hello {
    pub(super) const LENGTH: usize = 20;

    pub(super) fn encode(self) -> [u8; Self::LENGTH] {
        let none = Bounds { bytes: 0, memory: 0 };
        let (kind, slot, bounds) = match self {
            Self::Launch { slot } => (1, slot, none),
            Self::Prepare { slot, bounds } => (2, slot, bounds),
            Self::Quit => (3, 0, none),
            Self::Forget => (4, 0, none),
        };
        let mut bytes = [0; Self::LENGTH];
        bytes[..2].copy_from_slice(&[VERSION, kind]);
        bytes[2..4].copy_from_slice(&slot.to_be_bytes());
        bytes[4..12].copy_from_slice(&bounds.bytes.to_be_bytes());
        bytes[12..].copy_from_slice(&bounds.memory.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: [u8; Self::LENGTH]) -> Option<Self> {
        let [VERSION, kind, high, low, ..] = bytes else { return None };
        let slot = u16::from_be_bytes([high, low]);
        let number = |at: usize| Some(u64::from_be_bytes(bytes[at..at + 8].try_into().ok()?));
        Some(match kind {
            1 => Self::Launch { slot },
            2 => Self::Prepare { slot, bounds: Bounds { bytes: number(4)?, memory: number(12)? } },
            3 => Self::Quit,
            4 => Self::Forget,
            _ => return None,
        })
    }
}

/// The kinds of connections to a shim.
pub(super) const CONTROL: u8 = b'C';
pub(super) const ATTACH: u8 = b'A';
/// Goes on with an [`Inside`](super::Inside) as a frame of a control connection, and then as one that is attached.
pub(super) const INSIDE: u8 = b'I';

/// One launch, as far as it isn't in the bundle.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    /// With `config.json`.
    pub(super) bundle: PathBuf,
    pub(super) env: Vec<(String, String)>,
    pub(super) files: Vec<File>,
    pub(super) stdio: Stdio,
}

/// Where the program's descriptors 0 to 2 go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stdio {
    /// Lines to the ring. When it is full, lines are dropped and counted, or, if lossless, the program waits.
    Log { lossless: bool },
    /// To whoever attaches.
    Attach { tty: Option<(u16, u16)> },
    /// The shim's own.
    Inherit,
}

/// What a shim tells a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum News {
    /// Said before `Started`: what the dyno writes is kept in memory, because this went wrong.
    InMemory(StepError),
    Started,
    Failed(StepError),
    /// There are lines in the ring.
    Lines,
    /// The grace is over and the dyno was killed.
    Killed,
}

/// What a server tells a shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// SIGTERM to every process now, SIGKILL when that many milliseconds are over.
    Stop {
        grace: u64,
    },
    Kill,
    /// There is room in the ring again.
    Room,
}

const JSON: u8 = 16;

/// A message as a frame.
pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    let payload = serde_json::to_vec(message).expect("messages have only text keys");
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(JSON);
    bytes.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Takes the next message off the front of `buffer`; `None` when it has not arrived whole. Unknown ones are skipped.
pub(super) fn decode<T: for<'a> Deserialize<'a>>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    loop {
        let Some((&[kind, a, b, c, d], rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame longer than any is"));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let message = if kind == JSON { serde_json::from_slice(payload).ok() } else { None };
        buffer.drain(..5 + length);
        if message.is_some() {
            return Ok(message);
        }
    }
}

/// Reads the next message; `None` when the other side is gone. Can be cancelled: what has arrived is in `buffer`.
pub(super) async fn read<T: for<'a> Deserialize<'a>>(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<T>> {
    loop {
        if let Some(message) = decode(buffer)? {
            return Ok(Some(message));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_unknown_ones_are_skipped() {
        let mut bytes = encode(&News::Started);
        bytes.extend([99, 0, 0, 0, 2, 7, 7]);
        bytes.extend(encode(&serde_json::json!("FromTheFuture")));
        bytes.extend(encode(&News::Killed));
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for byte in bytes {
            buffer.push(byte);
            seen.extend(decode::<News>(&mut buffer).unwrap());
        }
        assert_eq!(seen, [News::Started, News::Killed]);
    }

    #[test]
    fn a_hello_of_another_version_is_not_understood() {
        let bounds = Bounds { bytes: 1 << 30, memory: u64::MAX };
        for hello in [Hello::Launch { slot: 999 }, Hello::Prepare { slot: 7, bounds }, Hello::Forget, Hello::Quit] {
            assert_eq!(Hello::decode(hello.encode()), Some(hello));
        }
        let mut other = Hello::Quit.encode();
        other[0] = VERSION + 1;
        assert_eq!(Hello::decode(other), None);
    }
}
