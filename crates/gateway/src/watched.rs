//! What is written down of a request once it has ended: counts always, a line and a span if they are asked for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::access_log::Line;
use crate::held::Held;
use crate::instance::Instance;
use crate::plane::Plane;
use crate::ready::{Asked, ReadyRoute};
use crate::trace::{Span, TraceContext};

/// What has become of a request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// The instance that it was sent to last.
    pub(crate) instance: Option<Arc<Instance>>,
    /// 0 is no answer.
    pub(crate) status: u16,
    /// Bytes of its body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    pub(crate) retries: u32,
    /// How often it was sent to a second instance while the first was silent.
    pub(crate) hedges: u32,
    pub(crate) held: Held,
}

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Ended<'r> {
    pub(crate) asked: Asked<'r>,
    pub(crate) protocol: &'static str,
    pub(crate) client: Option<IpAddr>,
    pub(crate) route: Option<&'r Arc<ReadyRoute>>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) referrer: Option<&'r str>,
    pub(crate) user_agent: Option<&'r str>,
    pub(crate) took: Duration,
    pub(crate) seen: Seen,
}

impl Ended<'_> {
    /// Writes it down.
    pub(crate) fn write_down(self, plane: &Plane) {
        if let Some(route) = self.route {
            self.count(route);
        }
        if let Some((spans, context)) = plane.edge.spans.get().zip(self.trace) {
            spans.say(Span {
                context,
                method: self.asked.method.clone(),
                route: self.route.cloned(),
                path: self.asked.path.to_owned(),
                status: self.seen.status,
                instance: self.seen.instance.clone(),
                retries: self.seen.retries,
                took: self.took,
            });
        }
        if let Some(log) = plane.edge.log.get() {
            log.say(self.line());
        }
    }

    /// Counts it; a release that has left the table meanwhile is counted with none.
    fn count(&self, route: &ReadyRoute) {
        let seen = &self.seen;
        let release = seen.instance.as_ref().map_or(0, |instance| instance.id.release());
        let Some(stats) = route.stats(release).or_else(|| route.stats(0)) else { return };
        stats.count(seen.status, self.took, seen.received, seen.sent);
        // Most requests have neither, and what is not written costs nothing.
        if seen.retries > 0 {
            stats.retries.fetch_add(seen.retries.into(), Relaxed);
        }
        if seen.hedges > 0 {
            stats.hedges.fetch_add(seen.hedges.into(), Relaxed);
        }
    }

    fn line(self) -> Line {
        let asked = self.asked;
        Line {
            client: self.client,
            method: asked.method.clone(),
            host: asked.host.to_owned(),
            target: asked.query.map_or_else(|| asked.path.to_owned(), |query| format!("{}?{query}", asked.path)),
            protocol: self.protocol,
            status: self.seen.status,
            received: self.seen.received,
            sent: self.seen.sent,
            took: self.took,
            retries: self.seen.retries,
            hedges: self.seen.hedges,
            route: self.route.cloned(),
            instance: self.seen.instance,
            referrer: self.referrer.map(str::to_owned),
            user_agent: self.user_agent.map(str::to_owned),
            trace: self.trace,
        }
    }
}
