//! The bridge between an attached client and the shim.
#![forbid(unsafe_code)]

use super::{Shared, record};
use crate::dyno::BoxedIo;
use crate::wire::attach::Frame;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// What a client is told whose dyno's shim ends the connection without a word.
pub(super) const KILLED: &str = "the dyno was killed";
/// The same for one that was to be let in: a shim that does not know what that is hangs up.
pub(super) const NOT_LET_IN: &str = "the dyno let nobody in: it has just ended, or was started by an earlier version of \
                                     hokku; a restart of the dyno helps";

/// Starts the bridge; `hello` is what the shim is told first, `silence` what it means when that says nothing. It doesn't
/// outlive the engine.
pub(super) fn start(
    shared: &Shared,
    dir: PathBuf,
    hello: Vec<u8>,
    silence: &'static str,
    client: BoxedIo,
) -> JoinHandle<()> {
    let ending = shared.ending.clone();
    shared.tasks.spawn(async move {
        ending.run_until_cancelled(bridge(dir, hello, silence, client)).await;
    })
}

/// Passes frames both ways until the dyno has ended or the client has gone; that the connection to the shim ends then is
/// what tells the shim.
async fn bridge(dir: PathBuf, hello: Vec<u8>, silence: &str, mut client: BoxedIo) {
    // Whatever fails here shows to each side as the end of its connection.
    let _ = pass(&dir, &hello, silence, &mut client).await;
    let _ = client.shutdown().await;
}

async fn pass(dir: &std::path::Path, hello: &[u8], silence: &str, client: &mut BoxedIo) -> io::Result<()> {
    let Ok(mut shim) = UnixStream::connect(dir.join(record::SOCKET)).await else {
        return client.write_all(&Frame::Error("the dyno has ended".to_owned()).encode()).await;
    };
    shim.write_all(hello).await?;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_shim, mut to_shim) = shim.split();
    let mut answer = pin!(answer(&mut from_shim, silence, &mut to_client));
    tokio::select! {
        copied = tokio::io::copy(&mut from_client, &mut to_shim) => match copied {
            Ok(_) => Ok(()),
            // A dyno that ends before it has taken everything has said its last word all the same.
            Err(_) => answer.await,
        },
        passed = &mut answer => passed,
    }
}

/// The dyno's frames; a client whose dyno ends without a last word gets one.
async fn answer(
    shim: &mut (impl AsyncRead + Unpin),
    silence: &str,
    client: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut last = silence;
    while let Ok(Some(frame)) = Frame::read(shim).await {
        last = KILLED;
        client.write_all(&frame.encode()).await?;
        if matches!(frame, Frame::Exit(_) | Frame::Error(_)) {
            return client.flush().await;
        }
    }
    client.write_all(&Frame::Error(last.to_owned()).encode()).await?;
    client.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixListener;

    /// What a client is told when the shim has said that much and hangs up.
    async fn told(said: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let shim = UnixListener::bind(dir.path().join(record::SOCKET)).unwrap();
        let (client, mut reads) = tokio::io::duplex(1024);
        let (mut client, mut heard): (BoxedIo, _) = (Box::new(client), Vec::new());
        let hangs_up = async {
            let (mut connection, _) = shim.accept().await.unwrap();
            let mut hello = [0; 2];
            connection.read_exact(&mut hello).await.unwrap();
            connection.write_all(said).await.unwrap();
        };
        let passed = async {
            pass(dir.path(), b"1I", NOT_LET_IN, &mut client).await.unwrap();
            drop(client);
        };
        let read = async { reads.read_to_end(&mut heard).await.unwrap() };
        tokio::join!(hangs_up, passed, read);
        let mut last = None;
        while let Some(frame) = Frame::decode(&mut heard).unwrap() {
            last = Some(frame);
        }
        let Some(Frame::Error(text)) = last else { panic!("{last:?}") };
        text
    }

    #[tokio::test]
    async fn a_shim_that_can_let_nobody_in_is_no_dyno_that_was_killed() {
        assert_eq!(told(b"").await, NOT_LET_IN);
        assert_eq!(told(&Frame::Stdout(b"x".to_vec()).encode()).await, KILLED);
    }
}
