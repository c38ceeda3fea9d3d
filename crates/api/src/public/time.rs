//! Points in time, as the public JSON writes them.

use std::fmt;
use std::str::FromStr;

use basalt_model::Millis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A point in time, written in RFC 3339 with milliseconds and in UTC: `2026-07-30T12:00:00.250Z`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, format = DateTime, example = "2026-07-30T12:00:00.250Z")]
pub struct Timestamp(pub Millis);

/// A text that is not a [`Timestamp`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a point in time: expected RFC 3339, for example `2026-07-30T12:00:00Z`")]
pub struct InvalidTimestamp(String);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What lies behind the year 9999 has no RFC 3339 form, and is shown as the end of that year.
        let latest = jiff::Timestamp::MAX;
        let time = i64::try_from(self.0.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        write!(f, "{:.3}", time.unwrap_or(latest))
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let time: Option<jiff::Timestamp> = text.parse().ok();
        let millis = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
        millis.map(|ms| Self(Millis(ms))).ok_or_else(|| InvalidTimestamp(text.to_owned()))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back() {
        let check = |ms: u64, text: &str| {
            assert_eq!(Timestamp(Millis(ms)).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(Millis(ms))));
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(1_785_412_800_250, "2026-07-30T12:00:00.250Z");
    }

    #[test]
    fn times_without_a_form_do_not_panic() {
        assert_eq!(Timestamp(Millis(u64::MAX)).to_string(), jiff::Timestamp::MAX.to_string()[..23].to_owned() + "Z");
        for bad in ["", "yesterday", "1969-12-31T23:59:59Z"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }
}
