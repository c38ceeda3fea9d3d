//! What is decided of a request before an instance is chosen: whether it goes anywhere, may go there, and is answered here.

use std::sync::Arc;
use std::time::Duration;

use http::header;
use pingora_proxy::Session;

use crate::affinity;
use crate::answer::Answer;
use crate::edge::{self, Secured};
use crate::plane::Plane;
use crate::proxy::{Aim, RequestContext};
use crate::ready::{Asked, ReadyRoute};
use crate::routing::{ServiceRouting, bare_host};
use crate::stats::Reason;
use crate::trace::TraceContext;

/// Looks at a request. Returns the answer that the gateway itself gives, if it is not for an instance.
pub(crate) fn admit(plane: &Plane, session: &Session, ctx: &mut RequestContext) -> Option<Answer> {
    let aim = Aim::of(session);
    if let Some(answer) = plane.edge.challenges.answer(aim.asked.path) {
        return Some(Answer::page(200, "application/octet-stream", &answer));
    }
    if plane.edge.watches() {
        ctx.trace = Some(TraceContext::of(aim.asked.headers));
    }
    let routing = plane.routing();
    let Some(to) = aim.find(&routing) else {
        plane.edge.refusals.count(Reason::NoRoute);
        return Some(Answer::no_route());
    };
    let service = &routing.services[to.service];
    let route = routing.route(to);
    let secured = edge::secured(session);
    ctx.route = Some(route.clone());
    service.service.budget.deposit();
    if !aim.is_inside(&routing) {
        let refused = refuse(plane, service, route, &aim.asked, secured, ctx);
        if let Err(refusal) = refused {
            let (answer, reason) = *refusal;
            if let Some(reason) = reason {
                plane.edge.refusals.count(reason);
            }
            return Some(answer.in_words_of(Some(route)));
        }
        if let Some(answer) = answer(route, &aim.asked, ctx.secure) {
            return Some(answer);
        }
    }
    if service.traffic.sticky.is_some() || service.traffic.hash_on.is_some() {
        let headers = aim.asked.headers;
        let name = &service.service.name;
        ctx.attempts.belongs = affinity::belongs(&service.traffic, name, headers, ctx.client, plane.edge.signer());
        ctx.sticky = service.traffic.sticky.clone();
    }
    None
}

/// Refuses what may not go where it wants.
fn refuse(
    plane: &Plane,
    service: &ServiceRouting,
    route: &Arc<ReadyRoute>,
    asked: &Asked,
    secured: Option<&Secured>,
    ctx: &RequestContext,
) -> Result<(), Box<(Answer, Option<Reason>)>> {
    let refused = |answer: Answer, reason: Option<Reason>| Err(Box::new((answer, reason)));
    let rules = &route.rules;
    if let Some(tls) = &rules.tls {
        let host = bare_host(asked.host);
        match secured {
            None if tls.redirect && !ctx.secure || tls.clients.is_some() => {
                let query = asked.query.map(|query| format!("?{query}")).unwrap_or_default();
                let location = format!("https://{}{}{query}", plane.edge.https(&host), asked.path);
                return refused(Answer::redirect(308, &location), None);
            }
            // Whom the handshake has let in for one host must not reach another that asks for more (RFC 9110 §15.5.20).
            Some(secured) if tls.clients.is_some() && secured.server_name.as_deref() != Some(&*host) => {
                return refused(Answer::of(421), Some(Reason::Misdirected));
            }
            Some(secured) if tls.clients.as_ref().is_some_and(|c| c.required) && secured.client.is_none() => {
                return refused(Answer::of(403), Some(Reason::NoCertificate));
            }
            _ => {}
        }
    }
    if let Some(text) = &service.traffic.maintenance {
        return refused(Answer::maintenance(text), Some(Reason::Maintenance));
    }
    if let Some((limiter, client)) = route.limiter.as_ref().zip(ctx.client)
        && let Err(wait) = limiter.take(client)
    {
        return refused(Answer::too_many(seconds(wait)), Some(Reason::RateLimited));
    }
    let length = || asked.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
    match rules.body_limit {
        Some(limit) if length().is_some_and(|length| length > limit.0) => {
            refused(Answer::of(413), Some(Reason::TooLarge))
        }
        _ => Ok(()),
    }
}

/// Answers for routes that need no instance.
fn answer(route: &ReadyRoute, asked: &Asked, secure: bool) -> Option<Answer> {
    if let Some(redirect) = &route.rules.redirect {
        let scheme = if secure { "https" } else { "http" };
        return Some(Answer::redirect(redirect.status, &route.location(&redirect.to, scheme, asked)));
    }
    let page = route.rules.respond.as_ref()?;
    Some(Answer::page(page.status, &page.content_type, &page.body))
}

/// Returns whole seconds, rounded up: RFC 9110 §10.2.3 has no others.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
