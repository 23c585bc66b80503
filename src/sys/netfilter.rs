//! The kernel's packet filter (nftables) as far as it has to be watched: that a table was changed, and whether it is still what it was. Rules are
//! made by nft; this only looks.
#![expect(clippy::missing_errors_doc, reason = "errors are the kernel's answers to the request")]
#![forbid(unsafe_code)]

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

// linux/netlink.h
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// Something was changed in the middle of a dump.
const INTERRUPTED: u16 = 0x10;

// linux/netfilter/nfnetlink.h and nf_tables.h
const GROUP: u32 = 7;
const NFTABLES: u16 = 10 << 8;
const GET_RULE: u16 = NFTABLES | 0x07;
const GET_ELEMENT: u16 = NFTABLES | 0x0d;
const GET_GENERATION: u16 = NFTABLES | 0x10;
const INET: u8 = 1;
/// The general header that is between netlink's and the attributes.
const GENERAL: usize = 4;
/// The table's name, in messages of every kind.
const TABLE: u16 = 1;
/// The set's name in messages about elements.
const SET: u16 = 2;
/// The list in messages about elements.
const ELEMENTS: u16 = 3;
/// The number in messages about generations.
const GENERATION: u16 = 1;
/// Without the bits that say how an attribute's value is to be read.
const KIND: u16 = 0x3fff;

const MAX_DATAGRAM: usize = 64 * 1024;

/// Hears of every change of rules in the network namespace where it was opened.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.add_membership(GROUP)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Takes what has been said since the last time: whether any of it was about that table.
    pub fn heard_of(&mut self, table: &str) -> io::Result<bool> {
        let mut heard = false;
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            match self.socket.recv(&mut datagram.as_mut_slice(), 0) {
                Ok(length) => {
                    heard |= messages(&datagram[..length]).any(|message| {
                        attributes(message.body).any(|(kind, value)| kind == TABLE && text(value) == table.as_bytes())
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(heard),
                // More was said than was kept for us.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// How many transactions this network namespace's rules have had, whoever's; it wraps.
pub fn generation() -> io::Result<u32> {
    let socket = connected()?;
    socket.send(&request(GET_GENERATION, REQUEST, &[]), 0)?;
    let mut datagram = vec![0; MAX_DATAGRAM];
    let length = socket.recv(&mut datagram.as_mut_slice(), 0)?;
    let Some(message) = messages(&datagram[..length]).next() else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    if message.kind == ERROR {
        return Err(io::Error::from_raw_os_error(message.errno));
    }
    let number = attributes(message.body).find(|(kind, _)| *kind == GENERATION);
    let number = number.and_then(|(_, value)| value.try_into().ok()).map(u32::from_be_bytes);
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A number that stands for all rules of an `inet` table and the elements of these sets, as they are in the calling
/// thread's network namespace: any change gives another. `None` when there is no rule or a set is missing.
pub fn fingerprint(table: &str, sets: &[&str]) -> io::Result<Option<u64>> {
    let mut hasher = DefaultHasher::new();
    let rules = dump(GET_RULE, &[(TABLE, table)])?;
    if rules.is_empty() {
        return Ok(None);
    }
    for rule in &rules {
        hasher.write(rule);
    }
    for set in sets {
        match dump(GET_ELEMENT, &[(TABLE, table), (SET, set)]) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            other => hasher.write_u64(other?.iter().fold(0, |sum: u64, body| sum.wrapping_add(elements(body)))),
        }
    }
    Ok(Some(hasher.finish()))
}

/// Of the elements in a message, in whatever order: that of a hash table changes by itself some time after it has grown,
/// and so do the messages that they are spread over.
fn elements(body: &[u8]) -> u64 {
    let hash = |element: &[u8]| {
        let mut hasher = DefaultHasher::new();
        hasher.write(element);
        hasher.finish()
    };
    let lists = attributes(body).filter(|(kind, _)| *kind == ELEMENTS);
    lists.flat_map(|(_, list)| attributes(list)).fold(0, |sum, (_, element)| sum.wrapping_add(hash(element)))
}

/// The bodies of all that the kernel answers.
fn dump(kind: u16, wanted: &[(u16, &str)]) -> io::Result<Vec<Vec<u8>>> {
    loop {
        if let Some(bodies) = dump_once(kind, wanted)? {
            return Ok(bodies);
        }
    }
}

/// `None` when it was interrupted by a change.
fn dump_once(kind: u16, wanted: &[(u16, &str)]) -> io::Result<Option<Vec<Vec<u8>>>> {
    let socket = connected()?;
    socket.send(&request(kind, REQUEST | DUMP, wanted), 0)?;
    let (mut bodies, mut whole) = (Vec::new(), true);
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut datagram.as_mut_slice(), 0)?;
        for message in messages(&datagram[..length]) {
            whole &= message.flags & INTERRUPTED == 0;
            match message.kind {
                DONE => return Ok(whole.then_some(bodies)),
                ERROR => return Err(io::Error::from_raw_os_error(message.errno)),
                _ => bodies.push(message.body.to_vec()),
            }
        }
    }
}

fn connected() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn request(kind: u16, flags: u16, wanted: &[(u16, &str)]) -> Vec<u8> {
    let mut body = vec![INET, 0, 0, 0];
    for (kind, text) in wanted {
        let length = u16::try_from(4 + text.len() + 1).expect("names are short");
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(text.as_bytes());
        body.resize((body.len() + 1).next_multiple_of(4), 0);
    }
    let length = u32::try_from(HEADER + body.len()).expect("names are short");
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    /// Of an error; zero in all other messages.
    errno: i32,
    /// The attributes; the general header counts changes of all tables.
    body: &'a [u8],
}

fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER)?;
        let length = usize::try_from(u32::from_ne_bytes(header[..4].try_into().ok()?)).ok()?;
        let whole = datagram.get(..length).filter(|_| length >= HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        let after = whole.get(HEADER..).unwrap_or_default();
        let [kind, flags] = [4, 6].map(|at| u16::from_ne_bytes([header[at], header[at + 1]]));
        let errno = match *after {
            [a, b, c, d, ..] if kind == ERROR => i32::from_ne_bytes([a, b, c, d]).wrapping_neg(),
            _ => 0,
        };
        Some(Message { kind, flags, errno, body: after.get(GENERAL..).unwrap_or_default() })
    })
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & KIND, value))
    })
}

/// Without the NUL at its end.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    fn nft(script: &str) {
        let done = Command::new("nft").arg(script).env("PATH", "/usr/sbin:/sbin:/usr/bin").status().unwrap();
        assert!(done.success(), "{script}");
    }

    /// In a thread with a network namespace of its own, which is gone with the thread.
    fn in_new_namespace(test: impl FnOnce() + Send + 'static) {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test();
        };
        std::thread::spawn(run).join().unwrap();
    }

    #[test]
    fn what_is_no_error_is_not_read_as_one() {
        // The general header has the low bits of a number that grows with every change.
        for body in [[0, 0, 0, 0x80], [0x80, 0, 0, 0], [INET, 0, 0x80, 0]] {
            let mut datagram = request(GET_RULE, 0, &[]);
            datagram[HEADER..].copy_from_slice(&body);
            assert_eq!(messages(&datagram).map(|message| message.errno).collect::<Vec<_>>(), [0]);
            datagram[4..6].copy_from_slice(&ERROR.to_ne_bytes());
            datagram[HEADER..].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
            assert_eq!(messages(&datagram).map(|message| message.errno).collect::<Vec<_>>(), [libc::EPERM]);
        }
    }

    #[test]
    fn a_set_with_the_same_elements_looks_the_same_whatever_their_order() {
        in_new_namespace(|| {
            let set = |numbers: &mut dyn Iterator<Item = u16>| {
                let numbers = numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
                nft(&format!(
                    "table inet ours {{ set s {{ type inet_service; elements = {{ {numbers} }}; }}; chain c {{ accept; }}; }}"
                ));
                fingerprint("ours", &["s"]).unwrap().unwrap()
            };
            let there = set(&mut (1..4000));
            nft("delete table inet ours");
            assert_eq!(set(&mut (1..4000).rev()), there);
            nft("delete table inet ours");
            assert_ne!(set(&mut (2..4000)), there);
        });
    }

    #[test]
    fn any_change_of_the_table_is_heard_and_seen_and_none_of_others() {
        in_new_namespace(|| {
            let mut monitor = Monitor::open().unwrap();
            let look = || fingerprint("ours", &["s"]).unwrap();
            assert_eq!(look(), None);
            nft(
                "table inet ours { set s { type inet_service; elements = { 1 }; }\n chain c { tcp dport @s accept; }; }",
            );
            assert!(monitor.heard_of("ours").unwrap());
            assert!(!monitor.heard_of("ours").unwrap(), "once");
            let before = look();
            assert!(before.is_some());

            nft("table inet others { chain c { accept; }; }");
            assert!(!monitor.heard_of("ours").unwrap());
            assert_eq!(look(), before);
            for change in ["add element inet ours s { 2 }", "add rule inet ours c drop", "flush chain inet ours c"] {
                let (before, generation_before) = (look(), generation().unwrap());
                nft(change);
                assert_eq!(generation().unwrap(), generation_before + 1);
                assert!(monitor.heard_of("ours").unwrap(), "{change}");
                assert_ne!(look(), before, "{change}");
            }
            assert_eq!(look(), None, "without a rule it is no wall");
            nft("flush ruleset");
            assert!(monitor.heard_of("ours").unwrap());
            assert_eq!(look(), None);
        });
    }
}
