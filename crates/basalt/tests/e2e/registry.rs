//! Images of a real registry: Debian's `docker-registry`, with TLS by a private authority and logins, and skopeo beside it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Basalt, Stack, now, wait_until};

/// The user of every registry here, with the password that belongs to the hash.
const USER: &str = "ali";
const PASSWORD: &str = "open sesame";
const HASH: &str = "$2b$04$QfPGyHRhph7WmtD/Wbhazuvaxotl7EQZ8DFw3ognpbRTA0FVKxpQ.";

/// A registry of its own on a free port.
struct Registry {
    folder: TempDir,
    host: String,
    process: Child,
}

impl Registry {
    /// Starts one: with TLS and logins, or with neither.
    fn start(private: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("basalt-registry-").tempdir().unwrap();
        let at = folder.path();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            at.join("storage").display()
        );
        if private {
            run(
                at,
                r#"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt
                openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry -keyout server.key -out server.csr
                printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n' > names
                openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt"#,
            );
            std::fs::write(at.join("users"), format!("{USER}:{HASH}\n")).unwrap();
            config += &format!(
                "  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\nauth:\n  htpasswd:\n    realm: test\n    path: {0}/users\n",
                at.display()
            );
        }
        std::fs::write(at.join("config.yml"), config).unwrap();
        #[allow(clippy::disallowed_methods)] // a real registry to talk to
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(at.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { folder, host, process };
        wait_until("the registry listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(&registry.host).is_ok()
        });
        registry
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Lets a data directory trust the registry's authority, and log in.
    fn introduce(&self, data: &Path, password: &str) {
        let certs = data.join("certs.d").join(&self.host);
        std::fs::create_dir_all(&certs).unwrap();
        std::fs::copy(self.folder.path().join("ca.crt"), certs.join("ca.crt")).unwrap();
        let auth = json!({ "auths": { &self.host: { "username": USER, "password": password } } });
        std::fs::write(data.join("auth.json"), auth.to_string()).unwrap();
    }

    /// Runs skopeo on an image here.
    fn skopeo(&self, verb: &str, more: &str) -> String {
        let certs = self.folder.path().display();
        let creds = format!("'{USER}:{PASSWORD}'");
        let (prefix, from) = if verb == "copy" { ("--src-", "--dest-") } else { ("--", "--") };
        let side = if more.trim_start().starts_with("docker://") { prefix } else { from };
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        std::fs::write(self.folder.path().join("policy.json"), policy).unwrap();
        // Certificates lie in a folder of their own: skopeo reads all of them.
        let script = format!(
            "mkdir -p trust && cp ca.crt trust/\nskopeo --policy policy.json {verb} {side}creds {creds} {side}cert-dir {certs}/trust {more}"
        );
        run(self.folder.path(), &script)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(folder: &Path, script: &str) -> String {
    #[allow(clippy::disallowed_methods)] // other people's tools
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn data(basalt: &Basalt) -> PathBuf {
    let data = basalt.folder().with_file_name("data");
    std::fs::create_dir_all(&data).unwrap();
    data
}

/// Bakes the test app and returns its digest.
fn bake(basalt: &Basalt) -> String {
    let stack = Stack::new("one", "").write(&basalt.folder());
    let baked = basalt.run(&["image", "bake", &stack.display().to_string(), "--output", "json"]).expect(0);
    serde_json::from_str::<Value>(&baked.out).unwrap()["app"].as_str().unwrap().to_owned()
}

/// Writes the stack of the test app with its image from a registry.
fn stack(basalt: &Basalt, image: &str, version: &str) -> PathBuf {
    let path = Stack::new(version, "").instances(1).write(&basalt.folder());
    let text = std::fs::read_to_string(&path).unwrap();
    let service = text.find("service \"app\"").unwrap();
    std::fs::write(&path, text[service..].replace("image.app", &format!("{image:?}"))).unwrap();
    path
}

#[test]
fn what_is_pushed_is_read_by_others_and_runs_from_there() {
    let registry = Registry::start(true);
    let image = registry.name("team/app:1");
    let digest = {
        let basalt = Basalt::new();
        let digest = bake(&basalt);
        let refused = basalt.run(&["image", "push", &digest, &image]).expect(4);
        assert!(refused.err.contains("certificate"), "{}", refused.err);
        registry.introduce(&data(&basalt), "close sesame");
        let refused = basalt.run(&["image", "push", &digest, &image]).expect(4);
        assert!(refused.err.contains("as user `ali`") && !refused.err.contains("close sesame"), "{}", refused.err);
        registry.introduce(&data(&basalt), PASSWORD);
        let pushed = basalt.run(&["image", "push", &digest[..20], &image]).expect(0);
        assert_eq!(pushed.out, format!("{}@{digest}\n", registry.name("team/app")));
        digest
    };
    let inspected = registry.skopeo("inspect", &format!("--format '{{{{.Digest}}}}' docker://{image}"));
    assert_eq!(inspected.trim(), digest);
    registry.skopeo("copy", &format!("docker://{image} oci:copy:1 --preserve-digests"));
    let index = std::fs::read_to_string(registry.folder.path().join("copy/index.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&index).unwrap()["manifests"][0]["digest"], digest);

    // On another machine, so to speak.
    let mut basalt = Basalt::new();
    registry.introduce(&data(&basalt), PASSWORD);
    basalt.up_path(&stack(&basalt, &image, "one"), &[]).expect(0);
    assert_eq!(basalt.get("/").0, 200);
    assert_eq!(basalt.status()["services"][0]["instances"][0]["healthy"], true);
    let again = stack(&basalt, &image, "one").display().to_string();
    basalt.run(&["plan", &again, "--detailed-exitcode"]).expect(0);
    drop(registry);
    let gone = basalt.run(&["plan", &again]);
    assert!(gone.err.contains("can't be reached") && gone.err.contains(&digest), "{}", gone.err);
    let pinned = stack(&basalt, &format!("{image}@{digest}"), "two");
    basalt.up_path(&pinned, &[]).expect(0);
    assert_eq!(basalt.get("/").0, 200);
    basalt.down();
}

#[test]
fn what_others_push_keeps_its_digest() {
    let registry = Registry::start(true);
    let basalt = Basalt::new();
    let digest = bake(&basalt);
    registry.introduce(&data(&basalt), PASSWORD);
    basalt.run(&["image", "push", &digest, &registry.name("app:1")]).expect(0);
    registry.skopeo("copy", &format!("docker://{} oci:copy:1", registry.name("app:1")));
    // Docker's kind of manifest, and layers packed with zstd.
    let docker = registry.name("app:docker");
    registry.skopeo("copy", &format!("--format v2s2 oci:copy:1 docker://{docker}"));
    let zstd = registry.name("app:zstd");
    registry.skopeo("copy", &format!("--dest-compress-format zstd --dest-compress oci:copy:1 docker://{zstd}"));

    // The password is a helper's, found like docker finds it.
    let bin = registry.folder.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let helper = bin.join("docker-credential-cave");
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$server\" = {} ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n\
         echo '{{ \"ServerURL\": \"x\", \"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\" }}'\n",
        registry.host
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::remove_file(data(&basalt).join("auth.json")).unwrap();
    std::fs::write(bin.join("config.json"), json!({ "credHelpers": { &registry.host: "cave" } }).to_string()).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for image in [&docker, &zstd] {
        let mut pull = basalt.command(&["image", "pull", image]);
        pull.env("PATH", &path).env("DOCKER_CONFIG", &bin).env_remove("REGISTRY_AUTH_FILE");
        let output = pull.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let there = registry.skopeo("inspect", &format!("--format '{{{{.Digest}}}}' docker://{image}"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), there, "{image}");
    }
    basalt.run(&["image", "verify"]).expect(0);
    let listed = basalt.run(&["image", "list"]).expect(0).out;
    assert!(listed.contains(&docker) && listed.contains(&zstd), "{listed}");
}

#[test]
fn a_killed_pull_is_gone_on_with_and_leaves_nothing_half_made() {
    let registry = Registry::start(false);
    let basalt = Basalt::new();
    let folder = basalt.folder();
    // Large enough that a pull takes a while; not compressible, so that it is as large in the registry.
    run(&folder, "for i in 1 2 3 4 5 6; do head -c 16M /dev/urandom > file$i; done");
    let copies: String =
        (1..=6).map(|i| format!("  copy {:?} {{ to = \"/file{i}\" }}\n", folder.join(format!("file{i}")))).collect();
    let path = folder.join("large.hcl");
    std::fs::write(&path, format!("image \"large\" {{\n  from = \"scratch\"\n{copies}  command = [\"/x\"]\n}}\n"))
        .unwrap();
    let baked = basalt.run(&["image", "bake", &path.display().to_string(), "--output", "json"]).expect(0);
    let digest = serde_json::from_str::<Value>(&baked.out).unwrap()["large"].as_str().unwrap().to_owned();
    let image = registry.name("large:1");
    basalt.run(&["image", "push", &digest, &image]).expect(0);
    drop(basalt);

    let basalt = Basalt::new();
    let mut done = false;
    for delay in [20, 60, 100, 150, 220, 300, 400, 550] {
        let mut pull =
            basalt.command(&["image", "pull", &image]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = now();
        while started.elapsed() < Duration::from_millis(delay) && pull.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = pull.kill();
        done |= pull.wait().unwrap().success();
        let listed = basalt.run(&["image", "list"]).expect(0).out;
        assert_eq!(listed.contains(&digest), done, "{listed}");
        basalt.run(&["image", "verify"]).expect(0);
    }
    assert_eq!(basalt.run(&["image", "pull", &image]).expect(0).out.trim(), digest);
    basalt.run(&["image", "verify"]).expect(0);
}
