//! The parts without processes: the journal and the plan.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use basalt_journal::SqliteJournal;
use basalt_model::{Digest, Event, Health, Kind, Limits, Millis, Name, Release, Service, Settings, Stack, State};
use basalt_plan::{Desired, DesiredService, pin, plan as compare};
use basalt_seam::Journal as _;
use basalt_stackfile::{Inputs, load};

use crate::measure::{median, millis};
use crate::table::Row;

/// Appends and syncs per contestant.
const APPENDS: usize = 200;

/// One event appended and synced, beside one `fdatasync` of as many bytes.
pub fn journal() -> Vec<Row> {
    // In the build folder and not in `/tmp`, which may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut journal = SqliteJournal::open(&folder.path().join("journal.db")).unwrap();
    let event = Event::RolloutPaused { service: name(1) };
    let mut file = File::create(folder.path().join("file")).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..APPENDS {
        ours.push(millis(|| drop(journal.append(Millis(n as u64), std::slice::from_ref(&event)).unwrap())));
        theirs.push(millis(|| {
            file.write_all(&[b'x'; 256]).unwrap();
            file.sync_data().unwrap();
        }));
    }
    vec![Row::beside(
        "journal append, synced, median",
        "ms",
        median(ours),
        "write + fdatasync",
        median(theirs),
        "≤ 2 ×",
    )]
}

/// Plans of unchanged services, in growing numbers.
pub fn plan() -> Vec<Row> {
    let row = |count: u32| {
        let desired = desired(count);
        let recorded = recorded(&desired);
        let times = (0..3).map(|_| millis(|| assert!(!compare(&desired, &recorded).unwrap().has_changes()))).collect();
        let budget = if count == 10_000 { "≤ 1 s" } else { "linear" };
        Row::alone(&format!("plan of {count} unchanged services"), "ms", median(times), budget)
    };
    [10, 100, 1_000, 10_000].map(row).into()
}

/// Stacks from text to a plan that changes nothing, in growing numbers of services: the time to read, the time to a plan,
/// and the memory that it takes at most.
pub fn stack() -> Vec<Row> {
    let row = |count: u32| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("bench.hcl");
        std::fs::write(&path, stack_text(count)).unwrap();
        let read = || load(&path, &Inputs::default()).stack.unwrap();
        let pinned = |stack: &Stack| pin(stack, &|_| Some(Digest::from_bytes([7; 32])), &|_| Some(1)).unwrap();
        let recorded = recorded(&pinned(&read()));
        let (mut reading, mut whole, mut most) = (Vec::new(), Vec::new(), 0.0_f64);
        for _ in 0..3 {
            // Forgets the highest memory so far (proc(5), clear_refs).
            std::fs::write("/proc/self/clear_refs", "5").unwrap();
            let before = status("VmRSS");
            whole.push(millis(|| {
                let mut stack = None;
                reading.push(millis(|| stack = Some(read())));
                let desired = pinned(&stack.unwrap());
                assert!(!compare(&desired, &recorded).unwrap().has_changes());
            }));
            most = most.max(status("VmHWM") - before);
        }
        let (time_budget, memory_budget) =
            if count == 10_000 { ("≤ 1 s", "≤ 512 MiB") } else { ("linear", "linear") };
        [
            Row::alone(&format!("stack of {count} services read"), "ms", median(reading), "linear"),
            Row::alone(&format!("read and planned, {count} services"), "ms", median(whole), time_budget),
            Row::alone(&format!("its memory at most, {count} services"), "MiB", most, memory_budget),
        ]
    };
    [10, 100, 1_000, 10_000].into_iter().flat_map(row).collect()
}

/// Returns a field of this process's status in MiB.
fn status(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

fn stack_text(count: u32) -> String {
    let service = |n| {
        format!(
            "service \"service-{n}\" {{\n  image = \"registry.example.com/app:${{var.tag}}\"\n  env = {{\n    NAME = \"service-{n}\"\n    \
             URL  = \"http://${{local.host}}/${{upper(\"x\")}}\"\n  }}\n  config \"/etc/app.toml\" {{ content = \"name = {n}\\n\" }}\n  \
             port \"http\" {{ container = 8080 }}\n  limits {{ memory = \"128MiB\" }}\n  health {{\n    http {{\n      path = \"/health\"\n    }}\n  }}\n  \
             route {{ host = \"service-{n}.example.com\" }}\n}}\n"
        )
    };
    let head = "variable \"tag\" { default = \"1\" }\nlocals { host = \"example.com\" }\n";
    head.to_owned() + &(0..count).map(service).collect::<String>()
}

/// Returns a stack of services.
fn desired(count: u32) -> Desired {
    let service = |n| (name(n), DesiredService { release: Arc::new(release(n)), settings: Settings::default() });
    Desired { stack: name(0), services: (0..count).map(service).collect(), jobs: BTreeMap::new() }
}

/// Returns the state in which all services run as they are wanted. Its releases are other values than those, as in life.
fn recorded(desired: &Desired) -> State {
    let service = |(at, (name, wanted)): (usize, (&Name, &DesiredService))| {
        let service = Service {
            releases: BTreeMap::from([(1, Arc::new((*wanted.release).clone()))]),
            last_release: 1,
            stable: Some(1),
            ..Service::new(at as u16, wanted.settings.clone())
        };
        (name.clone(), service)
    };
    let services = desired.services.iter().enumerate().map(service).collect();
    State { stack: Some(desired.stack.clone()), services, ..State::default() }
}

fn name(n: u32) -> Name {
    format!("service-{n}").parse().unwrap()
}

fn release(n: u32) -> Release {
    Release {
        kind: Kind::Service,
        image: Digest::from_bytes([7; 32]),
        command: Some(vec!["/app".to_owned(), n.to_string()]),
        env: (0..10).map(|variable| (format!("VARIABLE_{variable}"), "value".repeat(5))).collect(),
        user: None,
        workdir: None,
        ports: BTreeMap::new(),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        env_secrets: BTreeMap::new(),
        scratch: vec!["/tmp".to_owned()],
        volumes: BTreeMap::new(),
        limits: Limits::default(),
        capabilities: Vec::new(),
        egress: false,
        connects_to: Vec::new(),
        health: Health::default(),
        routes: Vec::new(),
    }
}
