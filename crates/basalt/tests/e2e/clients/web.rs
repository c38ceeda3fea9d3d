//! Web clients, in clear and over TLS: curl, Python's httpx and websockets, Node's undici, and Chromium.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{Script, run, stack};
use crate::edge::{certify, sh};
use crate::harness::{Basalt, free_address, wait_until};

/// How much of a large body the gateway may have in memory, with all that it needs besides, in KiB: far less than the body.
const MEMORY: u64 = 48 << 10;

#[test]
fn clients_of_all_kinds_and_an_update_under_them() {
    let mut basalt = Basalt::new();
    let folder = basalt.folder();
    certify(&folder, "localhost");
    let (at, https, metrics) = (folder.display(), free_address(), free_address().to_string());
    let path = folder.join("web.hcl");
    let write = |version: &str| {
        let rest = format!(
            r#"
  health {{
    http {{
      path = "/"
      port = "http"
    }}
    interval = "200ms"
  }}
  route {{ path = "/" }}
  route {{
    host = "localhost"
    tls {{
      certificate = "{at}/cert.pem"
      key         = "{at}/key.pem"
    }}
  }}
"#
        );
        std::fs::write(&path, stack("web_server.py", version, 1, &rest)).unwrap();
    };
    write("one");
    basalt.up_path(&path, &["--https", &https.to_string(), "--metrics", &metrics]).expect(0);
    let (plain, secure) = (format!("http://{}", basalt.http()), format!("https://localhost:{}", https.port()));
    let certificate = format!("{at}/cert.pem");

    curl(&plain, &folder);
    run("undici_calls.js", &[&plain]);
    for url in [&plain, &secure] {
        run("websocket.py", &[&format!("{}/socket", url.replacen("http", "ws", 1)), &certificate]);
    }
    large_bodies(&basalt, &secure, &certificate);
    browser(&secure, &folder);
    sh(&format!("curl -sS http://{metrics}/metrics | promtool check metrics"));

    let clients = Script::start("long_lived.py", &[&secure, &certificate]);
    write("two");
    basalt.up_path(&path, &[]).expect(0);
    let report = clients.finish();
    for what in ["messages", "event_streams", "downloads"] {
        assert!(report[what].as_u64() > Some(0), "{report}");
    }
    // Each WebSocket was told once to go to the new release, and nothing was cut.
    assert_eq!(report["going_away"], 8, "{report}");
    let drains = folder.with_file_name("data").join("logs/drains.log");
    wait_until("the drain has its receipt", Duration::from_secs(10), || {
        let text = std::fs::read_to_string(&drains).unwrap_or_default();
        let receipts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
        receipts.iter().any(|receipt| receipt["cut"] == 0)
    });
    basalt.down();
}

/// Asks in ways that few clients do.
fn curl(url: &str, folder: &Path) {
    let at = folder.display();
    sh(&format!("head -c 3000000 /dev/zero > {at}/zeros"));
    let curl = |rest: &str| sh(&format!("curl -sS --max-time 20 {rest} 2>&1"));
    let told = |rest: &str| -> Value {
        let text = curl(rest);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {rest}: {text}"))
    };
    let of = "-o /dev/null -w '%{http_version} %{http_code}'";

    assert_eq!(curl(&format!("{of} --http2-prior-knowledge {url}/")), "2 200");
    assert_eq!(curl(&format!("{of} --http1.0 {url}/")), "1.1 200");
    // An upgrade to HTTP/2 need not be taken up (RFC 9110 §7.8).
    assert_eq!(curl(&format!("{of} --http2 {url}/")), "1.1 200");
    assert_eq!(curl(&format!("{of} -I {url}/")), "1.1 200");

    // The client waits for 100 before it sends its body.
    let asked =
        curl(&format!("-v -H 'Expect: 100-continue' --expect100-timeout 15 --data-binary @{at}/zeros {url}/request"));
    assert!(asked.contains("100 Continue") && asked.contains("\"length\": 3000000"), "{asked}");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let length = |rest: &str| told(&format!("{version} {rest} {url}/request"))["length"].clone();
        assert_eq!(length(&format!("--data-binary @{at}/zeros")), 3_000_000, "{version}");
        assert_eq!(length(&format!("-T - < {at}/zeros")), 3_000_000, "{version}");
        assert_eq!(length(&format!("-F file=@{at}/zeros")).as_u64().map(|length| length > 3_000_000), Some(true));
    }
    // To a proxy, clients send the whole URL as the target (RFC 9112 §3.2.2).
    let absolute = told(&format!("-x {url} 'http://127.0.0.1/request?a=b'"));
    let host =
        absolute["headers"].as_array().unwrap().iter().find(|header| header[0] == "host").map(|header| &header[1]);
    assert_eq!((&absolute["path"], &absolute["query"]), (&"/request".into(), &"a=b".into()), "{absolute}");
    assert_eq!(host, Some(&"127.0.0.1".into()), "{absolute}");
}

/// Sends and gets 200 MiB, of which the gateway has little in memory at any moment.
fn large_bodies(basalt: &Basalt, url: &str, certificate: &str) {
    let gateway = basalt.role("gateway").unwrap();
    let memory = |name: &str| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{gateway}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    // 5 takes the high-water mark back to what is resident now (proc(5)).
    std::fs::write(format!("/proc/{gateway}/clear_refs"), "5").unwrap();
    let before = memory("VmRSS:");
    run("httpx_calls.py", &[url, certificate, "200"]);
    let most = memory("VmHWM:");
    println!("gateway: {before} KiB before, {most} KiB at most");
    assert!(most < before + MEMORY, "{before} KiB, then {most} KiB");
}

/// Loads a page that shows events and messages as they come.
fn browser(url: &str, folder: &Path) {
    let at = folder.display();
    let page = sh(&format!(
        "timeout 60 chromium --headless --no-sandbox --disable-gpu --ignore-certificate-errors --user-data-dir={at}/chromium \
         --timeout=10000 --dump-dom {url}/page 2>{at}/chromium.log"
    ));
    let list = "<li>over h2</li><li>a message</li><li>event 0</li><li>event 1</li><li>event 2</li>";
    assert!(page.contains("Version one") && page.contains(list), "{page}");
}
