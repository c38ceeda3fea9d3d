//! How events change a job.

use basalt_model::{Event, Job, JobState, Millis, Name};

use crate::evolve::ensure;
use crate::pause::pause;

/// Returns the job that an event declares.
pub(crate) fn created(event: &Event, generation: u64) -> Option<(Name, Job)> {
    let Event::JobCreated { job, number, release, retries, timeout, depends_on } = event else { return None };
    let declared = Job {
        release: release.clone(),
        number: *number,
        retries: *retries,
        timeout: *timeout,
        depends_on: depends_on.clone(),
        state: JobState::Pending,
        generation,
        failures: 0,
        retry_at: None,
        removing: false,
    };
    Some((job.clone(), declared))
}

/// Changes a job by an event about it. An event that does not fit changes nothing.
pub(crate) fn evolve_job(job: &mut Job, at: Millis, event: &Event) -> Result<(), String> {
    match event {
        Event::JobCreated { number, .. } => {
            ensure(*number >= job.number, || {
                format!("number {number} is below {}, which was given before", job.number)
            })?;
            if let Some((_, declared)) = created(event, job.generation) {
                *job = declared;
            }
        }
        Event::JobStarted { generation, failures, .. } => {
            ensure(job.state == JobState::Pending, || "it is not pending".into())?;
            ensure(*generation > job.generation, || {
                format!("generation {generation} is not above {}, which was given before", job.generation)
            })?;
            job.generation = *generation;
            job.retry_at = None;
            job.state = JobState::Running { generation: *generation, failures: *failures, since: at, stopping: false };
        }
        Event::JobStopRequested { .. } => {
            let JobState::Running { stopping, .. } = &mut job.state else { return Err("it is not running".into()) };
            ensure(!*stopping, || "its stop was requested already".into())?;
            *stopping = true;
        }
        Event::JobSucceeded { .. } => {
            running(job)?;
            job.state = JobState::Succeeded { at };
        }
        Event::JobAttemptFailed { exit, last, .. } => {
            let open = matches!(job.state, JobState::Running { .. } | JobState::Pending);
            ensure(open, || "it has ended already".into())?;
            job.failures = job.failures.saturating_add(1);
            job.retry_at = Some(at + pause(job.failures));
            job.state = if *last { JobState::Failed { exit: exit.clone(), at } } else { JobState::Pending };
        }
        Event::JobRetired { .. } => {
            ensure(!job.removing, || "it has been retired already".into())?;
            job.removing = true;
        }
        _ => return Err("it is not about a job".into()),
    }
    Ok(())
}

fn running(job: &Job) -> Result<(), String> {
    ensure(matches!(job.state, JobState::Running { .. }), || "it is not running".into())
}
