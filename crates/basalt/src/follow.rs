//! Following what an apply has begun until its end state is observed.

use basalt_api::{Client, Event, Feed, LogFilter, Status};

use crate::error::{Outcome, Result};
use crate::goal::{Failed, Goal, Verdict};
use crate::live::Live;
use crate::output::Output;
use crate::remote::{Statuses, asked};
use crate::render::{self, Paint};

/// How many of its last lines are shown of what failed.
const LAST_LINES: usize = 10;

/// Lines that are looked through for those of the release that failed.
const SEARCHED: usize = 500;

/// How following ended.
pub struct Followed {
    /// What of the goal failed; empty if all was reached.
    pub failed: Vec<Failed>,
    /// The status that showed it.
    pub status: Status,
}

impl Followed {
    /// Returns the outcome of the verb.
    pub fn outcome(&self) -> Outcome {
        if self.failed.is_empty() { Outcome::Done } else { Outcome::RolledBack }
    }
}

/// Follows until the goal is decided: redrawn in place on a terminal, one line an event elsewhere, silently for programs.
/// Returns `None` if a person interrupts it; what was begun goes on.
///
/// # Errors
/// If the controller is lost and does not come back.
pub async fn follow(client: &Client, goal: &Goal, seq: u64, out: Output) -> Result<Option<Followed>> {
    let mut statuses = Statuses::new(client);
    let mut live = Live::new(out);
    let mut lines = Lines { client, after: seq, feed: None, out };
    loop {
        let status = tokio::select! {
            status = statuses.next() => status?,
            () = lines.next(), if !out.json() && !out.live => continue,
            signal = tokio::signal::ctrl_c() => {
                drop(signal);
                out.note("\nno longer following; what was begun goes on, see `basalt watch`\n");
                return Ok(None);
            }
        };
        let failed = match goal.judge(&status) {
            Verdict::Open => {
                if out.live && !out.json() {
                    live.draw(&render::status(&status, out.style))?;
                }
                continue;
            }
            Verdict::Reached => Vec::new(),
            Verdict::Failed(failed) => failed,
        };
        if out.live && !out.json() {
            live.clear()?;
        }
        if !out.json() && !out.live {
            lines.rest(status.seq).await;
        }
        return Ok(Some(Followed { failed, status }));
    }
}

/// The events since a number, each written as one line. They are told for people: that one is lost is no failure.
struct Lines<'a> {
    client: &'a Client,
    after: u64,
    feed: Option<Feed<Event>>,
    out: Output,
}

impl Lines<'_> {
    /// Writes the next event.
    async fn next(&mut self) {
        if self.feed.is_none() {
            self.feed = self.client.event_stream(self.after).await.ok();
        }
        let Some(feed) = &mut self.feed else {
            return tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        };
        match feed.next().await {
            Some(Ok(event)) => self.write(&event),
            _ => self.feed = None,
        }
    }

    /// Writes what is left up to a number.
    async fn rest(&mut self, until: u64) {
        self.feed = None;
        while self.after < until {
            match self.client.events(self.after, 1000).await {
                Ok(events) if !events.is_empty() => events.iter().for_each(|event| self.write(event)),
                _ => return,
            }
        }
    }

    fn write(&mut self, event: &Event) {
        self.after = self.after.max(event.seq);
        drop(self.out.text(&format!("{}\n", render::event(event, self.out.style))));
    }
}

/// Says what failed, with the last lines that it has written.
///
/// # Errors
/// If it can't be written.
pub async fn say_failed(client: &Client, failed: &[Failed], out: Output) -> Result<()> {
    for Failed { name, release, what } in failed {
        let said = render::printable(what).trim_end().replace('\n', "\n    ");
        out.text(&format!("{} {name}#{release} {said}\n", out.style.paint(Paint::Bad, "✗")))?;
        if what.contains('\n') {
            continue; // what it has written last is in the reason
        }
        let filter = LogFilter { service: Some(name.clone()), tail: Some(SEARCHED), ..LogFilter::default() };
        let prefix = format!("{name}-{release}-");
        let lines = asked(client.logs(&filter).await).unwrap_or_default();
        let own: Vec<_> = lines.iter().filter(|line| line.instance.starts_with(&prefix)).collect();
        for line in own.iter().skip(own.len().saturating_sub(LAST_LINES)) {
            out.text(&format!("    {}\n", render::log_line(line, out.style)))?;
        }
    }
    Ok(())
}
