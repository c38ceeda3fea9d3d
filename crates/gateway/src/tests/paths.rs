//! Answers that go byte by byte, and ones whose content is taken out of its framing: the same is said of both.

use std::path::Path;
use std::time::Duration;

use basalt_model::{
    Bytes, CertificateSource, ClientCertificates, ErrorPage, Millis, Page, RateLimit, Redirect, Route, RouteTable,
    Rules, Tls,
};
use serde_json::{Map, Value};

use super::gateway::{Gateway, name, web};
use super::http1::{answering, speak};
use super::tls::free;
use crate::{GatewayOptions, LogFormat};

fn with_routes(mut table: RouteTable, routes: &[(&str, Rules)]) -> RouteTable {
    let routes =
        routes.iter().map(|(path, rules)| Route { rules: rules.clone(), ..Route::new(None, *path, name("http")) });
    web(&mut table).routes = routes.collect();
    table
}

async fn gateway(data: &Path, table: &RouteTable) -> Gateway {
    let options = GatewayOptions {
        access_log: Some(LogFormat::Json),
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
        ..GatewayOptions::new(data.to_owned(), free())
    };
    let mut gateway = Gateway::start_with(options).await;
    gateway.set(table).await;
    gateway.until_healthy().await;
    gateway
}

/// The lines of the log, without what differs from one time to the next.
async fn lines(data: &Path, expected: usize) -> Vec<Map<String, Value>> {
    let mut text = String::new();
    for _ in 0..100 {
        text = std::fs::read_to_string(data.join("logs/access.log")).unwrap_or_default();
        if text.lines().count() >= expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let line = |line: &str| {
        let mut line: Map<String, Value> = serde_json::from_str(line).unwrap();
        assert!(line.remove("at").is_some() && line.remove("seconds").is_some());
        line
    };
    text.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_said_of_a_request_whichever_way_its_answer_goes() {
    let rules = Rules::default;
    let sorry = ErrorPage { content_type: "text/html".into(), body: "<h1>sorry</h1>".into() };
    let mut routes = vec![
        ("/old", Rules { redirect: Some(Redirect { to: "/new{rest}{query}".into(), status: 301 }), ..rules() }),
        (
            "/ping",
            Rules {
                respond: Some(Page { status: 418, content_type: "text/html".into(), body: "<p>pong".into() }),
                response_headers: [("x-a".to_owned(), "1".to_owned())].into(),
                ..rules()
            },
        ),
        ("/seen", Rules { rewrite: Some("/echo".into()), ..rules() }),
        (
            "/rare",
            Rules {
                rate_limit: Some(RateLimit { requests: 1, per: Millis::seconds(3600), burst: 1 }),
                error_pages: [("4xx".to_owned(), sorry.clone())].into(),
                ..rules()
            },
        ),
        ("/small", Rules { body_limit: Some(Bytes(2)), ..rules() }),
        ("/nonsense", Rules { error_pages: [("502".to_owned(), sorry)].into(), ..rules() }),
    ];
    for path in ["/a", "/chunked", "/until-close", "/none", "/same", "/early", "/refused", "/short"] {
        routes.push((path, rules()));
    }
    let as_it_is = with_routes(answering().await, &routes);
    // Nobody asks for it, so nothing is compressed.
    routes.iter_mut().for_each(|(_, rules)| rules.compress = true);
    let unframed = with_routes(answering().await, &routes);

    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    let with = |fields: &str| get("/a").replace("Connection", &format!("{fields}\r\nConnection"));
    let post = |path: &str, body: &str| {
        get(path)
            .replace("GET", "POST")
            .replace("\r\n\r\n", &format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    };
    let requests = [
        get("/a?q=1&r"),
        get("/chunked"),
        get("/until-close"),
        get("/none"),
        get("/same"),
        get("/early"),
        get("/refused"),
        get("/short"),
        get("/a").replace("GET", "HEAD"),
        get("/a").replace("GET", "BREW"),
        get("http://a.example/a/b"),
        get("http://a.example"),
        with("Referer: https://c.example/\r\nUser-Agent: it \"quotes\""),
        with("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7, 192.0.2.7, 127.0.0.9"),
        with("Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        post("/seen", "hello"),
        post("/nonsense", "hello"),
        post("/small", "hi"),
        post("/small", "hello"),
        get("/nowhere"),
        get("/old/x?q"),
        get("/ping"),
        get("/ping").replace("GET", "HEAD"),
        get("/rare"),
        get("/rare"),
    ];
    let mut said = Vec::new();
    for table in [as_it_is, unframed] {
        let data = tempfile::tempdir().unwrap();
        let gateway = gateway(data.path(), &table).await;
        let mut statuses = Vec::new();
        for request in &requests {
            let (back, _) = speak(&gateway, request).await;
            let status = back.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0u64);
            statuses.push(if status == 103 { 200 } else { status });
        }
        gateway.stop().await;
        let mut lines = lines(data.path(), requests.len()).await;
        assert_eq!(lines.len(), requests.len());
        for (line, status) in lines.iter_mut().zip(statuses) {
            // Of an answer that breaks off, the client may have seen nothing yet.
            assert!(line["status"] == status || line["target"] == "/short", "{line:?}: {status}");
            let trace = line.remove("trace").unwrap();
            if line["target"] == "/a" && trace == "0af7651916cd43dd8448eb211c80319c" {
                line.insert("trace".into(), "goes on".into());
            }
        }
        said.push(lines);
    }
    for ((as_it_is, unframed), request) in said[0].iter().zip(&said[1]).zip(&requests) {
        assert_eq!(as_it_is, unframed, "{request}");
    }
    let traced = said[0].iter().filter(|line| line.contains_key("trace")).count();
    assert_eq!((traced, &said[0][13]["client"], &said[0][1]["sent"]), (1, &"192.0.2.7".into(), &3.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_breaks_off_is_its_senders() {
    use tokio::io::AsyncWriteExt;
    let data = tempfile::tempdir().unwrap();
    let gateway = gateway(data.path(), &answering().await).await;
    let mut client = tokio::net::TcpStream::connect(gateway.http).await.unwrap();
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nContent-Length: 5\r\n\r\nhel";
    client.write_all(head.as_bytes()).await.unwrap();
    drop(client);
    let lines = lines(data.path(), 1).await;
    assert_eq!((&lines[0]["client"], &lines[0]["status"]), (&"192.0.2.7".into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_proxy_are_sent_there() {
    let tls = |clients: Option<ClientCertificates>| Tls {
        certificate: CertificateSource::Files { certificate: "/none".into(), key: "/none".into() },
        redirect: true,
        hsts: None,
        clients,
    };
    let asks = ClientCertificates { authorities: "/none".into(), required: true };
    let to = Redirect { to: "{scheme}://{host}/new{rest}".into(), status: 302 };
    let mut table = with_routes(
        answering().await,
        &[
            ("/old", Rules { redirect: Some(to), ..Rules::default() }),
            ("/safe", Rules { tls: Some(tls(None)), ..Rules::default() }),
            ("/closed", Rules { tls: Some(tls(Some(asks))), ..Rules::default() }),
        ],
    );
    web(&mut table).routes.iter_mut().for_each(|route| route.host = Some("in.example".into()));
    let data = tempfile::tempdir().unwrap();
    let https = free();
    let options = GatewayOptions {
        https: Some(https),
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
        ..GatewayOptions::new(data.path().to_owned(), free())
    };
    let mut gateway = Gateway::start_with(options).await;
    gateway.set(&table).await;
    let port = https.port();
    for (path, fields, status, location) in [
        ("/old/x", "", 302, "http://in.example/new/x"),
        ("/old/x", "X-Forwarded-Proto: https\r\n", 302, "https://in.example/new/x"),
        // Not all proxies write this one, and then it is the client's.
        ("/old/x", "X-Forwarded-Host: evil.example\r\n", 302, "http://in.example/new/x"),
        ("/safe", "", 308, &format!("https://in.example:{port}/safe")),
        ("/safe", "X-Forwarded-Proto: http\r\n", 308, "https://in.example/safe"),
        ("/safe", "Forwarded: proto=http;host=evil.example\r\n", 308, "https://in.example/safe"),
        ("/closed", "X-Forwarded-Proto: http\r\n", 308, "https://in.example/closed"),
        ("/closed", "X-Forwarded-Proto: https\r\n", 403, ""),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: in.example\r\n{fields}Connection: close\r\n\r\n");
        let (back, _) = speak(&gateway, &request).await;
        let at = back.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_default();
        assert!(back.starts_with(&format!("HTTP/1.1 {status} ")) && at == location, "{path} {fields}: {back}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_clients_are_told_of_no_chunks() {
    let data = tempfile::tempdir().unwrap();
    let gateway = gateway(data.path(), &answering().await).await;
    for method in ["GET", "HEAD"] {
        let (back, ended) = speak(&gateway, &format!("{method} /chunked HTTP/1.0\r\n\r\n")).await;
        assert!(back.starts_with("HTTP/1.1 200") && ended && !back.to_lowercase().contains("chunked"), "{back}");
    }
    assert!(lines(data.path(), 2).await.iter().all(|line| line["protocol"] == "HTTP/1.0"));
}
