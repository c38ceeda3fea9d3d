//! Damage is found, named, and mended from the layers.

use std::fs;
use std::path::{Path, PathBuf};

use basalt_depot::Depot;
use basalt_model::{Bake, BakeFrom, BakeStep, Digest, ImageConfig};

fn quiet(_: &str, _: u64, _: Option<u64>) {}

struct Made {
    dir: tempfile::TempDir,
    depot: Depot,
    digest: Digest,
    archive: String,
}

impl Made {
    /// An image that was imported from an archive, with mount points.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let other = Depot::open(&dir.path().join("other")).unwrap();
        let file = |path: &str, letter: &str| BakeStep::file(path, letter.repeat(5000), 0o644);
        let lower = Bake {
            from: BakeFrom::Scratch,
            steps: vec![file("/a", "a"), file("/b", "b"), file("/etc/hosts", "h")],
            config: ImageConfig::default(),
        };
        let lower = other.bake(&lower, None, &quiet).unwrap();
        let from = BakeFrom::Image(basalt_model::ImageSource::Reference("lower".into()));
        let upper = Bake { from, steps: vec![file("/b", "c")], config: ImageConfig::default() };
        let digest = other.bake(&upper, Some(&lower), &quiet).unwrap();
        let file = dir.path().join("image.tar");
        other.export(&digest, &file, None, &quiet).unwrap();
        let archive = format!("oci-archive:{}", file.display());
        let depot = Depot::open(&dir.path().join("depot")).unwrap();
        depot.import(&archive, &quiet).unwrap();
        depot.with_mount_points(&digest, &["/scratch".to_owned()], &[]).unwrap();
        Self { dir, depot, digest, archive }
    }

    fn files(&self, sub: &str) -> Vec<PathBuf> {
        fn walk(dir: &Path, all: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, all) } else { all.push(path) }
            }
        }
        let mut all = Vec::new();
        walk(&self.dir.path().join("depot").join(sub), &mut all);
        all.sort();
        all
    }

    fn sound(&self) {
        assert_eq!(self.depot.verify(&quiet).unwrap().problems, []);
        self.depot.with_mount_points(&self.digest, &["/scratch".to_owned()], &[]).unwrap();
    }
}

#[test]
fn trees_and_objects_are_rebuilt() {
    let made = Made::new();
    for path in [made.files("objects"), made.files("erofs")].concat() {
        for damage in [Some("changed"), None] {
            let damaged = match damage {
                Some(text) => fs::remove_file(&path).and_then(|()| fs::write(&path, text)),
                None => fs::remove_file(&path),
            };
            // What is not there any more after a repair was not needed: the tree of the imported image stands alone.
            damaged.unwrap();
            let problems = made.depot.verify(&quiet).unwrap().problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!((problems[0].image, &problems[0].path), (made.digest, &path));
            assert_eq!(problems[0].origin, made.archive);
            assert!(problems[0].mend.contains("--repair"), "{}", problems[0].mend);
            let repaired = made.depot.repair(&quiet).unwrap();
            assert_eq!(repaired.problems, [], "{}", path.display());
            made.sound();
            if !path.exists() {
                panic!("{} was not rebuilt", path.display());
            }
        }
    }
    assert_eq!(made.depot.repair(&quiet).unwrap().images, []);
}

#[test]
fn a_blob_comes_back_with_the_next_import() {
    let made = Made::new();
    for path in made.files("blobs") {
        let good = fs::read(&path).unwrap();
        fs::write(&path, "changed").unwrap();
        let problems = made.depot.verify(&quiet).unwrap().problems;
        assert!(
            problems.iter().any(|p| p.path == path && p.mend.contains(&format!("import `{}` again", made.archive)))
        );
        let repaired = made.depot.repair(&quiet).unwrap();
        assert_eq!(repaired.problems.len(), 1, "it can't be rebuilt: {:?}", repaired.problems);
        assert_eq!(made.depot.import(&made.archive, &quiet).unwrap(), made.digest);
        assert_eq!(fs::read(&path).unwrap(), good);
        made.sound();
    }
}

#[test]
fn a_damaged_record_is_taken_away() {
    let made = Made::new();
    fs::write(made.dir.path().join("depot/images").join(made.digest.to_hex()), "{").unwrap();
    let problems = made.depot.verify(&quiet).unwrap().problems;
    assert!(problems[0].what.contains("damaged"), "{problems:?}");
    assert_eq!(made.depot.repair(&quiet).unwrap().problems, []);
    assert_eq!(made.depot.import(&made.archive, &quiet).unwrap(), made.digest);
    made.sound();
}
