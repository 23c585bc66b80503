//! How the domain's values look in a column.
#![forbid(unsafe_code)]

use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;

pub(super) fn text(value: impl Display) -> String {
    value.to_string()
}

/// Nanoseconds since 1970; SQLite's integers reach until the year 2262.
pub(super) fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("lists and maps of strings are always JSON")
}

/// A text column that the domain parses.
pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(row, column, error))
}

pub(super) fn parsed_or_null<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| unreadable(row, column, error))).transpose()
}

/// A column of JSON, or of a word that serde reads into an enum or checked text.
pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|error| unreadable(row, column, error))
}

pub(super) fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    Timestamp::from_nanosecond(i128::from(row.get::<_, i64>(column)?)).map_err(|error| unreadable(row, column, error))
}

pub(super) fn time_or_null(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    let nanos: Option<i64> = row.get(column)?;
    nanos.map(|nanos| Timestamp::from_nanosecond(i128::from(nanos))).transpose().map_err(|e| unreadable(row, column, e))
}

/// A value that this version of hokku can't have written.
pub(super) fn unreadable(
    row: &Row<'_>,
    column: &str,
    error: impl Into<Box<dyn Error + Send + Sync>>,
) -> rusqlite::Error {
    let index = row.as_ref().column_index(column).unwrap_or(0);
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into())
}
