//! What makes a rollout fail.

use basalt_model::{Exit, Instance, InstanceId, InstanceState, JobState, Millis, Phase, Rollout};

use crate::observation::Life;
use crate::shape::old_release;
use crate::view::View;

/// So many deaths of the target's instances fail a rollout. One may be a lost race at start-up and two a coincidence;
/// three are the release's own.
const EXITS: u32 = 3;

/// So many last lines of output are shown in a reason: enough for the end of a stack trace, few enough for a terminal.
const LINES: usize = 5;

/// Returns why the rollout under way has failed, if it has.
pub(crate) fn failure(view: &View<'_>, rollout: &Rollout) -> Option<String> {
    match rollout.phase {
        Phase::Returning { .. } => None,
        Phase::Preparing => job_failed(view).or_else(|| too_long(view, rollout)),
        // The target has proven itself with all traffic: that the old takes long to leave is no failure.
        Phase::Finishing => target_failed(view, rollout),
        _ => target_failed(view, rollout).or_else(|| too_long(view, rollout)),
    }
}

/// Returns when a rollout must have reached its last phase; none while it is paused.
pub(crate) fn deadline(rollout: &Rollout) -> Option<Millis> {
    let due = rollout.started_at + rollout.paused_for + rollout.spec.deadline;
    (rollout.paused_at.is_none() && rollout.phase != Phase::Finishing).then_some(due)
}

fn too_long(view: &View<'_>, rollout: &Rollout) -> Option<String> {
    let due = deadline(rollout).filter(|due| view.at() >= *due)?;
    let after = due.since(rollout.started_at + rollout.paused_for);
    Some(format!("release {} was not there after {after}, the rollout's deadline", rollout.target))
}

fn job_failed(view: &View<'_>) -> Option<String> {
    view.service.settings.depends_on.iter().find_map(|job| match view.seen.jobs.get(job) {
        Some(JobState::Failed { exit, .. }) => Some(format!("job `{job}`, which comes first, {exit}")),
        _ => None,
    })
}

fn target_failed(view: &View<'_>, rollout: &Rollout) -> Option<String> {
    let died = (rollout.exits >= EXITS).then(|| last_death(view, rollout));
    died.or_else(|| view.of(rollout.target).find_map(|(id, instance)| instance_failed(view, rollout, id, instance)))
}

fn last_death(view: &View<'_>, rollout: &Rollout) -> String {
    let count = format!("instances of release {} died {} times", rollout.target, rollout.exits);
    let dead = |(_, i): &(&InstanceId, &Instance)| matches!(i.state, InstanceState::Waiting { .. });
    let last =
        view.of(rollout.target).find(dead).or_else(|| view.of(rollout.target).find(|(_, i)| i.last_exit.is_some()));
    match last {
        Some((id, instance)) => format!("{count}; {}", death(view, id, instance)),
        None => count,
    }
}

fn death(view: &View<'_>, id: &InstanceId, instance: &Instance) -> String {
    let exit = instance.last_exit.as_ref().map_or_else(|| "ended".into(), Exit::to_string);
    let text = format!("`{id}` {exit}");
    match view.current(id, instance).map(|s| &s.life) {
        Some(Life::Ended { last_lines, .. }) if !last_lines.is_empty() => {
            let lines = &last_lines[last_lines.len().saturating_sub(LINES)..];
            format!("{text}; its last output:\n{}", lines.join("\n"))
        }
        _ => text,
    }
}

fn instance_failed(view: &View<'_>, rollout: &Rollout, id: &InstanceId, instance: &Instance) -> Option<String> {
    let in_rollout = instance.requested_at >= rollout.started_at;
    if let (InstanceState::Waiting { .. }, Some(Exit::CouldNotStart(_)), true) =
        (&instance.state, &instance.last_exit, in_rollout)
    {
        return Some(death(view, id, instance));
    }
    let last = view.current(id, instance).and_then(|s| s.last_probe.as_ref());
    let probe = last.map_or_else(|| "no check has been answered".into(), |p| format!("last check: {p}"));
    if view.late(id, instance) {
        let within = view.health(id.release()).map_or(Millis::ZERO, |h| h.start_within);
        return Some(format!("`{id}` was not healthy within {within}; {probe}"));
    }
    let itself = old_release(rollout).is_none() && rollout.baseline.is_some();
    let replaced = itself || view.replaces(rollout.target);
    (view.sick(id, instance) && !replaced).then(|| format!("`{id}` was healthy and is no longer; {probe}"))
}
