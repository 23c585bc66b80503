//! nft: does it take our rules, and do other tables drop what ours let through? A packet passes only when every table
//! lets it, so ours cannot overrule ufw, Docker or firewalld, and we do not touch theirs.
#![forbid(unsafe_code)]

use super::kernel::{away_from_home, nobodys_instance};
use super::{Check, told};
use crate::dyno::firewall::{Firewall, FirewallError, Policy};
use crate::dyno::network;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const OTHERS: &str = "other firewalls";
/// Holds the subnets of all instances.
const ALL_SUBNETS: &str = "10.128.0.0/11";
const ALL_SUBNETS6: &str = "fd68:6f6b:6b75::/48";

pub(super) fn nft() -> Check {
    let tried = away_from_home(|| {
        nobodys_firewall().raise().map_err(|error| match error {
            FirewallError::NoNft(_) => "not installed".to_owned(),
            error => told(&error),
        })
    });
    match tried {
        Ok(()) => Check::ok("nft", "takes hokku's rules"),
        Err(found) if found == "not installed" => Check::missing("nft", found, "apt install nftables"),
        Err(found) => Check::missing(
            "nft",
            found,
            "use a kernel with nf_tables, nft_ct, nft_fib_inet, nft_reject_inet and nft_masq, as Debian's is",
        ),
    }
}

fn nobodys_firewall() -> Firewall {
    Firewall::new(nobodys_instance(), Policy::default(), BTreeMap::new(), BTreeMap::new())
}

/// One check for each foreign chain that is in the way, or one that says that there is none.
pub(super) fn foreign() -> Vec<Check> {
    let obstacles = obstacles(&nft_chains(), network::leads_out_by_ipv6());
    let mut found: Vec<Check> = obstacles.iter().filter(|chain| !opened(chain)).map(warn).collect();
    found.extend(legacy());
    if found.is_empty() { vec![Check::ok(OTHERS, "none is in the dynos' way")] } else { found }
}

/// What `nft -j list chains` prints.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    chain: Option<Chain>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

fn nft_chains() -> Vec<Chain> {
    let listed = output("nft", &["-j", "list", "chains"]);
    let listing = listed.and_then(|json| serde_json::from_str::<Listing>(&json).ok());
    listing.map_or_else(Vec::new, |listing| listing.nftables.into_iter().filter_map(|object| object.chain).collect())
}

/// Chains of others that end dynos' packets: dropped by policy, or by firewalld's last rules.
fn obstacles(chains: &[Chain], ipv6: bool) -> Vec<Chain> {
    let ours = |chain: &Chain| chain.family == "inet" && chain.table.starts_with("hokku_");
    let in_the_way = |chain: &Chain| {
        let ours_to_pass = matches!(chain.hook.as_deref(), Some("forward" | "input"));
        let ip = matches!(chain.family.as_str(), "ip" | "inet") || (ipv6 && chain.family == "ip6");
        let drops = chain.policy.as_deref() == Some("drop") || chain.table == "firewalld";
        ours_to_pass && ip && drops
    };
    chains.iter().filter(|chain| !ours(chain) && in_the_way(chain)).cloned().collect()
}

/// The administrator has a rule about dynos' links or addresses in that table already.
fn opened(chain: &Chain) -> bool {
    let rules = output("nft", &["list", "table", &chain.family, &chain.table]).unwrap_or_default();
    rules.contains("\"hk") || rules.contains(if chain.family == "ip6" { ALL_SUBNETS6 } else { ALL_SUBNETS })
}

fn warn(chain: &Chain) -> Check {
    let Chain { family, table, name, .. } = chain;
    let forward = chain.hook.as_deref() == Some("forward");
    let effect = match (forward, family.as_str()) {
        (true, "ip6") => "dynos have no way out by IPv6",
        (true, _) => "dynos have no way out",
        (false, "ip6") => "dynos do not reach the router by IPv6",
        (false, _) => "dynos reach neither the router nor a DNS relay on this host",
    };
    let found = format!("chain {name} of table {family} {table} drops by default: {effect}");
    if table == "firewalld" {
        let zone = format!(
            "firewall-cmd --permanent --zone=trusted --add-source={ALL_SUBNETS} --add-source={ALL_SUBNETS6} && firewall-cmd --reload"
        );
        return Check::warning(
            OTHERS,
            format!("firewalld filters {}: {effect}", if forward { "forwarding" } else { "input" }),
            zone,
        );
    }
    let insert = format!("nft insert rule {family} {table} {name}");
    let answers = "ct state established,related accept";
    let advice = if forward {
        format!("{insert} iifname '\"hk*\"' accept; {insert} oifname '\"hk*\"' {answers}")
    } else {
        format!("{insert} iifname '\"hk*\"' accept (hokku's own rules still apply)")
    };
    Check::warning(OTHERS, found, format!("{advice}, and the same in what sets that table up (ufw, Docker, …)"))
}

/// Rules of the old kind are not seen by nft.
fn legacy() -> Option<Check> {
    let tables = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if !tables.lines().any(|table| table == "filter") {
        return None;
    }
    let advice = "iptables-legacy -I FORWARD -i hk+ -j ACCEPT; \
                  iptables-legacy -I FORWARD -o hk+ -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
    match output("iptables-legacy", &["-S", "FORWARD"]) {
        Some(rules) if rules.contains("-P FORWARD DROP") && !rules.contains("hk+") => {
            Some(Check::warning(OTHERS, "iptables-legacy drops what is forwarded: dynos have no way out", advice))
        }
        Some(_) => None,
        None => {
            let found = "there are iptables-legacy rules, which cannot be looked at";
            Some(Check::warning(OTHERS, found, "apt install iptables, and run doctor again"))
        }
    }
}

/// What the program prints, if it is there and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let run = Command::new(program).args(arguments).env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
    let output = run.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nft_is(arguments: &str) {
        assert!(Command::new("nft").arg(arguments).status().unwrap().success(), "nft {arguments}");
    }

    #[test]
    fn chains_that_drop_what_is_forwarded_are_named_until_the_remedy_is_applied() {
        let looked_at = away_from_home(|| {
            assert_eq!(foreign(), [Check::ok(OTHERS, "none is in the dynos' way")]);
            // As Docker and ufw leave it, and our own, which drops too.
            nft_is(
                "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority filter; policy drop; }",
            );
            nobodys_firewall().raise().unwrap();
            let found = foreign();
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!(found[0].found, "chain FORWARD of table ip filter drops by default: dynos have no way out");

            let advice = found[0].advice.as_deref().unwrap().split_once(", and").unwrap().0;
            let applied = Command::new("sh").args(["-ec", advice]).status().unwrap();
            assert!(applied.success(), "{advice}");
            assert_eq!(foreign(), [Check::ok(OTHERS, "none is in the dynos' way")]);
            Ok(())
        });
        looked_at.unwrap();
    }

    #[test]
    fn only_chains_that_dynos_packets_pass_count() {
        let chain = |family: &str, table: &str, hook: &str, policy: &str| Chain {
            family: family.into(),
            table: table.into(),
            name: "c".into(),
            hook: Some(hook.into()),
            policy: Some(policy.into()),
        };
        let chains = [
            chain("inet", "hokku_default", "forward", "drop"),
            chain("ip6", "filter", "forward", "drop"),
            chain("ip", "filter", "output", "drop"),
            chain("ip", "filter", "forward", "accept"),
            chain("ip", "filter", "input", "drop"),
            chain("inet", "firewalld", "forward", "accept"),
        ];
        assert_eq!(obstacles(&chains, false), chains[4..]);
        assert_eq!(obstacles(&chains, true)[0], chains[1]);
        assert!(warn(&chains[1]).found.ends_with("dynos have no way out by IPv6"));
        assert!(warn(&chains[4]).found.ends_with("dynos reach neither the router nor a DNS relay on this host"));
        assert!(warn(&chains[5]).advice.unwrap().contains("--add-source=10.128.0.0/11"));
    }
}
