//! The addresses of a data directory: a /16 of its own, virtual addresses of services in its first /20, and addresses
//! of instances in the rest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The networks to choose from: 10.64.0.0/10. Below it people have their own 10.x networks, above it container engines.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);

/// How many /16 networks the /10 holds.
const NETWORKS: u8 = 64;

/// How many addresses of the /16 are virtual ones of services: the first /20.
const SERVICE_ADDRESSES: u32 = 1 << 12;

/// The gateway that every instance has: a link-local address (RFC 3927), the same on every link, so that it takes none
/// of the network's.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The network of a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    number: u8,
    tag: String,
}

impl Network {
    /// Returns the virtual address of the service in a slot, or `None` if there are not so many (4,094 services).
    pub fn service_address(&self, slot: u16) -> Option<Ipv4Addr> {
        // The first address is the network's own, the second that of the host towards instances.
        let offset = u32::from(slot) + 2;
        (offset < SERVICE_ADDRESSES).then(|| self.at(offset))
    }

    /// Returns the address with which the host comes to instances.
    pub fn host_address(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// Returns the network of virtual addresses and its prefix length.
    pub fn services(&self) -> (Ipv4Addr, u8) {
        (self.at(0), 20)
    }

    /// Returns the prefix length of the whole network.
    pub(crate) fn prefix(&self) -> u8 {
        16
    }

    /// Returns the address of the instance with this index, or `None` if there are not so many.
    pub(crate) fn instance_address(&self, index: u32) -> Option<Ipv4Addr> {
        let offset = index.checked_add(SERVICE_ADDRESSES)?;
        (offset < u32::from(u16::MAX)).then(|| self.at(offset))
    }

    /// Returns which of the 64 networks it is.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// Returns six hexadecimal digits that differ between data directories; cgroups, interfaces and the firewall table are named by it.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST.to_bits() + (u32::from(self.number) << 16) + offset)
    }
}

/// Where data directories of this machine say which network they have, until the next boot: one file per number.
const CLAIMS: &str = "/run/basalt/networks";

/// Held by whoever reads or changes claims.
const LOCK: &str = "/run/basalt/networks.lock";

/// Returns the network of a data directory. The first call chooses one that no route of the host leads to and no other
/// data directory has, and records it in `DATA/network.json`.
///
/// # Errors
/// If the record can't be read or written, or all networks are taken.
pub fn network(data: &Path) -> io::Result<Network> {
    let data = std::fs::canonicalize(data)?;
    let _lock = lock()?;
    std::fs::create_dir_all(CLAIMS)?;
    if let Some(network) = recorded(&data)?
        && claim(network.number, &data)?
    {
        return Ok(network);
    }
    let tag = tag(&data);
    let taken = taken(&std::fs::read_to_string("/proc/net/route")?);
    let first = u8::from_str_radix(&tag[..2], 16).unwrap_or(0) % NETWORKS;
    for number in (0..NETWORKS).map(|n| (first + n) % NETWORKS).filter(|n| !taken.contains(n)) {
        if claim(number, &data)? {
            let network = Network { number, tag };
            let new = data.join("network.json.new");
            std::fs::write(&new, serde_json::to_vec(&network)?)?;
            File::open(&new)?.sync_all()?;
            std::fs::rename(new, data.join("network.json"))?;
            return Ok(network);
        }
    }
    Err(io::Error::other("every network of 10.64.0.0/10 is in use on this machine; free one of its /16 networks"))
}

/// Gives a network's claim back: the data directory may get another when it comes up again. With the last claim of the
/// machine, the places where claims are go too.
pub(crate) fn release(network: &Network) -> io::Result<()> {
    let _lock = lock()?;
    std::fs::remove_file(Path::new(CLAIMS).join(network.number.to_string()))?;
    if std::fs::remove_dir(CLAIMS).is_ok() {
        std::fs::remove_file(LOCK)?;
        // Stays if anything else is in it.
        let _ = std::fs::remove_dir(Path::new(LOCK).parent().unwrap_or(Path::new(LOCK)));
    }
    Ok(())
}

/// Waits until no other process of the machine is at the claims; what is returned keeps them away.
pub(crate) fn lock() -> io::Result<File> {
    loop {
        if let Some(dir) = Path::new(LOCK).parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = match File::create(LOCK) {
            Ok(file) => file,
            // The directory has just been removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        file.lock()?;
        // Who had it before may have removed it.
        match std::fs::metadata(LOCK) {
            Ok(there) if there.ino() == file.metadata()?.ino() => return Ok(file),
            _ => {}
        }
    }
}

fn recorded(data: &Path) -> io::Result<Option<Network>> {
    match std::fs::read(data.join("network.json")) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Claims a network for a data directory, unless another one that still exists has it.
fn claim(number: u8, data: &Path) -> io::Result<bool> {
    let file = Path::new(CLAIMS).join(number.to_string());
    let other = std::fs::read_to_string(&file).unwrap_or_default();
    let other = Path::new(other.trim_end());
    if other != data && recorded(other).is_ok_and(|n| n.is_some_and(|n| n.number == number)) {
        return Ok(false);
    }
    std::fs::write(file, data.as_os_str().as_encoded_bytes())?;
    Ok(true)
}

/// Returns the first six hexadecimal digits of the digest of a path.
fn tag(path: &Path) -> String {
    basalt_model::digest_of(&path.to_string_lossy()).to_hex()[..6].to_owned()
}

/// Returns the networks that a routing table (`/proc/net/route`) has routes into, other than by a default route.
fn taken(table: &str) -> BTreeSet<u8> {
    let mut taken = BTreeSet::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| fields.get(i).and_then(|f| u32::from_str_radix(f, 16).ok()).map(u32::from_be);
        let (Some(to), Some(mask)) = (number(1), number(7)) else { continue };
        if mask == 0 {
            continue;
        }
        let nets = (0..NETWORKS).filter(|n| {
            let net = FIRST.to_bits() + (u32::from(*n) << 16);
            let common = mask & 0xffff_0000;
            net & common == to & common
        });
        taken.extend(nets);
    }
    taken
}

/// Returns the lines of a `resolv.conf` for an instance with egress: the host's name servers, but for those that listen
/// on the host's own loopback, which an instance can't reach.
pub(crate) fn name_servers() -> String {
    // Where systemd-resolved is the resolver, the real servers are in its own file.
    let files = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];
    let text = files.iter().find_map(|f| std::fs::read_to_string(f).ok()).unwrap_or_default();
    reachable_servers(&text)
}

fn reachable_servers(text: &str) -> String {
    let reachable = |line: &&str| match line.trim().strip_prefix("nameserver") {
        Some(address) => address.trim().parse::<Ipv4Addr>().is_ok_and(|a| !a.is_loopback()),
        None => line.starts_with("search ") || line.starts_with("options "),
    };
    text.lines().filter(reachable).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u8) -> Network {
        Network { number, tag: "abcdef".into() }
    }

    #[test]
    fn addresses_have_their_places() {
        let net = number(3);
        let check = |address: Option<Ipv4Addr>, text: &str| assert_eq!(address, Some(text.parse().unwrap()));
        check(net.service_address(0), "10.67.0.2");
        check(net.service_address(300), "10.67.1.46");
        check(net.instance_address(0), "10.67.16.0");
        check(net.instance_address(61_438), "10.67.255.254");
        check(Some(net.host_address()), "10.67.0.1");
        assert_eq!(net.service_address(4094), None);
        assert_eq!(net.instance_address(61_439), None);
        assert_eq!(number(63).instance_address(0), Some(Ipv4Addr::new(10, 127, 16, 0)));
    }

    #[test]
    fn networks_with_routes_are_taken() {
        let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let check = |row: &str, nets: &[u8]| {
            assert_eq!(taken(&format!("{head}{row}")).into_iter().collect::<Vec<_>>(), nets, "{row}");
        };
        check("eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0", &[]);
        check("eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0", &[]);
        check("eth0 0000400A 00000000 0001 0 0 0 0000FFFF 0 0 0", &[0]);
        check("eth0 0005420A 00000000 0001 0 0 0 00FFFFFF 0 0 0", &[2]);
        check("eth0 0000440A 00000000 0001 0 0 0 0000FEFF 0 0 0", &[4, 5]);
        check("eth0 0000000A 00000000 0001 0 0 0 000000FF 0 0 0", &(0..64).collect::<Vec<_>>());
    }

    #[test]
    fn a_network_is_chosen_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = network(dir.path()).unwrap();
        assert_eq!(network(dir.path()).unwrap(), first);
        assert_eq!(first.tag().len(), 6);
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("network.json"), other.path().join("network.json")).unwrap();
        let second = network(other.path()).unwrap();
        assert_ne!(second.number(), first.number(), "two data directories have two networks");
        assert_ne!(second.tag(), first.tag());
        release(&first).unwrap();
        release(&second).unwrap();
    }

    #[test]
    fn name_servers_on_loopback_are_left_out() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\nsearch example.com\n";
        assert_eq!(reachable_servers(text), "nameserver 10.0.0.2\nsearch example.com\n");
    }
}
