//! Numbers of the stack language: exact decimals.

use std::cmp::Ordering;
use std::fmt;

/// Digits behind the point that a division keeps: enough that `1 / 3 * 3` is shown as a nine-times repeated error no
/// sooner than any share or size in a stack could need.
const DIVISION_DIGITS: u32 = 18;

/// Most digits behind the point. A longer number is out of range, as is one that does not fit in 127 bits.
const MOST_DIGITS: u32 = 36;

/// A decimal number, `mantissa / 10^scale`, kept in its shortest form so that equal numbers are equal values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    mantissa: i128,
    scale: u32,
}

impl Number {
    /// Returns the number in its shortest form, if its digits fit.
    fn new(mut mantissa: i128, mut scale: u32) -> Option<Self> {
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        (scale <= MOST_DIGITS).then_some(Self { mantissa, scale })
    }

    /// Reads `12`, `-1.5`, `2e3`; `None` if it is no number or out of range.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, digits),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        if whole.is_empty() || part.is_empty() || !whole.bytes().chain(part.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let part = part.trim_end_matches('0');
        let mantissa: i128 = format!("{whole}{part}").parse().ok()?;
        let mantissa = if negative { -mantissa } else { mantissa };
        let scale = i32::try_from(part.len()).ok()?.checked_sub(exponent)?;
        match u32::try_from(scale) {
            Ok(scale) => Self::new(mantissa, scale),
            Err(_) => Self::new(mantissa.checked_mul(10i128.checked_pow(scale.unsigned_abs())?)?, 0),
        }
    }

    /// Returns the number as a whole one, if it is one.
    pub(crate) fn as_integer(self) -> Option<i128> {
        (self.scale == 0).then_some(self.mantissa)
    }

    /// Returns the number times `factor` as a whole one, if it is one: `1.5` times 1000 is 1500.
    pub(crate) fn times(self, factor: u64) -> Option<i128> {
        self.multiply(Self::from(i128::from(factor)))?.as_integer()
    }

    /// Returns the number with exactly so many digits behind the point, rounded half away from zero.
    pub(crate) fn with_digits(self, digits: u32) -> Option<String> {
        if digits > MOST_DIGITS {
            return None;
        }
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let size = self.mantissa.unsigned_abs();
        let size = match digits.checked_sub(self.scale) {
            Some(more) => size.checked_mul(10u128.checked_pow(more)?)?,
            None => {
                let cut = 10u128.pow(self.scale - digits);
                size / cut + u128::from(size % cut >= cut / 2)
            }
        };
        if digits == 0 {
            return Some(format!("{sign}{size}"));
        }
        let one = 10u128.pow(digits);
        Some(format!("{sign}{}.{:0width$}", size / one, size % one, width = digits as usize))
    }

    /// Returns both mantissas for the larger of both scales.
    fn aligned(self, other: Self) -> Option<(i128, i128, u32)> {
        let scale = self.scale.max(other.scale);
        let raise = |n: Self| n.mantissa.checked_mul(10i128.checked_pow(scale - n.scale)?);
        Some((raise(self)?, raise(other)?, scale))
    }

    pub(crate) fn add(self, other: Self) -> Option<Self> {
        let (a, b, scale) = self.aligned(other)?;
        Self::new(a.checked_add(b)?, scale)
    }

    pub(crate) fn subtract(self, other: Self) -> Option<Self> {
        self.add(other.negate()?)
    }

    pub(crate) fn multiply(self, other: Self) -> Option<Self> {
        Self::new(self.mantissa.checked_mul(other.mantissa)?, self.scale + other.scale)
    }

    /// Returns the quotient, cut to 18 digits behind the point; `None` by zero or out of range.
    pub(crate) fn divide(self, other: Self) -> Option<Self> {
        let (a, b, _) = self.aligned(other)?;
        let mut mantissa = a.checked_div(b)?;
        let mut rest = a.checked_rem(b)?;
        let mut scale = 0;
        while rest != 0 && scale < DIVISION_DIGITS {
            rest = rest.checked_mul(10)?;
            mantissa = mantissa.checked_mul(10)?.checked_add(rest.checked_div(b)?)?;
            rest = rest.checked_rem(b)?;
            scale += 1;
        }
        Self::new(mantissa, scale)
    }

    /// Returns the remainder, with the sign of `self`; `None` by zero.
    pub(crate) fn remainder(self, other: Self) -> Option<Self> {
        let (a, b, scale) = self.aligned(other)?;
        Self::new(a.checked_rem(b)?, scale)
    }

    pub(crate) fn negate(self) -> Option<Self> {
        Some(Self { mantissa: self.mantissa.checked_neg()?, scale: self.scale })
    }

    pub(crate) fn absolute(self) -> Option<Self> {
        Some(Self { mantissa: self.mantissa.checked_abs()?, scale: self.scale })
    }

    /// Returns the largest whole number not above it.
    pub(crate) fn floor(self) -> Self {
        // A scale is at most 36, and 10^36 fits in an i128.
        Self { mantissa: self.mantissa.div_euclid(10i128.pow(self.scale)), scale: 0 }
    }

    /// Returns the smallest whole number not below it.
    pub(crate) fn ceil(self) -> Self {
        let floor = self.floor();
        if self.scale == 0 { floor } else { Self { mantissa: floor.mantissa + 1, scale: 0 } }
    }
}

impl From<i128> for Number {
    fn from(mantissa: i128) -> Self {
        Self { mantissa, scale: 0 }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.aligned(*other) {
            Some((a, b, _)) => a.cmp(&b),
            // Too far apart to align: the whole parts differ.
            None => self.floor().mantissa.cmp(&other.floor().mantissa),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scale == 0 {
            return write!(f, "{}", self.mantissa);
        }
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let one = 10u128.pow(self.scale);
        let size = self.mantissa.unsigned_abs();
        write!(f, "{sign}{}.{:0width$}", size / one, size % one, width = self.scale as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn reads_and_writes() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Number::parse(text).map(|n| n.to_string()).as_deref(), expected, "{text}");
        };
        check("0", Some("0"));
        check("007", Some("7"));
        check("-0", Some("0"));
        check("1.50", Some("1.5"));
        check("-0.05", Some("-0.05"));
        check("2e3", Some("2000"));
        check("2.5e-3", Some("0.0025"));
        check("18446744073709551616", Some("18446744073709551616"));
        check("1e400", None);
        check("1e-400", None);
        check("", None);
        check("1.", None);
        check(".5", None);
        check("+1", None);
        check("1_000", None);
        check("0x10", None);
        check(&"9".repeat(60), None);
    }

    #[test]
    fn calculates_exactly() {
        let check = |result: Option<Number>, expected: &str| assert_eq!(result, Some(number(expected)));
        check(number("0.1").add(number("0.2")), "0.3");
        check(number("1").subtract(number("0.9")), "0.1");
        check(number("1.5").multiply(number("-2")), "-3");
        check(number("7").divide(number("2")), "3.5");
        check(number("-7").divide(number("2")), "-3.5");
        check(number("1").divide(number("3")), "0.333333333333333333");
        check(number("7").remainder(number("3")), "1");
        check(number("5.5").remainder(number("2")), "1.5");
        assert_eq!(number("1").divide(number("0")), None);
        assert_eq!(number("1").remainder(number("0")), None);
        assert_eq!(number(&"9".repeat(38)).multiply(number("10")), None);
    }

    #[test]
    fn rounds() {
        let check = |text: &str, floor: &str, ceil: &str| {
            assert_eq!((number(text).floor(), number(text).ceil()), (number(floor), number(ceil)), "{text}");
        };
        check("1.5", "1", "2");
        check("-1.5", "-2", "-1");
        check("3", "3", "3");
    }

    #[test]
    fn compares() {
        assert!(number("1.10") == number("1.1"));
        assert!(number("2") < number("10"));
        assert!(number("-1.5") < number("-1.4"));
        assert!(number(&"9".repeat(38)) > number("0.000000000000000000000000000000000001"));
    }
}
