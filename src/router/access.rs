//! Access lines: one for every request to an app, however it ends.
#![forbid(unsafe_code)]

use super::code::Code;
use super::table::Dyno;
use crate::domain::app::AppId;
use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri};
use jiff::Timestamp;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// A finished line for `heroku[router]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub app: AppId,
    pub at: Timestamp,
    /// Printable ASCII only, well under the log's longest line, so that a client can't forge another.
    pub line: String,
}

/// Bytes of a path and of a forwarded-for value in a line: together below the length at which logs cut lines, since the
/// second piece of a cut line would be of the client's making.
const PATH: usize = 4096;
const FORWARDED: usize = 1024;
const METHOD: usize = 32;

/// A worker's lines on their way out, handed over in batches: waking the other thread costs more than a line.
#[derive(Debug)]
pub(super) struct Journal {
    lines: RefCell<Vec<Access>>,
    filled: Notify,
    out: mpsc::UnboundedSender<Vec<Access>>,
}

const BATCH: Duration = Duration::from_millis(10);

impl Journal {
    pub(super) fn new(out: mpsc::UnboundedSender<Vec<Access>>) -> Self {
        Self { lines: RefCell::default(), filled: Notify::new(), out }
    }

    fn write(&self, access: Access) {
        let mut lines = self.lines.borrow_mut();
        lines.push(access);
        if lines.len() == 1 {
            self.filled.notify_one();
        }
    }

    /// Hands over what there is.
    pub(super) fn flush(&self) {
        // Nobody takes lines while the process ends.
        let _ = self.out.send(self.lines.take());
    }

    /// Hands lines over for ever.
    pub(super) async fn run(&self) {
        loop {
            self.filled.notified().await;
            tokio::time::sleep(BATCH).await;
            if self.out.send(self.lines.take()).is_err() {
                return;
            }
        }
    }
}

/// A request to an app, from its arrival until its line is written; dropped before, its client went away (H27).
#[derive(Debug)]
pub(super) struct Record {
    journal: Rc<Journal>,
    app: AppId,
    method: Method,
    path: Option<PathAndQuery>,
    host: Arc<str>,
    request_id: HeaderValue,
    forwarded: HeaderValue,
    dyno: Option<Arc<Dyno>>,
    connect: Duration,
    begun: Instant,
    /// Bytes of the response's body.
    pub(super) bytes: u64,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    written: bool,
}

impl Record {
    pub(super) fn new(journal: &Rc<Journal>, app: AppId, host: &Arc<str>, method: &Method, uri: &Uri) -> Self {
        Self {
            journal: Rc::clone(journal),
            app,
            method: method.clone(),
            path: uri.path_and_query().cloned(),
            host: Arc::clone(host),
            request_id: HeaderValue::from_static(""),
            forwarded: HeaderValue::from_static(""),
            dyno: None,
            connect: Duration::ZERO,
            begun: Instant::now(),
            bytes: 0,
            scheme: "http",
            written: false,
        }
    }

    /// What the request's headers became.
    pub(super) fn identify(&mut self, request_id: HeaderValue, forwarded: HeaderValue) {
        self.request_id = request_id;
        self.forwarded = forwarded;
    }

    /// The dyno it is being sent to; the time of service counts from here.
    pub(super) fn sent_to(&mut self, dyno: &Arc<Dyno>, connect: Duration) {
        self.dyno = Some(Arc::clone(dyno));
        self.connect = connect;
        self.begun = Instant::now();
    }

    pub(super) fn served(&mut self, status: u16) {
        self.write(None, status);
    }

    pub(super) fn failed(&mut self, code: Code) {
        self.write(Some(code), code.status());
    }

    /// Failed with another status than the code's usual one.
    pub(super) fn refused(&mut self, code: Code, status: u16) {
        self.write(Some(code), status);
    }

    fn write(&mut self, code: Option<Code>, status: u16) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let line = self.line(code, status);
        self.journal.write(Access { app: self.app, at: Timestamp::now(), line });
    }

    fn line(&self, code: Option<Code>, status: u16) -> String {
        let mut line = String::with_capacity(320);
        match code {
            Some(code) => {
                if let Some(side) = code.side() {
                    push(&mut line, format_args!("sock={side} "));
                }
                let (level, name, text) = (code.level(), code.name(), code.description());
                push(&mut line, format_args!("at={level} code={name} desc=\"{text}\" "));
            }
            None => line.push_str("at=info "),
        }
        line.push_str("method=");
        escape(&mut line, self.method.as_str().as_bytes(), METHOD);
        line.push_str(" path=\"");
        escape(&mut line, self.path.as_ref().map_or("/", PathAndQuery::as_str).as_bytes(), PATH);
        line.push_str("\" host=");
        line.push_str(&self.host);
        line.push_str(" request_id=");
        escape(&mut line, self.request_id.as_bytes(), FORWARDED);
        line.push_str(" fwd=\"");
        escape(&mut line, self.forwarded.as_bytes(), FORWARDED);
        line.push('"');
        match &self.dyno {
            Some(dyno) => {
                let (connect, service) = (self.connect.as_millis(), self.begun.elapsed().as_millis());
                let (dyno, bytes) = (&dyno.name, self.bytes);
                push(
                    &mut line,
                    format_args!(" dyno={dyno} connect={connect}ms service={service}ms status={status} bytes={bytes}"),
                );
            }
            None => push(&mut line, format_args!(" dyno= connect= service= status={status} bytes=")),
        }
        line.push_str(" protocol=");
        line.push_str(self.scheme);
        line
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.failed(Code::H27);
    }
}

fn push(line: &mut String, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("writing to a string does not fail");
}

/// Appends what a client sent, at most `limit` bytes of it, with everything but plain printable characters in percent
/// form: no quote, no control character, nothing a terminal would act upon.
fn escape(line: &mut String, bytes: &[u8], limit: usize) {
    for &byte in &bytes[..bytes.len().min(limit)] {
        match byte {
            b'"' | b'\\' => push(line, format_args!("%{byte:02X}")),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => push(line, format_args!("%{byte:02X}")),
        }
    }
    if bytes.len() > limit {
        line.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::log::MAX_LINE;

    fn record(path: &str) -> (Record, mpsc::UnboundedReceiver<Vec<Access>>) {
        let (out, lines) = mpsc::unbounded_channel();
        let journal = Rc::new(Journal::new(out));
        let app = AppId(uuid::Uuid::nil());
        let record = Record::new(&journal, app, &"a.test".into(), &Method::GET, &path.parse().unwrap());
        (record, lines)
    }

    #[test]
    fn lines_have_herokus_form() {
        let (mut record, _lines) = record("/x?y=1");
        record.identify(HeaderValue::from_static("an-id"), HeaderValue::from_static("1.2.3.4"));
        insta::assert_snapshot!(record.line(Some(Code::H10), 503), @r#"at=error code=H10 desc="App crashed" method=GET path="/x?y=1" host=a.test request_id=an-id fwd="1.2.3.4" dyno= connect= service= status=503 bytes= protocol=http"#);
        insta::assert_snapshot!(record.line(Some(Code::H27), 499), @r#"sock=client at=warning code=H27 desc="Client Request Interrupted" method=GET path="/x?y=1" host=a.test request_id=an-id fwd="1.2.3.4" dyno= connect= service= status=499 bytes= protocol=http"#);
    }

    #[test]
    fn what_a_client_sends_stays_in_its_place_and_in_one_line() {
        let (mut record, _lines) = record("/\"%20status=200");
        let forged = HeaderValue::from_bytes(b"1.1.1.1\" dyno=web.9\t\xff\\").unwrap();
        record.identify(HeaderValue::from_static(""), forged);
        let line = record.line(None, 200);
        assert!(line.contains("path=\"/%22%20status=200\" "), "{line}");
        assert!(line.contains("fwd=\"1.1.1.1%22 dyno=web.9%09%FF%5C\" dyno= "), "{line}");
        let (mut record, _lines) = self::record(&format!("/{}", "\"".repeat(8000)));
        record.identify(HeaderValue::from_static(""), HeaderValue::from_bytes(&[b'"'; 8000]).unwrap());
        assert!(record.line(None, 200).len() < MAX_LINE * 2);
    }
}
