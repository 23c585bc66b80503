//! The log as its writers, its readers and a restarted server see it.
#![forbid(unsafe_code)]

use super::*;
use crate::domain::log::Source;
use std::fs;
use std::time::Duration;
use uuid::Uuid;

fn app() -> AppId {
    AppId(Uuid::new_v4())
}

fn frame(process: &str, line: &str) -> LogFrame {
    LogFrame::platform("2026-11-22T17:02:45.259Z".parse().unwrap(), Source::App, process, line)
}

fn numbered(dyno: DynoId, n: u64) -> LogFrame {
    LogFrame { origin: Some((dyno, n)), ..frame("web.1", &format!("line {n}")) }
}

fn small() -> HubLimits {
    HubLimits { ring_lines: 5, segment_bytes: 2000, segments: 3 }
}

fn lines(frames: &[LogFrame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.line.as_str()).collect()
}

fn hub(dir: &tempfile::TempDir, limits: HubLimits) -> Hub {
    Hub::open(dir.path().join("logs"), limits).unwrap()
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("nothing came")
}

#[test]
fn recent_lines_are_the_newest_that_match_in_order_of_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, app) = (hub(&dir, HubLimits::default()), app());
    for n in 0..4 {
        hub.write(app, frame("web.1", &format!("w{n}")));
        hub.write(app, frame("worker.1", &format!("k{n}")));
    }
    assert_eq!(lines(&hub.recent(app, &LogFilter::default(), 3)), ["k2", "w3", "k3"]);
    let web = LogFilter { process: Some("web".into()), source: None };
    assert_eq!(lines(&hub.recent(app, &web, 2)), ["w2", "w3"]);
    assert!(hub.recent(self::app(), &web, 2).is_empty());
}

#[test]
fn a_new_server_finds_the_lines_and_how_far_each_launch_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (app, first, second) = (app(), DynoId(Uuid::new_v4()), DynoId(Uuid::new_v4()));
    let before = hub(&dir, HubLimits::default());
    before.write(app, numbered(first, 7));
    before.write_all(app, vec![numbered(first, 8), numbered(second, 1)]).unwrap();
    let kept = before.recent(app, &LogFilter::default(), 10);

    // Not dropped: the old server was killed, nothing was flushed or closed.
    let after = hub(&dir, HubLimits::default());
    assert_eq!(after.last_of(app, first), Some(8));
    assert_eq!(after.last_of(app, second), Some(1));
    assert_eq!(after.last_of(app, DynoId(Uuid::new_v4())), None);
    assert_eq!(after.recent(app, &LogFilter::default(), 10), kept);
}

#[test]
fn a_line_cut_short_by_a_crash_is_left_out_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let app = app();
    hub(&dir, small()).write(app, frame("web.1", "whole"));
    let file = dir.path().join("logs").join(app.to_string()).join("1.log");
    let mut contents = fs::read(&file).unwrap();
    contents.extend_from_slice(br#"{"at":"2026-11-22T17:02:45Z","sou"#);
    fs::write(&file, contents).unwrap();

    hub(&dir, small()).write(app, frame("web.1", "next"));
    assert_eq!(lines(&hub(&dir, small()).recent(app, &LogFilter::default(), 9)), ["whole", "next"]);
}

#[test]
fn files_are_bounded_and_deleting_the_oldest_forgets_no_launch() {
    let dir = tempfile::tempdir().unwrap();
    let (app, quiet, loud) = (app(), DynoId(Uuid::new_v4()), DynoId(Uuid::new_v4()));
    let hub = hub(&dir, small());
    hub.write(app, numbered(quiet, 41));
    for n in 1..=200 {
        hub.write(app, numbered(loud, n));
    }
    let files: Vec<_> = fs::read_dir(dir.path().join("logs").join(app.to_string())).unwrap().collect();
    assert_eq!(files.len(), 3);
    let bytes: u64 = files.into_iter().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 3 * 2500, "{bytes}");

    let after = self::hub(&dir, small());
    assert_eq!((after.last_of(app, quiet), after.last_of(app, loud)), (Some(41), Some(200)));
    let recent = after.recent(app, &LogFilter::default(), 100);
    assert_eq!(lines(&recent), ["line 196", "line 197", "line 198", "line 199", "line 200"]);
}

#[test]
fn what_the_disk_does_not_take_is_counted_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, app) = (hub(&dir, small()), app());
    // A file where the app's directory should be makes every attempt to store fail.
    let obstacle = dir.path().join("logs").join(app.to_string());
    fs::write(&obstacle, "").unwrap();
    hub.write(app, frame("web.1", "a"));
    hub.write(app, frame("web.1", "b"));
    assert!(hub.write_all(app, vec![frame("web.1", "kept by its writer")]).is_err());
    fs::remove_file(&obstacle).unwrap();
    hub.write(app, frame("web.1", "c"));

    let note = "Error L10 (output buffer overflow): 2 messages dropped since 2026-11-22T17:02:45+00:00.";
    assert_eq!(lines(&hub.recent(app, &LogFilter::default(), 9)), ["a", "b", note, "c"]);
    assert_eq!(lines(&self::hub(&dir, small()).recent(app, &LogFilter::default(), 9)), [note, "c"]);
}

#[tokio::test]
async fn a_tail_has_what_was_and_all_that_comes_without_gap_or_double() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, app) = (hub(&dir, HubLimits::default()), app());
    let writer = std::thread::spawn({
        let hub = hub.clone();
        move || (0..3000).for_each(|n| hub.write(app, frame("web.1", &n.to_string())))
    });
    let mut seen = Vec::new();
    let mut tail = hub.tail(app, LogFilter::default(), 1500);
    while seen.last() != Some(&2999) {
        let line = soon(tail.next()).await.unwrap().line;
        seen.push(line.parse::<u32>().unwrap_or_else(|_| panic!("{line}")));
    }
    writer.join().unwrap();
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
}

#[tokio::test]
async fn a_slow_tail_learns_how_many_lines_it_missed_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, app) = (hub(&dir, HubLimits::default()), app());
    let mut tail = hub.tail(app, LogFilter::default(), 0);
    for n in 0..2010 {
        hub.write(app, frame("web.1", &n.to_string()));
    }
    let mut last = String::new();
    for _ in 0..2000 {
        last = soon(tail.next()).await.unwrap().line;
    }
    assert_eq!(last, "1999");
    assert_eq!(
        soon(tail.next()).await.unwrap().to_string(),
        "2026-11-22T17:02:45.259000+00:00 heroku[logplex]: Error L11 (Tail buffer overflow) -> \
         This tail session dropped 10 messages since 2026-11-22T17:02:45+00:00."
    );
    hub.write(app, frame("web.1", "after"));
    assert_eq!(soon(tail.next()).await.unwrap().line, "after");
}

#[tokio::test]
async fn removing_an_app_ends_its_tails_and_a_late_line_does_not_bring_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, app) = (hub(&dir, HubLimits::default()), app());
    hub.write(app, frame("web.1", "a"));
    let mut tail = hub.tail(app, LogFilter::default(), 0);
    hub.remove(app).unwrap();
    assert_eq!(soon(tail.next()).await, None);
    hub.write(app, frame("web.1", "late"));
    assert!(hub.recent(app, &LogFilter::default(), 9).is_empty());
    assert_eq!(soon(hub.tail(app, LogFilter::default(), 9).next()).await, None);
    assert!(!dir.path().join("logs").join(app.to_string()).exists());
}

async fn rest(reader: &mut OutputReader) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = soon(reader.next()).await {
        all.extend_from_slice(&bytes);
    }
    all
}

#[tokio::test]
async fn an_output_can_be_followed_while_it_grows_and_read_later() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = Outputs::open(dir.path().join("output")).unwrap();
    let id = Uuid::new_v4();
    assert!(outputs.follow(id).is_none() && !outputs.exists(id));
    let writer = outputs.create(id).unwrap();
    writer.write(b"-----> one\n");
    let mut reader = outputs.follow(id).unwrap();
    assert_eq!(soon(reader.next()).await.unwrap(), "-----> one\n");
    let clone = writer.clone();
    let waiting = tokio::spawn(async move { rest(&mut reader).await });
    writer.write(b"two\n");
    writer.finish();
    clone.write(b"three\n");
    drop(clone);
    assert_eq!(soon(waiting).await.unwrap(), b"two\nthree\n");
    // As a restarted server finds it.
    let after = Outputs::open(dir.path().join("output")).unwrap();
    assert_eq!(rest(&mut after.follow(id).unwrap()).await, b"-----> one\ntwo\nthree\n");
    after.remove(id).unwrap();
    assert!(!after.exists(id));
    after.remove(id).unwrap();
}

#[tokio::test]
async fn an_output_without_end_is_cut_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = Outputs::open(dir.path().join("output")).unwrap();
    let id = Uuid::new_v4();
    let writer = outputs.create_with_limit(id, 1_000_000).unwrap();
    for _ in 0..300 {
        writer.write(&[b'x'; 10_000]);
    }
    writer.finish();
    let all = rest(&mut outputs.follow(id).unwrap()).await;
    let end = b"\n !     Output is over 1 MB. The rest is not kept.\n";
    assert_eq!(all.len(), 1_000_000 + end.len());
    assert!(all.ends_with(end));
}
