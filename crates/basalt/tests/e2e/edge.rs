//! What faces clients: TLS, metrics, the access log and `basalt traffic`, as people use them, with curl and openssl.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use basalt_testkit::load::Kind;

use crate::harness::{Basalt, Loads, Stack, free_address, wait_until};

/// Runs a script and returns what it writes.
#[track_caller]
pub fn sh(script: &str) -> String {
    #[allow(clippy::disallowed_methods)] // other people's clients
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{out}\n{err}");
    out.into_owned()
}

/// Makes a certificate for a host that signs itself.
pub fn certify(folder: &Path, host: &str) {
    sh(&format!(
        "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={host} \
         -addext subjectAltName=DNS:{host} -keyout new.key -out new.pem 2>&1 && mv new.key key.pem && mv new.pem cert.pem",
        folder.display()
    ));
}

#[test]
fn tls_metrics_log_and_traffic() {
    let mut basalt = Basalt::new();
    let folder = basalt.folder();
    let (https, metrics) = (free_address(), free_address());
    certify(&folder, "shop.test");
    let at = folder.display();
    let stack = Stack::new("one", "rollout \"rolling\" {}").service(&format!(
        "  route {{\n    host = \"shop.test\"\n    tls {{\n      certificate = \"{at}/cert.pem\"\n      key = \"{at}/key.pem\"\n      \
         hsts = \"24h\"\n    }}\n    rate_limit {{\n      requests = 1\n      per = \"1h\"\n      burst = 100\n    }}\n  }}\n  \
         route {{\n    path = \"/ping\"\n    respond {{ body = \"pong\" }}\n  }}\n"
    ));
    let path = stack.write(&folder);
    let (secure, shown) = (https.to_string(), metrics.to_string());
    let arguments = ["--https", &secure, "--metrics", &shown, "--access-log", "json"];
    basalt.up_path(&path, &arguments).expect(0);

    let curl = |rest: &str| {
        sh(&format!(
            "curl -sS --max-time 20 --cacert {at}/cert.pem --resolve shop.test:{}:127.0.0.1 {rest}",
            https.port()
        ))
    };
    let url = format!("https://shop.test:{}", https.port());
    let of = "-w '%{http_version} %{http_code}' -o /dev/null";
    assert_eq!(curl(&format!("--http1.1 {of} {url}/")), "1.1 200");
    assert_eq!(curl(&format!("--http2 {of} {url}/")), "2 200");
    assert_eq!(curl(&format!("--tls-max 1.2 {of} {url}/")), "2 200");
    assert!(curl(&format!("{url}/")).contains("version=one"));
    assert!(curl(&format!("-D - -o /dev/null {url}/")).contains("strict-transport-security: max-age=86400"));
    let plain = format!("-D - -o /dev/null -H 'Host: shop.test' http://{}/a?b", basalt.http());
    let redirected = curl(&plain);
    assert!(redirected.contains("308") && redirected.contains(&format!("{url}/a?b")), "{redirected}");
    assert_eq!(basalt.get("/ping"), (200, "pong".to_owned()));

    // Another certificate is taken up without a restart, and connections that are open stay.
    let print = |at: std::net::SocketAddr| {
        sh(&format!(
            "openssl s_client -connect {at} -servername shop.test </dev/null 2>/dev/null | openssl x509 -noout -serial"
        ))
    };
    let before = print(https);
    certify(&folder, "shop.test");
    wait_until("the new certificate is served", Duration::from_secs(20), || print(https) != before);
    assert_eq!(curl(&format!("{of} {url}/")), "2 200");

    // A burst of 100 is granted, and no more.
    let codes = curl(&format!("-w '%{{http_code}}\\n' -o /dev/null '{url}/?[1-120]'"));
    let many = codes.lines().filter(|code| *code == "429").count();
    assert!((20..40).contains(&many), "{many} of\n{codes}");

    let text = sh(&format!("curl -sS http://{metrics}/metrics"));
    for line in [
        "http_requests_total{service=\"app\",route=\"shop.test/\",release=\"1\",code=\"2xx\"}",
        "http_requests_total{service=\"app\",route=\"*/ping\",release=\"none\",code=\"2xx\"}",
        "http_request_duration_seconds_bucket{",
        "rate_limited",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }

    let output = basalt.run(&["traffic", "--output", "json"]).expect(0);
    let traffic: serde_json::Value = serde_json::from_str(&output.out).unwrap();
    let of_one = traffic["releases"].as_array().unwrap().iter().find(|row| row["release"] == "1").cloned();
    assert_eq!(of_one.map(|row| row["weight"].clone()), Some(100.0.into()), "{traffic}");

    let log = basalt.folder().with_file_name("data").join("logs/access.log");
    wait_until("requests are logged", Duration::from_secs(5), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().any(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            line["host"].as_str().is_some_and(|host| host.starts_with("shop.test"))
                && line["status"] == 200
                && line["protocol"] == "HTTP/2.0"
        })
    });

    // What is told once holds: a second `up` needs no options. With other ones, the gateway hands over to one that has them,
    // unless it could not listen.
    basalt.up_path(&path, &[]).expect(0);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    basalt.up_path(&path, &["--https", &taken.local_addr().unwrap().to_string()]).expect(4);
    assert!(print(https).starts_with("serial="));
    let other = free_address();
    basalt.up_path(&path, &["--https", &other.to_string()]).expect(0);
    assert!(print(other).starts_with("serial=") && basalt.get("/ping").0 == 200);
    // So does a gateway that the keeper starts.
    basalt.kill_role("gateway");
    wait_until("TLS is served again", Duration::from_secs(20), || {
        basalt.get("/ping").0 == 200 && print(other).starts_with("serial=")
    });
    basalt.down();
}

#[test]
fn a_successor_takes_over_in_the_midst_of_updates() {
    let mut basalt = Basalt::new();
    let update = |basalt: &mut Basalt, version: &str| {
        basalt.up(&Stack::new(version, "rollout \"rolling\" { max_surge = 1 }")).expect(0);
    };
    update(&mut basalt, "one");
    let loads = Loads::start(&basalt, &Kind::ALL, &["version=one\n", "version=two\n", "version=three\n"]);
    let file = basalt.folder().with_file_name("data").join("run/gateway.pid");
    let pid = || std::fs::read_to_string(&file).unwrap_or_default().trim().parse::<i32>().ok();
    for version in ["two", "three"] {
        loads.flow(20);
        let before = pid().unwrap();
        let of = rustix::process::Pid::from_raw(before).unwrap();
        rustix::process::kill_process(of, rustix::process::Signal::HUP).unwrap();
        // The update begins while the old one still finishes.
        wait_until("there is a successor", Duration::from_secs(10), || pid().is_some_and(|now| now != before));
        update(&mut basalt, version);
    }
    loads.flow(20);
    loads.finish_without_failure(&["version=three\n"]);
    let drains = basalt.folder().with_file_name("data").join("logs/drains.log");
    let receipts = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&drains).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    wait_until("each drain has its receipt", Duration::from_secs(10), || {
        receipts().iter().map(|one| one["instance"].to_string()).collect::<BTreeSet<_>>().len() == 6
    });
    assert!(receipts().iter().all(|one| one["cut"] == 0), "{:?}", receipts());
    basalt.down();
}
