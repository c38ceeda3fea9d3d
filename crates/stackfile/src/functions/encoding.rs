//! Functions that write values in another form, and read them back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::{Call, Function, row};
use crate::fault::Eval;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    row("jsonencode(value)", 1, 1, |c| {
        c.ev.cx.spend(c.args[0].size(), c.at)?;
        let text = c.args[0].to_json()?.to_string();
        c.fits(Some(text.len()))?;
        Ok(Data::Text(text))
    }),
    row("jsondecode(string)", 1, 1, jsondecode),
    row("base64encode(string)", 1, 1, |c| {
        let text = c.text(0)?;
        c.fits(text.len().checked_mul(2))?;
        Ok(Data::Text(STANDARD.encode(text)))
    }),
    row("base64decode(string)", 1, 1, |c| {
        let bytes = STANDARD.decode(c.text(0)?).map_err(|_| c.fault("not base64 (RFC 4648 §4)"))?;
        String::from_utf8(bytes).map(Data::Text).map_err(|_| c.fault("what is encoded is not UTF-8 text"))
    }),
    row("sha256(string)", 1, 1, |c| Ok(Data::Text(hex::encode(Sha256::digest(c.text(0)?))))),
];

fn jsondecode(call: &Call) -> Eval<Data> {
    let text = call.text(0)?;
    call.ev.cx.spend(text.len(), call.at)?;
    let json = serde_json::from_str(&text).map_err(|error| {
        let message = if call.args[0].is_sensitive() { "not JSON".to_owned() } else { format!("not JSON: {error}") };
        call.fault(message)
    })?;
    let value = Value::from_json(json, call.at).ok_or_else(|| call.fault("number out of range"))?;
    Ok(value.data)
}
