//! One row of the journal.

use basalt_seam::Row;
use serde_json::Value;

use crate::{Event, Timestamp};

/// Returns a row of the journal as the public JSON shows it.
pub fn event(row: &Row) -> Event {
    let mut data = serde_json::to_value(&row.event).expect("events always have a JSON form");
    if let Value::Object(fields) = &mut data {
        // It stands beside the data.
        fields.remove("kind");
    }
    Event {
        seq: row.seq,
        at: Timestamp(row.at),
        kind: row.event.kind().to_owned(),
        subject: row.event.subject(),
        data,
        hash: row.hash.to_string(),
    }
}
