//! Starts instances one after the other, and then many at once, and prints how long that takes. Needs root.

#![allow(clippy::disallowed_methods)] // It takes times.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use basalt_seam::{Backend, BackendState, InstanceAction};
use common::Machine;

fn main() {
    let many: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100);
    let machine = Machine::new();
    std::thread::sleep(Duration::from_millis(500));
    let mut times: Vec<f64> = (1..=20)
        .map(|n| {
            let id = format!("one-1-{n}");
            let began = Instant::now();
            machine.start(&id, 1, machine.release("exec sleep 1000"));
            machine.running(&id);
            let took = began.elapsed().as_secs_f64() * 1000.0;
            std::thread::sleep(Duration::from_millis(200));
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("one after the other: median {:.1} ms, from {:.1} to {:.1}", times[10], times[0], times[19]);

    let orders: Vec<_> =
        (1..=many).map(|n| machine.order(&format!("many-1-{n}"), 1, machine.release("exec sleep 1000"))).collect();
    let began = Instant::now();
    orders.into_iter().for_each(|order| machine.perform(InstanceAction::Start(Box::new(order))));
    loop {
        let seen = machine.backend.seen();
        let running = seen.instances.values().filter(|i| matches!(i.state, BackendState::Running { .. })).count();
        if running == many + 20 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("{many} at once: {:.0} ms", began.elapsed().as_secs_f64() * 1000.0);
    let began = Instant::now();
    machine.finish();
    println!("all ended and taken away: {:.0} ms", began.elapsed().as_secs_f64() * 1000.0);
}
