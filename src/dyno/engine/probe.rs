//! Waiting for a dyno's port.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A port that has to accept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) addr: SocketAddr,
    pub(super) until: Instant,
}

/// For so long it is tried by a thread of its own, because the runtime's clock ticks in milliseconds: a program that
/// starts in an instant must not wait.
const AT_FIRST: Duration = Duration::from_millis(10);

/// Tries the port until it accepts.
pub(super) async fn accepts(probe: Probe) -> bool {
    let begun = Instant::now();
    let at_once = tokio::task::spawn_blocking(move || accepts_at_once(&probe));
    if at_once.await.unwrap_or(false) {
        return true;
    }
    loop {
        let pause = pause_after(begun.elapsed());
        if Instant::now() + pause > probe.until {
            return false;
        }
        tokio::time::sleep(pause).await;
        let tried = tokio::time::timeout_at(probe.until, TcpStream::connect(probe.addr)).await;
        if matches!(tried, Ok(Ok(_))) {
            return true;
        }
    }
}

fn accepts_at_once(probe: &Probe) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < AT_FIRST {
        if std::net::TcpStream::connect_timeout(&probe.addr, AT_FIRST).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(250));
    }
    false
}

/// Ever longer, so that a program that takes its time is not bothered.
fn pause_after(waited: Duration) -> Duration {
    match waited.as_millis() {
        0..100 => Duration::from_millis(1),
        100..2000 => Duration::from_millis(2),
        _ => (waited / 10).min(Duration::from_millis(250)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_found_open_when_it_opens_and_given_up_when_it_does_not() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        drop(taken);
        let until = |millis| Instant::now() + Duration::from_millis(millis);
        assert!(!accepts(Probe { addr, until: until(30) }).await);
        let found = tokio::spawn(accepts(Probe { addr, until: until(60_000) }));
        tokio::task::yield_now().await;
        let _listener = std::net::TcpListener::bind(addr).unwrap();
        assert!(found.await.unwrap());
    }
}
