//! The short path: a common request is looked at, changed by the word of its route, and passed on right here.

use std::net::IpAddr;

use bytes::Buf;
use http::Method;
use tokio::time::Instant;

use super::asker::Asker;
use super::client::{Client, Ends};
use super::exchange::{self, After, Request};
use super::head::{self, Framing, Head};
use super::rewrite::{self, Changes, Said, Told};
use crate::acme;
use crate::admission::{self, Arrival};
use crate::answer::Answer;
use crate::connections::Shared;
use crate::edge::Secured;
use crate::forwarded::Forwarded;
use crate::ready::Asked;
use crate::refusals::Refusal;
use crate::routing::{Destination, Routing};
use crate::session::Aim;
use crate::trace::TraceContext;
use crate::watched::{Ended, Seen};

/// The largest body that is read before its request is sent: it can then be sent twice, and it keeps no instance waiting.
pub(crate) const SMALL: u64 = 64 << 10;

/// What becomes of a request that the short path was given.
pub(crate) enum Passed {
    /// It was answered.
    Done(Client, After),
    /// The general proxy has to pass it on. It is at the front of the buffer.
    NotHere(Client),
    /// It can't be read to its end.
    Refused(Client, Refusal),
    /// The client has left.
    Left,
}

/// A request that has been read to its end, in the words of HTTP/1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    /// Its head and body.
    pub(crate) bytes: &'a [u8],
    pub(crate) head: &'a Head,
    pub(crate) ends: Ends,
    pub(crate) secured: Option<&'a Secured>,
    /// The path and query.
    pub(crate) target: &'a str,
    pub(crate) aim: Aim<'a>,
}

/// What a look at a request has told.
#[derive(Debug)]
pub(crate) struct Look {
    request: Request,
    /// What the gateway itself answers.
    answer: Option<Answer>,
    client: IpAddr,
    trace: Option<TraceContext>,
    referrer: Option<String>,
    user_agent: Option<String>,
}

/// Passes on the request at the front of the buffer, if it is one for the short path.
pub(crate) async fn pass_on(mut client: Client, head: &Head, shared: &Shared) -> Passed {
    let body = match head.framing {
        Framing::Length(length) if length <= SMALL && !head.expect && !head.old => length as usize,
        _ => return Passed::NotHere(client),
    };
    let Ok(method) = Method::from_bytes(&client.buffer[head.method.clone()]) else { return Passed::NotHere(client) };
    let began = Instant::now();
    let whole = head.length + body;
    let refused = loop {
        if client.buffer.len() >= whole {
            break None;
        }
        match tokio::time::timeout(shared.limits.body, client.fill()).await {
            Ok(Ok(true)) => {}
            Ok(_) => break Some(None),
            Err(_) => break Some(Some(Refusal::SlowBody)),
        }
    };
    let part = |range: &std::ops::Range<usize>| String::from_utf8_lossy(&client.buffer[range.clone()]).into_owned();
    let host = part(&head.host);
    let target = if head.target.is_empty() { "/".to_owned() } else { part(&head.target) };
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    let fields = shared.plane.routing().asks_for_fields.then(|| head::fields(&client.buffer, head));
    let bare = Asked::bare(&host, path, &method);
    let asked = Asked { query, headers: fields.as_ref().unwrap_or(bare.headers), ..bare };
    let aim = Aim::new(Some(client.ends.local), asked);
    if let Some(refusal) = refused {
        let routing = shared.plane.routing();
        let received = client.buffer.len().saturating_sub(head.length) as u64;
        let ended = Ended {
            asked,
            protocol: client.protocol,
            client: Some(client.ends.peer.ip()),
            route: aim.find(&routing).map(|to| routing.route(to)),
            trace: None,
            referrer: None,
            user_agent: None,
            took: began.elapsed(),
            seen: Seen { status: refusal.and_then(Refusal::status).unwrap_or(0), received, ..Seen::default() },
        };
        ended.write_down(&shared.plane);
        return refusal.map_or(Passed::Left, |refusal| Passed::Refused(client, refusal));
    }
    let arrived = Arrived {
        bytes: &client.buffer[..whole],
        head,
        ends: client.ends,
        secured: client.secured.as_deref(),
        target: &target,
        aim,
    };
    let look = {
        let routing = shared.plane.routing();
        let found = aim.find(&routing);
        if fits(&routing, &aim, found, fields.is_some()) { Some(look(shared, &routing, found, &arrived)) } else { None }
    };
    let Some(look) = look else { return Passed::NotHere(client) };
    client.buffer.advance(whole);
    if client.buffer.is_empty() {
        // The space is given back: idle connections have none.
        client.buffer = bytes::BytesMut::new();
    }
    client.seen = Seen { received: body as u64, ..Seen::default() };
    let protocol = client.protocol;
    let after = perform(shared, &mut client, look, &aim, protocol, began).await;
    Passed::Done(client, after)
}

/// Answers a request that was looked at, and writes down what has become of it.
pub(crate) async fn perform(
    shared: &Shared,
    client: &mut impl Asker,
    look: Look,
    aim: &Aim<'_>,
    protocol: &'static str,
    began: Instant,
) -> After {
    let after = match &look.answer {
        Some(answer) => exchange::answer(shared, client, &look.request, answer).await,
        None => exchange::run(shared, client, &look.request, |routing| aim.find(routing)).await,
    };
    let ended = Ended {
        asked: aim.asked,
        protocol,
        client: Some(look.client),
        route: look.request.route.as_ref(),
        trace: look.trace,
        referrer: look.referrer.as_deref(),
        user_agent: look.user_agent.as_deref(),
        took: began.elapsed(),
        seen: std::mem::take(client.seen()),
    };
    ended.write_down(&shared.plane);
    after
}

/// Whether a request that goes to `found` is for the short path. A table that is just in force may ask for fields that were not read.
pub(crate) fn fits(routing: &Routing, aim: &Aim<'_>, found: Option<Destination>, has_fields: bool) -> bool {
    let challenge = aim.asked.path.starts_with(acme::CHALLENGES);
    let compresses = found.is_some_and(|to| routing.route(to).rules.compress);
    !challenge && !compresses && (has_fields || !routing.asks_for_fields)
}

/// Looks at a request that goes to `found`.
pub(crate) fn look(shared: &Shared, routing: &Routing, found: Option<Destination>, arrived: &Arrived<'_>) -> Look {
    let Arrived { bytes, head, ends, secured, target, aim } = *arrived;
    let asked = &aim.asked;
    let edge = &shared.plane.edge;
    let route = found.map(|to| routing.route(to).clone());
    let rewritten = route.as_ref().and_then(|route| route.rewritten(asked.path)).map(|path| match asked.query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    });
    let changes = Changes {
        target: rewritten.as_deref().unwrap_or(target),
        headers: route.as_ref().map_or(&[], |route| &route.request_headers),
        certificate: secured.and_then(|secured| secured.client.as_ref()),
        traced: edge.watches(),
    };
    let trusted = shared.trust.has(ends.peer.ip());
    let (mut from, mut secure, mut told) = (ends.peer.ip(), ends.https, None);
    let (mut referrer, mut user_agent) = (None, None);
    let mut out = rewrite::request(bytes, head, changes, |said: Said<'_>| {
        from = shared.trust.client(from, said.claimed.for_);
        secure |= trusted && said.claimed.proto == "https";
        told = changes.traced.then(|| TraceContext::of(said.traceparent));
        if edge.log.get().is_some() {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            (referrer, user_agent) = (said.referrer.map(text), said.user_agent.map(text));
        }
        let forwarded = Forwarded::of(ends.peer, ends.https, asked.host, said.claimed, trusted);
        Told { forwarded, trace: told }
    });
    let body = &bytes[head.length..];
    out.extend_from_slice(body);
    let arrival = Arrival {
        asked: *asked,
        inside: aim.is_inside(routing),
        client: Some(from),
        secure,
        secured,
        length: Some(body.len() as u64),
    };
    let answer = admission::judge(&shared.plane, routing, found, &arrival);
    let (belongs, sticky) = match found.filter(|_| answer.is_none()) {
        Some(to) => admission::affinity(&shared.plane, routing, to, asked.headers, Some(from)),
        None => (None, None),
    };
    let request = Request {
        bytes: out,
        route,
        secure,
        method: asked.method.clone(),
        upgrade: head.upgrade,
        websocket: head.websocket,
        close: head.close,
        belongs,
        sticky,
    };
    Look { request, answer, client: from, trace: told, referrer, user_agent }
}
