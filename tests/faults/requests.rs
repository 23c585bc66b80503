//! A client that asks all the while.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Asks each app all the while.
pub(crate) struct Requests {
    ended: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Requests {
    pub(crate) fn start(router: SocketAddr, apps: Vec<&'static str>) -> Self {
        let (ended, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (over, failed) = (ended.clone(), failures.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for app in &apps {
                    let question = format!("GET / HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n");
                    let answer = crate::hokku::request(router, &question);
                    if !answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                        let answer = answer.map(|answer| (answer.status, answer.body));
                        failed.lock().unwrap().push(format!("{app}: {answer:?}"));
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { ended, failures }
    }

    pub(crate) fn forget(&self) {
        self.failures.lock().unwrap().clear();
    }

    /// What was answered otherwise than it should be, or not at all.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
