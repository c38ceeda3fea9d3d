//! Instances and images that want to break out, each by a hole that other runtimes have had. Needs root.

#![allow(clippy::disallowed_methods)] // Tests run programs.

mod common;

use std::collections::BTreeMap;

use basalt_model::{BakeStep, ConfigFile, Exit, HealthCheck, Millis, Release, Volume};
use common::{Machine, program, sh};

/// Where a write would let an instance run programs as the host's root (core(5)).
const PATTERN: &str = "/proc/sys/kernel/core_pattern";

#[test]
fn no_descriptor_leads_to_the_host() {
    // CVE-2024-21626: a working directory that is a descriptor left open by the runtime.
    let machine = Machine::new();
    for number in 3..16 {
        let mut release = machine.release("pwd; ls -a . | head -n 40; cat ../../../etc/machine-id 2>/dev/null");
        release.workdir = Some(format!("/proc/self/fd/{number}"));
        machine.start("job-1-1", 1, release);
        let (exit, lines) = machine.ended("job-1-1");
        assert!(matches!(&exit, Exit::CouldNotStart(why) if why.contains("working directory")), "{exit:?} {lines:?}");
        machine.forget("job-1-1", 1);
    }
    // Neither the program nor a check of its health holds any but its standard streams.
    let mut release = machine.release("ls /proc/self/fd | tr '\\n' ' '; exec sleep 1000");
    let count = "echo descriptors $(ls /proc/self/fd); exit 1";
    release.health.check = HealthCheck::Command(vec!["sh".into(), "-c".into(), count.into()]);
    release.health.interval = Millis(50);
    release.health.timeout = Millis(5000);
    machine.start("a-1-1", 1, release);
    machine.until("a check has run", |m| m.instance("a-1-1").is_some_and(|i| i.last_probe.is_some()));
    let probe = machine.instance("a-1-1").unwrap().last_probe.unwrap();
    assert!(probe.ends_with("descriptors 0 1 2 3"), "the fourth is that of `ls`: {probe}");
    machine.finish();
}

#[test]
fn the_program_on_the_host_is_not_overwritten() {
    // CVE-2019-5736: the runtime's own program, reached through /proc.
    let machine = Machine::new();
    let before = sh(&format!("sha256sum {}", program().display()));
    let script = "for p in /proc/1/exe /proc/self/exe /proc/*/exe; do (echo x > $p) 2>/dev/null && echo wrote $p; done;
        cat /proc/1/exe >/dev/null 2>&1 && echo read; cat /proc/1/maps 2>/dev/null; ls /proc/1/fd 2>/dev/null; echo .";
    assert_eq!(machine.output(machine.release(script)), ["."]);
    for command in [vec!["/proc/self/exe", "keeper", "/tmp"], vec!["/proc/1/exe"], vec!["/etc/script"]] {
        let mut release = machine.release("");
        release.image = machine.bake_more(&[BakeStep::file("/etc/script", "#!/proc/self/exe\n", 0o755)]);
        release.command = Some(command.iter().map(|c| (*c).to_owned()).collect());
        machine.start("job-1-1", 1, release);
        let (exit, _) = machine.ended("job-1-1");
        assert_ne!(exit, Exit::Code(0), "{command:?}");
        machine.forget("job-1-1", 1);
    }
    assert_eq!(sh(&format!("sha256sum {}", program().display())), before);
    machine.finish();
}

#[test]
fn links_in_an_image_lead_no_mount_astray() {
    // CVE-2025-31133 and CVE-2025-52565: devices swapped for links; CVE-2025-52881: procfs swapped for something else.
    let machine = Machine::new();
    let before = std::fs::read_to_string(PATTERN).unwrap();
    let link = |path: &str, to: &str| BakeStep::Link { path: path.into(), to: to.into() };
    let seen = "for d in null zero full random urandom tty; do stat -c '%F %t:%T' /dev/$d; done;
        stat -c %F /proc/interrupts; stat -f -c %T /proc /sys /dev/pts; (echo '|/x' > /proc/sys/kernel/core_pattern) 2>/dev/null || echo no";
    let expected = machine.output(machine.release(seen));
    assert_eq!(expected[0], "character special file 1:3");
    assert_eq!(expected[6], "character special file", "what says something of the host is hidden");
    assert_eq!(expected.last().unwrap(), "no");
    for links in [
        vec![
            link("/dev/null", PATTERN),
            link("/dev/console", PATTERN),
            link("/dev/pts", "/proc/sys"),
            link("/dev/shm", "/proc/1"),
        ],
        vec![link("/dev", "/proc/sys/kernel")],
        vec![link("/proc", "/tmp")],
        vec![link("/sys", "/proc")],
    ] {
        let mut release = machine.release(seen);
        release.image = machine.bake_more(&links);
        assert_eq!(machine.output(release), expected, "{links:?}");
    }
    assert_eq!(std::fs::read_to_string(PATTERN).unwrap(), before);
    machine.finish();
}

#[test]
fn a_link_in_a_volume_leads_no_config_astray() {
    let machine = Machine::new();
    let with_volume = |script: &str| -> Release {
        let mut release = machine.release(script);
        let volume = Volume { name: "data".parse().unwrap(), shared: true };
        release.volumes = BTreeMap::from([("/data".into(), volume)]);
        release
    };
    for target in
        [PATTERN, "/proc/self/fd/4", "/proc/1/attr/exec", "/sys/kernel/uevent_helper", "/../../../../etc/passwd"]
    {
        machine.output(with_volume(&format!("busybox rm -f /data/conf; busybox ln -s {target} /data/conf")));
        let mut release = with_volume("cat /data/conf");
        release.configs = BTreeMap::from([("/data/conf".into(), ConfigFile { content: "mine".into(), mode: 0o444 })]);
        machine.start("job-1-1", 1, release);
        let (exit, lines) = machine.ended("job-1-1");
        // The last link stays within the root, where it may lead anywhere.
        let held = matches!(&exit, Exit::CouldNotStart(why) if why.contains("/data/conf"));
        assert!(held || (target.ends_with("passwd") && lines == ["mine"]), "{target}: {exit:?} {lines:?}");
        machine.forget("job-1-1", 1);
    }
    machine.finish();
}
