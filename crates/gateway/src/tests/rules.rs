//! What routes and services say of requests, from outside.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

use basalt_model::{
    Bytes, Eject, ErrorPage, HashOn, Millis, Page, RateLimit, Redirect, Route, RouteTable, Rules, Sticky, Traffic,
};
use hyper::{Method, Request};

use super::app::App;
use super::client::{Client, Got, Kind};
use super::gateway::{Gateway, all_healthy, name, table, web};
use super::http1::speak;
use crate::Limits;

/// Gives the service `web` these routes.
fn with_routes(mut table: RouteTable, routes: Vec<(&str, Rules)>) -> RouteTable {
    let routes = routes.into_iter().map(|(path, rules)| Route { rules, ..Route::new(None, path, name("http")) });
    web(&mut table).routes = routes.collect();
    table
}

fn with_traffic(mut table: RouteTable, traffic: Traffic) -> RouteTable {
    web(&mut table).traffic = traffic;
    table
}

async fn serving(table: &RouteTable) -> (Gateway, Client) {
    let mut gateway = Gateway::start().await;
    gateway.set(table).await;
    gateway.until_healthy().await;
    let client = Client::new(gateway.http, Kind::KeepAlive);
    (gateway, client)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn header<'g>(got: &'g Got, name: &str) -> &'g str {
    got.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_shape_requests_and_answers() {
    let app = App::start().await;
    let page = |body: &str| Page { status: 200, content_type: "text/html".into(), body: body.into() };
    let redirect = Redirect { to: "https://{host}/new{rest}{query}".into(), status: 301 };
    let routes = vec![
        ("/api", Rules { rewrite: Some("/".into()), ..Rules::default() }),
        (
            "/seen",
            Rules {
                rewrite: Some("/headers".into()),
                request_headers: map(&[("x-edge", "one"), ("x-secret", "")]),
                response_headers: map(&[("x-answered-by", "edge")]),
                ..Rules::default()
            },
        ),
        ("/old", Rules { redirect: Some(redirect), ..Rules::default() }),
        ("/ping", Rules { respond: Some(page("pong")), ..Rules::default() }),
        ("/none", Rules { respond: Some(Page { status: 204, ..page("") }), ..Rules::default() }),
        ("/", Rules { methods: vec!["GET".into()], ..Rules::default() }),
    ];
    let (gateway, _) = serving(&with_routes(table(1, &[(1, 100, &[app.address])]), routes)).await;
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let mut client = Client::new(gateway.http, kind);
        let got = client.send(Method::POST, "/api/echo", "hello".into()).await.unwrap();
        assert_eq!((got.status, got.body.as_str()), (200, "hello"));
        let request = Request::builder().uri("/seen").header("x-secret", "s").header("client-cert", ":x:");
        let got = client.request(request, "".into()).await.unwrap();
        assert!(got.body.contains(r#""x-edge": "one""#), "{}", got.body);
        assert!(!got.body.contains("x-secret") && !got.body.contains("client-cert"), "{}", got.body);
        assert_eq!(header(&got, "x-answered-by"), "edge");
        let got = client.get("/old/a/b?c=d").await.unwrap();
        assert_eq!((got.status, header(&got, "location")), (301, "https://any.example/new/a/b?c=d"));
        let got = client.send(Method::POST, "/ping", "x".into()).await.unwrap();
        assert_eq!((got.status, header(&got, "content-type"), got.body.as_str()), (200, "text/html", "pong"));
        let got = client.get("/none").await.unwrap();
        assert_eq!((got.status, header(&got, "content-length"), got.body.as_str()), (204, "", ""));
        assert_eq!(client.get("/else").await.unwrap().status, 200);
        assert_eq!(client.send(Method::DELETE, "/else", "".into()).await.unwrap().status, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_compressed_where_asked_for() {
    let app = App::start().await;
    let routes = vec![("/", Rules { compress: true, ..Rules::default() }), ("/events/plain", Rules::default())];
    let (gateway, _) = serving(&with_routes(table(1, &[(1, 100, &[app.address])]), routes)).await;
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let mut client = Client::new(gateway.http, kind);
        for (path, accepted, coding) in [
            ("/text", "gzip", "gzip"),
            ("/text", "deflate, br", "br"),
            ("/text", "zstd", "zstd"),
            ("/text", "identity", ""),
            ("/text", "gzip;q=0", ""),
            ("/events", "gzip", ""),
            ("/short", "gzip", ""),
            ("/text", "gzip", "gzip"),
        ] {
            let request = Request::builder().uri(path).header("accept-encoding", accepted);
            let got = client.request(request, "".into()).await.unwrap();
            assert_eq!((got.status, header(&got, "content-encoding")), (200, coding), "{path} {accepted}");
            assert_eq!(got.body.len() == 22_000, coding.is_empty() && path != "/short", "{path} {accepted}");
            assert_eq!(header(&got, "vary").contains("accept-encoding"), path == "/text", "{path} {accepted}");
        }
    }
    // Who speaks HTTP/1.0 knows no chunks, and `HEAD` is answered as if nothing was done.
    let (back, _) = speak(&gateway, "GET /text HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n").await;
    assert!(
        back.contains("Content-Length: 22000\r\n") || back.contains("content-length: 22000\r\n"),
        "{}",
        &back[..300]
    );
    let (back, ended) = speak(&gateway, "HEAD /text HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    assert!(back.starts_with("HTTP/1.1 200") && back.ends_with("\r\n\r\n") && !ended, "{back}");
    // One answers badly: what is sent again is compressed anew.
    let bad = App::start().await;
    bad.behaviour.status.store(503, SeqCst);
    let routes = vec![("/", Rules { compress: true, ..Rules::default() })];
    let two = table(2, &[(1, 100, &[app.address, bad.address])]);
    let (gateway, _) = serving(&with_routes(two, routes)).await;
    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    for _ in 0..4 {
        let request = Request::builder().uri("/text").header("accept-encoding", "gzip");
        let got = client.request(request, "".into()).await.unwrap();
        assert_eq!((got.status, header(&got, "content-encoding")), (200, "gzip"));
    }
    assert!(bad.requests() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused() {
    let app = App::start().await;
    let sorry = ErrorPage { content_type: "text/html".into(), body: "<h1>sorry</h1>".into() };
    let routes = vec![
        ("/small", Rules { rewrite: Some("/echo".into()), body_limit: Some(Bytes(10)), ..Rules::default() }),
        (
            "/rare",
            Rules {
                rate_limit: Some(RateLimit { requests: 1, per: Millis::seconds(3600), burst: 3 }),
                error_pages: [("429".to_owned(), sorry.clone())].into(),
                ..Rules::default()
            },
        ),
        (
            "/slow",
            Rules { timeout: Some(Millis(200)), error_pages: [("5xx".to_owned(), sorry)].into(), ..Rules::default() },
        ),
    ];
    let mut table = with_routes(table(1, &[(1, 100, &[app.address])]), routes);
    let (mut gateway, mut client) = serving(&table).await;
    assert_eq!(client.send(Method::POST, "/small", "0123456789".into()).await.unwrap().status, 200);
    assert_eq!(client.send(Method::POST, "/small", "0123456789x".into()).await.unwrap().status, 413);
    let chunked =
        "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n678901\r\n0\r\n\r\n";
    let (back, _) = speak(&gateway, chunked).await;
    assert!(back.starts_with("HTTP/1.1 413") && back.matches("HTTP/1.1").count() == 1, "{back}");
    for at in 0..5 {
        let got = client.get("/rare").await.unwrap();
        assert_eq!(got.status, if at < 3 { 200 } else { 429 });
        if at >= 3 {
            assert_eq!(got.body, "<h1>sorry</h1>");
            assert!((3590..=3600).contains(&header(&got, "retry-after").parse::<u32>().unwrap()));
        }
    }
    // Another table with the same limit does not begin anew.
    table.version = 2;
    gateway.set(&table).await;
    assert_eq!(client.get("/rare").await.unwrap().status, 429);
    app.behaviour.delay.store(2000, SeqCst);
    let got = client.get("/slow").await.unwrap();
    assert_eq!((got.status, header(&got, "content-type"), got.body.as_str()), (504, "text/html", "<h1>sorry</h1>"));
    // Who asks for another protocol has to be answered in time, too.
    let (back, _) = speak(&gateway, "GET /slow HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
    assert!(back.starts_with("HTTP/1.1 504"), "{back}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_can_be_closed() {
    let app = App::start().await;
    let sorry = ErrorPage { content_type: "text/plain".into(), body: "sorry".into() };
    let rules = Rules { error_pages: [("5xx".to_owned(), sorry)].into(), ..Rules::default() };
    let mut table =
        with_routes(table(1, &[(1, 100, &[app.address])]), vec![("/", Rules::default()), ("/sorry", rules)]);
    let (mut gateway, mut client) = serving(&table).await;
    for (version, text, expected) in [(2, "", "closed for maintenance\n"), (3, "back at noon", "back at noon")] {
        table = with_traffic(table, Traffic { maintenance: Some(text.into()), ..Traffic::default() });
        table.version = version;
        gateway.set(&table).await;
        let got = client.get("/").await.unwrap();
        assert_eq!((got.status, got.body.as_str(), header(&got, "retry-after")), (503, expected, "60"));
        // The service's own words come before those of its route for any error.
        let expected = if text.is_empty() { "sorry" } else { text };
        assert_eq!(client.get("/sorry").await.unwrap().body, expected);
    }
    table = with_traffic(table, Traffic::default());
    table.version = 4;
    gateway.set(&table).await;
    assert_eq!(client.get("/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stay_where_they_are() {
    let apps = [App::start().await, App::start().await, App::start().await];
    let addresses = apps.each_ref().map(|app| app.address);
    let sticky = Sticky { cookie: "at".into(), lasts: Millis::ZERO };
    let table = with_traffic(table(1, &[(1, 100, &addresses)]), Traffic { sticky: Some(sticky), ..Traffic::default() });
    let (mut gateway, mut client) = serving(&table).await;
    let first = client.get("/").await.unwrap();
    let cookie = header(&first, "set-cookie").split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("at=web-1-"), "{cookie}");
    let again = async |client: &mut Client| {
        client.request(Request::builder().uri("/").header("cookie", &cookie), "".into()).await.unwrap()
    };
    for _ in 0..10 {
        let got = again(&mut client).await;
        assert_eq!((got.body.as_str(), header(&got, "set-cookie")), (first.body.as_str(), ""));
    }
    // When it is gone, another takes over, and the client is told.
    apps.iter().find(|app| app.address.to_string() == first.body).unwrap().kill();
    // Its connections end a moment after it.
    let mut got = again(&mut client).await;
    while got.body == first.body {
        got = again(&mut client).await;
    }
    assert_eq!(got.status, 200);
    assert!(header(&got, "set-cookie").starts_with("at=web-1-"), "{got:?}");

    let on = Traffic { hash_on: Some(HashOn::Header("x-user".into())), ..Traffic::default() };
    let mut table = with_traffic(table, on);
    table.version = 2;
    gateway.set(&table).await;
    for user in ["a", "b", "c"] {
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..10 {
            let request = Request::builder().uri("/").header("x-user", user);
            places.insert(client.request(request, "".into()).await.unwrap().body);
        }
        assert_eq!(places.len(), 1, "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_again_and_again_is_left_out_for_a_while() {
    let apps = [App::start().await, App::start().await, App::start().await];
    let addresses = apps.each_ref().map(|app| app.address);
    let eject = Eject { consecutive: 3, lasts: Millis(1500), ..Eject::default() };
    let table = with_traffic(table(1, &[(1, 100, &addresses)]), Traffic { eject, ..Traffic::default() });
    let (_gateway, mut client) = serving(&table).await;
    apps[0].behaviour.status.store(503, SeqCst);
    for _ in 0..60 {
        assert_eq!(client.get("/").await.unwrap().status, 200, "a retry saves it");
    }
    assert_eq!(apps[0].requests(), 3, "three failures in a row, and no more");
    apps[0].behaviour.status.store(0, SeqCst);
    tokio::time::sleep(std::time::Duration::from_millis(1700)).await;
    for _ in 0..30 {
        client.get("/").await.unwrap();
    }
    assert!(apps[0].requests() > 3, "it is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_breaks_its_answers_off_is_left_out_for_a_while() {
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let (app, address) = (App::start().await, super::app::fresh_address());
        let half = &[("GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")];
        let _told = super::uploads::scripted(address, half).await;
        let eject = Eject { consecutive: 3, ..Eject::default() };
        let mut table = table(1, &[(1, 100, &[app.address, address])]);
        all_healthy(&mut table);
        let mut gateway = Gateway::start().await;
        gateway.set(&with_traffic(table, Traffic { eject, ..Traffic::default() })).await;
        gateway.until_healthy().await;
        let mut failed = 0;
        for _ in 0..40 {
            failed += u32::from(Client::new(gateway.http, kind).get("/").await.is_err());
            // It is counted once the client has been cut off.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(failed, 3, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_are_compressed_than_there_is_room_for() {
    let app = App::start().await;
    let mut gateway = Gateway::start_limited(Limits { encoders: 0, ..Limits::default() }).await;
    let routes = vec![("/", Rules { compress: true, ..Rules::default() })];
    let mut table = with_routes(table(1, &[(1, 100, &[app.address])]), routes);
    all_healthy(&mut table);
    gateway.set(&table).await;
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let request = Request::builder().uri("/text").header("accept-encoding", "gzip");
        let got = Client::new(gateway.http, kind).request(request, "".into()).await.unwrap();
        assert_eq!((got.status, got.body.len(), header(&got, "content-encoding")), (200, 22_000, ""));
        assert_eq!(header(&got, "vary"), "accept-encoding");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_content_gets_none_by_being_compressed() {
    let routes = vec![("/", Rules { compress: true, ..Rules::default() })];
    let mut gateway = Gateway::start().await;
    gateway.set(&with_routes(super::http1::answering().await, routes)).await;
    gateway.until_healthy().await;
    let ask =
        |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    for (method, path) in [("GET", "/same-text"), ("GET", "/none"), ("HEAD", "/chunked")] {
        // What comes behind is the next answer.
        let (back, _) = speak(&gateway, &format!("{}{}", ask(method, path), ask("GET", "/a"))).await;
        let (first, rest) = back.split_once("\r\n\r\n").unwrap();
        assert!(!first.contains("gzip") && rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("ok"), "{back}");
    }
    let mut client = Client::new(gateway.http, Kind::Http2);
    let request = Request::builder().uri("/same-text").header("accept-encoding", "gzip");
    let got = client.request(request, "".into()).await.unwrap();
    assert_eq!((got.status, got.body.as_str()), (304, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_begin_before_the_first_comes() {
    let address = super::app::fresh_address();
    let listener = tokio::net::TcpListener::bind((address, super::app::PORT)).await.unwrap();
    let instance = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut table =
        with_routes(table(1, &[(1, 100, &[address])]), vec![("/", Rules { compress: true, ..Rules::default() })]);
    all_healthy(&mut table);
    let mut gateway = Gateway::start().await;
    gateway.set(&table).await;
    let (back, ended) = speak(&gateway, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(back.starts_with("HTTP/1.1 200 OK\r\n") && back.ends_with("\r\n\r\n") && !ended, "{back}");
    instance.abort();
}
