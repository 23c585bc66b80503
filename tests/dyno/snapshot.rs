//! The configuration that a launch becomes.

use hokku::domain::app::AppId;
use hokku::domain::dyno::Purpose;
use hokku::domain::instance::Instance;
use hokku::domain::limits::DynoSize;
use hokku::dyno::{Body, Labels, Mount, Ready, shell, spec};
use std::time::Duration;
use uuid::Uuid;

#[test]
fn a_web_dyno_as_an_oci_configuration() {
    let instance = Instance::new("test".parse().unwrap(), "/r".into(), 3);
    let resolvers = ["192.0.2.53".parse().unwrap()];
    let place = spec::Place { instance: &instance, slot: 7, resolvers: &resolvers };
    let labels = Labels {
        app: AppId(Uuid::from_u128(1)),
        app_name: "example".to_owned(),
        name: "web.1".parse().unwrap(),
        purpose: Purpose::Formation,
        version: 5,
        epoch: 0,
        streak: 0,
        size: DynoSize::Basic,
        command: "node server.js".to_owned(),
        launched_at: "2026-11-22T17:02:45Z".parse().unwrap(),
        by: None,
    };
    let body = Body {
        layers: vec!["/r/trees/abc".into(), "/r/stacks/host/def".into()],
        binds: vec![Mount { source: "/usr".into(), target: "/usr".into(), read_only: true }],
        command: shell::shell_command("node server.js"),
        env: vec![("SECRET".to_owned(), "not to be seen".to_owned())],
        files: Vec::new(),
        limits: DynoSize::Basic.limits(),
        hostname: "web-1".to_owned(),
        network: true,
        time_limit: Some(Duration::from_secs(60)),
    };
    let ready = Ready::Port { port: 5000, within: Duration::from_secs(60) };
    let mut spec = spec::spec(&place, &labels, &body, ready);
    // The list of system calls has its own tests.
    let policy = spec.linux_mut().as_mut().unwrap().seccomp_mut().take().unwrap();
    assert!(policy.syscalls().as_ref().unwrap().len() > 5);
    insta::assert_snapshot!(spec::to_json(&spec));
}
