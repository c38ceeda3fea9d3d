//! One method for each call.

use std::path::{Path, PathBuf};

use basalt_model::Digest;
use basalt_plan::{Desired, Plan};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::feed::Feed;
use super::transport::{read, send, unreadable};
use crate::{Apply, ClientError, Event, Health, LogFilter, LogLine, ReleaseView, Rollback, Scale, Status};

/// Asks a controller through its unix socket. Each call is a connection of its own, so that a restarted controller is
/// found again by the next one.
///
/// Every method fails with [`ClientError::Unreachable`] if nobody answers, [`ClientError::Refused`] if the controller
/// says no, and [`ClientError::Broken`] if it is lost meanwhile.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Stands for a request without a body.
const NOTHING: Option<&()> = None;

impl Client {
    /// Returns a client of the controller at `socket` (`DATA/run/controller.sock`). Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Returns the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns who answers, and whether it can work.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get("/v1/health").await
    }

    /// Returns what is recorded and seen now.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Returns the status now and at every change, at most ten times a second.
    pub async fn status_stream(&self) -> Result<Feed<Status>, ClientError> {
        self.follow("/v1/status/stream", None).await
    }

    /// Compares a desired stack with what is recorded.
    pub async fn plan(&self, desired: &Desired) -> Result<Plan, ClientError> {
        self.post("/v1/plan", Some(desired)).await
    }

    /// Makes a desired stack the recorded one; with `base`, only if what is recorded still has that digest.
    pub async fn apply(&self, desired: &Desired, base: Option<Digest>) -> Result<Plan, ClientError> {
        self.post("/v1/apply", Some(&Apply { desired: desired.clone(), base })).await
    }

    /// Removes all services and jobs.
    pub async fn down(&self) -> Result<Plan, ClientError> {
        self.post("/v1/down", NOTHING).await
    }

    /// Stops a rollout where it stands.
    pub async fn pause(&self, service: &str) -> Result<(), ClientError> {
        self.command(service, "pause", NOTHING).await
    }

    /// Lets a paused rollout go on.
    pub async fn resume(&self, service: &str) -> Result<(), ClientError> {
        self.command(service, "resume", NOTHING).await
    }

    /// Takes a rollout to its next step now.
    pub async fn promote(&self, service: &str) -> Result<(), ClientError> {
        self.command(service, "promote", NOTHING).await
    }

    /// Gives a rollout up.
    pub async fn abort(&self, service: &str) -> Result<(), ClientError> {
        self.command(service, "abort", NOTHING).await
    }

    /// Goes back to an earlier release; without `to`, to the one that served before.
    pub async fn rollback(&self, service: &str, to: Option<u32>) -> Result<(), ClientError> {
        self.command(service, "rollback", Some(&Rollback { to })).await
    }

    /// Sets how many instances are wanted.
    pub async fn scale(&self, service: &str, instances: u32) -> Result<(), ClientError> {
        self.command(service, "scale", Some(&Scale { instances })).await
    }

    /// Returns the kept releases of one service or of all, by service and number.
    pub async fn releases(&self, service: Option<&str>) -> Result<Vec<ReleaseView>, ClientError> {
        #[derive(Serialize)]
        struct Query<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            service: Option<&'a str>,
        }
        self.get(&with_query("/v1/releases", &Query { service })?).await
    }

    /// Returns at most `limit` events with a number above `after`; the controller gives at most 10,000 at once.
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<Event>, ClientError> {
        self.get(&format!("/v1/events?after={after}&limit={limit}")).await
    }

    /// Returns the events with a number above `after`, and then those that come.
    pub async fn event_stream(&self, after: u64) -> Result<Feed<Event>, ClientError> {
        self.follow("/v1/events/stream", Some(after)).await
    }

    /// Returns the lines that instances have written, by time.
    pub async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogLine>, ClientError> {
        self.get(&with_query("/v1/logs", filter)?).await
    }

    /// Returns the lines that instances have written, and then those that come.
    pub async fn log_stream(&self, filter: &LogFilter) -> Result<Feed<LogLine>, ClientError> {
        #[derive(Serialize)]
        struct Query<'a> {
            #[serde(flatten)]
            filter: &'a LogFilter,
            follow: bool,
        }
        self.follow(&with_query("/v1/logs", &Query { filter, follow: true })?, None).await
    }

    /// Ends the controller's process. Instances go on.
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        self.post("/v1/shutdown", NOTHING).await
    }

    /// Returns the description of the whole API (OpenAPI 3.1).
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.get("/v1/openapi.json").await
    }

    async fn command<B: Serialize>(&self, service: &str, verb: &str, body: Option<&B>) -> Result<(), ClientError> {
        let service: basalt_model::Name = service.parse().map_err(|error: basalt_model::InvalidName| {
            // What is not a name is surely not the name of a service; it must not get into a path either.
            ClientError::Refused { status: 404, error: error.to_string(), help: None }
        })?;
        self.post(&format!("/v1/services/{service}/{verb}"), body).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        read(send(&self.socket, Method::GET, path, NOTHING, None).await?).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: Option<&B>) -> Result<T, ClientError> {
        read(send(&self.socket, Method::POST, path, body, None).await?).await
    }

    async fn follow<T: DeserializeOwned>(&self, path: &str, last_seq: Option<u64>) -> Result<Feed<T>, ClientError> {
        Ok(Feed::new(send(&self.socket, Method::GET, path, NOTHING, last_seq).await?.into_body()))
    }
}

fn with_query(path: &str, query: &impl Serialize) -> Result<String, ClientError> {
    let query = serde_urlencoded::to_string(query).map_err(unreadable)?;
    Ok(if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") })
}
