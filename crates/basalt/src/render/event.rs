//! Events and lines of output, one line each.

use basalt_api::{Event, LogLine, LogStream};
use serde_json::{Map, Value};

use super::{Paint, Style};

/// Returns an event as one line: number, time of day, what it is about, what happened.
pub fn event(event: &Event, style: Style) -> String {
    let paint = match event.kind.as_str() {
        "instance_exited" | "instance_failed" | "job_attempt_failed" => Paint::Bad,
        "instance_proven" | "job_succeeded" => Paint::Good,
        "rollout_finished" if event.data.get("outcome").and_then(Value::as_str) == Some("done") => Paint::Good,
        "rollout_finished" => Paint::Bad,
        _ => Paint::Strong,
    };
    let kind = style.paint(paint, &event.kind.replace('_', " "));
    let detail = detail(event);
    let number = style.paint(Paint::Faint, &format!("{:>5} {}", event.seq, time_of_day(&event.at.to_string())));
    format!("{number} {} {kind}{}", event.subject, if detail.is_empty() { detail } else { format!(": {detail}") })
}

/// Returns a line of output with the instance before it.
pub fn log_line(line: &LogLine, style: Style) -> String {
    let time = style.paint(Paint::Faint, time_of_day(&line.at.to_string()));
    let mark = match line.stream {
        LogStream::Stdout => style.paint(Paint::Good, "│"),
        LogStream::Stderr => style.paint(Paint::Bad, "│"),
    };
    format!("{time} {} {mark} {}", style.paint(Paint::Strong, &line.instance), one_line(&line.line))
}

/// Returns the text with control characters made visible: what an instance writes must not steer a terminal.
/// Line feeds stay.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Like [`printable`], in one line.
fn one_line(text: &str) -> String {
    printable(text).trim_end().replace(":\n", ": ").replace('\n', " / ")
}

/// Returns the time of day of an RFC 3339 time, which is what is of use in a row of lines.
fn time_of_day(time: &str) -> &str {
    time.get(11..23).unwrap_or(time)
}

/// Returns what is worth saying of an event beside its kind and subject.
fn detail(event: &Event) -> String {
    let Some(data) = event.data.as_object() else { return String::new() };
    let text = |key: &str| data.get(key).and_then(Value::as_str);
    let number = |key: &str| data.get(key).and_then(Value::as_u64);
    match event.kind.as_str() {
        "release_created" | "release_forgotten" => number("number").map(|n| format!("#{n}")).unwrap_or_default(),
        "rollout_started" => rollout(data.get("rollout").and_then(Value::as_object)),
        "rollout_advanced" => data.get("phase").map(phase).unwrap_or_default(),
        "weight_shifted" => match (number("target"), number("weight")) {
            (Some(target), Some(weight)) => format!("#{target} has {} % of the traffic", weight as f64 / 100.0),
            _ => String::new(),
        },
        "rollout_finished" => data.get("outcome").map(outcome).unwrap_or_default(),
        "instance_exited" | "job_attempt_failed" => {
            let mut said = data.get("exit").map(exit).unwrap_or_default();
            let lines = data.get("last_lines").and_then(Value::as_array);
            if let Some(last) = lines.and_then(|lines| lines.last()).and_then(Value::as_str) {
                said.push_str(&format!("; its last line: {}", one_line(last)));
            }
            said
        }
        "instance_failed" => text("probe").unwrap_or("not healthy in time").to_owned(),
        "instance_drained" => text("reason").map(|reason| reason.replace('_', " ")).unwrap_or_default(),
        "instance_stop_requested" => match number("cut") {
            Some(cut) if cut > 0 => format!("{cut} requests are cut, since its drain time is over"),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn rollout(rollout: Option<&Map<String, Value>>) -> String {
    let Some(rollout) = rollout else { return String::new() };
    let number = |key: &str| rollout.get(key).and_then(Value::as_u64);
    let strategy = rollout.get("spec").and_then(|spec| spec.get("strategy")).map(variant).unwrap_or_default();
    let because = rollout.get("because").and_then(Value::as_str).map(|b| format!(", because {b}")).unwrap_or_default();
    match (number("baseline"), number("target")) {
        (Some(baseline), Some(target)) => format!("#{baseline} → #{target}, {strategy}{because}"),
        (None, Some(target)) => format!("#{target}, {strategy}{because}"),
        _ => strategy,
    }
}

/// Returns the name of an enum's variant in its JSON form.
fn variant(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

fn phase(value: &Value) -> String {
    let name = variant(value);
    let inner = |key: &str| value.get(&name).and_then(|v| v.get(key));
    let step = |key: &str| inner(key).and_then(Value::as_u64).map(|n| n + 1);
    match name.as_str() {
        "moving" => format!("{} moved", inner("moved").and_then(Value::as_u64).unwrap_or_default()),
        "stepping" => format!("step {}", step("step").unwrap_or_default()),
        "growing" => format!("growing for step {}", step("step").unwrap_or_default()),
        "returning" => format!("returning: {}", one_line(inner("reason").and_then(Value::as_str).unwrap_or_default())),
        _ => name,
    }
}

fn outcome(value: &Value) -> String {
    let name = variant(value);
    let reason = value.get(&name).and_then(|v| v.get("reason")).and_then(Value::as_str);
    let name = name.replace('_', " ");
    reason.map_or(name.clone(), |reason| format!("{name}: {}", one_line(reason)))
}

fn exit(value: &Value) -> String {
    serde_json::from_value::<basalt_model::Exit>(value.clone()).map(|exit| exit.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use basalt_api::Timestamp;
    use basalt_model::Millis;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_line_each() {
        let check = |kind: &str, subject: &str, data: Value, expected: &str| {
            let (kind, subject) = (kind.to_owned(), subject.to_owned());
            let at = Timestamp(Millis(1_785_412_800_250));
            let row = Event { seq: 7, at, kind, subject, data, hash: String::new() };
            assert_eq!(event(&row, Style::PLAIN), format!("    7 12:00:00.250 {expected}"));
        };
        check("stack_applied", "shop", json!({}), "shop stack applied");
        check("release_created", "web", json!({"number": 3}), "web release created: #3");
        check(
            "rollout_started",
            "web",
            json!({"rollout": {"baseline": 2, "target": 3, "spec": {"strategy": "blue_green"}}}),
            "web rollout started: #2 → #3, blue_green",
        );
        check("rollout_advanced", "web", json!({"phase": "holding"}), "web rollout advanced: holding");
        check(
            "rollout_advanced",
            "web",
            json!({"phase": {"stepping": {"step": 0, "approved": false}}}),
            "web rollout advanced: step 1",
        );
        check(
            "weight_shifted",
            "web",
            json!({"target": 3, "weight": 2550}),
            "web weight shifted: #3 has 25.5 % of the traffic",
        );
        check(
            "rollout_finished",
            "web",
            json!({"outcome": {"rolled_back": {"reason": "web-3-1 died:\na\nb\n"}}}),
            "web rollout finished: rolled back: web-3-1 died: a / b",
        );
        check(
            "instance_exited",
            "web-3-1",
            json!({"exit": {"code": 3}, "last_lines": ["a", "bad \u{1b}[31m"]}),
            "web-3-1 instance exited: exited with status 3; its last line: bad \u{fffd}[31m",
        );
        check("instance_drained", "web-2-1", json!({"reason": "scaled_down"}), "web-2-1 instance drained: scaled down");
    }

    #[test]
    fn lines_of_output() {
        let line = LogLine::new(Millis(1_785_412_800_250), "web-3-1", LogStream::Stderr, "a\tb\r");
        assert_eq!(log_line(&line, Style::PLAIN), "12:00:00.250 web-3-1 │ a\tb\u{fffd}");
    }
}
