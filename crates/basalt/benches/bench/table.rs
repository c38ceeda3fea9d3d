//! The table: both figures, and their ratio.

use std::fmt::Write as _;

/// One comparison.
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Basalt's figure.
    pub ours: f64,
    /// The peer and its figure; `None` where there is none to compare with.
    pub beside: Option<(String, f64)>,
    /// The unit of both.
    pub unit: &'static str,
    /// What the design wants.
    pub budget: &'static str,
}

impl Row {
    /// Returns a row with a peer.
    pub fn beside(what: &str, unit: &'static str, ours: f64, peer: &str, theirs: f64, budget: &'static str) -> Self {
        Self { what: what.to_owned(), ours, beside: Some((peer.to_owned(), theirs)), unit, budget }
    }

    /// Returns a row without a peer.
    pub fn alone(what: &str, unit: &'static str, ours: f64, budget: &'static str) -> Self {
        Self { what: what.to_owned(), ours, beside: None, unit, budget }
    }
}

/// Returns the rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut cells = vec![["what", "Basalt", "beside", "its figure", "ratio", "budget"].map(str::to_owned)];
    cells.push(["---"; 6].map(str::to_owned));
    for row in rows {
        let (peer, theirs, ratio) = match &row.beside {
            Some((peer, theirs)) => (peer.clone(), figure(*theirs, row.unit), format!("{:.2} ×", row.ours / theirs)),
            None => ("–".to_owned(), "–".to_owned(), "–".to_owned()),
        };
        cells.push([row.what.clone(), figure(row.ours, row.unit), peer, theirs, ratio, row.budget.to_owned()]);
    }
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &cells {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(text, "| {} |", padded.join(" | ")).expect("writing to a string never fails");
    }
    text
}

fn figure(value: f64, unit: &str) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0} {unit}"),
        value if value >= 10.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.2} {unit}"),
    }
}
