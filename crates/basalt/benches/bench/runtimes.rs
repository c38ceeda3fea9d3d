//! Starting an instance, beside what else starts containers.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::docker::Docker;
use crate::harness::{Basalt, Stack, test_app, wait_until};
use crate::measure::{command, median, millis, output, run};
use crate::table::Row;

/// Starts per contestant: enough for a steady median within seconds.
const STARTS: u32 = 20;

/// From the decision to the running process, the journal included, beside `run --detach` of the others.
pub fn start() -> Vec<Row> {
    let basalt = basalts();
    let what = "start an instance, median";
    let mut rows = Vec::new();
    for (runtime, budget) in [("crun", "≤ 1.0 ×"), ("runc", "≤ 0.6 ×")] {
        rows.push(Row::beside(what, "ms", basalt, runtime, bundles(runtime), budget));
    }
    let docker = Docker::start();
    let times =
        (0..STARTS).map(|n| millis(|| drop(docker.run(&format!("run -d --network none --name s{n} app /app")))));
    rows.push(Row::beside(what, "ms", basalt, "docker run -d", median(times.collect()), "≤ 0.1 ×"));
    rows
}

/// The time between the row in the journal that decides a start and the start of the process.
fn basalts() -> f64 {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").instances(1)).expect(0);
    let mut times = Vec::new();
    for count in 2..=STARTS as usize + 1 {
        basalt.run(&["scale", &format!("app={count}"), "--detach"]).expect(0);
        wait_until("one more serves", Duration::from_secs(20), || basalt.serves(1, count));
    }
    let requested = basalt.events_of("instance_requested");
    for instance in basalt.instances() {
        let asked = requested.iter().find(|event| event["subject"] == instance["id"]).unwrap();
        let [asked, started] = [&asked["at"], &instance["started_at"]].map(milliseconds);
        times.push(started - asked);
    }
    basalt.stop();
    median(times)
}

/// Returns an RFC 3339 time as milliseconds since the epoch.
fn milliseconds(at: &serde_json::Value) -> f64 {
    let at: basalt_api::Timestamp = serde_json::from_value(at.clone()).unwrap();
    at.0.0 as f64
}

/// Starts bundles of the test app with a runtime.
fn bundles(runtime: &str) -> f64 {
    let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
    let _cgroup = Hybrid::prepare(folder.path());
    let bundle = folder.path().join("bundle");
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    std::fs::copy(test_app(), bundle.join("rootfs/app")).unwrap();
    let written = command(&format!("{runtime} spec")).current_dir(&bundle).status().unwrap();
    assert!(written.success(), "`{runtime} spec` failed");
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/app"]);
    std::fs::write(&path, config.to_string()).unwrap();

    let at = bundle.display();
    let start = |n: u32| {
        millis(|| {
            let mut run = command(&format!("{runtime} run --detach --bundle {at} basalt-bench-{n}"));
            let status = run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            assert!(status.success(), "`{runtime} run` failed");
        })
    };
    let times = (0..STARTS).map(start).collect();
    for n in 0..STARTS {
        output(&format!("{runtime} delete --force basalt-bench-{n}"));
    }
    median(times)
}

/// Debian 12's crun refuses hybrid cgroups while the second version has a controller left. While this lives, the one that is
/// left there is taken by the first version.
struct Hybrid(Option<String>);

impl Hybrid {
    fn prepare(folder: &Path) -> Self {
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
        if controllers.trim().is_empty() {
            return Self(None);
        }
        let at = folder.join("cgroup").display().to_string();
        std::fs::create_dir_all(&at).unwrap();
        run(&format!("mount -t cgroup -o {} cgroup {at}", controllers.trim().replace(' ', ",")));
        Self(Some(at))
    }
}

impl Drop for Hybrid {
    fn drop(&mut self) {
        if let Some(at) = &self.0 {
            output(&format!("umount {at}"));
        }
    }
}
