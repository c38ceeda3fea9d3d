//! Images that people have already, written by docker, podman, skopeo and umoci, run as services.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Basalt, test_app, wait_until};

/// A Docker daemon of its own, without a network.
struct Docker {
    at: String,
    process: Child,
}

impl Docker {
    fn start(at: &Path) -> Self {
        let at = at.join("docker").display().to_string();
        let options = format!(
            "--data-root {at}/root --exec-root {at}/exec --pidfile {at}/pid -H unix://{at}/sock --bridge=none \
             --iptables=false --ip6tables=false --log-level=error"
        );
        #[allow(clippy::disallowed_methods)] // the real docker
        let process = Command::new("dockerd")
            .args(options.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let docker = Self { at, process };
        wait_until("dockerd answers", Duration::from_secs(30), || sh(&docker.line("info"), Path::new("/")).is_ok());
        docker
    }

    fn line(&self, arguments: &str) -> String {
        format!("docker -H unix://{}/sock {arguments}", self.at)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Asked to end, it unmounts what it has mounted, and ends its containerd.
        let _ = sh(&format!("kill {}", self.process.id()), Path::new("/"));
        let _ = self.process.wait();
        let _ = sh(&format!("umount {}/exec/netns/default", self.at), Path::new("/"));
    }
}

fn sh(script: &str, folder: &Path) -> Result<(), String> {
    #[allow(clippy::disallowed_methods)] // other people's tools
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    let failure = || format!("{script}\n{}", String::from_utf8_lossy(&output.stderr));
    output.status.success().then_some(()).ok_or_else(failure)
}

#[test]
fn what_docker_podman_skopeo_and_umoci_write_runs() {
    let mut basalt = Basalt::new();
    let folder = basalt.folder();
    std::fs::create_dir(folder.join("root")).unwrap();
    std::fs::copy(test_app(), folder.join("root/app")).unwrap();
    sh("tar -C root -cf root.tar app", &folder).unwrap();
    let docker = Docker::start(&folder);
    sh(&docker.line("import root.tar web:1"), &folder).unwrap();
    sh(&docker.line("save -o docker.tar web:1"), &folder).unwrap();
    drop(docker);
    sh(
        r#"podman="podman --root $PWD/podman/root --runroot $PWD/podman/run --storage-driver vfs"
        $podman import -q root.tar web:1
        $podman save -q -o podman.tar web:1
        $podman save -q --format oci-archive -o podman-oci.tar web:1
        $podman rmi -f -a
        echo '{"default":[{"type":"insecureAcceptAnything"}]}' > policy.json
        skopeo --policy policy.json copy docker-archive:docker.tar oci-archive:skopeo.tar
        umoci init --layout umoci
        umoci new --image umoci:1
        umoci insert --image umoci:1 root/app /app"#,
        &folder,
    )
    .unwrap();
    let sources = [
        ("docker", "docker-archive:docker.tar"),
        ("podman", "docker-archive:podman.tar"),
        ("podman-oci", "oci-archive:podman-oci.tar"),
        ("skopeo", "oci-archive:skopeo.tar"),
        ("umoci", "oci:umoci:1"),
    ];
    let service = |(name, image): &(&str, &str)| {
        format!(
            "service \"{name}\" {{\n  image = {image:?}\n  command = [\"/app\"]\n  env = {{ VERSION = {name:?} }}\n  \
             port \"http\" {{ container = 8080 }}\n  health {{\n    http {{\n      path = \"/health\"\n    }}\n    \
             interval = \"200ms\"\n  }}\n  route {{ path = \"/{name}/\" }}\n}}\n"
        )
    };
    let path = folder.join("stack.hcl");
    std::fs::write(&path, sources.iter().map(service).collect::<String>()).unwrap();
    basalt.up_path(&path, &[]).expect(0);
    for (name, _) in sources {
        let (status, body) = basalt.get(&format!("/{name}/"));
        assert!(status == 200 && body.contains(name), "{name}: {status} {body}");
    }
}
