//! Images baked with other people's tools: Dockerfiles, Debian packages, Ansible and Puppet, all of them the real ones.

use std::path::Path;

use crate::harness::Basalt;

/// Writes files into the folder of a stack.
fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// Returns the digest of an image that a stack bakes.
fn bake(basalt: &Basalt, stack: &str, image: &str) -> String {
    let text = basalt.run(&["image", "bake", stack, "--output", "json"]).expect(0).out;
    let baked: serde_json::Value = serde_json::from_str(&text).unwrap();
    baked[image].as_str().unwrap().to_owned()
}

const DOCKERFILE: &str = "\
FROM base AS build
ARG WHO=world
WORKDIR /src
COPY src/ .
RUN mkdir /out && cat a.txt > /out/greeting && echo \"$WHO\" >> /out/greeting && ls >> /out/greeting
FROM scratch
COPY --from=build /out /out
COPY --from=build --chmod=0755 /bin/busybox /bin/busybox
VOLUME /data
ENTRYPOINT [\"/bin/busybox\"]
CMD [\"cat\", \"/out/greeting\"]
";

const WITH_DOCKERFILE: &str = r#"
image "base" {
  from = "scratch"
  copy "/bin/busybox" { to = "/bin/busybox" }
  run { command = ["/bin/busybox", "--install", "-s", "/bin"] }
}
image "built" {
  build {
    images = { base = image.base }
    args   = { WHO = "you" }
  }
}
image "all" {
  from = image.base
  copy "/out" {
    image = image.built
    to    = "/got"
  }
  run { command = "cat /got/greeting > /both" }
  provision "shell" { inline = ["echo inline >> /both"] }
  command = ["/bin/cat", "/both"]
}
job "show" { image = image.all }
"#;

#[test]
fn a_dockerfile_and_steps_that_run() {
    let mut basalt = Basalt::new();
    let folder = basalt.folder().join("baking");
    let files = [
        ("stack.hcl", WITH_DOCKERFILE),
        ("Dockerfile", DOCKERFILE),
        (".dockerignore", "**/*.md\n"),
        ("src/a.txt", "hello\n"),
        ("src/b.md", "left out\n"),
    ];
    write(&folder, &files);
    let said = basalt.up_path(&folder, &[]).expect(0).err;
    assert!(said.contains("VOLUME has no effect") && said.contains("Dockerfile:9:1"), "{said}");
    let lines = basalt.run(&["logs", "show"]).expect(0).out;
    let lines: Vec<&str> = lines.lines().filter_map(|line| line.split('│').nth(1)).map(str::trim).collect();
    assert_eq!(lines, ["hello", "you", "a.txt", "inline"]);
    basalt.down();

    write(&folder, &[("Dockerfile", "FROM base\nRUN --mount=type=cache,target=/c true\nONBUILD RUN x\n")]);
    let said = basalt.run(&["validate", folder.to_str().unwrap()]).expect(4).err;
    for part in ["Dockerfile:2:1", "`--mount` of RUN is not taken", "Dockerfile:3:1", "ONBUILD is not taken"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    write(&folder, &[("Dockerfile", "FROM base\nARG WHO\nRUN echo so it goes && exit 7\n")]);
    let said = basalt.run(&["image", "bake", folder.to_str().unwrap()]).expect(4).err;
    for part in ["step 1: `Dockerfile:3 RUN echo so it goes && exit 7` exited with status 7", "    so it goes"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

const PLAYBOOK: &str = "\
- hosts: web
  tasks:
    - group: { name: app, gid: 1500 }
    - user: { name: app, uid: 1500, group: app }
    - copy: { dest: /etc/hello.conf, content: \"hello {{ who }} on {{ ansible_distribution }}\\n\", owner: app, mode: \"0640\" }
";

const MANIFEST: &str = "\
file { '/etc/by-puppet': ensure => file, content => \"by puppet\\n\", mode => '0644' }
user { 'svc': ensure => present, uid => 1600 }
";

const WITH_DEBIAN: &str = r#"
image "web" {
  base "debian" {
    suite    = "bookworm"
    packages = ["python3", "puppet-agent"]
    lock     = "web.lock"
  }
  provision "ansible" {
    playbook = "play/site.yml"
    groups   = ["web"]
    vars     = { who = "you" }
  }
  provision "puppet" { manifest = "site.pp" }
  command = ["/bin/sh", "-c", "cat /etc/hello.conf /etc/by-puppet; id -un 1600; stat -c %U:%a /etc/hello.conf"]
}
job "show" { image = image.web }
"#;

#[test]
fn debian_packages_ansible_and_puppet() {
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().join("stack");
    let mut basalt = Basalt::new();
    write(&folder, &[("stack.hcl", WITH_DEBIAN), ("play/site.yml", PLAYBOOK), ("site.pp", MANIFEST)]);
    let path = folder.to_str().unwrap();

    let said = basalt.run(&["image", "bake", path]).expect(4).err;
    assert!(said.contains("web.lock` is not there; write it with `basalt image lock STACK`"), "{said}");
    basalt.run(&["image", "lock", path]).expect(0);
    let lock = std::fs::read_to_string(folder.join("web.lock")).unwrap();
    assert!(lock.lines().any(|line| line.starts_with("puppet-agent ") && line.contains(" sha256:")), "{lock}");

    basalt.up_path(&folder, &[]).expect(0);
    let lines = basalt.run(&["logs", "show"]).expect(0).out;
    let lines: Vec<&str> = lines.lines().filter_map(|line| line.split('│').nth(1)).map(str::trim).collect();
    assert_eq!(lines, ["hello you on Debian", "by puppet", "svc", "app:640"]);
    let digest = bake(&basalt, path, "web");
    basalt.down();
    drop(basalt);

    // Another machine would do the same: another depot, and nothing remembered.
    let other = Basalt::new();
    assert_eq!(bake(&other, path, "web"), digest);

    // A version that the archive does not have any more is named.
    let gone = lock.replacen("\nadduser ", "\nadduser 0.1-", 1);
    std::fs::write(folder.join("web.lock"), gone).unwrap();
    let said = other.run(&["image", "bake", path]).expect(4).err;
    assert!(said.contains("for 'adduser' was not found") && said.contains("write the lock anew"), "{said}");
}
