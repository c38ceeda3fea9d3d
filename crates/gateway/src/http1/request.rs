//! A request that has arrived, in whichever version of HTTP: it is looked at, changed by the word of its route, and answered.

use std::ops::Range;

use http::{HeaderValue, Method, header};
use tokio::time::Instant;

use super::asker::Asker;
use super::client::Ends;
use super::exchange::{self, After, Request};
use super::head::{self, Framing, Head};
use super::rewrite::{self, Changes, Said, Told};
use super::upload::Upload;
use crate::admission::{self, Arrival};
use crate::aim::Aim;
use crate::answer::Answer;
use crate::compression::{Coding, Wish};
use crate::connections::Shared;
use crate::edge::Secured;
use crate::forwarded::Forwarded;
use crate::ready::Asked;
use crate::routing::bare_host;
use crate::target::normal;
use crate::trace::TraceContext;
use crate::watched::{Ended, Seen};

/// The largest body that is read before its request is sent: it can then be sent twice, and it keeps no instance waiting.
pub(crate) const SMALL: u64 = 64 << 10;

/// A request that has arrived, in the words of HTTP/1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) head: &'a Head,
    /// Its head, and its body if that was read already.
    pub(crate) bytes: &'a [u8],
    pub(crate) ends: Ends,
    pub(crate) secured: Option<&'a Secured>,
    /// The version of HTTP that its client speaks, for logs.
    pub(crate) protocol: &'static str,
    pub(crate) began: Instant,
}

/// The texts of a request that decide where it goes.
#[derive(Debug)]
pub(crate) struct Texts {
    method: Method,
    host: String,
    /// The path and query, in their normal form.
    target: String,
}

impl Texts {
    /// Returns the texts of a request's head.
    pub(crate) fn of(bytes: &[u8], head: &Head) -> Self {
        let part = |range: &Range<usize>| String::from_utf8_lossy(&bytes[range.clone()]).into_owned();
        let target = part(&head.target);
        Self {
            // What was read as a method is one.
            method: Method::from_bytes(&bytes[head.method.clone()]).unwrap_or_default(),
            host: part(&head.host),
            target: if target.is_empty() { "/".to_owned() } else { normal(&target).unwrap_or(target) },
        }
    }

    /// Returns what decides where the request goes.
    pub(crate) fn aim<'a>(&'a self, arrived: &Arrived<'a>) -> Aim<'a> {
        let (path, query) =
            self.target.split_once('?').map_or((&*self.target, None), |(path, query)| (path, Some(query)));
        let asked = Asked { query, ..Asked::bare(&self.host, path, &self.method) };
        Aim::new(arrived.ends.local, asked, arrived.bytes, arrived.head)
    }
}

/// What a look at a request has told.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) request: Request,
    /// What the gateway itself answers.
    pub(crate) answer: Option<Answer>,
    trace: Option<TraceContext>,
    referrer: Option<String>,
    user_agent: Option<String>,
}

/// Passes a request on and its answer back, and writes down what has become of it.
pub(crate) async fn perform(
    shared: &Shared,
    client: &mut impl Asker,
    (arrived, aim): (&Arrived<'_>, &Aim<'_>),
    mut upload: Upload,
) -> After {
    let look = look(shared, arrived, aim);
    upload.limit(&look.request);
    let after = match &look.answer {
        Some(answer) => exchange::answer(shared, client, &look.request, answer, &mut upload).await,
        None => exchange::run(shared, client, &look.request, &mut upload, |routing| aim.find(routing)).await,
    };
    look.write_down(shared, (arrived, aim), std::mem::take(client.seen()));
    after
}

/// Writes down a request that could not be read to its end.
pub(crate) fn write_down_unread(shared: &Shared, (arrived, aim): (&Arrived<'_>, &Aim<'_>), seen: Seen) {
    let routing = shared.plane.routing();
    let peer = arrived.ends.peer.ip();
    let claimed = shared.trust.believed(peer, rewrite::said(arrived.bytes, arrived.head).claimed);
    let ended = Ended {
        asked: aim.asked,
        protocol: arrived.protocol,
        client: Some(shared.trust.client(peer, &claimed.for_)),
        route: aim.find(&routing).map(|to| routing.route(to)),
        trace: None,
        referrer: None,
        user_agent: None,
        took: arrived.began.elapsed(),
        seen,
    };
    ended.write_down(&shared.plane);
}

impl Look {
    /// Writes down what has become of the request.
    pub(crate) fn write_down(&self, shared: &Shared, (arrived, aim): (&Arrived<'_>, &Aim<'_>), seen: Seen) {
        let ended = Ended {
            asked: aim.asked,
            protocol: arrived.protocol,
            client: Some(self.request.client),
            route: self.request.route.as_ref(),
            trace: self.trace,
            referrer: self.referrer.as_deref(),
            user_agent: self.user_agent.as_deref(),
            took: arrived.began.elapsed(),
            seen,
        };
        ended.write_down(&shared.plane);
    }
}

/// Looks at a request.
pub(crate) fn look(shared: &Shared, arrived: &Arrived<'_>, aim: &Aim<'_>) -> Look {
    let Arrived { head, bytes, ends, secured, .. } = *arrived;
    let asked = &aim.asked;
    let edge = &shared.plane.edge;
    let routing = shared.plane.routing();
    let found = aim.find(&routing);
    let route = found.map(|to| routing.route(to).clone());
    let path = route.as_ref().and_then(|route| route.rewritten(asked.path));
    let path = path.as_deref().unwrap_or(asked.path);
    let target = asked.query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let body = &bytes[head.length..];
    let changes = Changes {
        target: &target,
        headers: route.as_ref().map_or(&[], |route| &route.request_headers),
        certificate: secured.and_then(|secured| {
            let clients = route.as_ref().and_then(|route| route.rules.tls.as_ref()?.clients.as_ref());
            match clients {
                Some(clients) => secured.client_of(&clients.authorities),
                // Who has asked for it may have been another host.
                None => {
                    secured.client.as_ref().filter(|_| secured.server_name.as_deref() == Some(&bare_host(asked.host)))
                }
            }
        }),
        trusted: shared.trust.has(ends.peer.ip()),
        traced: edge.watches(),
        // A body that is there already waits for nothing.
        expects: head.expect && body.is_empty() && head.framing != Framing::Length(0),
    };
    let compresses = route.as_ref().is_some_and(|route| route.rules.compress) && !head.old;
    let (mut from, mut secure, mut told, mut proxied) = (ends.peer.ip(), ends.https, None, false);
    let (mut referrer, mut user_agent) = (None, None);
    let mut out = rewrite::request(bytes, head, changes, |said: Said<'_>| {
        let claimed = shared.trust.believed(from, said.claimed);
        from = shared.trust.client(from, &claimed.for_);
        secure |= claimed.is_https();
        proxied = !claimed.proto.is_empty();
        told = changes.traced.then(|| TraceContext::of(said.traceparent));
        if edge.log.get().is_some() {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            (referrer, user_agent) = (said.referrer.map(text), said.user_agent.map(text));
        }
        let forwarded = Forwarded::of(ends.peer, ends.https, asked.host, &claimed);
        Told { forwarded, trace: told }
    });
    out.extend_from_slice(body);
    let arrival = Arrival {
        asked: *asked,
        inside: aim.is_inside(&routing),
        client: Some(from),
        secure,
        proxied,
        secured,
        length: match head.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        },
    };
    let challenge = edge.challenges.answer(asked.path);
    let answer = match challenge {
        Some(answer) => Some(Answer::page(200, "application/octet-stream", &answer)),
        None => admission::judge(&shared.plane, &routing, found, &arrival),
    };
    let (belongs, sticky) = match found.filter(|_| answer.is_none()) {
        Some(to) => admission::affinity(&shared.plane, &routing, to, aim, Some(from)),
        None => (None, None),
    };
    let compression = match compresses {
        true => {
            let fields = head::fields(bytes, head);
            let lines = fields.get_all(header::ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes);
            Wish::For(Coding::chosen(lines))
        }
        false => Wish::None,
    };
    let request = Request {
        bytes: out,
        client: from,
        route,
        secure,
        method: asked.method.clone(),
        upgrade: head.upgrade,
        websocket: head.websocket,
        old: head.old,
        close: head.close,
        compression,
        belongs,
        sticky,
    };
    Look { request, answer, trace: told, referrer, user_agent }
}
