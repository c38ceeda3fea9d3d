//! What is written down of a request once it has ended: counts always, a line and a span if they are asked for.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use basalt_model::ReleaseNumber;
use http::Version;
use pingora_proxy::Session;

use crate::access_log::Line;
use crate::plane::Plane;
use crate::proxy::{Aim, RequestContext};
use crate::ready::ReadyRoute;
use crate::stats::Stats;
use crate::trace::Span;

/// What has become of a request that was passed on by the short path.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Who answered; 0 is the gateway itself.
    pub(crate) release: ReleaseNumber,
    /// 0 is no answer.
    pub(crate) status: u16,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    pub(crate) retries: u32,
}

/// Counts a request that was passed on by the short path.
pub(crate) fn passed(route: &ReadyRoute, seen: &Seen, took: Duration, received: u64) {
    count(route, seen.release, |stats| {
        stats.count(seen.status, took, received, seen.sent);
        stats.retries.fetch_add(u64::from(seen.retries), Relaxed);
    });
}

/// Counts something; a release that has left the table meanwhile is counted with none.
fn count(route: &ReadyRoute, release: ReleaseNumber, with: impl FnOnce(&Stats)) {
    if let Some(stats) = route.stats(release).or_else(|| route.stats(0)) {
        with(stats);
    }
}

/// Writes down what has become of a request.
pub(crate) fn ended(plane: &Plane, session: &Session, ctx: &RequestContext) {
    let Some(begun) = ctx.begun else { return };
    let took = begun.elapsed();
    let status = session.response_written().map_or(0, |header| header.status.as_u16());
    let received = session.as_ref().body_bytes_read() as u64;
    let sent = session.as_ref().body_bytes_sent() as u64;
    if let Some(route) = &ctx.route {
        let release = ctx.last.as_ref().map_or(0, |instance| instance.id.release());
        count(route, release, |stats| {
            stats.count(status, took, received, sent);
            stats.retries.fetch_add(u64::from(ctx.retries), Relaxed);
        });
    }
    if !plane.edge.watches() {
        return;
    }
    let asked = Aim::of(session).asked;
    let instance = ctx.last.as_ref().map(|instance| instance.id.to_string());
    if let Some((spans, context)) = plane.edge.spans.get().zip(ctx.trace) {
        spans.say(Span {
            context,
            method: asked.method.to_string(),
            route: ctx.route.as_ref().map_or_else(String::new, |route| route.label.clone()),
            path: asked.path.to_owned(),
            status,
            instance: instance.clone(),
            retries: ctx.retries,
            took,
        });
    }
    let Some(log) = plane.edge.log.get() else { return };
    let text = |name: &str| asked.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    log.say(Line {
        client: ctx.client,
        method: asked.method.to_string(),
        host: asked.host.to_owned(),
        target: asked.query.map_or_else(|| asked.path.to_owned(), |query| format!("{}?{query}", asked.path)),
        protocol: match session.req_header().version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        },
        status,
        received,
        sent,
        seconds: took.as_secs_f64(),
        retries: ctx.retries,
        service: ctx.route.as_ref().map(|route| route.service.to_string()),
        route: ctx.route.as_ref().map(|route| route.label.clone()),
        instance,
        referrer: text("referer"),
        user_agent: text("user-agent"),
        trace: ctx.trace.map(|trace| trace.id()),
    });
}
