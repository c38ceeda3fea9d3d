//! The status.

use basalt_api::{
    InstanceState, InstanceStatus, JobState, JobStatus, LastRollout, RolloutStatus, ServiceStatus, Status,
};
use basalt_model::Millis;

use super::event::printable;
use super::plan::count;
use super::{Node, Paint, Style};

/// Columns of a progress bar: one for each 5 %.
const BAR: usize = 20;

/// Returns the status as a tree: stack, services with their instances, jobs, and what is wrong.
pub fn status(status: &Status, style: Style) -> String {
    let mut root = Node::new(match &status.stack {
        Some(stack) => headline(status, stack, style),
        None if status.services.is_empty() && status.jobs.is_empty() => "nothing is applied".to_owned(),
        None => format!("nothing is applied any more; {}", style.paint(Paint::Busy, "what was goes")),
    });
    for job in &status.jobs {
        root.push(job_node(job, status, style));
    }
    for service in &status.services {
        root.push(service_node(service, status, style));
    }
    let mut out = root.draw(&|text| style.paint(Paint::Faint, text));
    problems(status, style, &mut out);
    out
}

fn headline(status: &Status, stack: &str, style: Style) -> String {
    let state = if status.settled { style.paint(Paint::Good, "settled") } else { style.paint(Paint::Busy, "moving") };
    let http = status.gateway.http.as_ref().map(|http| format!(", http://{http}")).unwrap_or_default();
    format!("stack {} {state}{http}", style.paint(Paint::Strong, stack))
}

fn problems(status: &Status, style: Style, out: &mut String) {
    let mut say = |paint, label: &str, text: &str| {
        out.push_str(&format!("{} {}\n", style.paint(paint, label), printable(text)));
    };
    if !status.keeper.connected {
        say(Paint::Bad, "problem:", "the keeper is not reached; instances are shown as they were seen last");
    }
    if !status.gateway.connected {
        say(Paint::Bad, "problem:", "the gateway is not reached");
    }
    for problem in &status.problems {
        say(Paint::Bad, "problem:", problem);
    }
    for note in &status.notes {
        say(Paint::Faint, "note:", note);
    }
}

fn service_node(service: &ServiceStatus, status: &Status, style: Style) -> Node {
    let release = match (&service.stable, &service.rollout) {
        (Some(stable), _) => format!("#{}", stable.number),
        (None, _) => style.paint(Paint::Faint, "no stable release"),
    };
    let healthy = healthy(service);
    let enough = healthy >= service.wanted;
    let healthy = format!("{healthy}/{} healthy", service.wanted);
    let healthy = style.paint(if enough { Paint::Good } else { Paint::Bad }, &healthy);
    let removing = if service.removing { style.paint(Paint::Busy, " is being removed") } else { String::new() };
    let name = style.paint(Paint::Strong, &service.name);
    let mut node = Node::new(format!("{name} {release} {healthy}{}{removing}", traffic(service)));
    for route in &service.routes {
        let host = route.host.as_deref().unwrap_or("*");
        node.line(style.paint(Paint::Faint, &format!("answers {host}{}", route.path)));
    }
    match &service.rollout {
        Some(rollout) => node.push(rollout_node(rollout, &service.waiting, status, style)),
        None => {
            for sentence in &service.waiting {
                node.line(waits(sentence, style));
            }
            if let Some(last) = service.last_rollout.as_ref().filter(|last| failed(last)) {
                node.line(ended(last, style));
            }
        }
    }
    if let Some(warm) = &service.warm {
        let left = warm.until.0.since(status.at.0);
        node.line(style.paint(Paint::Faint, &format!("#{} is kept warm for {}", warm.release, age(left))));
    }
    for instance in &service.instances {
        node.push(instance_node(instance, status, style));
    }
    node
}

/// Returns how many instances are healthy, those that are only kept warm not counted.
pub fn healthy(service: &ServiceStatus) -> u32 {
    let warm = service.warm.as_ref().map(|warm| warm.release);
    let counts = |i: &&InstanceStatus| i.healthy && Some(i.release) != warm;
    u32::try_from(service.instances.iter().filter(counts).count()).unwrap_or(u32::MAX)
}

/// Returns the shares of traffic, unless one release has it all.
fn traffic(service: &ServiceStatus) -> String {
    let shares: Vec<String> =
        service.traffic.iter().filter(|t| t.weight > 0.0).map(|t| format!("#{} {} %", t.release, t.weight)).collect();
    if shares.len() > 1 { format!(", traffic {}", shares.join(", ")) } else { String::new() }
}

fn rollout_node(rollout: &RolloutStatus, waiting: &[String], status: &Status, style: Style) -> Node {
    let from = rollout.baseline.map(|n| format!("#{n} → ")).unwrap_or_default();
    let progress = &rollout.progress;
    let share = if progress.wanted == 0 { 1.0 } else { f64::from(progress.healthy) / f64::from(progress.wanted) };
    let step = match &progress.step {
        Some(step) => format!(", step {} of {}", step.number, step.of),
        None => String::new(),
    };
    let paused = if rollout.paused { style.paint(Paint::Bad, ", paused") } else { String::new() };
    let mut node = Node::new(format!(
        "{from}#{} {} {} {} {}/{} healthy, {} % of the traffic{step}{paused}, {} so far",
        rollout.target,
        rollout.strategy,
        style.paint(Paint::Busy, &rollout.phase),
        bar(share, style),
        progress.healthy,
        progress.wanted,
        progress.weight,
        age(status.at.0.since(rollout.started_at.0)),
    ));
    if let Some(because) = &rollout.because {
        node.line(format!("began because {}", printable(because)));
    }
    if let Some(reason) = &rollout.reason {
        node.line(format!("{} {}", style.paint(Paint::Bad, "returns:"), printable(reason)));
    }
    let sentences = if rollout.waiting.is_empty() { waiting } else { &rollout.waiting };
    for sentence in sentences {
        node.line(waits(sentence, style));
    }
    node
}

fn bar(share: f64, style: Style) -> String {
    let full = ((share.clamp(0.0, 1.0) * BAR as f64) as usize).min(BAR);
    let (done, left) = ("█".repeat(full), "░".repeat(BAR - full));
    format!("{}{}", style.paint(Paint::Good, &done), style.paint(Paint::Faint, &left))
}

fn waits(sentence: &str, style: Style) -> String {
    format!("{} {}", style.paint(Paint::Busy, "…"), printable(sentence))
}

/// Returns whether a rollout ended otherwise than meant.
pub fn failed(last: &LastRollout) -> bool {
    matches!(last.outcome.as_str(), "rolled_back" | "aborted")
}

/// Returns a line on how a rollout ended.
pub fn ended(last: &LastRollout, style: Style) -> String {
    let outcome = last.outcome.replace('_', " ");
    let reason = last.reason.as_ref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    let paint = if failed(last) { Paint::Bad } else { Paint::Good };
    format!("rollout to #{} {}{reason}", last.target, style.paint(paint, &outcome))
}

fn instance_node(instance: &InstanceStatus, status: &Status, style: Style) -> Node {
    let (paint, state) = match (instance.state, instance.healthy) {
        (InstanceState::Running, true) => (Paint::Good, "healthy"),
        (InstanceState::Running, false) => (Paint::Busy, "not healthy"),
        (InstanceState::Exited | InstanceState::Waiting, _) => (Paint::Bad, instance.state.name()),
        (state, _) => (Paint::Busy, state.name()),
    };
    let mut facts = vec![format!("{} {}", style.paint(paint, "●"), style.paint(paint, state))];
    facts.extend(instance.pid.map(|pid| format!("pid {pid}")));
    facts.extend(instance.address.clone());
    facts.extend(instance.started_at.map(|at| age(status.at.0.since(at.0))));
    if instance.requests > 0 {
        facts.push(count(instance.requests, "request"));
    }
    if instance.errors > 0 {
        facts.push(style.paint(Paint::Bad, &count(instance.errors, "error")));
    }
    if instance.in_flight > 0 {
        facts.push(format!("{} in flight", instance.in_flight));
    }
    if instance.exits > 0 {
        facts.push(style.paint(Paint::Bad, &format!("died {}", count(instance.exits, "time"))));
    }
    let mut node = Node::new(format!("{} {}", instance.id, facts.join("  ")));
    if !(instance.state == InstanceState::Running && instance.healthy) {
        if let Some(exit) = &instance.last_exit {
            node.line(style.paint(Paint::Bad, &printable(&exit.text)));
        }
        if let Some(probe) = instance.last_probe.as_ref().filter(|_| instance.state == InstanceState::Running) {
            node.line(format!("last check: {}", printable(probe)));
        }
        if let Some(at) = instance.retry_at {
            node.line(format!("is started again in {}", age(at.0.since(status.at.0))));
        }
    }
    node
}

fn job_node(job: &JobStatus, status: &Status, style: Style) -> Node {
    let paint = match job.state {
        JobState::Pending | JobState::Running => Paint::Busy,
        JobState::Succeeded => Paint::Good,
        JobState::Failed => Paint::Bad,
    };
    let name = style.paint(Paint::Strong, &job.name);
    let ago = job.ended_at.map(|at| format!(" {} ago", age(status.at.0.since(at.0)))).unwrap_or_default();
    let removing = if job.removing { style.paint(Paint::Busy, " is being removed") } else { String::new() };
    let state = style.paint(paint, job.state.name());
    let mut node = Node::new(format!("{name} #{} job {state}{ago}{removing}", job.release.number));
    if job.failures > 0 && job.state != JobState::Succeeded {
        node.line(format!("{} of {} tries failed", job.failures, job.retries.saturating_add(1)));
    }
    if let Some(exit) = &job.last_exit {
        node.line(style.paint(Paint::Bad, &printable(&exit.text)));
    }
    for sentence in &job.waiting {
        node.line(waits(sentence, style));
    }
    if let Some(instance) = &job.instance {
        node.push(instance_node(instance, status, style));
    }
    node
}

/// Returns a span as people say it, in at most two units: `12s`, `3m 20s`, `5h 12m`, `3d 4h`.
pub fn age(span: Millis) -> String {
    let seconds = span.0 / 1000;
    match seconds {
        0 => format!("{}ms", span.0),
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m {}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        s => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn instance(id: &str, release: u32, state: &str, healthy: bool) -> Value {
        let running = state == "running" || state == "draining";
        json!({
            "id": id, "release": release, "state": state, "healthy": healthy,
            "pid": running.then_some(4242), "address": running.then_some("10.83.0.2:8080"),
            "started_at": running.then_some("2026-07-30T11:58:20Z"), "exits": 0, "last_exit": null,
            "last_probe": null, "retry_at": null, "in_flight": 0, "requests": 0, "errors": 0
        })
    }

    fn example() -> Value {
        let mut sick = instance("web-8-2", 8, "running", false);
        sick["last_probe"] = json!("GET / on port 8080: connection refused");
        let mut dead = instance("web-8-3", 8, "waiting", false);
        dead["exits"] = json!(2);
        dead["last_exit"] = json!({"kind": "code", "code": 3, "signal": null, "text": "exited with status 3"});
        dead["retry_at"] = json!("2026-07-30T12:00:02Z");
        let mut busy = instance("web-7-1", 7, "running", true);
        busy["requests"] = json!(1200);
        busy["errors"] = json!(2);
        busy["in_flight"] = json!(3);
        json!({
            "stack": "shop", "environment": "default", "at": "2026-07-30T12:00:00Z", "seq": 44, "settled": false,
            "services": [
                {
                    "name": "web", "stable": {"number": 7, "id": "sha256:ab"},
                    "rollout": {
                        "id": "web-8", "strategy": "canary", "phase": "shifting", "target": 8, "baseline": 7,
                        "waiting": ["waits 3 s more until step 2"],
                        "progress": {"instances": 3, "healthy": 1, "wanted": 4, "weight": 5.0,
                                     "step": {"number": 1, "of": 3, "approval": false}},
                        "paused": true, "reason": null, "because": null,
                        "started_at": "2026-07-30T11:58:00Z", "phase_at": "2026-07-30T11:59:00Z",
                        "deadline_at": "2026-07-30T12:28:00Z"
                    },
                    "last_rollout": null, "warm": null, "wanted": 4, "healthy": 2,
                    "traffic": [{"release": 7, "weight": 95.0}, {"release": 8, "weight": 5.0}],
                    "routes": [{"host": "shop.example.com", "path": "/", "port": "http"}],
                    "instances": [busy, sick, dead, instance("web-8-4", 8, "starting", false)],
                    "waiting": ["waits 3 s more until step 2"], "removing": false
                },
                {
                    "name": "api", "stable": {"number": 2, "id": "sha256:cd"}, "rollout": null,
                    "last_rollout": {"id": "api-3", "baseline": 2, "target": 3, "outcome": "rolled_back",
                                     "reason": "api-3-1 was not healthy within 30s", "at": "2026-07-30T11:00:00Z"},
                    "warm": {"release": 1, "until": "2026-07-30T12:05:30Z"}, "wanted": 1, "healthy": 1,
                    "traffic": [{"release": 2, "weight": 100.0}], "routes": [],
                    "instances": [instance("api-2-1", 2, "running", true)], "waiting": [], "removing": false
                }
            ],
            "jobs": [
                {"name": "migrate", "release": {"number": 1, "id": "sha256:ef"}, "state": "succeeded", "failures": 0,
                 "retries": 2, "retry_at": null, "ended_at": "2026-07-30T10:00:00Z", "last_exit": null,
                 "instance": null, "waiting": [], "removing": false},
                {"name": "seed", "release": {"number": 1, "id": "sha256:ef"}, "state": "failed", "failures": 3,
                 "retries": 2, "retry_at": null, "ended_at": "2026-07-27T08:00:00Z",
                 "last_exit": {"kind": "out_of_memory", "code": null, "signal": null, "text": "out of memory"},
                 "instance": null, "waiting": [], "removing": false}
            ],
            "gateway": {"http": "127.0.0.1:8080", "routes_version": 12, "routes_in_force": true, "connected": true},
            "keeper": {"connected": true}, "problems": ["port 80 is taken"], "notes": []
        })
    }

    #[test]
    fn everything_at_once() {
        let example: Status = serde_json::from_value(example()).unwrap();
        insta::assert_snapshot!(status(&example, Style::PLAIN));
    }

    #[test]
    fn nothing_applied() {
        let mut example: Status = serde_json::from_value(example()).unwrap();
        example.stack = None;
        example.problems.clear();
        let leaving = status(&example, Style::PLAIN);
        assert!(
            leaving.starts_with("nothing is applied any more; what was goes\n") && leaving.contains("web"),
            "{leaving}"
        );
        (example.services, example.jobs) = (Vec::new(), Vec::new());
        assert_eq!(status(&example, Style::PLAIN), "nothing is applied\n");
        example.keeper.connected = false;
        assert!(status(&example, Style::PLAIN).contains("the keeper is not reached"));
    }

    #[test]
    fn ages() {
        let check = |seconds: u64, text: &str| assert_eq!(age(Millis::seconds(seconds)), text);
        check(12, "12s");
        check(200, "3m 20s");
        check(18_720, "5h 12m");
        check(273_600, "3d 4h");
        assert_eq!(age(Millis(250)), "250ms");
    }
}
