//! Receipts of drains: how many requests and connections of an instance that has left ended by themselves, and which were cut.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use basalt_model::InstanceId;
use serde::Serialize;
use tokio::time::Instant;

use crate::access_log::Rotated;

/// The size at which the file is put aside: some ten thousand receipts.
const LARGEST: u64 = 4 << 20;
/// Connections that one receipt names at most; all are counted.
const MOST_NAMED: usize = 100;
/// How far the clock of whoever stops an instance may be before ours.
const SLACK: Duration = Duration::from_millis(250);

/// What became of what was in flight to an instance when it left the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Receipt {
    pub(crate) instance: InstanceId,
    pub(crate) generation: u64,
    /// How many ended within the drain time.
    pub(crate) ended: u64,
    /// How many were still under way when it was over.
    pub(crate) cut: u64,
    /// Which: the client and what it had asked for.
    pub(crate) which: Vec<String>,
    /// From when it left until the last had ended.
    pub(crate) milliseconds: u64,
}

/// The drain of one start of an instance.
#[derive(Debug)]
pub(crate) struct Drain {
    since: Instant,
    over: Instant,
    ended: AtomicU64,
    cut: AtomicU64,
    which: Mutex<Vec<String>>,
}

impl Drain {
    /// Returns a drain that begins now.
    pub(crate) fn begin(within: Duration) -> Self {
        let since = Instant::now();
        Self { since, over: since + within, ended: 0.into(), cut: 0.into(), which: Mutex::default() }
    }

    /// Returns whether its time has passed.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() + SLACK >= self.over
    }

    /// Counts the end of something in flight; `who` says what it was, where that is known.
    pub(crate) fn count(&self, finished: bool, who: Option<&str>) {
        if finished || !self.is_over() {
            self.ended.fetch_add(1, Relaxed);
            return;
        }
        self.cut.fetch_add(1, Relaxed);
        let mut which = self.which.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(who) = who.filter(|_| which.len() < MOST_NAMED) {
            which.push(who.to_owned());
        }
    }

    /// Returns the receipt.
    pub(crate) fn receipt(&self, instance: &InstanceId, generation: u64) -> Receipt {
        Receipt {
            instance: instance.clone(),
            generation,
            ended: self.ended.load(Relaxed),
            cut: self.cut.load(Relaxed),
            which: self.which.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            milliseconds: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Appends receipts to `DATA/logs/drains.log`, one JSON object a line.
///
/// # Errors
/// If the file can't be written.
pub(crate) fn write(data: &Path, receipts: &[Receipt]) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct At<'r> {
        at: String,
        #[serde(flatten)]
        receipt: &'r Receipt,
    }
    if receipts.is_empty() {
        return Ok(());
    }
    let folder = data.join("logs");
    std::fs::create_dir_all(&folder)?;
    let mut file = Rotated::open(folder.join("drains.log"), LARGEST)?;
    // When it happened is what a receipt is about.
    #[allow(clippy::disallowed_methods)]
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    for receipt in receipts {
        // Strings and numbers always have a JSON form.
        let line = serde_json::to_string(&At { at: format!("{now:.3}"), receipt }).unwrap_or_default();
        file.line(&(line + "\n"))?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_ends_with_the_drain_is_cut() {
        let drain = Drain::begin(Duration::from_secs(6));
        drain.count(false, Some("left"));
        // Whoever stops the instance has begun to count a little earlier.
        tokio::time::advance(Duration::from_millis(5986)).await;
        drain.count(true, Some("done"));
        drain.count(false, Some("cut"));
        let receipt = drain.receipt(&"web-1-1".parse().unwrap(), 1);
        assert_eq!((receipt.ended, receipt.cut, receipt.which), (2, 1, vec!["cut".to_owned()]));
    }
}
