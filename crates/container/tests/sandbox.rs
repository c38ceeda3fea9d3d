//! Steps of a bake that run programs: what they see, what they may, and what comes of it. Needs root.

#![allow(clippy::disallowed_methods)] // Tests run programs and wait.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use basalt_container::sandbox::Sandboxes;
use basalt_depot::{BakeInputs, Depot};
use basalt_model::{Bake, BakeFrom, BakeStep, Digest, ImageConfig, ImageSource, Millis, RunInput, RunStep, Tools};

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/keeperd")
}

struct Kitchen {
    depot: Depot,
    base: Digest,
    dir: tempfile::TempDir,
}

impl Kitchen {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("sandbox-test-").tempdir().unwrap();
        let depot = Depot::open(&dir.path().join("depot")).unwrap();
        let mut steps = vec![
            BakeStep::copy("/bin/busybox", "/bin/busybox"),
            BakeStep::file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/srv:/bin/sh\n", 0o644),
            BakeStep::file("/etc/group", "root:x:0:\nwww:x:34:\n", 0o644),
            BakeStep::file("/old/deep/file", "below", 0o644),
            BakeStep::file("/old/big", "b".repeat(10_000), 0o644),
            BakeStep::file("/keep/me", "kept", 0o600),
            BakeStep::Directory { path: "/tmp".into() },
        ];
        for name in "sh cat ls echo mkdir rm mv ln chown chmod id nc wget ip sleep mount unshare mknod mkfifo touch stat hostname env \
                     cp find sort pwd kill ps grep test true chroot setsid"
            .split_whitespace()
        {
            steps.push(BakeStep::link(format!("/bin/{name}"), "busybox"));
        }
        let env = BTreeMap::from([("FROM_IMAGE".to_owned(), "yes".to_owned())]);
        let config = ImageConfig { env, ..ImageConfig::default() };
        let base = depot.bake(&Bake { from: BakeFrom::Scratch, steps, config }, None, &quiet).unwrap();
        Self { depot, base, dir }
    }

    fn bake(&self, steps: Vec<BakeStep>) -> Result<Digest, String> {
        let bake = Bake {
            from: BakeFrom::Image(ImageSource::Reference(self.base.to_string())),
            steps,
            config: ImageConfig::default(),
        };
        let sandboxes = Sandboxes { basalt: program() };
        let inputs = BakeInputs { from: Some(self.base), images: &|_| None, sandbox: Some(&sandboxes), fresh: false };
        self.depot.bake_with(&bake, &inputs, &quiet).map_err(|error| error.to_string())
    }

    /// Runs a script over the base and returns what it wrote into `/out`.
    fn output(&self, step: RunStep) -> String {
        let image = self.bake(vec![BakeStep::Run(step)]).unwrap();
        self.read(&image, "out")
    }

    fn read(&self, image: &Digest, path: &str) -> String {
        let dir = self.export(image);
        std::fs::read_to_string(dir.path().join(path)).unwrap()
    }

    fn layout(&self, image: &Digest, dir: &Path) -> PathBuf {
        let (archive, layout) = (dir.join("archive.tar"), dir.join("layout"));
        self.depot.export(image, &archive, None, &quiet).unwrap();
        std::fs::create_dir(&layout).unwrap();
        let status = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&layout).status().unwrap();
        assert!(status.success());
        layout
    }

    /// Unpacks the layers that were added to the base, the last one winning.
    fn export(&self, image: &Digest) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let layout = self.layout(image, dir.path());
        for layer in layers(&layout) {
            let status = Command::new("tar").arg("-xf").arg(&layer).arg("-C").arg(dir.path()).status().unwrap();
            assert!(status.success());
        }
        dir
    }

    /// Lists the last layer of an image, as `tar -tv` shows it, without times.
    fn last_layer(&self, image: &Digest) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let layout = self.layout(image, dir.path());
        let layer = layers(&layout).pop().unwrap();
        let output = Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(layer).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| line.replace(" 1970-01-01 00:00", "").split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn finish(self) {
        let path = self.dir.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&path), "a mount is left");
        let staging = std::fs::read_dir(self.dir.path().join("depot/staging")).unwrap().count();
        assert_eq!(staging, 0, "something half-made is left");
    }
}

fn layers(layout: &Path) -> Vec<PathBuf> {
    let read = |digest: &str| {
        let path = layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        (path.clone(), std::fs::read(path).unwrap())
    };
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest: serde_json::Value =
        serde_json::from_slice(&read(index["manifests"][0]["digest"].as_str().unwrap()).1).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| read(layer["digest"].as_str().unwrap()).0).collect()
}

fn quiet(_: &str, _: u64, _: Option<u64>) {}

fn shell(script: &str) -> RunStep {
    RunStep {
        title: "run it".into(),
        command: vec!["/bin/sh".into(), "-e".into(), "-c".into(), script.into()],
        ..RunStep::default()
    }
}

#[test]
fn what_a_program_changes_becomes_a_layer() {
    let kitchen = Kitchen::new();
    let script = "echo new > /new; chown 33:34 /new; chmod 4755 /new; ln /new /second; ln -s new /link; mkdir -p /d/e; \
                  rm /old/deep/file; mv /old/deep /moved; rm -r /keep; mkdir /keep; echo x > /keep/other; \
                  chown 33 /old/big; mkfifo /pipe; echo dev > /dev/x";
    let image = kitchen.bake(vec![BakeStep::Run(shell(script))]).unwrap();
    let expected = [
        "drwxr-xr-x 0/0 0 d",
        "-rw-r--r-- 0/0 0 d/.wh..wh..opq",
        "drwxr-xr-x 0/0 0 d/e",
        "drwxr-xr-x 0/0 0 keep",
        "-rw-r--r-- 0/0 0 keep/.wh..wh..opq",
        "-rw-r--r-- 0/0 2 keep/other",
        "lrwxrwxrwx 0/0 0 link -> new",
        "drwxr-xr-x 0/0 0 moved",
        "-rw-r--r-- 0/0 0 moved/.wh..wh..opq",
        "-rwsr-xr-x 33/34 4 new",
        "drwxr-xr-x 0/0 0 old",
        "-rw-r--r-- 33/0 10000 old/big",
        "-rw-r--r-- 0/0 0 old/.wh.deep",
        "hrwsr-xr-x 33/34 0 second link to new",
    ];
    assert_eq!(kitchen.last_layer(&image), expected);
    kitchen.finish();
}

#[test]
fn the_same_steps_give_the_same_image_in_any_depot() {
    let (one, two) = (Kitchen::new(), Kitchen::new());
    assert_eq!(one.base, two.base);
    let script =
        "for n in 3 1 2; do echo $n > /f$n; done; mkdir /z /a; echo $SOURCE_DATE_EPOCH > /time; umask > /umask";
    let bake = |kitchen: &Kitchen| kitchen.bake(vec![BakeStep::Run(shell(script)), BakeStep::file("/x", "x", 0o644)]);
    assert_eq!(bake(&one).unwrap(), bake(&two).unwrap());
    let image = bake(&one).unwrap();
    assert_eq!(one.read(&image, "time"), "315532800\n");
    assert_eq!(one.read(&image, "umask"), "0022\n");
    one.finish();
    two.finish();
}

#[test]
fn a_program_is_shut_in() {
    let kitchen = Kitchen::new();
    let check = |script: &str, expected: &str| {
        assert_eq!(kitchen.output(shell(&format!("({script}) > /out 2>&1 || true"))), expected, "{script}");
    };
    let denied =
        |script: &str| check(&format!("({script}) >/dev/null 2>&1 && echo possible || echo denied"), "denied\n");
    check("id -u; hostname; pwd; echo $FROM_IMAGE", "0\nbake\n/\nyes\n");
    check("echo $(ls /dev)", "basalt fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n");
    check("ls /proc | grep -cE '^[0-9]+$'", "5\n");
    check("ls /proc/self/fd | grep -vE '^[0-3]$' || echo none", "none\n");
    check("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t2\n");
    check("ip -o link | grep -c .", "1\n");
    for script in [
        "mount -t tmpfs none /tmp",
        "unshare -r true",
        "mknod /tmp/disk b 254 0",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "test -s /proc/kcore",
        "ls /run/basalt",
        "chown 70000 /tmp",
        "nc -w 1 127.0.0.1 1",
        "nc -w 1 192.0.2.1 80",
    ] {
        denied(script);
    }
    kitchen.finish();
}

#[test]
fn without_network_nothing_is_reached_and_with_it_what_the_machine_reaches() {
    let kitchen = Kitchen::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let script = format!("nc -w 1 127.0.0.1 {port} </dev/null && echo reached > /out || echo alone > /out");
    assert_eq!(kitchen.output(shell(&script)), "alone\n");
    assert_eq!(kitchen.output(RunStep { network: true, ..shell(&script) }), "reached\n");
    kitchen.finish();
}

#[test]
fn user_workdir_environment_and_inputs() {
    let kitchen = Kitchen::new();
    let input = kitchen.dir.path().join("input");
    std::fs::create_dir(&input).unwrap();
    std::fs::write(input.join("a"), "from the machine\n").unwrap();
    let step = RunStep {
        user: "www".into(),
        workdir: "/tmp/new/dir".into(),
        env: BTreeMap::from([("FROM_IMAGE".into(), "no".into())]),
        inputs: BTreeMap::from([
            ("folder".into(), RunInput::Path(input.clone())),
            ("text".into(), RunInput::Text("given\n".into())),
        ]),
        ..shell(
            "{ id -u; id -g; pwd; echo $FROM_IMAGE $HOME; cat /dev/basalt/folder/a /dev/basalt/text; \
             echo x > /dev/basalt/folder/b || echo read-only; } 2>/dev/null > /dev/shm/out; cat /dev/shm/out",
        )
    };
    let lines = std::sync::Mutex::new(Vec::new());
    struct Lines<'a>(&'a std::sync::Mutex<Vec<String>>);
    impl basalt_depot::Progress for Lines<'_> {
        fn report(&self, _: &str, _: u64, _: Option<u64>) {}
        fn line(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
    let sandboxes = Sandboxes { basalt: program() };
    let inputs = BakeInputs { from: Some(kitchen.base), images: &|_| None, sandbox: Some(&sandboxes), fresh: false };
    let from = BakeFrom::Image(ImageSource::Reference(kitchen.base.to_string()));
    let bake =
        |step: RunStep| Bake { from: from.clone(), steps: vec![BakeStep::Run(step)], config: ImageConfig::default() };
    kitchen.depot.bake_with(&bake(step.clone()), &inputs, &Lines(&lines)).unwrap();
    let expected = ["33", "34", "/tmp/new/dir", "no /srv", "from the machine", "given", "read-only"];
    assert_eq!(*lines.lock().unwrap(), expected);
    // Done once, it is not done again; another input does it again.
    lines.lock().unwrap().clear();
    kitchen.depot.bake_with(&bake(step.clone()), &inputs, &Lines(&lines)).unwrap();
    assert_eq!(*lines.lock().unwrap(), Vec::<String>::new());
    std::fs::write(input.join("a"), "changed\n").unwrap();
    kitchen.depot.bake_with(&bake(step.clone()), &inputs, &Lines(&lines)).unwrap();
    assert_eq!(lines.lock().unwrap()[4], "changed");
    // Nor is it if it is asked to be done afresh.
    let fresh = BakeInputs { fresh: true, ..inputs };
    lines.lock().unwrap().clear();
    kitchen.depot.bake_with(&bake(step), &fresh, &Lines(&lines)).unwrap();
    assert_eq!(lines.lock().unwrap().len(), expected.len());
    kitchen.finish();
}

#[test]
fn a_failure_names_the_step_its_status_and_the_last_lines() {
    let kitchen = Kitchen::new();
    let check = |step: RunStep, parts: &[&str]| {
        let error = kitchen.bake(vec![BakeStep::file("/a", "a", 0o644), BakeStep::Run(step)]).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
    };
    check(shell("echo one; echo two >&2; exit 3"), &["step 2", "`run it` exited with status 3", "\n    one\n    two"]);
    check(shell("kill -9 $$"), &["ended by signal 9"]);
    check(RunStep { timeout: Some(Millis(200)), ..shell("sleep 60") }, &["did not end within 200ms"]);
    check(RunStep { command: vec!["/none".into()], ..shell("") }, &["could not run `/none`: No such file"]);
    check(RunStep { user: "nobody".into(), ..shell("true") }, &["user `nobody` is not in the image's /etc/passwd"]);
    kitchen.finish();
}

#[test]
fn what_is_left_running_ends_with_the_program() {
    let kitchen = Kitchen::new();
    let started = Instant::now();
    kitchen.bake(vec![BakeStep::Run(shell("setsid sleep 987654 & true"))]).unwrap();
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(running("sleep 987654"), 0);
    kitchen.finish();
}

#[test]
fn killed_on_the_way_nothing_stays() {
    let kitchen = Kitchen::new();
    // A process of its own bakes, so that it can be killed.
    if let Ok(data) = std::env::var("BAKE_AND_BE_KILLED") {
        let base = std::env::var("BAKE_FROM").unwrap().parse().unwrap();
        let kitchen =
            Kitchen { depot: Depot::open(Path::new(&data)).unwrap(), base, dir: tempfile::tempdir().unwrap() };
        let _ = kitchen.bake(vec![BakeStep::Run(shell("echo half > /half; sleep 876543"))]);
        return;
    }
    let data = kitchen.dir.path().join("depot");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_on_the_way_nothing_stays"])
        .env("BAKE_AND_BE_KILLED", &data)
        .env("BAKE_FROM", kitchen.base.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it runs", || running("sleep 876543") == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    until("all has ended", || running("sleep 876543") == 0 && running("run-sandbox") == 0);
    assert_eq!(kitchen.depot.images().unwrap().len(), 1);
    // Whoever comes next clears away what was half-made.
    until("it is cleared away", || {
        drop(Depot::open(&data).unwrap());
        std::fs::read_dir(data.join("staging")).unwrap().count() == 0
    });
    kitchen.finish();
}

#[test]
fn programs_of_this_machine_see_the_image_beside_them() {
    let kitchen = Kitchen::new();
    let script = "cat /image/keep/me > /image/out; chroot /image /bin/busybox id -u >> /image/out; ls -A /root /tmp >> /image/out; \
                  touch /usr/x 2>/dev/null || echo read-only >> /image/out; cat /etc/shadow >/dev/null 2>&1 || echo hidden >> /image/out";
    let step = RunStep { tools: Tools::Machine, ..shell(script) };
    assert_eq!(kitchen.output(step), "kept0\n/root:\n\n/tmp:\nread-only\nhidden\n");
    kitchen.finish();
}

/// Returns how many processes have a text in their command line.
fn running(text: &str) -> usize {
    let line = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let pids = names.filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let shown = |pid: &String| String::from_utf8_lossy(&line(pid)).trim_end_matches('\0').replace('\0', " ");
    pids.filter(|pid| shown(pid) == text || shown(pid).ends_with(&format!(" {text}"))).count()
}

fn until(what: &str, met: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !met() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
