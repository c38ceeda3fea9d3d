//! The verbs `up`, `apply` and `down`.

use std::os::unix::net::UnixStream;

use basalt_api::{Client, Status};
use basalt_model::Digest;
use basalt_plan::{Desired, Plan};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::PidfdFlags;
use serde_json::json;

use crate::cli::{ApplyArgs, UpArgs};
use crate::edge::EdgeArgs;
use crate::error::{CliError, Kind, Outcome, Result};
use crate::follow::{Followed, follow, say_failed};
use crate::goal::{Goal, Verdict};
use crate::output::Output;
use crate::paths::Data;
use crate::planned::PlanFile;
use crate::recorded::recorded;
use crate::remote::asked;
use crate::render::{self, Paint};
use crate::{desired, start, sweeping};

/// Starts what is missing, applies a stack and follows.
///
/// # Errors
/// If an image or secret can't be had, a process does not start, or the controller refuses.
pub async fn up(args: &UpArgs, data: &Data, out: Output) -> Result<Outcome> {
    let Some(declared) = desired::stack(&args.stack, out)? else { return Ok(Outcome::Invalid) };
    // Images first: what can't be baked must not leave processes behind that nobody asked for.
    let desired = desired::desired(&declared, data, out)?;
    // What is refused leaves the gateway as it is, whatever options it would have had.
    let running = Client::new(data.socket("controller"));
    if running.health().await.is_ok() {
        asked(running.plan(&desired).await)?;
    }
    let client = start::ensure(data, &args.edge).await?;
    perform(&client, &desired, None, args.detach, out).await
}

/// Starts what is missing, in the background.
///
/// # Errors
/// If a process does not start, or the gateway that runs was told otherwise.
pub async fn serve(data: &Data, edge: &EdgeArgs, out: Output) -> Result<Outcome> {
    start::ensure(data, edge).await?;
    out.note(&format!("Basalt runs for {}\n", data.dir().display()));
    Ok(Outcome::Done)
}

/// Applies a stack or a saved plan where Basalt runs, and follows.
///
/// # Errors
/// If an image or secret can't be had, or the controller can't be reached or refuses.
pub async fn apply(args: &ApplyArgs, data: &Data, out: Output) -> Result<Outcome> {
    let client = Client::new(data.socket("controller"));
    if let Some(file) = PlanFile::read(&args.stack.stack)? {
        sweeping::spare(&file.desired, data)?;
        return perform(&client, &file.desired, Some(file.plan.base), args.detach, out).await;
    }
    let Some(declared) = desired::stack(&args.stack, out)? else { return Ok(Outcome::Invalid) };
    asked(client.health().await)?;
    let desired = desired::desired(&declared, data, out)?;
    perform(&client, &desired, None, args.detach, out).await
}

async fn perform(
    client: &Client,
    desired: &Desired,
    base: Option<Digest>,
    detach: bool,
    out: Output,
) -> Result<Outcome> {
    let before = asked(client.status().await)?;
    let plan = asked(client.apply(desired, base).await)?;
    if !out.json() && plan.has_changes() {
        out.text(&format!("{}\n", render::plan(&plan, out.style)))?;
    }
    let goal = Goal::of_plan(&plan, before.seq);
    if detach {
        return told(&plan, None, before, out);
    }
    if !plan.has_changes() && goal.judge(&before) == Verdict::Reached {
        return told(&plan, None, before, out);
    }
    match follow(client, &goal, before.seq, out).await? {
        None => Ok(Outcome::Interrupted),
        Some(followed) => {
            if !out.json() {
                say_failed(client, &followed.failed, out).await?;
            }
            let Followed { failed, status } = followed;
            let outcome = if failed.is_empty() { Outcome::Done } else { Outcome::RolledBack };
            told(&plan, Some(failed), status, out).map(|_| outcome)
        }
    }
}

/// Says at the end what has become of it, and where to look.
fn told(plan: &Plan, failed: Option<Vec<crate::goal::Failed>>, status: Status, out: Output) -> Result<Outcome> {
    if out.json() {
        let row = |f: &crate::goal::Failed| json!({ "name": f.name, "release": f.release, "what": f.what });
        let failed: Option<Vec<_>> = failed.as_ref().map(|failed| failed.iter().map(row).collect());
        let changes = plan.has_changes();
        out.document(&json!({ "has_changes": changes, "plan": plan, "failed": failed, "status": status }))?;
        return Ok(Outcome::Done);
    }
    for problem in &status.problems {
        let problem = render::printable(problem);
        out.text(&format!("{} {problem}\n", out.style.paint(Paint::Bad, "problem:")))?;
    }
    let said = match (&failed, plan.has_changes()) {
        (Some(failed), _) if !failed.is_empty() => return Ok(Outcome::RolledBack),
        (None, true) => format!("{} is being applied; follow with `basalt watch`", plan.stack),
        (None, false) => "nothing to do: what runs is what is declared".to_owned(),
        (Some(_), _) => format!("{} {} runs as declared", out.style.paint(Paint::Good, "✓"), plan.stack),
    };
    out.text(&format!("{said}{}\n", addresses(&status)))?;
    Ok(Outcome::Done)
}

/// Returns where requests are answered: `, see http://…`.
fn addresses(status: &Status) -> String {
    let Some(http) = &status.gateway.http else { return String::new() };
    let port = http.rsplit_once(':').map_or("80", |(_, port)| port);
    let mut all: Vec<String> = Vec::new();
    for route in status.services.iter().flat_map(|service| &service.routes) {
        all.push(match &route.host {
            Some(host) => format!("http://{host}:{port}{}", route.path),
            None => format!("http://{http}{}", route.path),
        });
    }
    if all.is_empty() { String::new() } else { format!(", see {}", all.join(" ")) }
}

/// Drains and stops everything, then ends Basalt's own processes.
///
/// # Errors
/// If the controller can't be reached, or something does not end.
pub async fn down(data: &Data, out: Output) -> Result<Outcome> {
    let runs = UnixStream::connect(data.socket("keeper")).is_ok();
    let state = recorded(data)?;
    let applied = state.stack.is_some() || !state.services.is_empty() || !state.jobs.is_empty();
    if !runs && !applied {
        out.note("nothing is running\n");
        return Ok(Outcome::Done);
    }
    let client = start::ensure(data, &EdgeArgs::default()).await?;
    let before = asked(client.status().await)?;
    let applied = before.stack.is_some();
    if applied {
        let plan = asked(client.down().await)?;
        if !out.json() {
            out.text(&format!("{}\n", render::plan(&plan, out.style)))?;
        }
    }
    if applied || !before.services.is_empty() || !before.jobs.is_empty() {
        // Of all that is there, not of the plan: an earlier apply or `down` may still be removing what that does not name.
        let goal = Goal::of_removal(&before, applied.then_some(before.seq));
        if follow(&client, &goal, before.seq, out).await?.is_none() {
            return Ok(Outcome::Interrupted);
        }
    }
    shutdown(data).await?;
    out.note("everything is stopped\n");
    Ok(Outcome::Done)
}

/// How long the keeper's process may take to end once it has said that all is done.
const END_WITHIN: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Ends keeper, gateway and controller, and waits until they are gone.
async fn shutdown(data: &Data) -> Result<()> {
    let log = || format!("the keeper's log is {}", data.logs().join("keeper.log").display());
    let process = UnixStream::connect(data.socket("keeper")).ok().and_then(|stream| {
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        rustix::process::pidfd_open(peer.pid, PidfdFlags::empty()).ok()
    });
    basalt_container::shutdown(data.dir()).await.map_err(|error| CliError::of(Kind::Internal, &error).help(log()))?;
    // A pidfd becomes readable when its process ends (pidfd_open(2)).
    let Some(process) = process else { return Ok(()) };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    match rustix::event::poll(&mut ended, Some(&END_WITHIN)) {
        Ok(0) => Err(CliError::internal("the keeper has stopped everything but does not end").help(log())),
        _ => Ok(()),
    }
}
