//! What is recorded, read beside whoever writes it and without starting anything.

use basalt_journal::SqliteJournal;
use basalt_model::State;
use basalt_seam::Journal;

use crate::error::{CliError, Kind, Result};
use crate::paths::Data;

/// Rows that are read at once: enough to be quick, few enough to be small.
const PAGE: usize = 1000;

/// Returns what is recorded; the empty state if there is no journal.
///
/// # Errors
/// If the journal can't be read or does not fit itself.
pub fn recorded(data: &Data) -> Result<State> {
    let path = data.journal();
    let mut state = State::default();
    if !path.exists() {
        return Ok(state);
    }
    let journal = SqliteJournal::open_reader(&path).map_err(|error| CliError::of(Kind::Internal, &error))?;
    let mut after = 0;
    loop {
        let rows = journal.read(after, PAGE).map_err(|error| CliError::of(Kind::Internal, &error))?;
        let Some(last) = rows.last() else { return Ok(state) };
        after = last.seq;
        for row in &rows {
            basalt_rollout::evolve(&mut state, row.at, &row.event).map_err(|error| {
                CliError::internal(format!("row {} of the journal is of no use", row.seq)).because(&error)
            })?;
        }
    }
}
