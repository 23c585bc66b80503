//! A connection that has become a WebSocket: bytes both ways until one side ends or nothing moves.
#![forbid(unsafe_code)]

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// One side closed.
    Closed,
    Idle,
}

/// Carries bytes both ways; `down` counts those that went to the client.
pub(super) async fn run(client: Upgraded, dyno: Upgraded, idle: Duration, down: &Cell<u64>) -> End {
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_dyno, mut to_dyno) = tokio::io::split(TokioIo::new(dyno));
    let (up, last) = (Cell::new(0), Cell::new(Instant::now()));
    // Errors are one side going away without a word; the other learns it by being closed.
    let end = tokio::select! {
        _ = pump(&mut from_client, &mut to_dyno, &up, &last) => End::Closed,
        _ = pump(&mut from_dyno, &mut to_client, down, &last) => End::Closed,
        () = silence(&last, idle) => End::Idle,
    };
    let _ = tokio::join!(to_client.shutdown(), to_dyno.shutdown());
    end
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &Cell<u64>,
    last: &Cell<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; 8192];
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        last.set(Instant::now());
        to.write_all(&buffer[..size]).await?;
        to.flush().await?;
        count.set(count.get() + size as u64);
    }
}

/// Resolves once `last` lies back by `limit`.
async fn silence(last: &Cell<Instant>, limit: Duration) {
    loop {
        let due = last.get() + limit;
        if Instant::now() >= due {
            return;
        }
        tokio::time::sleep_until(due.into()).await;
    }
}
