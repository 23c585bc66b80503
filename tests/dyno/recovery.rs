//! Servers, launchers and shims that die.

use super::stage::{Stage, eventually};
use hokku::domain::dyno::DynoId;
use hokku::domain::log::LogFilter;
use hokku::dyno::{Io, Ready, What, destroy, instances};
use hokku::logs::{Hub, HubLimits};
use hokku::sys::cgroup;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

/// The process on the host that is the parent of the dyno's pid 1.
fn shim(stage: &Stage, id: DynoId) -> i32 {
    let inside = stage.processes(id);
    let outside: Vec<i32> = inside.iter().map(|pid| parent_of(*pid)).filter(|pid| !inside.contains(pid)).collect();
    assert_eq!(outside.len(), 1, "{inside:?} {outside:?}");
    outside[0]
}

fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("PPid:")).unwrap();
    line[5..].trim().parse().unwrap()
}

fn kill(pid: i32) {
    send(pid, Signal::KILL);
}

fn send(pid: i32, signal: Signal) {
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(pidfd, signal).unwrap();
}

/// The instance's launchers.
fn launchers(stage: &Stage) -> Vec<i32> {
    let title = format!("hokku-launcher {}", stage.instance.name);
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_one =
        |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(title.as_bytes()));
    pids.filter(is_one).collect()
}

/// The log rings of the shims that wait, or have waited.
fn rings(stage: &Stage) -> usize {
    let names = fs::read_dir(&stage.instance.run).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| std::path::Path::new(name).extension().is_some_and(|ending| ending == "ring")).count()
}

/// `hokku down` may come between a server's start of a launcher and what that does first.
#[tokio::test]
async fn a_launcher_makes_a_group_only_while_its_instance_is_there() {
    for taken_away in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let name = format!("late-{}-{taken_away}", std::process::id()).parse().unwrap();
        let (instance, _claim) = instances::claim(name, root.path()).unwrap();
        let socket = instance.run.join("launcher.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let turn = File::open(&instance.run).unwrap();
        turn.lock().unwrap();
        let mut launcher = Command::new(env!("CARGO_BIN_EXE_hokku"))
            .args(["launcher", &serde_json::to_string(&instance).unwrap()])
            .stdin(OwnedFd::from(listener))
            .spawn()
            .unwrap();
        let waits = format!(" {} ", launcher.id());
        let locks = || fs::read_to_string("/proc/locks").unwrap();
        let waiting = || locks().lines().any(|lock| lock.contains("-> FLOCK") && lock.contains(&waits));
        eventually("it waits for its turn", waiting).await;
        if taken_away {
            fs::remove_file(&socket).unwrap();
        }
        drop(turn);
        let group = instances::hierarchy(&instance).unwrap().v2().unwrap().join(instance.cgroup());
        if !taken_away {
            eventually("its group", || group.exists()).await;
            fs::remove_file(&socket).unwrap();
        }
        launcher.wait().unwrap();
        assert_eq!(group.exists(), !taken_away);
        destroy(&instance, Duration::ZERO).await.unwrap();
        assert!(!group.exists());
    }
}

/// The shims that wait for a launch, while there is no dyno.
fn waiting(stage: &Stage) -> Vec<i32> {
    let (hierarchy, parent) = (instances::hierarchy(&stage.instance).unwrap(), stage.instance.cgroup());
    let groups = cgroup::children(&hierarchy, &parent).unwrap();
    let inits = groups.iter().flat_map(|name| cgroup::Group::open(&hierarchy, &parent, name).procs().unwrap());
    inits.map(parent_of).collect()
}

#[tokio::test]
async fn what_was_made_ahead_goes_with_its_server_and_is_replaced_when_it_dies() {
    let mut stage = Stage::new().await;
    stage.stop_engine().await;
    stage.prepared = 2;
    stage.start_engine().await;
    assert_eq!(stage.shell("true").await.exit.code, 0);
    eventually("two are made ahead", || waiting(&stage).len() == 2).await;
    stage.stop_engine().await;
    eventually("they are given up with the server", || stage.traces().is_empty()).await;

    stage.start_engine().await;
    assert_eq!(stage.shell("true").await.exit.code, 0);
    eventually("two are made ahead again", || waiting(&stage).len() == 2).await;
    for shim in waiting(&stage) {
        kill(shim);
    }
    // Their slots are taken by shims that are made for these.
    for _ in 0..2 {
        assert_eq!(stage.shell("true").await.exit.code, 0);
    }
}

#[tokio::test]
async fn a_launcher_that_dies_is_replaced_at_once_and_what_waited_with_it_is_cleared_away() {
    let mut stage = Stage::new().await;
    stage.stop_engine().await;
    stage.prepared = 2;
    stage.start_engine().await;
    assert_eq!(stage.shell("true").await.exit.code, 0);
    eventually("two are made ahead", || waiting(&stage).len() == 2).await;
    let (before, inits) = (launchers(&stage), waiting(&stage));
    assert_eq!(before.len(), 1);
    kill(before[0]);
    // Nobody launches anything.
    eventually("another launcher", || launchers(&stage).iter().any(|pid| *pid != before[0])).await;
    eventually("others wait", || waiting(&stage).len() == 2 && waiting(&stage).iter().all(|pid| !inits.contains(pid)))
        .await;
    eventually("nothing is left of the first", || rings(&stage) == 2 && stage.traces().len() == 4).await;
    assert_eq!(stage.shell("exit 3").await.exit.code, 3);
}

/// Children of a launcher that is killed have its socket for a moment more, so that one can still connect.
#[tokio::test]
async fn a_launcher_that_dies_right_after_its_start_is_replaced_too() {
    let stage = Stage::new().await;
    eventually("the launcher", || launchers(&stage).len() == 1).await;
    let process = pidfd_open(Pid::from_raw(launchers(&stage)[0]).unwrap(), PidfdFlags::empty()).unwrap();
    let socket = pidfd_getfd(&process, 0, PidfdGetfdFlags::empty()).unwrap();
    pidfd_send_signal(&process, Signal::KILL).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(socket);
    eventually("another", || launchers(&stage).len() == 1).await;
}

#[tokio::test]
async fn of_a_waiting_shim_that_is_killed_nothing_stays() {
    let mut stage = Stage::new().await;
    stage.stop_engine().await;
    stage.prepared = 2;
    stage.start_engine().await;
    assert_eq!(stage.shell("true").await.exit.code, 0);
    eventually("two are made ahead", || waiting(&stage).len() == 2).await;
    kill(waiting(&stage)[0]);
    eventually("its place is cleared away", || rings(&stage) == 1 && stage.traces().len() == 2).await;
    for _ in 0..3 {
        assert_eq!(stage.shell("true").await.exit.code, 0);
    }
}

#[tokio::test]
async fn a_waiting_shim_that_is_stopped_holds_nobody_up() {
    let mut stage = Stage::new().await;
    stage.stop_engine().await;
    stage.prepared = 2;
    stage.start_engine().await;
    assert_eq!(stage.shell("true").await.exit.code, 0);
    eventually("two are made ahead", || waiting(&stage).len() == 2).await;
    let stopped = waiting(&stage);
    for shim in &stopped {
        send(*shim, Signal::STOP);
    }
    stage.stop_engine().await;
    stage.start_engine().await;
    assert_eq!(stage.shell("exit 4").await.exit.code, 4);
    assert!(stopped.iter().all(|shim| !std::path::Path::new(&format!("/proc/{shim}")).exists()));
}

#[tokio::test]
async fn a_launch_that_was_given_up_with_its_server_does_not_happen_later() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.shell("true").await.exit.code, 0);
    let launcher = launchers(&stage)[0];
    send(launcher, Signal::STOP);
    let id = stage.launch(stage.body(&["sh", "-c", "sleep 1000"]), Ready::Started, Io::Log);
    eventually("it has a record", || stage.instance.dyno_dir(id).join("labels.json").exists()).await;
    // So that the request is on its way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.stop_engine().await;
    stage.start_engine().await;
    assert_eq!(stage.found[0].exit.map(|exit| exit.code), Some(137));
    send(launcher, Signal::CONT);
    // It does one thing after the other.
    assert_eq!(stage.shell("exit 5").await.exit.code, 5);
    eventually("nothing runs", || stage.traces().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_shim_that_was_stopped_is_killed_with_its_dyno_when_that_is_to_end() {
    let mut stage = Stage::new().await;
    let id = stage.launch(stage.body(&["sh", "-c", "echo up; sleep 1000"]), Ready::Started, Io::Log);
    stage.logged("up").await;
    let (shim, inside) = (shim(&stage, id), stage.processes(id));
    send(shim, Signal::STOP);
    // Others are not held up.
    assert_eq!(stage.shell("exit 2").await.exit.code, 2);
    stage.dynos().stop(id, Duration::from_millis(100));
    assert_eq!(stage.exit(id).await.code, 137);
    for pid in inside.into_iter().chain([shim]) {
        eventually("it is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    }
    assert!(!stage.traces().contains(&"dyno-0".to_owned()), "{:?}", stage.traces());
}

#[tokio::test]
async fn a_dyno_that_was_stopped_ends_when_it_is_to() {
    let mut stage = Stage::new().await;
    let id = stage.launch(stage.body(&["sh", "-c", "echo up; sleep 1000"]), Ready::Started, Io::Log);
    stage.logged("up").await;
    for pid in stage.processes(id) {
        send(pid, Signal::STOP);
    }
    assert_eq!(stage.shell("exit 2").await.exit.code, 2);
    stage.dynos().stop(id, Duration::from_millis(300));
    stage.exit(id).await;
    assert!(stage.processes(id).is_empty());
}

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.002; done";

#[tokio::test]
async fn no_line_is_lost_or_doubled_over_servers_that_die() {
    let mut stage = Stage::new().await;
    let id = stage.launch(stage.body(&["sh", "-c", COUNT]), Ready::Started, Io::Log);
    stage.logged("10").await;
    let before = stage.processes(id);
    for round in 0..3 {
        stage.stop_engine().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.start_engine().await;
        assert_eq!(stage.found.len(), 1);
        assert_eq!((stage.found[0].id, stage.found[0].exit), (id, None));
        stage.event(id, |what| matches!(what, What::Ready { .. })).await;
        let lines = stage.log().len();
        eventually("more lines", || stage.log().len() > lines + 20).await;
        assert_eq!(stage.processes(id)[..2], before[..2], "restarted in round {round}");
    }
    stage.dynos().stop(id, Duration::from_secs(30));
    stage.exit(id).await;
    let numbers: Vec<usize> = stage.log().iter().map(|frame| frame.line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_exit_of_a_dyno_that_died_meanwhile_is_known() {
    let mut stage = Stage::new().await;
    let gate = stage.instance.root.join("gate");
    fs::create_dir(&gate).unwrap();
    let mut body =
        stage.body(&["sh", "-c", "echo up; while [ ! -e /gate/open ]; do sleep 0.05; done; echo bye; exit 42"]);
    body.binds.push(hokku::dyno::Mount { source: gate.clone(), target: "/gate".into(), read_only: true });
    let id = stage.launch(body, Ready::Started, Io::Log);
    stage.logged("up").await;
    stage.stop_engine().await;
    fs::write(gate.join("open"), "").unwrap();
    eventually("it has ended", || !stage.instance.dyno_dir(id).join("shim.sock").exists()).await;
    stage.start_engine().await;
    assert_eq!(stage.found[0].exit.unwrap().code, 42);
    assert_eq!(stage.log().last().unwrap().line, "bye");
    stage.dynos().forget(id);
    eventually("its record is gone", || !stage.instance.dyno_dir(id).exists()).await;
}

#[tokio::test]
async fn a_full_ring_is_said_with_the_exact_count() {
    let mut stage = Stage::new().await;
    let gate = stage.instance.root.join("gate");
    fs::create_dir(&gate).unwrap();
    fs::set_permissions(&gate, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let script = "echo up; while [ ! -e /gate/open ]; do sleep 0.05; done; seq 1 60000; touch /gate/printed; \
                  while [ -e /gate/open ]; do sleep 0.05; done; echo after";
    let mut body = stage.body(&["bash", "-c", script]);
    body.binds.push(hokku::dyno::Mount { source: gate.clone(), target: "/gate".into(), read_only: false });
    let id = stage.launch(body, Ready::Started, Io::Log);
    stage.logged("up").await;
    stage.stop_engine().await;
    fs::write(gate.join("open"), "").unwrap();
    eventually("printed", || gate.join("printed").exists()).await;
    stage.start_engine().await;
    // All that had room is stored, so that the next line has.
    stage.logged("10000").await;
    fs::remove_file(gate.join("open")).unwrap();
    stage.exit(id).await;
    let log = stage.log();
    let gaps: Vec<&str> = log.iter().map(|frame| frame.line.as_str()).filter(|line| line.contains("L12")).collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let dropped: usize = gaps[0].split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!(dropped > 0);
    let numbers = log.iter().filter(|frame| frame.line.parse::<u32>().is_ok()).count();
    assert_eq!(numbers + dropped, 60_000);
    assert_eq!(log.last().unwrap().line, "after");
}

#[tokio::test]
async fn lines_that_must_not_be_lost_make_the_program_wait() {
    let mut stage = Stage::new().await;
    let ran = stage.run(stage.body(&["seq", "1", "200000"])).await;
    assert_eq!(ran.output.len(), 200_000);
    assert!(ran.output.iter().enumerate().all(|(at, line)| line.parse() == Ok(at + 1)));
}

#[tokio::test]
async fn a_killed_shim_takes_its_dyno_along_and_leaves_nothing() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["sh", "-c", "echo up; sleep 1000 & sleep 1000"]);
    body.network = true;
    let id = stage.launch(body, Ready::Started, Io::Log);
    stage.logged("up").await;
    kill(shim(&stage, id));
    let exit = stage.exit(id).await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    eventually("its writable layer is gone", || stage.scratch().is_empty()).await;
    assert!(stage.processes(id).is_empty());
    assert!(!stage.group(id).v2_dir().is_some_and(|_| true));
    assert!(!stage.traces().iter().any(|trace| *trace == id.to_string()), "{:?}", stage.traces());
}

#[tokio::test]
async fn a_shim_killed_while_no_server_looked_is_cleared_away() {
    let mut stage = Stage::new().await;
    let id = stage.launch(stage.body(&["sh", "-c", "echo up; sleep 1000"]), Ready::Started, Io::Log);
    stage.logged("up").await;
    stage.stop_engine().await;
    let inside = stage.processes(id);
    kill(shim(&stage, id));
    eventually("the dyno is gone", || inside.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()))
        .await;
    stage.start_engine().await;
    assert_eq!(stage.found[0].exit.unwrap().code, 137);
    assert!(!stage.traces().iter().any(|trace| *trace == id.to_string()), "{:?}", stage.traces());
}

#[tokio::test]
async fn the_launcher_is_replaced_when_it_dies_and_dynos_do_not_notice() {
    let mut stage = Stage::new().await;
    let first = stage.launch(stage.body(&["sh", "-c", "echo up; sleep 1000"]), Ready::Started, Io::Log);
    stage.logged("up").await;
    let shim = shim(&stage, first);
    let status = fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let launcher = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    kill(launcher);
    assert_eq!(stage.shell("exit 6").await.exit.code, 6);
    assert!(!stage.processes(first).is_empty());
    stage.dynos().kill(first);
    stage.exit(first).await;
}

#[tokio::test]
async fn going_down_leaves_no_trace() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["sh", "-c", "trap '' TERM HUP; echo up; sleep 1000 & sleep 1000"]);
    body.network = true;
    let id = stage.launch(body, Ready::Started, Io::Log);
    stage.logged("up").await;
    let inside = stage.processes(id);
    stage.stop_engine().await;
    hokku::dyno::destroy(&stage.instance, Duration::ZERO).await.unwrap();
    assert!(!stage.instance.run.exists());
    assert!(stage.traces().is_empty(), "{:?}", stage.traces());
    assert!(inside.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
}

#[tokio::test]
async fn what_a_dyno_says_while_the_box_is_shut_down_is_in_its_log() {
    let mut stage = Stage::new().await;
    let script = "trap 'echo its last words; exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let id = stage.launch(stage.body(&["sh", "-c", script]), Ready::Started, Io::Log);
    stage.logged("up").await;
    // The server goes first.
    stage.stop_engine().await;
    destroy(&stage.instance, Duration::from_secs(10)).await.unwrap();
    assert!(!stage.instance.dyno_dir(id).exists());
    let hub = Hub::open(stage.instance.root.join("logs"), HubLimits::default()).unwrap();
    let lines: Vec<String> =
        hub.recent(stage.app, &LogFilter::default(), 100).into_iter().map(|frame| frame.line).collect();
    // The shell also tells of its `sleep`, which is told to end as well, before or after.
    assert!(lines.iter().any(|line| line == "its last words"), "{lines:?}");
    assert_eq!(lines[0], "up", "{lines:?}");
}
