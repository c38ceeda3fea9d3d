//! The short path: a common request is looked at, changed by the word of its route, and passed on right here.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Buf;
use http::Method;
use tokio::time::Instant;

use super::client::Client;
use super::exchange::{self, After, Request};
use super::head::{Framing, Head};
use super::rewrite::{self, Changes, Said, Told};
use crate::acme;
use crate::admission::{self, Arrival};
use crate::answer::Answer;
use crate::connections::Shared;
use crate::forwarded::Forwarded;
use crate::ready::{Asked, ReadyRoute};
use crate::refusals::Refusal;
use crate::session::Aim;
use crate::trace::TraceContext;
use crate::watched::{Ended, Seen};

/// The largest body that is read before its request is sent: it can then be sent twice, and it keeps no instance waiting.
const SMALL: u64 = 64 << 10;

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

/// What a look at a request has told.
struct Look {
    /// Head and body for an instance.
    bytes: Vec<u8>,
    route: Option<Arc<ReadyRoute>>,
    /// What the gateway itself answers.
    answer: Option<Answer>,
    client: IpAddr,
    secure: bool,
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
    let asked = Asked { query, ..Asked::bare(&host, path, &method) };
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
    let Some(look) = look(shared, &client, head, &aim, &target, whole) else { return Passed::NotHere(client) };
    client.buffer.advance(whole);
    if client.buffer.is_empty() {
        // The space is given back: idle connections have none.
        client.buffer = bytes::BytesMut::new();
    }
    let request = Request {
        bytes: look.bytes,
        route: look.route,
        secure: look.secure,
        idempotent: method.is_idempotent(),
        reads: matches!(method, Method::GET | Method::HEAD),
        head: method == Method::HEAD,
        upgrade: head.upgrade,
        websocket: head.websocket,
        close: head.close,
    };
    client.seen = Seen { received: body as u64, ..Seen::default() };
    let after = match &look.answer {
        Some(answer) => exchange::answer(shared, &mut client, &request, answer).await,
        None => exchange::run(shared, &mut client, &request, |routing| aim.find(routing)).await,
    };
    let ended = Ended {
        asked,
        protocol: client.protocol,
        client: Some(look.client),
        route: request.route.as_ref(),
        trace: look.trace,
        referrer: look.referrer.as_deref(),
        user_agent: look.user_agent.as_deref(),
        took: began.elapsed(),
        seen: std::mem::take(&mut client.seen),
    };
    ended.write_down(&shared.plane);
    Passed::Done(client, after)
}

/// Looks at a request; `None` if it is not for the short path.
fn look(shared: &Shared, client: &Client, head: &Head, aim: &Aim<'_>, target: &str, whole: usize) -> Option<Look> {
    let asked = &aim.asked;
    let edge = &shared.plane.edge;
    if asked.path.starts_with(acme::CHALLENGES) {
        return None;
    }
    let routing = shared.plane.routing();
    let found = aim.find(&routing);
    match found {
        Some(to) if routing.passes_plainly(to) => {}
        // Without the headers it can't be told where it goes.
        None if !routing.asks_for_more => {}
        _ => return None,
    }
    let route = found.map(|to| routing.route(to).clone());
    let secured = client.secured.as_deref();
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
    let ends = client.ends;
    let trusted = shared.trust.has(ends.peer.ip());
    let (mut from, mut secure, mut told) = (ends.peer.ip(), ends.https, None);
    let (mut referrer, mut user_agent) = (None, None);
    let mut bytes = rewrite::request(&client.buffer, head, changes, |said: Said<'_>| {
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
    bytes.extend_from_slice(&client.buffer[head.length..whole]);
    let arrival = Arrival {
        asked: *asked,
        inside: aim.is_inside(&routing),
        client: Some(from),
        secure,
        secured,
        length: Some((whole - head.length) as u64),
    };
    let answer = admission::judge(&shared.plane, &routing, found, &arrival);
    Some(Look { bytes, route, answer, client: from, secure, trace: told, referrer, user_agent })
}
