//! How long to wait before something that failed is tried again.

use basalt_model::{Instance, Millis};

/// How long an instance must have been healthy for its end to count as the first in a row. A minute is longer than
/// any start-up, so what dies later does not die of how it starts.
pub(crate) const LONG: Millis = Millis::seconds(60);

/// The longest pause. Whatever the cause was, it is noticed within a minute that it is gone.
const LONGEST: Millis = Millis::seconds(60);

/// Returns the pause before the next try after `failures` in a row: 0, 0, 1 s, 2 s, 4 s and so on up to a minute.
///
/// The first try follows at once, because most deaths are single ones; then pauses double, so that something broken
/// costs the machine little and something slow to recover is met soon.
pub(crate) fn pause(failures: u32) -> Millis {
    match failures {
        0 | 1 => Millis::ZERO,
        n => Millis::seconds(1 << (n - 2).min(6)).min(LONGEST),
    }
}

/// Returns how many failures in a row one at `at` makes, after `before` of them.
pub(crate) fn in_a_row(instance: &Instance, before: u32, at: Millis) -> u32 {
    match instance.healthy_at {
        Some(healthy_at) if at.since(healthy_at) >= LONG => 1,
        _ => before.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let seconds: Vec<u64> = (0..=10).map(|n| pause(n).0 / 1000).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(u32::MAX), LONGEST);
    }
}
