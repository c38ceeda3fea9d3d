//! Several users of one depot at once, and one that was killed.

use std::collections::BTreeSet;
use std::fs;

use basalt_depot::{Depot, Keep};
use basalt_model::{Bake, BakeFrom, BakeStep, ImageConfig};

fn quiet(_: &str, _: u64, _: Option<u64>) {}

fn bake(name: &str) -> Bake {
    let file = |path: &str, content: String| BakeStep::file(path, content, 0o644);
    let steps = vec![file("/shared", "s".repeat(9000)), file("/own", name.repeat(3000))];
    Bake { from: BakeFrom::Scratch, steps, config: ImageConfig::default() }
}

#[test]
fn bakers_and_sweepers_at_once_leave_every_kept_image_whole() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Depot::open(dir.path()).unwrap();
    let kept = open().bake(&bake("kept"), None, &quiet).unwrap();
    std::thread::scope(|scope| {
        for baker in 0..4 {
            // Each opens the depot itself, as separate processes would.
            scope.spawn(move || {
                let depot = open();
                for round in 0..10 {
                    // Two bakers always make the same image.
                    depot.bake(&bake(&format!("{}-{round}", baker / 2)), None, &quiet).unwrap();
                    depot.with_mount_points(&kept, &[format!("/m{baker}{round}")], &[]).unwrap();
                }
            });
        }
        scope.spawn(move || {
            let depot = open();
            for _ in 0..10 {
                depot.gc(&Keep::Only(BTreeSet::from([kept]))).unwrap();
            }
        });
    });
    let depot = open();
    let verified = depot.verify(&quiet).unwrap();
    assert_eq!(verified.problems, []);
    assert!(depot.images().unwrap().iter().any(|image| image.digest == kept));
    assert_eq!(fs::read_dir(dir.path().join("staging")).unwrap().count(), 0);
    depot.gc(&Keep::Only(BTreeSet::from([kept]))).unwrap();
    assert_eq!(depot.verify(&quiet).unwrap().images, 1);
}

#[test]
fn a_depot_may_be_made_by_several_at_once() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("depot");
        std::thread::scope(|scope| {
            let opens: Vec<_> = (0..4).map(|_| scope.spawn(|| Depot::open(&dir).map(drop))).collect();
            for open in opens {
                open.join().unwrap().unwrap();
            }
        });
    }
}

#[test]
fn what_a_killed_process_left_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    let digest = depot.bake(&bake("a"), None, &quiet).unwrap();
    let left = dir.path().join("staging/left");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("1"), "half").unwrap();
    fs::write(dir.path().join("staging/file"), "half").unwrap();
    // Killed after its files were moved to their places and before the image was recorded.
    fs::remove_file(dir.path().join("images").join(digest.to_hex())).unwrap();
    let depot = Depot::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("staging")).unwrap().count(), 0);
    assert!(depot.images().unwrap().is_empty());
    assert_eq!(depot.bake(&bake("a"), None, &quiet).unwrap(), digest);
    assert_eq!(depot.verify(&quiet).unwrap().problems, []);
}

#[test]
fn a_newer_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Depot::open(dir.path()).unwrap());
    fs::write(dir.path().join("format"), "2").unwrap();
    assert!(Depot::open(dir.path()).unwrap_err().to_string().contains("layout is `2`"));
}
