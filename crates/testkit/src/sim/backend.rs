//! Instances that live in virtual time, each with a fate.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use basalt_model::{Exit, Generation, InstanceId, Millis};
use basalt_rollout::Life;

/// What becomes of an instance once it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It becomes healthy and stays so.
    Good,
    /// It can't be started.
    CannotStart,
    /// It dies while it starts.
    Crashes,
    /// It runs and never becomes healthy.
    NeverHealthy,
    /// It is healthy, and dies after so long.
    DiesAfter(Millis),
    /// It is healthy, and fails its checks after so long.
    SickAfter(Millis),
}

/// How long an instance takes to start.
const START: Millis = Millis(15);

/// How long an instance takes to end once it is asked to.
const STOP: Millis = Millis(40);

/// An instance in the simulated backend.
#[derive(Debug, Clone)]
pub struct SimInstance {
    /// Which start of it.
    pub generation: Generation,
    /// Its own address.
    pub address: Ipv4Addr,
    started_at: Millis,
    ends_at: Option<(Millis, Exit)>,
    /// From when it fails its checks.
    pub sick_from: Option<Millis>,
    /// Until when it does, if not for ever.
    pub sick_until: Option<Millis>,
    job: bool,
}

impl SimInstance {
    /// Returns whether it lives at a time.
    pub fn life(&self, at: Millis) -> Life {
        let since = self.started_at + START;
        match &self.ends_at {
            Some((ended, exit)) if at >= *ended => {
                Life::Ended { exit: exit.clone(), at: *ended, last_lines: vec!["the last line".into()] }
            }
            _ if at < since => Life::Starting,
            _ => Life::Running { pid: 1000 + self.generation as u32, since },
        }
    }

    /// Returns whether it runs at a time.
    pub fn runs(&self, at: Millis) -> bool {
        matches!(self.life(at), Life::Running { .. })
    }

    /// Returns whether it runs and answers its checks at a time.
    pub fn well(&self, at: Millis) -> bool {
        let sick = self.sick_from.is_some_and(|from| at >= from && self.sick_until.is_none_or(|until| at < until));
        self.runs(at) && !sick
    }

    /// Ends it, if it has not ended before.
    pub fn end(&mut self, at: Millis, exit: Exit) {
        if self.ends_at.as_ref().is_none_or(|(ends, _)| *ends > at) {
            self.ends_at = Some((at, exit));
        }
    }

    fn changes(&self) -> impl Iterator<Item = Millis> {
        let ends = self.ends_at.as_ref().map(|(at, _)| *at);
        [Some(self.started_at + START), ends, self.sick_from, self.sick_until].into_iter().flatten()
    }
}

/// A backend in virtual time. It keeps to the contract of the seam.
#[derive(Debug, Clone, Default)]
pub struct SimBackend {
    /// What it has.
    pub instances: BTreeMap<InstanceId, SimInstance>,
    /// The highest generation ever started, by instance.
    pub started: BTreeMap<InstanceId, Generation>,
    addresses: u32,
}

impl SimBackend {
    /// Starts an instance, unless it has it already.
    pub fn start(&mut self, at: Millis, id: &InstanceId, generation: Generation, fate: Fate, job: bool) {
        let there = self.instances.get(id);
        if there.is_some_and(|i| i.generation >= generation || !matches!(i.life(at), Life::Ended { .. })) {
            return;
        }
        self.started.insert(id.clone(), generation);
        self.addresses += 1;
        let address = Ipv4Addr::from(0x0a00_0000 + self.addresses);
        let running = at + START;
        let ends_at = match fate {
            Fate::CannotStart => Some((at + Millis(1), Exit::CouldNotStart("no such file".into()))),
            Fate::Crashes => Some((running + Millis(5), Exit::Code(1))),
            Fate::DiesAfter(after) => Some((running + after, Exit::Signal(11))),
            Fate::Good if job => Some((running + Millis(100), Exit::Code(0))),
            _ => None,
        };
        let sick_from = match fate {
            Fate::NeverHealthy => Some(Millis::ZERO),
            Fate::SickAfter(after) => Some(running + after),
            _ => None,
        };
        let instance = SimInstance { generation, address, started_at: at, ends_at, sick_from, sick_until: None, job };
        self.instances.insert(id.clone(), instance);
    }

    /// Asks an instance to end.
    pub fn stop(&mut self, at: Millis, id: &InstanceId, generation: Generation) {
        if let Some(instance) = self.instances.get_mut(id).filter(|i| i.generation == generation) {
            let exit = if instance.job { Exit::Signal(15) } else { Exit::Code(0) };
            instance.end(at + STOP, exit);
        }
    }

    /// Drops what is left of an ended instance.
    pub fn forget(&mut self, at: Millis, id: &InstanceId, generation: Generation) {
        let ended = |i: &SimInstance| i.generation == generation && matches!(i.life(at), Life::Ended { .. });
        if self.instances.get(id).is_some_and(ended) {
            self.instances.remove(id);
        }
    }

    /// Returns when something changes next.
    pub fn next_change(&self, after: Millis) -> Option<Millis> {
        self.instances.values().flat_map(SimInstance::changes).filter(|at| *at > after).min()
    }
}
