//! What is decided of a request before an instance is chosen: whether it goes anywhere, may go there, and is answered here.

use std::net::IpAddr;
use std::time::Duration;

use basalt_model::Sticky;

use crate::affinity::{self, Belongs};
use crate::aim::Aim;
use crate::answer::Answer;
use crate::edge::Secured;
use crate::plane::Plane;
use crate::ready::{Asked, ReadyRoute};
use crate::routing::{Destination, Routing, ServiceRouting, bare_host};
use crate::stats::Reason;

/// A request that has arrived, as far as that decides whether it goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) asked: Asked<'a>,
    /// Whether it arrived at a virtual address, where no rules of routes apply.
    pub(crate) inside: bool,
    /// Who has sent it.
    pub(crate) client: Option<IpAddr>,
    /// Whether it came over TLS, to this gateway or to a trusted proxy before it.
    pub(crate) secure: bool,
    /// Whether a trusted proxy says how it came there.
    pub(crate) proxied: bool,
    /// What is known of its connection over TLS.
    pub(crate) secured: Option<&'a Secured>,
    /// The length of its body, where that is told.
    pub(crate) length: Option<u64>,
}

/// Returns the instance that a request belongs to, and how its client is kept there, by the word of the service that it is for.
pub(crate) fn affinity(
    plane: &Plane,
    routing: &Routing,
    to: Destination,
    aim: &Aim<'_>,
    client: Option<IpAddr>,
) -> (Option<Belongs>, Option<Sticky>) {
    let ServiceRouting { service, traffic, .. } = &*routing.services[to.service];
    if traffic.sticky.is_none() && traffic.hash_on.is_none() {
        return (None, None);
    }
    (affinity::belongs(traffic, &service.name, aim.fields(), client, plane.edge.signer()), traffic.sticky.clone())
}

/// Looks at a request whose destination is `found`. Returns the answer that the gateway itself gives, if it is not for an
/// instance.
pub(crate) fn judge(
    plane: &Plane,
    routing: &Routing,
    found: Option<Destination>,
    arrival: &Arrival<'_>,
) -> Option<Answer> {
    let Some(to) = found else {
        plane.edge.refusals.count(Reason::NoRoute);
        return Some(Answer::no_route(routing.version));
    };
    let (service, route) = (&routing.services[to.service], routing.route(to));
    service.service.budget.deposit();
    if arrival.inside {
        return None;
    }
    if let Err(refusal) = refuse(plane, service, route, arrival) {
        let (answer, reason) = *refusal;
        if let Some(reason) = reason {
            plane.edge.refusals.count(reason);
        }
        // A service's own words for its maintenance come before those of its route for any error.
        let own = reason == Some(Reason::Maintenance) && service.traffic.maintenance.as_deref() != Some("");
        return Some(if own { answer } else { answer.in_words_of(Some(route)) });
    }
    answer(route, &arrival.asked, arrival.secure)
}

/// Refuses what may not go where it wants.
fn refuse(
    plane: &Plane,
    service: &ServiceRouting,
    route: &ReadyRoute,
    arrival: &Arrival<'_>,
) -> Result<(), Box<(Answer, Option<Reason>)>> {
    let refused = |answer: Answer, reason: Option<Reason>| Err(Box::new((answer, reason)));
    let (rules, asked) = (&route.rules, &arrival.asked);
    if let Some(tls) = &rules.tls {
        let host = bare_host(asked.host);
        let required = tls.clients.as_ref().filter(|clients| clients.required);
        match arrival.secured {
            None if !arrival.secure && (tls.redirect || tls.clients.is_some()) => {
                let query = asked.query.map(|query| format!("?{query}")).unwrap_or_default();
                // Nobody says where a proxy takes TLS, if not at the usual port.
                let host = if arrival.proxied { host.into_owned() } else { plane.edge.https(&host) };
                return refused(Answer::redirect(308, &format!("https://{host}{}{query}", asked.path)), None);
            }
            // The client's handshake was with a proxy.
            None if required.is_some() => return refused(Answer::of(403), Some(Reason::NoCertificate)),
            // Whom the handshake has let in for one host must not reach another that asks for more (RFC 9110 §15.5.20).
            Some(secured) if tls.clients.is_some() && secured.server_name.as_deref() != Some(&*host) => {
                return refused(Answer::of(421), Some(Reason::Misdirected));
            }
            // Nor does one authority's client go for another's.
            Some(secured) if required.is_some_and(|clients| secured.client_of(&clients.authorities).is_none()) => {
                return refused(Answer::of(403), Some(Reason::NoCertificate));
            }
            _ => {}
        }
    }
    if let Some(text) = &service.traffic.maintenance {
        return refused(Answer::maintenance(text), Some(Reason::Maintenance));
    }
    if let Some((limiter, client)) = route.limiter.as_ref().zip(arrival.client)
        && let Err(wait) = limiter.take(client)
    {
        return refused(Answer::too_many(seconds(wait)), Some(Reason::RateLimited));
    }
    match rules.body_limit {
        Some(limit) if arrival.length.is_some_and(|length| length > limit.0) => {
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
