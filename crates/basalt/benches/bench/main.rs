//! Measures Basalt beside its peers, in one run on one machine: `make bench`, or `scripts/bench gateway plan` for some rows.
//!
//! Everything stays on loopback and is bounded in time. Peers are started for their rows and stopped after them.

#![allow(missing_docs)]

#[path = "../../tests/e2e/harness/mod.rs"]
#[allow(dead_code)] // the bench needs only some of what the tests do
mod harness;

mod app;
mod bake;
mod crowds;
mod docker;
mod gateway;
mod growth;
mod heart;
mod images;
mod instances;
mod measure;
mod peers;
mod runtimes;
mod table;
mod updates;

use table::Row;

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A group of rows, and what measures it.
type Group = (&'static str, fn() -> Vec<Row>);

const GROUPS: [Group; 11] = [
    ("journal", heart::journal),
    ("plan", heart::plan),
    ("stack", heart::stack),
    ("bake", bake::bake),
    ("start", runtimes::start),
    ("replace", instances::replace),
    ("update", updates::update),
    ("gateway", gateway::throughput),
    ("growth", growth::growth),
    ("many", instances::many),
    ("images", images::pull),
];

fn main() {
    // Cargo passes `--bench`; what is left are names of groups.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let known = |name: &String| GROUPS.iter().any(|(group, _)| group == name);
    if let Some(unknown) = asked.iter().find(|name| !known(name)) {
        eprintln!("error: no rows are called `{unknown}`");
        eprintln!("help: there are {}", GROUPS.map(|(group, _)| group).join(", "));
        std::process::exit(4);
    }
    // A group that can't be measured here does not take the others' figures with it.
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (group, measure) in GROUPS {
        if asked.is_empty() || asked.iter().any(|name| name == group) {
            eprintln!("measuring: {group}");
            match std::panic::catch_unwind(measure) {
                Ok(measured) => rows.extend(measured),
                Err(_) => failed.push(group),
            }
        }
    }
    print!("{}", table::table(&rows));
    if !failed.is_empty() {
        eprintln!("error: not measured: {}", failed.join(", "));
        std::process::exit(1);
    }
}
