//! How dynos start, end and talk.

use super::stage::{Stage, eventually, not_shown};
use hokku::domain::dyno::{DynoId, Purpose};
use hokku::domain::log::Source;
use hokku::dyno::scratch::Way;
use hokku::dyno::{ADVICE, Body, File, Io, Launch, Ready, What};
use hokku::wire::attach::Frame;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use uuid::Uuid;

#[tokio::test]
async fn a_program_runs_prints_and_its_status_is_known() {
    let mut stage = Stage::new().await;
    let ran = stage.shell("id -u; pwd; hostname; echo oops >&2; printf unfinished; exit 3").await;
    assert_eq!((ran.exit.code, ran.exit.signal, ran.exit.oom), (3, None, false), "{ran:?}");
    let mut output = ran.output;
    output.sort();
    assert_eq!(output, ["/app", "1000", "dyno-1", "oops", "unfinished"]);
    assert!(stage.traces().is_empty(), "{:?}", stage.traces());
}

#[tokio::test]
async fn a_signal_that_ended_it_is_known() {
    let mut stage = Stage::new().await;
    let ran = stage.shell("kill -USR1 $$").await;
    assert_eq!((ran.exit.code, ran.exit.signal), (128 + 10, Some(10)));
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_to_launch_and_says_so() {
    let mut stage = Stage::new().await;
    let id = stage.launch(stage.body(&["no-such-program"]), Ready::Started, Io::Log);
    let What::Failed { step, message } = stage.event(id, |what| matches!(what, What::Failed { .. })).await else {
        unreachable!()
    };
    assert_eq!(step, "start the program");
    assert!(message.contains("no-such-program") && message.contains("No such file"), "{message}");
    assert!(!stage.instance.dyno_dir(id).exists());
    assert!(stage.traces().is_empty(), "{:?}", stage.traces());
}

#[tokio::test]
async fn a_missing_layer_fails_the_launch_and_is_named() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["true"]);
    body.layers.insert(0, "/nowhere/at/all".into());
    let id = stage.launch(body, Ready::Started, Io::Log);
    let what = stage.event(id, |what| matches!(what, What::Failed { .. })).await;
    let What::Failed { step, message } = what else { unreachable!() };
    assert!(step == "copy a mount" && message.contains("/nowhere/at/all"), "{step}: {message}");
}

#[tokio::test]
async fn a_launch_that_fails_says_what_to_do_about_it() {
    let mut stage = Stage::new().await;
    let script = |name: &str, text: &str, mode| {
        let path = stage.app_dir().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    script("closed", "#!/bin/sh\n", 0o644);
    script("nothing", "no program\n", 0o755);
    script("lost", "#!/nowhere/at/all\n", 0o755);
    let bodies = [
        (stage.body(&["no-such-program"]), "start the program", "look at its spelling"),
        (stage.body(&["/app/closed"]), "start the program", "make it executable"),
        (stage.body(&["/app/nothing"]), "start the program", "another kind of processor"),
        (stage.body(&["/app/lost"]), "start the program", "the #! line"),
        (
            Body { env: vec![("BIG".to_owned(), "x".repeat(200_000))], ..stage.body(&["true"]) },
            "start the program",
            "128 KiB",
        ),
        (Body { layers: vec!["/nowhere/at/all".into()], ..stage.body(&["true"]) }, "copy a mount", "it is gone"),
        // No file system of a disk, and none that the kernel lets be id-mapped.
        (Body { layers: vec!["/proc/sys".into()], ..stage.body(&["true"]) }, "restrict a mount", "ext4, xfs or btrfs"),
    ];
    for (body, expected, about) in bodies {
        let id = stage.launch(body, Ready::Started, Io::Log);
        let what = stage.event(id, |what| matches!(what, What::Failed { .. })).await;
        let What::Failed { step, message } = what else { unreachable!() };
        let advice = message.split_once(ADVICE).map(|(_, advice)| advice).unwrap_or_default();
        assert!(step == expected && advice.contains(about), "{step}: {message}");
    }
    assert!(stage.traces().is_empty(), "{:?}", stage.traces());
}

#[tokio::test]
async fn files_are_written_by_the_dynos_own_user() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["sh", "-c", "stat -c '%a %u %n' /tmp/env/KEY /tmp/go; cat /tmp/env/KEY; /tmp/go"]);
    let file = |path: &str, mode, contents: &str| File { path: path.into(), mode, contents: contents.into() };
    body.files = vec![file("/tmp/env/KEY", 0o600, "secret\n"), file("/tmp/go", 0o755, "#!/bin/sh\necho went\n")];
    let ran = stage.run(body).await;
    assert_eq!(ran.output, ["600 1000 /tmp/env/KEY", "755 1000 /tmp/go", "secret", "went"]);
}

#[tokio::test]
async fn a_web_dyno_is_ready_when_its_port_accepts() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["python3", "-u", "-m", "http.server", "5000"]);
    body.network = true;
    let id = stage.launch(body, Ready::Port { port: 5000, within: Duration::from_secs(50) }, Io::Log);
    stage.started(id).await;
    let What::Ready { addr: Some(addr) } = stage.event(id, |what| matches!(what, What::Ready { .. })).await else {
        unreachable!()
    };
    let mut connection = tokio::net::TcpStream::connect(addr).await.unwrap();
    connection.write_all(b"GET /lib/file HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut connection, &mut answer).await.unwrap();
    assert!(answer.ends_with("of the slug"), "{answer}");
    stage.logged("GET /lib/file").await;
    stage.dynos().stop(id, Duration::from_secs(30));
    assert_eq!(stage.exit(id).await.signal, Some(15));
}

#[tokio::test]
async fn a_port_that_does_not_accept_in_time_is_a_boot_timeout() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["sleep", "1000"]);
    body.network = true;
    let id = stage.launch(body, Ready::Port { port: 5000, within: Duration::from_millis(300) }, Io::Log);
    stage.event(id, |what| *what == What::BootTimeout).await;
    assert_eq!(stage.exit(id).await.code, 137);
}

#[tokio::test]
async fn every_process_gets_sigterm() {
    let mut stage = Stage::new().await;
    let script = "trap 'echo parent; wait; exit 0' TERM; (trap 'echo child; exit 0' TERM; echo up; while :; do sleep 0.1; done) & \
                  while :; do sleep 0.1; done";
    let id = stage.launch(stage.body(&["bash", "-c", script]), Ready::Started, Io::Log);
    stage.logged("up").await;
    stage.dynos().stop(id, Duration::from_secs(50));
    assert_eq!(stage.exit(id).await.code, 0);
    let lines: Vec<String> = stage.log().into_iter().map(|frame| frame.line).collect();
    assert!(lines.contains(&"parent".to_owned()) && lines.contains(&"child".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed_after_its_grace() {
    let mut stage = Stage::new().await;
    let id = stage.launch(
        stage.body(&["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"]),
        Ready::Started,
        Io::Log,
    );
    stage.logged("up").await;
    stage.dynos().stop(id, Duration::from_millis(200));
    stage.event(id, |what| *what == What::Killed).await;
    let exit = stage.exit(id).await;
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), false));
}

#[tokio::test]
async fn a_time_limit_ends_it() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["sleep", "1000"]);
    body.time_limit = Some(Duration::from_millis(200));
    assert_eq!(stage.run(body).await.exit.code, 137);
}

#[tokio::test]
async fn orphans_are_reaped_and_end_with_the_program() {
    let mut stage = Stage::new().await;
    // Each inner shell leaves a child behind, which becomes pid 1's and ends.
    let script = "for i in 1 2 3 4 5 6 7 8; do sh -c 'sleep 0.01 &'; done; sleep 0.3; \
                  grep -l '^State:.Z' /proc/[0-9]*/status; sleep 1000 & echo done";
    let ran = stage.run(stage.body(&["bash", "-c", script])).await;
    assert_eq!((ran.output, ran.exit.code), (vec!["done".to_owned()], 0));
}

#[tokio::test]
async fn memory_is_bounded_and_says_so() {
    let mut stage = Stage::new().await;
    let hog = "import time\nx = []\nwhile True: x.append(bytearray(1 << 20))";
    let mut body = stage.body(&["sh", "-c", "echo up; python3 -c \"$HOG\"; echo survived"]);
    body.env.push(("HOG".to_owned(), hog.to_owned()));
    body.limits.memory_max = 48 << 20;
    let ran = stage.run(body).await;
    assert_eq!((ran.exit.code, ran.exit.oom, ran.text().as_str()), (137, true, "up"));
    assert!(!ran.exit.box_full, "it is its own limit");
}

const HOG: &str = "import time\nx = []\nwhile True: x.append(bytearray(1 << 20)); time.sleep(0.001)";

/// A stage whose dynos have 64 MB together, far less than each of them.
async fn cramped() -> Stage {
    let mut stage = Stage::new().await;
    stage.stop_engine().await;
    stage.memory_reserve = Some(1 << 50);
    stage.start_engine().await;
    let share = hokku::dyno::share::of(&stage.instance).unwrap();
    assert_eq!(share.most, 64 << 20);
    stage
}

#[tokio::test]
async fn where_all_memory_for_apps_is_used_up_only_who_has_most_of_it_ends() {
    let mut stage = cramped().await;
    let modest = stage.launch(stage.body(&["sh", "-c", "echo here; exec sleep 1000"]), Ready::Started, Io::Log);
    stage.logged("here").await;
    let ran = stage.run(stage.body(&["python3", "-c", HOG])).await;
    assert_eq!((ran.exit.code, ran.exit.oom, ran.exit.box_full), (137, true, true), "{ran:?}");
    // Whoever was told of it has had the time to end the wrong one.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(stage.processes(modest).len(), 2, "pid 1 and its program");
    stage.dynos().kill(modest);
    let exit = stage.exit(modest).await;
    assert!(!exit.oom && !exit.box_full, "{exit:?}");
}

#[tokio::test]
async fn where_all_memory_for_apps_is_used_up_a_build_ends_before_an_app_that_has_more() {
    let mut stage = cramped().await;
    let holder = "import time\nx = bytearray(34 << 20)\nprint('held', flush=True)\ntime.sleep(1000)";
    let app = stage.launch(stage.body(&["python3", "-c", holder]), Ready::Started, Io::Log);
    stage.logged("held").await;
    let build = DynoId(Uuid::now_v7());
    let (labels, body) = (stage.labels(Purpose::Build), stage.body(&["python3", "-c", HOG]));
    stage.dynos().launch(Launch { id: build, labels, body, ready: Ready::Started, io: Io::Log });
    let exit = stage.exit(build).await;
    assert!(exit.oom && exit.box_full, "{exit:?}");
    assert_eq!(stage.processes(app).len(), 2);
}

#[tokio::test]
async fn it_sees_its_own_limits_where_runtimes_look_for_them() {
    let mut stage = Stage::new().await;
    let script = "grep -v ':/$' /proc/self/cgroup; cd /sys/fs/cgroup; \
                  cat memory.max pids.max cpu.max 2>/dev/null || \
                  cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; \
                  node -p 'process.constrainedMemory()'";
    let mut body = stage.body(&["bash", "-c", script]);
    body.limits.cpu_quota_percent = Some(150);
    let limits = body.limits;
    let ran = stage.run(body).await;
    let own = format!("{} {} 150000 100000 {}", limits.memory_max, limits.pids, limits.memory_max);
    assert_eq!(ran.text().replace('\n', " "), own);
}

#[tokio::test]
async fn java_believes_in_its_limits() {
    let mut stage = Stage::new().await;
    if !std::path::Path::new("/usr/bin/java").exists() {
        not_shown("there is no Java");
        return;
    }
    let mut body = stage.body(&["java", "-XshowSettings:system", "-version"]);
    (body.limits.cpu_quota_percent, body.limits.memory_max) = (Some(100), 600 << 20);
    let ran = stage.run(body).await;
    let said = ran.text();
    let value =
        |key: &str| said.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or(&said).trim().to_owned();
    let found = ["Memory Limit:", "Effective CPU Count:", "CPU Quota:"].map(value);
    assert_eq!(found, ["600.00M", "1", "100000us"], "{said}");
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_gone_with_its_dyno() {
    let mut stage = Stage::new().await;
    let bomb = "echo up; bomb() { sleep 1000 & bomb; }; ulimit -s unlimited; while :; do sleep 1000 & done";
    let mut body = stage.body(&["bash", "-c", bomb]);
    body.limits.pids = 32;
    let id = stage.launch(body, Ready::Started, Io::Log);
    stage.logged("Resource temporarily unavailable").await;
    assert!(stage.processes(id).len() <= 32);
    stage.dynos().kill(id);
    stage.exit(id).await;
    assert!(stage.processes(id).is_empty());
}

#[tokio::test]
async fn the_writable_layer_is_bounded() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["sh", "-c", "exec 2>&1; head -c 20000000 /dev/zero > /app/big; stat -c %s /app/big"]);
    body.limits.disk = 8 << 20;
    let ran = stage.run(body).await;
    assert!(ran.text().contains(stage.full()), "{ran:?}");
    assert!(ran.output.last().unwrap().parse::<u64>().unwrap() <= 8 << 20);
    assert!(!stage.app_dir().join("big").exists());
}

#[tokio::test]
async fn what_is_written_to_the_disk_is_not_held_in_memory_and_gone_with_the_dyno() {
    let mut stage = Stage::new().await;
    if stage.way() == Way::Memory {
        not_shown("there is no way to keep writable layers on the disk");
        return;
    }
    // Well above the dyno's memory, and not more: where the disk is slow, writing waits for it.
    let script = "for n in 1 2 3 4; do head -c 16000000 /dev/zero > /tmp/$n && rm -f /app/last && cp /tmp/$n /app/last; \
                  done; ls /tmp | wc -l; df --output=size /app | tail -1; exec sleep 1000";
    let mut body = stage.body(&["sh", "-c", script]);
    (body.limits.memory_quota, body.limits.memory_max, body.limits.disk) = (32 << 20, 48 << 20, 256 << 20);
    let id = stage.launch(body, Ready::Started, Io::Log);
    eventually("it has looked", || stage.log().len() == 2).await;
    let said = stage.log();
    let numbers: Vec<u64> = said.iter().map(|frame| frame.line.trim().parse().unwrap()).collect();
    assert!(numbers[0] == 4 && (200 << 10..=256 << 10).contains(&numbers[1]), "{numbers:?}");
    assert_eq!(stage.scratch().len(), 1);
    stage.dynos().kill(id);
    stage.exit(id).await;
    eventually("it is gone", || stage.scratch().is_empty()).await;
}

#[tokio::test]
async fn a_damaged_empty_file_system_is_made_anew_and_what_can_not_be_on_the_disk_is_told() {
    let mut stage = Stage::new().await;
    if stage.way() != Way::Image {
        not_shown("writable layers are not kept in images");
        return;
    }
    let mut body = stage.body(&["sleep", "1000"]);
    body.limits.disk = 24 << 20;
    let template = stage.instance.root.join(format!("scratch/ext4-{}", body.limits.disk));
    for damage in ["", "no file system", "none"] {
        let id = stage.launch(body.clone(), Ready::Started, Io::Log);
        stage.started(id).await;
        assert_eq!(stage.scratch().len(), 1, "{damage}");
        stage.dynos().kill(id);
        stage.exit(id).await;
        assert!(!stage.seen.iter().any(|event| matches!(event.what, What::InMemory { .. })), "{damage}");
        std::fs::write(&template, damage).unwrap();
    }

    std::fs::remove_file(&template).unwrap();
    std::fs::create_dir(&template).unwrap();
    let id = stage.launch(body, Ready::Started, Io::Log);
    let told = stage.event(id, |what| matches!(what, What::InMemory { .. })).await;
    assert!(matches!(&told, What::InMemory { why } if why.contains("loop image")), "{told:?}");
    stage.started(id).await;
    assert!(stage.scratch().is_empty());
}

#[tokio::test]
async fn lower_directories_can_be_replaced_without_touching_the_slug() {
    let mut stage = Stage::new().await;
    let ran = stage
        .shell("rm -r lib && mkdir lib && ls lib && echo new > lib/other && mv lib moved && cat moved/other")
        .await;
    assert_eq!((ran.text().as_str(), ran.exit.code), ("new", 0));
    assert_eq!(std::fs::read_to_string(stage.app_dir().join("lib/file")).unwrap(), "of the slug");
}

#[tokio::test]
async fn the_log_has_lines_with_their_origin_and_long_ones_in_pieces() {
    let mut stage = Stage::new().await;
    let script = "echo one; head -c 10001 /dev/zero | tr '\\0' x; echo; printf last";
    let id = stage.launch(stage.body(&["sh", "-c", script]), Ready::Started, Io::Log);
    stage.exit(id).await;
    let log = stage.log();
    assert_eq!(log.iter().map(|frame| frame.line.len()).collect::<Vec<_>>(), [3, 10_000, 1, 4]);
    assert_eq!(log.iter().map(|frame| frame.origin.unwrap()).collect::<Vec<_>>(), [(id, 1), (id, 2), (id, 3), (id, 4)]);
    assert!(log.iter().all(|frame| frame.source == Source::App && frame.process == "web.1"));
}

#[tokio::test]
async fn its_processes_say_what_they_are() {
    let mut stage = Stage::new().await;
    let id = stage.launch(stage.body(&["sleep", "1000"]), Ready::Started, Io::Log);
    stage.started(id).await;
    let shown = |pid: i32| {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    };
    let stat = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = |pid: i32| stat(pid).rsplit_once(')').unwrap().1.split(' ').nth(2).unwrap().parse::<i32>().unwrap();
    let init = stage.processes(id)[0];
    let (shim, labels) = (parent(init), stage.labels(hokku::domain::dyno::Purpose::Run));
    assert_eq!(shown(init), format!("hokku-init {} of {}", labels.name, labels.app_name));
    assert_eq!(shown(shim), format!("hokku-shim {} of {}", labels.name, labels.app_name));
    assert_eq!(shown(parent(shim)), format!("hokku-launcher {}", stage.instance.name));
}

#[tokio::test]
async fn environment_is_passed_and_not_left_on_disk() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["sh", "-c", "echo $SECRET; sleep 1000"]);
    body.env.push(("SECRET".to_owned(), "s3cr3t-v4lue".to_owned()));
    let id = stage.launch(body, Ready::Started, Io::Log);
    stage.logged("s3cr3t-v4lue").await;
    for name in ["config.json", "labels.json"] {
        let text = std::fs::read_to_string(stage.instance.dyno_dir(id).join(name)).unwrap();
        assert!(!text.contains("s3cr3t-v4lue"), "{name}");
    }
    // The shim and the launcher have it in their memory at most.
    let mut pids = stage.processes(id);
    pids.retain(|pid| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&cmdline).contains("s3cr3t-v4lue")
    });
    assert!(pids.is_empty());
    stage.dynos().kill(id);
    stage.exit(id).await;
}

/// The client's side of an attached dyno.
struct Client {
    stream: DuplexStream,
}

impl Client {
    async fn send(&mut self, frame: Frame) {
        self.stream.write_all(&frame.encode()).await.unwrap();
    }

    /// Everything printed until the end or until `text` was, and the last frame.
    async fn read_until(&mut self, text: &str) -> (String, Option<Frame>) {
        let mut printed = String::new();
        loop {
            let frame = tokio::time::timeout(super::stage::PATIENCE, Frame::read(&mut self.stream));
            match frame.await.unwrap_or_else(|_| panic!("only {printed:?}")).unwrap() {
                Some(Frame::Stdout(bytes) | Frame::Stderr(bytes)) => printed += &String::from_utf8(bytes).unwrap(),
                other => return (printed, other),
            }
            if !text.is_empty() && printed.contains(text) {
                return (printed, None);
            }
        }
    }
}

fn attach(stage: &Stage, tty: Option<(u16, u16)>, command: &[&str]) -> (hokku::domain::dyno::DynoId, Client) {
    let (ours, theirs) = duplex(64 * 1024);
    let io = Io::Attach { tty, stream: Box::new(theirs) };
    (stage.launch(stage.body(command), Ready::Started, io), Client { stream: ours })
}

#[tokio::test]
async fn pipes_carry_input_output_and_status() {
    let mut stage = Stage::new().await;
    let (id, mut client) = attach(&stage, None, &["sh", "-c", "tr a-z A-Z; echo err >&2; exit 5"]);
    let big = "x".repeat(300_000);
    for piece in big.as_bytes().chunks(50_000) {
        client.send(Frame::Stdin(piece.to_vec())).await;
    }
    client.send(Frame::StdinEnd).await;
    let (printed, last) = client.read_until("").await;
    assert_eq!(last, Some(Frame::Exit(5)));
    // Which of the two is read first is anybody's guess.
    assert_eq!(printed.replace("err\n", ""), "X".repeat(300_000));
    assert!(printed.contains("err\n"));
    assert_eq!(stage.exit(id).await.code, 5);
    assert!(stage.log().is_empty());
}

#[tokio::test]
async fn a_terminal_has_a_size_and_ctrl_c() {
    let mut stage = Stage::new().await;
    let script =
        "tty; stty size; trap 'echo caught; exit 9' INT; trap 'stty size' WINCH; echo up; while :; do sleep 0.1; done";
    let (id, mut client) = attach(&stage, Some((120, 40)), &["bash", "-c", script]);
    let (printed, _) = client.read_until("up\r\n").await;
    assert_eq!(printed, "/dev/pts/0\r\n40 120\r\nup\r\n");
    client.send(Frame::Resize { columns: 99, rows: 11 }).await;
    client.read_until("11 99").await;
    client.send(Frame::Stdin(vec![3])).await;
    let (printed, last) = client.read_until("").await;
    assert!(printed.contains("caught"), "{printed}");
    assert_eq!(last, Some(Frame::Exit(9)));
    assert_eq!(stage.exit(id).await.code, 9);
}

#[tokio::test]
async fn a_client_that_goes_hangs_up() {
    let mut stage = Stage::new().await;
    let (id, mut client) =
        attach(&stage, None, &["sh", "-c", "trap 'exit 77' HUP; echo up; while :; do sleep 0.1; done"]);
    client.read_until("up").await;
    drop(client);
    assert_eq!(stage.exit(id).await.code, 77);
}

#[tokio::test]
async fn a_signal_frame_reaches_the_program() {
    let mut stage = Stage::new().await;
    let (id, mut client) =
        attach(&stage, None, &["sh", "-c", "trap 'echo usr1; exit 4' USR1; echo up; while :; do sleep 0.1; done"]);
    client.read_until("up").await;
    client.send(Frame::Signal(10)).await;
    let (printed, last) = client.read_until("").await;
    assert!(printed.contains("usr1"), "{printed}");
    assert_eq!(last, Some(Frame::Exit(4)));
    stage.exit(id).await;
}

#[tokio::test]
async fn dynos_resolve_names_they_are_given() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&[
        "sh",
        "-c",
        "getent hosts dyno-1 host.internal localhost; cat /etc/hostname; ls -l /etc/resolv.conf | cut -c1-10",
    ]);
    body.network = true;
    let ran = stage.run(body).await;
    let text = ran.text();
    assert!(text.contains("dyno-1") && text.contains(&stage.instance.gateway().to_string()), "{text}");
    assert_eq!(ran.output.last().unwrap(), "-rw-r--r--");
    eventually("the link is removed", || stage.traces().is_empty() || stage.traces().len() <= 2).await;
}

#[tokio::test]
async fn many_dynos_start_at_once_on_networks_made_ahead() {
    let mut stage = Stage::new().await;
    stage.stop_engine().await;
    stage.prepared = 3;
    stage.start_engine().await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        let mut body = stage.body(&[
            "sh",
            "-c",
            "cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' ' | sort | tr '\\n' ' '; hostname -i",
        ]);
        body.network = true;
        ids.push(stage.launch(body, Ready::Started, Io::Log));
    }
    for id in ids {
        assert_eq!(stage.exit(id).await.code, 0);
    }
    let mut lines: Vec<String> = stage.log().into_iter().map(|frame| frame.line).collect();
    assert!(lines.iter().all(|line| line.starts_with("eth0 lo 10.")), "{lines:?}");
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 12, "each has an address of its own");
    // Each with a link and a group.
    eventually("three are made ahead", || stage.traces().len() == 6).await;
}

#[tokio::test]
async fn an_attached_dyno_hangs_up_when_its_server_goes() {
    let mut stage = Stage::new().await;
    let (id, mut client) =
        attach(&stage, None, &["sh", "-c", "trap 'exit 77' HUP; echo up; while :; do sleep 0.1; done"]);
    client.read_until("up").await;
    stage.stop_engine().await;
    eventually("it ends", || stage.processes(id).is_empty()).await;
    stage.start_engine().await;
    let found = stage.found.iter().find(|found| found.id == id).unwrap().exit;
    let code = match found {
        Some(exit) => exit.code,
        None => stage.exit(id).await.code,
    };
    assert_eq!(code, 77);
}
