//! Logs.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, text, wait_for};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn logs_are_filtered_and_followed() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    hokku.ok(&["ps:scale", "worker=1", "-a", "shop"]);
    hokku.wait_for_log("shop", "worker at work");
    assert_eq!(hokku.get("shop", "/say/spoken").status, 200);
    hokku.wait_for_log("shop", "spoken");
    hokku.wait_for_log("shop", "path=\"/say/spoken\"");

    let all = heroku.ok(&["logs", "-n", "1500", "-a", "shop"]);
    assert_eq!(all.lines().collect::<Vec<_>>(), hokku.log("shop").lines().collect::<Vec<_>>());
    assert_eq!(heroku.ok(&["logs", "-n", "2", "-a", "shop"]).lines().count(), 2);
    let source = heroku.ok(&["logs", "--source", "heroku", "-a", "shop"]);
    assert!(source.lines().count() > 2 && source.lines().all(|line| line.contains(" heroku[")), "{source}");
    let dyno = heroku.ok(&["logs", "--dyno-name", "web.1", "-a", "shop"]);
    assert!(dyno.contains("app[web.1]: spoken") && dyno.lines().all(|line| line.contains("[web.1]: ")), "{dyno}");
    let kind = heroku.ok(&["logs", "--process-type", "worker", "-a", "shop"]);
    assert!(kind.contains("worker at work") && kind.lines().all(|line| line.contains("[worker.1]: ")), "{kind}");

    let mut tail = heroku.command(&["logs", "--tail", "-n", "1", "-a", "shop"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().is_some());
    hokku.get("shop", "/say/later");
    assert!(lines.any(|line| line.contains("app[web.1]: later")));
    tail.kill().unwrap();
    tail.wait().unwrap();

    let detached = heroku.done(&["run:detached", "-a", "shop", "--", "echo from afar"]);
    let name =
        detached.err.split(|c: char| c.is_whitespace()).find(|word| word.starts_with("run.")).unwrap().to_owned();
    hokku.wait_for_log("shop", "from afar");
    wait_for("the log by the dyno's name", || {
        let output = heroku.command(&["logs", "--dyno-name", &name, "-a", "shop"]).output().unwrap();
        text(&output.stdout).contains(&format!("app[{name}]: from afar")).then_some(())
    });
}
