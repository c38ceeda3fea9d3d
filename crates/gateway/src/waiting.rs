//! Begins a request, and waits for a healthy instance while there is none.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::choice::Attempts;
use crate::plane::{Begun, Plane};
use crate::routing::{Destination, Routing};
use crate::service::Service;

/// How long a request waits for a healthy instance in all: longer than an instance that died takes to be replaced, and
/// shorter than clients and the proxies before us commonly wait for an answer (30 s).
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why a request can't begin.
#[derive(Debug)]
pub(crate) enum Stranded {
    /// No route leads anywhere.
    NoRoute,
    /// The service has had no healthy instance for too long, or too many requests wait for one already.
    NoInstance(Arc<Service>),
}

/// Begins a request at once if the service has a healthy instance, else as soon as it has one.
///
/// `until` is when the request gives up; it is set at its first wait, so that retries share one patience.
///
/// # Errors
/// If there is no route, or no healthy instance in time.
pub(crate) async fn begin(
    plane: &Plane,
    find: impl Fn(&Routing) -> Option<Destination> + Send + Sync,
    attempts: &mut Attempts,
    until: &mut Option<Instant>,
) -> Result<Begun, Stranded> {
    let mut service = match plane.begin(&find, attempts) {
        Ok(begun) => return Ok(begun),
        Err(None) => return Err(Stranded::NoRoute),
        Err(Some(service)) => service,
    };
    let until = *until.get_or_insert_with(|| Instant::now() + LONGEST_WAIT);
    loop {
        let queued = service.clone();
        let Some(_place) = queued.queue() else { return Err(Stranded::NoInstance(queued)) };
        loop {
            // Listening before looking: what changes in between is not missed.
            let mut better = pin!(queued.better.notified());
            better.as_mut().enable();
            // Whoever has failed and is healthy now has proven itself anew.
            attempts.failed.retain(|failed| !failed.is_healthy());
            match plane.begin(&find, attempts) {
                Ok(begun) => return Ok(begun),
                Err(None) => return Err(Stranded::NoRoute),
                Err(Some(now)) if !Arc::ptr_eq(&now, &queued) => {
                    service = now;
                    break;
                }
                Err(Some(_)) => {}
            }
            if timeout_at(until, better).await.is_err() {
                return Err(Stranded::NoInstance(queued.clone()));
            }
        }
    }
}
