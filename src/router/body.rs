//! Bodies in both directions: passed on as they come, watched for stalls, and never longer in memory than a buffer.
#![forbid(unsafe_code)]

use super::access::Record;
use super::code::Code;
use super::table::Seat;
use super::worker::Worker;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::Sleep;

/// What the two sides of one exchange tell each other about the request's body.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// The whole body has been handed to the dyno's connection.
    complete: Cell<bool>,
    changed: Notify,
    /// What went wrong on the client's side.
    fault: Cell<Option<Code>>,
    /// The response has ended: nobody wants the rest of the body.
    stopped: Cell<bool>,
    reader: RefCell<Option<Waker>>,
}

impl Exchange {
    /// Resolves once the whole body has been sent.
    pub(super) async fn sent(&self) {
        while !self.complete.get() {
            self.changed.notified().await;
        }
    }

    pub(super) fn fault(&self) -> Option<Code> {
        self.fault.get()
    }

    fn stop(&self) {
        self.stopped.set(true);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// A timer that only costs something while there is nothing else to do.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), timer: None }
    }

    fn stirred(&mut self) {
        self.last = Instant::now();
    }

    /// Ready once nothing stirred for as long as the limit.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.last + self.limit;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due.into());
        }
    }
}

/// A client's body on its way to a dyno.
#[derive(Debug)]
pub(super) enum RequestBody {
    Empty,
    Client(Box<Upload>),
}

#[derive(Debug)]
pub(super) struct Upload {
    inner: Incoming,
    idle: Idle,
    exchange: Rc<Exchange>,
}

impl RequestBody {
    pub(super) fn client(inner: Incoming, idle: Duration, exchange: &Rc<Exchange>) -> Self {
        if inner.is_end_stream() {
            exchange.complete.set(true);
            return Self::Empty;
        }
        Self::Client(Box::new(Upload { inner, idle: Idle::new(idle), exchange: Rc::clone(exchange) }))
    }
}

impl Upload {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let exchange = &self.exchange;
        if exchange.stopped.get() {
            return Poll::Ready(Some(Err(io::Error::other("nobody wants the rest of this body"))));
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.stirred();
                if self.inner.is_end_stream() {
                    complete(exchange);
                }
                // Trailers are hop-by-hop here: what announces them has been removed.
                Poll::Ready(if frame.is_data() { Some(Ok(frame)) } else { None })
            }
            Poll::Ready(Some(Err(error))) => {
                exchange.fault.set(Some(Code::H27));
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
            Poll::Ready(None) => {
                complete(exchange);
                Poll::Ready(None)
            }
            Poll::Pending => {
                exchange.reader.replace(Some(cx.waker().clone()));
                ready!(self.idle.poll(cx));
                exchange.fault.set(Some(Code::H28));
                Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
            }
        }
    }
}

fn complete(exchange: &Exchange) {
    exchange.complete.set(true);
    exchange.changed.notify_one();
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Client(upload) => upload.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(upload) => upload.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(upload) => upload.inner.size_hint(),
        }
    }
}

/// What goes to the client.
#[derive(Debug)]
pub(super) enum ResponseBody {
    Page(Option<Bytes>),
    Dyno(Box<Download>),
}

impl ResponseBody {
    pub(super) fn page(html: Bytes) -> Self {
        Self::Page(Some(html).filter(|html| !html.is_empty()))
    }
}

/// A dyno's body on its way to the client, with what has to be put in order at its end.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) inner: Incoming,
    idle: Idle,
    status: u16,
    /// Such a response has no body, whatever its head says: hyper drops it without reading.
    bodiless: bool,
    record: Record,
    exchange: Rc<Exchange>,
    worker: Rc<Worker>,
    /// Until the end.
    open: Option<(Seat, SendRequest<RequestBody>)>,
}

/// What a [`Download`] needs.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) status: u16,
    pub(super) bodiless: bool,
    pub(super) record: Record,
    pub(super) exchange: Rc<Exchange>,
    pub(super) worker: Rc<Worker>,
    pub(super) seat: Seat,
    pub(super) sender: SendRequest<RequestBody>,
}

impl Download {
    pub(super) fn new(inner: Incoming, delivery: Delivery) -> Self {
        let Delivery { status, bodiless, record, exchange, worker, seat, sender } = delivery;
        let idle = Idle::new(worker.settings.idle);
        Self { inner, idle, status, bodiless, record, exchange, worker, open: Some((seat, sender)) }
    }

    fn ended(&mut self) {
        let Some((seat, sender)) = self.open.take() else { return };
        self.worker.pool.borrow_mut().put(&seat.dyno, sender);
        self.exchange.stop();
        self.record.served(self.status);
    }

    fn broken(&mut self, code: Code) {
        self.open = None;
        self.exchange.stop();
        self.record.failed(code);
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle.stirred();
                    let Some(data) = frame.data_ref() else { continue };
                    self.record.bytes += data.len() as u64;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => {
                    let code = self.exchange.fault().unwrap_or(if stalled(&error) { Code::H15 } else { Code::H18 });
                    self.broken(code);
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
                Poll::Ready(None) => {
                    self.ended();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(self.idle.poll(cx));
                    self.broken(Code::H15);
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                }
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.bodiless || self.inner.is_end_stream() {
            self.ended();
        } else if self.open.take().is_some() {
            self.exchange.stop();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Page(html) => Poll::Ready(html.take().map(|html| Ok(Frame::data(html)))),
            Self::Dyno(download) => download.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(html) => html.is_none(),
            Self::Dyno(download) => download.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(html) => SizeHint::with_exact(html.as_ref().map_or(0, |html| html.len() as u64)),
            Self::Dyno(download) => download.inner.size_hint(),
        }
    }
}

/// The error is a write that the other side did not take in time.
pub(super) fn stalled(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        source = error.source();
    }
    false
}
