//! The nftables table of a data directory: what instances may reach. Nothing, unless it is said here.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::network::Network;
use crate::sets::{self, Change, Members};
use crate::veth::prefix;

/// Returns the table's name.
fn table(network: &Network) -> String {
    format!("basalt_{}", network.tag())
}

/// Returns the whole table, replacing what is there.
///
/// - An instance reaches a socket of the host only if that is bound to a virtual address it may reach: a server of the
///   host that listens on all addresses has no part in it (`socket wildcard 0`). Of a connection that has just ended only a remnant is left
///   (TIME-WAIT), which is neither kind (`transparent 0`): a new one from the same port is to meet it.
/// - From instance to instance nothing is forwarded: they meet at the gateway.
/// - Only instances with egress reach addresses beyond the host, but no network of Basalt, and no link-local address:
///   there clouds give out the machine's own credentials.
/// - Virtual addresses answer the host and its instances, and nobody who comes by a network card.
fn rules(network: &Network) -> String {
    let (services, prefix_length) = network.services();
    let (table, links) = (table(network), format!("\"{}*\"", prefix(network.tag())));
    format!(
        "table inet {table}
delete table inet {table}
table inet {table} {{
  set reaches {{ type ipv4_addr . ipv4_addr; }}
  set egress {{ type ipv4_addr; }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != \"lo\" iifname != {links} ip daddr {services}/{prefix_length} drop
    iifname != {links} accept
    ct state established,related accept
    ip saddr . ip daddr @reaches meta l4proto tcp socket wildcard 0 accept
    ip saddr . ip daddr @reaches meta l4proto tcp socket wildcard 1 drop
    ip saddr . ip daddr @reaches meta l4proto tcp socket transparent 0 accept
    drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname {links} ct state established,related accept
    oifname {links} drop
    iifname != {links} accept
    ip daddr {{ 10.64.0.0/10, 169.254.0.0/16 }} drop
    ip saddr @egress accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @egress oifname != {links} masquerade
  }}
}}
"
    )
}

/// Puts the table in place, with the members of its sets for instances that run already: nothing they have open is cut.
pub(crate) fn install(network: &Network, running: &[Admission]) -> io::Result<()> {
    let members: String = running.iter().map(|a| a.commands(network)).collect();
    nft(&(rules(network) + &members))
}

/// Removes the table.
pub(crate) fn remove(network: &Network) -> io::Result<()> {
    let table = table(network);
    nft(&format!("table inet {table}\ndelete table inet {table}\n"))
}

/// What one instance may reach.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Admission {
    pub(crate) address: Ipv4Addr,
    pub(crate) reaches: Vec<Ipv4Addr>,
    pub(crate) egress: bool,
}

impl Admission {
    /// Returns what adds its members in one transaction with the table.
    fn commands(&self, network: &Network) -> String {
        let table = table(network);
        let pairs: Vec<String> = self.reaches.iter().map(|to| format!("{} . {to}", self.address)).collect();
        let mut text = String::new();
        if !pairs.is_empty() {
            text.push_str(&format!("add element inet {table} reaches {{ {} }}\n", pairs.join(", ")));
        }
        if self.egress {
            text.push_str(&format!("add element inet {table} egress {{ {} }}\n", self.address));
        }
        text
    }

    fn members(&self) -> [Members; 2] {
        let own = self.address.octets();
        let pairs = self.reaches.iter().map(|to| [own, to.octets()].concat()).collect();
        [("reaches", pairs), ("egress", if self.egress { vec![own.to_vec()] } else { vec![] })]
    }

    /// Opens what the instance may reach.
    pub(crate) fn admit(&self, network: &Network) -> io::Result<()> {
        self.change(network, Change::Put)
    }

    /// Closes what was opened for the instance.
    pub(crate) fn revoke(&self, network: &Network) -> io::Result<()> {
        self.change(network, Change::TakeOut)
    }

    fn change(&self, network: &Network, change: Change) -> io::Result<()> {
        sets::change(&table(network), &self.members(), change).map_err(|error| {
            let what = format!("could not change the firewall's table `{}`: {error}", table(network));
            io::Error::new(error.kind(), what)
        })
    }
}

/// Runs commands in one transaction.
#[allow(clippy::disallowed_methods)] // The one place that runs nft: it speaks the kernel's language for every version.
fn nft(commands: &str) -> io::Result<()> {
    let failed = |why: String| {
        io::Error::other(format!("could not set up the firewall with `nft` (Debian package nftables): {why}"))
    };
    let child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_without_reach_costs_no_command() {
        let dir = tempfile::tempdir().unwrap();
        let network = crate::network::network(dir.path()).unwrap();
        let address = Ipv4Addr::new(10, 64, 16, 0);
        let none = Admission { address, reaches: vec![], egress: false };
        assert_eq!(none.commands(&network), "");
        assert!(none.members().iter().all(|(_, keys)| keys.is_empty()));
        let some = Admission {
            reaches: vec![Ipv4Addr::new(10, 64, 0, 2), Ipv4Addr::new(10, 64, 0, 3)],
            egress: true,
            address,
        };
        let pairs = vec![vec![10, 64, 16, 0, 10, 64, 0, 2], vec![10, 64, 16, 0, 10, 64, 0, 3]];
        assert_eq!(some.members(), [("reaches", pairs), ("egress", vec![vec![10, 64, 16, 0]])]);
        let tag = network.tag();
        assert_eq!(
            some.commands(&network),
            format!(
                "add element inet basalt_{tag} reaches {{ 10.64.16.0 . 10.64.0.2, 10.64.16.0 . 10.64.0.3 }}\n\
                 add element inet basalt_{tag} egress {{ 10.64.16.0 }}\n"
            )
        );
    }
}
