//! The verbs that ask something of a service: `rollback`, `promote`, `pause`, `resume`, `abort`, `scale`.

use basalt_api::Client;

use crate::error::{CliError, Outcome, Result};
use crate::follow::{follow, say_failed};
use crate::goal::Goal;
use crate::output::Output;
use crate::remote::asked;

/// What is asked of a rollout under way.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// Approves the step, or ends the hold.
    Promote,
    /// Keeps it where it stands.
    Pause,
    /// Lets it go on.
    Resume,
    /// Gives it up.
    Abort,
}

/// Asks something of a rollout under way.
///
/// # Errors
/// If the controller can't be reached or refuses.
pub async fn ask(client: &Client, service: &str, ask: Ask, out: Output) -> Result<Outcome> {
    let (answer, said) = match ask {
        Ask::Promote => (client.promote(service).await, "is promoted"),
        Ask::Pause => (client.pause(service).await, "is paused"),
        Ask::Resume => (client.resume(service).await, "goes on"),
        Ask::Abort => (client.abort(service).await, "is given up; the old release serves on"),
    };
    asked(answer)?;
    out.note(&format!("the rollout of {service} {said}\n"));
    Ok(Outcome::Done)
}

/// Goes back to an earlier release, and follows.
///
/// # Errors
/// If the controller can't be reached or refuses.
pub async fn rollback(client: &Client, service: &str, to: Option<u32>, detach: bool, out: Output) -> Result<Outcome> {
    let before = asked(client.status().await)?;
    asked(client.rollback(service, to).await)?;
    if detach {
        return Ok(Outcome::Done);
    }
    // The command has been recorded; the release that it chose is the target of the rollout that it began, if it is
    // still under way, and otherwise what serves.
    let now = asked(client.status().await)?;
    let service_now = now.services.iter().find(|s| s.name == service);
    let goes_to = |r: &basalt_api::RolloutStatus| if r.phase == "returning" { r.baseline } else { Some(r.target) };
    let target = service_now.and_then(|s| s.rollout.as_ref()).and_then(goes_to).or(to);
    let seq = before.seq.min(now.seq);
    let goal = Goal::of_service(service, target, seq);
    finish(client, &goal, seq, &format!("{service} is rolled back"), out).await
}

/// Changes how many instances run, and follows.
///
/// # Errors
/// If the controller can't be reached or refuses.
pub async fn scale(client: &Client, counts: &[String], detach: bool, out: Output) -> Result<Outcome> {
    let mut wanted = Vec::new();
    for count in counts {
        let parsed = count.split_once('=').and_then(|(service, n)| Some((service, n.parse::<u32>().ok()?)));
        wanted.push(parsed.ok_or_else(|| {
            CliError::invalid(format!("`{count}` does not say how many instances")).help("write it as SERVICE=N")
        })?);
    }
    for (service, instances) in wanted {
        let before = asked(client.status().await)?;
        asked(client.scale(service, instances).await)?;
        let same = before.services.iter().any(|s| s.name == service && s.wanted == instances);
        if detach || same {
            continue;
        }
        let goal = Goal::of_service(service, None, before.seq);
        let done = format!("{service} has {instances} instances");
        match finish(client, &goal, before.seq, &done, out).await? {
            Outcome::Done => {}
            other => return Ok(other),
        }
    }
    Ok(Outcome::Done)
}

async fn finish(client: &Client, goal: &Goal, seq: u64, done: &str, out: Output) -> Result<Outcome> {
    let Some(followed) = follow(client, goal, seq, out).await? else { return Ok(Outcome::Interrupted) };
    if out.json() {
        out.document(&followed.status)?;
    } else if followed.failed.is_empty() {
        out.text(&format!("{done}\n"))?;
    } else {
        say_failed(client, &followed.failed, out).await?;
    }
    Ok(followed.outcome())
}
