//! Recovery: the recorded state is the fold of the journal, and nothing else.

use basalt_model::State;
use basalt_rollout::evolve;
use basalt_seam::Journal;

use crate::ControllerError;

/// Rows held in memory at once while folding.
const PAGE: usize = 1000;

/// Returns the recorded state and the number of the last row.
pub(crate) fn fold(journal: &dyn Journal) -> Result<(State, u64), ControllerError> {
    let (mut state, mut seq) = (State::default(), 0);
    loop {
        let rows = journal.read(seq, PAGE)?;
        let Some(last) = rows.last() else { return Ok((state, seq)) };
        seq = last.seq;
        for row in &rows {
            evolve(&mut state, row.at, &row.event)?;
        }
    }
}
