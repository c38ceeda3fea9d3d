//! From start to end: how instances end, what the keeper shows, and that it may die at any moment. Needs root.

mod common;

use basalt_model::{Bytes, Exit, HealthCheck, Limits, Millis};
use basalt_seam::BackendState;
use common::{Machine, sh};

#[test]
fn ends_are_told_apart_and_nothing_is_left() {
    let machine = Machine::new();
    let check = |id: &str, script: &str, expected: Exit, lines: &[&str]| {
        machine.start(id, 1, machine.release(script));
        let (exit, last) = machine.ended(id);
        let lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        assert_eq!((exit, last), (expected, lines), "{script}");
    };
    check("a-1-1", "echo $GREETING; echo oh >&2; exit 3", Exit::Code(3), &["hello", "oh"]);
    check("a-1-2", "kill -SEGV $$", Exit::Signal(11), &[]);
    check("a-1-3", "exit 0", Exit::Code(0), &[]);
    check("a-1-4", "kill -KILL $$", Exit::Signal(9), &[]);

    let mut hungry = machine.release("echo start; exec tail /dev/zero");
    hungry.limits = Limits { memory: Some(Bytes(16 << 20)), ..Limits::default() };
    machine.start("a-1-5", 1, hungry);
    assert_eq!(machine.ended("a-1-5"), (Exit::OutOfMemory, vec!["start".to_owned()]));

    let mut absent = machine.release("");
    absent.command = Some(vec!["/bin/nothing".into()]);
    machine.start("a-1-6", 1, absent);
    let (exit, _) = machine.ended("a-1-6");
    assert!(matches!(&exit, Exit::CouldNotStart(why) if why.contains("/bin/nothing")), "{exit:?}");
    machine.finish();
}

#[test]
fn stopping_asks_first_and_kills_later() {
    let machine = Machine::new();
    machine.start(
        "a-1-1",
        1,
        machine.release("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done"),
    );
    machine.start("a-1-2", 1, machine.release("trap '' TERM; echo deaf; while :; do sleep 0.01; done"));
    machine.start("a-1-3", 1, machine.release("exec sleep 1000"));
    for id in ["a-1-1", "a-1-2", "a-1-3"] {
        machine.running(id);
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    machine.stop("a-1-1", 1, Millis::seconds(20));
    machine.stop("a-1-2", 1, Millis(200));
    machine.stop("a-1-3", 1, Millis::seconds(20));
    assert_eq!(machine.ended("a-1-1"), (Exit::Code(7), vec!["ready".to_owned(), "bye".to_owned()]));
    assert_eq!(machine.ended("a-1-2"), (Exit::Signal(9), vec!["deaf".to_owned()]));
    assert_eq!(machine.ended("a-1-3").0, Exit::Signal(15), "a program that does not handle SIGTERM ends by it");
    machine.finish();
}

#[test]
fn an_older_generation_changes_nothing_and_a_newer_one_replaces() {
    let machine = Machine::new();
    machine.start("a-1-1", 5, machine.release("echo five; exec sleep 1000"));
    let (pid, _) = machine.running("a-1-1");
    machine.perform(basalt_seam::InstanceAction::Start(Box::new(machine.order("a-1-1", 5, machine.release("exit 1")))));
    machine.perform(basalt_seam::InstanceAction::Start(Box::new(machine.order("a-1-1", 4, machine.release("exit 1")))));
    machine.stop("a-1-1", 4, Millis::ZERO);
    machine.start("a-1-2", 1, machine.release("exec sleep 1000"));
    machine.running("a-1-2");
    assert_eq!(machine.running("a-1-1").0, pid);
    machine.start("a-1-1", 6, machine.release("echo six; exec sleep 1000"));
    machine.until("the new one runs", |m| {
        m.instance("a-1-1").is_some_and(|i| i.generation == 6 && matches!(i.state, BackendState::Running { .. }))
    });
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    machine.finish();
}

#[test]
fn a_killed_keeper_loses_nothing() {
    let mut machine = Machine::new();
    let chatty = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done";
    machine.start("a-1-1", 1, machine.release(chatty));
    machine.start("a-1-2", 1, machine.release("cat /tmp/go; sleep 1; exit 9"));
    machine.start("a-1-3", 1, machine.release("exec sleep 1000"));
    machine.start("a-1-4", 1, machine.release("trap '' TERM; while :; do sleep 0.01; done"));
    machine.start("a-1-5", 1, machine.release("echo over; exit 4"));
    let chatty = machine.running("a-1-1");
    let (_, sleeper) = (machine.running("a-1-2"), machine.running("a-1-3"));
    machine.running("a-1-4");
    assert_eq!(machine.ended("a-1-5").0, Exit::Code(4));
    machine.stop("a-1-4", 1, Millis(1500));
    std::thread::sleep(std::time::Duration::from_millis(100));

    machine.kill_keeper();
    std::thread::sleep(std::time::Duration::from_millis(1300));
    sh(&format!("kill -9 {}", sleeper.0));
    std::thread::sleep(std::time::Duration::from_millis(200));
    machine.start_keeper();

    assert_eq!(machine.ended("a-1-2").0, Exit::Code(9), "it ended while no keeper was there");
    assert_eq!(machine.ended("a-1-3").0, Exit::Signal(9), "it was killed while no keeper was there");
    assert_eq!(machine.ended("a-1-4").0, Exit::Signal(9), "a stop that was under way goes on");
    assert_eq!(machine.ended("a-1-5"), (Exit::Code(4), vec!["over".to_owned()]), "an end stays known");
    assert_eq!(machine.running("a-1-1"), chatty);
    machine.stop("a-1-1", 1, Millis::seconds(5));
    assert_eq!(machine.ended("a-1-1").0, Exit::Signal(15));
    let filter = basalt_container::logs::Filter { services: vec![], instance: Some("a-1-1".parse().unwrap()) };
    let lines = basalt_container::logs::read(&machine.data, &filter, None).unwrap();
    let wanted: Vec<String> = (1..=lines.len()).map(|n| format!("line {n}")).collect();
    assert!(lines.len() > 20);
    assert_eq!(lines.into_iter().map(|l| l.line.line).collect::<Vec<_>>(), wanted, "every line, each once");
    machine.finish();
}

#[test]
fn a_keeper_may_be_killed_while_much_is_written() {
    let mut machine = Machine::new();
    machine.start("a-1-1", 1, machine.release("n=0; while :; do n=$((n+1)); echo line $n; done"));
    machine.running("a-1-1");
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        machine.kill_keeper();
        machine.start_keeper();
    }
    machine.stop("a-1-1", 1, Millis::ZERO);
    machine.ended("a-1-1");
    let lines = basalt_container::logs::read(&machine.data, &Default::default(), None).unwrap();
    assert!(lines.len() > 1000);
    // The oldest may have been dropped, and it was killed in the midst of the last.
    let number = |line: &str| line.strip_prefix("line ").and_then(|n| n.parse::<usize>().ok()).unwrap();
    let first = number(&lines[0].line.line);
    for (n, line) in lines[..lines.len() - 1].iter().enumerate() {
        assert_eq!(number(&line.line.line), first + n, "every line, each once");
    }
    machine.finish();
}

#[test]
fn command_checks_run_inside() {
    let mut machine = Machine::new();
    let mut release = machine.release("sleep 0.5; touch /tmp/ready; exec sleep 1000");
    release.user = Some("www".into());
    let script = "test -e /tmp/ready && test $(id -u) = 33 && test $$ -lt 100 && test \"$GREETING\" = hello || { echo not yet; exit 1; }";
    release.health.check = HealthCheck::Command(vec!["sh".into(), "-c".into(), script.into()]);
    release.health.interval = Millis(50);
    release.health.timeout = Millis(2000);
    machine.start("a-1-1", 1, release);
    machine.until("the check fails", |m| m.instance("a-1-1").is_some_and(|i| i.healthy == Some(false)));
    assert!(machine.instance("a-1-1").unwrap().last_probe.unwrap().contains("not yet"));
    machine.until("the check succeeds", |m| m.instance("a-1-1").is_some_and(|i| i.healthy == Some(true)));
    machine.kill_keeper();
    machine.start_keeper();
    machine.until("the check goes on", |m| m.instance("a-1-1").is_some_and(|i| i.healthy == Some(true)));
    machine.finish();
}

#[test]
fn roles_are_kept_running_until_the_shutdown() {
    let mut machine = Machine::with_roles(&["gateway", "controller"]);
    let pid =
        |m: &Machine, role: &str| std::fs::read_to_string(m.data.join(format!("run/{role}.pid"))).unwrap_or_default();
    let runs = |m: &Machine, role: &str, not: &str| {
        let now = pid(m, role);
        !now.trim().is_empty() && now != not && std::path::Path::new(&format!("/proc/{}/exe", now.trim())).exists()
    };
    machine.until("both run", |m| runs(m, "gateway", "") && runs(m, "controller", ""));
    let before = pid(&machine, "gateway");
    sh(&format!("kill -9 {before}"));
    machine.until("it runs again", |m| runs(m, "gateway", &before));
    let before = pid(&machine, "gateway");
    machine.kill_keeper();
    assert!(runs(&machine, "gateway", "x"), "a role outlives the keeper");
    machine.start_keeper();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(pid(&machine, "gateway"), before, "the one that runs is kept");
    sh(&format!("kill -9 {before}"));
    machine.until("an adopted one is started again too", |m| runs(m, "gateway", &before));

    machine.start("a-1-1", 1, machine.release("exec sleep 1000"));
    machine.running("a-1-1");
    let refused = machine.shutdown().unwrap_err().to_string();
    assert!(refused.contains("a-1-1"), "{refused}");
    machine.finish();
}

#[test]
fn what_a_keeper_can_not_read_is_ended_and_never_runs_twice() {
    let mut machine = Machine::new();
    machine.start("a-1-1", 1, machine.release("exec sleep 1000"));
    machine.start("a-1-2", 1, machine.release("exec sleep 1000"));
    let (lost, kept) = (machine.running("a-1-1"), machine.running("a-1-2"));
    machine.kill_keeper();
    std::fs::write(machine.data.join("run/instances/a-1-1/record.json"), b"{\"id\":").unwrap();
    machine.start_keeper();
    assert!(!std::path::Path::new(&format!("/proc/{}", lost.0)).exists(), "nobody would watch it");
    assert!(machine.instance("a-1-1").is_none());
    assert_eq!(machine.running("a-1-2"), kept);
    machine.start("a-1-1", 2, machine.release("echo again; exit 5"));
    assert_eq!(machine.ended("a-1-1"), (Exit::Code(5), vec!["again".to_owned()]));
    machine.finish();
}

#[test]
fn a_check_that_takes_too_long_leaves_nothing_behind() {
    let machine = Machine::new();
    let mut release = machine.release("exec sleep 1000");
    let slow = vec!["sh".into(), "-c".into(), "sleep 500 & sleep 501".into()];
    release.health.check = HealthCheck::Command(slow);
    release.health.interval = Millis(20);
    release.health.timeout = Millis(100);
    release.health.unhealthy_after = 6;
    machine.start("a-1-1", 1, release);
    machine.until("several have taken too long", |m| m.instance("a-1-1").is_some_and(|i| i.healthy == Some(false)));
    assert!(machine.instance("a-1-1").unwrap().last_probe.unwrap().contains("more than"));
    let keeper = machine.keeper();
    let zombies = sh(&format!("ps -o stat=,comm= --ppid {keeper} | grep '^Z' | cat"));
    assert_eq!(zombies, "", "what has ended is reaped");
    // At most one check is under way: its two programs, and the shell.
    let left = sh(&format!(
        "cat /sys/fs/cgroup/*/basalt-{}/*/cgroup.procs | sort -u | xargs -I% sh -c 'tr \\\\0 \" \" </proc/%/cmdline 2>/dev/null; echo' | grep -c 'sleep 50[01]'",
        machine.tag()
    ));
    assert!(left.trim().parse::<u32>().unwrap() <= 3, "{left}");
    machine.finish();
}

#[test]
fn many_instances_need_no_more_files_than_the_machine_grants() {
    let machine = Machine::with_few_files(48);
    let ids: Vec<String> = (1..=24).map(|n| format!("a-1-{n}")).collect();
    for id in &ids {
        machine.start(id, 1, machine.release("exec sleep 1000"));
    }
    let addresses: std::collections::BTreeSet<_> = ids.iter().map(|id| machine.running(id).1).collect();
    assert_eq!(addresses.len(), ids.len());
    machine.finish();
}

#[test]
fn a_lost_spare_place_is_no_loss() {
    let machine = Machine::new();
    let spares = || {
        sh(&format!(
            "ps -o pid=,comm=,args= --ppid {} | grep create-instance | grep -v basalt-init | awk '{{print $1}}'",
            machine.keeper()
        ))
    };
    machine.until("places are prepared", |_| spares().lines().count() == 2);
    let killed = spares();
    for pid in killed.lines() {
        sh(&format!("kill -9 {}", pid.trim()));
    }
    // One that is just dying may still be given an order, and then the controller would have to start another.
    machine.until("they are dead", |_| !spares().lines().any(|pid| killed.lines().any(|dead| dead == pid)));
    machine.start("a-1-1", 1, machine.release("exec sleep 1000"));
    machine.running("a-1-1");
    machine.until("places are prepared again", |_| spares().lines().count() == 2);
    machine.finish();
}
