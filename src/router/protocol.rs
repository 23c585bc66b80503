//! What server and router say to each other over `router.sock`.
//!
//! Lines, each a letter and its arguments. The router's first byte comes with its listening sockets (`SCM_RIGHTS`):
//! the one of `router.sock` itself, then those of clients: first those for plain HTTP, as many as it says in its hello,
//! then those for TLS.
//!
//! ```text
//! router: H <protocol> <plain sockets>     hello            server: T <table as JSON>   work by this table
//!         K <version>                      works by it              W <dyno id>         say when it has no request
//!         I <dyno id>                      has no request           S <number>          lines up to this one are kept
//!         A <number> <app id> <µs> <line>  access line              P <as JSON>         show these certificates
//!                                                                   R <s> <idle s>      serve nobody new, then end
//! ```
//!
//! A router and a server of different protocols still understand `H`, `A`, `S`, `I`, `W` and `R`: an upgrade goes from any to
//! any.
#![forbid(unsafe_code)]

use super::access::Access;
use super::tls::Certificates;
use crate::domain::app::AppId;
use crate::domain::dyno::DynoId;
use crate::domain::route::{Change, RouteTable};
use jiff::Timestamp;

/// Changes whenever either side would misunderstand the other.
pub(super) const PROTOCOL: u32 = 4;

/// Routers since this one end without losing a connection; older ones are killed.
pub(super) const RETIRES: u32 = 4;

/// The longest line of the router's that the server reads: the router faces the Internet and is not trusted.
pub(super) const MAX_LINE: usize = 64 << 10;

#[derive(Debug, PartialEq)]
pub(super) enum FromRouter {
    Hello { protocol: u32, plain: Option<usize> },
    Installed { version: u64 },
    Drained { dyno: DynoId },
    Access { number: u64, access: Access },
}

#[derive(Debug, PartialEq)]
pub(super) enum FromServer {
    /// The first of a connection.
    Table(Box<RouteTable>),
    /// To the table that was sent last.
    Change(Box<Change>),
    Certificates(Box<Certificates>),
    Watch(DynoId),
    Seen {
        number: u64,
    },
    /// Take no connection more and end once all have ended, after `within` seconds at the latest. Connections that clients
    /// keep may bring one request more for `idle` seconds.
    Retire {
        within: u64,
        idle: u64,
    },
}

impl FromRouter {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Hello { protocol, plain } => {
                format!("H {protocol} {}\n", plain.map(|plain| plain.to_string()).unwrap_or_default())
            }
            Self::Installed { version } => format!("K {version}\n"),
            Self::Drained { dyno } => format!("I {dyno}\n"),
            Self::Access { number, access: Access { app, at, line } } => {
                format!("A {number} {app} {} {line}\n", at.as_microsecond())
            }
        }
    }

    /// `None` for what is none of the above.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (letter, rest) = line.split_once(' ')?;
        Some(match letter {
            "H" => {
                // Those of older protocols are told apart by being understood.
                let (protocol, plain) = rest.split_once(' ').unwrap_or((rest, ""));
                Self::Hello { protocol: protocol.parse().ok()?, plain: plain.parse().ok() }
            }
            "K" => Self::Installed { version: rest.parse().ok()? },
            "I" => Self::Drained { dyno: rest.parse().ok()? },
            "A" => {
                let mut fields = rest.splitn(4, ' ');
                let number = fields.next()?.parse().ok()?;
                let app: AppId = fields.next()?.parse().ok()?;
                let at = Timestamp::from_microsecond(fields.next()?.parse().ok()?).ok()?;
                Self::Access { number, access: Access { app, at, line: fields.next()?.to_owned() } }
            }
            _ => return None,
        })
    }
}

impl FromServer {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Table(table) => {
                format!("T {}\n", serde_json::to_string(table).expect("a route table is plain data"))
            }
            Self::Change(change) => {
                format!("C {}\n", serde_json::to_string(change).expect("a change of routes is plain data"))
            }
            Self::Certificates(certificates) => {
                format!("P {}\n", serde_json::to_string(certificates).expect("certificates are plain data"))
            }
            Self::Watch(dyno) => format!("W {dyno}\n"),
            Self::Seen { number } => format!("S {number}\n"),
            Self::Retire { within, idle } => format!("R {within} {idle}\n"),
        }
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let (letter, rest) = line.split_once(' ')?;
        Some(match letter {
            "T" => Self::Table(serde_json::from_str(rest).ok()?),
            "C" => Self::Change(serde_json::from_str(rest).ok()?),
            "P" => Self::Certificates(serde_json::from_str(rest).ok()?),
            "W" => Self::Watch(rest.parse().ok()?),
            "S" => Self::Seen { number: rest.parse().ok()? },
            "R" => {
                let (within, idle) = rest.split_once(' ')?;
                Self::Retire { within: within.parse().ok()?, idle: idle.parse().ok()? }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Pair;
    use uuid::Uuid;

    #[test]
    fn what_is_said_is_what_is_understood() {
        let access = Access {
            app: AppId(Uuid::from_u128(5)),
            at: Timestamp::from_microsecond(1_700_000_000_123_456).unwrap(),
            line: "at=info method=GET path=\"/a b\"".into(),
        };
        for message in [
            FromRouter::Hello { protocol: 1, plain: Some(2) },
            FromRouter::Hello { protocol: 1, plain: None },
            FromRouter::Installed { version: 9 },
            FromRouter::Drained { dyno: DynoId(Uuid::from_u128(3)) },
            FromRouter::Access { number: 4, access },
        ] {
            assert_eq!(FromRouter::parse(message.encode().trim_end_matches('\n')), Some(message));
        }
        let pair = Pair { chain: "-----BEGIN\n".into(), key: "-----BEGIN\n\n".into() };
        for message in [
            FromServer::Table(Box::default()),
            FromServer::Change(Box::default()),
            FromServer::Certificates(Box::new(Certificates {
                own: pair.clone(),
                others: vec![(vec!["a".into()], pair)],
            })),
            FromServer::Watch(DynoId(Uuid::from_u128(3))),
            FromServer::Seen { number: 7 },
            FromServer::Retire { within: 3600, idle: 60 },
        ] {
            assert_eq!(FromServer::parse(message.encode().trim_end_matches('\n')), Some(message));
        }
        assert_eq!(FromRouter::parse("A 1 nonsense"), None);
        assert_eq!(FromServer::parse("X"), None);
    }
}
