//! What is said over the control socket.

use std::collections::BTreeMap;

use basalt_model::{InstanceId, RouteTable};
use basalt_seam::{InstanceTraffic, RouterSeen};
use serde::{Deserialize, Serialize};

use crate::difference::difference;
use crate::table_change::TableChange;

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Replaces the table: this is the whole of another.
    SetTable(TableChange),
    /// The same: this leads to it from the last on this connection, whether or not that was taken.
    ChangeTable(TableChange),
}

impl Request {
    /// Returns the table that is asked for, after the last on the same connection.
    pub(crate) fn table_after(self, last: &RouteTable) -> RouteTable {
        let (change, mut table) = match self {
            Self::SetTable(all) => (all, RouteTable::default()),
            Self::ChangeTable(change) => (change, last.clone()),
        };
        change.apply(&mut table);
        table
    }
}

/// What the gateway says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// Everything; the first report on a connection.
    Seen(RouterSeen),
    /// What has changed since the report before.
    Changed(Change),
    /// A table was not taken.
    Refused {
        /// Its version.
        version: u64,
        /// Why.
        why: String,
    },
}

/// The difference between two [`RouterSeen`].
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// The version in force.
    pub(crate) version: u64,
    /// Instances that are new or look different.
    pub(crate) instances: BTreeMap<InstanceId, InstanceTraffic>,
    /// Instances that are no longer there.
    pub(crate) gone: Vec<InstanceId>,
    /// Where requests from outside are taken.
    pub(crate) http: Option<String>,
    /// What is wrong.
    pub(crate) problems: Vec<String>,
}

/// Whether counters count as a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counters {
    /// They do.
    Told,
    /// They don't: only versions, health, and instances that come and go.
    Untold,
}

impl Change {
    /// Returns what leads from `old` to `new`, or `None` if nothing has changed.
    pub(crate) fn between(old: &RouterSeen, new: &RouterSeen, counters: Counters) -> Option<Self> {
        let differ = |then: &InstanceTraffic, now: &InstanceTraffic| match counters {
            Counters::Told => then != now,
            Counters::Untold => {
                (then.generation, then.named, then.healthy) != (now.generation, now.named, now.healthy)
                    || (then.in_flight == 0) != (now.in_flight == 0) && !now.named
            }
        };
        let (instances, gone) = difference(&old.instances, &new.instances, differ);
        let rest = (old.version, &old.http, &old.problems) != (new.version, &new.http, &new.problems);
        (rest || !instances.is_empty() || !gone.is_empty()).then(|| Self {
            version: new.version,
            instances,
            gone,
            http: new.http.clone(),
            problems: new.problems.clone(),
        })
    }

    /// Carries the change out on `seen`.
    pub(crate) fn apply(self, seen: &mut RouterSeen) {
        seen.version = self.version;
        seen.http = self.http;
        seen.problems = self.problems;
        for id in &self.gone {
            seen.instances.remove(id);
        }
        seen.instances.extend(self.instances);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: u64, rows: &[(&str, InstanceTraffic)]) -> RouterSeen {
        let instances = rows.iter().map(|(id, row)| (id.parse().unwrap(), row.clone())).collect();
        RouterSeen { connected: true, version, instances, ..RouterSeen::default() }
    }

    #[test]
    fn a_change_leads_from_one_to_the_other() {
        let row = |healthy, requests| InstanceTraffic { healthy, requests, named: true, ..InstanceTraffic::default() };
        let old = seen(1, &[("a-1-1", row(None, 3)), ("a-1-2", row(Some(true), 1)), ("a-1-3", row(None, 0))]);
        let new = seen(2, &[("a-1-1", row(Some(true), 4)), ("a-1-2", row(Some(true), 9)), ("b-1-1", row(None, 0))]);

        let told = Change::between(&old, &new, Counters::Told).unwrap();
        let mut then = old.clone();
        told.apply(&mut then);
        assert_eq!(then, new);

        let untold = Change::between(&old, &new, Counters::Untold).unwrap();
        assert!(!untold.instances.contains_key(&"a-1-2".parse().unwrap()), "only its counters have changed");
        assert_eq!(Change::between(&new, &new, Counters::Told), None);
    }
}
