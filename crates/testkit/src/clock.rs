//! The one place that asks for the time.

use std::time::Instant;

/// Returns the time, for measuring spans.
#[allow(clippy::disallowed_methods)] // a load is real: what it measures is real time
pub(crate) fn now() -> Instant {
    Instant::now()
}
