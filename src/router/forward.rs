//! The way of one request: host → app → a place at a dyno → connection → response.
#![forbid(unsafe_code)]

use super::access::Record;
use super::body::{Delivery, Download, Exchange, RequestBody, ResponseBody, stalled};
use super::code::Code;
use super::page;
use super::request::{self, Additions};
use super::response;
use super::settings::Settings;
use super::socket::Socket;
use super::table::{App, Dyno, Pick, Reach, Seat, pick};
use super::tunnel;
use super::worker::{Client, Worker, millis};
use crate::domain::dyno::DynoId;
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::time::{Instant as Due, timeout};

/// Dynos that one request is tried on.
const DYNOS: usize = 3;

/// The client's connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the client is to be cut off")]
pub(super) struct Cut;

/// Answers one request of a client.
pub(super) async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Cut> {
    if request.method() == Method::CONNECT {
        return Ok(page::refused(405));
    }
    let upgrade = request.extensions().get::<OnUpgrade>().is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let Some(name) = request::host(&parts) else { return Ok(page::refused(400)) };
    let routes = Arc::clone(&worker.routes.borrow());
    let Some((host, app)) = routes.find(&name) else { return Ok(page::unknown_host()) };
    let app = app.id;
    drop((name, routes));

    let mut record = Record::new(&worker.journal, app, &host, &parts.method, &parts.uri);
    record.scheme = client.scheme;
    let refusal = request::refusal(&parts, &worker.settings);
    let upgrade = upgrade.filter(|_| request::wants_websocket(&parts));
    let add = Additions {
        peer: &client.peer,
        scheme: client.scheme,
        port: &client.port,
        id: &|| worker.request_id(),
        start: HeaderValue::from(u64::try_from(now().as_millis()).unwrap_or(0)),
    };
    let (id, forwarded) = request::rewrite(&mut parts, upgrade.is_some(), &add);
    record.identify(id, forwarded);
    if let Some(status) = refusal {
        record.refused(Code::H26, status);
        return Ok(page::error(Code::H26, status));
    }
    let exchange = Rc::new(Exchange::default());
    let body = RequestBody::client(body, worker.settings.idle, &exchange);
    let journey =
        Journey { worker, host, record, exchange, tried: Vec::new(), last: Code::H99, waited: Duration::ZERO };
    journey.run(Request::from_parts(parts, body), upgrade).await
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A request to an app under way.
#[derive(Debug)]
struct Journey {
    worker: Rc<Worker>,
    host: Arc<str>,
    record: Record,
    exchange: Rc<Exchange>,
    /// Dynos that could not be connected to.
    tried: Vec<DynoId>,
    /// Why the last of them could not.
    last: Code,
    /// How long it waited for a dyno, or for a place at one.
    waited: Duration,
}

/// A connection to a dyno with a place at it.
#[derive(Debug)]
struct Line {
    seat: Seat,
    sender: SendRequest<RequestBody>,
    /// It has carried requests before, and may have been closed since.
    reused: bool,
}

impl Journey {
    async fn run(
        mut self,
        request: Request<RequestBody>,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<ResponseBody>, Cut> {
        match self.exchange_heads(request, upgrade.is_some()).await {
            Ok((line, head_only, response)) => Ok(self.deliver(line, head_only, response, upgrade)),
            Err(Code::H28) => {
                self.record.failed(Code::H28);
                Err(Cut)
            }
            // Its drop writes the line.
            Err(Code::H27) => Err(Cut),
            Err(code) => {
                self.record.failed(code);
                Ok(page::error(code, code.status()))
            }
        }
    }

    /// Sends the request until a dyno answers; a second time only when that can't do harm.
    async fn exchange_heads(
        &mut self,
        mut request: Request<RequestBody>,
        websocket: bool,
    ) -> Result<(Line, bool, Response<Incoming>), Code> {
        let head_only = request.method() == Method::HEAD;
        let repeatable = request.body().is_end_stream() && request::idempotent(request.method());
        let mut fresh = false;
        loop {
            let mut line = self.connect(repeatable, fresh).await?;
            let twin = (line.reused && repeatable).then(|| twin(&request));
            let (error, unsent) = match self.send(&mut line, request).await? {
                Ok(response) if response::malformed(&response, websocket) => return Err(Code::H17),
                Ok(response) => {
                    line.seat.answered();
                    return Ok((line, head_only, response));
                }
                Err(failure) => failure,
            };
            // An application closes idle connections whenever it likes, so a used one may be dead; a new one may not.
            let again = if line.reused { unsent.or(twin) } else { None };
            request = again.ok_or_else(|| self.cause(&error))?;
            self.worker.pool.borrow_mut().forget(line.seat.dyno.id);
            fresh = true;
        }
    }

    /// Waits for the head of the response: as long as the client sends, and from then on for a limited time.
    async fn send(&self, line: &mut Line, request: Request<RequestBody>) -> Result<Sent, Code> {
        let response = line.sender.try_send_request(request);
        let late = async {
            self.exchange.sent().await;
            tokio::time::sleep(self.worker.settings.first_byte).await;
        };
        tokio::select! {
            biased;
            response = response => Ok(response.map_err(|mut error| {
                let unsent = error.take_message();
                (error.into_error(), unsent)
            })),
            () = late => Err(Code::H12),
        }
    }

    fn cause(&self, error: &hyper::Error) -> Code {
        match self.exchange.fault() {
            Some(fault) => fault,
            None if error.is_parse() => Code::H17,
            None if stalled(error) => Code::H15,
            None => Code::H13,
        }
    }

    /// A connection to one of the app's dynos; the next dyno when one can't be connected to.
    async fn connect(&mut self, repeatable: bool, fresh: bool) -> Result<Line, Code> {
        let settings = &Rc::clone(&self.worker).settings;
        let age = if repeatable { settings.upstream_idle } else { settings.trusted_idle };
        loop {
            let seat = self.seat().await?;
            let idle = if fresh { None } else { self.worker.pool.borrow_mut().take(seat.dyno.id, age) };
            if let Some(sender) = idle {
                self.record.sent_to(&seat.dyno, self.waited);
                return Ok(Line { seat, sender, reused: true });
            }
            let begun = Instant::now();
            let outcome = timeout(settings.connect, open(&seat.dyno, settings.idle)).await;
            self.record.sent_to(&seat.dyno, self.waited + begun.elapsed());
            self.last = match outcome {
                Ok(Ok(sender)) => return Ok(Line { seat, sender, reused: false }),
                Ok(Err(error)) if ours(&error) => return Err(Code::H99),
                Ok(Err(_)) => Code::H21,
                Err(_) => Code::H19,
            };
            seat.dyno.shun(millis() + u64::try_from(settings.quarantine.as_millis()).unwrap_or(0));
            self.tried.push(seat.dyno.id);
            if self.tried.len() >= DYNOS {
                return Err(self.last);
            }
        }
    }

    /// A place at a dyno, by the newest table. No await lies between reading the table and being counted.
    async fn seat(&mut self) -> Result<Seat, Code> {
        let limit = self.worker.settings.active_per_dyno;
        if let Look::Seat(seat) = self.look(limit)? {
            return Ok(seat);
        }
        let begun = Instant::now();
        let seat = self.wait().await;
        self.waited += begun.elapsed();
        seat
    }

    /// What the table says now; a dyno has a place if it has less than `limit` requests to answer.
    fn look(&self, limit: u32) -> Result<Look, Code> {
        let routes = self.worker.routes.borrow();
        let app = routes.app(&self.host).ok_or(Code::H99)?;
        if app.maintenance {
            return Err(Code::H80);
        }
        match &app.reach {
            Reach::Blank => Err(Code::H81),
            Reach::NoWeb => Err(Code::H14),
            Reach::Crashed => Err(Code::H10),
            Reach::Missing => Err(Code::H99),
            Reach::Booting => Ok(Look::Booting(Arc::clone(app))),
            Reach::Held => Ok(Look::Held(Arc::clone(app))),
            Reach::Dynos(dynos) => match pick(app, dynos, &self.tried, limit, millis(), self.worker.random()) {
                Pick::Seat(seat) => Ok(Look::Seat(seat)),
                Pick::Exhausted => Err(self.last),
                Pick::Full => Ok(Look::Full(Arc::clone(app), u32::try_from(dynos.len()).unwrap_or(u32::MAX))),
            },
        }
    }

    /// Waits for a dyno that boots, or for a place at one that is full. Those that a new dyno finds waiting come to it a
    /// few at first, then ever more.
    async fn wait(&self) -> Result<Seat, Code> {
        let settings = &self.worker.settings;
        let begun = Due::now();
        let (mut waiting, mut counted) = (None, false);
        let mut release = Release::default();
        loop {
            let mut changed = pin!(self.worker.changed.notified());
            changed.as_mut().enable();
            let (app, limit, due, late) = match self.look(release.limit(settings))? {
                Look::Seat(seat) => return Ok(seat),
                Look::Booting(app) => {
                    release.hold();
                    (app, settings.held_per_app, begun + settings.boot, Code::H20)
                }
                Look::Held(app) => {
                    release.hold();
                    if !std::mem::replace(&mut counted, true) {
                        app.queue.count_held();
                    }
                    (app, settings.held_per_app, begun + settings.hold, Code::H20)
                }
                Look::Full(app, dynos) => {
                    let since = release.begun().unwrap_or(begun);
                    let limit = settings.backlog_per_dyno.saturating_mul(dynos);
                    (app, limit, since + settings.first_byte, Code::H12)
                }
            };
            let mut freed = pin!(app.queue.freed.notified());
            freed.as_mut().enable();
            if waiting.is_none() {
                waiting = Some(app.queue.join(limit).ok_or(Code::H11)?);
                // A place may have become free before anybody knew that we wait.
                if let Look::Seat(seat) = self.look(release.limit(settings))? {
                    return Ok(seat);
                }
            }
            tokio::select! {
                () = changed => {}
                () = freed => {}
                () = release.step(settings) => {}
                () = tokio::time::sleep_until(due) => return Err(late),
            }
        }
    }

    fn deliver(
        self,
        line: Line,
        head_only: bool,
        mut response: Response<Incoming>,
        upgrade: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        let status = response.status();
        let switched = (status == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut response));
        let (mut parts, body) = response.into_parts();
        response::rewrite(&mut parts);
        let body = match (upgrade, switched) {
            (Some(client), Some(dyno)) => {
                let (idle, open) = (self.worker.settings.idle, self.worker.open());
                tokio::task::spawn_local(async move {
                    carry(client, dyno, line.seat, self.record, idle).await;
                    drop(open);
                });
                ResponseBody::page(Bytes::new())
            }
            _ => ResponseBody::Dyno(Box::new(Download::new(
                body,
                Delivery {
                    status: status.as_u16(),
                    bodiless: head_only || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED),
                    record: self.record,
                    exchange: self.exchange,
                    worker: self.worker,
                    seat: line.seat,
                    sender: line.sender,
                },
            ))),
        };
        Response::from_parts(parts, body)
    }
}

/// The response's head, or why there is none and the request if no byte of it was sent.
type Sent = Result<Response<Incoming>, (hyper::Error, Option<Request<RequestBody>>)>;

/// What the table says about a request now.
#[derive(Debug)]
enum Look {
    Seat(Seat),
    Booting(Arc<App>),
    Held(Arc<App>),
    /// All of so many dynos are busy.
    Full(Arc<App>, u32),
}

/// When a request that was held is let go: not all at once, or a dyno that has just begun to accept is overrun.
#[derive(Debug, Default)]
struct Release {
    held: bool,
    begun: Option<Due>,
}

impl Release {
    /// There is no dyno.
    fn hold(&mut self) {
        *self = Self { held: true, begun: None };
    }

    /// Since when there is one again.
    fn begun(&self) -> Option<Due> {
        self.begun
    }

    /// How many requests a dyno may have to answer if this one is to go to it now.
    fn limit(&mut self, settings: &Settings) -> u32 {
        if !self.held {
            return settings.active_per_dyno;
        }
        // Only what is looked up for says whether there is a dyno now; until then this is put back by `hold`.
        let since = self.begun.get_or_insert_with(Due::now).elapsed();
        let steps = since.as_millis() / settings.release_step.as_millis().max(1);
        let factor = u32::try_from(steps).ok().and_then(|steps| 1_u32.checked_shl(steps)).unwrap_or(u32::MAX);
        settings.released_at_once.max(1).saturating_mul(factor).min(settings.active_per_dyno)
    }

    /// Until more may go, if this one waits for that.
    async fn step(&self, settings: &Settings) {
        match self.begun {
            Some(begun) if begun.elapsed() < settings.release_step * 32 => {
                tokio::time::sleep(settings.release_step).await;
            }
            _ => std::future::pending().await,
        }
    }
}

/// The same request once more; only for those without a body.
fn twin(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut twin = Request::new(RequestBody::Empty);
    twin.method_mut().clone_from(request.method());
    twin.uri_mut().clone_from(request.uri());
    twin.headers_mut().clone_from(request.headers());
    twin
}

async fn open(dyno: &Dyno, idle: Duration) -> io::Result<SendRequest<RequestBody>> {
    let stream = TcpStream::connect(dyno.addr).await?;
    let io = TokioIo::new(Socket::new(stream, idle));
    let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        // Whoever waits for a response on it gets the error.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

/// The failure is a shortage on our side, not the dyno's.
fn ours(error: &io::Error) -> bool {
    let shortage = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|number| shortage.contains(&number))
}

/// A WebSocket, from the change of protocol to its end.
async fn carry(client: OnUpgrade, dyno: OnUpgrade, seat: Seat, mut record: Record, idle: Duration) {
    let (client, dyno) = tokio::join!(client, dyno);
    // Otherwise the client went away before it saw the response, as the record's drop says.
    if let (Ok(client), Ok(dyno)) = (client, dyno) {
        let down = Cell::new(0);
        let end = tunnel::run(client, dyno, idle, &down).await;
        record.bytes = down.get();
        match end {
            tunnel::End::Closed => record.served(StatusCode::SWITCHING_PROTOCOLS.as_u16()),
            tunnel::End::Idle => record.failed(Code::H15),
        }
    }
    drop(seat);
}

impl Worker {
    /// A new request id: a UUID, as Heroku's are.
    fn request_id(&self) -> HeaderValue {
        let bits = (u128::from(self.random()) << 64) | u128::from(self.random());
        let id = uuid::Builder::from_random_bytes(bits.to_ne_bytes()).into_uuid().to_string();
        HeaderValue::from_str(&id).expect("a UUID is printable")
    }
}
