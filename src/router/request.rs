//! The head of a request: which app it is for, whether it may pass, and what the dyno gets to see.
#![forbid(unsafe_code)]

use super::settings::Settings;
use hyper::header::{
    self, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::http::request::Parts;
use hyper::{Method, Uri, Version};
use std::borrow::Cow;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What concerns one connection only (RFC 9110 §7.6.1), and so is never passed on.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// The host name that a request is for, lower-case, without port and trailing dot; `None` when it names none or more
/// than one, or one that is none.
pub(super) fn host(parts: &Parts) -> Option<Cow<'_, str>> {
    let mut values = parts.headers.get_all(HOST).iter();
    let value = values.next();
    if values.next().is_some() {
        return None;
    }
    match parts.uri.authority() {
        // Absolute form: what the header says does not count (RFC 9112 §3.2.2), but it has to be there in 1.1.
        Some(authority) => {
            let web = matches!(parts.uri.scheme_str(), Some("http" | "https"));
            let complete = value.is_some() || parts.version == Version::HTTP_10;
            if web && complete { name(authority.as_str()) } else { None }
        }
        None => name(value?.to_str().ok()?),
    }
}

/// `Example.org.:8080` → `example.org`.
fn name(authority: &str) -> Option<Cow<'_, str>> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            (&authority[..end + 2], &rest[end + 1..])
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_fine = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let host = host.strip_suffix('.').unwrap_or(host);
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    if host.is_empty() || host.len() > 255 || !port_fine || !host.bytes().all(letter) {
        return None;
    }
    let lower = !host.bytes().any(|b| b.is_ascii_uppercase());
    Some(if lower { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) })
}

/// The status with which a request is refused, if it is.
pub(super) fn refusal(parts: &Parts, settings: &Settings) -> Option<u16> {
    if parts.uri.path_and_query().is_some_and(|path| path.as_str().len() > settings.line) {
        return Some(414);
    }
    let long = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 2 > settings.line;
    if parts.headers.iter().any(long) {
        return Some(431);
    }
    let mut expectations = parts.headers.get_all(EXPECT).iter();
    expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")).then_some(417)
}

/// The request asks for a WebSocket: the only protocol that a connection may change to.
pub(super) fn wants_websocket(parts: &Parts) -> bool {
    parts.headers.contains_key(UPGRADE)
        && parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && tokens(&parts.headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"))
        && tokens(&parts.headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && !parts.headers.contains_key(TRANSFER_ENCODING)
        && parts.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
}

/// Sending it twice does no harm (RFC 9110 §9.2.2).
pub(super) fn idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// What the router adds to a request.
pub(super) struct Additions<'a> {
    /// The client's address.
    pub(super) peer: &'a HeaderValue,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// The port that the client connected to.
    pub(super) port: &'a HeaderValue,
    /// For a request without an acceptable id of its own.
    pub(super) id: &'a dyn Fn() -> HeaderValue,
    /// Milliseconds since 1970.
    pub(super) start: HeaderValue,
}

/// Makes of a client's head the one that the dyno gets; returns the request's id and its forwarded-for value.
pub(super) fn rewrite(parts: &mut Parts, websocket: bool, add: &Additions<'_>) -> (HeaderValue, HeaderValue) {
    let http10 = parts.version == Version::HTTP_10;
    to_origin_form(parts);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let headers = &mut parts.headers;
    remove_hop_by_hop(headers);
    headers.remove(EXPECT);
    remove_lookalikes(headers);
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    let id = match single(headers, &REQUEST_ID).filter(|id| id_fine(id.as_bytes())) {
        Some(id) => id.clone(),
        None => (add.id)(),
    };
    let forwarded = appended(headers, &FORWARDED_FOR, add.peer);
    let via = appended(headers, &VIA, &HeaderValue::from_static(if http10 { "1.0 hokku" } else { "1.1 hokku" }));
    headers.insert(VIA, via);
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(FORWARDED_FOR, forwarded.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(add.scheme));
    headers.insert(FORWARDED_PORT, add.port.clone());
    headers.insert(REQUEST_START, add.start.clone());
    (id, forwarded)
}

fn to_origin_form(parts: &mut Parts) {
    let Some(authority) = parts.uri.authority() else { return };
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// Removes hop-by-hop headers, those nominated by `Connection` included; shared with responses.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .filter(|name| !protected(name))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Headers that a client can't have removed by nominating them: applications and what stands before us rely on them.
fn protected(name: &HeaderName) -> bool {
    let name = name.as_str();
    let exact = ["host", "forwarded", "via", "authorization", "cookie", "origin", "referer", "date", "set-cookie"];
    let families = ["content-", "x-", "sec-", "access-control-", "cf-", "true-client-"];
    exact.contains(&name) || families.iter().any(|family| name.starts_with(family))
}

/// Removes `X_Forwarded_For` and the like: many application servers can't tell them from the real ones.
fn remove_lookalikes(headers: &mut HeaderMap) {
    let lookalike = |name: &&HeaderName| {
        name.as_str().contains('_') && {
            let dashed = name.as_str().replace('_', "-");
            ["x-forwarded-", "x-request-", "x-real-", "content-length", "transfer-encoding", "host", "forwarded"]
                .iter()
                .any(|family| dashed.starts_with(family))
        }
    };
    let found: Vec<HeaderName> = headers.keys().filter(lookalike).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Heroku's rule for an id that a client may choose.
fn id_fine(id: &[u8]) -> bool {
    let letter = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-');
    (20..=200).contains(&id.len()) && id.iter().all(letter)
}

/// The values of a list header with one more at the end.
pub(super) fn appended(headers: &HeaderMap, name: &HeaderName, last: &HeaderValue) -> HeaderValue {
    if !headers.contains_key(name) {
        return last.clone();
    }
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        all.extend_from_slice(value.as_bytes());
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(last.as_bytes());
    HeaderValue::from_bytes(&all).unwrap_or_else(|_| last.clone())
}

/// The comma-separated members of a list header.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn rewritten(headers: &[(&str, &str)]) -> HeaderMap {
        let mut parts = parts("/", headers);
        let add = Additions {
            peer: &HeaderValue::from_static("9.9.9.9"),
            scheme: "http",
            port: &HeaderValue::from_static("8080"),
            id: &|| HeaderValue::from_static("made-by-the-router-itself"),
            start: HeaderValue::from_static("1"),
        };
        let websocket = wants_websocket(&parts);
        rewrite(&mut parts, websocket, &add);
        parts.headers
    }

    #[test]
    fn a_host_is_named_once_and_in_any_spelling() {
        let host = |uri: &str, headers: &[(&str, &str)]| host(&parts(uri, headers)).map(Cow::into_owned);
        for spelling in ["a.test", "A.Test", "a.test.", "a.test:8080", "a.TEST.:80", "a.test:"] {
            assert_eq!(host("/", &[("host", spelling)]).as_deref(), Some("a.test"), "{spelling}");
        }
        for bad in ["", ".", ":80", "a b", "a@b", "a/b", "a.test:x", "[::1", "a\u{7f}"] {
            let Ok(value) = HeaderValue::from_str(bad) else { continue };
            assert_eq!(host("/", &[("host", value.to_str().unwrap())]), None, "{bad}");
        }
        assert_eq!(host("/", &[("host", "[::1]:80")]).as_deref(), Some("[::1]"));
        assert_eq!(host("/", &[]), None);
        assert_eq!(host("/", &[("host", "a"), ("host", "a")]), None);
        assert_eq!(host("http://b.test:1/x", &[("host", "a.test")]).as_deref(), Some("b.test"));
        assert_eq!(host("http://b.test/x", &[]), None, "1.1 needs the header all the same");
        assert_eq!(host("ftp://b.test/x", &[("host", "b.test")]), None);
    }

    #[test]
    fn connection_can_nominate_harmless_headers_only() {
        let headers = rewritten(&[
            ("host", "a"),
            ("connection", "close, x-custom, Host, X-Forwarded-For, cookie, foo"),
            ("x-forwarded-for", "1.1.1.1"),
            ("cookie", "c"),
            ("foo", "gone"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-connection", "keep-alive"),
        ]);
        assert_eq!(headers["host"], "a");
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 9.9.9.9");
        assert_eq!(headers["cookie"], "c");
        for gone in ["foo", "connection", "keep-alive", "te", "proxy-connection"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn the_router_says_itself_how_the_request_came() {
        let headers = rewritten(&[
            ("host", "a"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("x-request-start", "0"),
            ("x_forwarded_proto", "https"),
            ("x-request-id", "short"),
            ("via", "1.0 other"),
        ]);
        assert_eq!(
            (&headers["x-forwarded-proto"], &headers["x-forwarded-port"]),
            (&"http".parse().unwrap(), &"8080".parse().unwrap())
        );
        assert_eq!(headers["x-request-start"], "1");
        assert_eq!(headers["x-request-id"], "made-by-the-router-itself");
        assert_eq!(headers["via"], "1.0 other, 1.1 hokku");
        assert!(!headers.contains_key("x_forwarded_proto"));
        let kept = rewritten(&[("host", "a"), ("x-request-id", "0123456789abcdef+/=-A")]);
        assert_eq!(kept["x-request-id"], "0123456789abcdef+/=-A");
        let twice = rewritten(&[("x-request-id", "0123456789abcdefghij"), ("x-request-id", "0123456789abcdefghij")]);
        assert_eq!(twice["x-request-id"], "made-by-the-router-itself");
    }

    #[test]
    fn only_a_websocket_upgrade_is_passed_on() {
        let websocket = rewritten(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert_eq!(
            (&websocket["connection"], &websocket["upgrade"]),
            (&"Upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let h2c = rewritten(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AA")]);
        assert!(["connection", "upgrade", "http2-settings"].iter().all(|name| !h2c.contains_key(*name)));
        let unasked = rewritten(&[("upgrade", "websocket")]);
        assert!(!unasked.contains_key("upgrade"));
    }

    #[test]
    fn lines_that_are_too_long_and_odd_expectations_are_refused() {
        let settings = Settings::default();
        let long = "x".repeat(settings.line);
        assert_eq!(refusal(&parts("/", &[("host", "a"), ("expect", "100-Continue")]), &settings), None);
        assert_eq!(refusal(&parts("/", &[("a", &long)]), &settings), Some(431));
        assert_eq!(refusal(&parts(&format!("/{long}"), &[]), &settings), Some(414));
        assert_eq!(refusal(&parts("/", &[("expect", "200-ok")]), &settings), Some(417));
    }
}
