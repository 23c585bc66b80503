//! An upgrade: a server of another version takes over dynos and router under load.

use crate::hokku::{Hokku, request, wait_for};
use crate::traffic::{Load, WebSocket};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Another build: the same program with a byte more at its end, which nobody reads.
fn another(directory: &Path) -> PathBuf {
    let path = directory.join("another-hokku");
    fs::copy(Hokku::THIS, &path).unwrap();
    fs::File::options().append(true).open(&path).unwrap().write_all(b"\n").unwrap();
    path
}

/// The instance's routers, each with the file that it runs.
fn routers(hokku: &Hokku) -> Vec<PathBuf> {
    let command = format!("hokku\0router\0--run\0{}\0", hokku.run_dir().display());
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let of_us =
        |pid: &String| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(command.as_bytes()));
    numbers.filter(of_us).filter_map(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok()).collect()
}

#[test]
fn an_upgrade_replaces_the_router_and_loses_nothing() {
    let mut hokku = Hokku::start();
    let _repository = hokku.serving("steady");
    let other = another(hokku.root());
    assert_eq!(routers(&hokku), [Path::new(Hokku::THIS)]);
    let load = Load::on(hokku.router, "steady");
    let router = hokku.router;
    let stream = std::thread::spawn(move || {
        request(router, "GET /stream/60 HTTP/1.1\r\nHost: steady.localhost\r\nConnection: close\r\n\r\n").unwrap()
    });
    let mut socket = WebSocket::open(hokku.router, "steady");
    assert_eq!(socket.say("before"), "before");
    std::thread::sleep(Duration::from_millis(200));

    hokku.kill_server();
    hokku.run_by(&other);
    hokku.start_server();
    assert_eq!(hokku.dynos("steady")[0]["state"], "up");
    wait_for("the new router", || routers(&hokku).contains(&other).then_some(()));
    assert_eq!(socket.say("after"), "after");
    hokku.ok(&["config:set", "A=1", "-a", "steady"]);
    wait_for("the next release", || (hokku.get("steady", "/env/A").body == "1").then_some(()));
    let streamed = stream.join().unwrap().body;
    assert!(streamed.starts_with("0\n") && streamed.ends_with("59\nend\n"), "{streamed:?}");
    drop(socket);
    wait_for("the old router to end", || (routers(&hokku) == [other.as_path()]).then_some(()));
    let (sent, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    hokku.wait_for_log("steady", "path=\"/stream/60\"");
    hokku.wait_for_log("steady", "path=\"/ws\"");
}

#[test]
fn a_server_that_is_killed_at_any_point_of_an_upgrade_leaves_nothing_that_the_next_does_not_find() {
    let mut hokku = Hokku::start();
    let _repository = hokku.serving("tough");
    let builds = [another(hokku.root()), PathBuf::from(Hokku::THIS)];
    let load = Load::on(hokku.router, "tough");
    for (round, delay) in [60, 120, 180, 240, 300, 90, 150, 210].into_iter().enumerate() {
        hokku.kill_server();
        hokku.run_by(&builds[round % 2]);
        hokku.start_and_kill_server(Duration::from_millis(delay));
    }
    hokku.run_by(&builds[0]);
    hokku.start_server();
    wait_for("one router, of this version", || (routers(&hokku) == [builds[0].as_path()]).then_some(()));
    let names =
        || fs::read_dir(hokku.run_dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    wait_for("no other's name", || {
        (!names().any(|name| name.starts_with("retired-") || name == "router-next.sock")).then_some(())
    });
    let (sent, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
}
