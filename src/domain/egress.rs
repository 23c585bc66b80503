//! Where an app's dynos may connect to.
//!
//! | text | what dynos reach |
//! | --- | --- |
//! | `internet` | everything outside, the local network included; what an app has until told otherwise |
//! | `none` | nothing: no name server either |
//! | `10.0.0.0/8 192.0.2.7:5432 tcp/443` | these, name servers, and what the host offers to all dynos |
//!
//! Other dynos, the host beyond what it offers, and metadata services stay closed whatever is listed. Names can't be: what
//! a name leads to changes, and is whatever its owner says. Builds are not restricted by this.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An app's whole list may have as many.
pub const MAX_DESTINATIONS: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Egress {
    #[default]
    Internet,
    None,
    /// Never empty.
    Only(Vec<Destination>),
}

/// `tcp/10.0.0.0/8:5432`, of which each part but one may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// `None`: with a port TCP and UDP, without one everything.
    pub protocol: Option<Protocol>,
    /// `None`: anywhere.
    pub network: Option<Network>,
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// The addresses that share their first `prefix` bits with `address`, whose other bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    #[error("{0:?} is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443")]
    Grammar(String),
    #[error("{0:?} is a name; only addresses can be allowed, since what a name leads to is for its owner to say")]
    Name(String),
    #[error("{given} has bits beyond its prefix; did you mean {meant}?")]
    HostBits { given: String, meant: Network },
    #[error("{0} can't be allowed: it is never outside of a dyno or of its host")]
    Local(String),
    #[error("{0:?} stands alone or not at all")]
    Mixed(String),
    #[error("nothing is listed; to allow nothing, write none")]
    Empty,
    #[error("at most {MAX_DESTINATIONS} destinations can be listed, not {0}")]
    TooMany(usize),
}

impl Egress {
    /// From the words of a command line, or the members of a list.
    ///
    /// # Errors
    /// Says which word is wrong, and how.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, EgressError> {
        let words: Vec<&str> =
            words.into_iter().flat_map(|word| word.split([',', ' '])).filter(|w| !w.is_empty()).collect();
        match words.as_slice() {
            [] => Err(EgressError::Empty),
            ["internet"] => Ok(Self::Internet),
            ["none"] => Ok(Self::None),
            words if words.len() > MAX_DESTINATIONS => Err(EgressError::TooMany(words.len())),
            words => {
                if let Some(mode) = words.iter().find(|word| matches!(**word, "internet" | "none")) {
                    return Err(EgressError::Mixed((*mode).to_owned()));
                }
                let mut destinations: Vec<Destination> = Vec::new();
                for word in words {
                    let destination = word.parse()?;
                    if !destinations.contains(&destination) {
                        destinations.push(destination);
                    }
                }
                Ok(Self::Only(destinations))
            }
        }
    }

    /// What is listed; nothing unless it is a list.
    pub fn destinations(&self) -> &[Destination] {
        match self {
            Self::Only(destinations) => destinations,
            Self::Internet | Self::None => &[],
        }
    }
}

impl FromStr for Egress {
    type Err = EgressError;
    fn from_str(text: &str) -> Result<Self, EgressError> {
        Self::parse([text])
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet => f.write_str("internet"),
            Self::None => f.write_str("none"),
            Self::Only(destinations) => {
                let words: Vec<String> = destinations.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(" "))
            }
        }
    }
}

impl FromStr for Destination {
    type Err = EgressError;
    fn from_str(text: &str) -> Result<Self, EgressError> {
        let wrong = || EgressError::Grammar(text.to_owned());
        let (protocol, rest) = match text.split_once('/') {
            Some(("tcp", rest)) => (Some(Protocol::Tcp), rest),
            Some(("udp", rest)) => (Some(Protocol::Udp), rest),
            _ => (None, text),
        };
        if let (Some(_), Some(port)) = (protocol, port(rest)) {
            return Ok(Self { protocol, network: None, port: Some(port) });
        }
        let (network, port) = match split_port(rest).ok_or_else(wrong)? {
            (network, None) => (network, None),
            (network, Some(digits)) => (network, Some(port(digits).ok_or_else(wrong)?)),
        };
        let network = Network::parse(network).map_err(|error| match error {
            // What is no address but could be a name is told so.
            EgressError::Grammar(_) if is_name(network) => EgressError::Name(text.to_owned()),
            EgressError::Grammar(_) => wrong(),
            other => other,
        })?;
        Ok(Self { protocol, network: Some(network), port })
    }
}

/// `10.0.0.0/8:443`, `[2001:db8::/32]:443`, `2001:db8::1`.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']')? {
            (network, "") => Some((network, None)),
            (network, port) => Some((network, Some(port.strip_prefix(':')?))),
        };
    }
    Some(match text.split_once(':') {
        Some((network, port)) if !port.contains(':') => (network, Some(port)),
        _ => (text, None),
    })
}

fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

fn is_name(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '*' | '_'))
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol}/")?;
        }
        match (self.network, self.port) {
            (Some(network), Some(port)) if network.address.is_ipv6() => write!(f, "[{network}]:{port}"),
            (Some(network), Some(port)) => write!(f, "{network}:{port}"),
            (Some(network), None) => write!(f, "{network}"),
            (None, Some(port)) => write!(f, "{port}"),
            (None, None) => f.write_str("any"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, EgressError> {
        let wrong = || EgressError::Grammar(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            None => longest,
            Some(prefix) => {
                Some(prefix).filter(digits).and_then(|p| p.parse().ok()).filter(|p| *p <= longest).ok_or_else(wrong)?
            }
        };
        let meant = Self { address: masked(address, prefix), prefix };
        if meant.address != address {
            return Err(EgressError::HostBits { given: text.to_owned(), meant });
        }
        if is_local(address) && prefix > 0 {
            return Err(EgressError::Local(text.to_owned()));
        }
        Ok(meant)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// Loopback, link-local, of several, or nobody's.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified(),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix == longest {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read_and_written_back_as_it_was() {
        for text in [
            "internet",
            "none",
            "10.0.0.0/8",
            "192.0.2.7:5432",
            "tcp/443",
            "udp/123",
            "tcp/192.0.2.0/24:443",
            "udp/192.0.2.1",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/32",
            "2001:db8::7",
            "[2001:db8::7]:443",
            "tcp/[2001:db8::/64]:443",
            "10.0.0.0/8 tcp/443",
        ] {
            assert_eq!(text.parse::<Egress>().unwrap().to_string(), text);
        }
        let commas: Egress = "tcp/443,tcp/443, 10.0.0.0/8".parse().unwrap();
        assert_eq!(commas.to_string(), "tcp/443 10.0.0.0/8", "each once");
        assert_eq!("192.0.2.7/32".parse::<Egress>().unwrap().to_string(), "192.0.2.7");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let told = |text: &str| text.parse::<Egress>().unwrap_err().to_string();
        insta::assert_snapshot!(
            ["", "443", "tcp/0", "tcp/", "example.com:443", "10.1.2.3/8", "10.0.0.0/33", "10.0.0.0/8:x", "[2001:db8::7",
             "127.0.0.1", "169.254.169.254:80", "fe80::1", "none tcp/443", "tcp/443; drop", "1.2.3.4:99999"]
                .map(told).join("\n"),
            @r#"
        nothing is listed; to allow nothing, write none
        "443" is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443
        "tcp/0" is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443
        "tcp/" is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443
        "example.com:443" is a name; only addresses can be allowed, since what a name leads to is for its owner to say
        10.1.2.3/8 has bits beyond its prefix; did you mean 10.0.0.0/8?
        "10.0.0.0/33" is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443
        "10.0.0.0/8:x" is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443
        "[2001:db8::7" is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443
        127.0.0.1 can't be allowed: it is never outside of a dyno or of its host
        169.254.169.254 can't be allowed: it is never outside of a dyno or of its host
        fe80::1 can't be allowed: it is never outside of a dyno or of its host
        "none" stands alone or not at all
        "tcp/443;" is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443
        "1.2.3.4:99999" is no destination; write for instance 10.0.0.0/8, 192.0.2.7:5432, [2001:db8::7]:443 or tcp/443
        "#);
        let many = vec!["tcp/1"; MAX_DESTINATIONS + 1];
        assert_eq!(Egress::parse(many), Err(EgressError::TooMany(65)));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_and_nothing_else_is(text in "[a-z0-9:./\\[\\], ]{0,30}") {
            if let Ok(egress) = text.parse::<Egress>() {
                prop_assert_eq!(egress.to_string().parse(), Ok(egress));
            }
        }
    }
}
