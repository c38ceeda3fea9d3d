//! Who is slow: an instance need not wait for its client without end, and is not to blame if it breaks off then.

use std::time::Duration;

use tokio::time::Instant;

/// How long an instance waits for its client at least before it may break off: less than the time-outs for reading and writing
/// that servers have.
const LONG: Duration = Duration::from_secs(2);

/// How long a client has held up its instance.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Held {
    since: Option<Instant>,
    /// How long before, in all.
    total: Duration,
    /// The longest time of those.
    longest: Duration,
}

impl Held {
    /// Notes whether it is the client who has to take or to send something now.
    pub(crate) fn note(&mut self, held: bool) {
        if held {
            self.since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.since.take() {
            self.total += since.elapsed();
            self.longest = self.longest.max(since.elapsed());
        }
    }

    /// Whether the instance still waits, and has done so for long in all: who sends a little now and then holds it up as well.
    pub(crate) fn is_long(&self) -> bool {
        self.since.is_some_and(|since| self.total + since.elapsed() >= LONG)
    }

    /// Whether it has waited for long at one time. What it had to say until then may have come only after that.
    pub(crate) fn was_long(&self) -> bool {
        self.longest.max(self.since.map_or(Duration::ZERO, |since| since.elapsed())) >= LONG
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_add_up_for_who_still_waits() {
        let mut held = Held::default();
        held.note(false);
        for expected in [false, true] {
            held.note(true);
            advance(LONG / 2).await;
            held.note(true);
            assert_eq!((held.is_long(), held.was_long()), (expected, false));
            held.note(false);
            advance(LONG).await;
            assert!(!held.is_long() && !held.was_long());
        }
        held.note(true);
        advance(LONG).await;
        assert!(held.is_long() && held.was_long());
        held.note(false);
        assert!(!held.is_long() && held.was_long());
    }
}
