//! Who is slow: an instance need not wait for its client without end, and is not to blame if it breaks off then.

use std::time::Duration;

use tokio::time::Instant;

/// How long a client may hold up its instance in all, so that the instance is still to blame if it breaks off: less than the
/// time-outs for reading and writing that servers have.
const LONG: Duration = Duration::from_secs(2);

/// How long a client has held up its instance in all.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Held {
    since: Option<Instant>,
    before: Duration,
}

impl Held {
    /// Notes whether it is the client who has to take or to send something now.
    pub(crate) fn note(&mut self, held: bool) {
        if held {
            self.since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.since.take() {
            self.before += since.elapsed();
        }
    }

    /// Whether that has been for long.
    pub(crate) fn is_long(&self) -> bool {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed()) >= LONG
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_add_up() {
        let mut held = Held::default();
        held.note(false);
        for expected in [false, true] {
            held.note(true);
            advance(LONG / 2).await;
            held.note(true);
            assert_eq!(held.is_long(), expected);
            held.note(false);
            advance(LONG).await;
            assert_eq!(held.is_long(), expected);
        }
    }
}
