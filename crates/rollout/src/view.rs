//! What is recorded and what is seen, side by side.

use basalt_model::{
    Generation, Health, HealthCheck, Instance, InstanceId, InstanceState, Millis, Name, Phase, ReleaseNumber, Service,
    Strategy,
};

use crate::callers::Caller;
use crate::observation::{InstanceSeen, Life, Observation};
use crate::shape::{live, old_release};

/// One service at one moment.
pub(crate) struct View<'a> {
    pub name: &'a Name,
    pub service: &'a Service,
    pub seen: &'a Observation<'a>,
    /// Whether the table that follows from `service` is in force.
    pub in_force: bool,
}

impl<'a> View<'a> {
    /// Returns who still calls the service, if it is being removed: until then it stays as it is.
    pub fn caller(&self) -> Option<&'a Caller> {
        self.seen.callers.get(self.name).filter(|_| self.service.removing)
    }

    /// Returns whether the service leaves: it is being removed, and nobody calls it any more.
    pub fn leaves(&self) -> bool {
        self.service.removing && self.caller().is_none()
    }

    pub fn at(&self) -> Millis {
        self.seen.at
    }

    /// Returns what the backend has of an id, whatever start of it; nothing if it has none.
    pub fn present(&self, id: &InstanceId) -> Option<&'a InstanceSeen> {
        self.seen.instances.get(id).filter(|s| s.life != Life::Absent)
    }

    /// Returns what the backend has of the start that is recorded.
    pub fn current(&self, id: &InstanceId, instance: &Instance) -> Option<&'a InstanceSeen> {
        self.present(id).filter(|s| s.generation == instance.generation)
    }

    /// Returns what is seen of an instance that is meant to run and does.
    pub fn running(&self, id: &InstanceId, instance: &Instance) -> Option<&'a InstanceSeen> {
        let meant = instance.state == InstanceState::Wanted;
        self.current(id, instance).filter(|s| meant && matches!(s.life, Life::Running { .. }))
    }

    /// Returns the verdict about a proven instance that runs.
    fn verdict(&self, id: &InstanceId, instance: &Instance) -> Option<Option<bool>> {
        instance.healthy_at.and(self.running(id, instance)).map(|s| s.healthy)
    }

    pub fn healthy(&self, id: &InstanceId, instance: &Instance) -> bool {
        self.verdict(id, instance) == Some(Some(true))
    }

    /// Returns whether a proven instance runs and is not known to be unhealthy.
    pub fn perhaps_healthy(&self, id: &InstanceId, instance: &Instance) -> bool {
        self.verdict(id, instance).is_some_and(|verdict| verdict != Some(false))
    }

    /// Returns whether a proven instance runs and fails its checks. A verdict already takes several failures in a
    /// row, so it is no blip.
    pub fn sick(&self, id: &InstanceId, instance: &Instance) -> bool {
        self.verdict(id, instance) == Some(Some(false))
    }

    /// Returns the recorded instances of a release.
    pub fn of(&self, release: ReleaseNumber) -> impl Iterator<Item = (&'a InstanceId, &'a Instance)> {
        self.service.instances.iter().filter(move |(id, _)| id.release() == release)
    }

    pub fn count_healthy(&self, release: ReleaseNumber) -> u32 {
        self.of(release).filter(|(id, i)| self.healthy(id, i)).count() as u32
    }

    /// Returns everything that the backend has of this service and nobody recorded.
    pub fn strays(&self) -> impl Iterator<Item = (&'a InstanceId, &'a InstanceSeen)> {
        let ends = (InstanceId::new(self.name.clone(), 0, 0), InstanceId::new(self.name.clone(), u32::MAX, u32::MAX));
        let stray =
            |id: &InstanceId, s: &InstanceSeen| s.life != Life::Absent && !self.service.instances.contains_key(id);
        self.seen.instances.range(ends.0..=ends.1).filter(move |(id, s)| stray(id, s))
    }

    /// Returns the highest generation that is recorded or seen.
    pub fn generation(&self) -> Generation {
        let ends = (InstanceId::new(self.name.clone(), 0, 0), InstanceId::new(self.name.clone(), u32::MAX, u32::MAX));
        let seen = self.seen.instances.range(ends.0..=ends.1).map(|(_, s)| s.generation).max().unwrap_or(0);
        self.service.generation.max(seen)
    }

    pub fn health(&self, release: ReleaseNumber) -> Option<&'a Health> {
        self.service.releases.get(&release).map(|r| &r.health)
    }

    /// Returns when an instance of which is only asked that it runs has done so for long enough: as long as its checks
    /// would take, so that one that dies as it starts has not proven itself first.
    pub fn proven_at(&self, id: &InstanceId, instance: &Instance) -> Option<Millis> {
        let health = self.health(id.release()).filter(|h| h.check == HealthCheck::Running)?;
        let checks = u64::from(health.healthy_after.saturating_sub(1));
        match self.running(id, instance)?.life {
            Life::Running { since, .. } => Some(since + Millis(health.interval.0.saturating_mul(checks))),
            _ => None,
        }
    }

    /// Returns when an instance that has not proven itself by then is taken to have failed; none while that can't be told.
    ///
    /// One that nobody has judged gets twice the time: the one who judges may just have been restarted.
    pub fn late_at(&self, id: &InstanceId, instance: &Instance) -> Option<Millis> {
        let health = self.health(id.release())?;
        let by_router = health.check.port().is_some();
        let judge_is_there = self.seen.backend_connected && (!by_router || self.seen.router_connected);
        let meant = instance.state == InstanceState::Wanted && instance.healthy_at.is_none();
        let seen = self.current(id, instance).filter(|_| judge_is_there && meant)?;
        let twice = health.start_within + health.start_within;
        match seen.life {
            Life::Running { since, .. } => {
                let judged = seen.healthy.is_some();
                Some(since.max(instance.requested_at) + if judged { health.start_within } else { twice })
            }
            // How long a start takes is the backend's to bound: from here it can't be told from one that came late.
            Life::Starting | Life::Absent | Life::Ended { .. } => None,
        }
    }

    pub fn late(&self, id: &InstanceId, instance: &Instance) -> bool {
        self.late_at(id, instance).is_some_and(|at| self.at() >= at)
    }

    /// Returns whether an instance of the release that fails is replaced. One of a rollout's target is not: there it
    /// is the rollout that fails, except while the target has no traffic yet. During a rolling update the number of
    /// instances is bounded, so replacements wait for its end.
    pub fn replaces(&self, release: ReleaseNumber) -> bool {
        let Some(rollout) = &self.service.rollout else { return true };
        match rollout.spec.strategy {
            _ if old_release(rollout).is_none() && rollout.baseline.is_some() => true,
            Strategy::Recreate => false,
            Strategy::Rolling { .. } => matches!(rollout.phase, Phase::Returning { .. }) && release != rollout.target,
            Strategy::BlueGreen | Strategy::Canary { .. } => {
                release != rollout.target || rollout.phase == Phase::Starting
            }
        }
    }

    /// Returns whether two instances of the release can be there at once.
    pub fn overlaps(&self, release: ReleaseNumber) -> bool {
        let exclusive = self.service.releases.get(&release).is_some_and(|r| r.exclusive_volume().is_some());
        self.service.settings.rollout.strategy != Strategy::Recreate && !exclusive
    }

    /// Returns whether the release has a volume for one instance alone, and one that may have it is there still.
    pub fn volume_taken(&self, release: ReleaseNumber) -> bool {
        let exclusive =
            |n: ReleaseNumber| self.service.releases.get(&n).is_some_and(|r| r.exclusive_volume().is_some());
        let alive = |s: &InstanceSeen| !matches!(s.life, Life::Ended { .. });
        exclusive(release)
            && (self.service.instances.keys().any(|id| exclusive(id.release()))
                || self.strays().any(|(id, s)| exclusive(id.release()) && alive(s)))
    }

    /// Returns whether a release serves as wanted and alone: so many healthy, routed instances, and none of any other
    /// but the warm one.
    pub fn settled(&self, release: Option<ReleaseNumber>) -> bool {
        let warm = self.service.warm.as_ref().map(|w| w.release);
        let in_place = |id: &InstanceId, i: &Instance| {
            Some(id.release()) != release || self.healthy(id, i) && self.present(id).is_some_and(|s| s.routed)
        };
        self.in_force
            && self.cleared(&[release, warm])
            && release.is_none_or(|r| self.of(r).count() as u32 == self.service.settings.instances)
            && self.service.instances.iter().all(|(id, i)| in_place(id, i))
    }

    /// Returns whether nothing runs but live instances of these releases.
    pub fn cleared(&self, releases: &[Option<ReleaseNumber>]) -> bool {
        self.seen.backend_connected
            && self.strays().all(|(_, s)| matches!(s.life, Life::Ended { .. }))
            && self.service.instances.iter().all(|(id, i)| {
                releases.contains(&Some(id.release()))
                    && (live(i) || self.service.warm.as_ref().is_some_and(|w| w.release == id.release()))
            })
    }
}
