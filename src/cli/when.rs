//! Times as Heroku's CLI prints them.
#![forbid(unsafe_code)]

use jiff::Timestamp;

/// `2012/12/12 15:34:56 +0000 (~ 1h ago)`; what is not a time is shown as it is.
pub(super) fn ago(text: &str, now: Timestamp) -> String {
    let Ok(at) = text.parse::<Timestamp>() else { return super::output::plain(text) };
    let date = at.strftime("%Y/%m/%d %H:%M:%S +0000");
    let elapsed = (now.as_second() - at.as_second()).max(0);
    match elapsed {
        0..60 => format!("{date} (~ {elapsed}s ago)"),
        60..3600 => format!("{date} (~ {}m ago)", elapsed / 60),
        3600..86400 => format!("{date} (~ {}h ago)", elapsed / 3600),
        _ => date.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_times_say_how_long_ago() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        assert_eq!(ago("2026-11-22T11:59:30Z", now), "2026/11/22 11:59:30 +0000 (~ 30s ago)");
        assert_eq!(ago("2026-11-22T11:00:01Z", now), "2026/11/22 11:00:01 +0000 (~ 59m ago)");
        assert_eq!(ago("2026-11-22T09:00:00Z", now), "2026/11/22 09:00:00 +0000 (~ 3h ago)");
        assert_eq!(ago("2026-11-20T09:00:00Z", now), "2026/11/20 09:00:00 +0000");
        assert_eq!(ago("2026-11-22T12:00:05Z", now), "2026/11/22 12:00:00 +0000 (~ 0s ago)".replace("00 +", "05 +"));
        assert_eq!(ago("soon", now), "soon");
    }
}
