//! Images of a registry: pulled and unpacked, and a second one that is nearly the same.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::docker::Docker;
use crate::harness::{Basalt, wait_until};
use crate::measure::{command, median, millis, run};
use crate::table::Row;

/// Layers of the image: as many as a base, a runtime, dependencies and an application make.
const LAYERS: u64 = 4;

/// Bytes of the files of one layer: four make about 300 MiB.
const LAYER: usize = 75 << 20;

/// Of so many files of the topmost layer, one differs in the second image.
const DIFFERS: u64 = 20;

/// A pull is measured so often, each time into an empty place.
const RUNS: usize = 3;

/// Measures pulls beside skopeo with umoci, and beside docker.
pub fn pull() -> Vec<Row> {
    let registry = Registry::start();
    registry.put("one", 0);
    registry.put("two", 1);
    let budget = "≤ 1.0 ×";

    let (mut ours, mut second, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let basalt = Basalt::new();
        let pull = |tag: &str| {
            let output = basalt.run(&["image", "pull", &registry.name(tag)]).expect(0);
            assert!(output.out.starts_with("sha256:"), "{}", output.text());
        };
        ours.push(millis(|| pull("one")));
        let data = basalt.folder().with_file_name("data");
        let before = used(&data);
        second.push(millis(|| pull("two")));
        stored.push(used(&data) - before);
    }

    let (mut umoci, mut umoci_second, mut umoci_stored) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
        let at = folder.path().display();
        let unpack = |tag: &str| {
            run(&format!(
                "skopeo copy --quiet --insecure-policy --src-tls-verify=false docker://{} oci:{at}/layout:{tag}",
                registry.name(tag)
            ));
            run(&format!("umoci unpack --image {at}/layout:{tag} {at}/{tag}"));
        };
        umoci.push(millis(|| unpack("one")));
        let before = used(folder.path());
        umoci_second.push(millis(|| unpack("two")));
        umoci_stored.push(used(folder.path()) - before);
    }

    let docker = Docker::start();
    let (mut dockers, mut docker_second, mut docker_stored) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let pull = |tag: &str| docker.run(&format!("pull --quiet {}", registry.name(tag)));
        dockers.push(millis(|| drop(pull("one"))));
        let before = used(&docker.root());
        docker_second.push(millis(|| drop(pull("two"))));
        docker_stored.push(used(&docker.root()) - before);
        docker.run(&format!("rmi {} {}", registry.name("one"), registry.name("two")));
    }
    drop(docker);

    let both = |what: &str, unit: &'static str, ours: Vec<f64>, umoci: Vec<f64>, docker: Vec<f64>| {
        let ours = median(ours);
        [
            Row::beside(what, unit, ours, "skopeo, umoci", median(umoci), budget),
            Row::beside(what, unit, ours, "docker pull", median(docker), budget),
        ]
    };
    let first = both("pull and unpack an image of 300 MiB", "ms", ours, umoci, dockers);
    let time = both("pull a second one that is nearly the same", "ms", second, umoci_second, docker_second);
    let space = both("bytes that the second one takes", "MiB", stored, umoci_stored, docker_stored);
    first.into_iter().chain(time).chain(space).collect()
}

/// Debian's `docker-registry`, on a free port.
struct Registry {
    folder: TempDir,
    host: String,
    process: Child,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let at = folder.path().display();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {at}/storage\nhttp:\n  addr: {host}\n"
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let mut process = command(&format!("docker-registry serve {at}/config.yml"));
        let process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let registry = Self { folder, host, process };
        wait_until("the registry listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(&registry.host).is_ok()
        });
        registry
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/large:{tag}", self.host)
    }

    /// Makes an image with other people's tools, and pushes it.
    fn put(&self, tag: &str, version: u64) {
        let at = self.folder.path().display();
        let layout = format!("{at}/layout-{tag}");
        run(&format!("umoci init --layout {layout}"));
        run(&format!("umoci new --image {layout}:{tag}"));
        for layer in 0..LAYERS {
            let root = self.folder.path().join(format!("root-{layer}"));
            fill(&root, layer, if layer == LAYERS - 1 { version } else { 0 });
            run(&format!("tar --sort=name --mtime=@0 --owner=0 --group=0 -C {} -cf {at}/layer.tar .", root.display()));
            run(&format!("umoci raw add-layer --image {layout}:{tag} {at}/layer.tar"));
            std::fs::remove_dir_all(root).unwrap();
        }
        let to = self.name(tag);
        run(&format!("skopeo copy --quiet --insecure-policy --dest-tls-verify=false oci:{layout}:{tag} docker://{to}"));
        std::fs::remove_dir_all(layout).unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes the files of a layer: sizes as in systems (many small ones, some of megabytes), half of each packs well.
fn fill(root: &Path, layer: u64, version: u64) {
    let mut left = LAYER;
    let mut number = 0;
    while left > 0 {
        let differs = version > 0 && number % DIFFERS == 0;
        let mut state = (layer << 40 | number << 8 | u64::from(differs)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 24
        };
        let size = match number % 50 {
            0 => 2 << 20,
            1..=9 => 64 << 10,
            _ => 1 << 10 << (number % 5),
        };
        let size = (size as usize).min(left);
        let folder = root.join(format!("usr/share/layer{layer}/part{}", number / 100));
        std::fs::create_dir_all(&folder).unwrap();
        let mut content = Vec::with_capacity(size + 8);
        while content.len() < size {
            content.extend_from_slice(&next().to_le_bytes()[..4]);
            content.extend_from_slice(b"text");
        }
        content.truncate(size);
        std::fs::write(folder.join(format!("file{number}")), content).unwrap();
        left -= size;
        number += 1;
    }
}

/// Returns how many MiB a folder takes on its disk.
fn used(folder: &Path) -> f64 {
    let line = run(&format!("du -s --block-size=1 {}", folder.display()));
    let bytes: f64 = line.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0.0);
    bytes / f64::from(1 << 20)
}
