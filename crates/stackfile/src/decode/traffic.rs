//! `traffic` blocks: how instances share requests.

use basalt_model::{Eject, HashOn, Millis, Name, Sticky, Traffic};

use super::rules::{cookie_name, header_name};
use super::service::positive;
use crate::fault::{Eval, Fault};
use crate::read;
use crate::reader::Reader;
use crate::units;
use crate::value::{Data, Value};

/// Decodes the `traffic` block of a service.
pub(super) fn traffic(reader: &mut Reader, service: &Name) -> Traffic {
    let Some(mut traffic) = reader.only_block("traffic") else { return Traffic::default() };
    let maintenance = traffic.get("maintenance", |value| match &value.data {
        Data::Bool(true) => Ok(Some(String::new())),
        Data::Bool(false) => Ok(None),
        _ => read::text(value).map(Some),
    });
    let decoded = Traffic {
        maintenance: maintenance.flatten(),
        slow_start: traffic.get("slow_start", units::duration).unwrap_or_default(),
        panic_below: traffic.get("panic_below", percent).unwrap_or(0),
        hash_on: traffic.get("hash_on", hash_on),
        sticky: sticky(&mut traffic, service),
        eject: eject(&mut traffic),
    };
    if decoded.sticky.is_some() && decoded.hash_on.is_some() {
        let fault = Fault::at(traffic.place("hash_on"), format!("{} has both `sticky` and `hash_on`", traffic.what));
        traffic.report(fault.help("either keeps a client at one instance: keep one of them"));
    }
    traffic.finish();
    decoded
}

fn sticky(traffic: &mut Reader, service: &Name) -> Option<Sticky> {
    let mut sticky = traffic.only_block("sticky")?;
    let cookie = sticky.get("cookie", |value| cookie_name(&read::text(value)?, value));
    let lasts = sticky.get("lasts", units::duration).unwrap_or(Millis::ZERO);
    sticky.finish();
    // Services may share a host, and so a client's cookies.
    Some(Sticky { cookie: cookie.unwrap_or_else(|| format!("basalt_{service}")), lasts })
}

fn eject(traffic: &mut Reader) -> Eject {
    let default = Eject::default();
    let Some(mut eject) = traffic.only_block("eject") else { return default };
    let decoded = Eject {
        consecutive: eject.get("consecutive", read::integer(0..=1000)).unwrap_or(default.consecutive),
        error_percent: eject.get("error_rate", percent).unwrap_or(default.error_percent),
        slower_percent: eject.get("slower", slower).unwrap_or(default.slower_percent),
        lasts: eject.get("lasts", positive).unwrap_or(default.lasts),
        at_most: eject.get("at_most", percent).unwrap_or(default.at_most),
    };
    eject.finish();
    decoded
}

/// Reads a whole percentage: `50`, `"50%"`.
fn percent(value: &Value) -> Eval<u32> {
    match &value.data {
        Data::Text(text) => read::integer(0..=100)(&Value::text(text.strip_suffix('%').unwrap_or(text), value.at)),
        _ => read::integer(0..=100)(value),
    }
}

/// Reads how much slower than its siblings: `3` is three times as slow.
fn slower(value: &Value) -> Eval<u32> {
    let hundredths = value.to_number()?.times(100);
    hundredths.and_then(|n| u32::try_from(n).ok()).filter(|n| (110..=100_000).contains(n)).ok_or_else(|| {
        let fault = Fault::at(value.at, format!("{} is out of range", value.shown()));
        fault.help("write how many times as slow as its siblings is too slow: 1.1 to 1000").into()
    })
}

/// Reads what is hashed: `client`, `header:NAME` or `cookie:NAME`.
fn hash_on(value: &Value) -> Eval<HashOn> {
    let text = read::text(value)?;
    match text.split_once(':') {
        None if text == "client" => Ok(HashOn::Client),
        Some(("header", name)) => Ok(HashOn::Header(header_name(name, value)?)),
        Some(("cookie", name)) => Ok(HashOn::Cookie(cookie_name(name, value)?)),
        _ => {
            let fault = Fault::at(value.at, format!("{} can't be hashed on", value.shown()));
            Err(fault.help("write \"client\", \"header:NAME\" or \"cookie:NAME\"").into())
        }
    }
}
