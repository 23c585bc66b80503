//! The frames of an attached dyno, `Upgrade: hokku-attach/1`: `[type u8][length u32 BE][payload]`.
//!
//! | type | from | payload |
//! | --- | --- | --- |
//! | 0 stdin, 6 end of stdin | client | bytes; none |
//! | 1 stdout, 2 stderr | dyno | bytes |
//! | 3 resize | client | columns, rows (u16 BE each) |
//! | 4 signal | client | number (u8) |
//! | 5 exit | dyno | exit status (i32 BE); the last frame |
//! | 7 error | dyno | UTF-8 text; the last frame |
#![forbid(unsafe_code)]

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// The protocol's name in the `Upgrade` header.
pub const PROTOCOL: &str = "hokku-attach/1";

/// The longest payload; writers split, readers refuse more.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// A connection in both directions, whatever it is made of.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// An attached client's connection.
pub type BoxedIo = Box<dyn Connection>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Stdin(Vec<u8>),
    StdinEnd,
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Resize { columns: u16, rows: u16 },
    Signal(u8),
    Exit(i32),
    Error(String),
}

impl Frame {
    /// The frame as bytes. Payloads must not be longer than [`MAX_PAYLOAD`].
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload): (u8, Vec<u8>) = match self {
            Self::Stdin(bytes) => (0, bytes.clone()),
            Self::Stdout(bytes) => (1, bytes.clone()),
            Self::Stderr(bytes) => (2, bytes.clone()),
            Self::Resize { columns, rows } => (3, [columns.to_be_bytes(), rows.to_be_bytes()].concat()),
            Self::Signal(number) => (4, vec![*number]),
            Self::Exit(code) => (5, code.to_be_bytes().to_vec()),
            Self::StdinEnd => (6, Vec::new()),
            Self::Error(text) => (7, text.as_bytes().to_vec()),
        };
        let length = u32::try_from(payload.len()).expect("payloads are at most 64 KiB");
        let mut bytes = Vec::with_capacity(5 + payload.len());
        bytes.push(kind);
        bytes.extend(length.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Takes one frame off the front of `buffer`; `None` when it has not arrived whole.
    ///
    /// # Errors
    /// When the bytes are no frame.
    pub fn decode(buffer: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some((head, rest)) = buffer.split_at_checked(5) else { return Ok(None) };
        let length = payload_length(head)?;
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Self::parse(head[0], payload)?;
        buffer.drain(..5 + length);
        Ok(Some(frame))
    }

    /// Reads the next frame; `None` at a clean end.
    ///
    /// # Errors
    /// When reading fails, the stream ends inside a frame, or the bytes are no frame.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = [0; 5];
        if reader.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        reader.read_exact(&mut head[1..]).await?;
        let mut payload = vec![0; payload_length(&head)?];
        reader.read_exact(&mut payload).await?;
        Self::parse(head[0], &payload).map(Some)
    }

    fn parse(kind: u8, payload: &[u8]) -> io::Result<Self> {
        Ok(match (kind, payload) {
            (0, bytes) => Self::Stdin(bytes.to_vec()),
            (1, bytes) => Self::Stdout(bytes.to_vec()),
            (2, bytes) => Self::Stderr(bytes.to_vec()),
            (3, &[c0, c1, r0, r1]) => {
                Self::Resize { columns: u16::from_be_bytes([c0, c1]), rows: u16::from_be_bytes([r0, r1]) }
            }
            (4, &[number]) => Self::Signal(number),
            (5, &[a, b, c, d]) => Self::Exit(i32::from_be_bytes([a, b, c, d])),
            (6, []) => Self::StdinEnd,
            (7, bytes) => Self::Error(String::from_utf8_lossy(bytes).into_owned()),
            _ => return Err(invalid(format!("unknown attach frame of type {kind} and {} bytes", payload.len()))),
        })
    }
}

fn payload_length(head: &[u8]) -> io::Result<usize> {
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        return Err(invalid(format!("attach frame of {length} bytes; at most {MAX_PAYLOAD} are allowed")));
    }
    Ok(length)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            bytes().prop_map(Frame::Stdin),
            bytes().prop_map(Frame::Stdout),
            bytes().prop_map(Frame::Stderr),
            Just(Frame::StdinEnd),
            any::<(u16, u16)>().prop_map(|(columns, rows)| Frame::Resize { columns, rows }),
            any::<u8>().prop_map(Frame::Signal),
            any::<i32>().prop_map(Frame::Exit),
            "[a-zä ]{0,9}".prop_map(Frame::Error),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(frames in proptest::collection::vec(frames(), 0..6), cut in 1usize..9) {
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let (mut buffer, mut seen) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Frame::decode(&mut vec![9, 0, 0, 0, 0]).is_err());
        assert!(Frame::decode(&mut vec![0, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Frame::decode(&mut vec![5, 0, 0, 0, 1, 7]).is_err());
    }
}
