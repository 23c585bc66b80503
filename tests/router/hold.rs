//! Requests that are held while an app's only dyno is replaced.
#![forbid(unsafe_code)]

use crate::rig::{Client, GET, Rig, app, brisk, dyno, dynos, get, header, until};
use hokku::domain::route::Target;
use hokku::router::Settings;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Semaphore;

const POST: &str = "POST /in HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
const CROWD: usize = 60;
const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client that has said `text` to a router that holds it; nothing tells when it has heard it.
async fn held(rig: &Rig, text: &str) -> Client {
    let mut client = Client::to(rig.address).await;
    client.say(text).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client
}

/// An application for everything that can be held.
async fn versatile() -> SocketAddr {
    dyno(|mut connection| async move {
        while let Some(head) = connection.head().await {
            if header(&head, "upgrade").is_some() {
                let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                connection.say(accept).await;
                let line = connection.through("\n").await.unwrap();
                connection.say(line).await;
                return;
            }
            let (body, _) = connection.body(&head).await;
            connection.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await
}

fn milliseconds(line: &str, key: &str) -> u64 {
    let value = line.split(&format!(" {key}=")).nth(1).unwrap().split("ms").next().unwrap();
    value.parse().unwrap()
}

#[tokio::test]
async fn every_kind_of_request_is_held_until_the_next_dyno_accepts() {
    let mut rig = Rig::serving(app("old").await).await;
    assert!(rig.ask(GET).await.body.starts_with("old"));
    assert!(milliseconds(&rig.line().await, "connect") < 200, "nothing was held");
    rig.route(Target::Held).await;
    let mut get = held(&rig, GET).await;
    let mut post = held(&rig, POST).await;
    let mut websocket = held(&rig, WEBSOCKET).await;
    assert!(rig.lines.try_recv().is_err(), "none is answered");
    rig.route(dynos(&[versatile().await])).await;
    assert_eq!(get.reply().await.status(), 200);
    assert_eq!(post.reply().await.body, "hello");
    assert!(websocket.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    websocket.say("echo\n").await;
    assert_eq!(websocket.through("\n").await.unwrap(), "echo\n");
    drop(websocket);
    let mut lines = HashSet::new();
    for _ in 0..4 {
        lines.insert(rig.line().await);
    }
    let hold = lines.iter().find(|line| line.starts_with("at=info desc=\"Requests held\" count=3 held=")).unwrap();
    let total = milliseconds(hold, "held");
    for line in lines.iter().filter(|line| *line != hold) {
        let waited = milliseconds(line, "connect");
        assert!((1..=total).contains(&waited), "what it waited for counts as connecting: {line}");
    }
    rig.end().await;
}

#[tokio::test]
async fn the_hold_is_bounded_in_age() {
    let mut rig = Rig::with(brisk()).await;
    rig.route(Target::Held).await;
    assert_eq!(rig.ask(GET).await.header("x-hokku-error"), Some("H20"));
    assert!(rig.line().await.starts_with("at=error code=H20 desc=\"App boot timeout\""));
    // The one that could not wait is counted too.
    rig.route(dynos(&[app("one").await])).await;
    assert!(rig.line().await.starts_with("at=info desc=\"Requests held\" count=1 "));
    rig.end().await;
}

#[tokio::test]
async fn the_hold_is_bounded_in_number_and_who_leaves_makes_room() {
    let mut rig = Rig::with(Settings { held_per_app: 2, ..Settings::default() }).await;
    rig.route(Target::Held).await;
    let mut first = held(&rig, &get("/first")).await;
    let second = held(&rig, &get("/second")).await;
    assert_eq!(rig.ask(GET).await.header("x-hokku-error"), Some("H11"));
    assert!(rig.line().await.starts_with("at=error code=H11 desc=\"Backlog too deep\""));
    drop(second);
    let line = rig.line().await;
    assert!(line.starts_with("sock=client at=warning code=H27") && line.contains("path=\"/second\""), "{line}");
    let mut third = held(&rig, &get("/third")).await;
    rig.route(dynos(&[app("one").await])).await;
    assert!(first.reply().await.body.contains("GET /first "));
    assert!(third.reply().await.body.contains("GET /third "));
    rig.end().await;
}

#[tokio::test]
async fn what_was_held_comes_to_the_new_dyno_a_few_at_a_time() {
    let (go, inside, most) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, now, peak) = (Arc::clone(&go), Arc::clone(&inside), Arc::clone(&most));
    let address = dyno(move |mut connection| {
        let (gate, now, peak) = (Arc::clone(&gate), Arc::clone(&now), Arc::clone(&peak));
        async move {
            while connection.head().await.is_some() {
                peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                gate.acquire().await.unwrap().forget();
                now.fetch_sub(1, SeqCst);
                connection.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    // The next step never comes in this test.
    let step = Duration::from_secs(600);
    let mut rig = Rig::with(Settings { released_at_once: 4, release_step: step, ..Settings::default() }).await;
    rig.route(Target::Held).await;
    let clients = crowd(&rig).await;
    rig.route(dynos(&[address])).await;
    until("the first are there", || inside.load(SeqCst) == 4).await;
    go.add_permits(CROWD);
    for mut client in clients {
        assert_eq!(client.reply().await.body, "ok");
    }
    assert_eq!(most.load(SeqCst), 4);
    rig.end().await;
}

#[tokio::test]
async fn all_that_was_held_is_let_go_in_time_though_none_is_answered() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let address = dyno(move |mut connection| {
        let count = Arc::clone(&count);
        async move {
            while connection.head().await.is_some() {
                count.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let step = Duration::from_millis(20);
    let mut rig = Rig::with(Settings { released_at_once: 1, release_step: step, ..Settings::default() }).await;
    rig.route(Target::Held).await;
    let _clients = crowd(&rig).await;
    rig.route(dynos(&[address])).await;
    until("all are there", || asked.load(SeqCst) == CROWD).await;
    rig.end().await;
}

/// So many clients that have said [`GET`].
async fn crowd(rig: &Rig) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CROWD {
        let mut client = Client::to(rig.address).await;
        client.say(GET).await;
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    clients
}
