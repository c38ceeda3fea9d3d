//! Tables, versions, virtual addresses.

use std::sync::Arc;
use std::time::Duration;

use basalt_model::{HealthCheck, Port, Protocol, ProxyProtocol, Route};
use basalt_seam::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::app::{App, PORT, fresh_address};
use super::client::{Client, Kind};
use super::gateway::{Gateway, all_healthy, listen, name, table, web};
use crate::proxy_header;

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_table_is_refused() {
    let mut gateway = Gateway::start().await;
    gateway.set(&table(5, &[])).await;
    gateway.router.set(Arc::new(table(4, &[])));
    let seen = gateway.until(|seen| !seen.problems.is_empty()).await;
    assert_eq!(seen.version, 5);
    assert!(seen.problems[0].contains("version 5 is in force already"), "{:?}", seen.problems);
    gateway.router.set(Arc::new(table(6, &[])));
    gateway.until(|seen| seen.version == 6 && seen.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_too_long_to_send_is_told_and_the_next_one_is_sent() {
    let mut gateway = Gateway::start().await;
    gateway.set(&table(1, &[])).await;
    let mut long = table(2, &[]);
    let path = format!("/{}", "a".repeat(usize::try_from(basalt_wire::LONGEST_LINE).unwrap()));
    web(&mut long).routes = vec![Route::new(None, &path, "http".parse().unwrap())];
    gateway.router.set(Arc::new(long));
    let seen = gateway.until(|seen| !seen.problems.is_empty()).await;
    assert!(
        seen.problems[0].contains("version 2 of the route table: a message has more than 64 MiB"),
        "{:?}",
        seen.problems
    );
    assert_eq!((seen.connected, seen.version), (true, 1));
    gateway.router.set(Arc::new(table(3, &[])));
    gateway.until(|seen| seen.version == 3 && seen.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_could_not_be_kept_is_kept_once_the_disk_takes_it() {
    let data = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start_in(data.path(), "127.0.0.1:0".parse().unwrap()).await;
    let (kept, in_the_way) = (data.path().join("gateway/routes.json"), data.path().join("gateway/routes.json.new"));
    std::fs::create_dir(&in_the_way).unwrap();
    gateway.router.set(Arc::new(table(1, &[])));
    let seen = gateway.until(|seen| seen.version == 1 && !seen.problems.is_empty()).await;
    assert!(seen.problems[0].contains("can't keep a copy of the route table"), "{:?}", seen.problems);
    assert!(!kept.exists());
    std::fs::remove_dir(&in_the_way).unwrap();
    gateway.until(|seen| seen.problems.is_empty()).await;
    assert!(kept.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_address_leads_to_its_service_whatever_the_host() {
    let mut gateway = Gateway::start().await;
    let app = App::start().await;
    let virtual_address = format!("{}:7000", fresh_address());
    let mut with = table(1, &[(1, 100, &[app.address])]);
    web(&mut with).routes.clear();
    let mut without = with.clone();
    without.version = 2;
    listen(&mut with, &virtual_address, Protocol::Http);
    gateway.set(&with).await;
    gateway.until_healthy().await;
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let got = Client::new(virtual_address.parse().unwrap(), kind).get("/x").await.unwrap();
        assert_eq!((got.status, got.body), (200, app.address.to_string()));
        assert_eq!(Client::new(gateway.http, kind).get("/x").await.unwrap().status, 404, "not from outside");
    }
    // The address is the gateway's own: it outlives the connection that the table came by.
    gateway.follow_anew();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let got = Client::new(virtual_address.parse().unwrap(), Kind::Close).get("/x").await.unwrap();
    assert_eq!(got.status, 200);
    gateway.set(&without).await;
    let refused = TcpStream::connect(&virtual_address).await;
    for _ in 0..100 {
        if TcpStream::connect(&virtual_address).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still accepted: {refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_passed_on_and_counted() {
    let mut gateway = Gateway::start().await;
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let app = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let virtual_address = format!("{}:7000", fresh_address());
    // Half of the instances are not there at all, and are told to be healthy.
    let mut table = table(1, &[(1, 100, &[address, fresh_address()])]);
    listen(&mut table, &virtual_address, Protocol::Tcp);
    all_healthy(&mut table);
    gateway.set(&table).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = TcpStream::connect(&virtual_address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        clients.push(client);
    }
    let id = "web-1-1".parse().unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 10).await;
    clients.clear();
    gateway.until(|seen| seen.instances[&id].in_flight == 0 && seen.instances[&id].requests == 10).await;
    let seen = gateway.router.seen();
    assert_eq!(seen.instances[&"web-1-2".parse().unwrap()].healthy, Some(false), "{seen:#?}");
    app.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_told_whose_a_connection_is() {
    for (version, checked) in
        [(ProxyProtocol::V1, "PROXY UNKNOWN\r\n"), (ProxyProtocol::V2, "\r\n\r\n\0\r\nQUIT\n \0\0\0")]
    {
        let address = fresh_address();
        let listener = TcpListener::bind((address, PORT)).await.unwrap();
        let app = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let whose = proxy_header::read(&mut stream).await?;
                    let whose = whose.map_or("nobody".to_owned(), |whose| whose.to_string());
                    stream.write_all(whose.as_bytes()).await?;
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        // What a check sends.
        let probe = TcpListener::bind((fresh_address(), 0)).await.unwrap();
        let std::net::SocketAddr::V4(at) = probe.local_addr().unwrap() else { unreachable!() };
        crate::probe::tcp(crate::probe::At { address: at, proxy_protocol: Some(version) }, PATIENCE).await.unwrap();
        let mut sent = String::new();
        probe.accept().await.unwrap().0.read_to_string(&mut sent).await.unwrap();
        assert_eq!(sent, checked);

        let mut gateway = Gateway::start().await;
        let virtual_address = format!("{}:7000", fresh_address());
        let mut table = table(1, &[(1, 100, &[address])]);
        listen(&mut table, &virtual_address, Protocol::Tcp);
        let release = web(&mut table).releases.get_mut(&1).unwrap();
        release.health.check = HealthCheck::Tcp { port: name("http") };
        let port = release.ports.get_mut(&name("http")).unwrap();
        *port = Port { proxy_protocol: Some(version), ..Port::new(PORT, Protocol::Tcp) };
        gateway.set(&table).await;
        gateway.until_healthy().await;
        let mut client = TcpStream::connect(&virtual_address).await.unwrap();
        client.write_all(b" says hello").await.unwrap();
        let expected = format!("{} says hello", client.local_addr().unwrap());
        let mut back = vec![0; expected.len()];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), expected);
        app.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_has_a_receipt() {
    let data = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start_in(data.path(), "127.0.0.1:0".parse().unwrap()).await;
    let app = App::start().await;
    let virtual_address = format!("{}:7000", fresh_address());
    let mut first = table(1, &[(1, 100, &[app.address])]);
    listen(&mut first, &virtual_address, Protocol::Tcp);
    let release = web(&mut first).releases.get_mut(&1).unwrap();
    release.drain = basalt_model::Millis(60_000);
    gateway.set(&first).await;
    gateway.until_healthy().await;
    // What the last table says of it counts.
    web(&mut first).releases.get_mut(&1).unwrap().drain = basalt_model::Millis(500);
    first.version = 2;
    gateway.set(&first).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(TcpStream::connect(&virtual_address).await.unwrap());
    }
    app.behaviour.delay.store(2500, std::sync::atomic::Ordering::SeqCst);
    let http = gateway.http;
    let slow = tokio::spawn(async move { Client::new(http, Kind::Close).get("/").await.unwrap().status });
    let id = "web-1-1".parse().unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 6).await;
    gateway.set(&table(3, &[])).await;
    clients.truncate(2);
    // This one takes longer than the drain, and still ends by itself: nobody has stopped the instance.
    assert_eq!(slow.await.unwrap(), 200);
    drop(clients);
    gateway.until(|seen| seen.instances.is_empty()).await;
    let path = data.path().join("logs/drains.log");
    let written = async {
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    let text = tokio::time::timeout(std::time::Duration::from_secs(10), written).await.unwrap();
    let receipt: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&receipt["instance"], &receipt["ended"], &receipt["cut"]), (&"web-1-1".into(), &4.into(), &2.into()));
    assert_eq!(receipt["which"], serde_json::json!(vec![format!("127.0.0.1 tcp {virtual_address}"); 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_with_their_client_and_with_the_drain() {
    // An instance that takes everything, and never says or ends anything.
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let mut gateway = Gateway::start().await;
    let virtual_address = format!("{}:7000", fresh_address());
    let mut first = table(1, &[(1, 100, &[address])]);
    listen(&mut first, &virtual_address, Protocol::Tcp);
    web(&mut first).releases.get_mut(&1).unwrap().drain = basalt_model::Millis(500);
    all_healthy(&mut first);
    gateway.set(&first).await;
    let id = "web-1-1".parse().unwrap();
    let mut client = TcpStream::connect(&virtual_address).await.unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 1).await;
    // It says its last, and breaks off.
    client.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    gateway.until(|seen| seen.instances[&id].in_flight == 0).await;
    // So does one of which nobody takes any more.
    let mut client = TcpStream::connect(&virtual_address).await.unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 1).await;
    let all = vec![0; 64 << 20];
    let sent = tokio::time::timeout(Duration::from_millis(500), client.write_all(&all)).await;
    assert!(sent.is_err(), "it is stuck");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    gateway.until(|seen| seen.instances[&id].in_flight == 0).await;
    let mut client = TcpStream::connect(&virtual_address).await.unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 1).await;
    gateway.set(&table(2, &[])).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), client.read_u8()).await;
    assert!(ended.expect("the drain ends").is_err());
    gateway.until(|seen| seen.instances.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_sent_before_an_end_comes_and_what_is_cut_short_is_reset() {
    // An instance that says its last at once, and only then takes what comes, slowly at first.
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.shutdown().await.unwrap();
            tokio::time::sleep(Duration::from_millis(2500)).await;
            let (mut all, mut piece) = (0, vec![0; 64 << 10]);
            let ended = loop {
                match stream.read(&mut piece).await {
                    Ok(0) => break Ok(all),
                    Ok(read) => all += read,
                    Err(error) => break Err(error.kind()),
                }
            };
            tell.send(ended).await.unwrap();
        }
    });
    let mut gateway = Gateway::start().await;
    let virtual_address = format!("{}:7000", fresh_address());
    let mut first = table(1, &[(1, 100, &[address])]);
    listen(&mut first, &virtual_address, Protocol::Tcp);
    all_healthy(&mut first);
    gateway.set(&first).await;
    let mut client = TcpStream::connect(&virtual_address).await.unwrap();
    // More than the buffers on the way hold.
    let all = vec![0; 32 << 20];
    let sent = client.write_all(&all);
    tokio::time::timeout(PATIENCE, sent).await.expect("it is taken").unwrap();
    drop(client);
    assert_eq!(told.recv().await, Some(Ok(all.len())));
    let mut client = TcpStream::connect(&virtual_address).await.unwrap();
    client.write_all(b"a part").await.unwrap();
    let id = "web-1-1".parse().unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 1).await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(told.recv().await, Some(Err(std::io::ErrorKind::ConnectionReset)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_taken_is_told_and_tried_again() {
    let mut gateway = Gateway::start().await;
    let virtual_address = format!("{}:7000", fresh_address());
    let taken = TcpListener::bind(&virtual_address).await.unwrap();
    let mut first = table(1, &[]);
    listen(&mut first, &virtual_address, Protocol::Http);
    gateway.router.set(Arc::new(first.clone()));
    let seen = gateway.until(|seen| seen.version == 1 && !seen.problems.is_empty()).await;
    assert!(seen.problems[0].contains(&format!("can't listen on `{virtual_address}`")), "{:?}", seen.problems);
    drop(taken);
    first.version = 2;
    gateway.router.set(Arc::new(first));
    gateway.until(|seen| seen.version == 2 && seen.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_routed_by_the_table_that_ends_the_wait() {
    let mut gateway = Gateway::start().await;
    // Nobody is there, and no route asks for a field.
    let mut table = table(1, &[(1, 100, &[std::net::Ipv4Addr::new(127, 9, 9, 9)])]);
    gateway.set(&table).await;
    let http = gateway.http;
    let waiting = [Kind::KeepAlive, Kind::Http2].map(|kind| {
        let request = http::Request::builder().uri("/").header("x-tenant", "a");
        tokio::spawn(async move { Client::new(http, kind).request(request, "".into()).await.unwrap().status })
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let app = App::start().await;
    let mut new = super::gateway::table(2, &[(1, 100, &[app.address])]);
    let route = &mut web(&mut new).routes[0];
    route.rules.headers = [("x-tenant".to_owned(), "a".to_owned())].into();
    table = new;
    gateway.set(&table).await;
    for waiting in waiting {
        assert_eq!(tokio::time::timeout(PATIENCE, waiting).await.expect("it is answered").unwrap(), 200);
    }
}
