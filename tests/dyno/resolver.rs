//! Dynos resolve names where only the host itself can ask its name server.

use super::loopback_resolver::{ADDRESS, NAME, RESOLV_CONF, on_a_host_with_a_loopback_resolver};
use super::stage::Stage;
use std::fs;

#[test]
fn names_are_resolved_where_the_hosts_name_server_is_a_loopback_one() {
    on_a_host_with_a_loopback_resolver(|_| {
        runtime().block_on(async {
            let mut stage = Stage::new().await;
            assert_names_are_resolved(&mut stage).await;
            // The launcher, and with it the relay, outlives the engine.
            stage.stop_engine().await;
            stage.prepared = 2;
            stage.start_engine().await;
            assert_names_are_resolved(&mut stage).await;
        });
    });
}

#[test]
fn names_are_resolved_when_the_hosts_name_server_has_become_a_loopback_one() {
    on_a_host_with_a_loopback_resolver(|resolv_conf| {
        for before in ["nameserver 192.0.2.53\n", "nameserver 127.0.0.54\n"] {
            runtime().block_on(async {
                fs::write(resolv_conf, before).unwrap();
                let mut stage = Stage::new().await;
                assert_eq!(stage.shell("true").await.exit.code, 0);
                stage.stop_engine().await;
                fs::write(resolv_conf, RESOLV_CONF).unwrap();
                stage.start_engine().await;
                assert_names_are_resolved(&mut stage).await;
            });
        }
    });
}

/// Its threads are born where it is made.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn assert_names_are_resolved(stage: &mut Stage) {
    let script = format!(
        "cat /etc/resolv.conf; getent ahostsv4 {NAME} | head -1; getent ahostsv4 not.{NAME} || echo there is none"
    );
    // The C library asks by TCP when it is told to.
    for options in ["", "use-vc"] {
        let mut body = stage.body(&["sh", "-c", &script]);
        body.network = true;
        body.env.push(("RES_OPTIONS".to_owned(), options.to_owned()));
        let ran = stage.run(body).await;
        let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = ran.output.iter().map(words).collect();
        let gateway = stage.instance.gateway();
        let expected =
            [format!("nameserver {gateway}"), format!("{ADDRESS} STREAM {NAME}"), "there is none".to_owned()];
        assert_eq!(lines, expected, "{options}");
    }
}
