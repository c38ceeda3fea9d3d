//! What the keeper tells the short-lived child that creates an instance, and what that answers.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use basalt_seam::StartInstance;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::firewall::Admission;
use crate::network::Network;
use crate::user::IDS;
use crate::veth::Names;

/// A place for an instance: all that does not depend on what runs in it, so that it can be prepared before that is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The process of the keeper; whoever works for it ends with it.
    pub(crate) keeper: u32,
    /// The network of the data directory.
    pub(crate) network: Network,
    /// Decides the range of user ids, the cgroup and the name of the interface.
    pub(crate) index: u32,
    /// The address.
    pub(crate) address: Ipv4Addr,
}

impl Place {
    /// Returns the first of the host's user ids that the instance's are mapped to.
    pub(crate) fn first_id(&self) -> u32 {
        first_id(self.network.number(), self.index)
    }

    /// Returns its cgroup.
    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::of_place(self.network.tag(), self.index)
    }

    /// Returns the names of its link.
    pub(crate) fn link(&self) -> Names {
        Names::new(self.network.tag(), self.index)
    }
}

/// What is to run in a place. Goes over a pipe: it holds secrets in clear.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateOrder {
    pub(crate) start: StartInstance,
    /// The data directory.
    pub(crate) data: PathBuf,
}

impl CreateOrder {
    /// Returns what the instance may reach.
    pub(crate) fn admission(&self, address: Ipv4Addr) -> Admission {
        Admission { address, reaches: self.start.reaches.clone(), egress: self.start.release.egress }
    }

    /// Returns where the keeper keeps what it knows of the instance.
    pub(crate) fn run_dir(&self) -> PathBuf {
        instance_dir(&self.data, &self.start.id.to_string())
    }
}

/// What the child answers on its standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CreateAnswer {
    /// The instance runs.
    Running {
        /// The init of its pid namespace.
        init: u32,
        /// Its own program; the init's id again if that has ended already.
        pid: u32,
        /// Its user, for command checks.
        user: crate::user::User,
        /// Its environment, without secrets; for command checks.
        env: Vec<String>,
        /// Its working directory.
        cwd: String,
        /// What could not be had and was done without, for people.
        warnings: Vec<String>,
        /// How long each step took, in microseconds.
        steps: Vec<(String, u64)>,
    },
    /// It does not; the text says why.
    Failed(String),
}

/// The first user id of the first instance: 0x7000_0000 lies above all that distributions, `useradd` (subordinate ids)
/// and systemd (containers: 0x80000 to 0x6FFF_FFFF) give away.
const FIRST_ID: u64 = 0x7000_0000;

/// How many ranges of ids there are from there to the end of what the kernel has.
const ID_RANGES: u64 = (u32::MAX as u64 - FIRST_ID) / IDS as u64;

/// How many ranges lie between the first ones of two data directories of a machine.
const RANGES_PER_NETWORK: u64 = ID_RANGES / 64;

/// Returns where the keeper keeps what it knows of an instance.
pub(crate) fn instance_dir(data: &Path, id: &str) -> PathBuf {
    data.join("run/instances").join(id)
}

fn first_id(network: u8, index: u32) -> u32 {
    let range = (u64::from(network) * RANGES_PER_NETWORK + u64::from(index)) % ID_RANGES;
    u32::try_from(FIRST_ID + range * u64::from(IDS)).expect("a range below ID_RANGES lies below the largest id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_ranges_of_their_own() {
        assert_eq!(first_id(0, 0), 0x7000_0000);
        assert_eq!(first_id(0, 1), 0x7001_0000);
        let mut seen = std::collections::BTreeSet::new();
        for network in 0..64 {
            for index in 0..RANGES_PER_NETWORK as u32 {
                assert!(seen.insert(first_id(network, index)), "{network} {index}");
            }
        }
        assert!(seen.iter().all(|id| u64::from(*id) + u64::from(IDS) <= u64::from(u32::MAX)));
    }
}
