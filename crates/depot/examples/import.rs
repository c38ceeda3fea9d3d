//! Imports an image into a new depot and says how long it took: `import REFERENCE [DIR]`. For measuring.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let reference = args.next().ok_or("usage: import REFERENCE [DIR]")?;
    let kept = args.next().map(PathBuf::from);
    let dir = tempfile::tempdir()?;
    let depot = basalt_depot::Depot::open(kept.as_deref().unwrap_or(dir.path()))?;
    let from = Instant::now();
    let digest = depot.import(&reference, &|_: &str, _: u64, _: Option<u64>| {})?;
    println!("{digest} {} ms", from.elapsed().as_millis());
    Ok(())
}
