//! What a dyno reaches beside it: the host's network and sockets, other dynos' ports. `tests/network.rs` has more,
//! between namespaces that stand for hosts.

use super::{as_host_root, bind, leave_out, open_place};
use crate::stage::Stage;
use hokku::dyno::{Io, Ready, What};
use serde_json::Value;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

#[tokio::test]
async fn what_listens_on_the_host_only_is_out_of_reach() {
    let stage = Stage::new().await;
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let attack = format!("connect={}", service.local_addr().unwrap());
    stage.defended(&attack, "refused", |config| leave_out(config, "network")).await;
}

#[tokio::test]
async fn it_can_not_speak_under_an_address_that_is_not_its_own() {
    let stage = Stage::new().await;
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    // In the host's own network, so that only the rights decide. Last as a name server would: its port is taken from a
    // dyno even before its address is.
    let connected = |config: &mut Value| leave_out(config, "network");
    // Older kernels say that the argument is invalid, newer ones that the network is unreachable.
    for (from, error) in [("192.0.2.53:5353", ""), ("192.0.2.53:53", "Permission denied")] {
        stage.defended_as(connected, &format!("speak-as={from}-{to}"), error, as_host_root).await;
    }
}

#[tokio::test]
async fn sockets_of_the_host_are_out_of_reach() {
    use std::os::linux::net::SocketAddrExt;
    let stage = Stage::new().await;
    let place = open_place();
    let path = place.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let attack = format!("unix={}", path.display());
    stage.defended(&attack, "No such file", |config| bind(config, place.path().to_str().unwrap())).await;

    let name = format!("hokku-walls-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    stage.defended(&format!("abstract={name}"), "refused", |config| leave_out(config, "network")).await;
}

#[tokio::test]
async fn another_dynos_port_is_out_of_reach() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["python3", "-u", "-m", "http.server", "5000"]);
    body.network = true;
    let id = stage.launch(body, Ready::Port { port: 5000, within: Duration::from_secs(50) }, Io::Log);
    let ready = stage.event(id, |what| matches!(what, What::Ready { .. })).await;
    let What::Ready { addr: Some(addr) } = ready else { unreachable!() };
    // Nobody puts back the rules that are taken away below.
    stage.stop_engine().await;
    let connect = format!("connect={addr}");
    let mut body = stage.body(&["/app/probe", &connect]);
    body.network = true;
    let config = stage.config(&body);
    let connect = connect.replace(':', ";");
    assert!(stage.ask(&config).await[&connect].starts_with("no, "));
    for chain in ["from_dyno", "to_dyno"] {
        let table = stage.instance.nft_table();
        let flushed = Command::new("nft").args(["flush", "chain", "inet", &table, chain]).status();
        assert!(flushed.unwrap().success());
    }
    assert_eq!(stage.ask(&config).await[&connect], "yes", "without the rules");
}
