//! TLS from outside.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{CertificateSource, ClientCertificates, Millis, Route, RouteTable, Rules, Tls};
use basalt_seam::RouterSeen;
use hyper::Request;

use super::acme_server::{AcmeServer, Proof};
use super::app::App;
use super::client::{Client, Kind};
use super::gateway::{Gateway, name, table, web};
use super::secure::{Authority, Wants};
use crate::plane::Plane;
use crate::tls::Certificates;
use crate::{AcmeOptions, GatewayOptions};

/// Returns a port that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn with_hosts(address: Ipv4Addr, hosts: Vec<(&str, Tls)>) -> RouteTable {
    let mut table = table(1, &[(1, 100, &[address])]);
    let routes = hosts.into_iter().map(|(host, tls)| {
        let rules = Rules { tls: Some(tls), ..Rules::default() };
        Route { rules, ..Route::new(Some(host), "/", name("http")) }
    });
    web(&mut table).routes = routes.collect();
    table
}

fn files((certificate, key): (String, String)) -> Tls {
    let certificate = CertificateSource::Files { certificate, key };
    Tls { certificate, redirect: true, hsts: Some(Millis::seconds(86_400)), clients: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_says_whose_a_connection_is() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let app = App::start().await;
    let options = |proxies: &str| GatewayOptions {
        trusted: vec![proxies.parse().unwrap()],
        proxy_protocol: true,
        ..GatewayOptions::new(folder.path().join("data"), free())
    };
    for (proxies, header, expected) in [
        ("127.0.0.1", "PROXY TCP4 192.0.2.7 10.0.0.1 4000 80\r\n", Some("192.0.2.7")),
        ("127.0.0.1", "PROXY UNKNOWN\r\n", Some("127.0.0.1")),
        ("127.0.0.1", "", None),
        // Whom nobody trusts is a client, and its header no request.
        ("10.0.0.0/8", "", Some("127.0.0.1")),
        ("10.0.0.0/8", "PROXY TCP4 192.0.2.7 10.0.0.1 4000 80\r\n", None),
    ] {
        let mut gateway = Gateway::start_with(options(proxies)).await;
        gateway.set(&table(1, &[(1, 100, &[app.address])])).await;
        gateway.until_healthy().await;
        let mut stream = tokio::net::TcpStream::connect(gateway.http).await.unwrap();
        let request = format!(
            "{header}GET /headers HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut got = String::new();
        // A connection that is refused may be reset.
        let _ = stream.read_to_string(&mut got).await;
        match expected {
            Some("127.0.0.1") if proxies == "127.0.0.1" => assert!(got.contains("1.1.1.1, 127.0.0.1"), "{got}"),
            Some(client) => assert!(got.contains(&format!("\"x-forwarded-for\": \"{client}\"")), "{got}"),
            None => assert!(!got.contains("200 OK"), "{header}: {got}"),
        }
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_host_has_its_certificate_and_protocols_are_agreed_on() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, https, app) = (Authority::new(), free(), App::start().await);
    let write = |name: &str, host: &str| files(authority.write(folder.path(), name, &[host]));
    let hosts = vec![("a.example", write("a", "a.example")), ("*.b.example", write("b", "*.b.example"))];
    let options = GatewayOptions { https: Some(https), ..GatewayOptions::new(folder.path().join("data"), free()) };
    let mut gateway = Gateway::start_with(options).await;
    gateway.set(&with_hosts(app.address, hosts)).await;
    gateway.until_healthy().await;
    let ask = async |wants: Wants<'_>| wants.from(https, authority.roots()).await;
    for (host, http2, version) in [
        ("a.example", false, &rustls::version::TLS13),
        ("a.example", true, &rustls::version::TLS12),
        ("x.b.example", true, &rustls::version::TLS13),
    ] {
        let (got, _) = ask(Wants { http2, version, ..Wants::get(host, "/headers") }).await.unwrap();
        assert_eq!(got.status, 200);
        assert!(got.body.contains(r#""x-forwarded-proto": "https""#), "{}", got.body);
        assert_eq!(got.headers["strict-transport-security"], "max-age=86400");
    }
    // Nobody has a certificate for these.
    for host in ["b.example", "c.example"] {
        assert!(ask(Wants::get(host, "/")).await.is_err(), "{host}");
    }
    // Without TLS a client is sent there.
    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    let got = client.request(Request::builder().uri("/x?y").header("host", "a.example:80"), "".into()).await.unwrap();
    let location = format!("https://a.example:{}/x?y", https.port());
    assert_eq!((got.status, got.headers["location"].to_str().unwrap()), (308, location.as_str()));
    assert_eq!(got.headers.get("strict-transport-security"), None);

    // Files that change are read again, and what can't be read changes nothing.
    let (_, before) = ask(Wants::get("a.example", "/")).await.unwrap();
    std::fs::write(folder.path().join("a.pem"), "nothing").unwrap();
    gateway.until(|seen| seen.problems.iter().any(|problem| problem.contains("no TLS for `a.example`"))).await;
    assert_eq!(ask(Wants::get("a.example", "/")).await.unwrap().1, before);
    authority.write(folder.path(), "a", &["a.example"]);
    gateway.until(|seen| seen.problems.is_empty()).await;
    let (_, after) = ask(Wants::get("a.example", "/")).await.unwrap();
    assert_ne!(after, before);
    // Nor do files that are elsewhere from now on, and not there.
    let nowhere = ["crt", "key"].map(|name| folder.path().join("nowhere").join(name).display().to_string());
    let mut moved = with_hosts(app.address, vec![("a.example", files(nowhere.into()))]);
    moved.version = 2;
    gateway.set(&moved).await;
    gateway.until(|seen| seen.problems.iter().any(|problem| problem.contains("no TLS for `a.example`"))).await;
    assert_eq!(ask(Wants::get("a.example", "/")).await.unwrap().1, after);
    // A pipe that says nothing holds up no table.
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let pipe = pipe.display().to_string();
    let mut piped = with_hosts(app.address, vec![("a.example", files((pipe.clone(), pipe)))]);
    piped.version = 3;
    gateway.set(&piped).await;
    gateway.until(|seen| seen.problems.iter().any(|problem| problem.contains("is no file"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, people, https, app) = (Authority::new(), Authority::new(), free(), App::start().await);
    let path = folder.path().join("people.pem");
    std::fs::write(&path, people.0.pem()).unwrap();
    let clients = |required| Some(ClientCertificates { authorities: path.display().to_string(), required });
    let write = |name: &str, required| {
        let tls = files(authority.write(folder.path(), name, &[&format!("{name}.example")]));
        Tls { clients: clients(required), ..tls }
    };
    let open = files(authority.write(folder.path(), "open", &["open.example"]));
    let hosts =
        vec![("must.example", write("must", true)), ("may.example", write("may", false)), ("open.example", open)];
    let options = GatewayOptions { https: Some(https), ..GatewayOptions::new(folder.path().join("data"), free()) };
    let mut gateway = Gateway::start_with(options).await;
    gateway.set(&with_hosts(app.address, hosts.clone())).await;
    gateway.until_healthy().await;
    let ask = async |wants: Wants<'_>| wants.from(https, authority.roots()).await;
    let known = Some(people.issue(&["ann"]));
    for host in ["must.example", "may.example"] {
        let (got, _) = ask(Wants { certificate: known.clone(), ..Wants::get(host, "/headers") }).await.unwrap();
        assert!(got.body.contains(r#""client-cert": ":MII"#), "{}", got.body);
        let stranger = Some(authority.issue(&["eve"]));
        assert!(ask(Wants { certificate: stranger, ..Wants::get(host, "/") }).await.is_err());
    }
    assert!(ask(Wants::get("must.example", "/")).await.is_err());
    let (got, _) = ask(Wants::get("may.example", "/headers")).await.unwrap();
    assert!(got.status == 200 && !got.body.contains("client-cert"), "{}", got.body);
    // Nor does the client of one authority get where another's are wanted, on the same host.
    let others = Authority::new();
    let others_path = folder.path().join("others.pem");
    std::fs::write(&others_path, others.0.pem()).unwrap();
    let admin = |tls: &Tls, authorities: &Path| {
        let clients = ClientCertificates { authorities: authorities.display().to_string(), required: true };
        let rules = Rules { tls: Some(Tls { clients: Some(clients), ..tls.clone() }), ..Rules::default() };
        Route { rules, ..Route::new(Some("both.example"), "/admin", name("http")) }
    };
    let both = files(authority.write(folder.path(), "both", &["both.example"]));
    for (version, first, second) in [(2, clients(false), &others_path), (3, None, &path)] {
        let mut table = with_hosts(app.address, vec![("both.example", Tls { clients: first, ..both.clone() })]);
        web(&mut table).routes.push(admin(&both, second));
        table.version = version;
        gateway.set(&table).await;
        for (client, path, status) in [
            (&known, "/", 200),
            (&known, "/admin", if version == 2 { 403 } else { 200 }),
            (&None, "/admin", 403),
            (&None, "/", 200),
        ] {
            let got = ask(Wants { certificate: client.clone(), ..Wants::get("both.example", path) }).await.unwrap().0;
            assert_eq!(got.status, status, "{version} {path}");
        }
        let contested =
            |seen: &RouterSeen| seen.problems.iter().any(|problem| problem.contains("routes of `both.example`"));
        gateway.until(|seen| contested(seen) == (version == 2)).await;
    }
    // Both problems of a host are told.
    let nowhere = Tls { clients: clients(false), ..files(("/nowhere.pem".to_owned(), "/nowhere.key".to_owned())) };
    let mut table = with_hosts(app.address, vec![("both.example", nowhere)]);
    web(&mut table).routes.push(admin(&both, &others_path));
    table.version = 4;
    gateway.set(&table).await;
    let is_both = |problem: &String| ["routes of", "no TLS for"].iter().all(|part| problem.contains(part));
    gateway.until(|seen| seen.problems.iter().any(is_both)).await;
    gateway.set(&RouteTable { version: 5, ..with_hosts(app.address, hosts) }).await;
    // A handshake for one host opens no other.
    let wants = Wants { server_name: Some("open.example"), ..Wants::get("must.example", "/") };
    assert_eq!(ask(wants).await.unwrap().0.status, 421);
    // What it has shown to one host is not told to another.
    let wants = Wants {
        server_name: Some("may.example"),
        certificate: known.clone(),
        ..Wants::get("open.example", "/headers")
    };
    let (got, _) = ask(wants).await.unwrap();
    assert!(got.status == 200 && !got.body.contains("client-cert"), "{}", got.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_late_takes_no_certificate_away() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let host = |name: &'static str| (name, files(authority.write(folder.path(), name, &[name])));
    let (old, new) = (vec![host("a.example")], vec![host("a.example"), host("b.example")]);
    let table = |version, hosts| Arc::new(RouteTable { version, ..with_hosts([127, 0, 0, 1].into(), hosts) });
    let (plane, certificates) =
        (Plane::new(tokio::runtime::Handle::current()), Arc::new(Certificates::in_data(folder.path())));
    plane.set_any(table(1, old));
    let new = table(2, new);
    let prepared = certificates.prepare(&new);
    let late = std::thread::spawn({
        let (plane, certificates) = (plane.clone(), certificates.clone());
        move || certificates.load(&plane)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    plane.set_any(new);
    drop(prepared);
    assert_eq!(late.join().unwrap(), Default::default());
    assert_eq!(certificates.times().into_keys().collect::<Vec<_>>(), ["a.example", "b.example"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_issues_and_renews() {
    let (http, https) = (free(), free());
    issues_and_renews(http, https, Proof::Http(http)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_may_look_over_tls() {
    let (http, https) = (free(), free());
    issues_and_renews(http, https, Proof::Tls(https)).await;
}

async fn issues_and_renews(http: SocketAddr, https: SocketAddr, proof: Proof) {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start().await;
    let server = AcmeServer::start(proof).await;
    let root = folder.path().join("root.pem");
    std::fs::write(&root, server.authority.0.pem()).unwrap();
    let acme =
        AcmeOptions { directory: server.directory(), contact: Some("mailto:ops@example.com".into()), root: Some(root) };
    let options = GatewayOptions { https: Some(https), acme, ..GatewayOptions::new(folder.path().join("data"), http) };
    let mut gateway = Gateway::start_with(options).await;
    let tls = Tls { certificate: CertificateSource::Acme, redirect: true, hsts: None, clients: None };
    gateway.set(&with_hosts(app.address, vec![("a.example", tls)])).await;
    gateway.until_healthy().await;
    // The first certificate is past two thirds of its life, so that a second follows; that one lasts.
    let mut shown = std::collections::HashSet::new();
    for _ in 0..200 {
        if let Ok((got, certificate)) = Wants::get("a.example", "/").from(https, server.authority.roots()).await {
            assert_eq!(got.status, 200);
            shown.insert(certificate);
        }
        if server.issued() == 2 && shown.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!((server.issued(), shown.len(), server.problems()), (2, 2, vec![]), "{:#?}", gateway.problems());
    // Challenges are gone, and keys are for their owner alone.
    let got = Client::new(gateway.http, Kind::Close).get("/.well-known/acme-challenge/token-1").await.unwrap();
    assert_eq!(got.status, 404);
    use std::os::unix::fs::PermissionsExt;
    for file in std::fs::read_dir(folder.path().join("data/gateway/acme")).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
