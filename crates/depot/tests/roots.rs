//! Baked images, mounted by the kernel as an instance's root would be. Needs root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use basalt_depot::{Depot, Error};
use basalt_model::{Bake, BakeFrom, BakeStep, Digest, ImageConfig};
use basalt_seam::PinnedImage;

mod mounted;
use mounted::Mounted;

fn quiet(_: &str, _: u64, _: Option<u64>) {}

fn depot() -> (tempfile::TempDir, Depot) {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(&dir.path().join("depot")).unwrap();
    (dir, depot)
}

fn file(path: &str, content: &str) -> BakeStep {
    BakeStep::file(path, content, 0o644)
}

fn copy(from: &Path, to: &str) -> BakeStep {
    BakeStep::copy(from, to)
}

fn scratch(steps: Vec<BakeStep>) -> Bake {
    Bake { from: BakeFrom::Scratch, steps, config: ImageConfig::default() }
}

fn plain(depot: &Depot, digest: &Digest) -> PinnedImage {
    depot.with_mount_points(digest, &[], &[]).unwrap()
}

#[test]
fn a_baked_root_holds_what_was_put_in() {
    let (dir, depot) = depot();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("sub/empty")).unwrap();
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    fs::write(source.join("big"), &big).unwrap();
    fs::write(source.join("middle"), vec![7; 100_000]).unwrap();
    fs::write(source.join("sub/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.join("sub/run"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(source.join("middle"), PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("../middle", source.join("sub/link")).unwrap();
    let steps = vec![
        copy(&source, "/data"),
        file("/www/index.html", "hello\n"),
        file("/ab", "a name that composefs uses for itself in other formats"),
        BakeStep::file("/www/key", "x", 0o4750),
        BakeStep::Link { path: "/www/here".into(), to: "./index.html".into() },
        BakeStep::Link { path: "/long".into(), to: "x".repeat(500) },
    ];
    let digest = depot.bake(&scratch(steps), None, &quiet).unwrap();
    let root = Mounted::new(&plain(&depot, &digest));
    let at = |path: &str| root.path().join(path);
    assert_eq!(fs::read(at("data/big")).unwrap(), big);
    assert_eq!(fs::read(at("data/middle")).unwrap(), vec![7; 100_000]);
    assert_eq!(fs::read_to_string(at("www/index.html")).unwrap(), "hello\n");
    assert_eq!(fs::read_link(at("data/sub/link")).unwrap(), PathBuf::from("../middle"));
    assert_eq!(fs::read_link(at("www/here")).unwrap(), PathBuf::from("./index.html"));
    assert_eq!(fs::read_link(at("long")).unwrap().as_os_str().len(), 500);
    let mode = |path: &str| fs::symlink_metadata(at(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("data/middle"), 0o644);
    assert_eq!(mode("data/sub/run"), 0o755);
    assert_eq!(mode("data/sub/empty"), 0o755);
    assert_eq!(mode("www/key"), 0o4750);
    let meta = fs::metadata(at("data/big")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (0, 0, 0));
    assert_eq!(root.names(""), ["ab", "data", "dev", "etc", "long", "proc", "sys", "www"]);
    assert_eq!(root.names("etc"), ["hostname", "hosts", "resolv.conf"]);
    assert_eq!(fs::read(at("etc/hosts")).unwrap(), b"");
    assert!(fs::write(at("www/new"), "x").is_err());
}

#[test]
fn the_same_input_gives_the_same_digest() {
    let (dir, depot_a) = depot();
    let (_other, depot_b) = depot();
    let source = dir.path().join("source");
    for name in ["z", "a", "m/q"] {
        let path = source.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let steps = || vec![copy(&source, "/"), file("/x", "x")];
    let first = depot_a.bake(&scratch(steps()), None, &quiet).unwrap();
    // Another umask, another time: the same image.
    fs::set_permissions(source.join("z"), PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(depot_a.bake(&scratch(steps()), None, &quiet).unwrap(), first);
    assert_eq!(depot_b.bake(&scratch(steps()), None, &quiet).unwrap(), first);
    assert_eq!(plain(&depot_a, &first).erofs.file_name(), plain(&depot_b, &first).erofs.file_name());
    fs::write(source.join("z"), "other").unwrap();
    assert_ne!(depot_a.bake(&scratch(steps()), None, &quiet).unwrap(), first);
    // Written down, so that a change of the recipe does not go unnoticed.
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        depot_b.bake(&scratch(vec![file("/x", "x")]), None, &quiet).unwrap().to_string(),
        "sha256:907ea086555020bf033044603299b6019694470c79c20603fa0037754e258979"
    );
}

#[test]
fn baking_over_an_image() {
    let (_dir, depot) = depot();
    let mut base = scratch(vec![
        file("/usr/bin/sh", "sh"),
        BakeStep::Link { path: "/bin".into(), to: "usr/bin".into() },
        file("/etc/hosts", "127.0.0.1 localhost\n"),
    ]);
    base.config.command = vec!["/bin/sh".into()];
    base.config.env = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())].into();
    let base = depot.bake(&base, None, &quiet).unwrap();
    let source = basalt_model::ImageSource::Reference("oci:/base".into());
    let mut bake = Bake {
        from: BakeFrom::Image(source),
        steps: vec![file("/bin/app", "app"), file("/usr/bin/sh", "new")],
        config: ImageConfig::default(),
    };
    bake.config.env = [("B".to_owned(), "3".to_owned())].into();
    bake.config.user = "7:8".into();
    let digest = depot.bake(&bake, Some(&base), &quiet).unwrap();
    let image = plain(&depot, &digest);
    assert_eq!(image.config.command, ["/bin/sh"]);
    assert_eq!(image.config.env["A"], "1");
    assert_eq!(image.config.env["B"], "3");
    assert_eq!(image.config.user, "7:8");
    let root = Mounted::new(&image);
    assert_eq!(fs::read_to_string(root.path().join("bin/app")).unwrap(), "app");
    assert_eq!(fs::read_to_string(root.path().join("usr/bin/sh")).unwrap(), "new");
    assert_eq!(fs::read_link(root.path().join("bin")).unwrap(), PathBuf::from("usr/bin"));
    assert_eq!(fs::read_to_string(root.path().join("etc/hosts")).unwrap(), "127.0.0.1 localhost\n");
    assert_eq!(depot.images().unwrap().len(), 2);
}

#[test]
fn steps_that_cannot_be_done_are_named() {
    let (dir, depot) = depot();
    let check = |steps: Vec<BakeStep>, words: &[&str]| {
        let error = depot.bake(&scratch(steps), None, &quiet).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    };
    check(vec![file("/a", ""), copy(Path::new("/not/there"), "/b")], &["step 2", "/not/there", "No such file"]);
    check(vec![file("a", "")], &["step 1", "not absolute"]);
    check(vec![file("/../a", "")], &["`..`"]);
    check(vec![file("/", "")], &["names a directory"]);
    check(vec![file("/a", ""), file("/a/b", "")], &["step 2", "`/a` on its way is a file"]);
    check(vec![file("/a/b", ""), file("/a", "")], &["step 2", "directory there"]);
    check(vec![file("/.wh.a", "")], &[".wh."]);
    check(vec![BakeStep::file("/a", "", 0o100_644)], &["mode `100644`"]);
    check(vec![BakeStep::Link { path: "/a".into(), to: String::new() }], &["target is empty"]);
    check(vec![file("/proc", "")], &["/proc", "a file there"]);
    check(vec![copy(Path::new("rel"), "/a")], &["not an absolute path"]);
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    check(vec![copy(dir.path(), "/a")], &["fifo", "neither a file"]);
    check(
        vec![
            BakeStep::Link { path: "/l".into(), to: "/m".into() },
            BakeStep::Link { path: "/m".into(), to: "/l".into() },
            file("/l/x", ""),
        ],
        &["step 3", "circles"],
    );
    assert!(depot.images().unwrap().is_empty());
    assert_eq!(fs::read_dir(dir.path().join("depot/staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("depot/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn mount_points_are_put_in() {
    let (_dir, depot) = depot();
    let steps = vec![
        file("/var/lib/data/kept", "kept"),
        BakeStep::Link { path: "/var/run".into(), to: "/run".into() },
        BakeStep::Link { path: "/etc/localtime".into(), to: "../usr/share/zone".into() },
        BakeStep::Link { path: "/etc/resolv.conf".into(), to: "/run/resolve/stub.conf".into() },
        BakeStep::Link { path: "/out".into(), to: "../../../../../../tmp".into() },
    ];
    let digest = depot.bake(&scratch(steps), None, &quiet).unwrap();
    let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let dirs = texts(&["/tmp", "/var/lib/data", "/var/run/app", "/out/x"]);
    let files = texts(&["/etc/app/app.toml", "/run/secrets/db", "/etc/localtime"]);
    let image = depot.with_mount_points(&digest, &dirs, &files).unwrap();
    let root = Mounted::new(&image);
    let at = |path: &str| root.path().join(path);
    assert!(at("tmp").is_dir() && at("tmp/x").is_dir() && at("run/app").is_dir());
    assert_eq!(fs::read_to_string(at("var/lib/data/kept")).unwrap(), "kept");
    assert_eq!(fs::read(at("etc/app/app.toml")).unwrap(), b"");
    assert_eq!(fs::read(at("run/secrets/db")).unwrap(), b"");
    assert_eq!(fs::read(at("usr/share/zone")).unwrap(), b"");
    assert!(fs::symlink_metadata(at("etc/resolv.conf")).unwrap().is_file());
    drop(root);
    // Found again, in any order; and the image itself is as it was.
    let again = depot.with_mount_points(&digest, &texts(&["/out/x", "/var/run/app", "/var/lib/data", "/tmp"]), &files);
    assert_eq!(again.unwrap().erofs, image.erofs);
    assert_eq!(Mounted::new(&plain(&depot, &digest)).names("").len(), 6);
    let refused = |dirs: &[&str], files: &[&str], word: &str| {
        let error = depot.with_mount_points(&digest, &texts(dirs), &texts(files)).unwrap_err();
        assert!(matches!(error, Error::MountPoint { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    refused(&["/var/lib/data/kept"], &[], "a file there");
    refused(&["/var/lib/data/kept/x"], &[], "is a file");
    refused(&[], &["/var/lib"], "a directory there");
    refused(&["relative"], &[], "absolute");
    refused(&["/a/../b"], &[], "`..`");
    refused(&["/a"], &["/a"], "a directory there");
    let missing = Digest::from_bytes([1; 32]);
    assert!(matches!(depot.with_mount_points(&missing, &[], &[]), Err(Error::NotHere { .. })));
}
