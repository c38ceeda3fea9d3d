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

#[cfg(test)]
mod tests {
    use basalt_model::{Port, Protocol, ReleaseRoutes, Route, RouteTable, ServiceRoutes};
    use tokio::runtime::Handle;

    use super::*;

    fn table(version: u64, path: &str) -> Arc<RouteTable> {
        let port: basalt_model::Name = "http".parse().unwrap();
        let ports = [(port.clone(), Port::new(80, Protocol::Http))].into();
        let release = ReleaseRoutes {
            weight: basalt_model::Weight::ALL,
            ports,
            health: Default::default(),
            drain: Default::default(),
            instances: Default::default(),
        };
        let routes = vec![Route::new(None, path, port)];
        let web =
            ServiceRoutes { routes, listeners: vec![], traffic: Default::default(), releases: [(1, release)].into() };
        Arc::new(RouteTable { version, services: [("web".parse().unwrap(), Arc::new(web))].into() })
    }

    async fn wait(plane: Arc<Plane>) -> Result<Begun, Stranded> {
        let asked = crate::ready::Asked::bare("", "/a", &http::Method::GET);
        begin(&plane, |routing| routing.find(&asked), &mut Attempts::default(), &mut None).await
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let plane = Plane::new(Handle::current());
        plane.set_any(table(1, "/"));
        let start = Instant::now();
        assert!(matches!(wait(plane).await, Err(Stranded::NoInstance(_))));
        let waited = start.elapsed();
        assert!((LONGEST_WAIT..LONGEST_WAIT + Duration::from_millis(10)).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_table_ends_the_wait_for_what_it_does_not_have() {
        let plane = Plane::new(Handle::current());
        assert!(matches!(wait(plane.clone()).await, Err(Stranded::NoRoute)));
        plane.set_any(table(1, "/"));
        let waiting = tokio::spawn(wait(plane.clone()));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        let start = Instant::now();
        plane.set_any(table(2, "/b"));
        assert!(matches!(waiting.await.unwrap(), Err(Stranded::NoRoute)));
        assert!(start.elapsed() < Duration::from_secs(1), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_thousand_do_not_wait() {
        let plane = Plane::new(Handle::current());
        plane.set_any(table(1, "/"));
        let waiting: Vec<_> = (0..1000).map(|_| tokio::spawn(wait(plane.clone()))).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        assert!(matches!(wait(plane).await, Err(Stranded::NoInstance(_))));
        assert_eq!(start.elapsed(), Duration::ZERO);
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
