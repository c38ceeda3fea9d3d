//! One job.

use basalt_controller::View;
use basalt_model::{InstanceId, Job, JobState as Recorded, Name};

use super::instance::{exit_status, life_state, seen_status};
use super::service::sentences;
use crate::{InstanceState, InstanceStatus, JobState, JobStatus, ReleaseRef, Timestamp};

/// A job has one instance at a time.
const ORDINAL: u32 = 1;

/// Returns the status of a job.
pub(super) fn job_status(view: &View, name: &Name, job: &Job) -> JobStatus {
    let (state, ended_at, last_exit) = match &job.state {
        Recorded::Pending => (JobState::Pending, None, None),
        Recorded::Running { .. } => (JobState::Running, None, None),
        Recorded::Succeeded { at } => (JobState::Succeeded, Some(Timestamp(*at)), None),
        Recorded::Failed { exit, at } => (JobState::Failed, Some(Timestamp(*at)), Some(exit_status(exit))),
    };
    JobStatus {
        name: name.to_string(),
        release: ReleaseRef { number: job.number, id: job.release.id().to_string() },
        state,
        failures: job.failures,
        retries: job.retries,
        retry_at: job.retry_at.map(Timestamp),
        ended_at,
        last_exit,
        instance: instance(view, name, job),
        waiting: sentences(view, name),
        removing: job.removing,
    }
}

/// Returns the instance of the try under way.
fn instance(view: &View, name: &Name, job: &Job) -> Option<InstanceStatus> {
    let Recorded::Running { generation, stopping, .. } = job.state else { return None };
    let id = InstanceId::new(name.clone(), job.number, ORDINAL);
    let seen = view.instances.get(&id).filter(|seen| seen.generation == generation);
    let state = if stopping { InstanceState::Stopping } else { life_state(seen) };
    Some(seen_status(view, &id, seen, Some(&job.release), state))
}
