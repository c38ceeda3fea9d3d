//! A real server on a unix socket, the real client, the real controller, over adapters held in memory.

mod world;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use basalt_api::{Client, ClientError, Event, Feed, InstanceState, LogFilter, Status, Timestamp};
use basalt_model::Millis;
use basalt_plan::Change;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{desired, name, start};

/// Far longer than anything here takes, and short enough to wait for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a value that is as wanted.
async fn until<T: DeserializeOwned + std::fmt::Debug>(feed: &mut Feed<T>, wanted: impl Fn(&T) -> bool) -> T {
    let mut last = None;
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let value = feed.next().await.expect("the stream goes on").unwrap();
            if wanted(&value) {
                return value;
            }
            last = Some(value);
        }
    });
    match waited.await {
        Ok(value) => value,
        Err(_) => panic!("it did not come; the last was {last:#?}"),
    }
}

fn serves(number: u32) -> impl Fn(&Status) -> bool {
    move |status| status.settled && status.services[0].stable.as_ref().is_some_and(|stable| stable.number == number)
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (u16, String, Option<String>) {
    match result {
        Err(ClientError::Refused { status, error, help }) => (status, error, help),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn from_an_apply_to_a_rollback_and_to_nothing() {
    let server = start().await;
    let client = &server.client;
    let mut statuses = client.status_stream().await.unwrap();
    let first = statuses.next().await.unwrap().unwrap();
    assert_eq!((first.stack, first.services.len(), first.seq), (None, 0, 0));

    let plan = client.plan(&desired("1")).await.unwrap();
    assert_eq!(plan.services[&name("web")].change, Change::Create);
    assert_eq!(client.status().await.unwrap().seq, 0, "a plan writes nothing");
    client.apply(&desired("1"), Some(plan.base)).await.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!(status.stack.as_deref(), Some("shop"), "what was answered can be seen at once");
    let status = until(&mut statuses, serves(1)).await;
    let web = &status.services[0];
    assert_eq!((web.name.as_str(), web.wanted, web.healthy), ("web", 2, 2));
    assert_eq!(web.traffic.iter().map(|t| (t.release, t.weight)).collect::<Vec<_>>(), [(1, 100.0)]);
    let instance = &web.instances[0];
    assert_eq!((instance.id.as_str(), instance.state, instance.healthy), ("web-1-1", InstanceState::Running, true));
    assert_eq!((instance.pid, instance.address.as_deref()), (Some(4242), Some("10.83.0.1")));
    assert_eq!(instance.started_at, Some(Timestamp(Millis(1_785_412_800_000))));
    assert_eq!(status.gateway.http.as_deref(), Some("127.0.0.1:8080"));

    let plan = client.apply(&desired("1"), None).await.unwrap();
    assert!(!plan.has_changes());
    assert_eq!(client.status().await.unwrap().seq, status.seq, "law 6: the second apply does nothing");

    client.apply(&desired("2"), None).await.unwrap();
    until(&mut statuses, serves(2)).await;
    client.rollback("web", None).await.unwrap();
    let status = until(&mut statuses, serves(1)).await;
    let last = status.services[0].last_rollout.as_ref().unwrap();
    assert_eq!((last.outcome.as_str(), last.baseline, last.target), ("done", Some(2), 1));

    client.scale("web", 3).await.unwrap();
    until(&mut statuses, |status| status.settled && status.services[0].instances.len() == 3).await;

    let releases = client.releases(Some("web")).await.unwrap();
    let marks: Vec<_> = releases.iter().map(|r| (r.number, r.stable, r.created_at.is_some(), r.instances)).collect();
    assert_eq!(marks, [(1, true, true, 3), (2, false, true, 0)]);
    assert_eq!(releases[1].release, *desired("2").services[&name("web")].release);
    assert_eq!(client.releases(None).await.unwrap(), releases);

    client.down().await.unwrap();
    until(&mut statuses, |status| status.services.is_empty()).await;
    assert_eq!(client.status().await.unwrap().stack, None);
}

#[tokio::test]
async fn events_are_paged_followed_and_taken_up_again() {
    let server = start().await;
    let client = &server.client;
    let mut feed = client.event_stream(0).await.unwrap();
    client.apply(&desired("1"), None).await.unwrap();
    let finished = until(&mut feed, |event: &Event| event.kind == "rollout_finished").await;
    let all = client.events(0, 1000).await.unwrap();
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=all.len() as u64).collect::<Vec<_>>());
    let first = &all[0];
    assert_eq!((first.kind.as_str(), first.subject.as_str()), ("stack_applied", "shop"));
    assert_eq!(first.data, serde_json::json!({ "stack": "shop" }));
    assert!(first.hash.starts_with("sha256:"));
    assert_eq!(client.events(2, 3).await.unwrap(), all[2..5]);

    let mut again = client.event_stream(finished.seq - 1).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap(), finished);
    client.scale("web", 1).await.unwrap();
    let configured = until(&mut again, |event: &Event| event.kind == "service_configured").await;
    assert_eq!(configured.subject, "web");
}

#[tokio::test]
async fn refusals_say_what_happened_and_how_to_mend_it() {
    let server = start().await;
    let client = &server.client;
    let none = refused(client.down().await);
    assert_eq!(none, (409, "nothing is applied".into(), Some("run `basalt up STACK` first".into())));
    let base = client.apply(&desired("1"), None).await.unwrap().base;
    let (status, error, help) = refused(client.apply(&desired("2"), Some(base)).await);
    assert_eq!(status, 409);
    assert!(error.contains("out of date") && help.is_some(), "{error} {help:?}");
    let other = basalt_plan::Desired { stack: name("blog"), ..desired("1") };
    assert_eq!(refused(client.plan(&other).await).0, 409);
    let unknown = refused(client.pause("wep").await);
    assert_eq!(unknown, (404, "there is no service `wep`".into(), Some("there are: web".into())));
    assert_eq!(refused(client.pause("../web").await).0, 404);
    assert_eq!(refused(client.releases(Some("wep")).await).0, 404);
    assert_eq!(refused(client.rollback("web", Some(99)).await).0, 409);
    let filter = LogFilter { service: Some("../../etc".into()), ..LogFilter::default() };
    assert_eq!(refused(client.logs(&filter).await).0, 400);
    let filter = LogFilter { instance: Some("web".into()), ..LogFilter::default() };
    assert_eq!(refused(client.logs(&filter).await).0, 400);
}

#[tokio::test]
async fn what_is_not_ours_is_refused_in_json() {
    let server = start().await;
    let check = async |request: &str, status: &str, part: &str| {
        let mut stream = tokio::net::UnixStream::connect(server.client.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let error = serde_json::from_str::<serde_json::Value>(body).unwrap()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(part), "{error}");
    };
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    check(&post("/v1/apply", "{"), "400", "EOF").await;
    check(&post("/v1/apply", "{}"), "400", "`desired`").await;
    check(&post("/v1/services/web/scale", r#"{"instances": -1}"#), "400", "-1").await;
    check(&post("/v1/services/web/scale", ""), "400", "`instances`").await;
    check(&post("/v1/services/Web/pause", ""), "404", "`Web`").await;
    check(&post("/v1/services/web/exec", ""), "404", "no such call").await;
    check(&post("/v1/status", ""), "405", "method").await;
    check(&get("/v1/events?after=-1"), "400", "after").await;
    check(&get("/v2/status"), "404", "no such call").await;
}

#[tokio::test]
async fn lines_are_given_and_followed() {
    let server = start().await;
    let filter = LogFilter { service: Some("web".into()), tail: Some(10), ..LogFilter::default() };
    let lines = server.client.logs(&filter).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.line.as_str()).collect::<Vec<_>>(), ["hello"]);
    let mut feed = server.client.log_stream(&filter).await.unwrap();
    assert_eq!(feed.next().await.unwrap().unwrap(), lines[0]);
    let (_, error, _) = refused(feed.next().await.unwrap());
    assert_eq!(error, "the file is gone");
    assert!(feed.next().await.is_none(), "nothing comes after an error");
}

#[tokio::test]
async fn the_server_ends_with_its_streams_and_leaves_nothing() {
    let server = start().await;
    let client = &server.client;
    let socket = client.socket();
    let mode = std::fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let health = client.health().await.unwrap();
    assert_eq!((health.healthy, health.server.version.as_str()), (true, "1.2.3"));
    assert!(client.openapi().await.unwrap()["paths"]["/v1/status"].is_object());

    let mut statuses = client.status_stream().await.unwrap();
    let mut events = client.event_stream(0).await.unwrap();
    client.shutdown().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(4), async {
        while statuses.next().await.is_some() {}
        events.next().await
    });
    assert!(ended.await.expect("the streams end at once").is_none());
    server.task.await.unwrap().unwrap();
    assert_eq!(std::fs::read_dir(server.folder.path()).unwrap().count(), 0);
    let gone = client.status().await.unwrap_err();
    assert!(gone.is_unreachable() && gone.help().is_some(), "{gone:?}");
}

#[tokio::test]
async fn a_socket_is_taken_over_from_the_dead_and_not_from_the_living() {
    let server = start().await;
    let stale = server.folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let dead = Client::new(&stale).status().await.unwrap_err();
    assert!(matches!(dead, ClientError::Unreachable { .. }), "{dead:?}");
    let taken = world::serve_at(&stale).await;
    Client::new(&stale).status().await.unwrap();
    taken.abort();

    let refused = world::serve_at(server.client.socket()).await.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    server.client.status().await.unwrap();
}
