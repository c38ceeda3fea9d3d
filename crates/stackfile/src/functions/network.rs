//! Functions of address ranges (RFC 4632, RFC 4291 §2.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Call, Function, texts, whole};
use crate::fault::Eval;
use crate::value::Data;

pub(super) const CIDRHOST: Function = whole(
    "cidrhost(prefix, number)",
    "The address with this number in the range; negative numbers count from its end.",
    (r#"cidrhost("10.12.112.0/20", 268)"#, r#""10.12.113.12""#),
    cidrhost,
);

pub(super) const CIDRNETMASK: Function = whole(
    "cidrnetmask(prefix)",
    "The network mask of an IPv4 range.",
    (r#"cidrnetmask("172.16.0.0/12")"#, r#""255.240.0.0""#),
    |c| {
        let range = Range::read(c, 0)?;
        if range.bits == 128 {
            return Err(c.wrong(0, "only IPv4 ranges have a network mask"));
        }
        Ok(Data::Text(range.with(range.mask()).to_string()))
    },
);

pub(super) const CIDRSUBNET: Function = whole(
    "cidrsubnet(prefix, bits, number)",
    "The range with this number among those that are so many bits longer.",
    (r#"cidrsubnet("10.0.0.0/16", 8, 2)"#, r#""10.0.2.0/24""#),
    |c| {
        let range = Range::read(c, 0)?;
        let longer = range.longer(c, 1)?;
        let number = c.integer(2)?;
        let number = u128::try_from(number).ok().filter(|n| longer.fits(range.length, *n));
        let number = number.ok_or_else(|| {
            c.wrong(2, format!("there are 2^{} such ranges, numbered from 0", longer.length - range.length))
        })?;
        Ok(Data::Text(longer.nth(number).to_string()))
    },
);

pub(super) const CIDRSUBNETS: Function = whole(
    "cidrsubnets(prefix, bits...)",
    "Ranges one behind the other, each so many bits longer than the prefix.",
    (r#"cidrsubnets("10.1.0.0/16", 4, 4, 8)"#, r#"["10.1.0.0/20","10.1.16.0/20","10.1.32.0/24"]"#),
    cidrsubnets,
);

/// A range of addresses.
#[derive(Clone, Copy)]
struct Range {
    /// The first address.
    base: u128,
    /// Bits that all addresses have in common.
    length: u32,
    /// Bits of an address: 32 or 128.
    bits: u32,
}

impl Range {
    /// Reads a range such as `10.0.0.0/16`.
    fn read(call: &Call, i: usize) -> Eval<Self> {
        let text = call.text(i)?;
        let read = || {
            let (address, length) = text.split_once('/')?;
            let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            let length: u32 = length.parse().ok().filter(|_| plain)?;
            let (base, bits) = match address.parse().ok()? {
                IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
                IpAddr::V6(v6) => (u128::from(v6), 128),
            };
            (length <= bits).then(|| {
                let range = Self { base, length, bits };
                Self { base: base & range.mask(), ..range }
            })
        };
        read().ok_or_else(|| {
            let fault = call.wrong_fault(i, format!("{} is no range of addresses", call.args[i].shown()));
            fault.help("write for example \"10.0.0.0/16\" or \"2001:db8::/32\"").into()
        })
    }

    /// Returns the bits that all addresses have in common.
    fn mask(&self) -> u128 {
        let ones = |n: u32| if n == 0 { 0 } else { u128::MAX >> (128 - n) };
        ones(self.bits) & !ones(self.bits - self.length)
    }

    /// Returns the address that the bits are.
    fn with(&self, bits: u128) -> IpAddr {
        if self.bits == 32 { IpAddr::V4(Ipv4Addr::from(bits as u32)) } else { IpAddr::V6(Ipv6Addr::from(bits)) }
    }

    /// Returns the first range that is as many bits longer as the `i`th argument says.
    fn longer(&self, call: &Call, i: usize) -> Eval<Self> {
        let more = u32::try_from(call.integer(i)?).ok();
        let length = more.and_then(|more| self.length.checked_add(more)).filter(|length| *length <= self.bits);
        let room = self.bits - self.length;
        let length = length.ok_or_else(|| call.wrong(i, format!("the prefix has room for 0 to {room} more bits")))?;
        Ok(Self { length, ..*self })
    }

    /// Returns whether there is a range with this number within one of a shorter length.
    fn fits(&self, shorter: u32, number: u128) -> bool {
        let more = self.length - shorter;
        more >= 128 || number >> more == 0
    }

    /// Returns the range that stands so many behind this one.
    fn nth(&self, number: u128) -> Self {
        let shift = self.bits - self.length;
        // Shifted by all bits only if there is but one range.
        Self { base: self.base | number.checked_shl(shift).unwrap_or(0), ..*self }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.with(self.base), self.length)
    }
}

fn cidrhost(call: &Call) -> Eval<Data> {
    let (range, number) = (Range::read(call, 0)?, call.integer(1)?);
    let room = range.bits - range.length;
    let last = range.base | !range.mask() & if range.bits == 32 { u128::from(u32::MAX) } else { u128::MAX };
    let address = match u128::try_from(number) {
        Ok(number) => range.base.checked_add(number),
        Err(_) => last.checked_sub(number.unsigned_abs() - 1),
    };
    let address = address.filter(|address| (range.base..=last).contains(address));
    let address = address.ok_or_else(|| call.wrong(1, format!("the range has 2^{room} addresses")))?;
    Ok(Data::Text(range.with(address).to_string()))
}

fn cidrsubnets(call: &Call) -> Eval<Data> {
    let range = Range::read(call, 0)?;
    let last = range.base | !range.mask() & if range.bits == 32 { u128::from(u32::MAX) } else { u128::MAX };
    let mut next = Some(range.base);
    let mut subnets = Vec::new();
    for i in 1..call.args.len() {
        let longer = range.longer(call, i)?;
        let room = longer.bits - longer.length;
        let size = 1u128.checked_shl(room);
        // A range begins at a multiple of its size.
        let full = || call.wrong(i, "no room is left in the prefix for this range");
        let start = next.ok_or_else(full)?;
        let aligned = match size {
            Some(size) => start.checked_add(size - 1).map(|sum| sum & !(size - 1)),
            None => (start == 0).then_some(0),
        };
        let start = aligned.filter(|start| *start <= last).ok_or_else(full)?;
        let end = size.and_then(|size| start.checked_add(size - 1)).unwrap_or(u128::MAX);
        if end > last {
            return Err(full());
        }
        next = end.checked_add(1);
        subnets.push(Range { base: start, ..longer }.to_string());
    }
    Ok(texts(subnets, call.at))
}
