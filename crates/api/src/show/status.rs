//! The status as a whole.

use basalt_controller::View;

use super::job::job_status;
use super::service::service_status;
use crate::{GatewayStatus, KeeperStatus, ServerInfo, Status, Timestamp};

/// The only environment so far.
const ENVIRONMENT: &str = "default";

/// Returns the status of one moment.
pub fn status(view: &View, info: &ServerInfo) -> Status {
    let server = server(view, info);
    Status {
        stack: view.state.stack.as_ref().map(ToString::to_string),
        environment: ENVIRONMENT.to_owned(),
        at: Timestamp(view.at),
        seq: view.seq,
        settled: view.settled(),
        services: view.state.services.iter().map(|(name, service)| service_status(view, name, service)).collect(),
        jobs: view.state.jobs.iter().map(|(name, job)| job_status(view, name, job)).collect(),
        gateway: GatewayStatus {
            http: server.http,
            routes_version: view.routes_version,
            routes_in_force: view.routes_in_force,
            connected: view.router.connected,
        },
        keeper: KeeperStatus { connected: view.backend_connected },
        problems: view.problems.clone(),
        notes: server.notes,
    }
}

/// Returns what a controller says of itself. A gateway may take requests elsewhere than when the controller started.
pub fn server(view: &View, info: &ServerInfo) -> ServerInfo {
    let told = view.router.http.clone().filter(|_| view.router.connected);
    ServerInfo { http: told.or_else(|| info.http.clone()), ..info.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::show::sample;
    use serde_json::{Value, json};

    fn shown() -> Value {
        let notes = vec!["no fs-verity: images are verified by hashing".to_owned()];
        let info = ServerInfo { version: "0.1.0".into(), data: "/data".into(), http: None, notes };
        serde_json::to_value(status(&sample::view(), &info)).unwrap()
    }

    #[test]
    fn the_whole() {
        let mut shown = shown();
        let services = shown["services"].take();
        let jobs = shown["jobs"].take();
        assert_eq!((services.as_array().unwrap().len(), jobs.as_array().unwrap().len()), (1, 1));
        let expected = json!({
            "stack": "shop",
            "environment": "default",
            "at": "2026-07-30T12:00:00.000Z",
            "seq": 42,
            "settled": false,
            "services": null,
            "jobs": null,
            "gateway": { "http": "127.0.0.1:8080", "routes_version": 12, "routes_in_force": true, "connected": true },
            "keeper": { "connected": true },
            "problems": ["port 443 is taken"],
            "notes": ["no fs-verity: images are verified by hashing"],
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_service_in_a_canary() {
        let mut web = shown()["services"][0].take();
        let id = sample::release().id().to_string();
        assert_eq!(web["instances"].take().as_array().map(Vec::len), Some(6));
        let expected = json!({
            "name": "web",
            "stable": { "number": 7, "id": id },
            "rollout": {
                "id": "web-7",
                "strategy": "canary",
                "phase": "shifting",
                "target": 8,
                "baseline": 7,
                "waiting": ["it is watched; goes on in 1m 30s"],
                "progress": {
                    "instances": 3,
                    "healthy": 0,
                    "wanted": 2,
                    "weight": 5.0,
                    "step": { "number": 1, "of": 2, "approval": false },
                },
                "paused": false,
                "reason": null,
                "because": null,
                "started_at": "2026-07-30T11:59:00.000Z",
                "phase_at": "2026-07-30T11:59:30.000Z",
                "deadline_at": "2026-07-30T12:09:05.000Z",
            },
            "last_rollout": {
                "id": "web-6",
                "baseline": 6,
                "target": 7,
                "outcome": "rolled_back",
                "reason": "instance web-7-1 exited with status 1",
                "at": "2026-07-30T11:50:00.000Z",
            },
            "warm": null,
            "wanted": 2,
            "healthy": 1,
            "traffic": [{ "release": 7, "weight": 95.0 }, { "release": 8, "weight": 5.0 }],
            "routes": [{ "host": "shop.example.com", "path": "/", "port": "http" }],
            "instances": null,
            "waiting": ["it is watched; goes on in 1m 30s"],
            "removing": false,
            "called_by": null,
        });
        assert_eq!(web, expected);
    }

    #[test]
    fn instances() {
        let instances = shown()["services"][0]["instances"].take();
        let row = |i: usize| {
            let instance = &instances[i];
            ["id", "state", "healthy", "address", "exits"].map(|key| instance[key].clone())
        };
        let check = |i: usize, expected: Value| assert_eq!(Value::from(row(i).to_vec()), expected);
        // Seen and not recorded: it is about to be stopped, and its release is no longer known.
        check(0, json!(["web-6-1", "stopping", false, "10.83.0.6", 0]));
        check(1, json!(["web-7-1", "running", true, "10.83.0.2:8080", 0]));
        check(2, json!(["web-7-2", "draining", false, "10.83.0.3:8080", 0]));
        check(3, json!(["web-8-1", "running", false, "10.83.0.4:8080", 0]));
        check(4, json!(["web-8-2", "waiting", false, null, 3]));
        // Seen of an earlier start only.
        check(5, json!(["web-8-3", "starting", false, null, 0]));
        let expected = json!({
            "id": "web-7-2",
            "release": 7,
            "state": "draining",
            "healthy": false,
            "pid": 4003,
            "address": "10.83.0.3:8080",
            "started_at": "2026-07-30T11:59:10.000Z",
            "exits": 0,
            "last_exit": null,
            "last_probe": "GET / → 503",
            "retry_at": null,
            "in_flight": 3,
            "requests": 1000,
            "errors": 7,
        });
        assert_eq!(instances[2], expected);
        assert_eq!(instances[4]["retry_at"], "2026-07-30T12:00:04.000Z");
        assert_eq!(
            instances[4]["last_exit"],
            json!({
                "kind": "out_of_memory",
                "code": null,
                "signal": null,
                "text": "out of memory: it used more than `limits.memory`",
            })
        );
    }

    #[test]
    fn a_job_that_failed() {
        let job = shown()["jobs"][0].take();
        assert_eq!(job["state"], "failed");
        assert_eq!(job["last_exit"]["code"], 3);
        assert_eq!(job["ended_at"], "2026-07-30T11:58:30.000Z");
        assert_eq!((&job["failures"], &job["retries"], &job["instance"]), (&json!(2), &json!(1), &Value::Null));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let status = status(&sample::view(), &ServerInfo::default());
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }

    #[test]
    fn the_address_is_where_requests_are_taken_now() {
        let mut view = sample::view();
        let info = ServerInfo { http: Some("127.0.0.1:1".into()), ..ServerInfo::default() };
        let router = Arc::make_mut(&mut view.router);
        (router.http, router.connected) = (Some("127.0.0.1:2".into()), true);
        assert_eq!(server(&view, &info).http.as_deref(), Some("127.0.0.1:2"));
        Arc::make_mut(&mut view.router).connected = false;
        assert_eq!(server(&view, &info).http.as_deref(), Some("127.0.0.1:1"));
    }

    #[test]
    fn before_the_first_apply() {
        let info = ServerInfo { http: Some("127.0.0.1:8080".into()), ..ServerInfo::default() };
        let status = status(&View::default(), &info);
        assert_eq!(status.stack, None);
        assert!(status.services.is_empty() && status.jobs.is_empty());
        assert_eq!(status.gateway.http.as_deref(), Some("127.0.0.1:8080"));
    }
}
