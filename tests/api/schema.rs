//! Heroku's own description of the API, where it lies beside the checkout or `HOKKU_SCHEMA` says: every answer of this suite has to fit it, and to
//! have every property of its resource.
#![forbid(unsafe_code)]

use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;

static SCHEMA: LazyLock<Option<Value>> = LazyLock::new(|| {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/heroku/platform-api-schema.json");
    let text = match std::env::var_os("HOKKU_SCHEMA") {
        Some(path) => std::fs::read_to_string(path).unwrap(),
        None => std::fs::read_to_string(beside()).ok()?,
    };
    Some(serde_json::from_str(&text).unwrap())
});

/// What we answer otherwise; `docs/api.md` says why.
const DIFFERENCES: [&str; 4] = [".access_token .token", ".source_blob .url", ".blob .url", ".provider .region"];

/// What `$ref` points to, through all of them.
fn resolved<'a>(schema: &'a Value, mut node: &'a Value) -> &'a Value {
    while let Some(pointer) = node["$ref"].as_str() {
        node = schema.pointer(pointer.trim_start_matches('#')).unwrap();
    }
    node
}

/// Fails when the answer does not fit what the schema says of that link. What it does not know is not looked at.
#[track_caller]
pub(crate) fn check(method: &str, path: &str, answer: &Value) {
    let Some(schema) = &*SCHEMA else { return };
    let path = path.split('?').next().unwrap();
    if method == "DELETE" && path.ends_with("/build-cache") {
        // It says that a build comes back.
        return;
    }
    let Some((resource, link)) = link(schema, method, path) else { return };
    let target = match &link["targetSchema"] {
        Value::Null if link["rel"] == "instances" => {
            // A list of the resource itself.
            for row in answer.as_array().unwrap_or_else(|| panic!("{method} {path}: {answer} is no list")) {
                fits(schema, resource, row, &format!("{method} {path}"));
            }
            return;
        }
        Value::Null => resource,
        target => target,
    };
    fits(schema, target, answer, &format!("{method} {path}"));
}

fn link<'a>(schema: &'a Value, method: &str, path: &str) -> Option<(&'a Value, &'a Value)> {
    let links = schema["definitions"]
        .as_object()?
        .values()
        .flat_map(|resource| resource["links"].as_array().into_iter().flatten().map(move |link| (resource, link)));
    let fitting = links.filter(|(_, link)| link["method"] == method && matches(link["href"].as_str().unwrap(), path));
    // `/teams/apps` is no team.
    fitting.min_by_key(|(_, link)| link["href"].as_str().unwrap().matches('{').count())
}

fn matches(href: &str, path: &str) -> bool {
    // What is in braces is a pointer, with encoded slashes.
    let (mut href, mut path) = (href.split('/'), path.split('/'));
    loop {
        match (href.next(), path.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == other || (one.starts_with('{') && !other.is_empty()) => {}
            _ => return false,
        }
    }
}

fn fits(schema: &Value, node: &Value, value: &Value, at: &str) {
    if DIFFERENCES.iter().any(|known| at.ends_with(known)) {
        return;
    }
    let node = resolved(schema, node);
    if let Some(kinds) = node["anyOf"].as_array() {
        // Names and ids, either of which is a text; or one resource or another.
        assert!(!kinds.is_empty() && !value.is_null(), "{at}: {value}");
        return;
    }
    if let Some(types) = node["type"].as_array() {
        let is = |kind: &Value| match kind.as_str().unwrap() {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            kind => panic!("{at}: what is the type {kind}?"),
        };
        assert!(types.iter().any(is), "{at}: {value} is none of {}", node["type"]);
    }
    if let Some(allowed) = node["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value} is none of {}", node["enum"]);
    }
    if let Some(text) = value.as_str() {
        let form = match node["format"].as_str() {
            Some("uuid") => text.parse::<uuid::Uuid>().is_ok(),
            Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
            // Of host names, too, it says that they are URIs.
            Some("email") => text.contains('@'),
            _ => true,
        };
        assert!(form, "{at}: {text:?} is no {}", node["format"]);
    }
    if let (Some(properties), Some(fields)) = (node["properties"].as_object(), value.as_object()) {
        for (name, property) in properties {
            let at = format!("{at} .{name}");
            let field = fields.get(name).unwrap_or_else(|| panic!("{at} is missing in {value}"));
            fits(schema, property, field, &at);
        }
    }
    if let (Some(rows), false) = (value.as_array(), node["items"].is_null()) {
        for (number, row) in rows.iter().enumerate() {
            fits(schema, &node["items"], row, &format!("{at}[{number}]"));
        }
    }
}
