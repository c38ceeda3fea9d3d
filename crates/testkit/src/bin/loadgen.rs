//! Sends load to a port of this machine until its standard input ends, and prints what came of it.
//!
//! `loadgen ADDRESS [--kind keep-alive|close|http2|post] [--clients N] [--pause-ms N] [--host NAME] [--expect TEXT]…`

#![forbid(unsafe_code)]

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use basalt_testkit::load::{Kind, Load};

fn main() -> ExitCode {
    match load(std::env::args().skip(1)) {
        Ok(load) => {
            let running = load.start();
            // What is read does not matter: the end of the input is the sign to stop.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let report = running.finish();
            println!("{report}");
            if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::from(4)
        }
    }
}

/// Reads the arguments.
fn load(mut arguments: impl Iterator<Item = String>) -> Result<Load, String> {
    let address = arguments.next().ok_or("an address is missing")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not an address and port"))?;
    let mut load = Load::new(address, Kind::KeepAlive);
    // A demo is watched by a person, who may take their time.
    load.for_at_most = Duration::from_secs(3600);
    load.at_most = 100_000_000;
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("`{option}` needs a value"))?;
        let number = || value.parse().map_err(|_| format!("`{option} {value}` is not a number"));
        match option.as_str() {
            "--kind" => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == value);
                load.kind = kind.ok_or_else(|| format!("`{value}` is no kind of load"))?;
            }
            "--clients" => load.clients = number()?,
            "--pause-ms" => load.pause = Duration::from_millis(number()? as u64),
            "--host" => load.host = value,
            "--path" => load.path = value,
            "--expect" => load.expect.push(value),
            _ => return Err(format!("`{option}` is not known")),
        }
    }
    Ok(load)
}
