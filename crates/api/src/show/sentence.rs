//! Why it isn't moving, for people.

use basalt_model::{Millis, Name};
use basalt_rollout::Waiting;

/// Returns what a service or job waits for as one sentence without a full stop: who, since when or until when, and what
/// was seen last.
pub fn sentence(of: &Name, waiting: &Waiting, now: Millis) -> String {
    match waiting {
        Waiting::Job { job } => format!("job {job} must end well first"),
        Waiting::Start { instance, since } => format!("instance {instance} has been starting for {}", ago(*since, now)),
        Waiting::Health { instance, since, last_probe } => {
            let probe = last_probe.as_ref().map(|probe| format!("; last check: {probe}")).unwrap_or_default();
            format!("instance {instance} is not healthy yet after {}{probe}", ago(*since, now))
        }
        Waiting::Backoff { instance, until, exits, exit } => {
            let times = if *exits == 1 { "once".to_owned() } else { format!("{exits} times in a row") };
            let exit = exit.as_ref().map(|exit| format!(" (last: {exit})")).unwrap_or_default();
            format!("instance {instance} has died {times}{exit} and is started again {}", ahead(*until, now))
        }
        Waiting::Routes => "the gateway has not acknowledged the newest routes yet".to_owned(),
        Waiting::Drain { instance, until, in_flight } => {
            let requests = match in_flight {
                0 => "gets no new requests".to_owned(),
                1 => "finishes 1 request".to_owned(),
                n => format!("finishes {n} requests"),
            };
            format!("instance {instance} {requests} and is stopped {} at the latest", ahead(*until, now))
        }
        Waiting::Stop { instance, since } => format!("instance {instance} was asked to end {} ago", ago(*since, now)),
        Waiting::Hold { until } => format!("it is watched; goes on {}", ahead(*until, now)),
        Waiting::Approval => format!("a person must promote it: `basalt promote {of}`"),
        Waiting::Resume => format!("a person has paused it; `basalt resume {of}` lets it go on"),
        Waiting::Caller { service, release } => format!("it stays as long as {service}#{release} calls it"),
        Waiting::Backend => "the keeper can't be reached".to_owned(),
        Waiting::Router => "the gateway can't be reached".to_owned(),
    }
}

fn ago(since: Millis, now: Millis) -> String {
    span(now.since(since))
}

fn ahead(until: Millis, now: Millis) -> String {
    match until.since(now) {
        Millis::ZERO => "now".to_owned(),
        left => format!("in {}", span(left)),
    }
}

/// Writes a span as people say it: tenths of a second below ten, then whole seconds, then two units.
fn span(span: Millis) -> String {
    let seconds = span.0 / 1000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, span.0 % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::{Exit, InstanceId};

    #[test]
    fn spans() {
        let check = |ms: u64, text: &str| assert_eq!(span(Millis(ms)), text);
        check(0, "0.0s");
        check(999, "0.9s");
        check(9_999, "9.9s");
        check(10_000, "10s");
        check(59_999, "59s");
        check(60_000, "1m 00s");
        check(3_599_999, "59m 59s");
        check(3_600_000, "1h 00m");
        check(90_000_000, "25h 00m");
    }

    #[test]
    fn sentences() {
        let web: Name = "web".parse().unwrap();
        let one = InstanceId::new(web.clone(), 8, 1);
        let now = Millis(100_000);
        let check = |waiting: Waiting, text: &str| assert_eq!(sentence(&web, &waiting, now), text);
        check(Waiting::Job { job: "migrate".parse().unwrap() }, "job migrate must end well first");
        check(
            Waiting::Start { instance: one.clone(), since: Millis(97_500) },
            "instance web-8-1 has been starting for 2.5s",
        );
        check(
            Waiting::Health { instance: one.clone(), since: Millis(88_000), last_probe: None },
            "instance web-8-1 is not healthy yet after 12s",
        );
        check(
            Waiting::Health {
                instance: one.clone(),
                since: Millis(88_000),
                last_probe: Some("GET / → 503".to_owned()),
            },
            "instance web-8-1 is not healthy yet after 12s; last check: GET / → 503",
        );
        check(
            Waiting::Backoff { instance: one.clone(), until: Millis(104_000), exits: 3, exit: Some(Exit::Code(1)) },
            "instance web-8-1 has died 3 times in a row (last: exited with status 1) and is started again in 4.0s",
        );
        check(
            Waiting::Backoff { instance: one.clone(), until: Millis(100_000), exits: 1, exit: None },
            "instance web-8-1 has died once and is started again now",
        );
        check(Waiting::Routes, "the gateway has not acknowledged the newest routes yet");
        check(
            Waiting::Drain { instance: one.clone(), until: Millis(130_000), in_flight: 1 },
            "instance web-8-1 finishes 1 request and is stopped in 30s at the latest",
        );
        check(
            Waiting::Drain { instance: one.clone(), until: Millis(130_000), in_flight: 0 },
            "instance web-8-1 gets no new requests and is stopped in 30s at the latest",
        );
        check(Waiting::Stop { instance: one, since: Millis(99_000) }, "instance web-8-1 was asked to end 1.0s ago");
        check(Waiting::Hold { until: Millis(220_000) }, "it is watched; goes on in 2m 00s");
        check(Waiting::Approval, "a person must promote it: `basalt promote web`");
        check(Waiting::Resume, "a person has paused it; `basalt resume web` lets it go on");
        check(Waiting::Caller { service: "shop".parse().unwrap(), release: 2 }, "it stays as long as shop#2 calls it");
        check(Waiting::Backend, "the keeper can't be reached");
        check(Waiting::Router, "the gateway can't be reached");
    }
}
