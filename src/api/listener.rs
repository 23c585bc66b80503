//! The listeners: connections of the Unix socket and of TCP, served until the server goes down.
#![forbid(unsafe_code)]

use crate::control::Control;
use crate::control::tokens::Peer;
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client has this long to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests under way have this long to end when the server goes down.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves the API, and the routes `beside` it, to whoever may open the socket's file; root needs no token. Ends some
/// seconds after `control` is told to close.
pub async fn serve_unix(listener: UnixListener, control: Control, beside: Router) {
    let (tasks, closing) = (TaskTracker::new(), control.closing.clone());
    let routes = super::routes(control).merge(beside);
    while let Some(accepted) = until_closing(&closing, listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let peer = stream.peer_cred().map_or(Peer::Network, |peer| Peer::Local { uid: peer.uid() });
                tasks.spawn(connection(stream, peer, routes.clone(), closing.clone()));
            }
            Err(error) => breathe(&error).await,
        }
    }
    farewell(tasks).await;
}

/// The same over TCP, where everybody needs a token.
pub async fn serve_tcp(listener: TcpListener, control: Control, beside: Router) {
    let (tasks, closing) = (TaskTracker::new(), control.closing.clone());
    let routes = super::routes(control).merge(beside);
    while let Some(accepted) = until_closing(&closing, listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                // Lines of output are small and should not wait for each other.
                let _ = stream.set_nodelay(true);
                tasks.spawn(connection(stream, Peer::Network, routes.clone(), closing.clone()));
            }
            Err(error) => breathe(&error).await,
        }
    }
    farewell(tasks).await;
}

async fn until_closing<T>(closing: &CancellationToken, accept: impl Future<Output = T>) -> Option<T> {
    closing.run_until_cancelled(accept).await
}

/// A client that went away again costs nothing; without file descriptors the next try would fail at once too.
async fn breathe(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::error!(%error, "can't accept connections");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn farewell(tasks: TaskTracker) {
    tasks.close();
    // Whoever is left has had the time.
    let _ = tokio::time::timeout(FAREWELL, tasks.wait()).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    routes: Router,
    closing: CancellationToken,
) {
    let service = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
