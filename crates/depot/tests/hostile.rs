//! Images by someone who means harm. Each is refused with a sentence, and nothing of it stays.

use std::fs;
use std::io::Write;
use std::path::Path;

use basalt_depot::{Depot, Limits};
use basalt_model::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

mod mounted;
use mounted::Mounted;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn quiet(_: &str, _: u64, _: Option<u64>) {}

fn sha(bytes: &[u8]) -> String {
    Digest::from_bytes(Sha256::digest(bytes).into()).to_string()
}

/// Builds a layer entry by entry, as raw as needed.
#[derive(Clone, Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn raw(mut self, header: &Header, content: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn entry(self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        self.raw(&header(kind, name, link, content.len() as u64), content)
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", content)
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, name, to, b"")
    }

    fn hard_link(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Link, name, to, b"")
    }

    fn pax(self, key: &str, value: &[u8]) -> Self {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let length = (1..).map(|digits| rest.len() + digits).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
        let record = [length.to_string().as_bytes(), &rest].concat();
        self.entry(EntryType::XHeader, "pax", "", &record)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn header(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// An image layout whose documents can be spoiled one by one.
struct Image {
    layers: Vec<(Vec<u8>, &'static str, Vec<u8>)>,
    config: Value,
    spoil_config: Box<dyn Fn(&mut Value)>,
    spoil_manifest: Box<dyn Fn(&mut Value)>,
    spoil_index: Box<dyn Fn(&mut Value)>,
    spoil_dir: Box<dyn Fn(&Path)>,
}

impl Image {
    fn of(layers: Vec<Layer>) -> Self {
        let plain = |layer: Layer| {
            let bytes = layer.end();
            (bytes.clone(), LAYER, bytes)
        };
        Self {
            layers: layers.into_iter().map(plain).collect(),
            config: json!({}),
            spoil_config: Box::new(|_| {}),
            spoil_manifest: Box::new(|_| {}),
            spoil_index: Box::new(|_| {}),
            spoil_dir: Box::new(|_| {}),
        }
    }

    fn write(&self, dir: &Path) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8], media_type: &str| {
            fs::write(blobs.join(&sha(bytes)[7..]), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": sha(bytes), "size": bytes.len() })
        };
        let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let mut config = json!({
            "architecture": architecture, "os": "linux", "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": self.layers.iter().map(|l| sha(&l.2)).collect::<Vec<_>>() },
        });
        (self.spoil_config)(&mut config);
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": put(&serde_json::to_vec(&config).unwrap(), CONFIG),
            "layers": self.layers.iter().map(|l| put(&l.0, l.1)).collect::<Vec<_>>(),
        });
        (self.spoil_manifest)(&mut manifest);
        let mut index = json!({
            "schemaVersion": 2, "manifests": [put(&serde_json::to_vec(&manifest).unwrap(), MANIFEST)],
        });
        (self.spoil_index)(&mut index);
        fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        (self.spoil_dir)(dir);
    }
}

fn limits() -> Limits {
    Limits { unpacked: 8 << 20, entries: 1000, ratio: 50, free: 1 << 20 }
}

/// Imports an image and returns the error, or the names found by `find` in its mounted root.
fn import(image: &Image) -> Result<(tempfile::TempDir, Depot, Digest), String> {
    let dir = tempfile::tempdir().unwrap();
    image.write(&dir.path().join("layout"));
    let depot = Depot::open(&dir.path().join("depot")).unwrap().with_limits(limits());
    match depot.import(&format!("oci:{}", dir.path().join("layout").display()), &quiet) {
        Ok(digest) => Ok((dir, depot, digest)),
        Err(error) => {
            assert!(depot.images().unwrap().is_empty());
            for sub in ["staging", "blobs/sha256", "objects", "erofs", "images"] {
                let left = fs::read_dir(dir.path().join("depot").join(sub)).unwrap().count();
                assert_eq!(left, 0, "{sub} after: {error}");
            }
            Err(error.to_string())
        }
    }
}

#[track_caller]
fn refused(image: &Image, words: &[&str]) {
    let error = match import(image) {
        Err(error) => error,
        Ok(_) => panic!("it was taken, but should be refused: {words:?}"),
    };
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[track_caller]
fn layer_refused(layer: Layer, words: &[&str]) {
    let image = Image::of(vec![Layer::default().dir("lower/").symlink("link", "/tmp").file("lower/file", b"x"), layer]);
    refused(&image, &[&["layer `sha256:"], words].concat());
}

#[test]
fn names_that_lead_out() {
    layer_refused(Layer::default().file("../evil", b""), &["`../evil`", "`..`"]);
    layer_refused(Layer::default().file("a/../../evil", b""), &["`..`"]);
    layer_refused(Layer::default().pax("path", b"../evil").file("fine", b""), &["`../evil`", "`..`"]);
    layer_refused(Layer::default().pax("path", b"a\0b").file("fine", b""), &["NUL"]);
    layer_refused(Layer::default().file("link/evil", b""), &["`link/evil`", "symbolic link"]);
    layer_refused(Layer::default().symlink("l", "lower").file("l/evil", b""), &["symbolic link"]);
    layer_refused(Layer::default().file("lower/file/x", b""), &["is a file"]);
    layer_refused(Layer::default().file(".", b""), &["replace the root"]);
    layer_refused(Layer::default().symlink("/", "/tmp"), &["replace the root"]);
    layer_refused(Layer::default().pax("path", "x/".repeat(300).as_bytes()).dir("d"), &["directories deep"]);
    layer_refused(Layer::default().pax("path", "x".repeat(300).as_bytes()).file("f", b""), &["255 bytes"]);
}

#[test]
fn hard_links() {
    layer_refused(Layer::default().hard_link("l", "../../etc/shadow"), &["hard link to `../../etc/shadow`"]);
    layer_refused(Layer::default().hard_link("l", "/etc/shadow"), &["no such file"]);
    layer_refused(Layer::default().hard_link("l", "link/x"), &["symbolic link"]);
    layer_refused(Layer::default().hard_link("l", "lower"), &["a directory"]);
    layer_refused(Layer::default().hard_link("l", "l"), &["itself"]);
    layer_refused(Layer::default().hard_link("l", "/"), &["the root"]);
    let lying = header(EntryType::Link, "l", "lower/file", 512);
    layer_refused(Layer::default().raw(&lying, &[b'x'; 512]), &["no file but has content"]);
}

#[test]
fn things_that_are_no_files() {
    layer_refused(Layer::default().entry(EntryType::Char, "tty", "", b""), &["`tty`", "character device"]);
    layer_refused(Layer::default().entry(EntryType::Block, "disk", "", b""), &["block device"]);
    layer_refused(Layer::default().entry(EntryType::Fifo, "pipe", "", b""), &["named pipe"]);
    layer_refused(Layer::default().entry(EntryType::new(b'Z'), "what", "", b""), &["unknown kind"]);
    layer_refused(Layer::default().entry(EntryType::GNUSparse, "sparse", "", b""), &["sparse"]);
    layer_refused(Layer::default().pax("GNU.sparse.major", b"1").file("sparse", b""), &["sparse"]);
    // In /dev they can never be seen, and roots made by `debootstrap` have them.
    let image = Image::of(vec![Layer::default().entry(EntryType::Char, "dev/null", "", b"").file("dev/x", b"x")]);
    let (_dir, depot, digest) = import(&image).unwrap();
    let root = Mounted::new(&depot.with_mount_points(&digest, &[], &[]).unwrap());
    assert_eq!(root.names("dev"), ["x"]);
}

#[test]
fn entries_that_stand_twice() {
    layer_refused(Layer::default().file("a", b"1").file("./a", b"2"), &["twice"]);
    layer_refused(Layer::default().file("a", b"").symlink("a", "b"), &["twice"]);
    layer_refused(Layer::default().file("a", b"").dir("a/"), &["a file of the same name"]);
    layer_refused(Layer::default().file("a/b", b"").file("a", b""), &["twice"]);
    layer_refused(Layer::default().file("a", b"").hard_link("a", "lower/file"), &["twice"]);
    // Directories may: packers write them for each tree they add.
    let image = Image::of(vec![Layer::default().dir("a/").file("a/b", b"").dir("a/")]);
    assert!(import(&image).is_ok());
}

#[test]
fn whiteouts() {
    layer_refused(Layer::default().file("link/.wh.x", b""), &["symbolic link"]);
    layer_refused(Layer::default().file("link/.wh..wh..opq", b""), &["symbolic link"]);
    layer_refused(Layer::default().file(".wh.", b""), &["no name of its own"]);
    layer_refused(Layer::default().file("lower/.wh...", b""), &["no name of its own"]);
    layer_refused(Layer::default().file(".wh.d/x", b""), &["`.wh.d/x`", "begins with `.wh.`"]);

    let lower =
        Layer::default().file("d/a", b"a").file("d/b", b"b").file("o/a", b"a").file("o/s/t", b"t").file("gone/x", b"");
    // What the same layer puts stays, wherever its whiteouts stand.
    let upper = Layer::default()
        .file("d/.wh.a", b"")
        .file("d/a", b"new")
        .file("o/new", b"new")
        .file("o/.wh..wh..opq", b"")
        .file(".wh.gone", b"")
        .file(".wh.never", b"")
        .file("never/.wh.there", b"")
        .file("d/.wh..wh.plnk", b"");
    let (_dir, depot, digest) = import(&Image::of(vec![lower, upper])).unwrap();
    let root = Mounted::new(&depot.with_mount_points(&digest, &[], &[]).unwrap());
    assert_eq!(root.names(""), ["d", "dev", "etc", "o", "proc", "sys"]);
    assert_eq!(root.names("d"), ["a", "b"]);
    assert_eq!(fs::read(root.path().join("d/a")).unwrap(), b"new");
    assert_eq!(root.names("o"), ["new"]);
}

#[test]
fn sizes_that_lie() {
    let lying = header(EntryType::Regular, "f", "", 512);
    let layer = Layer::default().pax("size", b"0").raw(&lying, &[b'x'; 512]);
    layer_refused(layer, &["`f`", "512 bytes", "PAX header 0"]);
    let long = header(EntryType::Regular, "f", "", 1 << 40);
    layer_refused(Layer::default().raw(&long, b"short"), &["ends within"]);
    layer_refused(Layer::default().pax("size", b"99999999999999999999").file("f", b""), &["malformed `size`"]);
    layer_refused(Layer::default().pax("size", b"-1").file("f", b""), &["malformed `size`"]);
    let mut spoiled = header(EntryType::Regular, "f", "", 0);
    spoiled.as_old_mut().size = *b"zzzzzzzzzzz\0";
    spoiled.set_cksum();
    layer_refused(Layer::default().raw(&spoiled, b""), &["not a number"]);
    let mut wrong = header(EntryType::Regular, "f", "", 0);
    wrong.as_old_mut().mode[0] ^= 1;
    layer_refused(Layer::default().raw(&wrong, b""), &["checksum"]);
    let huge = header(EntryType::XHeader, "pax", "", 2 << 20);
    layer_refused(Layer::default().raw(&huge, b""), &["extended header has"]);
    let huge = header(EntryType::GNULongName, "long", "", 2 << 20);
    layer_refused(Layer::default().raw(&huge, b""), &["extended header has"]);
    layer_refused(Layer::default().pax("path", b"a").pax("path", b"b").file("f", b""), &["two extended headers"]);
    layer_refused(Layer::default().pax("path", b"a"), &["between an extended header"]);
    // A size that a header can't hold stands in the PAX header alone.
    let none = header(EntryType::Regular, "f", "", 0);
    let image = Image::of(vec![Layer::default().pax("size", b"3").raw(&none, b"abc")]);
    assert!(import(&image).is_ok());
}

#[test]
fn owners_beyond_what_a_kernel_takes() {
    layer_refused(Layer::default().pax("uid", b"4294967295").file("f", b""), &["owner is 4294967295"]);
    layer_refused(Layer::default().pax("gid", b"18446744073709551615").file("f", b""), &["group is"]);
    layer_refused(Layer::default().pax("uid", b"18446744073709551616").file("f", b""), &["malformed `uid`"]);
    let user = |user: &str| {
        let mut image = Image::of(vec![Layer::default().file("f", b"")]);
        image.config = json!({ "User": user });
        image
    };
    refused(&user("4294967296:0"), &["configuration", "2147483647"]);
    refused(&user("2147483648"), &["2147483647"]);
    refused(&user("99999999999999999999999999"), &["2147483647"]);
    refused(&user("-1"), &["neither USER, UID"]);
    refused(&user("a:b:c"), &["neither USER, UID"]);
    assert!(import(&user("2147483647:app")).is_ok());
}

#[test]
fn attributes_that_speak_to_the_kernel_are_left_out() {
    let layer = Layer::default()
        .pax("SCHILY.xattr.trusted.overlay.redirect", b"/../../../etc/shadow")
        .file("redirected", b"mine")
        .pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
        .dir("opaque/")
        .pax("SCHILY.xattr.user.x", b"y")
        .file("user", b"");
    let (_dir, depot, digest) = import(&Image::of(vec![layer])).unwrap();
    let root = Mounted::new(&depot.with_mount_points(&digest, &[], &[]).unwrap());
    assert_eq!(fs::read(root.path().join("redirected")).unwrap(), b"mine");
    for name in ["redirected", "opaque", "user"] {
        let mut names = [0; 256];
        assert_eq!(rustix::fs::listxattr(root.path().join(name), &mut names[..]).unwrap_or(0), 0, "{name}");
    }
}

#[test]
fn bombs() {
    let zeros = Layer::default().file("zeros", &vec![0; 4 << 20]).end();
    let packed = |media_type: &'static str, bytes: Vec<u8>| {
        let mut image = Image::of(vec![]);
        image.layers.push((bytes, media_type, zeros.clone()));
        image
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    let gzip = packed("application/vnd.oci.image.layer.v1.tar+gzip", gzip.finish().unwrap());
    refused(&gzip, &["layer `sha256:", "unpacks to more than"]);
    let zstd = packed("application/vnd.oci.image.layer.v1.tar+zstd", zstd::encode_all(&zeros[..], 19).unwrap());
    refused(&zstd, &["unpacks to more than"]);
    // All after the end of the archive counts too.
    let mut hidden = Layer::default().file("f", b"").end();
    hidden.resize(9 << 20, 0);
    let mut image = Image::of(vec![]);
    image.layers.push((hidden.clone(), LAYER, hidden));
    refused(&image, &["unpacks to more than"]);
    // Not in one layer, but in all together.
    let four = |name: &str| Layer::default().file(name, &vec![b'x'; 3 << 20]);
    refused(&Image::of(vec![four("a"), four("b"), four("c")]), &["unpacks to more than"]);
    assert!(import(&Image::of(vec![four("a"), four("b")])).is_ok());
    let many = (0..1001).fold(Layer::default(), |layer, i| layer.file(&format!("f{i}"), b""));
    refused(&Image::of(vec![many]), &["more than 1000 entries"]);
}

#[test]
fn content_that_is_not_what_was_promised() {
    let plain = || Image::of(vec![Layer::default().file("f", b"content")]);
    let spoil_blob = |which: &'static str, bytes: &'static [u8]| {
        let mut image = plain();
        image.spoil_dir = Box::new(move |dir| {
            let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
            let blob = |digest: &Value| dir.join("blobs/sha256").join(&digest.as_str().unwrap()[7..]);
            let manifest = blob(&index["manifests"][0]["digest"]);
            let parsed: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
            let path = match which {
                "manifest" => manifest,
                "config" => blob(&parsed["config"]["digest"]),
                _ => blob(&parsed["layers"][0]["digest"]),
            };
            let mut content = fs::read(&path).unwrap();
            match bytes {
                b"cut" => content.truncate(content.len() - 1),
                b"flip" => content[10] ^= 1,
                more => content.extend_from_slice(more),
            }
            fs::write(path, content).unwrap();
        });
        image
    };
    for which in ["manifest", "config", "layer"] {
        for how in [&b"cut"[..], b"flip", b"\n"] {
            refused(&spoil_blob(which, how), &["expected", "found", "tampered"]);
        }
    }
    let mut image = plain();
    image.layers[0].2 = b"something else".to_vec();
    refused(&image, &["unpacked: expected sha256:"]);
    let mut image = plain();
    image.spoil_config = Box::new(|config| config["rootfs"]["diff_ids"] = json!([]));
    refused(&image, &["names 0 layers, and the manifest 1"]);
    let mut image = plain();
    image.spoil_manifest = Box::new(|manifest| manifest["layers"][0]["size"] = json!(3));
    refused(&image, &["expected 3 bytes, found more"]);
    let mut image = plain();
    image.spoil_manifest =
        Box::new(|manifest| manifest["layers"][0]["digest"] = json!(format!("sha256:{}", "0".repeat(64))));
    refused(&image, &["it is missing"]);
    for digest in ["sha512:00", "sha256:../../../etc/passwd", "", "md5:x"] {
        let mut image = plain();
        image.spoil_manifest = Box::new(move |manifest| manifest["layers"][0]["digest"] = json!(digest));
        refused(&image, &["is not a digest"]);
    }
}

#[test]
fn documents_that_are_two_things_at_once() {
    let plain = || Image::of(vec![Layer::default().file("f", b"")]);
    let manifest = |spoil: fn(&mut Value), words: &[&str]| {
        let mut image = plain();
        image.spoil_manifest = Box::new(spoil);
        refused(&image, words);
    };
    manifest(|m| m["manifests"] = json!([]), &["manifest and of an index at once"]);
    manifest(|m| m["mediaType"] = json!(INDEX), &["says it is", "but is given as"]);
    manifest(|m| m["mediaType"] = json!("text/html"), &["says it is"]);
    manifest(|m| m["schemaVersion"] = json!(1), &["schema version"]);
    manifest(|m| m["fsLayers"] = json!([]), &["schema version"]);
    manifest(|m| drop(m.as_object_mut().unwrap().remove("layers")), &["or of neither"]);
    manifest(|m| m["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json"), &["no container image"]);
    manifest(|m| m["layers"][0]["mediaType"] = json!("application/x-iso"), &["not a tar layer"]);
    let index = |spoil: fn(&mut Value), words: &[&str]| {
        let mut image = plain();
        image.spoil_index = Box::new(spoil);
        refused(&image, words);
    };
    index(|i| i["manifests"][0]["mediaType"] = json!(INDEX), &["says it is", "but is given as"]);
    index(|i| i["layers"] = json!([]), &["at once"]);
    index(|i| i["manifests"] = json!([]), &["0 images"]);
    index(|i| i["manifests"][0]["size"] = json!(5_000_000), &["more than 4194304"]);
    let mut image = plain();
    image.spoil_manifest = Box::new(|m| m["padding"] = json!("x".repeat(4 << 20)));
    refused(&image, &["more than 4194304"]);
    let mut image = plain();
    image.spoil_dir = Box::new(|dir| {
        let doubled = r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
        fs::write(dir.join("index.json"), doubled).unwrap();
    });
    refused(&image, &["duplicate field"]);
    let mut image = plain();
    image.spoil_config = Box::new(|config| config["architecture"] = json!("s390x"));
    refused(&image, &["linux/s390x"]);
}

#[test]
fn archives_around_images() {
    let check = |kind: &str, archive: Layer, words: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.tar"), archive.end()).unwrap();
        let depot = Depot::open(&dir.path().join("depot")).unwrap();
        let error = depot.import(&format!("{kind}:{}/a.tar", dir.path().display()), &quiet).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
        assert_eq!(fs::read_dir(dir.path().join("depot/staging")).unwrap().count(), 0);
    };
    let docker =
        |config: &str, layers: &str| format!(r#"[{{"Config":"{config}","RepoTags":null,"Layers":[{layers}]}}]"#);
    check("oci-archive", Layer::default(), &["`oci-layout` is missing"]);
    check("docker-archive", Layer::default(), &["`manifest.json` is missing"]);
    check("docker-archive", Layer::default().file("../x", b""), &["`../x`", "`..`"]);
    check("docker-archive", Layer::default().symlink("x", "../../etc/passwd"), &["leads out"]);
    check("docker-archive", Layer::default().symlink("x", "/etc/passwd"), &["leads out"]);
    check("docker-archive", Layer::default().entry(EntryType::Fifo, "x", "", b""), &["neither file"]);
    check("docker-archive", Layer::default().file("x", b"").file("x", b""), &["twice"]);
    let missing = Layer::default().file("manifest.json", docker("../../../etc/passwd", "").as_bytes());
    check("docker-archive", missing, &["`../../../etc/passwd` is missing"]);
    let circle = Layer::default()
        .file("manifest.json", docker("c.json", "").as_bytes())
        .symlink("c.json", "d.json")
        .symlink("d.json", "c.json");
    check("docker-archive", circle, &["`c.json` is missing"]);
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    let other = Layer::default()
        .file("manifest.json", docker("c.json", r#""l.tar""#).as_bytes())
        .file("c.json", config.as_bytes())
        .file("l.tar", b"not what the configuration names");
    check("docker-archive", other, &["layer `l.tar`", "expected sha256:e3b0"]);

    let depot_dir = tempfile::tempdir().unwrap();
    let depot = Depot::open(depot_dir.path()).unwrap();
    for (reference, word) in [
        ("web:latest", "expected `oci:DIR`"),
        ("oci:", "no path"),
        ("oci:/not/there", "no such directory"),
        ("oci-archive:/not/there:v1", "no such file"),
    ] {
        let error = depot.import(reference, &quiet).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn streams_that_do_not_end_as_they_should() {
    let plain = Layer::default().file("f", b"content").end();
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let image = |packing: &str, packed: Vec<u8>| {
        let media_type = match packing {
            "gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
            "zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => LAYER,
        };
        let mut image = Image::of(vec![]);
        image.layers.push((packed, media_type, plain.clone()));
        image
    };
    // Several members or frames are one stream, and a frame to be skipped is nothing.
    let (a, b) = plain.split_at(700);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
    for (packing, packed) in [
        ("gzip", [gzip(a), gzip(b)].concat()),
        ("gzip", [gzip(&plain), gzip(b"")].concat()),
        ("zstd", [zstd(a), zstd(b)].concat()),
        ("zstd", [skipped.clone(), zstd(a), skipped.clone(), zstd(b), skipped].concat()),
    ] {
        import(&image(packing, packed)).unwrap();
    }
    // What is cut off, or followed by something else, is no such stream.
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    for (packing, packed) in [
        ("gzip", half(gzip(&plain))),
        ("zstd", half(zstd(&plain))),
        ("gzip", [gzip(&plain), b"rest".to_vec()].concat()),
        ("zstd", [zstd(&plain), b"rest".to_vec()].concat()),
        ("gzip", zstd(&plain)),
        ("zstd", gzip(&plain)),
        ("gzip", Vec::new()),
    ] {
        refused(&image(packing, packed), &["layer `sha256:"]);
    }
    // Packed, but not said to be.
    refused(&image("", gzip(&plain)), &["layer `sha256:"]);
    // The digest that counts is of all that follows the archive too.
    let mut longer = image("gzip", gzip(&[&plain[..], b"more"].concat()));
    refused(&longer, &["unpacked: expected sha256:"]);
    longer.layers[0].2.extend_from_slice(b"more");
    assert!(import(&longer).is_ok());
    refused(&Image::of(vec![Layer(b"ends within a block".to_vec())]), &["checksum"]);
}

#[test]
fn windows_that_would_take_all_memory() {
    let plain = Layer::default().file("f", b"content").end();
    // A frame header that asks for a window of 2 GiB (RFC 8878, section 3.1.1.1.2), followed by an empty last block.
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3][..], &[1, 0, 0]].concat();
    let mut image = Image::of(vec![]);
    image.layers.push((frame, "application/vnd.oci.image.layer.v1.tar+zstd", plain));
    refused(&image, &["layer `sha256:"]);
}

#[test]
fn extended_headers_without_end() {
    let long = |layer: Layer, name: &str| layer.entry(EntryType::GNULongName, "././@LongLink", "", name.as_bytes());
    let endless = (0..900).fold(Layer::default(), |layer, _| long(layer, "x"));
    layer_refused(endless.file("f", b""), &["two extended headers"]);
    layer_refused(long(Layer::default(), &"x".repeat(5000)).file("f", b""), &["4095 bytes"]);
    layer_refused(long(Layer::default(), "x"), &["between an extended header"]);
    layer_refused(
        Layer::default().entry(EntryType::GNULongLink, "l", "", &[b'x'; 5000]).symlink("l", "x"),
        &["`l`", "target"],
    );
    let capability =
        |bytes: usize| Layer::default().pax("SCHILY.xattr.security.capability", &vec![1; bytes]).file("f", b"");
    layer_refused(capability(70_000), &["`f`", "file capability has 70000 bytes"]);
    layer_refused(capability(0), &["file capability has 0 bytes"]);
    assert!(import(&Image::of(vec![capability(20)])).is_ok());
    // Comments for the whole archive say nothing about any entry.
    let global = (0..50).fold(Layer::default(), |l, _| l.entry(EntryType::XGlobalHeader, "g", "", b"12 path=../x\n"));
    let (_dir, depot, digest) = import(&Image::of(vec![global.file("f", b"")])).unwrap();
    let root = Mounted::new(&depot.with_mount_points(&digest, &[], &[]).unwrap());
    assert!(root.names("").contains(&"f".to_owned()));
}

#[test]
fn links_in_circles() {
    layer_refused(Layer::default().hard_link("a", "b").hard_link("b", "a"), &["`a`", "no such file"]);
    layer_refused(Layer::default().symlink("a", "b").symlink("b", "a").file("a/x", b""), &["`a/x`", "symbolic link"]);
    layer_refused(Layer::default().symlink("a", "a").hard_link("h", "a/x"), &["symbolic link"]);
    // Where a mount point must be, a circle can't be followed.
    refused(&Image::of(vec![Layer::default().symlink("etc", "etc")]), &["mount point `/etc", "circles"]);
    // By itself a circle does no harm.
    assert!(import(&Image::of(vec![Layer::default().symlink("a", "b").symlink("b", "a")])).is_ok());
}

#[test]
fn numbers_that_are_no_numbers() {
    let spoil = |field: fn(&mut tar::OldHeader) -> &mut [u8], bytes: &[u8]| {
        let mut header = header(EntryType::Regular, "f", "", 0);
        field(header.as_old_mut()).copy_from_slice(bytes);
        header.set_cksum();
        Layer::default().raw(&header, b"")
    };
    // Base 256 (GNU), as large and as negative as can be.
    let (large, negative) = ([0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [0xff; 8]);
    layer_refused(spoil(|h| &mut h.uid, &large), &["`f`", "owner"]);
    layer_refused(spoil(|h| &mut h.uid, &negative), &["`f`", "owner"]);
    layer_refused(spoil(|h| &mut h.gid, &large), &["`f`", "group"]);
    layer_refused(spoil(|h| &mut h.mode, b"zzzzzzz\0"), &["`f`", "mode"]);
    let (large, negative) = ([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [0xff; 12]);
    layer_refused(spoil(|h| &mut h.size, &large), &["layer"]);
    layer_refused(spoil(|h| &mut h.size, &negative), &["layer"]);
}

#[test]
fn set_user_id_bits_are_kept_and_nothing_beyond() {
    let mut header = header(EntryType::Regular, "su", "", 0);
    header.set_mode(0o7_777_777 & 0o104_755);
    header.set_cksum();
    let (_dir, depot, digest) = import(&Image::of(vec![Layer::default().raw(&header, b"")])).unwrap();
    let root = Mounted::new(&depot.with_mount_points(&digest, &[], &[]).unwrap());
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(root.path().join("su")).unwrap());
    // An instance has no new privileges, so the bit does nothing there.
    assert_eq!(mode & 0o7777, 0o4755);
    assert_eq!(mode & 0o170_000, 0o100_000);
}

#[test]
fn indexes_nested_and_documents_oversized() {
    let nested = |depth: usize| {
        let mut image = Image::of(vec![Layer::default().file("f", b"")]);
        image.spoil_dir = Box::new(move |dir| {
            let path = dir.join("index.json");
            let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
            for _ in 0..depth {
                index["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": architecture });
                let bytes = serde_json::to_vec(&index).unwrap();
                fs::write(dir.join("blobs/sha256").join(&sha(&bytes)[7..]), &bytes).unwrap();
                index = json!({ "schemaVersion": 2, "manifests": [
                    { "mediaType": INDEX, "digest": sha(&bytes), "size": bytes.len() },
                ] });
            }
            fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
        });
        image
    };
    assert!(import(&nested(1)).is_ok());
    refused(&nested(4), &["manifest `sha256:", "nested too deep"]);
    refused(&nested(60), &["nested too deep"]);

    let file = |name: &'static str, content: Vec<u8>| {
        let mut image = Image::of(vec![Layer::default().file("f", b"")]);
        image.spoil_dir = Box::new(move |dir| fs::write(dir.join(name), &content).unwrap());
        image
    };
    refused(&file("index.json", vec![b' '; 5 << 20]), &["`index.json`", "more than 4194304"]);
    refused(&file("index.json", "[".repeat(100_000).into_bytes()), &["`index.json`", "malformed"]);
    refused(&file("oci-layout", b"{}".to_vec()), &["`oci-layout`"]);
    refused(&file("oci-layout", br#"{"imageLayoutVersion":"9"}"#.to_vec()), &["layout `9`"]);
    let mut image = Image::of(vec![Layer::default().file("f", b"")]);
    image.spoil_config = Box::new(|config| config["padding"] = json!("x".repeat(4 << 20)));
    refused(&image, &["configuration", "more than 4194304"]);
    let mut image = Image::of(vec![Layer::default().file("f", b"")]);
    image.spoil_manifest = Box::new(|manifest| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = json!(vec![layer; 1001]);
    });
    refused(&image, &["1001 layers"]);
}
