//! What an apply is to reach, and whether a status shows it.

use std::collections::BTreeMap;

use basalt_api::{JobState, JobStatus, ServiceStatus, Status};
use basalt_model::Name;
use basalt_plan::{Change, Plan};

use crate::render::healthy;

/// What is to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The number of the last event before: only a status behind it can show what came of it. `None` if nothing was written.
    after: Option<u64>,
    services: BTreeMap<String, Aim>,
    jobs: BTreeMap<String, Aim>,
}

/// What one service or job is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// This release serves, or has run.
    Release(u32),
    /// It is as recorded.
    Quiet,
    /// It is gone.
    Gone,
}

/// What a status shows of a goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not all of it is decided.
    Open,
    /// All is reached.
    Reached,
    /// All is decided, and these failed.
    Failed(Vec<Failed>),
}

/// A service or job that did not reach its aim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The service or job.
    pub name: String,
    /// The release that was to be reached.
    pub release: u32,
    /// What became of it, as a sentence behind the name.
    pub what: String,
}

impl Goal {
    /// Returns the goal of a plan that was performed after event `seq`.
    pub fn of_plan(plan: &Plan, seq: u64) -> Self {
        let aim = |change: Change, release: Option<u32>| match (change, release) {
            (Change::Remove, _) => Some(Aim::Gone),
            (Change::Create | Change::Update | Change::Abort, Some(number)) => Some(Aim::Release(number)),
            (Change::Unchanged, None) => None,
            _ => Some(Aim::Quiet),
        };
        let number = |release: &Option<basalt_plan::PlannedRelease>| release.as_ref().map(|r| r.number);
        // Without changes, all of the stack is to be well; with changes, a neighbour that is not must not hold them up.
        let counts =
            |aim: &Aim, change: Change| *aim != Aim::Quiet || change != Change::Unchanged || !plan.has_changes();
        let key = |name: &Name| name.to_string();
        let services = plan.services.iter().filter_map(|(name, s)| {
            aim(s.change, number(&s.release)).filter(|a| counts(a, s.change)).map(|a| (key(name), a))
        });
        let jobs = plan.jobs.iter().filter_map(|(name, j)| {
            aim(j.change, number(&j.release)).filter(|a| counts(a, j.change)).map(|a| (key(name), a))
        });
        let after = plan.has_changes().then_some(seq);
        Self { after, services: services.collect(), jobs: jobs.collect() }
    }

    /// Returns the goal that one service passes to `release`, or, without one, is as recorded, after event `seq`.
    pub fn of_service(name: &str, release: Option<u32>, seq: u64) -> Self {
        let aim = release.map_or(Aim::Quiet, Aim::Release);
        Self { after: Some(seq), services: BTreeMap::from([(name.to_owned(), aim)]), jobs: BTreeMap::new() }
    }

    /// Returns the goal that nothing of what `status` shows is left, after event `seq`, if one was written.
    pub fn of_removal(status: &Status, seq: Option<u64>) -> Self {
        let gone = |name: &String| (name.clone(), Aim::Gone);
        let services = status.services.iter().map(|s| gone(&s.name)).collect();
        Self { after: seq, services, jobs: status.jobs.iter().map(|j| gone(&j.name)).collect() }
    }

    /// Returns what a status shows of it.
    pub fn judge(&self, status: &Status) -> Verdict {
        if self.after.is_some_and(|after| status.seq <= after) || !status.gateway.routes_in_force {
            return Verdict::Open;
        }
        let mut failed = Vec::new();
        for (name, aim) in &self.services {
            let service = status.services.iter().find(|s| s.name == *name);
            match judge_service(service, *aim).or_else(|| stays(status, service?, *aim)) {
                None => return Verdict::Open,
                Some(Ok(())) => {}
                Some(Err((release, what))) => failed.push(Failed { name: name.clone(), release, what }),
            }
        }
        for (name, aim) in &self.jobs {
            let job = status.jobs.iter().find(|j| j.name == *name);
            match judge_job(job, *aim) {
                None => return Verdict::Open,
                Some(Ok(())) => {}
                Some(Err((release, what))) => failed.push(Failed { name: name.clone(), release, what }),
            }
        }
        if failed.is_empty() { Verdict::Reached } else { Verdict::Failed(failed) }
    }
}

/// What is said of what somebody else removed before it was reached.
const REMOVED: &str = "was removed meanwhile";

type Judged = Option<Result<(), (u32, String)>>;

fn judge_service(service: Option<&ServiceStatus>, aim: Aim) -> Judged {
    let (service, wanted) = match (service, aim) {
        (None, Aim::Gone) => return Some(Ok(())),
        (None, Aim::Release(number)) => return Some(Err((number, REMOVED.to_owned()))),
        (None, Aim::Quiet) | (Some(_), Aim::Gone) => return None,
        (Some(service), Aim::Release(number)) => (service, Some(number)),
        (Some(service), Aim::Quiet) => (service, None),
    };
    if service.rollout.is_some() || service.removing {
        return None;
    }
    let stable = service.stable.as_ref().map(|stable| stable.number);
    match wanted {
        Some(number) if stable != Some(number) => {
            let last = service.last_rollout.as_ref()?;
            if last.target != number || last.outcome == "done" {
                return Some(Err((number, format!("was superseded by #{}", last.target))));
            }
            let serving = stable.map(|n| format!(", #{n} serves as before")).unwrap_or_default();
            let reason = last.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let said = format!("was {}{serving}{reason}", last.outcome.replace('_', " "));
            Some(Err((number, said)))
        }
        _ => (service.waiting.is_empty() && healthy(service) >= service.wanted).then_some(Ok(())),
    }
}

/// Judges what was to be removed and stays, because what calls it has come to rest where it does.
fn stays(status: &Status, service: &ServiceStatus, aim: Aim) -> Judged {
    let caller = status.services.iter().find(|s| service.called_by.as_ref() == Some(&s.name))?;
    let rests = aim == Aim::Gone && caller.rollout.is_none() && !caller.removing;
    let release = |s: &ServiceStatus| s.stable.as_ref().map_or(0, |stable| stable.number);
    let what = || format!("stays, since {}#{} calls it", caller.name, release(caller));
    rests.then(|| Err((release(service), what())))
}

fn judge_job(job: Option<&JobStatus>, aim: Aim) -> Judged {
    let (job, wanted) = match (job, aim) {
        (None, Aim::Gone) => return Some(Ok(())),
        (None, Aim::Release(number)) => return Some(Err((number, REMOVED.to_owned()))),
        (None, Aim::Quiet) | (Some(_), Aim::Gone) => return None,
        (Some(job), Aim::Release(number)) => (job, Some(number)),
        (Some(job), Aim::Quiet) => (job, None),
    };
    if let Some(number) = wanted.filter(|number| *number < job.release.number) {
        return Some(Err((number, format!("was superseded by #{}", job.release.number))));
    }
    if wanted.is_some_and(|number| number != job.release.number) || job.removing {
        return None;
    }
    match job.state {
        JobState::Pending | JobState::Running => None,
        JobState::Succeeded => Some(Ok(())),
        JobState::Failed => {
            let exit = job.last_exit.as_ref().map(|exit| format!(": {}", exit.text)).unwrap_or_default();
            Some(Err((job.release.number, format!("failed{exit}"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(stable: Option<u32>, target: Option<u32>, last: Option<(u32, &str)>) -> Value {
        json!({
            "name": "web", "stable": stable.map(|n| json!({"number": n, "id": "sha256:ab"})),
            "rollout": target.map(|target| json!({
                "id": "web-1", "strategy": "canary", "phase": "starting", "target": target, "baseline": stable,
                "waiting": [], "paused": false, "reason": null, "because": null,
                "progress": {"instances": 0, "healthy": 0, "wanted": 1, "weight": 0.0, "step": null},
                "started_at": "2026-07-30T11:58:00Z", "phase_at": "2026-07-30T11:59:00Z",
                "deadline_at": "2026-07-30T12:28:00Z"
            })),
            "last_rollout": last.map(|(target, outcome)| json!({
                "id": "web-1", "baseline": stable, "target": target, "outcome": outcome, "reason": "it died",
                "at": "2026-07-30T11:00:00Z"
            })),
            "warm": null, "wanted": 0, "healthy": 0, "traffic": [], "routes": [], "instances": [], "waiting": [],
            "removing": false, "called_by": null
        })
    }

    fn job(number: u32, state: &str) -> Value {
        json!({
            "name": "seed", "release": {"number": number, "id": "sha256:ef"}, "state": state, "failures": 1,
            "retries": 0, "retry_at": null, "ended_at": null,
            "last_exit": {"kind": "code", "code": 1, "signal": null, "text": "exited with status 1"},
            "instance": null, "waiting": [], "removing": false
        })
    }

    fn status(seq: u64, services: &[Value], jobs: &[Value]) -> Status {
        let value = json!({
            "stack": "shop", "environment": "default", "at": "2026-07-30T12:00:00Z", "seq": seq, "settled": true,
            "services": services, "jobs": jobs,
            "gateway": {"http": null, "routes_version": 1, "routes_in_force": true, "connected": true},
            "keeper": {"connected": true}, "problems": [], "notes": []
        });
        serde_json::from_value(value).unwrap()
    }

    fn goal(services: Option<Aim>, jobs: Option<Aim>) -> Goal {
        let services = services.map(|aim| ("web".to_owned(), aim)).into_iter().collect();
        let jobs = jobs.map(|aim| ("seed".to_owned(), aim)).into_iter().collect();
        Goal { after: Some(10), services, jobs }
    }

    #[test]
    fn services() {
        let check = |aim: Aim, service: Option<Value>, expected: &str| {
            let services: Vec<Value> = service.into_iter().collect();
            let verdict = match goal(Some(aim), None).judge(&status(11, &services, &[])) {
                Verdict::Open => "open".to_owned(),
                Verdict::Reached => "reached".to_owned(),
                Verdict::Failed(failed) => failed[0].what.clone(),
            };
            assert_eq!(verdict, expected);
        };
        check(Aim::Gone, None, "reached");
        check(Aim::Gone, Some(service(Some(1), None, None)), "open");
        check(Aim::Release(2), None, "was removed meanwhile");
        check(Aim::Release(2), Some(service(Some(1), Some(2), None)), "open");
        check(Aim::Release(2), Some(service(Some(2), None, Some((2, "done")))), "reached");
        check(
            Aim::Release(2),
            Some(service(Some(1), None, Some((2, "rolled_back")))),
            "was rolled back, #1 serves as before: it died",
        );
        check(Aim::Release(2), Some(service(None, None, Some((2, "aborted")))), "was aborted: it died");
        check(
            Aim::Release(2),
            Some(service(Some(3), None, Some((2, "superseded")))),
            "was superseded, #3 serves as before: it died",
        );
        check(Aim::Release(2), Some(service(Some(1), None, Some((3, "done")))), "was superseded by #3");
        check(Aim::Quiet, Some(service(Some(1), None, None)), "reached");
        let mut waits = service(Some(1), None, None);
        waits["waiting"] = json!(["for something"]);
        check(Aim::Quiet, Some(waits), "open");
        let mut short = service(Some(1), None, None);
        short["wanted"] = json!(1);
        check(Aim::Quiet, Some(short), "open");
    }

    #[test]
    fn what_is_still_called_is_not_gone() {
        let check = |web: Option<u32>, expected: Option<&str>| {
            let mut api = service(Some(3), None, None);
            api["name"] = json!("api");
            (api["removing"], api["called_by"]) = (json!(true), json!("web"));
            let services = BTreeMap::from([("api".to_owned(), Aim::Gone)]);
            let goal = Goal { after: None, services, jobs: BTreeMap::new() };
            let status = status(11, &[api, service(Some(1), web, None)], &[]);
            let failed = expected.map(|what| Failed { name: "api".into(), release: 3, what: what.into() });
            let expected = failed.map_or(Verdict::Open, |failed| Verdict::Failed(vec![failed]));
            assert_eq!(goal.judge(&status), expected);
        };
        check(Some(2), None);
        check(None, Some("stays, since web#1 calls it"));
    }

    #[test]
    fn jobs() {
        let check = |aim: Aim, job: Option<Value>, expected: Verdict| {
            let jobs: Vec<Value> = job.into_iter().collect();
            assert_eq!(goal(None, Some(aim)).judge(&status(11, &[], &jobs)), expected);
        };
        let failed = Failed { name: "seed".into(), release: 2, what: "failed: exited with status 1".into() };
        check(Aim::Release(2), Some(job(2, "running")), Verdict::Open);
        check(Aim::Release(2), Some(job(1, "succeeded")), Verdict::Open);
        check(Aim::Release(2), Some(job(2, "succeeded")), Verdict::Reached);
        check(Aim::Release(2), Some(job(2, "failed")), Verdict::Failed(vec![failed]));
        check(Aim::Gone, None, Verdict::Reached);
    }

    #[test]
    fn what_was_seen_before_does_not_count() {
        let services = [service(Some(2), None, Some((2, "done")))];
        let goal = goal(Some(Aim::Release(2)), None);
        assert_eq!(goal.judge(&status(10, &services, &[])), Verdict::Open);
        assert_eq!(goal.judge(&status(11, &services, &[])), Verdict::Reached);
        let mut early = status(11, &services, &[]);
        early.gateway.routes_in_force = false;
        assert_eq!(goal.judge(&early), Verdict::Open);
    }
}
