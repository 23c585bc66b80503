//! The rendezvous: how Heroku's CLI attaches to a one-off dyno. After the TLS handshake the client says the secret of the
//! dyno's `attach_url`, is greeted, and from then on there are raw bytes in both directions until the dyno ends.
//!
//! ```text
//! client ─▶ secret, \r\n or nothing, input…            ─▶ frames ─▶ dyno
//!        ◀─ "rendezvous\r\n" in a record of its own, output… ◀─ frames ◀─
//! ```
//!
//! The exit status is no part of it: with `--exit-code` the client has the dyno's shell print it, and looks for that line in
//! what arrives at once.
#![forbid(unsafe_code)]

use super::listener::in_time;
use crate::control::Control;
use crate::control::dynos::{self, ACCESS_ENDED, Client, Protocol};
use crate::wire::attach::{Frame, MAX_PAYLOAD};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// The client throws away all that comes with it.
const GREETING: &[u8] = b"rendezvous\r\n";

/// What stands for the end of input: the client can't close its half of the connection.
const END_OF_INPUT: u8 = 4;

/// It is the end when nothing follows for this long; else it is a byte like others.
const QUIET: Duration = Duration::from_millis(200);

/// A client that does not close its side of a connection that is over is left after so long.
const LINGER: Duration = Duration::from_secs(2);

/// With this the line begins in which the client looks for the exit status.
const STATUS_LINE: &[u8] = "\u{ffff} heroku-command-exit-status: ".as_bytes();

/// Such a line ends with a number.
const STATUS_LINE_MAX: usize = STATUS_LINE.len() + 12;

/// Whether a client that says this first wants to meet a dyno: the methods of HTTP have other letters.
pub(super) fn begins_with(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// Brings a client, which has said `first`, together with the dyno whose secret it goes on to say.
pub(super) async fn meet(control: &Control, first: u8, mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    let mut said = [first; dynos::ATTACH_SECRET];
    in_time(&control.closing, stream.read_exact(&mut said[1..])).await?;
    let known = dynos::client(control, str::from_utf8(&said).unwrap_or_default()).await;
    let Ok(known @ Client { protocol: Protocol::Rendezvous { tty }, .. }) = known else {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no such rendezvous"));
    };
    stream.write_all(GREETING).await?;
    stream.flush().await?;
    let (ours, theirs) = tokio::io::duplex(MAX_PAYLOAD);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let held = match dynos::attach(control, known, Box::new(theirs)).await {
        Ok(held) => held,
        Err(error) => {
            writer.write_all(format!(" !     Can't attach: {error}.\r\n").as_bytes()).await?;
            writer.shutdown().await?;
            linger(&mut reader).await;
            return Ok(());
        }
    };
    let (mut from_dyno, mut to_dyno) = tokio::io::split(ours);
    tokio::select! {
        biased;
        () = held.ended() => {
            control.supervisor.evict(known.dyno);
            let last = format!(" !     {ACCESS_ENDED}\r\n");
            // It may have stopped reading.
            let _ = timeout(LINGER, async { writer.write_all(last.as_bytes()).await?; writer.shutdown().await }).await;
            linger(&mut reader).await;
            Ok(())
        }
        ended = output(&mut from_dyno, &mut writer) => {
            ended?;
            linger(&mut reader).await;
            Ok(())
        }
        // The client has gone, and with this the dyno's side of the connection goes too, which tells the dyno.
        gone = from_client(&mut reader, &mut to_dyno, tty) => gone,
    }
}

/// Takes what the client sends before it has seen the end: with that unread, the connection would be reset, which the
/// client takes for a failure of the dyno.
async fn linger(client: &mut (impl AsyncRead + Unpin)) {
    // Its own end of the connection matters to nobody any more.
    let _ = timeout(LINGER, tokio::io::copy(client, &mut tokio::io::sink())).await;
}

/// From the client, until it goes. A dyno that takes no more has ended, and what it has said is still to be read.
async fn from_client(
    client: &mut (impl AsyncRead + Unpin),
    dyno: &mut (impl AsyncWrite + Unpin),
    tty: bool,
) -> io::Result<()> {
    match input(client, dyno, tty).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            tokio::io::copy(client, &mut tokio::io::sink()).await.map(|_| ())
        }
        other => other,
    }
}

async fn input(
    client: &mut (impl AsyncRead + Unpin),
    dyno: &mut (impl AsyncWrite + Unpin),
    tty: bool,
) -> io::Result<()> {
    let mut input = Input { tty, begun: 0, held: false };
    let mut buffer = vec![0; MAX_PAYLOAD - 1];
    loop {
        let read = client.read(&mut buffer);
        let count = if input.held {
            let Ok(count) = timeout(QUIET, read).await else {
                input.held = false;
                dyno.write_all(&Frame::StdinEnd.encode()).await?;
                continue;
            };
            count?
        } else {
            read.await?
        };
        if count == 0 {
            return Ok(());
        }
        let bytes = input.take(&buffer[..count]);
        if !bytes.is_empty() {
            dyno.write_all(&Frame::Stdin(bytes).encode()).await?;
        }
    }
}

struct Input {
    tty: bool,
    /// How much of the line's end behind the secret has been passed over.
    begun: usize,
    /// The last byte may have been the end.
    held: bool,
}

impl Input {
    /// What of it is for the program. A terminal knows itself what the end of input is.
    fn take(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        const LINE_END: &[u8] = b"\r\n";
        while let (Some(expected), [next, rest @ ..]) = (LINE_END.get(self.begun), bytes) {
            if next != expected {
                self.begun = LINE_END.len();
                break;
            }
            (self.begun, bytes) = (self.begun + 1, rest);
        }
        let mut whole = Vec::with_capacity(bytes.len() + 1);
        if std::mem::take(&mut self.held) {
            whole.push(END_OF_INPUT);
        }
        whole.extend_from_slice(bytes);
        if !self.tty && whole.last() == Some(&END_OF_INPUT) {
            self.held = true;
            whole.pop();
        }
        whole
    }
}

/// From the dyno, until it ends.
async fn output(dyno: &mut (impl AsyncRead + Unpin), client: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut output = Output::default();
    while let Some(frame) = Frame::read(dyno).await? {
        match frame {
            Frame::Stdout(bytes) | Frame::Stderr(bytes) => send(client, output.take(&bytes)).await?,
            Frame::Error(text) => send(client, output.take(format!(" !     {text}\r\n").as_bytes())).await?,
            Frame::Exit(_) => break,
            _ => {}
        }
    }
    send(client, vec![output.held]).await?;
    client.shutdown().await
}

/// Each piece in records of its own.
async fn send(client: &mut (impl AsyncWrite + Unpin), pieces: Vec<Vec<u8>>) -> io::Result<()> {
    for piece in pieces {
        client.write_all(&piece).await?;
        client.flush().await?;
    }
    Ok(())
}

/// Output in pieces of which none has only a part of the line with the exit status.
#[derive(Default)]
struct Output {
    held: Vec<u8>,
}

impl Output {
    fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.held.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while !self.held.is_empty() {
            let start = status_line(&self.held).unwrap_or(self.held.len());
            let line = &self.held[start..];
            let cut = if start > 0 {
                start
            } else if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                end + 1
            } else if line.len() > STATUS_LINE_MAX {
                line.len()
            } else {
                break;
            };
            let rest = self.held.split_off(cut);
            pieces.push(std::mem::replace(&mut self.held, rest));
        }
        pieces
    }
}

/// Where the line begins, or what may become one.
fn status_line(bytes: &[u8]) -> Option<usize> {
    let may_be = |at: &usize| STATUS_LINE.starts_with(&bytes[*at..]) || bytes[*at..].starts_with(STATUS_LINE);
    (0..bytes.len()).filter(|at| bytes[*at] == STATUS_LINE[0]).find(may_be)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_of_input_is_the_last_byte_and_only_without_a_terminal() {
        let mut input = Input { tty: false, begun: 0, held: false };
        assert_eq!(input.take(b"\r"), b"");
        assert_eq!(input.take(b"\nab\x04"), b"ab");
        assert!(input.held);
        assert_eq!(input.take(b"\x04"), b"\x04");
        assert_eq!(input.take(b"c"), b"\x04c");
        assert!(!input.held);
        let mut input = Input { tty: true, begun: 0, held: false };
        assert_eq!(input.take(b"x\r\n\x04"), b"x\r\n\x04");
        assert!(!input.held);
    }

    #[tokio::test]
    async fn a_dyno_that_takes_no_more_is_no_client_that_has_gone() {
        let (mut there, mut client) = tokio::io::duplex(1024);
        let (mut dyno, ended) = tokio::io::duplex(1024);
        drop(ended);
        let mut passing = std::pin::pin!(from_client(&mut client, &mut dyno, true));
        there.write_all(b"more than it reads").await.unwrap();
        assert!(timeout(Duration::from_millis(100), &mut passing).await.is_err(), "what it has said would be lost");
        there.write_all(b"and more").await.unwrap();
        drop(there);
        passing.await.unwrap();
    }

    proptest! {
        #[test]
        fn the_status_arrives_whole_however_output_is_cut(
            before in "[a-z\u{ffff}\u{fffd}\n]{0,12}",
            status in 0u8..=255,
            cut in 1usize..50,
        ) {
            let line = format!("\u{ffff} heroku-command-exit-status: {status}\r\n");
            let text = format!("{before}{line}");
            let (mut output, mut pieces) = (Output::default(), Vec::new());
            for part in text.as_bytes().chunks(cut) {
                pieces.extend(output.take(part));
            }
            prop_assert!(output.held.is_empty());
            prop_assert_eq!(pieces.concat(), text.as_bytes());
            prop_assert!(pieces.iter().any(|piece| piece == line.as_bytes()));
        }

        #[test]
        fn other_output_is_not_kept_back_for_long(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut output = Output::default();
            output.take(&bytes);
            prop_assert!(output.held.len() <= STATUS_LINE_MAX);
        }
    }
}
