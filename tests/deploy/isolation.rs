//! What an app can't do to its neighbours and its host.

use crate::hokku::{Hokku, wait_for};

#[test]
fn an_app_sees_nothing_of_others() {
    let hokku = Hokku::start();
    let _a = hokku.serving("app-a");
    let _b = hokku.serving("app-b");
    // Its own file system only.
    assert_eq!(hokku.get("app-a", "/write/app/mine").body, "written");
    assert_eq!(hokku.get("app-a", "/file/app/mine").body, "written", "the positive control");
    assert_eq!(hokku.get("app-b", "/file/app/mine").body, "ENOENT\n");
    for secret in
        [format!("/file{}/db.sqlite", hokku.root().display()), "/file/etc/shadow".into(), "/file/etc/gshadow".into()]
    {
        let answer = hokku.get("app-a", &secret);
        assert_eq!(answer.status, 500, "{secret}: {}", answer.body);
    }
    assert_eq!(hokku.get("app-a", "/write/usr/bin/evil").status, 500, "/usr is read-only");

    // Its own network only: not the neighbour's port, not the API, not the cloud's metadata.
    let (own, neighbour) = (hokku.get("app-a", "/address").body, hokku.get("app-b", "/address").body);
    assert_ne!(own, neighbour);
    assert_eq!(hokku.get("app-a", &format!("/connect/{own}/5000")).body, "connected", "the positive control");
    assert_eq!(
        hokku.get("app-b", &format!("/connect/{neighbour}/5000")).body,
        "connected",
        "its port is open to itself"
    );
    assert_ne!(hokku.get("app-a", &format!("/connect/{neighbour}/5000")).body, "connected", "and to nobody else");
    let gateway = format!("{}.0.1", own.split('.').take(2).collect::<Vec<_>>().join("."));
    let api = hokku.get("app-a", &format!("/connect/{gateway}/{}", hokku.api.port()));
    assert_ne!(api.body, "connected", "the API is closed to dynos");
    assert_ne!(hokku.get("app-a", "/connect/169.254.169.254/80").body, "connected");
}

#[test]
fn a_fork_bomb_hurts_only_itself() {
    let hokku = Hokku::start();
    let _greedy = hokku.serving("greedy");
    let _modest = hokku.serving("modest");
    let forks: u32 = hokku.get("greedy", "/forks").body.parse().unwrap();
    assert!((20..256).contains(&forks), "{forks} processes at once");
    assert_eq!(hokku.get("modest", "/").status, 200);
    assert!(!hokku.log("modest").contains("crashed"));
}

#[test]
fn a_memory_hog_hurts_only_itself() {
    let hokku = Hokku::start();
    let _greedy = hokku.serving("greedy");
    let _modest = hokku.serving("modest");
    let _ = hokku.try_get("greedy", "/hog"); // its dyno is killed before it can answer
    hokku.wait_for_log("greedy", "Error R15 (Memory quota vastly exceeded)");
    assert!(hokku.log("greedy").contains("Process running mem=1024M(200.0%)"), "the size's hard limit");
    assert_eq!(hokku.get("modest", "/").status, 200);
    wait_for("greedy to be back", || (hokku.get("greedy", "/").status == 200).then_some(()));
    assert!(!hokku.log("modest").contains("crashed"));
}

#[test]
fn a_build_that_apps_leave_no_memory_to_is_refused_in_plain_words() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    let hokku = Hokku::with_config(&format!("[memory]\nreserve_mb = {}\n", total / 1024 - 400));
    let repository = hokku.serving("full");
    repository.write("new", "new").commit("new");
    assert_eq!(hokku.get("full", "/hold/220").body, "held\n");
    let output = hokku.push(&repository).expect_rejection();
    let why = output.lines().find(|line| line.contains("There is not enough memory to build")).unwrap_or(&output);
    assert!(why.contains("of the 400 MB that apps and builds may use together"), "{output}");
    assert!(why.contains("192 MB are needed. Scale something down or try again later."), "{output}");
    assert_eq!(hokku.get("full", "/").status, 200);
    // Whatever else it finds here.
    let found: serde_json::Value = serde_json::from_slice(&hokku.cli(&["doctor", "--json"]).stdout).unwrap();
    let check = found.as_array().unwrap().iter().find(|check| check["name"] == "memory for apps").unwrap();
    assert!(check["status"] == "warning" && check["found"].as_str().unwrap().contains(" MiB of "), "{check}");
    hokku.ok(&["ps:scale", "web=0", "-a", "full"]);
    wait_for("the app to have left", || hokku.dynos("full").is_empty().then_some(()));
    hokku.push(&repository).expect_success();
}

#[test]
fn memory_over_the_quota_is_told_while_the_dyno_goes_on() {
    let hokku = Hokku::with_config("[dyno]\nmemory_check_seconds = 1\n");
    let _repository = hokku.serving("heavy");
    assert!(!hokku.log("heavy").contains("R14"));
    assert_eq!(hokku.get("heavy", "/hold/600").body, "held\n");
    hokku.wait_for_log("heavy", "Error R14 (Memory quota exceeded)");
    // The first look may have been in the middle of taking it.
    wait_for("all of it to be told", || {
        let log = hokku.log("heavy");
        let lines = log.lines().filter(|line| line.contains("Process running mem="));
        let used: Vec<u64> = lines
            .map(|line| {
                assert!(line.contains("heroku[web.1]"), "{line}");
                line.split("mem=").nth(1).unwrap().split('M').next().unwrap().parse().unwrap()
            })
            .collect();
        assert!(used.iter().all(|used| (512..1024).contains(used)), "{used:?}");
        used.iter().any(|used| *used >= 600).then_some(())
    });
    assert_eq!(hokku.get("heavy", "/").status, 200);
    assert!(!hokku.log("heavy").contains("R15"));
}
