//! Hold and swap: one copy at a time, and still no request fails.

use crate::hokku::{Hokku, request, wait_for};
use crate::traffic::Load;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Counts an app's processes again and again.
struct Census {
    over: Arc<AtomicBool>,
    counter: JoinHandle<(usize, usize)>,
}

impl Census {
    /// Of all `node server.js` in the instance's control groups.
    fn of(hokku: &Hokku) -> Self {
        let group = format!("/hokku-{}/", hokku.name());
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let counter = std::thread::spawn(move || {
            let (mut least, mut most) = (usize::MAX, 0);
            while !until.load(SeqCst) {
                let count = servers(&group);
                (least, most) = (least.min(count), most.max(count));
                std::thread::sleep(Duration::from_millis(5));
            }
            (least, most)
        });
        Self { over, counter }
    }

    /// The least and the most there were at a time.
    fn end(self) -> (usize, usize) {
        self.over.store(true, SeqCst);
        self.counter.join().unwrap()
    }
}

fn servers(group: &str) -> usize {
    let is_one = |pid: &str| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        read("cmdline") == "node\0server.js\0" && read("cgroup").contains(group)
    };
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    entries.filter(|name| name.starts_with(|c: char| c.is_ascii_digit()) && is_one(name)).count()
}

fn wait_until_settled(hokku: &Hokku, app: &str, count: usize) {
    wait_for("the change to be made", || {
        let release = hokku.json(&["releases", "--json", "-a", app])[0].clone();
        let dynos = hokku.dynos(app);
        let up = dynos.iter().filter(|dyno| dyno["state"] == "up").count();
        (release["status"] != "pending" && up == count && dynos.len() == count).then_some(())
    });
}

#[test]
fn the_only_dyno_is_swapped_without_a_second_copy_and_without_a_failed_request() {
    let hokku = Hokku::start();
    let repository = hokku.app("small", "echo");
    repository.write("version", "1").commit("1");
    hokku.push(&repository).expect_success();
    hokku.ok(&["labs:enable", "hold-and-swap", "-a", "small"]);
    let (census, load) = (Census::of(&hokku), Load::on(hokku.router, "small"));

    // Requests that are under way are finished first.
    let router = hokku.router;
    let stream = std::thread::spawn(move || {
        request(router, "GET /stream/20 HTTP/1.1\r\nHost: small.localhost\r\nConnection: close\r\n\r\n").unwrap()
    });
    std::thread::sleep(Duration::from_millis(200));
    hokku.ok(&["config:set", "A=1", "-a", "small"]);
    wait_until_settled(&hokku, "small", 1);
    let streamed = stream.join().unwrap().body;
    assert!(streamed.starts_with("0\n") && streamed.ends_with("19\nend\n"), "{streamed:?}");

    repository.write("version", "2").commit("2");
    hokku.push(&repository).expect_success();
    assert!(hokku.get("small", "/").body.starts_with("version 2"));
    hokku.ok(&["ps:restart", "-a", "small"]);
    wait_until_settled(&hokku, "small", 1);
    hokku.ok(&["rollback", "v3", "-a", "small"]);
    wait_until_settled(&hokku, "small", 1);
    wait_for("the old code", || hokku.get("small", "/").body.starts_with("version 1").then_some(()));

    let (sent, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    assert_eq!(census.end(), (0, 1), "never two copies, and for moments none");
    let log = hokku.wait_for_log("small", "desc=\"Requests held\" count=");
    assert!(log.contains("heroku[web.1]: Holding requests while it is replaced"), "{log}");
}

#[test]
fn a_release_that_does_not_boot_costs_no_request_either() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("fragile");
    hokku.ok(&["labs:enable", "hold-and-swap", "-a", "fragile"]);
    let (census, load) = (Census::of(&hokku), Load::on(hokku.router, "fragile"));
    let said = hokku.fails(&["config:set", "BOOT=exit", "-a", "fragile"]);
    assert!(said.contains("v4 failed: web.1 exited with status 7"), "{said}");
    hokku.wait_for_log("fragile", "Release v4 failed: web.1 exited with status 7");
    wait_until_settled(&hokku, "fragile", 1);
    assert_eq!(hokku.dynos("fragile")[0]["release"]["version"], 3);
    let (sent, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    assert!(census.end().1 <= 1);
}

#[test]
fn several_dynos_are_swapped_one_by_one_and_a_server_that_is_killed_meanwhile_goes_on() {
    let mut hokku = Hokku::start();
    let _repository = hokku.serving("trio");
    hokku.ok(&["ps:scale", "web=3", "-a", "trio"]);
    wait_until_settled(&hokku, "trio", 3);
    hokku.ok(&["labs:enable", "hold-and-swap", "-a", "trio"]);
    let (census, load) = (Census::of(&hokku), Load::on(hokku.router, "trio"));
    hokku.ok(&["ps:restart", "-a", "trio"]);
    for pause in [100, 400, 900] {
        std::thread::sleep(Duration::from_millis(pause));
        hokku.kill_server();
        hokku.start_server();
    }
    wait_until_settled(&hokku, "trio", 3);
    hokku.ok(&["config:set", "A=1", "-a", "trio"]);
    hokku.kill_server();
    hokku.start_server();
    wait_until_settled(&hokku, "trio", 3);
    wait_for("the new release on all", || {
        hokku.dynos("trio").iter().all(|dyno| dyno["release"]["version"] == 4).then_some(())
    });
    let (sent, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    assert!(census.end().1 <= 3);
}
