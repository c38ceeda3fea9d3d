//! The kernel's switch for passing packets on: turned on while an instance with egress runs, if nobody else had it on.

use std::io;
use std::path::Path;

use crate::network::{Network, lock};

/// The switch (linux/Documentation/networking/ip-sysctl.rst).
const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// Which data directories need it on, until the next boot; it is there only if Basalt turned it on.
const CLAIMS: &str = "/run/basalt/forwarding";

/// Turns it on for a data directory.
pub(crate) fn claim(network: &Network) -> io::Result<()> {
    let _lock = lock()?;
    claim_at(Path::new(SWITCH), Path::new(CLAIMS), network.number())
}

/// Turns it off if Basalt turned it on and no other data directory needs it.
pub(crate) fn give_up(network: &Network) -> io::Result<()> {
    let _lock = lock()?;
    give_up_at(Path::new(SWITCH), Path::new(CLAIMS), network.number())
}

fn claim_at(switch: &Path, claims: &Path, number: u8) -> io::Result<()> {
    let on = std::fs::read_to_string(switch)?.trim() != "0";
    if on && !claims.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(claims)?;
    std::fs::write(claims.join(number.to_string()), "")?;
    if on { Ok(()) } else { std::fs::write(switch, "1") }
}

fn give_up_at(switch: &Path, claims: &Path, number: u8) -> io::Result<()> {
    match std::fs::remove_file(claims.join(number.to_string())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    if std::fs::read_dir(claims)?.next().is_none() {
        std::fs::write(switch, "0")?;
        std::fs::remove_dir(claims)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_left_as_it_was_found() {
        let dir = tempfile::tempdir().unwrap();
        let (switch, claims) = (dir.path().join("switch"), dir.path().join("claims"));
        let now = || std::fs::read_to_string(&switch).unwrap().trim().to_owned();
        std::fs::write(&switch, "0\n").unwrap();
        give_up_at(&switch, &claims, 1).unwrap();
        claim_at(&switch, &claims, 1).unwrap();
        claim_at(&switch, &claims, 2).unwrap();
        claim_at(&switch, &claims, 1).unwrap();
        assert_eq!(now(), "1");
        give_up_at(&switch, &claims, 1).unwrap();
        assert_eq!(now(), "1", "another one needs it");
        give_up_at(&switch, &claims, 2).unwrap();
        assert_eq!((now().as_str(), claims.exists()), ("0", false));

        std::fs::write(&switch, "1\n").unwrap();
        claim_at(&switch, &claims, 1).unwrap();
        give_up_at(&switch, &claims, 1).unwrap();
        assert_eq!((now().as_str(), claims.exists()), ("1", false), "somebody else's");
    }
}
