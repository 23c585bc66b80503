//! What a client sees when there is no answer of the app's: small, neutral pages.
#![forbid(unsafe_code)]

use super::body::ResponseBody;
use super::code::Code;
use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

const ERROR: HeaderName = HeaderName::from_static("x-hokku-error");

/// The page for `code`; `status` where it differs from the code's usual one.
pub(super) fn error(code: Code, status: u16) -> Response<ResponseBody> {
    let (title, text) = match code {
        Code::H80 => ("Offline for maintenance", "This application is being worked on. Please come back later."),
        Code::H81 => ("Nothing here yet", "This application exists, but no code has been deployed to it."),
        Code::H26 => ("Bad request", "The request cannot be understood."),
        _ => {
            ("Application error", "The application could not answer this request. Its owner finds out why in its log.")
        }
    };
    let mut response = page(status, title, text, code.name());
    response.headers_mut().insert(ERROR, HeaderValue::from_static(code.name()));
    response
}

/// No app has this host name.
pub(super) fn unknown_host() -> Response<ResponseBody> {
    let mut response = page(404, "No such app", "There is no application at this address.", "unknown host");
    response.headers_mut().insert(ERROR, HeaderValue::from_static("unknown-host"));
    response
}

/// The request broke a rule before it was known which app it is for.
pub(super) fn refused(status: u16) -> Response<ResponseBody> {
    error(Code::H26, status)
}

fn page(status: u16, title: &str, text: &str, small: &str) -> Response<ResponseBody> {
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>body{{font:16px/1.5 sans-serif;color:#333;\
         max-width:32em;margin:20vh auto;padding:0 1em}}small{{color:#888}}</style></head>\n\
         <body><h1>{title}</h1><p>{text}</p><small>{small}</small></body></html>\n"
    );
    let mut response = Response::new(ResponseBody::page(Bytes::from(html)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
