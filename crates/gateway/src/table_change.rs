//! The difference between two route tables: what is sent and written when one follows another, so that its cost grows with what
//! changes and not with what is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{Name, RouteTable, ServiceRoutes};
use serde::{Deserialize, Serialize};

/// What leads from one route table to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableChange {
    /// The version of the other.
    pub(crate) version: u64,
    /// Services that are new or differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) services: BTreeMap<Name, Arc<ServiceRoutes>>,
    /// Services that are no longer there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gone: Vec<Name>,
}

impl TableChange {
    /// Returns what leads from `old` to `new`.
    pub(crate) fn between(old: &RouteTable, new: &RouteTable) -> Self {
        let mut change = Self { version: new.version, ..Self::default() };
        // Both are in order, and most of both is the same.
        let mut before = old.services.iter().peekable();
        for (name, routes) in &new.services {
            while let Some((gone, _)) = before.next_if(|(before, _)| *before < name) {
                change.gone.push(gone.clone());
            }
            let same = before.next_if(|(before, _)| *before == name).is_some_and(|(_, before)| before == routes);
            if !same {
                change.services.insert(name.clone(), routes.clone());
            }
        }
        change.gone.extend(before.map(|(gone, _)| gone.clone()));
        change
    }

    /// Carries the change out.
    pub(crate) fn apply(self, table: &mut RouteTable) {
        table.version = self.version;
        for name in &self.gone {
            table.services.remove(name);
        }
        table.services.extend(self.services);
    }
}

#[cfg(test)]
mod tests {
    use basalt_model::Route;
    use proptest::prelude::*;

    use super::*;

    fn table(version: u64, services: &[(u8, u8)]) -> RouteTable {
        let port: Name = "http".parse().unwrap();
        let one = |(name, path): &(u8, u8)| {
            let routes = vec![Route::new(None, format!("/{path}"), port.clone())];
            (format!("s{name}").parse().unwrap(), Arc::new(ServiceRoutes { routes, ..ServiceRoutes::default() }))
        };
        RouteTable { version, services: services.iter().map(one).collect() }
    }

    proptest! {
        #[test]
        fn a_change_leads_from_one_to_the_other(
            old in proptest::collection::vec((0..9_u8, 0..3_u8), 0..9),
            new in proptest::collection::vec((0..9_u8, 0..3_u8), 0..9),
        ) {
            let (old, new) = (table(1, &old), table(2, &new));
            let change = TableChange::between(&old, &new);
            let told: TableChange = serde_json::from_str(&serde_json::to_string(&change).unwrap()).unwrap();
            let mut after = old;
            told.apply(&mut after);
            prop_assert_eq!(after, new);
        }
    }

    #[test]
    fn what_does_not_change_is_not_said_and_shared() {
        let (old, new) = (table(1, &[(1, 1), (2, 1)]), table(2, &[(1, 1), (2, 2)]));
        let change = TableChange::between(&old, &new);
        assert_eq!(change.services.len(), 1);
        let mut after = old.clone();
        change.apply(&mut after);
        let first = |table: &RouteTable| table.services.values().next().cloned().unwrap();
        assert!(Arc::ptr_eq(&first(&after), &first(&old)));
        assert_eq!(serde_json::to_string(&TableChange::between(&new, &new)).unwrap(), r#"{"version":2}"#);
    }
}
