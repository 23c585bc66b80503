//! Where an app may connect to, from its dynos, its one-off dynos and its release phase, and through everything that
//! happens to the server and to the rules.

use crate::hokku::{Hokku, wait_for};
use crate::outside::Outside;
use std::process::Command;

impl Hokku {
    /// What becomes of a connection from the app to there.
    fn connects(&self, app: &str, outside: &Outside) -> bool {
        let answer = self.get(app, &format!("/connect/{}/{}", outside.address, Outside::PORT));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body == "connected"
    }

    fn table(&self) -> String {
        let name = self.run_dir().file_name().unwrap().to_str().unwrap().replace('-', "_");
        format!("hokku_{name}")
    }
}

/// For `hokku run`: prints whether it could connect.
fn script(outside: &Outside) -> String {
    format!(
        "timeout 2 bash -c 'exec 3<>/dev/tcp/{}/{}' && echo through || echo refused",
        outside.address,
        Outside::PORT
    )
}

#[test]
fn an_app_connects_to_what_it_may_and_to_nothing_else() {
    let outside = Outside::new();
    let mut hokku = Hokku::start();
    let repository = hokku.serving("bound");
    let _free = hokku.serving("free");
    assert_eq!(hokku.ok(&["egress", "-a", "bound"]), "=== bound Egress\n\ninternet\n");
    assert!(hokku.connects("bound", &outside));

    hokku.ok(&["egress:set", "none", "-a", "bound"]);
    assert!(!hokku.connects("bound", &outside), "at once, and the dyno still answers");
    assert!(hokku.connects("free", &outside));
    assert_eq!(hokku.ok(&["run", "-a", "bound", "--", &script(&outside)]).trim(), "refused");
    assert_eq!(hokku.ok(&["run", "-a", "free", "--", &script(&outside)]).trim(), "through");

    // A new server, and dynos that it starts.
    hokku.kill_server();
    assert!(!hokku.connects("bound", &outside), "without a server");
    hokku.start_server();
    assert!(!hokku.connects("bound", &outside));
    let before = hokku.dynos("bound")[0]["id"].clone();
    hokku.ok(&["ps:restart", "-a", "bound"]);
    wait_for("a new dyno", || {
        let now = hokku.dynos("bound");
        (now.len() == 1 && now[0]["id"] != before && now[0]["state"] == "up").then_some(())
    });
    assert!(!hokku.connects("bound", &outside));

    // The release phase is bound too; the build is not: it fetches what the app depends on.
    repository.write("Procfile", &format!("web: node server.js\nrelease: {}\n", script(&outside)));
    std::fs::create_dir_all(repository.path().join("bin")).unwrap();
    let compile = format!("#!/bin/bash\necho \"       the build went $({})\"\n", script(&outside));
    let detect = "#!/bin/bash\necho Inline\n";
    for (name, text) in [("detect", detect), ("compile", &compile), ("release", "#!/bin/bash\necho '--- {}'\n")] {
        let path = format!("bin/{name}");
        repository.write(&path, text);
        std::fs::set_permissions(repository.path().join(path), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    repository.commit("with a release phase");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("the build went through"), "{output}");
    hokku.wait_for_log("bound", "]: refused");

    hokku.ok(&["egress:set", &format!("{}:{}", outside.address, Outside::PORT), "-a", "bound"]);
    assert!(hokku.connects("bound", &outside));
    hokku.ok(&["egress:set", "tcp/443", "-a", "bound"]);
    assert!(!hokku.connects("bound", &outside));
    let message = hokku.fails(&["egress:set", "example.com", "-a", "bound"]);
    assert!(message.contains("is a name"), "{message}");
    assert_eq!(hokku.json(&["egress", "--json", "-a", "bound"])["allow"], serde_json::json!(["tcp/443"]), "kept");
}

#[test]
fn rules_that_others_remove_come_back_within_seconds() {
    let outside = Outside::new();
    let hokku = Hokku::start();
    let _bound = hokku.serving("bound");
    let _free = hokku.serving("free");
    hokku.ok(&["egress:set", "none", "-a", "bound"]);
    // What `flush ruleset` does to it; that would hit others on this machine too.
    assert!(Command::new("nft").args(["delete", "table", "inet", &hokku.table()]).status().unwrap().success());
    wait_for("the way out", || hokku.connects("free", &outside).then_some(()));
    assert!(!hokku.connects("bound", &outside));
    wait_for("the log to tell", || hokku.server_log().contains("firewall rules; they are back").then_some(()));
}
