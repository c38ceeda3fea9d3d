//! Sweeping the depot: which images releases need, and the controller's sweeping by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_controller::Controller;
use basalt_depot::{Depot, Keep};
use basalt_model::{Digest, Millis, State};
use basalt_plan::Desired;
use basalt_seam::Clock;

use crate::clock::SystemClock;
use crate::error::{CliError, Kind, Result};
use crate::paths::Data;

/// How long an image stays that no release needs: between its being made and its release's being recorded lie seconds,
/// but a plan may be saved today and applied tomorrow.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the controller sweeps. What is swept has been of no use for a day, so an hour more does no harm.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// How long after a release was forgotten it sweeps: several often are at once.
const AFTER_CHANGE: Duration = Duration::from_secs(60);

/// Which releases need an image, by its digest.
pub type Needed = BTreeMap<Digest, Vec<String>>;

/// Returns the images that kept releases need: any of them may be started or rolled back to.
pub fn needed(state: &State) -> Needed {
    let mut needed = Needed::new();
    for (name, service) in &state.services {
        for (number, release) in &service.releases {
            needed.entry(release.image).or_default().push(format!("{name}#{number}"));
        }
    }
    for (name, job) in &state.jobs {
        needed.entry(job.release.image).or_default().push(format!("{name}#{}", job.number));
    }
    needed
}

/// Returns what a sweep at the time `now` keeps.
pub fn keep(images: BTreeSet<Digest>, now: Millis) -> Keep {
    let since = std::time::UNIX_EPOCH + Duration::from_millis(now.0).saturating_sub(UNUSED);
    Keep::Recent { images, since }
}

/// Makes sure that the images of a saved plan are still here, and stay until its releases are recorded.
///
/// # Errors
/// If one is not, or the depot can't be used.
pub fn spare(desired: &Desired, data: &Data) -> Result<()> {
    let depot = Depot::open(&data.depot()).map_err(|error| CliError::of(Kind::Internal, &error))?;
    let services = desired.services.iter().map(|(name, service)| (name, &service.release));
    for (name, release) in services.chain(desired.jobs.iter().map(|(name, job)| (name, &job.release))) {
        if !depot.touch(&release.image).map_err(|error| CliError::of(Kind::Internal, &error))? {
            let message = format!("the image of `{name}` is no longer in the depot: {}", release.image);
            return Err(CliError::invalid(message).help("make the plan again: that bakes or reads its images"));
        }
    }
    Ok(())
}

/// Sweeps every hour, and soon after a release was forgotten. It gives way to whoever works on the depot.
pub async fn sweep(controller: Controller, depot: Arc<Depot>) {
    let mut views = controller.watch();
    let mut before = BTreeSet::new();
    loop {
        let shrunk = async {
            loop {
                let images: BTreeSet<Digest> = needed(&views.borrow_and_update().state).into_keys().collect();
                let shrunk = before.iter().any(|image| !images.contains(image));
                before = images;
                if shrunk {
                    tokio::time::sleep(AFTER_CHANGE).await;
                    return;
                }
                if views.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        // Whichever comes first; in its first hour a controller leaves alone what was there before it.
        drop(tokio::time::timeout(EVERY, shrunk).await);
        let keep = keep(needed(&controller.view().state).into_keys().collect(), SystemClock.now());
        let depot = depot.clone();
        match tokio::task::spawn_blocking(move || depot.try_gc(&keep)).await {
            Ok(Ok(freed)) if freed.files > 0 => {
                tracing::info!(images = freed.images, files = freed.files, bytes = freed.bytes, "swept the depot");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("the depot can't be swept: {error}"),
            Err(error) => tracing::warn!("sweeping the depot has failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_within_a_day_is_kept() {
        let day = 24 * 60 * 60 * 1000;
        let check = |now: u64, since: u64| {
            let expected = std::time::UNIX_EPOCH + Duration::from_millis(since);
            assert_eq!(keep(BTreeSet::new(), Millis(now)), Keep::Recent { images: BTreeSet::new(), since: expected });
        };
        check(10 * day, 9 * day);
        check(0, 0);
    }
}
