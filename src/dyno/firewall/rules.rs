//! The instance's nft table as text. Pure: the same content gives the same text.
#![forbid(unsafe_code)]

use super::Policy;
use crate::domain::app::AppId;
use crate::domain::egress::{Destination, Egress, Protocol};
use crate::domain::instance::Instance;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds tell a machine its secrets. Besides link-local addresses: Azure, Alibaba, Oracle.
pub(in crate::dyno) const METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// By IPv6, likewise: Amazon, Google, Oracle, Scaleway.
pub(in crate::dyno) const METADATA6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];
const DNS_PORT: u16 = 53;
/// A program that tries is told at once, and does not wait.
const REFUSE: &str = "reject with icmpx admin-prohibited";

/// Every set that has a name.
pub(super) const SETS: [&str; 6] = ["host_tcp", "host_udp", "metadata", "metadata6", "isolated", "egress"];

/// All that the table depends on.
pub(super) struct Content<'a> {
    pub(super) instance: &'a Instance,
    pub(super) policy: &'a Policy,
    /// Name servers that dynos ask by themselves.
    pub(super) resolvers: &'a [IpAddr],
    /// Of apps that do not have all of the Internet.
    pub(super) egress: &'a BTreeMap<AppId, Egress>,
    /// Whose app's egress a dyno has, by its slot.
    pub(super) slots: &'a BTreeMap<u16, AppId>,
}

/// The table, for `nft -f`: replaces the old one in a single transaction.
pub(super) fn whole(content: &Content<'_>) -> String {
    let Content { instance, policy, .. } = content;
    let ports = |protocol| policy.allow_host.iter().filter(move |open| open.protocol == protocol).map(|open| open.port);
    let tcp = elements(policy.open_to_dynos.iter().copied().chain(ports(Protocol::Tcp)).chain([DNS_PORT]));
    let udp = elements(ports(Protocol::Udp).chain([DNS_PORT]));
    let metadata = METADATA.map(|address| address.to_string()).join(", ");
    let metadata6 = METADATA6.map(|address| address.to_string()).join(", ");
    let links = format!("\"{}*\"", instance.link_prefix());
    let ((subnet, prefix), (subnet6, prefix6)) = (instance.subnet(), instance.subnet6());
    let mut text = none(instance);
    let table = instance.nft_table();
    // `hk*` is any link of any instance. A connection to the host that somebody else's rules send on (`ct status dnat`:
    // a container's published port) is still one to the host. What a dyno says on connections that others have begun is
    // never in the direction `original`.
    let written = write!(
        text,
        r#"table inet {table} {{
  set host_tcp {{ type inet_service; elements = {{ {tcp} }}; }}
  set host_udp {{ type inet_service; elements = {{ {udp} }}; }}
  set metadata {{ type ipv4_addr; flags interval; elements = {{ 169.254.0.0/16, {metadata} }}; }}
  set metadata6 {{ type ipv6_addr; flags interval; elements = {{ fe80::/10, {metadata6} }}; }}
  set isolated {{ type ifname; }}
  map egress {{ type ifname : verdict; }}

  chain genuine {{
    type filter hook prerouting priority raw; policy accept;
    iifname {links} fib saddr . iif oif missing drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname {links} goto to_host
  }}
  chain to_host {{
    iifname @isolated ct direction original {REFUSE}
    ct state established,related accept
    ct state invalid drop
    ip daddr @metadata {REFUSE}
    ip6 daddr @metadata6 {REFUSE}
    tcp dport @host_tcp accept
    udp dport @host_udp accept
    {REFUSE}
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname {links} jump from_dyno
    oifname {links} goto to_dyno
  }}
  chain from_dyno {{
    ct state invalid drop
    iifname @isolated {REFUSE}
    oifname "hk*" {REFUSE}
    ip daddr @metadata {REFUSE}
    ip6 daddr @metadata6 {REFUSE}
    ip daddr {subnet}/{prefix} {REFUSE}
    ip6 daddr {subnet6}/{prefix6} {REFUSE}
    ct status dnat meta l4proto tcp ct original proto-dst @host_tcp accept
    ct status dnat meta l4proto udp ct original proto-dst @host_udp accept
    ct status dnat {REFUSE}
    iifname vmap @egress
  }}
  chain to_dyno {{
    ct state established,related accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet}/{prefix} oifname != "hk*" masquerade
    ip6 saddr {subnet6}/{prefix6} oifname != "hk*" masquerade
  }}
{chains}}}
"#,
        chains = chains(content),
    );
    written.expect("writing to a String cannot fail");
    text.extend(content.slots.keys().filter_map(|slot| admit(content, *slot)));
    text
}

/// Takes the table away. Deleting one that is not there is an error, so it is made first.
pub(super) fn none(instance: &Instance) -> String {
    let table = instance.nft_table();
    format!("table inet {table}\ndelete table inet {table}\n")
}

/// Restricts the dyno in that slot; `None` when its app has the Internet.
pub(super) fn admit(content: &Content<'_>, slot: u16) -> Option<String> {
    element(content, slot).map(|(set, element)| format!("add element {set} {{ {element} }}\n"))
}

/// Undoes [`admit`].
pub(super) fn dismiss(content: &Content<'_>, slot: u16) -> Option<String> {
    element(content, slot).map(|(set, element)| format!("delete element {set} {{ {element} }}\n"))
}

fn element(content: &Content<'_>, slot: u16) -> Option<(String, String)> {
    let (table, link) = (content.instance.nft_table(), content.instance.link(slot));
    let app = content.slots.get(&slot)?;
    match content.egress.get(app)? {
        Egress::Internet => None,
        Egress::None => Some((format!("inet {table} isolated"), format!("\"{link}\""))),
        Egress::Only(_) => Some((format!("inet {table} egress"), format!("\"{link}\" : goto {}", chain_of(*app)))),
    }
}

/// One chain for each app with a list.
fn chains(content: &Content<'_>) -> String {
    let mut text = String::new();
    for (app, egress) in content.egress.iter().filter(|(_, egress)| !egress.destinations().is_empty()) {
        let to_port = format!("meta l4proto {{ tcp, udp }} th dport {DNS_PORT}");
        let names = content.resolvers.iter().map(|address| format!("{} {address} {to_port}", to(*address)));
        let _ = writeln!(text, "  chain {} {{", chain_of(*app));
        for rule in names.chain(egress.destinations().iter().map(matching)) {
            let _ = writeln!(text, "    {rule} accept");
        }
        let _ = writeln!(text, "    {REFUSE}\n  }}");
    }
    text
}

fn chain_of(app: AppId) -> String {
    format!("egress_{}", app.0.simple())
}

fn to(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip daddr" } else { "ip6 daddr" }
}

fn matching(destination: &Destination) -> String {
    let Destination { protocol, network, port } = *destination;
    let mut words = Vec::new();
    words.extend(network.map(|network| format!("{} {network}", to(network.address))));
    words.extend(match (protocol, port) {
        (Some(protocol), Some(port)) => Some(format!("{protocol} dport {port}")),
        (Some(protocol), None) => Some(format!("meta l4proto {protocol}")),
        (None, Some(port)) => Some(format!("meta l4proto {{ tcp, udp }} th dport {port}")),
        (None, None) => None,
    });
    words.join(" ")
}

fn elements(ports: impl Iterator<Item = u16>) -> String {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_rules_are_static_and_name_only_what_is_ours() {
        let policy = Policy {
            allow_host: vec!["tcp/5432".parse().unwrap(), "udp/514".parse().unwrap()],
            open_to_dynos: vec![8080, 443],
        };
        let app = |number| AppId(Uuid::from_u128(number));
        let listed = "10.0.0.0/8 192.0.2.7:5432 tcp/443 udp/[2001:db8::/32]:53 tcp/2001:db8::1";
        let egress =
            BTreeMap::from([(app(1), Egress::None), (app(2), listed.parse().unwrap()), (app(3), Egress::Internet)]);
        let slots = BTreeMap::from([(3, app(1)), (4, app(2)), (5, app(3)), (6, app(4)), (7, app(2))]);
        let content = Content {
            instance: &Instance::new("blue-1".parse().unwrap(), "/r".into(), 7),
            policy: &policy,
            resolvers: &["192.0.2.53".parse().unwrap()],
            egress: &egress,
            slots: &slots,
        };
        insta::assert_snapshot!(whole(&content));
        assert_eq!(dismiss(&content, 3).unwrap(), "delete element inet hokku_blue_1 isolated { \"hk7-3\" }\n");
        assert_eq!((admit(&content, 5), dismiss(&content, 6)), (None, None));
    }
}
