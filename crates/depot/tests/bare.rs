//! Images of bare roots, and archives that are packed as a whole. Needs root, since trees are mounted.

#![allow(clippy::disallowed_methods, reason = "other tools are programs")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use basalt_depot::{Depot, Limits};
use basalt_model::Digest;

mod mounted;
use mounted::Mounted;

fn quiet(_: &str, _: u64, _: Option<u64>) {}

/// cap_net_bind_service=ep, as setcap(8) writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Makes a root that belongs to `owner`, in some order and at some time.
fn root(at: &Path, owner: u32, backwards: bool) {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let mut files = vec!["bin/tool", "etc/conf", "tmp/x", long.as_str()];
    if backwards {
        files.reverse();
    }
    for name in files {
        let path = at.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name.repeat(100)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        fs::set_permissions(path.parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        chown(path.parent().unwrap(), Some(owner), Some(owner)).unwrap();
    }
    fs::hard_link(at.join("bin/tool"), at.join("bin/zz")).unwrap();
    fs::set_permissions(at.join("bin/tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(at.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at.join("etc/conf"), "security.capability", &CAPABILITY, flags).unwrap();
    symlink("../bin/tool", at.join("etc/link")).unwrap();
    rustix::fs::chownat(
        rustix::fs::CWD,
        at.join("etc/link"),
        Some(rustix::fs::Uid::from_raw(owner)),
        Some(rustix::fs::Gid::from_raw(owner)),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    // Someone other than the owner of the whole.
    chown(at.join("tmp/x"), Some(4242), Some(4243)).unwrap();
    chown(at, Some(owner), Some(owner)).unwrap();
}

#[test]
fn a_directory_gives_the_same_image_wherever_it_lies_and_whoever_owns_it() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(&dir.path().join("depot")).unwrap();
    let import = |name: &str, owner: u32, backwards: bool| {
        let at = dir.path().join(name);
        fs::create_dir(&at).unwrap();
        root(&at, owner, backwards);
        depot.import(&format!("dir:{}", at.display()), &quiet).unwrap()
    };
    let digest = import("a", 0, false);
    assert_eq!(import("else:where", 1234, true), digest);
    assert_eq!(depot.images().unwrap().len(), 1);

    let root = Mounted::new(&depot.with_mount_points(&digest, &[], &[]).unwrap());
    let meta = |path: &str| fs::symlink_metadata(root.path().join(path)).unwrap();
    let tool = meta("bin/tool");
    assert_eq!((tool.mode() & 0o7777, tool.uid(), tool.mtime(), tool.nlink()), (0o4755, 0, 0, 2));
    assert_eq!(tool.ino(), meta("bin/zz").ino());
    assert_eq!((meta("tmp/x").uid(), meta("tmp/x").gid()), (4242, 4243));
    assert_eq!(meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_link(root.path().join("etc/link")).unwrap(), Path::new("../bin/tool"));
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(root.path().join("etc/conf"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..length], CAPABILITY);
    assert_eq!(root.names("d".repeat(120).as_str()), ["f".repeat(200)]);
    assert_eq!(depot.verify(&quiet).unwrap().problems, []);
}

#[test]
fn what_can_be_no_part_of_an_image_is_refused() {
    let check = |make: &dyn Fn(&Path), word: &str| {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(&dir.path().join("depot")).unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        make(&root);
        let error = depot.import(&format!("dir:{}", root.display()), &quiet).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("/root/sub/"), "{error}");
        assert_eq!(fs::read_dir(dir.path().join("depot/staging")).unwrap().count(), 0);
    };
    check(&|root| drop(std::os::unix::net::UnixListener::bind(root.join("sub/x")).unwrap()), "neither file");
    check(&|root| fs::write(root.join("sub/.wh.y"), "").unwrap(), "beginning with `.wh.`");
}

#[test]
fn a_tar_is_an_image_however_it_is_packed() {
    let dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(&dir.path().join("depot")).unwrap();
    let tree = dir.path().join("root");
    fs::create_dir(&tree).unwrap();
    root(&tree, 0, false);
    let path = |name: &str| dir.path().join(name);
    let tar = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-cf"])
        .arg(path("root.tar"))
        .arg("-C")
        .arg(&tree)
        .arg(".")
        .status();
    assert!(tar.unwrap().success());
    let plain = fs::read(path("root.tar")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    fs::write(path("root.tar.gz"), gzip.finish().unwrap()).unwrap();
    fs::write(path("root.tar.zst"), zstd::encode_all(&plain[..], 1).unwrap()).unwrap();
    let import = |name: &str| depot.import(&format!("tar:{}", path(name).display()), &quiet);
    let digest = import("root.tar").unwrap();
    assert_eq!(import("root.tar.gz").unwrap(), digest);
    assert_eq!(import("root.tar.zst").unwrap(), digest);
    let mounted = Mounted::new(&depot.with_mount_points(&digest, &[], &[]).unwrap());
    assert_eq!(fs::read(mounted.path().join("bin/tool")).unwrap(), fs::read(tree.join("bin/tool")).unwrap());
    // It goes out as any other image does.
    depot.export(&digest, &path("out.tar"), Some("v1"), &quiet).unwrap();
    assert_eq!(depot.import(&format!("oci-archive:{}:v1", path("out.tar").display()), &quiet).unwrap(), digest);

    fs::write(path("root.tar.xz"), b"\xfd7zXZ\0rest").unwrap();
    assert!(import("root.tar.xz").unwrap_err().to_string().contains("packed with xz"));
    fs::write(path("cut.tar.gz"), &fs::read(path("root.tar.gz")).unwrap()[..900]).unwrap();
    let error = import("cut.tar.gz").unwrap_err().to_string();
    assert!(error.contains("cut.tar.gz"), "{error}");
    assert_eq!(depot.images().unwrap().len(), 1);
}

/// Bakes an image of one file and exports it.
fn baked(dir: &Path, name: &str) -> Digest {
    let depot = Depot::open(&dir.join("baker")).unwrap();
    let file = basalt_model::BakeStep::file("/f", name.repeat(4000), 0o644);
    let (from, config) = (basalt_model::BakeFrom::Scratch, basalt_model::ImageConfig::default());
    let digest = depot.bake(&basalt_model::Bake { from, steps: vec![file], config }, None, &quiet).unwrap();
    depot.export(&digest, &dir.join(format!("{name}.tar")), Some("v1"), &quiet).unwrap();
    digest
}

#[test]
fn archives_may_be_packed_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let digest = baked(dir.path(), "a");
    let plain = fs::read(dir.path().join("a.tar")).unwrap();
    let file = dir.path().join("a.tar.zst");
    fs::write(&file, zstd::encode_all(&plain[..], 3).unwrap()).unwrap();
    let depot = Depot::open(&dir.path().join("depot")).unwrap();
    assert_eq!(depot.import(&format!("oci-archive:{}:v1", file.display()), &quiet).unwrap(), digest);
    assert_eq!(fs::read_dir(dir.path().join("depot/staging")).unwrap().count(), 0);

    let small = Limits { unpacked: 1 << 20, entries: 10, ratio: 10, free: 1 << 10 };
    let depot = Depot::open(&dir.path().join("small")).unwrap().with_limits(small);
    let bomb = dir.path().join("bomb.tar.zst");
    fs::write(&bomb, zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap()).unwrap();
    for kind in ["oci-archive", "docker-archive", "tar"] {
        let error = depot.import(&format!("{kind}:{}", bomb.display()), &quiet).unwrap_err().to_string();
        assert!(error.contains("unpacks to more than"), "{error}");
    }
}

/// Appends a file to a tar.
fn put(tar: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
}

/// The three ways in which the layers of a `docker save` lie: in directories of their own (up to Docker 24), as blobs of
/// an OCI layout (from 25 on), and packed there (its containerd store).
#[test]
fn docker_archives_of_all_ages_give_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    put(&mut layer, "f", &[b'x'; 9000]);
    let layer = layer.into_inner().unwrap();
    let sha = |bytes: &[u8]| {
        use sha2::Digest as _;
        Digest::from_bytes(sha2::Sha256::digest(bytes).into()).to_hex()
    };
    let host = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let config = format!(
        r#"{{"architecture":"{host}","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        sha(&layer)
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let packed = gzip.finish().unwrap();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha(bytes));
    let write = |file: &str, config_name: &str, layer_name: &str, layer: &[u8], twice: bool| {
        let entry = |tag: &str| {
            format!(r#"{{"Config":"{config_name}","RepoTags":["shop/web:{tag}"],"Layers":["{layer_name}"]}}"#)
        };
        let images = if twice { format!("[{},{}]", entry("v1"), entry("v2")) } else { format!("[{}]", entry("v1")) };
        let mut archive = tar::Builder::new(Vec::new());
        put(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        put(&mut archive, "index.json", br#"{"schemaVersion":2,"manifests":[]}"#);
        put(&mut archive, "repositories", b"{}");
        put(&mut archive, config_name, config.as_bytes());
        put(&mut archive, layer_name, layer);
        put(&mut archive, "manifest.json", images.as_bytes());
        fs::write(dir.path().join(file), archive.into_inner().unwrap()).unwrap();
    };
    write("old.tar", "c.json", "abc/layer.tar", &layer, false);
    write("new.tar", &blob(config.as_bytes()), &blob(&layer), &layer, false);
    write("packed.tar", &blob(config.as_bytes()), &blob(&packed), &packed, true);
    let fresh = |name: &str| Depot::open(&dir.path().join(name)).unwrap();
    let import = |depot: &Depot, what: &str| {
        depot.import(&format!("docker-archive:{}/{what}", dir.path().display()), &quiet).map_err(|e| e.to_string())
    };
    let one = fresh("one");
    let digest = import(&one, "old.tar").unwrap();
    assert_eq!(import(&one, "new.tar").unwrap(), digest);
    assert_eq!(import(&one, "packed.tar:v2").unwrap(), digest);
    assert_eq!(import(&fresh("two"), "packed.tar:shop/web:v1").unwrap(), digest);
    let error = import(&one, "packed.tar").unwrap_err();
    assert!(error.contains("2 images") && error.contains("shop/web:v2"), "{error}");
}

#[test]
fn podman_writes_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tree = dir.path().join("root");
    fs::create_dir(&tree).unwrap();
    root(&tree, 0, false);
    assert!(Command::new("tar").args(["-cf", &path("root.tar"), "-C", &path("root"), "."]).status().unwrap().success());
    let podman = |args: &[&str]| {
        let output = Command::new("podman")
            .args(["--root", &path("storage"), "--runroot", &path("run"), "--storage-driver", "vfs"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "podman {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    podman(&["import", "-q", "--change", "CMD=/bin/tool", &path("root.tar"), "shop/web:v1"]);
    podman(&["import", "-q", "--change", "CMD=/bin/zz", &path("root.tar"), "shop/web:v2"]);
    podman(&["save", "-q", "-o", &path("one.tar"), "shop/web:v1"]);
    podman(&["save", "-q", "--format", "oci-archive", "-o", &path("oci.tar"), "shop/web:v1"]);
    podman(&["save", "-q", "-m", "-o", &path("both.tar"), "shop/web:v1", "shop/web:v2"]);
    let depot = Depot::open(&dir.path().join("depot")).unwrap();
    let import = |what: &str| depot.import(what, &quiet).unwrap();
    let one = import(&format!("docker-archive:{}", path("one.tar")));
    assert_eq!(import(&format!("docker-archive:{}:shop/web:v1", path("both.tar"))), one);
    let two = import(&format!("docker-archive:{}:v2", path("both.tar")));
    let oci = import(&format!("oci-archive:{}", path("oci.tar")));
    let pinned = |digest: &Digest| depot.with_mount_points(digest, &[], &[]).unwrap();
    assert_eq!(pinned(&one).config.command, ["/bin/sh", "-c", "/bin/tool"]);
    assert_eq!(pinned(&two).config.command, ["/bin/sh", "-c", "/bin/zz"]);
    // The same tree, whichever way it came.
    assert_eq!(pinned(&oci).erofs, pinned(&one).erofs);
    assert_eq!(pinned(&two).erofs, pinned(&one).erofs);
    // Its storage has mounts of its own kind; removed by itself it is gone for good.
    podman(&["rmi", "-f", "-a"]);
}
