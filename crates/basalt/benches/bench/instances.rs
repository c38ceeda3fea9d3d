//! Replacing one instance, and having many.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::docker::Docker;
use crate::harness::{Basalt, Stack, get, kill, wait_until};
use crate::measure::{cpu, median, millis, resident};
use crate::table::Row;

/// Kills per contestant.
const KILLS: usize = 10;

/// Instances of the row with many; two cores have them all ready within seconds.
const MANY: usize = 500;

/// From the kill of the only instance to the answer of a request that was sent at once.
pub fn replace() -> Vec<Row> {
    let what = "the only instance killed: to the next answer, median";
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").instances(1)).expect(0);
    let ours = (0..KILLS).map(|_| {
        // The pauses before one that keeps dying are not what this row is about: each round has an instance that never died.
        basalt.run(&["scale", "app=0"]).expect(0);
        basalt.run(&["scale", "app=1"]).expect(0);
        let pid = basalt.instances()[0]["pid"].as_u64().unwrap();
        millis(|| {
            kill(u32::try_from(pid).unwrap());
            wait_until("an answer", Duration::from_secs(30), || basalt.get("/").0 == 200);
        })
    });
    let ours = median(ours.collect());
    basalt.stop();

    let docker = Docker::start();
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let theirs = (0..KILLS).map(|n| {
        let port = address.port();
        docker.run(&format!("run -d --restart always --network host -e PORT={port} --name r{n} app /app"));
        wait_until("it serves", Duration::from_secs(30), || get(address, "/").0 == 200);
        let pid: u32 = docker.run(&format!("inspect -f {{{{.State.Pid}}}} r{n}")).trim().parse().unwrap();
        let took = millis(|| {
            kill(pid);
            wait_until("the port is closed", Duration::from_secs(5), || get(address, "/").0 != 200);
            wait_until("an answer", Duration::from_secs(30), || get(address, "/").0 == 200);
        });
        docker.run(&format!("rm -f r{n}"));
        took
    });
    let theirs = median(theirs.collect());
    vec![Row::beside(what, "ms", ours, "docker --restart always", theirs, "≤ 100 ms + the app's start")]
}

/// Five hundred instances: the time until all are healthy, and what it costs to have them.
pub fn many() -> Vec<Row> {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").instances(1)).expect(0);
    let ours = millis(|| drop(basalt.run(&["scale", &format!("app={MANY}")]).expect(0)));
    assert!(basalt.serves(1, MANY));
    let controller = basalt.role("serve").expect("the controller runs");
    // What start-up has left to do is not idleness.
    std::thread::sleep(Duration::from_secs(5));
    let (our_memory, our_cpu) = (resident(controller), cpu(&[controller], Duration::from_secs(10)));
    basalt.stop();

    let docker = Docker::start();
    let theirs = millis(|| {
        for n in 0..MANY {
            docker.run(&format!("run -d --network none --name m{n} app /app"));
        }
    });
    std::thread::sleep(Duration::from_secs(5));
    let pids = docker.pids();
    let their_memory: f64 = pids.iter().map(|pid| resident(*pid)).sum();
    let their_cpu = cpu(&pids, Duration::from_secs(10));
    let names: Vec<String> = (0..MANY).map(|n| format!("m{n}")).collect();
    docker.run(&format!("rm -f {}", names.join(" ")));
    vec![
        Row::beside("500 instances up and healthy", "ms", ours, "docker run -d, one by one", theirs, "≤ 0.1 ×"),
        Row::beside(
            "controller, 500 instances, resident",
            "MiB",
            our_memory,
            "dockerd + containerd",
            their_memory,
            "≤ 64 MiB",
        ),
        Row::beside(
            "controller, 500 instances, idle",
            "% of a core",
            our_cpu,
            "dockerd + containerd",
            their_cpu,
            "≤ 1 %",
        ),
    ]
}
