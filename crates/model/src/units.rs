//! Units. Each is a whole number of its smallest part, so that sums are exact and canonical bytes are stable.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Milliseconds: a span, or a point in time since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Returns a span of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Returns the time since `earlier`, or zero if that lies ahead.
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Millis {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.since(other)
    }
}

impl fmt::Display for Millis {
    /// Writes the largest unit that divides the span, and tenths of a second otherwise: `30s`, `10m`, `1.5s`, `250ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms if ms > 1000 => write!(f, "{}.{}s", ms / 1000, ms % 1000 / 100),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.into_iter().find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) if self.0.is_multiple_of(size) => write!(f, "{}{unit}", self.0 / size),
            Some((unit, size)) => write!(f, "{:.1}{unit}", self.0 as f64 / size as f64),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Thousandths of a processor core: `500` is half a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct CpuMillis(pub u32);

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

/// A share of traffic in hundredths of a percent: 0 to 10,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Weight(pub u32);

impl Weight {
    /// No traffic.
    pub const NONE: Self = Self(0);
    /// All traffic.
    pub const ALL: Self = Self(10_000);

    /// Returns the weight of a whole number of percent; more than 100 is taken as 100.
    pub fn percent(percent: u32) -> Self {
        Self(percent.min(100) * 100)
    }

    /// Returns what is left of all traffic.
    pub fn rest(self) -> Self {
        Self(Self::ALL.0.saturating_sub(self.0))
    }

    /// Returns the share in percent, 0.0 to 100.0.
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}%", self.0 / 100),
            part => write!(f, "{}.{part:02}%", self.0 / 100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_for_people() {
        let check = |value: &dyn fmt::Display, text: &str| assert_eq!(value.to_string(), text);
        check(&Millis(0), "0s");
        check(&Millis(250), "250ms");
        check(&Millis(1500), "1.5s");
        check(&Millis::seconds(30), "30s");
        check(&Millis::seconds(600), "10m");
        check(&Millis::seconds(7200), "2h");
        check(&Bytes(128 << 20), "128MiB");
        check(&Bytes(1536), "1.5KiB");
        check(&Bytes(12), "12B");
        check(&Weight::percent(5), "5%");
        check(&Weight(1234), "12.34%");
    }

    #[test]
    fn weights_add_up() {
        for w in 0..=10_000 {
            assert_eq!(w + Weight(w).rest().0, Weight::ALL.0);
        }
    }
}
