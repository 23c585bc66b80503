//! Whatever an app may connect to holds for its dynos from their first instruction on.

use super::outside::Outside;
use super::stage::Stage;
use hokku::domain::dyno::Purpose;
use hokku::domain::egress::Egress;
use hokku::dyno::{Io, Launch, Ready};
use std::net::SocketAddr;

/// Launches as many dynos at once that first of all connect, and counts those that get through.
async fn through(stage: &mut Stage, outside: &Outside, purpose: Purpose, count: usize) -> usize {
    let to: SocketAddr = (outside.address, Outside::PORT).into();
    let mut lines = Vec::new();
    for _ in 0..count {
        let mut body = stage.body(&["/app/probe", &format!("connect={to}")]);
        body.network = true;
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let (id, labels) = (hokku::domain::dyno::DynoId(uuid::Uuid::now_v7()), stage.labels(purpose));
        stage.dynos().launch(Launch { id, labels, body, ready: Ready::Started, io: Io::Lines(sender) });
        lines.push((id, receiver));
    }
    let mut through = 0;
    for (id, mut receiver) in lines {
        assert_eq!(stage.exit(id).await.code, 0);
        let line = String::from_utf8(receiver.try_recv().unwrap()).unwrap();
        through += usize::from(line.ends_with(": yes"));
    }
    through
}

#[tokio::test]
async fn a_restriction_holds_from_the_first_instruction_on() {
    let outside = Outside::new();
    let mut stage = Stage::new().await;
    stage.stop_engine().await;
    stage.prepared = 2;
    stage.start_engine().await;
    for egress in ["internet", "none", "tcp/443", "internet"] {
        let egress: Egress = egress.parse().unwrap();
        stage.dynos().set_egress(stage.app, egress.clone()).await.unwrap();
        let all = if egress == Egress::Internet { 8 } else { 0 };
        assert_eq!(through(&mut stage, &outside, Purpose::Formation, 8).await, all, "{egress}");
        assert_eq!(through(&mut stage, &outside, Purpose::Run, 1).await, all / 8, "{egress}");
        assert_eq!(through(&mut stage, &outside, Purpose::Build, 1).await, 1, "{egress}: builds have the Internet");
    }
}

#[tokio::test]
async fn a_dyno_has_ipv6_when_its_host_has_a_way_out_by_it() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["sh", "-c", "cat /proc/net/if_inet6; cat /proc/net/ipv6_route"]);
    body.network = true;
    let text = stage.run(body).await.text();
    let eth0 = text.lines().any(|line| line.starts_with("fd686f6b6b75") && line.ends_with("eth0"));
    assert_eq!(eth0, hokku::dyno::network::leads_out_by_ipv6(), "{text}");
    assert!(!text.contains("fe80"), "there is no other way to its neighbours: {text}");
}

#[tokio::test]
async fn nothing_is_launched_that_can_not_be_restricted() {
    let mut stage = Stage::new().await;
    stage.dynos().set_egress(stage.app, Egress::None).await.unwrap();
    // As if nft had been removed: others hold the table. Ours may be back between the two orders, so more than once.
    let table = stage.instance.nft_table();
    let mut owner = std::process::Command::new("nft");
    owner.arg("-i").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut owner = owner.stderr(std::process::Stdio::null()).spawn().unwrap();
    let order = format!("delete table inet {table}\nadd table inet {table} {{ flags owner; }}\n");
    let mut body = stage.body(&["true"]);
    body.network = true;
    super::stage::eventually("a launch is refused", || {
        std::io::Write::write_all(owner.stdin.as_mut().unwrap(), order.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let listed = std::process::Command::new("nft").args(["list", "table", "inet", &table]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).contains("flags owner")
    })
    .await;
    let id = stage.launch(body.clone(), Ready::Started, Io::Log);
    let failed = stage.event(id, |what| matches!(what, hokku::dyno::What::Failed { .. })).await;
    let hokku::dyno::What::Failed { step, message } = failed else { unreachable!() };
    assert!(step == "restrict the network" && message.contains("nft refused"), "{step}: {message}");
    drop(owner.stdin.take());
    owner.wait().unwrap();
    assert_eq!(stage.run(body).await.exit.code, 0, "and goes on when it can");
}
