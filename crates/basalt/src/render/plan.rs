//! The plan.

use basalt_model::Name;
use basalt_plan::{Change, JobChange, Plan, PlannedRelease, ServiceChange};

use super::{Node, Paint, Style, fields};

/// Returns a plan as a tree: what is created, updated and removed, and how; what stays is only counted.
pub fn plan(plan: &Plan, style: Style) -> String {
    let mut root = Node::new(format!("stack {}", style.paint(Paint::Strong, plan.stack.as_str())));
    let mut same = 0;
    for (name, job) in &plan.jobs {
        match job.change {
            Change::Unchanged => same += 1,
            _ => root.push(job_node(name, job, style)),
        }
    }
    for (name, service) in &plan.services {
        match service.change {
            Change::Unchanged => same += 1,
            _ => root.push(service_node(name, service, style)),
        }
    }
    if same > 0 {
        root.line(style.paint(Paint::Faint, &format!("= {same} unchanged")));
    }
    format!("{}\n{}\n", root.draw(&|text| style.paint(Paint::Faint, text)), totals(plan, style))
}

fn service_node(name: &Name, service: &ServiceChange, style: Style) -> Node {
    let (sign, said) = change(service.change, style);
    let from = service.from.map(|n| format!("{name}#{n}"));
    let to = service.release.as_ref().map(|r| release(name, r));
    let passage = match (service.change, from, to) {
        (Change::Create, _, Some(to)) => format!(" as {to}, {}", count(service.instances, "instance")),
        (Change::Remove, Some(from), _) => format!(" with {from}"),
        (Change::Configure, Some(from), _) => format!(", stays on {from}"),
        (Change::Abort, Some(from), Some(to)) => format!(" the rollout to {from}, back to {to}"),
        (_, Some(from), Some(to)) => format!(": {from} → {to}"),
        (_, None, Some(to)) => format!(" to {to}"),
        _ => String::new(),
    };
    let mut node = Node::new(format!("{sign} service {} {said}{passage}", style.paint(Paint::Strong, name.as_str())));
    if let Some(strategy) = &service.strategy {
        let extra = match service.extra_instances {
            0 => "none extra meanwhile".to_owned(),
            n => format!("up to {n} extra meanwhile"),
        };
        node.line(format!("{strategy}, {}, {extra}", count(service.instances, "instance")));
    }
    for line in fields(&service.fields, style) {
        node.line(line);
    }
    node
}

fn job_node(name: &Name, job: &JobChange, style: Style) -> Node {
    let (sign, said) = match (job.change, &job.release) {
        (Change::Update, Some(PlannedRelease { kept: true, .. })) => {
            (style.paint(Paint::Busy, "~"), "is run again, since it failed".to_owned())
        }
        (Change::Update, Some(release_)) => {
            (style.paint(Paint::Busy, "~"), format!("is run anew as {}", release(name, release_)))
        }
        (Change::Create, Some(release_)) => {
            (style.paint(Paint::Good, "+"), format!("is run as {}", release(name, release_)))
        }
        (other, _) => {
            let (sign, said) = change(other, style);
            (sign, said.to_owned())
        }
    };
    let mut node = Node::new(format!("{sign} job {} {said}", style.paint(Paint::Strong, name.as_str())));
    for line in fields(&job.fields, style) {
        node.line(line);
    }
    node
}

fn change(change: Change, style: Style) -> (String, &'static str) {
    let (sign, paint, said) = match change {
        Change::Create => ("+", Paint::Good, "is created"),
        Change::Update => ("~", Paint::Busy, "is updated"),
        Change::Abort => ("~", Paint::Busy, "gives up"),
        Change::Configure => ("~", Paint::Busy, "is configured"),
        Change::Unchanged => ("=", Paint::Faint, "stays"),
        Change::Remove => ("-", Paint::Bad, "is removed"),
    };
    (style.paint(paint, sign), said)
}

fn release(name: &Name, release: &PlannedRelease) -> String {
    let kept = if release.kept { ", kept" } else { "" };
    format!("{name}#{} ({}{kept})", release.number, release.id.short())
}

/// Returns a number with its noun.
pub(super) fn count(n: impl Into<u64>, noun: &str) -> String {
    let n = n.into();
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

fn totals(plan: &Plan, style: Style) -> String {
    let changes = || plan.services.values().map(|s| s.change).chain(plan.jobs.values().map(|j| j.change));
    let of = |wanted: &[Change]| changes().filter(|c| wanted.contains(c)).count();
    if !plan.has_changes() {
        return style.paint(Paint::Good, "nothing to do: what is recorded is what is declared");
    }
    let update = of(&[Change::Update, Change::Abort, Change::Configure]);
    let (create, remove, same) = (of(&[Change::Create]), of(&[Change::Remove]), of(&[Change::Unchanged]));
    format!("{create} to create, {update} to update, {remove} to remove, {same} unchanged")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use basalt_model::Digest;
    use basalt_plan::FieldChange;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn planned(number: u32, kept: bool) -> Option<PlannedRelease> {
        Some(PlannedRelease { number, id: Digest::from_bytes([0xab; 32]), kept })
    }

    fn service(change: Change, from: Option<u32>, release: Option<PlannedRelease>) -> ServiceChange {
        let rolls = change == Change::Update;
        ServiceChange {
            change,
            release,
            from,
            fields: Vec::new(),
            strategy: rolls.then(|| "canary".to_owned()),
            instances: 4,
            extra_instances: if rolls { 4 } else { 0 },
        }
    }

    fn field(name: &str, before: Option<&str>, after: Option<&str>) -> FieldChange {
        FieldChange { field: name.into(), before: before.map(Into::into), after: after.map(Into::into) }
    }

    fn example() -> Plan {
        let mut web = service(Change::Update, Some(6), planned(7, false));
        web.fields = vec![
            field("env.LOG", Some("info"), Some("debug")),
            field("configs[\"/etc/app.toml\"].content", Some("a = 1\nb = 2\n"), Some("a = 1\nb = 3\n")),
            field("settings.instances", Some("2"), Some("4")),
        ];
        let mut scaled = service(Change::Configure, Some(3), planned(3, true));
        scaled.fields = vec![field("settings.instances", Some("1"), Some("4"))];
        let job = |change, release| JobChange { change, release, fields: Vec::new() };
        Plan {
            stack: name("shop"),
            base: Digest::from_bytes([1; 32]),
            services: BTreeMap::from([
                (name("api"), service(Change::Create, None, planned(1, false))),
                (name("back"), service(Change::Abort, Some(5), planned(4, true))),
                (name("old"), service(Change::Remove, Some(2), None)),
                (name("same"), service(Change::Unchanged, Some(1), planned(1, true))),
                (name("scaled"), scaled),
                (name("web"), web),
            ]),
            jobs: BTreeMap::from([
                (name("migrate"), job(Change::Create, planned(1, false))),
                (name("seed"), job(Change::Update, planned(2, true))),
                (name("done"), job(Change::Unchanged, planned(1, true))),
            ]),
        }
    }

    #[test]
    fn every_kind_of_change() {
        insta::assert_snapshot!(plan(&example(), Style::PLAIN));
    }

    #[test]
    fn colour() {
        insta::assert_snapshot!(plan(&example(), Style { colour: true }).replace('\x1b', "^"));
    }

    #[test]
    fn nothing_to_do() {
        let mut same = example();
        same.services.retain(|_, s| s.change == Change::Unchanged);
        same.jobs.retain(|_, j| j.change == Change::Unchanged);
        insta::assert_snapshot!(plan(&same, Style::PLAIN), @r"
        stack shop
        └─ = 2 unchanged

        nothing to do: what is recorded is what is declared
        ");
    }
}
