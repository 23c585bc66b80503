//! Rounds: something is begun, somebody dies meanwhile, and afterwards all is as it has to be.
//!
//! `HOKKU_SEED=N HOKKU_ROUNDS=N` say which rounds; the seed is printed. What is begun, who dies and after how long is
//! decided by it; what that meets is the machine's business, so a round may have to be run more than once to be met again.

use crate::chance::Chance;
use crate::hokku::{Hokku, Repository, text};
use crate::ledger::Ledger;
use crate::machine::{Machine, Role, Seen};
use crate::requests::Requests;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// How long a round may take to be over, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Push,
    Deploy,
    Scale,
    Config,
    Rollback,
    Restart,
    Stop,
    Collect,
    Detached,
}

const OPERATIONS: [Operation; 10] = [
    Operation::Push,
    Operation::Push,
    Operation::Deploy,
    Operation::Scale,
    Operation::Config,
    Operation::Rollback,
    Operation::Restart,
    Operation::Stop,
    Operation::Collect,
    Operation::Detached,
];

impl Operation {
    /// Within how many milliseconds somebody dies.
    fn lasts(self) -> u64 {
        match self {
            Self::Push | Self::Deploy => 3000,
            Self::Collect | Self::Scale | Self::Stop => 500,
            Self::Config | Self::Rollback | Self::Restart | Self::Detached => 1200,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Server,
    Router,
    Launcher,
    Shim,
    WaitingShim,
    Init,
}

const VICTIMS: [Victim; 8] = [
    Victim::Server,
    Victim::Server,
    Victim::Router,
    Victim::Launcher,
    Victim::Shim,
    Victim::WaitingShim,
    Victim::Init,
    Victim::Init,
];

struct App {
    name: &'static str,
    repository: Repository,
    ledger: Ledger,
}

/// What is begun in a round.
struct Begun {
    operation: Operation,
    app: usize,
    /// What a new release's description has to have in it.
    released: Option<String>,
    command: Command,
}

struct Rounds {
    /// The command that does the same.
    again: String,
    hokku: Hokku,
    machine: Machine,
    apps: Vec<App>,
    chance: Chance,
    round: u64,
    requests: Requests,
    /// The launches of which a process was killed, ever.
    hurt: BTreeSet<String>,
}

/// What a round has done to whom.
#[derive(Default)]
struct Done {
    victims: Vec<Victim>,
    /// Dynos of which a process was killed.
    hurt: BTreeSet<String>,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn play(rounds: u64) {
    let seed = number("HOKKU_SEED").unwrap_or_else(|| {
        u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
    });
    let rounds = number("HOKKU_ROUNDS").unwrap_or(rounds);
    let again = format!("HOKKU_SEED={seed} HOKKU_ROUNDS={rounds} cargo test --test faults -- thirty");
    eprintln!("{rounds} rounds of seed {seed}: {again}");
    let mut all = Rounds::new(seed);
    all.again = again;
    for _ in 0..rounds {
        all.play();
    }
}

#[test]
fn thirty_rounds_in_which_somebody_dies_lose_nothing_and_leave_nothing() {
    play(30);
}

#[test]
#[ignore = "takes half an hour; scripts/test --all runs it"]
fn three_hundred_rounds_in_which_somebody_dies_lose_nothing_and_leave_nothing() {
    play(300);
}

impl Rounds {
    fn new(seed: u64) -> Self {
        let hokku = Hokku::start();
        let machine = Machine::new(hokku.root(), &hokku.run_dir());
        let apps =
            [("fault-a", "web=1 worker=1"), ("fault-b", "web=2"), ("fault-c", "web=1")].map(|(name, formation)| {
                let repository = hokku.app(name, "counter");
                hokku.ok(&["labs:enable", "runtime-dyno-metadata", "-a", name]);
                let instance = hokku.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
                hokku.ok(&["config:set", &format!("INSTANCE={instance}"), "-a", name]);
                hokku.push(&repository).expect_success();
                let scale: Vec<&str> = ["ps:scale", "-a", name].into_iter().chain(formation.split(' ')).collect();
                hokku.ok(&scale);
                let id = hokku.json(&["info", "-a", name, "--json"])["app"]["id"].as_str().unwrap().to_owned();
                App { name, repository, ledger: Ledger::new(hokku.root().join("logs").join(id)) }
            });
        let requests = Requests::start(hokku.router, apps.iter().map(|app| app.name).collect());
        let again = String::new();
        let mut rounds = Self {
            again,
            hokku,
            machine,
            apps: apps.into(),
            chance: Chance::new(seed),
            round: 0,
            requests,
            hurt: BTreeSet::new(),
        };
        rounds.settle("the beginning", &Done::default(), &[]);
        rounds
    }

    fn play(&mut self) {
        self.round += 1;
        let begun = Instant::now();
        for app in &mut self.apps {
            app.ledger.forget_lines();
        }
        let before = self.releases();
        let ids = self.machine.look().records;
        self.requests.forget();

        let operation = *self.chance.one_of(&OPERATIONS);
        let app = usize::try_from(self.chance.below(3)).unwrap();
        let mut doing = self.begin(operation, app);
        let moment = Duration::from_millis(self.chance.below(operation.lasts()));
        let mut victims = vec![*self.chance.one_of(&VICTIMS)];
        if self.chance.below(4) == 0 {
            victims.push(*self.chance.one_of(&VICTIMS));
        }
        let title = format!(
            "round {}: {operation:?} of {}, after {} ms {victims:?}",
            self.round,
            self.apps[app].name,
            moment.as_millis()
        );
        let child = doing.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let outcome = std::thread::spawn(move || ended_within(child, PATIENCE));
        std::thread::sleep(moment);
        let mut done = Done::default();
        for victim in victims {
            self.strike(victim, &mut done);
            std::thread::sleep(Duration::from_millis(self.chance.below(300)));
        }
        if done.victims.contains(&Victim::Server) {
            self.hokku.start_server();
        }
        let outcome = outcome.join().unwrap().unwrap_or_else(|| panic!("{title}: the command did not end"));

        self.settle(&title, &done, &before);
        self.check(&title, &doing, &outcome, &before, &done);
        let calm = matches!(operation, Operation::Collect | Operation::Detached) && done.hurt.is_empty();
        if calm && !done.victims.iter().any(|victim| matches!(victim, Victim::Shim | Victim::Init)) {
            assert_eq!(self.machine.look().records, ids, "{title}: a dyno was restarted");
        }
        eprintln!("{title}: {} in {:.1} s", outcome.status, begun.elapsed().as_secs_f64());
    }

    fn begin(&mut self, operation: Operation, index: usize) -> Begun {
        let app = &self.apps[index];
        let word = format!("round-{}", self.round);
        let on_app = |args: &[&str]| self.hokku.command(&[args, &["-a", app.name]].concat());
        let (released, command) = match operation {
            Operation::Push => {
                app.repository.write("version", &word).commit(&word);
                let commit = app.repository.run(&["rev-parse", "HEAD"]);
                // What an earlier push has not brought comes along.
                (Some(format!("Deploy {}", &commit[..8])), self.hokku.git_push(&app.repository, "main"))
            }
            Operation::Deploy => {
                app.repository.write("version", &word).commit(&word);
                let mut command = on_app(&["deploy", "--version", &word]);
                command.current_dir(app.repository.path());
                (Some(format!("Deploy {word}")), command)
            }
            Operation::Scale => {
                let web = format!("web={}", 1 + self.chance.below(2));
                let worker = format!("worker={}", self.chance.below(3));
                (None, self.hokku.command(&["ps:scale", &web, &worker, "-a", app.name]))
            }
            Operation::Config => (Some("ROUND".to_owned()), on_app(&["config:set", &format!("ROUND={word}")])),
            Operation::Rollback => (Some("Rollback".to_owned()), on_app(&["rollback"])),
            Operation::Restart => (None, on_app(&["ps:restart"])),
            Operation::Stop => (None, on_app(&["ps:stop", "web.1"])),
            Operation::Collect => {
                self.age_trees();
                (None, self.hokku.command(&["disk:collect"]))
            }
            Operation::Detached => {
                let line = format!("echo {word}; sleep 0.3; exit {}", self.status());
                (None, self.hokku.command(&["run:detached", "-a", app.name, "--", &line]))
            }
        };
        Begun { operation, app: index, released, command }
    }

    /// Of the round's one-off dyno.
    fn status(&self) -> u64 {
        self.round % 100 + 1
    }

    /// Nobody has used them lately, so that they are collected.
    fn age_trees(&self) {
        let ago = SystemTime::now() - Duration::from_secs(120);
        for tree in fs::read_dir(self.hokku.root().join("trees")).unwrap() {
            File::open(tree.unwrap().path()).unwrap().set_modified(ago).unwrap();
        }
    }

    fn strike(&mut self, victim: Victim, done: &mut Done) {
        let role = match victim {
            Victim::Server if done.victims.contains(&Victim::Server) => return,
            Victim::Server => {
                self.hokku.kill_server();
                return done.victims.push(victim);
            }
            Victim::Router => Role::Router,
            Victim::Launcher => Role::Launcher,
            Victim::Shim => Role::Shim,
            Victim::WaitingShim => Role::WaitingShim,
            Victim::Init => Role::Init,
        };
        let mut candidates = self.machine.of(role);
        if matches!(victim, Victim::Shim | Victim::Init) {
            // One that was killed often waits long before it is started again.
            candidates.sort_by_key(|pid| (streak(*pid), *pid));
            candidates.truncate(1 + candidates.len() / 2);
        }
        // Nobody of that kind may be there at the moment.
        if candidates.is_empty() {
            return;
        }
        let pid = *self.chance.one_of(&candidates);
        done.hurt.extend(dyno_of(pid));
        self.hurt.extend(record_of(pid).and_then(|record| Some(record.file_name()?.to_str()?.to_owned())));
        // It may end just now by itself.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        done.victims.push(victim);
    }

    /// Waits until everything is as it has to be.
    fn settle(&mut self, title: &str, done: &Done, before: &[(String, u32, String, String)]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let (wrong, seen) = self.wrong();
            if wrong.is_empty() {
                break;
            }
            if Instant::now() > until {
                let logs: Vec<String> = self.apps.iter().map(|app| self.hokku.log(app.name)).collect();
                let tails: Vec<&str> = logs
                    .iter()
                    .flat_map(|log| {
                        log.lines().filter(|line| !line.contains("]: count ") && !line.contains("heroku[router]"))
                    })
                    .collect();
                let from = tails.len().saturating_sub(60);
                panic!(
                    "{title}, killed {:?} {:?}: {wrong:#?}\n{seen:#?}\n{}",
                    done.victims,
                    done.hurt,
                    tails[from..].join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // What was there before is there still.
        let now: BTreeSet<_> =
            self.releases().into_iter().map(|(app, version, _, text)| (app, version, text)).collect();
        for (app, version, _, text) in before {
            assert!(now.contains(&(app.clone(), *version, text.clone())), "{title}: v{version} of {app} is gone");
        }
    }

    /// What is not as it has to be, yet or ever, and what was seen.
    fn wrong(&mut self) -> (Vec<String>, Option<Seen>) {
        let mut wrong = Vec::new();
        // Once it is broken, no waiting mends it.
        for app in &mut self.apps {
            let broken = app.ledger.read();
            assert!(
                broken.is_empty(),
                "round {}, the log of {}: {broken:#?}\n{}",
                self.round,
                app.name,
                self.hokku.server_log()
            );
        }
        let wanted = match self.wanted() {
            Ok(wanted) => wanted,
            Err(error) => return (vec![error], None),
        };
        let mut shown = BTreeSet::new();
        for app in &self.apps {
            let output = self.hokku.cli(&["ps", "--json", "-a", app.name]);
            if !output.status.success() {
                return (vec![text(&output.stderr)], None);
            }
            let dynos: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            for dyno in dynos.as_array().unwrap() {
                let word = |key: &str| dyno[key].as_str().unwrap().to_owned();
                if word("state") != "up" {
                    wrong.push(format!("{} of {} is {}", word("name"), app.name, word("state")));
                }
                shown.insert((
                    app.name.to_owned(),
                    word("name"),
                    format!("v{}", dyno["release"]["version"]),
                    word("id"),
                ));
            }
        }
        let seen = self.machine.look();
        let real: Vec<_> = seen
            .programs
            .iter()
            .map(|it| (it.app.clone(), it.dyno.clone(), it.version.clone(), it.id.clone()))
            .collect();
        if real != shown.iter().cloned().collect::<Vec<_>>() {
            wrong.push(format!("there are {real:?}, and shown are {shown:?}"));
        }
        let named: Vec<_> =
            real.iter().map(|(app, dyno, version, _)| (app.clone(), dyno.clone(), version.clone())).collect();
        if named != wanted {
            wrong.push(format!("there are {named:?}, and wanted are {wanted:?}"));
        }
        wrong.extend(seen.wrong(wanted.len()));
        wrong.extend(self.trees(&seen));
        for app in &self.apps {
            let ended =
                app.ledger.without_an_end().filter(|(id, _)| !seen.records.contains(*id) && !self.hurt.contains(*id));
            wrong.extend(ended.map(|(id, count)| format!("{id} of {} said nothing after {count}", app.name)));
        }
        self.answers(&seen, &mut wrong);
        (wrong, Some(seen))
    }

    /// Each web dyno answers, and what it has printed by then is in the log.
    fn answers(&mut self, seen: &Seen, wrong: &mut Vec<String>) {
        for index in 0..self.apps.len() {
            let name = self.apps[index].name;
            match self.hokku.try_get(name, "/") {
                Ok(answer) if answer.status == 200 => {
                    let words: Vec<&str> = answer.body.split_whitespace().collect();
                    let [_, id, count] = words[..] else { panic!("{name} said {:?}", answer.body) };
                    if !seen.records.contains(id) {
                        wrong.push(format!("{id} of {name} answers, and has no record"));
                    }
                    let (count, ledger) = (count.parse().unwrap(), &mut self.apps[index].ledger);
                    let broken = ledger.read();
                    assert!(broken.is_empty(), "the log of {name}: {broken:#?}");
                    if ledger.counted(id) < count {
                        wrong.push(format!("{id} of {name} has counted to {count}, its log to {}", ledger.counted(id)));
                    }
                }
                Ok(answer) => wrong.push(format!("{name} answers {}", answer.status)),
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
        }
    }

    /// Unpacked slugs that belong to none.
    fn trees(&self, seen: &Seen) -> Vec<String> {
        let Ok(database) = self.database() else { return vec!["no database".to_owned()] };
        let mut digests = database.prepare("SELECT DISTINCT digest FROM slugs").unwrap();
        let digests: BTreeSet<String> = digests.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        seen.trees.difference(&digests).map(|tree| format!("the tree {tree} is of no slug")).collect()
    }

    fn database(&self) -> rusqlite::Result<Connection> {
        let database =
            Connection::open_with_flags(self.hokku.root().join("db.sqlite"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.busy_timeout(Duration::from_secs(5))?;
        Ok(database)
    }

    /// App, dyno and version of all that has to run, in order; or what keeps that from being known.
    fn wanted(&self) -> Result<Vec<(String, String, String)>, String> {
        let database = self.database().map_err(|error| error.to_string())?;
        let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let strangers = database.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap();
        assert!(!strangers, "the database has references to nothing");
        for table in ["releases", "builds"] {
            let pending: u32 = database
                .query_row(&format!("SELECT count(*) FROM {table} WHERE status = 'pending'"), [], |row| row.get(0))
                .unwrap();
            if pending > 0 {
                return Err(format!("{pending} of the {table} are not decided"));
            }
        }
        let mut wanted = Vec::new();
        let mut rows = database
            .prepare(
                "SELECT apps.name, formations.type, formations.quantity,
                   (SELECT max(version) FROM releases WHERE app_id = apps.id AND status = 'succeeded')
                 FROM apps JOIN formations ON formations.app_id = apps.id",
            )
            .unwrap();
        let rows = rows.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?, row.get::<_, u32>(3)?))
        });
        for row in rows.unwrap() {
            let (app, kind, quantity, version) = row.unwrap();
            wanted.extend((1..=quantity).map(|at| (app.clone(), format!("{kind}.{at}"), format!("v{version}"))));
        }
        wanted.sort();
        Ok(wanted)
    }

    /// App, version, status and description of each release.
    fn releases(&self) -> Vec<(String, u32, String, String)> {
        let database = self.database().unwrap();
        let mut rows = database
            .prepare(
                "SELECT name, version, status, description FROM releases JOIN apps ON apps.id = app_id
                 ORDER BY name, version",
            )
            .unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        rows.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    /// What was answered has happened.
    fn check(
        &self,
        title: &str,
        begun: &Begun,
        outcome: &Output,
        before: &[(String, u32, String, String)],
        done: &Done,
    ) {
        let app = &self.apps[begun.app];
        let said = format!("{}{}", text(&outcome.stdout), text(&outcome.stderr));
        if let Some(released) = begun.released.as_ref().filter(|_| outcome.status.success()) {
            let after = self.releases();
            let new = after.iter().filter(|release| !before.contains(release) && release.0 == app.name);
            let new: Vec<_> = new.collect();
            assert!(new.iter().any(|release| release.3.contains(released)), "{title}: {said}\n{new:?}");
        }
        if begun.operation == Operation::Detached {
            self.check_detached(title, app, outcome, &said, done);
        }
        let harmless =
            done.victims.iter().all(|victim| matches!(victim, Victim::Server | Victim::Launcher | Victim::WaitingShim));
        if harmless && begun.operation != Operation::Stop {
            let failures = self.requests.failures();
            assert!(failures.is_empty(), "{title}: requests failed: {failures:?}");
        }
    }

    /// One that was accepted has printed its line once and ended once; another one not more than that.
    fn check_detached(&self, title: &str, app: &App, outcome: &Output, said: &str, done: &Done) {
        let word = format!("round-{}", self.round);
        let printed: Vec<_> = app.ledger.printed.iter().filter(|(_, line)| *line == word).collect();
        let exits: Vec<_> = app
            .ledger
            .platform
            .iter()
            .filter(|(process, line)| process.starts_with("run.") && line.starts_with("Process exited"))
            .collect();
        let whole =
            exits.iter().filter(|(_, line)| *line == format!("Process exited with status {}", self.status())).count();
        let seen = format!("{title}: {said}\n{printed:?}\n{exits:?}\n{:?}", app.ledger.platform);
        assert!(printed.len() <= 1 && exits.len() <= 1, "{seen}");
        let hurt = done.hurt.iter().any(|dyno| dyno.starts_with("run."));
        if outcome.status.success() {
            assert_eq!(exits.len(), 1, "no exit status: {seen}");
            if !hurt {
                assert_eq!((printed.len(), whole), (1, 1), "{seen}");
            }
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("It was round {}. Again: {}", self.round, self.again);
        }
    }
}

/// The directory of the dyno whose shim or init it is, if it has one.
fn record_of(pid: i32) -> Option<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let ring = maps.lines().find_map(|line| Some(format!("/run/{}", line.split_once("/run/")?.1)))?;
    ring.strip_suffix("/log.ring").map(PathBuf::from)
}

/// How often that dyno has crashed in a row.
fn streak(pid: i32) -> u64 {
    let labels = record_of(pid).and_then(|record| fs::read_to_string(record.join("labels.json")).ok());
    let labels = labels.and_then(|labels| serde_json::from_str::<serde_json::Value>(&labels).ok());
    labels.and_then(|labels| labels["streak"].as_u64()).unwrap_or(0)
}

/// `web.1`, of a shim or an init that has a dyno.
fn dyno_of(pid: i32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let line = line.replace('\0', " ");
    let rest = line.strip_prefix("hokku-shim ").or_else(|| line.strip_prefix("hokku-init "))?;
    rest.split(' ').next().map(str::to_owned)
}

fn ended_within(mut child: Child, within: Duration) -> Option<Output> {
    // Both are read, or it would wait for us.
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdout = std::thread::spawn(move || read_all(&mut out));
    let stderr = std::thread::spawn(move || read_all(&mut err));
    let until = Instant::now() + within;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn read_all(from: &mut impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}
