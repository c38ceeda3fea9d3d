//! Several processes on one depot, and processes that are killed. Each is this test program, started again.

#![allow(clippy::disallowed_methods, reason = "processes are what is tested")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use basalt_depot::{Depot, Error, Keep};
use basalt_model::{Bake, BakeFrom, BakeStep, Digest, ImageConfig};

fn quiet(_: &str, _: u64, _: Option<u64>) {}

/// An image of so many files that taking it in has many moments to be killed at.
fn bake(name: &str, files: usize) -> Bake {
    let file = |i: usize| {
        let content = format!("{}-{i}", if i.is_multiple_of(2) { "shared" } else { name }).repeat(200 + i);
        BakeStep::file(format!("/{}/{i}", i % 7), content, 0o644)
    };
    Bake { from: BakeFrom::Scratch, steps: (0..files).map(file).collect(), config: ImageConfig::default() }
}

/// What a child does: `WORK` is the verb, `DEPOT` and `ARCHIVE` are paths.
#[test]
fn child() {
    let Ok(work) = std::env::var("WORK") else { return };
    let path = |name: &str| std::env::var(name).unwrap();
    let depot = Depot::open(Path::new(&path("DEPOT"))).unwrap();
    let rounds = || 0..std::env::var("ROUNDS").unwrap().parse::<usize>().unwrap();
    match work.as_str() {
        "import" => {
            for _ in rounds() {
                depot.import(&format!("oci-archive:{}", path("ARCHIVE")), &quiet).unwrap();
            }
        }
        "bake" => {
            for round in rounds() {
                let digest = depot.bake(&bake(&format!("{round}"), 20), None, &quiet).unwrap();
                // A sweeper that spares nothing may have been quicker.
                match depot.with_mount_points(&digest, &["/scratch".to_owned()], &[]) {
                    Ok(_) | Err(Error::NotHere { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
        "sweep" => {
            let kept: Digest = path("KEPT").parse().unwrap();
            for _ in rounds() {
                depot.gc(&Keep::Only(BTreeSet::from([kept]))).unwrap();
            }
        }
        other => panic!("{other}"),
    }
}

fn start(work: &str, depot: &Path, rounds: usize, rest: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env("WORK", work)
        .env("DEPOT", depot)
        .env("ROUNDS", rounds.to_string())
        .envs(rest.iter().copied())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Makes an archive of an image of `files` files and returns the image's digest.
fn archive(file: &Path, files: usize) -> Digest {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let digest = depot.bake(&bake("archived", files), None, &quiet).unwrap();
    depot.export(&digest, file, None, &quiet).unwrap();
    digest
}

#[track_caller]
fn whole(depot: &Depot) {
    assert_eq!(depot.verify(&quiet).unwrap().problems, []);
}

#[test]
fn a_killed_import_leaves_nothing_half_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    let digest = archive(&file, 300);
    let at = dir.path().join("depot");
    let (mut killed, mut seed) = (0, 20_240_607_u64);
    for round in 0..40 {
        let mut child = start("import", &at, 1, &[("ARCHIVE", file.to_str().unwrap())]);
        // Marsaglia's xorshift: the same moments in every run, as far as the machine is the same.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_micros(seed % 60_000));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        let depot = Depot::open(&at).unwrap();
        killed += usize::from(!ended.success());
        whole(&depot);
        assert_eq!(fs::read_dir(at.join("staging")).unwrap().count(), 0, "round {round}");
        if depot.images().unwrap().iter().any(|image| image.digest == digest) {
            depot.gc(&Keep::Only(BTreeSet::new())).unwrap();
        }
    }
    assert!(killed > 0, "no import was ever killed");
    let depot = Depot::open(&at).unwrap();
    assert_eq!(depot.import(&format!("oci-archive:{}", file.display()), &quiet).unwrap(), digest);
    whole(&depot);
}

#[test]
fn a_killed_sweep_takes_nothing_that_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let kept = depot.bake(&bake("kept", 60), None, &quiet).unwrap();
    let text = kept.to_string();
    for round in 0..20 {
        depot.bake(&bake(&format!("goes-{round}"), 300), None, &quiet).unwrap();
        let mut child = start("sweep", dir.path(), 1, &[("KEPT", &text)]);
        std::thread::sleep(Duration::from_millis(round));
        child.kill().unwrap();
        child.wait().unwrap();
        whole(&depot);
        assert!(depot.images().unwrap().iter().any(|image| image.digest == kept));
    }
    depot.gc(&Keep::Only(BTreeSet::from([kept]))).unwrap();
    assert_eq!(depot.verify(&quiet).unwrap().images, 1);
}

#[test]
fn importers_bakers_and_sweepers_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    archive(&file, 60);
    let at = dir.path().join("depot");
    let kept = Depot::open(&at).unwrap().bake(&bake("kept", 60), None, &quiet).unwrap();
    let (text, file) = (kept.to_string(), file.to_str().unwrap());
    let works = ["import", "import", "bake", "bake", "sweep", "sweep"];
    let children: Vec<Child> =
        works.iter().map(|work| start(work, &at, 12, &[("ARCHIVE", file), ("KEPT", &text)])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let depot = Depot::open(&at).unwrap();
    whole(&depot);
    depot.with_mount_points(&kept, &[], &[]).unwrap();
    assert_eq!(fs::read_dir(at.join("staging")).unwrap().count(), 0);
}
