//! The verbs that read: `status`, `watch`, `releases`, `diff`, `events`, `logs`.

use basalt_api::{Client, Event, LogFilter, ReleaseView, Status};
use basalt_model::InstanceId;
use basalt_seam::Clock;
use serde_json::json;

use crate::cli::{EventsArgs, LogsArgs};
use crate::clock::SystemClock;
use crate::error::{CliError, Outcome, Result};
use crate::live::Live;
use crate::output::Output;
use crate::remote::{Statuses, asked};
use crate::render;

/// Events that are asked for at once.
const PAGE: usize = 1000;

/// Shows the status.
///
/// # Errors
/// If the controller can't be reached.
pub async fn status(client: &Client, out: Output) -> Result<Outcome> {
    show(&asked(client.status().await)?, out)?;
    Ok(Outcome::Done)
}

fn show(status: &Status, out: Output) -> Result<()> {
    if out.json() { out.document(status) } else { out.text(&render::status(status, out.style)) }
}

/// Shows the status at every change until it is interrupted.
///
/// # Errors
/// If the controller is lost and does not come back.
pub async fn watch(client: &Client, out: Output) -> Result<Outcome> {
    asked(client.status().await)?;
    let (mut statuses, mut live) = (Statuses::new(client), Live::new(out));
    loop {
        let status = statuses.next().await?;
        if out.json() {
            out.row(&status)?;
        } else if out.live {
            live.draw(&render::status(&status, out.style))?;
        } else {
            out.text(&format!("{}\n", render::status(&status, out.style)))?;
        }
    }
}

/// Lists the kept releases.
///
/// # Errors
/// If the controller can't be reached, or there is no such service.
pub async fn releases(client: &Client, service: Option<&str>, out: Output) -> Result<Outcome> {
    let releases = asked(client.releases(service).await)?;
    if out.json() {
        out.document(&releases)?;
    } else {
        out.text(&render::releases(&releases, SystemClock.now(), out.style))?;
    }
    Ok(Outcome::Done)
}

/// Shows how two releases differ.
///
/// # Errors
/// If the controller can't be reached, or there are no such releases.
pub async fn diff(client: &Client, service: &str, from: Option<u32>, to: Option<u32>, out: Output) -> Result<Outcome> {
    let releases = asked(client.releases(Some(service)).await)?;
    let (from, to) = pair(service, &releases, from, to)?;
    let changes = basalt_plan::field_changes(&from.release, &to.release);
    if out.json() {
        out.document(&json!({ "service": service, "from": from.number, "to": to.number, "fields": changes }))?;
    } else {
        let mut text = format!("{service}#{} → {service}#{}\n", from.number, to.number);
        for line in render::fields(&changes, out.style) {
            text.push_str(&format!("  {}\n", line.replace('\n', "\n  ")));
        }
        if changes.is_empty() {
            text.push_str("  no difference\n");
        }
        out.text(&text)?;
    }
    Ok(Outcome::Done)
}

/// Returns the two releases that are meant: to the target or the stable one, from the stable one or the one before it.
fn pair<'a>(
    service: &str,
    releases: &'a [ReleaseView],
    from: Option<u32>,
    to: Option<u32>,
) -> Result<(&'a ReleaseView, &'a ReleaseView)> {
    let numbered = |number: u32| {
        releases.iter().find(|r| r.number == number).ok_or_else(|| {
            let kept: Vec<String> = releases.iter().map(|r| r.number.to_string()).collect();
            CliError::invalid(format!("there is no release `{service}#{number}`"))
                .help(format!("kept are: {}", kept.join(", ")))
        })
    };
    let newest = || {
        let target = releases.iter().find(|r| r.target);
        target.or_else(|| releases.iter().find(|r| r.stable)).or(releases.last())
    };
    let none = || CliError::invalid(format!("`{service}` has no releases to compare"));
    let to = match to {
        Some(number) => numbered(number)?,
        None => newest().ok_or_else(none)?,
    };
    let from = match from {
        Some(number) => numbered(number)?,
        // After a rollback the newer one is what was left behind.
        None => releases
            .iter()
            .filter(|r| r.number != to.number)
            .max_by_key(|r| (r.stable, r.number < to.number, r.number))
            .ok_or_else(|| CliError::invalid(format!("`{service}#{}` is the only release kept", to.number)))?,
    };
    Ok((from, to))
}

/// Shows events.
///
/// # Errors
/// If the controller can't be reached.
pub async fn events(client: &Client, args: &EventsArgs, out: Output) -> Result<Outcome> {
    if args.follow {
        let mut feed = asked(client.event_stream(args.after).await)?;
        while let Some(event) = feed.next().await {
            write_event(&asked(event)?, out)?;
        }
        return Ok(Outcome::Done);
    }
    let mut after = args.after;
    loop {
        let events = asked(client.events(after, PAGE).await)?;
        let Some(last) = events.last() else { return Ok(Outcome::Done) };
        after = last.seq;
        for event in &events {
            write_event(event, out)?;
        }
    }
}

/// Writes an event as one line.
///
/// # Errors
/// If it can't be written.
pub fn write_event(event: &Event, out: Output) -> Result<()> {
    if out.json() { out.row(event) } else { out.text(&format!("{}\n", render::event(event, out.style))) }
}

/// Shows what instances have written.
///
/// # Errors
/// If the controller can't be reached, or there is nothing of that name.
pub async fn logs(client: &Client, args: &LogsArgs, out: Output) -> Result<Outcome> {
    let filter = filter(client, args).await?;
    let write = |line| {
        if out.json() { out.row(&line) } else { out.text(&format!("{}\n", render::log_line(&line, out.style))) }
    };
    if args.follow {
        let mut feed = asked(client.log_stream(&filter).await)?;
        while let Some(line) = feed.next().await {
            write(asked(line)?)?;
        }
    } else {
        asked(client.logs(&filter).await)?.into_iter().try_for_each(write)?;
    }
    Ok(Outcome::Done)
}

/// Tells a service or job from an instance: a name that is declared is one, what looks like an instance id the other.
async fn filter(client: &Client, args: &LogsArgs) -> Result<LogFilter> {
    let mut filter = LogFilter { tail: args.tail, ..LogFilter::default() };
    let Some(of) = &args.of else { return Ok(filter) };
    let status = asked(client.status().await)?;
    let known: Vec<&str> =
        status.services.iter().map(|s| s.name.as_str()).chain(status.jobs.iter().map(|j| j.name.as_str())).collect();
    if known.contains(&of.as_str()) {
        filter.service = Some(of.clone());
    } else if of.parse::<InstanceId>().is_ok() {
        filter.instance = Some(of.clone());
    } else {
        return Err(CliError::invalid(format!("there is no service, job or instance `{of}`")).help(
            if known.is_empty() { "nothing is applied".to_owned() } else { format!("there are: {}", known.join(", ")) },
        ));
    }
    Ok(filter)
}
