//! What is counted and written down, from outside.

use std::time::Duration;

use hyper::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use super::app::App;
use super::client::{Client, Kind};
use super::gateway::{Gateway, table};
use super::tls::free;
use crate::{GatewayOptions, LogFormat};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_logged_and_traced() {
    let folder = tempfile::tempdir().unwrap();
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = App::start().await;
    let metrics = free();
    let options = GatewayOptions {
        metrics: Some(metrics),
        access_log: Some(LogFormat::Json),
        traces: Some(format!("http://{}", collector.local_addr().unwrap())),
        ..GatewayOptions::new(folder.path().to_owned(), free())
    };
    let mut gateway = Gateway::start_with(options).await;
    gateway.set(&table(1, &[(1, 100, &[app.address])])).await;
    gateway.until_healthy().await;

    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::builder().uri("/headers?q=1").header("traceparent", parent).header("tracestate", "a=b");
    let got = client.request(request, "".into()).await.unwrap();
    assert!(got.body.contains(r#""traceparent": "00-0af7651916cd43dd8448eb211c80319c-"#), "{}", got.body);
    assert!(!got.body.contains("b7ad6b7169203331") && got.body.contains(r#""tracestate": "a=b""#), "{}", got.body);
    for _ in 0..9 {
        client.get("/").await.unwrap();
    }

    // The batch of spans.
    let (mut stream, _) = collector.accept().await.unwrap();
    let mut sent = Vec::new();
    let body = loop {
        let mut piece = vec![0; 65536];
        let size = stream.read(&mut piece).await.unwrap();
        sent.extend_from_slice(&piece[..size]);
        let text = String::from_utf8_lossy(&sent).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str::<Value>(body)
        {
            assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
            break body;
        }
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(
        (&span["traceId"], &span["parentSpanId"]),
        (&"0af7651916cd43dd8448eb211c80319c".into(), &"b7ad6b7169203331".into())
    );
    assert_eq!(span["name"], "GET */");

    // Metrics on either way.
    let text = Client::new(metrics, Kind::Close).get("/metrics").await.unwrap().body;
    for expected in [
        r#"http_requests_total{service="web",route="*/",release="1",code="2xx"} 10"#,
        r#"http_request_duration_seconds_count{service="web",route="*/",release="1"} 10"#,
        r#"http_request_duration_seconds_bucket{le="+Inf",service="web",route="*/",release="1"} 10"#,
        r#"gateway_release_weight{service="web",release="1"} 1.0"#,
        r#"gateway_instance_requests_total{service="web",release="1",instance="web-1-1"} 10"#,
        r#"gateway_instance_healthy{service="web",release="1",instance="web-1-1"} 1.0"#,
        r#"http_requests_refused_total{reason="no_route"} 0"#,
        "gateway_route_table_version 1.0",
        "# TYPE http_requests_total counter",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;q=0.3";
    let request = Request::builder().uri("/metrics").header("accept", protobuf);
    let got = Client::new(metrics, Kind::Close).request(request, "".into()).await.unwrap();
    assert!(got.headers["content-type"].to_str().unwrap().starts_with("application/vnd.google.protobuf;"), "{got:?}");
    assert!(got.body.contains("http_request_duration_seconds") && !got.body.contains("# TYPE"), "{}", got.body);
    let mut unix = UnixStream::connect(folder.path().join("run/metrics.sock")).await.unwrap();
    unix.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    unix.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("openmetrics-text"), "{answer}");
    assert!(answer.contains("# TYPE http_requests counter") && answer.ends_with("# EOF\n"), "{answer}");

    // Lines of the log.
    let mut lines = String::new();
    for _ in 0..50 {
        lines = std::fs::read_to_string(folder.path().join("logs/access.log")).unwrap();
        if lines.lines().count() == 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["target"], &first["status"]), (&"/headers?q=1".into(), &200.into()));
    assert_eq!((&first["instance"], &first["trace"]), (&"web-1-1".into(), &"0af7651916cd43dd8448eb211c80319c".into()));
    assert_eq!(lines.lines().count(), 10);
}
