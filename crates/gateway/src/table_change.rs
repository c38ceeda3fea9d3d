//! The difference between two route tables: what is sent and written when one follows another, so that its cost grows with what
//! changes and not with what is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use basalt_model::{Name, RouteTable, ServiceRoutes};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::difference::difference;
use crate::gently::gently;

/// What leads from one route table to another; from the empty one, it reads as the whole of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableChange {
    /// The version of the other.
    pub(crate) version: u64,
    /// Services that are new or differ.
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pub(crate) services: BTreeMap<Name, Arc<ServiceRoutes>>,
    /// Services that are no longer there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gone: Vec<Name>,
}

impl TableChange {
    /// Returns what leads from `old` to `new`.
    pub(crate) fn between(old: &RouteTable, new: &RouteTable) -> Self {
        let (services, gone) = difference(&old.services, &new.services, PartialEq::ne);
        Self { version: new.version, services, gone }
    }

    /// Returns whether it leaves `old` as it is.
    pub(crate) fn changes_nothing(&self, old: &RouteTable) -> bool {
        self.version == old.version && self.services.is_empty() && self.gone.is_empty()
    }

    /// Carries the change out. What does not change is shared.
    pub(crate) fn apply(self, table: &mut RouteTable) {
        table.version = self.version;
        for name in &self.gone {
            table.services.remove(name);
        }
        table.services.extend(self.services);
    }
}

fn write<S: Serializer>(services: &BTreeMap<Name, Arc<ServiceRoutes>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(gently(services))
}

fn read<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Name, Arc<ServiceRoutes>>, D::Error> {
    struct Services;
    impl<'de> Visitor<'de> for Services {
        type Value = BTreeMap<Name, Arc<ServiceRoutes>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of services")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let entries = std::iter::from_fn(|| map.next_entry().transpose());
            gently(entries).collect()
        }
    }
    from.deserialize_map(Services)
}

#[cfg(test)]
mod tests {
    use basalt_model::Route;

    use super::*;

    fn table(version: u64, services: &[(u8, u8)]) -> RouteTable {
        let port: Name = "http".parse().unwrap();
        let one = |(name, path): &(u8, u8)| {
            let routes = vec![Route::new(None, format!("/{path}"), port.clone())];
            (format!("s{name}").parse().unwrap(), Arc::new(ServiceRoutes { routes, ..ServiceRoutes::default() }))
        };
        RouteTable { version, services: services.iter().map(one).collect() }
    }

    #[test]
    fn what_does_not_change_is_not_said_and_shared() {
        let (old, new) = (table(1, &[(1, 1), (2, 1), (3, 1)]), table(2, &[(0, 1), (1, 1), (3, 2)]));
        let change = TableChange::between(&old, &new);
        assert_eq!((change.services.len(), change.gone.len()), (2, 1));
        let told: TableChange = serde_json::from_str(&serde_json::to_string(&change).unwrap()).unwrap();
        let mut after = old.clone();
        told.apply(&mut after);
        assert_eq!(after, new);
        let s1 = |table: &RouteTable| table.services[&"s1".parse().unwrap()].clone();
        assert!(Arc::ptr_eq(&s1(&after), &s1(&old)));
    }

    #[test]
    fn from_nothing_it_reads_as_a_table() {
        let table = table(7, &[(1, 1), (2, 1)]);
        let change = serde_json::to_string(&TableChange::between(&RouteTable::default(), &table)).unwrap();
        assert_eq!(serde_json::from_str::<RouteTable>(&change).unwrap(), table);
        let same: TableChange = serde_json::from_str(&serde_json::to_string(&table).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&same).unwrap(), change);
    }
}
