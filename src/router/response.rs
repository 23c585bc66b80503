//! The head of a dyno's response: whether it can be passed on, and what the client gets to see.
#![forbid(unsafe_code)]

use super::request::{appended, remove_hop_by_hop, tokens};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE, VIA};
use hyper::http::response::Parts;
use hyper::{Response, StatusCode};

/// A response that no client could make sense of (H17): a change of protocol that was not asked for, a coding that we
/// would have to undo, several lengths.
pub(super) fn malformed<B>(response: &Response<B>, websocket: bool) -> bool {
    let headers = response.headers();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"));
        return !(websocket && upgrade);
    }
    let mut codings = tokens(headers, &TRANSFER_ENCODING);
    let chunked =
        codings.next().is_none_or(|coding| coding.eq_ignore_ascii_case("chunked")) && codings.next().is_none();
    let one_length = headers.get_all(CONTENT_LENGTH).iter().count() <= 1;
    !(chunked && one_length)
}

/// Makes of a dyno's head the one that the client gets.
pub(super) fn rewrite(parts: &mut Parts) {
    let websocket = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let headers = &mut parts.headers;
    remove_hop_by_hop(headers);
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    let via = appended(headers, &VIA, &HeaderValue::from_static("1.1 hokku"));
    headers.insert(VIA, via);
    // What the upstream connection knows of the message is not for ours.
    parts.extensions.clear();
    parts.version = hyper::Version::HTTP_11;
}
