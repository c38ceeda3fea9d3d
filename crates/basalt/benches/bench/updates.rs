//! Updates and rollbacks of ten instances under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use basalt_testkit::load::{Kind, Load};

use crate::harness::{Basalt, Stack, get, now};
use crate::measure::{millis, percentile};
use crate::table::Row;

/// Rollbacks, there and back.
const ROLLBACKS: usize = 20;

/// How long updates and rollbacks take, and how many requests fail meanwhile.
pub fn update() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, rollout) in
        [("rolling", "rollout \"rolling\" { max_surge = \"25%\" }"), ("blue/green", "rollout \"blue_green\" {}")]
    {
        let mut basalt = Basalt::new();
        basalt.up(&Stack::new("one", rollout).instances(10)).expect(0);
        let load = load(&basalt);
        let took = millis(|| drop(basalt.up(&Stack::new("two", rollout).instances(10)).expect(0)));
        let report = load.finish();
        rows.push(Row::alone(&format!("{name} update of 10 instances under load"), "ms", took, "≤ 2 s"));
        rows.push(Row::alone(&format!("… failed of {} requests", report.sent()), "", report.failed as f64, "0"));
        basalt.stop();
    }
    rows.extend(rollback());
    rows
}

fn load(basalt: &Basalt) -> basalt_testkit::load::Running {
    let mut load = Load::new(basalt.http(), Kind::KeepAlive);
    load.clients = 16;
    load.pause = std::time::Duration::ZERO;
    load.expect = vec!["version=one\n".to_owned(), "version=two\n".to_owned()];
    load.start()
}

/// From the command to the last answer of the release that is left.
fn rollback() -> Vec<Row> {
    let rollout = "rollout \"blue_green\" { keep_old = \"10m\" }";
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", rollout).instances(10)).expect(0);
    basalt.up(&Stack::new("two", rollout).instances(10)).expect(0);
    let load = load(&basalt);
    let times: Vec<f64> = (0..ROLLBACKS)
        .map(|round| {
            let leaving = if round % 2 == 0 { "version=two" } else { "version=one" };
            let (address, over) = (basalt.http(), Arc::new(AtomicBool::new(false)));
            let started = now();
            let watcher = std::thread::spawn({
                let over = Arc::clone(&over);
                move || {
                    let mut last = 0.0;
                    while !over.load(Ordering::Relaxed) {
                        if get(address, "/").1.contains(leaving) {
                            last = started.elapsed().as_secs_f64() * 1000.0;
                        }
                    }
                    last
                }
            });
            basalt.run(&["rollback", "app"]).expect(0);
            over.store(true, Ordering::Relaxed);
            watcher.join().expect("the watcher does not panic")
        })
        .collect();
    let report = load.finish();
    basalt.stop();
    vec![
        Row::alone(
            "rollback on warm instances: to all traffic on the old, p99 of 20",
            "ms",
            percentile(times, 99.0),
            "≤ 1 s",
        ),
        Row::alone(&format!("… failed of {} requests", report.sent()), "", report.failed as f64, "0"),
    ]
}
