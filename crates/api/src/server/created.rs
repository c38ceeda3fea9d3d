//! When releases were recorded. The state does not say, the journal does: it is read once, and then only what is new.

use std::collections::BTreeMap;

use basalt_model::{Event, Millis, Name, ReleaseNumber};
use basalt_seam::Row;

/// Rows read at once: a bound on memory, and few enough round trips.
const PAGE: usize = 1000;

/// When the kept releases were recorded.
#[derive(Debug, Clone, Default)]
pub(super) struct Created {
    seq: u64,
    pub times: BTreeMap<(Name, ReleaseNumber), Millis>,
}

impl Created {
    /// Reads what has been appended since the last time.
    pub fn follow<E>(&mut self, read: impl Fn(u64, usize) -> Result<Vec<Row>, E>) -> Result<(), E> {
        loop {
            let rows = read(self.seq, PAGE)?;
            if rows.is_empty() {
                return Ok(());
            }
            rows.iter().for_each(|row| self.take(row));
        }
    }

    fn take(&mut self, row: &Row) {
        self.seq = row.seq;
        match &row.event {
            Event::ReleaseCreated { service, number, .. } => {
                self.times.insert((service.clone(), *number), row.at);
            }
            Event::ReleaseForgotten { service, number } => {
                self.times.remove(&(service.clone(), *number));
            }
            Event::ServiceRemoved { service } => self.times.retain(|(of, _), _| of != service),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::Digest;

    #[test]
    fn follows_the_journal_and_forgets_with_it() {
        let web: Name = "web".parse().unwrap();
        let row = |seq: u64, event: Event| Row { seq, at: Millis(seq * 10), event, hash: Digest::from_bytes([0; 32]) };
        let created: fn(&Name, u32) -> Event = |service, number| Event::ReleaseCreated {
            service: service.clone(),
            number,
            release: std::sync::Arc::new(crate::show::sample::release()),
        };
        let mut rows = vec![row(1, created(&web, 1)), row(2, created(&web, 2))];
        let mut index = Created::default();
        let read = |rows: &[Row], after: u64| {
            Ok::<_, ()>(rows.iter().filter(|row| row.seq > after).cloned().collect::<Vec<_>>())
        };
        index.follow(|after, _| read(&rows, after)).unwrap();
        assert_eq!(index.times[&(web.clone(), 2)], Millis(20));
        rows.push(row(3, Event::ReleaseForgotten { service: web.clone(), number: 1 }));
        index.follow(|after, _| read(&rows, after)).unwrap();
        assert_eq!(index.times.keys().map(|(_, n)| *n).collect::<Vec<_>>(), [2]);
        rows.push(row(4, Event::ServiceRemoved { service: web }));
        index.follow(|after, _| read(&rows, after)).unwrap();
        assert!(index.times.is_empty());
    }
}
