//! Lists in pages: `Range: version ]5..; max=2, order=desc` asks, `206` with `Next-Range` answers.
//!
//! Bounds are counted in the order that is asked for: the first is where the page begins. `]` leaves its value out.
//! What a client writes varies (`;` or `,` between options, empty ones, other units); what is not understood is passed
//! over, except a `max` that is no number.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use axum::Json;
use axum::http::header::{ACCEPT_RANGES, CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use std::cmp::Ordering;

const NEXT_RANGE: HeaderName = HeaderName::from_static("next-range");
const DEFAULT_MAX: usize = 200;
const LARGEST_MAX: usize = 1000;

#[derive(Debug, PartialEq, Eq)]
struct Range<'a> {
    field: &'a str,
    first: Option<Bound<'a>>,
    last: Option<Bound<'a>>,
    max: usize,
    descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound<'a> {
    value: &'a str,
    inclusive: bool,
}

/// The page of `rows` that the client asks for. `fields` are those that tell rows apart; the first is the order of a
/// list that is asked for without one.
///
/// # Errors
/// When `max` is no number above 0.
pub(super) fn page(headers: &HeaderMap, mut rows: Vec<Value>, fields: &[&'static str]) -> ApiResult<Response> {
    let text = headers.get(RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
    let range = parse(text, fields)?;
    let key = |row: &Value| row[range.field].clone();
    rows.sort_by(|a, b| compare(&key(a), &key(b)));
    if range.descending {
        rows.reverse();
    }
    rows.retain(|row| range.holds(&key(row)));
    let next = (rows.len() > range.max).then(|| {
        rows.truncate(range.max);
        let (order, last) = (if range.descending { ", order=desc" } else { "" }, rows.last().map(&key));
        let end = range.last.map(Bound::text).unwrap_or_default();
        format!("{} ]{}..{end}; max={}{order}", range.field, plain(&last.unwrap_or_default()), range.max)
    });
    let span = rows.first().zip(rows.last()).map(|(first, last)| (plain(&key(first)), plain(&key(last))));
    let content = span.map(|(first, last)| format!("{} {first}..{last}", range.field));
    let status = if next.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = (status, Json(rows)).into_response();
    for (name, text) in [(ACCEPT_RANGES, Some(fields.join(", "))), (CONTENT_RANGE, content), (NEXT_RANGE, next)] {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn parse<'a>(text: &'a str, fields: &[&'static str]) -> ApiResult<Range<'a>> {
    let mut range = Range { field: fields[0], first: None, last: None, max: DEFAULT_MAX, descending: false };
    let (span, options) = text.split_once(';').unwrap_or((text, ""));
    let mut words = span.split_whitespace();
    if let Some(field) = words.next().and_then(|word| fields.iter().find(|field| **field == word)) {
        range.field = field;
        let (first, last) = words.next().and_then(|span| span.split_once("..")).unwrap_or_default();
        (range.first, range.last) = (bound(first), bound(last));
    }
    for option in options.split([';', ',']) {
        match option.trim().split_once('=') {
            Some(("max", number)) => {
                let number: usize = number.trim().parse().map_err(|_| ApiError::bad_range())?;
                range.max = if number == 0 { return Err(ApiError::bad_range()) } else { number.min(LARGEST_MAX) };
            }
            Some(("order", order)) => range.descending = order.trim().eq_ignore_ascii_case("desc"),
            _ => {}
        }
    }
    Ok(range)
}

fn bound(text: &str) -> Option<Bound<'_>> {
    let (value, inclusive) = match text.strip_prefix(']') {
        Some(value) => (value, false),
        None => (text.strip_suffix('[').unwrap_or(text), !text.ends_with('[')),
    };
    (!value.is_empty()).then_some(Bound { value, inclusive })
}

impl Bound<'_> {
    /// As it is written at the end of a span.
    fn text(self) -> String {
        format!("{}{}", self.value, if self.inclusive { "" } else { "[" })
    }
}

impl Range<'_> {
    fn holds(&self, key: &Value) -> bool {
        let position = |bound: Bound<'_>| {
            let order = compare_text(key, bound.value);
            if self.descending { order.reverse() } else { order }
        };
        let from = self.first.is_none_or(|first| match position(first) {
            Ordering::Less => false,
            Ordering::Equal => first.inclusive,
            Ordering::Greater => true,
        });
        let to = self.last.is_none_or(|last| match position(last) {
            Ordering::Less => true,
            Ordering::Equal => last.inclusive,
            Ordering::Greater => false,
        });
        from && to
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_u64(), b.as_u64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => compare_names(&plain(a), &plain(b)),
    }
}

/// `web.2` comes before `web.10`.
fn compare_names(a: &str, b: &str) -> Ordering {
    let number = |name: &'_ str| name.rsplit_once('.').and_then(|(_, number)| number.parse::<u64>().ok());
    match (number(a), number(b)) {
        (Some(x), Some(y)) if stem(a) == stem(b) => x.cmp(&y),
        _ => a.cmp(b),
    }
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn compare_text(a: &Value, b: &str) -> Ordering {
    match (a.as_u64(), b.parse::<u64>()) {
        (Some(a), Ok(b)) => a.cmp(&b),
        _ => compare_names(&plain(a), b),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn dynos_are_in_the_order_of_their_numbers() {
        let mut names = ["web.10", "web.2", "clock.3", "web.1", "worker.1", "web"];
        names.sort_by(|a, b| compare_names(a, b));
        assert_eq!(names, ["clock.3", "web", "web.1", "web.2", "web.10", "worker.1"]);
    }

    const FIELDS: [&str; 2] = ["id", "version"];

    #[test]
    fn all_the_spellings_clients_use_are_read() {
        let read = |text: &'static str| {
            let range = parse(text, &FIELDS).unwrap();
            (range.field, range.max, range.descending)
        };
        assert_eq!(read(""), ("id", 200, false));
        assert_eq!(read("version ..; order=desc,max=1"), ("version", 1, true));
        assert_eq!(read("version ..; max=15, order=desc"), ("version", 15, true));
        assert_eq!(read("id ..; max=1000;"), ("id", 1000, false));
        assert_eq!(read("version ..; order=desc,max=2;"), ("version", 2, true));
        assert_eq!(read("domain ..; ;"), ("id", 200, false));
        assert_eq!(read("bytes=0-1"), ("id", 200, false));
        assert_eq!(read("id ..; max=5000"), ("id", 1000, false));
        assert!(parse("id ..; max=x", &FIELDS).is_err() && parse("id ..; max=0", &FIELDS).is_err());
        let range = parse("version ]3..7[; max=2", &FIELDS).unwrap();
        assert_eq!(range.first, Some(Bound { value: "3", inclusive: false }));
        assert_eq!(range.last, Some(Bound { value: "7", inclusive: false }));
    }

    /// All pages of the versions 1 to 12, by following `Next-Range`.
    fn pages(range: &str) -> Vec<Vec<u64>> {
        let (mut pages, mut range) = (Vec::new(), range.to_owned());
        loop {
            let rows: Vec<Value> = (1..=12).map(|version| json!({ "id": "x", "version": version })).collect();
            let headers: HeaderMap = [(RANGE, HeaderValue::from_str(&range).unwrap())].into_iter().collect();
            let response = page(&headers, rows, &["version"]).unwrap();
            let next = response.headers().get(NEXT_RANGE).map(|next| next.to_str().unwrap().to_owned());
            assert_eq!(response.status() == StatusCode::PARTIAL_CONTENT, next.is_some());
            let body = axum::body::to_bytes(response.into_body(), usize::MAX);
            let body = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(body).unwrap();
            let rows: Vec<Value> = serde_json::from_slice(&body).unwrap();
            pages.push(rows.iter().map(|row| row["version"].as_u64().unwrap()).collect());
            match next {
                Some(next) => range = next,
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_double() {
        assert_eq!(pages("version ..; max=5"), [vec![1, 2, 3, 4, 5], vec![6, 7, 8, 9, 10], vec![11, 12]]);
        assert_eq!(pages("version ..; max=5, order=desc"), [vec![12, 11, 10, 9, 8], vec![7, 6, 5, 4, 3], vec![2, 1]]);
        assert_eq!(pages("version 3..8; max=4"), [vec![3, 4, 5, 6], vec![7, 8]]);
        assert_eq!(pages("version 8..3[; max=4, order=desc"), [vec![8, 7, 6, 5], vec![4]]);
        assert_eq!(pages("version ]12.."), [Vec::<u64>::new()]);
        assert_eq!(pages("version ..; max=12"), [(1..=12).collect::<Vec<_>>()]);
    }

    proptest! {
        #[test]
        fn any_range_is_read_or_refused(text in "\\PC{0,80}|(id|version) [\\]]?[0-9a-z.]{0,6}[\\[]?\\.\\.[\\]0-9a-z\\[]{0,6};[ ,;=a-z0-9-]{0,40}") {
            if let Ok(range) = parse(&text, &FIELDS) {
                prop_assert!(FIELDS.contains(&range.field) && (1..=LARGEST_MAX).contains(&range.max));
            }
        }

        #[test]
        fn pages_of_any_span_are_the_whole_span(
            first in proptest::option::of((0u64..15, any::<bool>())),
            last in proptest::option::of((0u64..15, any::<bool>())),
            max in 1usize..14,
            descending: bool,
        ) {
            let first = first.map_or_else(String::new, |(n, inclusive)| format!("{}{n}", if inclusive { "" } else { "]" }));
            let last = last.map_or_else(String::new, |(n, inclusive)| format!("{n}{}", if inclusive { "" } else { "[" }));
            let range = |max| format!("version {first}..{last}; max={max}{}", if descending { ", order=desc" } else { "" });
            let whole = pages(&range(1000));
            prop_assert_eq!(whole.len(), 1);
            prop_assert_eq!(pages(&range(max)).concat(), whole.concat());
        }
    }
}
