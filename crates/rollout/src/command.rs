//! What people ask of a service.

use basalt_model::{Event, Millis, Name, Phase, ReleaseNumber, Rollout, RolloutSpec, Service, Settings, Strategy};

use crate::evolve_service::in_use;

/// What a person may ask of a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Keeps the rollout where it is. Failures still bring it back.
    Pause,
    /// Lets a paused rollout go on.
    Resume,
    /// Ends the hold under way, or approves the step that waits for it.
    Promote,
    /// Gives the rollout up: the baseline serves as before.
    Abort,
    /// Passes to an earlier release, whole.
    Rollback {
        /// The release; `None` is the one that served before.
        to: Option<ReleaseNumber>,
    },
    /// Changes the number of instances.
    Scale {
        /// The new number.
        instances: u32,
    },
}

/// Why a command is not carried out: what is the matter, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    /// What is the matter.
    pub what: String,
    /// What to do instead.
    pub help: String,
}

/// Returns the events that a command makes; none if all is already as it asks.
///
/// # Errors
/// If the service is not in a position to do it.
pub fn command(name: &Name, service: &Service, at: Millis, command: &Command) -> Result<Vec<Event>, Refused> {
    let service_name = name.clone();
    if service.removing {
        return refuse(format!("service `{name}` is being removed"), "apply a stack that has it");
    }
    match command {
        Command::Scale { instances } if *instances == service.settings.instances => Ok(Vec::new()),
        Command::Scale { instances } => {
            scalable(name, service, *instances)?;
            let settings = Settings { instances: *instances, ..service.settings.clone() };
            Ok(vec![Event::ServiceConfigured { service: service_name, settings }])
        }
        Command::Rollback { to } => rollback(name, service, at, *to),
        Command::Pause => match under_way(name, service)? {
            Rollout { paused_at: Some(_), .. } => Ok(Vec::new()),
            Rollout { phase: Phase::Finishing, .. } => {
                refuse("the rollout has all but ended".into(), "to go back, use `basalt rollback`")
            }
            Rollout { phase: Phase::Returning { .. }, .. } => already_returning(),
            _ => Ok(vec![Event::RolloutPaused { service: service_name }]),
        },
        Command::Resume => match under_way(name, service)? {
            Rollout { paused_at: None, .. } => Ok(Vec::new()),
            _ => Ok(vec![Event::RolloutResumed { service: service_name }]),
        },
        Command::Promote => promote(name, under_way(name, service)?),
        Command::Abort => abort(name, under_way(name, service)?, "a person gave it up"),
    }
}

/// Returns the start of a rollout from the release that serves to `target`.
pub fn start_rollout(name: &Name, service: &Service, at: Millis, target: ReleaseNumber, spec: RolloutSpec) -> Event {
    begin(name, service, at, target, spec, Phase::Preparing, None)
}

pub(crate) fn begin(
    name: &Name,
    service: &Service,
    at: Millis,
    target: ReleaseNumber,
    spec: RolloutSpec,
    phase: Phase,
    because: Option<String>,
) -> Event {
    let rollout = Rollout {
        id: format!("{name}-{}", service.rollouts.saturating_add(1)),
        spec,
        baseline: service.stable,
        target,
        phase,
        started_at: at,
        phase_at: at,
        paused_at: None,
        paused_for: Millis::ZERO,
        exits: 0,
        in_force_at: None,
        because,
    };
    Event::RolloutStarted { service: name.clone(), rollout: Box::new(rollout) }
}

/// Checks what a stack file is checked for as well.
fn scalable(name: &Name, service: &Service, instances: u32) -> Result<(), Refused> {
    if instances > Settings::MOST_INSTANCES {
        let what = format!("{instances} instances are more than one service may have");
        return refuse(what, &format!("ask for at most {}", Settings::MOST_INSTANCES));
    }
    let used = service.releases.iter().filter(|(number, _)| in_use(service, **number));
    let exclusive = used.map(|(_, release)| release).find_map(|release| release.exclusive_volume());
    match exclusive {
        Some(volume) if instances > 1 => {
            let what = format!("instances of `{name}` can't share the exclusive volume `{}`", volume.name);
            refuse(what, "keep one instance, or declare the volume with `shared = true`")
        }
        _ => Ok(()),
    }
}

fn promote(name: &Name, rollout: &Rollout) -> Result<Vec<Event>, Refused> {
    if rollout.paused_at.is_some() {
        return refuse(format!("the rollout `{}` is paused", rollout.id), "resume it first: `basalt resume`");
    }
    let phase = match &rollout.phase {
        Phase::Stepping { approved: true, .. } | Phase::Finishing => return Ok(Vec::new()),
        Phase::Stepping { step, .. } => Phase::Stepping { step: *step, approved: true },
        Phase::Holding => Phase::Finishing,
        Phase::Returning { .. } => return already_returning(),
        other => {
            let what =
                format!("the rollout `{}` is {}: it waits for instances, not for a person", rollout.id, other.name());
            return refuse(what, "see what it waits for: `basalt status`");
        }
    };
    Ok(vec![Event::RolloutAdvanced { service: name.clone(), phase }])
}

fn abort(name: &Name, rollout: &Rollout, reason: &str) -> Result<Vec<Event>, Refused> {
    match rollout.phase {
        Phase::Returning { .. } => Ok(Vec::new()),
        Phase::Finishing => refuse("the rollout has all but ended".into(), "to go back, use `basalt rollback`"),
        _ => {
            let phase = Phase::Returning { reason: reason.into(), aborted: true };
            Ok(vec![Event::RolloutAdvanced { service: name.clone(), phase }])
        }
    }
}

fn rollback(name: &Name, service: &Service, at: Millis, to: Option<ReleaseNumber>) -> Result<Vec<Event>, Refused> {
    let rollout = service.rollout.as_ref();
    // With a rollout under way, what served before is what still counts as stable.
    let before = match rollout {
        Some(rollout) => rollout.baseline,
        None => service.warm.as_ref().map(|w| w.release).or(service.previous),
    };
    let Some(target) = to.or(before) else {
        return refuse(format!("service `{name}` has no earlier release"), "see what is kept: `basalt releases`");
    };
    if !service.releases.contains_key(&target) {
        let kept: Vec<String> = service.releases.keys().map(ToString::to_string).collect();
        return refuse(format!("release {target} of `{name}` is not kept"), &format!("kept are {}", kept.join(", ")));
    }
    match rollout {
        Some(r) if r.baseline == Some(target) && r.phase != Phase::Finishing => {
            return abort(name, r, "a person rolled it back");
        }
        Some(r) if r.target == target && !matches!(r.phase, Phase::Returning { .. }) => return Ok(Vec::new()),
        None if service.stable == Some(target) => {
            return refuse(format!("release {target} of `{name}` serves already"), "name an earlier one with `--to`");
        }
        _ => {}
    }
    let wanted = &service.settings.rollout;
    let exclusive = |number: &ReleaseNumber| service.releases.get(number).and_then(|r| r.exclusive_volume());
    if let Some(volume) = exclusive(&target).filter(|_| service.settings.instances > 1) {
        let what = format!("instances of `{name}#{target}` can't share the exclusive volume `{}`", volume.name);
        return refuse(what, &format!("keep one instance first: `basalt scale {name} 1`"));
    }
    // Where old and new can't be there together, that holds on the way back too.
    let mut used = service.releases.keys().filter(|number| in_use(service, **number));
    let apart = exclusive(&target).is_some() && used.any(|number| exclusive(number).is_some());
    let recreate = apart || wanted.strategy == Strategy::Recreate;
    let strategy = if recreate { Strategy::Recreate } else { Strategy::BlueGreen };
    let spec = RolloutSpec { strategy, hold: Millis::ZERO, ..wanted.clone() };
    Ok(vec![begin(name, service, at, target, spec, Phase::Starting, None)])
}

fn under_way<'a>(name: &Name, service: &'a Service) -> Result<&'a Rollout, Refused> {
    service.rollout.as_ref().ok_or_else(|| Refused {
        what: format!("no rollout of `{name}` is under way"),
        help: "see where it stands: `basalt status`".into(),
    })
}

fn already_returning<T>() -> Result<T, Refused> {
    refuse("the rollout is on its way back already".into(), "wait for its end: `basalt watch`")
}

fn refuse<T>(what: String, help: &str) -> Result<T, Refused> {
    Err(Refused { what, help: help.into() })
}
