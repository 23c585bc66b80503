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

/// Starts the bridge; `hello` is what the shim is told first. It doesn't outlive the engine.
pub(super) fn start(shared: &Shared, dir: PathBuf, hello: Vec<u8>, client: BoxedIo) -> JoinHandle<()> {
    let ending = shared.ending.clone();
    shared.tasks.spawn(async move {
        ending.run_until_cancelled(bridge(dir, hello, client)).await;
    })
}

/// Passes frames both ways until the dyno has ended or the client has gone; that the connection to the shim ends then is
/// what tells the shim.
async fn bridge(dir: PathBuf, hello: Vec<u8>, mut client: BoxedIo) {
    // Whatever fails here shows to each side as the end of its connection.
    let _ = pass(&dir, &hello, &mut client).await;
    let _ = client.shutdown().await;
}

async fn pass(dir: &std::path::Path, hello: &[u8], client: &mut BoxedIo) -> io::Result<()> {
    let Ok(mut shim) = UnixStream::connect(dir.join(record::SOCKET)).await else {
        return client.write_all(&Frame::Error("the dyno has ended".to_owned()).encode()).await;
    };
    shim.write_all(hello).await?;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_shim, mut to_shim) = shim.split();
    let mut answer = pin!(answer(&mut from_shim, &mut to_client));
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
    client: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<()> {
    while let Ok(Some(frame)) = Frame::read(shim).await {
        client.write_all(&frame.encode()).await?;
        if matches!(frame, Frame::Exit(_) | Frame::Error(_)) {
            return client.flush().await;
        }
    }
    client.write_all(&Frame::Error("the dyno was killed".to_owned()).encode()).await?;
    client.flush().await
}
