//! Kept releases.

use std::collections::BTreeMap;

use basalt_controller::View;
use basalt_model::{Millis, Name, Release, ReleaseNumber, Service};

use crate::{ReleaseView, Timestamp};

/// Returns the kept releases of one service or of all, by service and number. `created` says when they were recorded.
pub fn releases(
    view: &View,
    service: Option<&Name>,
    created: &BTreeMap<(Name, ReleaseNumber), Millis>,
) -> Vec<ReleaseView> {
    let wanted = |name: &&Name| service.is_none_or(|service| service == *name);
    let services = view.state.services.iter().filter(|(name, _)| wanted(name));
    services
        .flat_map(|(name, service)| {
            service.releases.iter().map(move |(number, release)| {
                let created_at = created.get(&(name.clone(), *number)).copied();
                release_view(name, service, *number, release, created_at)
            })
        })
        .collect()
}

fn release_view(
    name: &Name,
    service: &Service,
    number: ReleaseNumber,
    release: &Release,
    created_at: Option<Millis>,
) -> ReleaseView {
    let instances = service.instances.keys().filter(|id| id.release() == number).count();
    ReleaseView {
        service: name.to_string(),
        number,
        id: release.id().to_string(),
        created_at: created_at.map(Timestamp),
        stable: service.stable == Some(number),
        warm: service.warm.as_ref().is_some_and(|warm| warm.release == number),
        target: service.rollout.as_ref().is_some_and(|rollout| rollout.target == number),
        instances: u32::try_from(instances).unwrap_or(u32::MAX),
        release: release.clone(),
    }
}
