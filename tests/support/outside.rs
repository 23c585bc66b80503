//! Something outside of the machine for as long as a test lives: a namespace with a server that accepts, behind a link of
//! the machine's own.

use hokku::sys::netlink::{Netlink, Route};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct Outside {
    pub(crate) address: Ipv4Addr,
    link: String,
}

impl Outside {
    pub(crate) const PORT: u16 = 8000;

    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() * 8 + COUNT.fetch_add(1, Ordering::Relaxed);
        // 198.18.0.0/15 is for trials (RFC 2544); four addresses for each.
        let near = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + (number % 0x8000) * 4 + 1);
        let outside =
            Self { address: Ipv4Addr::from_bits(near.to_bits() + 1), link: format!("out{}", number % 0x8000) };
        let namespace = new_namespace();
        let mut here = Netlink::open().unwrap();
        here.add_veth(&outside.link, 1500, "in", namespace.as_fd()).unwrap();
        up(&mut here, &outside.link, near);
        let address = outside.address;
        std::thread::spawn(move || serve(&namespace, address, near));
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        Netlink::open().unwrap().delete_link(&self.link).unwrap();
    }
}

fn new_namespace() -> OwnedFd {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap().into()
    };
    std::thread::spawn(make).join().unwrap()
}

fn up(netlink: &mut Netlink, link: &str, address: Ipv4Addr) -> u32 {
    let index = netlink.link(link).unwrap().unwrap().index;
    netlink.add_address(index, address, 30).unwrap();
    netlink.set_up_as_line(index).unwrap();
    index
}

/// Ends with the test's process.
fn serve(namespace: &OwnedFd, address: Ipv4Addr, router: Ipv4Addr) {
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    let mut netlink = Netlink::open().unwrap();
    let link = up(&mut netlink, "in", address);
    netlink.set_route(&Route::default_via(router, link)).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, Outside::PORT)).unwrap();
    while let Ok((client, _)) = listener.accept() {
        drop(client);
    }
}
