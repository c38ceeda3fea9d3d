//! Decisions about one job.

use basalt_model::{Event, Exit, InstanceId, Job, JobState, Millis, Name};

use crate::observation::{Action, Decision, InstanceSeen, Life, Observation, Waiting};

/// Time from SIGTERM to SIGKILL for a job that is stopped: as long as a service gets unless its stack says otherwise.
const STOP_WITHIN: Millis = Millis::seconds(10);

/// Decides what is to be recorded or done about a job now.
pub fn decide_job(name: &Name, job: &Job, seen: &Observation<'_>) -> Decision {
    match next(name, job, seen) {
        Some(event) => Decision { events: vec![event], ..Decision::default() },
        None => act(name, job, seen),
    }
}

/// Returns all that the backend has under the job's name.
fn present<'a>(name: &Name, seen: &Observation<'a>) -> impl Iterator<Item = (&'a InstanceId, &'a InstanceSeen)> {
    let ends = (InstanceId::new(name.clone(), 0, 0), InstanceId::new(name.clone(), u32::MAX, u32::MAX));
    seen.instances.range(ends.0..=ends.1).filter(|(_, s)| s.life != Life::Absent)
}

fn instance_of(name: &Name, job: &Job) -> InstanceId {
    InstanceId::new(name.clone(), job.number, 1)
}

/// Returns the try under way as the backend has it.
fn current<'a>(name: &Name, job: &Job, seen: &Observation<'a>) -> Option<&'a InstanceSeen> {
    let JobState::Running { generation, .. } = job.state else { return None };
    seen.instances.get(&instance_of(name, job)).filter(|s| s.life != Life::Absent && s.generation == generation)
}

fn next(name: &Name, job: &Job, seen: &Observation<'_>) -> Option<Event> {
    let clear = seen.backend_connected && present(name, seen).next().is_none();
    match &job.state {
        JobState::Running { .. } if job.removing && clear => Some(Event::JobRemoved { job: name.clone() }),
        JobState::Running { since, stopping, failures, .. } => running(name, job, seen, *since, *stopping, *failures),
        _ if job.removing => clear.then(|| Event::JobRemoved { job: name.clone() }),
        JobState::Pending => {
            let done = |j: &Name| matches!(seen.jobs.get(j), Some(JobState::Succeeded { .. }));
            let failed = |j: &&Name| matches!(seen.jobs.get(*j), Some(JobState::Failed { .. }));
            if let Some(before) = job.depends_on.iter().find(failed) {
                let exit = Exit::CouldNotStart(format!("job `{before}`, which it depends on, failed"));
                let job = name.clone();
                return Some(Event::JobAttemptFailed { job, exit, last_lines: Vec::new(), last: true });
            }
            let paused = job.retry_at.is_some_and(|at| seen.at < at);
            // A new try waits for the end of all older ones: two at once might do the same work twice.
            (clear && !paused && job.depends_on.iter().all(done)).then(|| {
                let newest = present(name, seen).map(|(_, s)| s.generation).max().unwrap_or(0);
                let generation = job.generation.max(newest) + 1;
                Event::JobStarted { job: name.clone(), generation, failures: job.failures }
            })
        }
        JobState::Succeeded { .. } | JobState::Failed { .. } => None,
    }
}

fn running(
    name: &Name,
    job: &Job,
    seen: &Observation<'_>,
    since: Millis,
    stopping: bool,
    failures: u32,
) -> Option<Event> {
    let job_name = name.clone();
    let last = failures >= job.retries;
    let current = current(name, job, seen);
    match current.map(|s| &s.life) {
        Some(Life::Ended { exit, .. }) if exit.is_success() && !stopping => Some(Event::JobSucceeded { job: job_name }),
        Some(Life::Ended { exit, last_lines, .. }) => {
            let late = stopping && !job.removing;
            let exit = if late { Exit::TimedOut { after: job.timeout } } else { exit.clone() };
            let last_lines = last_lines.clone();
            Some(Event::JobAttemptFailed { job: job_name, exit, last_lines, last })
        }
        None if stopping && seen.backend_connected => {
            Some(Event::JobAttemptFailed { job: job_name, exit: Exit::Unseen, last_lines: Vec::new(), last })
        }
        _ => {
            let over = seen.at >= since + job.timeout;
            (!stopping && (over || job.removing)).then_some(Event::JobStopRequested { job: job_name })
        }
    }
}

fn act(name: &Name, job: &Job, seen: &Observation<'_>) -> Decision {
    let mut decision = Decision::default();
    let own = current(name, job, seen);
    let id = instance_of(name, job);
    let stopping = !matches!(job.state, JobState::Running { stopping: false, .. });
    for (instance, seen) in present(name, seen) {
        let is_own = own.is_some() && *instance == id;
        if is_own && !stopping {
            continue;
        }
        let (instance, generation) = (instance.clone(), seen.generation);
        decision.actions.push(match seen.life {
            Life::Ended { .. } => Action::Forget { instance, generation },
            _ => Action::Stop { instance, generation, within: STOP_WITHIN },
        });
    }
    match &job.state {
        JobState::Pending => {
            let done = |j: &&Name| matches!(seen.jobs.get(*j), Some(JobState::Succeeded { .. }));
            let missing = job.depends_on.iter().filter(|j| !done(j)).cloned();
            decision.waiting.extend(missing.map(|job| Waiting::Job { job }));
            if let Some(until) = job.retry_at.filter(|until| *until > seen.at) {
                decision.waiting.push(Waiting::Backoff { instance: id, until, exits: job.failures, exit: None });
                decision.wake_at = Some(until);
            }
        }
        JobState::Running { generation, since, stopping, .. } => {
            let absent = seen.instances.get(&id).is_none_or(|s| s.life == Life::Absent);
            if absent && !stopping && seen.backend_connected {
                decision.actions.push(Action::Start { instance: id.clone(), generation: *generation });
            }
            decision.waiting.push(match stopping {
                true => Waiting::Stop { instance: id, since: *since },
                false => Waiting::Job { job: name.clone() },
            });
            decision.wake_at = Some(*since + job.timeout).filter(|at| *at > seen.at);
        }
        JobState::Succeeded { .. } | JobState::Failed { .. } => {}
    }
    if !seen.backend_connected && !matches!(job.state, JobState::Succeeded { .. } | JobState::Failed { .. }) {
        decision.waiting.push(Waiting::Backend);
    }
    decision
}
