//! A server that comes back to many dynos.

use crate::hokku::Hokku;
use crate::machine::Machine;
use crate::requests::Requests;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const DYNOS: usize = 100;

/// Name, state and id of each dyno.
fn shown(hokku: &Hokku) -> BTreeMap<String, (String, String)> {
    let word = |dyno: &serde_json::Value, key: &str| dyno[key].as_str().unwrap().to_owned();
    hokku.dynos("load").iter().map(|dyno| (word(dyno, "name"), (word(dyno, "state"), word(dyno, "id")))).collect()
}

#[test]
fn a_server_that_is_killed_under_load_is_right_about_a_hundred_dynos_at_once() {
    let mut hokku = Hokku::start();
    let repository = hokku.app("load", "counter");
    hokku.ok(&["labs:enable", "runtime-dyno-metadata", "-a", "load"]);
    let instance = hokku.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    hokku.ok(&["config:set", "QUIET=1", &format!("INSTANCE={instance}"), "-a", "load"]);
    hokku.push(&repository).expect_success();
    hokku.ok(&["ps:scale", &format!("web={DYNOS}"), "-a", "load"]);
    let until = Instant::now() + Duration::from_secs(300);
    let up = |dynos: &BTreeMap<String, (String, String)>| dynos.values().filter(|(state, _)| state == "up").count();
    while up(&shown(&hokku)) != DYNOS {
        assert!(Instant::now() < until, "{:?}", shown(&hokku));
        std::thread::sleep(Duration::from_millis(200));
    }
    let machine = Machine::new(hokku.root(), &hokku.run_dir());
    let (before, programs) = (shown(&hokku), machine.look().programs);
    assert_eq!(programs.len(), DYNOS);
    let requests = Requests::start(hokku.router, vec!["load"; 4]);
    for round in 0..3 {
        hokku.kill_server();
        std::thread::sleep(Duration::from_millis(300));
        hokku.start_server();
        // The first answer is the right one.
        assert_eq!(shown(&hokku), before, "round {round}");
    }
    assert_eq!(machine.look().programs, programs, "none was started again");
    assert_eq!(requests.failures(), Vec::<String>::new());
    let other: serde_json::Value = hokku.json(&["info", "-a", "load", "--json"]);
    assert_eq!(other["app"]["name"], "load");
}
