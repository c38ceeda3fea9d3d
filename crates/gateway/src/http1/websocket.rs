//! Where messages of a WebSocket begin and end (RFC 6455 §5), and the frame that ends one.

/// What a client is told when its instance is to stop: `1001 (going away)`, and that it may come back (RFC 6455 §7.4.1).
pub(crate) const GOING_AWAY: &[u8] = b"\x88\x0f\x03\xe9come back now";

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; 10],
    /// How much of the head has passed.
    has: usize,
    /// How much of the payload is still to come.
    left: u64,
    /// Whether the message goes on with another frame (RFC 6455 §5.4).
    goes_on: bool,
}

impl Frames {
    /// Whether the last message is whole.
    pub(crate) fn is_between(&self) -> bool {
        self.has == 0 && self.left == 0 && !self.goes_on
    }

    /// Follows bytes up to the end of the message that is under way, or all of them. Returns how many.
    pub(crate) fn pass_one(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let passed = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= passed as u64;
                at += passed;
            } else {
                self.head[self.has] = bytes[at];
                self.has += 1;
                at += 1;
                if let Some(left) = payload(&self.head[..self.has]) {
                    let is_control = self.head[0] & 0x08 > 0;
                    if !is_control {
                        self.goes_on = self.head[0] & 0x80 == 0;
                    }
                    self.has = 0;
                    self.left = left;
                } else {
                    continue;
                }
            }
            if self.is_between() {
                break;
            }
        }
        at
    }

    /// Follows bytes.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.pass_one(&bytes[at..]);
        }
    }
}

/// Returns the length of a payload with its mask; `None` if the head is not whole.
fn payload(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 > 0 { 4 } else { 0 };
    let length = match second & 0x7f {
        126 => u64::from(u16::from_be_bytes(head.get(2..4)?.try_into().ok()?)),
        127 => u64::from_be_bytes(head.get(2..10)?.try_into().ok()?) & (u64::MAX >> 1),
        short => u64::from(short),
    };
    Some(length + mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed() {
        let short = [&[0x81, 5][..], b"hello"].concat();
        let masked = [&[0x81, 0x85, 1, 2, 3, 4][..], b"hello"].concat();
        let long = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let longer = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65536]].concat();
        let empty = vec![0x8a, 0];
        // With a control frame within.
        let parts = [&[0x01, 1][..], b"a", &[0x00, 0], &[0x89, 1], b"p", &[0x80, 1], b"c"].concat();
        for frame in [&short, &masked, &long, &longer, &empty, &parts, &GOING_AWAY.to_vec()] {
            let two = [&frame[..], &short].concat();
            for size in [1, 3, two.len()] {
                let mut frames = Frames::default();
                let mut ends = Vec::new();
                let mut sum = 0;
                for piece in two.chunks(size) {
                    let mut at = 0;
                    while at < piece.len() {
                        at += frames.pass_one(&piece[at..]);
                        if frames.is_between() {
                            ends.push(sum + at);
                        }
                    }
                    sum += piece.len();
                }
                assert_eq!(ends, [frame.len(), two.len()], "{size}");
            }
        }
    }
}
