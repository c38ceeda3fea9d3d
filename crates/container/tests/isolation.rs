//! What an instance can see, reach and do: asserted from inside. Needs root.

#![allow(clippy::disallowed_methods)] // Tests run programs.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use basalt_model::{Bytes, ConfigFile, CpuMillis, Exit, Limits, SecretFile, Volume};
use basalt_seam::InstanceAction;
use common::{Machine, sh};

#[test]
fn an_instance_is_shut_in() {
    let machine = Machine::new();
    let check = |script: &str, expected: &[&str]| {
        assert_eq!(machine.output(machine.release(script)), expected, "{script}");
    };
    let denied = |script: &str| check(&format!("({script}) 2>/dev/null && echo possible || echo denied"), &["denied"]);

    check("id -u; id -g; hostname; cat /etc/hostname", &["0", "0", "job-1-1", "job-1-1"]);
    let map = machine.output(machine.release("cat /proc/self/uid_map"));
    let fields: Vec<u64> = map[0].split_whitespace().map(|f| f.parse().unwrap()).collect();
    assert!(fields[0] == 0 && fields[1] >= 0x7000_0000 && fields[2] == 65536, "{map:?}");
    check(
        "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb)' /proc/self/status | grep -v 0000000000000000; echo .",
        &["."],
    );
    check("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cat", &["NoNewPrivs:\t1", "Seccomp:\t2"]);
    check("ls /proc/self/fd | grep -vE '^[0-3]$' | cat; echo .", &["."]);
    check("grep -E '^Sig(Ign|Blk)' /proc/self/status | grep -v 0000000000000000; echo .", &["."]);
    check("df -k /tmp | tail -n 1 | grep -q ' 1048576 ' && echo bounded", &["bounded"]);
    // Its shell counts by itself: who is started to count may look before or after the others are there.
    check("cat /proc/1/comm; set -- /proc/[0-9]*; echo $#", &["basalt-init", "2"]);
    check("stat -c %u /bin/busybox /tmp", &["0", "0"]);

    for script in [
        "echo x > /new",
        "touch /etc/new",
        "touch /dev/new",
        "echo x > /dev/shm/../new",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "ls -l /proc/1/root/",
        "cat /proc/1/environ",
        "cp /bin/busybox /proc/1/exe",
        "cp /bin/busybox /tmp/x && /tmp/x true",
        "cp /bin/busybox /dev/shm/x && /dev/shm/x true",
        "mount -t tmpfs none /tmp",
        "unshare -n true",
        "unshare -r true",
        "cat /dev/kmsg",
        "ls /dev/vda",
        "ls /run/basalt*",
        "test -s /proc/kcore",
        "test -s /proc/keys",
        "test -s /proc/kallsyms",
    ] {
        denied(script);
    }
    check("echo x > /tmp/x && cat /tmp/x; cat /etc/hosts | grep -c -E 'localhost|api.internal|job-1-1'", &["x", "4"]);
    machine.finish();
}

#[test]
fn a_program_in_a_memory_file_is_not_executed() {
    let machine = Machine::new();
    // Busybox can't make memory files: a small program of our own, linked statically, does.
    let source = r#"
        #define _GNU_SOURCE
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        #include <stdio.h>
        #include <errno.h>
        #include <fcntl.h>
        int main(int argc, char **argv, char **envp) {
            int fd = memfd_create("x", 0);
            if (fd < 0) { printf("no memory file: %d\n", errno); return 0; }
            int in = open("/probe", O_RDONLY);
            char buf[65536]; int n;
            while ((n = read(in, buf, sizeof buf)) > 0) if (write(fd, buf, n) != n) return 1;
            char *args[] = { "x", 0 };
            if (argc > 5) { printf("executed\n"); return 0; }
            syscall(SYS_execveat, fd, "", args, envp, AT_EMPTY_PATH);
            printf("denied: %d\n", errno);
            return 0;
        }"#;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.c"), source).unwrap();
    assert_eq!(sh(&format!("cc -static -o {0}/probe {0}/p.c && echo built", dir.path().display())), "built\n");
    let image = machine.bake_with(&dir.path().join("probe"), "/probe");
    let mut release = machine.release("");
    release.image = image;
    release.command = Some(vec!["/probe".into()]);
    assert_eq!(machine.output(release), [format!("denied: {}", libc_eacces())]);
    machine.finish();
}

/// `EACCES`, what the kernel says of a ban on executing.
fn libc_eacces() -> i32 {
    13
}

#[test]
fn files_users_volumes_and_limits() {
    let machine = Machine::new();
    let release = |script: &str| {
        let mut release = machine.release(script);
        release.user = Some("www".into());
        release.configs =
            BTreeMap::from([("/etc/app.conf".into(), ConfigFile { content: "port = 1".into(), mode: 0o444 })]);
        let secret = SecretFile { name: "db".parse().unwrap(), version: 1, mode: 0o400 };
        release.secrets = BTreeMap::from([("/run/secrets/db".into(), secret)]);
        let volume = Volume { name: "data".parse().unwrap(), shared: false };
        release.volumes = BTreeMap::from([("/var/lib/data".into(), volume)]);
        release.limits = Limits { cpu: Some(CpuMillis(500)), memory: Some(Bytes(64 << 20)), pids: 20 };
        release
    };
    let script = "id -u; id -G; cat /etc/app.conf; echo; cat /run/secrets/db; echo; stat -c '%u %a' /run/secrets/db;
        echo kept > /var/lib/data/x; (echo x > /etc/app.conf) 2>/dev/null || echo read-only;
        cp /bin/busybox /var/lib/data/b; /var/lib/data/b true 2>/dev/null || echo noexec; echo to the terminal > /dev/stdout";
    let lines = machine.output(release(script));
    assert_eq!(
        lines,
        ["33", "34 4", "port = 1", "s3cr3t-in-clear", "33 400", "read-only", "noexec", "to the terminal"]
    );
    assert_eq!(machine.output(release("cat /var/lib/data/x")), ["kept"]);
    let volume = machine.data.join("volumes/data");
    assert_eq!(
        sh(&format!("stat -c '%u %g' {}/x", volume.display())),
        "33 34\n",
        "owners on disk are the instance's own"
    );
    assert_eq!(
        sh(&format!("grep -rl s3cr3t-in-clear {} | head", machine.data.display()))
            .lines()
            .filter(|l| !l.contains("/logs/"))
            .count(),
        0
    );

    machine.start("job-1-1", 1, release("i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all"));
    let (exit, lines) = machine.ended("job-1-1");
    assert!(exit != Exit::Code(0) && lines.iter().any(|l| l.contains("fork")), "{exit:?} {lines:?}");
    machine.finish();
}

#[test]
fn an_instance_reaches_only_what_it_may() {
    let machine = Machine::new();
    let network = machine.network();
    let (open, closed) = (network.service_address(0).unwrap(), network.service_address(1).unwrap());
    let greet = |address: Ipv4Addr, port: u16| -> u16 {
        let listener = TcpListener::bind((address, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut s| s.write_all(b"hi\n"));
            }
        });
        port
    };
    greet(open, 80);
    greet(closed, 80);
    let everywhere = greet(Ipv4Addr::UNSPECIFIED, 0);

    machine.start("peer-1-1", 1, machine.release("exec httpd -f -p 80 -h /etc"));
    let (_, peer) = machine.running("peer-1-1");
    let ask = |address: Ipv4Addr, port: u16| format!("nc -w 1 {address} {port} </dev/null 2>/dev/null || echo nothing");
    let host = network.host_address();
    let script = [
        ask(open, 80),
        ask(closed, 80),
        ask(open, everywhere),
        ask(peer, 80),
        ask(host, everywhere),
        ask(Ipv4Addr::new(192, 0, 2, 2), everywhere),
    ]
    .join(";");
    let mut order = machine.order("web-1-1", 1, machine.release(&script));
    order.reaches = vec![open];
    machine.perform(InstanceAction::Start(Box::new(order)));
    let (_, lines) = machine.ended("web-1-1");
    assert_eq!(lines, ["hi", "nothing", "nothing", "nothing", "nothing", "nothing"]);

    // The server closes first, so that its side of the port is in TIME-WAIT: a new connection from there meets it, and is no stranger.
    let mut order = machine.order("web-1-2", 1, machine.release("sleep 60"));
    order.reaches = vec![open];
    machine.perform(InstanceAction::Start(Box::new(order)));
    let (pid, _) = machine.running("web-1-2");
    let ask_twice = format!(
        "import socket\nfor _ in range(2):\n  s = socket.create_connection((\"{open}\", 80), 2, (\"0.0.0.0\", 4444))\n  \
         while s.recv(9): pass\n  s.close()\nprint(\"twice\")"
    );
    assert_eq!(sh(&format!("nsenter -t {pid} -n python3 -c '{ask_twice}'")), "twice\n");

    machine.until("the host reaches the peer", |_| {
        TcpStream::connect_timeout(&(peer, 80).into(), Duration::from_secs(1)).is_ok()
    });
    let mut stream = TcpStream::connect((peer, 80)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("\r\n\r\npeer-1-1\n"), "{text}");
    machine.finish();
}

#[test]
fn only_egress_leaves_the_machine() {
    let machine = Machine::new();
    // A machine beyond this one: a network namespace that knows no route back to instances.
    let (name, outside) = (format!("out-{}", machine.tag()), "198.51.100.2");
    let short = &machine.tag()[..4];
    sh(&format!(
        "ip netns add {name}; ip link add o{short} type veth peer name eth0 netns {name}; \
         ip addr add 198.51.100.1/24 dev o{short}; ip link set o{short} up; \
         ip -n {name} addr add {outside}/24 dev eth0; ip -n {name} link set eth0 up; ip -n {name} link set lo up"
    ));
    let serve = format!("exec ip netns exec {name} busybox httpd -f -p 80 -h /etc");
    let mut server = std::process::Command::new("sh").arg("-c").arg(serve).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let ask = |egress: bool| {
        let ask = format!("echo 'GET /hostname HTTP/1.0\n' | nc -w 2 {outside} 80 2>/dev/null");
        let script = format!("{ask} | grep -q '200 OK' && echo reached || echo cut off");
        let mut release = machine.release(&script);
        release.egress = egress;
        machine.output(release)
    };
    let claim = std::path::PathBuf::from(format!("/run/basalt/forwarding/{}", machine.network_number()));
    let answers = (ask(false), ask(true));
    assert!(!claim.exists(), "with the last that needs it, packets are not passed on any more");

    // Who comes by a network card reaches the host, and no virtual address, wherever he sends it.
    let network = machine.network();
    let (host, service) = (Ipv4Addr::new(198, 51, 100, 1), network.service_address(0).unwrap());
    let greet = |address: Ipv4Addr| {
        let listener = TcpListener::bind((address, 8099)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut s| s.write_all(b"hi\n"));
            }
        });
    };
    greet(host);
    greet(service);
    sh(&format!("ip -n {name} route add {service}/32 via {host}"));
    let call = |to: Ipv4Addr| {
        sh(&format!("ip netns exec {name} busybox nc -w 1 {to} 8099 </dev/null 2>/dev/null || echo nothing"))
    };
    let calls = (call(host), call(service));
    server.kill().unwrap();
    server.wait().unwrap();
    sh(&format!("ip netns del {name}; ip link del o{short} 2>/dev/null"));
    assert_eq!(answers, (vec!["cut off".to_owned()], vec!["reached".to_owned()]));
    assert_eq!(calls, ("hi\n".to_owned(), "nothing\n".to_owned()));
    machine.finish();
}
