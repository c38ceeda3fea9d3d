//! Archives written and read by other tools: `skopeo` and `umoci`. Needs root, since trees are mounted.

#![allow(clippy::disallowed_methods, reason = "the other tools are programs")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use basalt_depot::{Depot, Error, Keep};
use basalt_model::{Bake, BakeFrom, BakeStep, Digest, ImageConfig};

mod mounted;
use mounted::Mounted;

fn quiet(_: &str, _: u64, _: Option<u64>) {}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes an image of three layers with `umoci`: a root, one that changes and removes, one that replaces a directory.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let made = Self { dir: tempfile::tempdir().unwrap() };
        let (layout, image, bundle) = (made.text("layout"), made.text("layout:v1"), made.text("bundle"));
        run("umoci", &["init", "--layout", &layout]);
        run("umoci", &["new", "--image", &image]);
        let layer = |change: &dyn Fn(&Path)| {
            run("umoci", &["unpack", "--image", &image, &bundle]);
            change(&made.path("bundle/rootfs"));
            run("umoci", &["repack", "--image", &image, &bundle]);
            fs::remove_dir_all(&bundle).unwrap();
        };
        layer(&|root| {
            for dir in ["bin", "etc", "empty", "old/deep", "usr/share"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
            fs::hard_link(root.join("bin/busybox"), root.join("bin/sh")).unwrap();
            std::os::unix::fs::symlink("busybox", root.join("bin/ls")).unwrap();
            fs::write(root.join("etc/gone"), "gone").unwrap();
            fs::write(root.join("etc/kept"), "kept").unwrap();
            fs::write(root.join("old/deep/file"), "old").unwrap();
            fs::write(root.join("usr/share/big"), vec![b'b'; 300_000]).unwrap();
            fs::set_permissions(root.join("etc/kept"), PermissionsExt::from_mode(0o2640)).unwrap();
            std::os::unix::fs::chown(root.join("etc/kept"), Some(1234), Some(4321)).unwrap();
            fs::set_permissions(root.join("empty"), PermissionsExt::from_mode(0o1777)).unwrap();
            // cap_net_bind_service=ep, as setcap(8) writes it.
            let capability: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join("bin/busybox"), "security.capability", &capability, flags).unwrap();
        });
        layer(&|root| {
            fs::remove_file(root.join("etc/gone")).unwrap();
            fs::write(root.join("etc/new"), "new").unwrap();
        });
        layer(&|root| {
            fs::remove_dir_all(root.join("old")).unwrap();
            fs::write(root.join("old"), "a file now").unwrap();
        });
        run(
            "umoci",
            &[
                "config",
                "--image",
                &image,
                "--config.entrypoint",
                "/bin/sh",
                "--config.cmd",
                "-c",
                "--config.cmd",
                "echo hi",
                "--config.env",
                "A=1=2",
                "--config.user",
                "7:8",
                "--config.workingdir",
                "/usr",
                "--config.label",
                "who=me",
            ],
        );
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn reference(&self, kind: &str, name: &str) -> String {
        format!("{kind}:{}", self.text(name))
    }
}

fn check_root(depot: &Depot, digest: &Digest) {
    let image = depot.with_mount_points(digest, &[], &[]).unwrap();
    assert_eq!(image.config.command, ["/bin/sh", "-c", "echo hi"]);
    assert_eq!(image.config.env["A"], "1=2");
    assert_eq!(image.config.user, "7:8");
    assert_eq!(image.config.workdir, "/usr");
    assert_eq!(image.config.labels["who"], "me");
    let root = Mounted::new(&image);
    let at = |path: &str| root.path().join(path);
    assert_eq!(root.names(""), ["bin", "dev", "empty", "etc", "old", "proc", "sys", "usr"]);
    assert_eq!(root.names("etc"), ["hostname", "hosts", "kept", "new", "resolv.conf"]);
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "a file now");
    assert_eq!(fs::read(at("usr/share/big")).unwrap(), vec![b'b'; 300_000]);
    assert_eq!(fs::read(at("bin/sh")).unwrap(), fs::read("/bin/busybox").unwrap());
    assert_eq!(fs::metadata(at("bin/sh")).unwrap().ino(), fs::metadata(at("bin/busybox")).unwrap().ino());
    assert_eq!(fs::metadata(at("bin/sh")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(at("bin/ls")).unwrap(), PathBuf::from("busybox"));
    let kept = fs::metadata(at("etc/kept")).unwrap();
    assert_eq!((kept.mode() & 0o7777, kept.uid(), kept.gid()), (0o2640, 1234, 4321));
    assert_eq!(fs::metadata(at("empty")).unwrap().mode() & 0o7777, 0o1777);
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(at("bin/busybox"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..length][..8], [1, 0, 0, 2, 0, 4, 0, 0]);
    // It runs: what the kernel maps is what was packed.
    assert_eq!(run("chroot", &[root.path().to_str().unwrap(), "/bin/sh", "-c", "echo $((6 * 7))"]).trim(), "42");
}

#[test]
fn images_of_other_tools_come_in_and_go_out() {
    let made = Made::new();
    let depot = Depot::open(&made.path("depot")).unwrap();
    let oci = made.reference("oci", "layout:v1");
    let digest = depot.import(&oci, &quiet).unwrap();
    assert_eq!(run("skopeo", &["inspect", "--format", "{{.Digest}}", &oci]).trim(), digest.to_string());
    check_root(&depot, &digest);
    assert_eq!(depot.import(&oci, &quiet).unwrap(), digest);

    // The same image in an archive is the same image.
    let archive = made.reference("oci-archive", "image.tar:v1");
    run("skopeo", &["copy", "-q", &oci, &archive]);
    assert_eq!(depot.import(&archive, &quiet).unwrap(), digest);
    assert_eq!(depot.import(&made.reference("oci-archive", "image.tar"), &quiet).unwrap(), digest);

    // A Docker archive says the same in other words: another manifest, the same tree.
    let docker = made.reference("docker-archive", "docker.tar");
    run("skopeo", &["copy", "-q", &oci, &format!("{docker}:shop/web:v1")]);
    let other = depot.import(&docker, &quiet).unwrap();
    check_root(&depot, &other);
    for tag in ["shop/web:v1", "v1"] {
        let found = depot.import(&format!("{docker}:{tag}"), &quiet);
        assert_eq!(found.unwrap(), other, "{tag}");
    }
    assert!(depot.import(&format!("{docker}:v2"), &quiet).unwrap_err().to_string().contains("shop/web:v1"));
    let erofs = |digest| depot.with_mount_points(digest, &[], &[]).unwrap().erofs;
    assert_eq!(erofs(&digest), erofs(&other));

    // zstd layers.
    let zstd = made.reference("oci", "zstd:v1");
    run("skopeo", &["copy", "-q", "--dest-compress-format", "zstd", &docker, &zstd]);
    assert!(run("skopeo", &["inspect", "--raw", &zstd]).contains("tar+zstd"));
    let third = depot.import(&zstd, &quiet).unwrap();
    assert_ne!(third, digest);
    assert_eq!(erofs(&third), erofs(&digest));

    // What goes out is read by skopeo and comes back the same.
    for image in [&digest, &other, &third] {
        let out = made.path("out.tar");
        depot.export(image, &out, Some("again"), &quiet).unwrap();
        let copied = made.reference("oci", &format!("copied-{}:again", image.short()));
        run("skopeo", &["copy", "-q", "--preserve-digests", &made.reference("oci-archive", "out.tar:again"), &copied]);
        assert_eq!(depot.import(&copied, &quiet).unwrap(), *image);
    }
    assert_eq!(depot.images().unwrap().len(), 3);
    let verified = depot.verify(&quiet).unwrap();
    assert_eq!((verified.images, &verified.problems[..]), (3, &[][..]));
}

#[test]
fn a_baked_image_is_read_by_other_tools() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(&dir.path().join("depot")).unwrap();
    let file = |path: String| BakeStep::file(path, "x".repeat(100), 0o600);
    let long = format!("/{}/{}", "d".repeat(120), "f".repeat(200));
    let mut bake = Bake {
        from: BakeFrom::Scratch,
        steps: vec![file(long.clone()), BakeStep::Link { path: "/l".into(), to: "y".repeat(200) }],
        config: ImageConfig { command: vec!["/x".into(), "a b".into()], ..ImageConfig::default() },
    };
    bake.config.env = [("A".to_owned(), "1".to_owned())].into();
    let digest = depot.bake(&bake, None, &quiet).unwrap();
    let out = dir.path().join("out.tar");
    depot.export(&digest, &out, Some("v1"), &quiet).unwrap();
    let first = fs::read(&out).unwrap();
    depot.export(&digest, &out, Some("v1"), &quiet).unwrap();
    assert!(fs::read(&out).unwrap() == first, "the same image gives the same archive");

    let layout = dir.path().join("layout");
    let reference = format!("oci:{}:v1", layout.display());
    run("skopeo", &["copy", "-q", &format!("oci-archive:{}:v1", out.display()), &reference]);
    let shown: serde_json::Value = serde_json::from_str(&run("skopeo", &["inspect", "--config", &reference])).unwrap();
    assert_eq!(shown["config"]["Cmd"], serde_json::json!(["/x", "a b"]));
    let bundle = dir.path().join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:v1", layout.display()), bundle.to_str().unwrap()]);
    let unpacked = bundle.join("rootfs").join(&long[1..]);
    assert_eq!(fs::read_to_string(&unpacked).unwrap(), "x".repeat(100));
    assert_eq!(fs::metadata(&unpacked).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_link(bundle.join("rootfs/l")).unwrap().as_os_str().len(), 200);
    // Mount points are in the tree alone, not in the layer.
    assert!(!bundle.join("rootfs/proc").exists());
}

#[test]
fn sweeping_keeps_what_is_kept_and_finds_damage() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(&dir.path().join("depot")).unwrap();
    let bake = |letter: &str| {
        let content = |n: usize| letter.repeat(n);
        let steps =
            vec![BakeStep::file("/own", content(5000), 0o644), BakeStep::file("/shared", "s".repeat(5000), 0o644)];
        let bake = Bake { from: BakeFrom::Scratch, steps, config: ImageConfig::default() };
        depot.bake(&bake, None, &quiet).unwrap()
    };
    let (a, b) = (bake("a"), bake("b"));
    let dirs = ["/scratch".to_owned()];
    depot.with_mount_points(&a, &dirs, &[]).unwrap();
    depot.with_mount_points(&b, &dirs, &[]).unwrap();
    let freed = depot.gc(&Keep::Only(BTreeSet::from([a]))).unwrap();
    // Gone with b: manifest, configuration, layer, two trees and its own object.
    assert_eq!((freed.images, freed.files), (1, 6));
    assert!(matches!(depot.with_mount_points(&b, &[], &[]), Err(Error::NotHere { .. })));
    let root = Mounted::new(&depot.with_mount_points(&a, &dirs, &[]).unwrap());
    assert_eq!(fs::read_to_string(root.path().join("own")).unwrap(), "a".repeat(5000));
    assert_eq!(fs::read_to_string(root.path().join("shared")).unwrap(), "s".repeat(5000));
    drop(root);
    assert_eq!(depot.gc(&Keep::Only(BTreeSet::from([a]))).unwrap().files, 0);
    // Baked again, it is back.
    assert_eq!(bake("b"), b);
    assert!(depot.verify(&quiet).unwrap().problems.is_empty());

    let object = fs::read_dir(dir.path().join("depot/objects")).unwrap().next().unwrap().unwrap().path();
    let object = fs::read_dir(object).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&object).unwrap();
    fs::write(&object, "changed").unwrap();
    let problems = depot.verify(&quiet).unwrap().problems;
    assert_eq!((problems.len(), &problems[0].path), (1, &object));
    assert!(problems[0].what.contains("changed"));
    fs::write(&object, good).unwrap();
    fs::remove_file(&object).unwrap();
    assert!(depot.verify(&quiet).unwrap().problems[0].what.contains("No such file"));

    depot.gc(&Keep::Only(BTreeSet::new())).unwrap();
    let left = run("find", &[dir.path().join("depot").to_str().unwrap(), "-type", "f", "-printf", "%f "]);
    assert_eq!(left.split_whitespace().collect::<BTreeSet<_>>(), BTreeSet::from(["format", "lock"]));
}

#[test]
fn of_several_platforms_this_machines_is_taken() {
    let made = Made::new();
    let depot = Depot::open(&made.path("depot")).unwrap();
    let v1 = made.reference("oci", "layout:v1");
    let wanted = depot.import(&v1, &quiet).unwrap();
    let read = |path: &str| serde_json::from_slice::<serde_json::Value>(&fs::read(made.path(path)).unwrap()).unwrap();
    let mut entry = read("layout/index.json")["manifests"][0].clone();
    let host = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    entry["annotations"].take();
    entry.as_object_mut().unwrap().remove("annotations");
    let with = |arch: &str, os: &str, digest: Option<&str>| {
        let mut entry = entry.clone();
        entry["platform"] = serde_json::json!({ "architecture": arch, "os": os });
        if let Some(digest) = digest {
            entry["digest"] = digest.into();
        }
        entry
    };
    let elsewhere = format!("sha256:{}", "0".repeat(64));
    let write = |manifests: Vec<serde_json::Value>| {
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        let bytes = serde_json::to_vec(&index).unwrap();
        let digest =
            run("sh", &["-c", &format!("printf %s '{}' | sha256sum | cut -c1-64", String::from_utf8_lossy(&bytes))]);
        let digest = digest.trim();
        fs::write(made.path("layout/blobs/sha256").join(digest), &bytes).unwrap();
        let outer = serde_json::json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": format!("sha256:{digest}"), "size": bytes.len(),
        }] });
        fs::write(made.path("layout/index.json"), serde_json::to_vec(&outer).unwrap()).unwrap();
    };
    let layout = made.reference("oci", "layout");
    write(vec![
        with("s390x", "linux", Some(&elsewhere)),
        with("unknown", "unknown", Some(&elsewhere)),
        with(host, "linux", None),
    ]);
    assert_eq!(depot.import(&layout, &quiet).unwrap(), wanted);
    write(vec![with("s390x", "linux", None), with(host, "windows", None)]);
    let error = depot.import(&layout, &quiet).unwrap_err().to_string();
    assert!(error.contains("no image for linux/") && error.contains("linux/s390x"), "{error}");
}
