//! The listeners: connections of the Unix socket and of TCP, served until the server goes down.
//!
//! The TCP port tells plain HTTP from TLS by a connection's first byte, and within TLS HTTP from the rendezvous of a
//! one-off dyno's client by the next.
#![forbid(unsafe_code)]

use super::rendezvous;
use super::request::Scheme;
use crate::control::Control;
use crate::control::audit::Address;
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
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client has this long to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// With which TLS begins, and no request of HTTP.
const HANDSHAKE: u8 = 0x16;

/// Requests under way have this long to end when the server goes down.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves the API, and the routes `beside` it, to whoever may open the socket's file; root needs no token. Ends some
/// seconds after `control` is told to close.
pub async fn serve_unix(listener: UnixListener, control: Control, beside: Router) {
    let (tasks, closing) = (TaskTracker::new(), control.closing.clone());
    let routes = super::routes(control).merge(super::identified(beside));
    while let Some(accepted) = until_closing(&closing, listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let peer = stream.peer_cred().map_or(Peer::Network, |peer| Peer::Local { uid: peer.uid() });
                let ways = (peer, Scheme::Http, Address(None));
                tasks.spawn(connection(stream, ways, routes.clone(), closing.clone()));
            }
            Err(error) => breathe(&error).await,
        }
    }
    farewell(tasks).await;
}

/// The same over TCP, in plain HTTP and in TLS, where everybody needs a token.
pub async fn serve_tcp(listener: TcpListener, tls: TlsAcceptor, control: Control, beside: Router) {
    let (tasks, closing) = (TaskTracker::new(), control.closing.clone());
    let routes = super::routes(control.clone()).merge(super::identified(beside));
    while let Some(accepted) = until_closing(&closing, listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                // Lines of output are small and should not wait for each other.
                let _ = stream.set_nodelay(true);
                let (tls, control, routes) = (tls.clone(), control.clone(), routes.clone());
                tasks.spawn(async move {
                    if let Err(error) = over_tcp(stream, tls, control, routes).await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                });
            }
            Err(error) => breathe(&error).await,
        }
    }
    farewell(tasks).await;
}

/// Whatever the client speaks.
async fn over_tcp(stream: TcpStream, tls: TlsAcceptor, control: Control, routes: Router) -> io::Result<()> {
    let closing = control.closing.clone();
    let address = Address(stream.peer_addr().ok());
    let mut first = [0];
    if in_time(&closing, stream.peek(&mut first)).await? == 0 {
        return Ok(());
    }
    if first[0] != HANDSHAKE {
        connection(stream, (Peer::Network, Scheme::Http, address), routes, closing).await;
        return Ok(());
    }
    let mut stream = in_time(&closing, tls.accept(stream)).await?;
    if in_time(&closing, stream.read(&mut first)).await? == 0 {
        return Ok(());
    }
    if rendezvous::begins_with(first[0]) {
        return rendezvous::meet(&control, first[0], stream).await;
    }
    let (reader, writer) = tokio::io::split(stream);
    let whole = tokio::io::join(io::Cursor::new(first).chain(reader), writer);
    connection(whole, (Peer::Network, Scheme::Https, address), routes, closing).await;
    Ok(())
}

/// For what a client has to do first: it has as long for it as for the head of a request, and the server may end.
pub(super) async fn in_time<T>(
    closing: &CancellationToken,
    doing: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let timed = closing.run_until_cancelled(tokio::time::timeout(HEAD_TIMEOUT, doing)).await;
    timed.ok_or(io::ErrorKind::ConnectionAborted)??
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
    (peer, scheme, address): (Peer, Scheme, Address),
    routes: Router,
    closing: CancellationToken,
) {
    let service = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(scheme);
        request.extensions_mut().insert(address);
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
