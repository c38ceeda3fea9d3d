//! `rollout` blocks.

use basalt_model::{CanaryStep, Millis, RolloutSpec, Share, Strategy, Weight};

use super::service::positive;
use crate::fault::Fault;
use crate::read;
use crate::reader::Reader;
use crate::suggest::did_you_mean;
use crate::units;

/// The most steps of a canary: one for each percent.
const MOST_STEPS: usize = 100;

/// Attributes that belong to one strategy, for saying which.
const OF_STRATEGY: [(&str, &str); 4] =
    [("max_surge", "rolling"), ("max_unavailable", "rolling"), ("instances", "canary"), ("steps", "canary")];

/// Decodes the `rollout` block; without one, the default.
pub(super) fn rollout(reader: &mut Reader) -> RolloutSpec {
    let default = RolloutSpec::default();
    let ev = reader.ev;
    let Some(block) = reader.only_labelled_block("rollout") else { return default };
    let Some((label, label_at)) = Reader::single_label(ev, block) else { return default };
    let mut rollout = Reader::block(ev, block, format!("rollout \"{label}\" of {}", reader.what));
    let strategy = match label.as_str() {
        "rolling" => rolling(&mut rollout),
        "canary" => canary(&mut rollout),
        "blue_green" => Strategy::BlueGreen,
        "recreate" => Strategy::Recreate,
        "ab_test" => {
            reader.report(Fault::at(label_at, "strategy `ab_test` is not supported yet"));
            return default;
        }
        other => {
            let known = ["rolling", "blue_green", "canary", "recreate"];
            let fault = Fault::at(label_at, format!("there is no strategy `{}`", other.escape_debug()));
            reader.report(fault.maybe_help(did_you_mean(&other.replace('-', "_"), known)));
            return default;
        }
    };
    for (word, of) in OF_STRATEGY {
        rollout.refuse(word, format!("`{word}` belongs to strategy `{of}`"));
    }
    for word in ["check", "gate", "webhook", "approval"] {
        rollout.not_yet(word);
    }
    let spec = RolloutSpec {
        deadline: rollout.get("deadline", positive).unwrap_or(default.deadline),
        hold: rollout.get("hold", units::duration).unwrap_or(default.hold),
        keep_old: rollout.get("keep_old", units::duration).unwrap_or(default.keep_old),
        strategy,
    };
    check(&rollout, &spec);
    rollout.finish();
    spec
}

/// Decodes what is particular to `rolling`.
fn rolling(rollout: &mut Reader) -> Strategy {
    let Strategy::Rolling { max_surge: surge, max_unavailable: unavailable } = RolloutSpec::default().strategy else {
        // The default is a rolling one; were it not, nothing could be missing here either.
        return RolloutSpec::default().strategy;
    };
    let max_surge = rollout.get("max_surge", units::share).unwrap_or(surge);
    let max_unavailable = rollout.get("max_unavailable", units::share).unwrap_or(unavailable);
    let none = |share: Share| matches!(share, Share::Count(0) | Share::Percent(0));
    if none(max_surge) && none(max_unavailable) {
        let fault =
            Fault::at(rollout.place("max_surge"), "with `max_surge` and `max_unavailable` at zero nothing can move");
        rollout
            .report(fault.help("allow an instance more, `max_surge = 1`, or an instance less, `max_unavailable = 1`"));
    }
    Strategy::Rolling { max_surge, max_unavailable }
}

/// Decodes what is particular to `canary`.
fn canary(rollout: &mut Reader) -> Strategy {
    // One instance is the least that can be watched.
    let instances = rollout.get("instances", |value| match units::share(value)? {
        Share::Count(0) | Share::Percent(0) => {
            Err(Fault::at(value.at, "a canary needs an instance").help("write `1`, or a percentage").into())
        }
        share => Ok(share),
    });
    const EXAMPLE: &str = "steps = [{ weight = 5, hold = \"2m\" }, { weight = 50, hold = \"5m\" }]";
    let ev = rollout.ev;
    let what = rollout.what.clone();
    let at = rollout.place("steps");
    let steps = rollout.required("steps", EXAMPLE, |value| {
        read::list(value, |item| Ok(Reader::object(ev, item, format!("a step of {what}")).map(step)))
    });
    let Some(steps) = steps else { return Strategy::Canary { instances: Share::Count(1), steps: Vec::new() } };
    if steps.is_empty() {
        rollout.report(Fault::at(at, format!("{what} has no steps")).help(format!("write {EXAMPLE}")));
    }
    if steps.len() > MOST_STEPS {
        rollout.report(Fault::at(at, format!("{what} has more than {MOST_STEPS} steps")));
    }
    let steps: Vec<(CanaryStep, Fault)> = steps.into_iter().flatten().flatten().collect();
    for pair in steps.windows(2) {
        let [(before, _), (after, not_rising)] = pair else { continue };
        if after.weight <= before.weight {
            rollout.report(not_rising.clone().help(format!("the step before has {}: each has more", before.weight)));
        }
    }
    let steps = steps.into_iter().map(|(step, _)| step).collect();
    Strategy::Canary { instances: instances.unwrap_or(Share::Count(1)), steps }
}

/// Decodes a step, with the fault to report if its weight is not above the one before.
fn step(mut step: Reader) -> Option<(CanaryStep, Fault)> {
    let weight: Option<Weight> = step.required("weight", "weight = 5, a percentage", units::weight);
    let hold = step.get("hold", units::duration).unwrap_or(Millis::ZERO);
    let approval = step.get("approval", read::boolean).unwrap_or(false);
    let fault = Fault::at(step.place("weight"), "the weights of a canary rise from step to step");
    step.not_yet("check");
    step.finish();
    weight.map(|weight| (CanaryStep { weight, hold, approval }, fault))
}

/// Reports times that contradict each other.
fn check(rollout: &Reader, spec: &RolloutSpec) {
    let steps = match &spec.strategy {
        Strategy::Canary { steps, .. } => steps.iter().fold(Millis::ZERO, |sum, step| sum + step.hold),
        _ => Millis::ZERO,
    };
    let holds = steps + spec.hold;
    if holds >= spec.deadline {
        let deadline = spec.deadline;
        let message =
            format!("the holds add up to {holds}, and the deadline is {deadline}: no rollout could ever be done");
        rollout
            .report(Fault::at(rollout.place("deadline"), message).help("give a longer `deadline`, or shorter holds"));
    }
    if spec.strategy == Strategy::Recreate && spec.keep_old > Millis::ZERO {
        let fault =
            Fault::at(rollout.place("keep_old"), "`recreate` stops the old release first: nothing of it can be kept");
        rollout.report(fault.help("leave `keep_old` out"));
    }
}
