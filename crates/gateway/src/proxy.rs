//! What happens to a request, in the terms of pingora.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::time::Instant;

use crate::admission;
use crate::affinity::Belongs;
use crate::answer::{self, Answer};
use crate::choice::Attempts;
use crate::compression;
use crate::connections::Shared;
use crate::downstream::Downstream;
use crate::edge;
use crate::ejection;
use crate::forwarded::{Claimed, Forwarded, Trust};
use crate::http1::attempt::{self, Refused};
use crate::http1::head::is_http2;
use crate::http1::over_http2;
use crate::instance::{InFlight, Instance};
use crate::limits::Limits;
use crate::plane::{Begun, Plane};
use crate::probe::At;
use crate::ready::ReadyRoute;
use crate::refusals::{Refusal, Refusals};
use crate::session::{Aim, downstream, host, is_grpc, is_https, is_idempotent, last};
use crate::stats::Reason;
use crate::trace::TraceContext;
use crate::waiting::{self, Stranded};
use crate::watched;

/// An instance on the same machine accepts within microseconds; a second is for one whose queue is full.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);
/// How long an idle connection may be used again: below the 5 s after which common servers (Node.js) close theirs, so
/// that few requests meet a connection that is just being closed. Also bounds how long an instance that is to stop sees them.
pub(crate) const IDLE: Duration = Duration::from_secs(4);
/// The same for requests that can't be sent twice: only connections that have just been used.
pub(crate) const IDLE_UNSAFE: Duration = Duration::from_secs(1);
/// How often one request is tried at most, connections that were refused included.
pub(crate) const ATTEMPTS: usize = 16;
/// Pause before a request whose instance broke goes on while no other is healthy: its checker finds out meanwhile, and the
/// request then waits for a successor.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// Streams on one HTTP/2 connection to an instance: what servers commonly allow.
const STREAMS: usize = 100;

/// What happens to a request.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) plane: Arc<Plane>,
    pub(crate) limits: Limits,
    pub(crate) trust: Trust,
    pub(crate) refusals: Arc<Refusals>,
    /// What the short path works with.
    pub(crate) shared: Weak<Shared>,
}

/// What is known of one request.
#[derive(Debug, Default)]
pub(crate) struct RequestContext {
    pub(crate) attempts: Attempts,
    pub(crate) route: Option<Arc<ReadyRoute>>,
    /// Who has sent it.
    pub(crate) client: Option<IpAddr>,
    /// Whether it came over TLS, to this gateway or to a trusted proxy before it.
    pub(crate) secure: bool,
    /// Where it is in its trace.
    pub(crate) trace: Option<TraceContext>,
    /// Keeps the client at its instance.
    pub(crate) sticky: Option<basalt_model::Sticky>,
    /// When it began, and when it was sent to an instance last.
    pub(crate) begun: Option<Instant>,
    pub(crate) sent: Option<Instant>,
    /// The instance that it was sent to last.
    pub(crate) last: Option<Arc<Instance>>,
    /// Bytes of its body so far, where they are limited.
    received: u64,
    in_flight: Option<InFlight>,
    at: Option<At>,
    until: Option<Instant>,
    pub(crate) retries: u32,
    /// An answer of this status was not passed on: the request is sent again.
    rejected: bool,
    /// What the client is told if this fails.
    stranded: Option<Answer>,
}

impl Proxy {
    async fn begin(&self, session: &Session, ctx: &mut RequestContext) -> Result<Begun> {
        let aim = Aim::of(session);
        let begun = waiting::begin(&self.plane, |routing| aim.find(routing), &mut ctx.attempts, &mut ctx.until).await;
        let (status, answer) = match begun {
            Ok(begun) => return Ok(begun),
            Err(Stranded::NoRoute) => (404, Answer::no_route()),
            Err(Stranded::NoInstance(service)) => {
                self.plane.edge.refusals.count(Reason::NoInstance);
                (503, Answer::no_instance(service.name.as_str()))
            }
        };
        ctx.stranded = Some(answer);
        Err(Error::new(ErrorType::HTTPStatus(status)))
    }

    /// Counts a refusal. Returns the status that it is answered with; 0 if it is not.
    fn refuse(&self, session: &Session, why: Refusal) -> u16 {
        if let Some(peer) = session.client_addr().and_then(|address| address.as_inet()) {
            self.refusals.count(why, peer.ip());
        }
        why.status().unwrap_or(0)
    }

    /// Finds out who has sent a request, and whether over TLS.
    fn look_at_client(&self, session: &Session, ctx: &mut RequestContext) {
        let peer = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
        let vouched = peer.is_some_and(|peer| self.trust.has(peer));
        ctx.client = peer.map(|peer| self.trust.client(peer, last(session, "x-forwarded-for").unwrap_or_default()));
        ctx.secure = is_https(session) || vouched && last(session, "x-forwarded-proto") == Some("https");
    }

    /// Tells an instance of the client.
    fn tell_of_client(&self, session: &Session, request: &mut RequestHeader) -> Result<()> {
        let Some(peer) = session.client_addr().and_then(|address| address.as_inet()).copied() else { return Ok(()) };
        let claimed = |name: &str| last(session, name).unwrap_or_default();
        let claimed = Claimed {
            for_: claimed("x-forwarded-for"),
            proto: claimed("x-forwarded-proto"),
            host: claimed("x-forwarded-host"),
            standard: claimed("forwarded"),
        };
        let trusted = self.trust.has(peer.ip());
        let seen = Forwarded::of(peer, is_https(session), host(session.req_header()), claimed, trusted);
        for (name, value) in [
            ("X-Forwarded-For", seen.for_),
            ("X-Forwarded-Proto", seen.proto),
            ("X-Forwarded-Host", seen.host),
            ("Forwarded", seen.standard),
        ] {
            match value.is_empty() {
                true => drop(request.remove_header(name)),
                false => request.insert_header(name, value)?,
            }
        }
        Ok(())
    }

    /// Counts how a request went for its instance, and takes that out if it fails too often.
    fn judge(&self, ctx: &RequestContext, failed: bool) {
        let Some((in_flight, sent)) = ctx.in_flight.as_ref().zip(ctx.sent) else { return };
        if in_flight.count_outcome(failed, sent.elapsed()) {
            ejection::failed(&self.plane, in_flight.instance());
        }
    }

    /// Whether another healthy instance could answer instead.
    fn has_another(&self, session: &Session, ctx: &RequestContext) -> bool {
        let Some(in_flight) = &ctx.in_flight else { return false };
        let routing = self.plane.routing();
        let to = Aim::of(session).find(&routing);
        to.is_some_and(|to| routing.has_another(to, &ctx.attempts, in_flight.instance()))
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::default()
    }

    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {
        // What an instance answers is passed on as it is.
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        // An upgraded connection may be silent for as long as both sides like.
        let patience = (!session.is_upgrade_req()).then_some(self.limits.body);
        session.set_read_timeout(patience);
        session.set_write_timeout(Some(self.limits.write));
        ctx.begun = Some(Instant::now());
        self.look_at_client(session, ctx);
        if let Some(shared) = self.shared.upgrade()
            && over_http2::pass_on(&shared, session, ctx).await?
        {
            return Ok(true);
        }
        let Some(answer) = admission::admit(&self.plane, session, ctx) else { return Ok(false) };
        let (route, secure) = (ctx.route.as_deref(), ctx.secure);
        answer.send(session, false, |header| answer::dress(header, route, secure)).await?;
        Ok(true)
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        // An empty last part (HTTP/2 ends bodies so) would be written as a last chunk, and the end as another one, which the instance
        // would take for the beginning of the next request.
        if end && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        let Some(limit) = ctx.route.as_ref().and_then(|route| route.rules.body_limit) else { return Ok(()) };
        ctx.received += body.as_ref().map_or(0, |body| body.len() as u64);
        if ctx.received > limit.0 {
            self.plane.edge.refusals.count(Reason::TooLarge);
            return Err(Error::new(ErrorType::HTTPStatus(413)));
        }
        Ok(())
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
        ctx.rejected = false;
        let begun = self.begin(session, ctx).await?;
        let (at, in_flight) = (begun.at(), begun.in_flight);
        in_flight.count_request();
        let mut peer = HttpPeer::new(at.address, false, String::new());
        let idempotent = is_idempotent(session);
        peer.options.connection_timeout = Some(CONNECT);
        peer.options.idle_timeout = Some(if idempotent { IDLE } else { IDLE_UNSAFE });
        // Connections belong to one start of one instance, whoever has its address later; and those for requests that can't be
        // sent twice are kept apart, as they are used again only while fresh.
        peer.group_key = in_flight.instance().serial << 1 | u64::from(idempotent);
        if is_grpc(session.req_header()) {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = STREAMS;
        }
        if let Some(timeout) = ctx.route.as_ref().and_then(|route| route.rules.timeout)
            && !session.is_upgrade_req()
        {
            peer.options.read_timeout = Some(Duration::from_millis(timeout.0));
        }
        if ctx.route.as_ref().is_some_and(|route| route.rules.compress) {
            session.upstream_compression = compression::begin(session.req_header());
        }
        ctx.sent = Some(Instant::now());
        ctx.last = Some(in_flight.instance().clone());
        ctx.at = Some(at);
        ctx.in_flight = Some(in_flight);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        self.tell_of_client(session, request)?;
        if request.headers.get(header::UPGRADE).is_some_and(|to| is_http2(to.as_bytes())) {
            request.remove_header(&header::UPGRADE);
            request.remove_header(&header::CONNECTION);
            request.remove_header("HTTP2-Settings");
        }
        request.remove_header("Client-Cert-Chain");
        match edge::secured(session).and_then(|secured| secured.client.clone()) {
            Some(certificate) => request.insert_header("Client-Cert", certificate)?,
            None => drop(request.remove_header("Client-Cert")),
        }
        if let Some(trace) = &ctx.trace {
            request.insert_header("traceparent", trace.header())?;
        }
        if let Some(route) = &ctx.route {
            shape(request, route)?;
        }
        Ok(())
    }

    async fn adjust_upstream_modules(
        &self,
        session: &mut Session,
        response: &ResponseHeader,
        _: bool,
        _: &mut RequestContext,
    ) -> Result<()> {
        compression::judge(&mut session.upstream_compression, response);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let status = response.status.as_u16();
        if status >= 200 {
            self.judge(ctx, matches!(status, 502..=504));
        }
        if status < 500 {
            return Ok(());
        }
        if let Some(in_flight) = &ctx.in_flight {
            in_flight.count_error();
        }
        let worth_it = attempt::is_worth_another(status, &session.req_header().method);
        let possible = worth_it && ctx.retries < most_retries(ctx) && !session.as_ref().retry_buffer_truncated();
        if possible && self.has_another(session, ctx) && can_afford(ctx) {
            ctx.rejected = true;
            let mut error = Error::new_up(ErrorType::HTTPStatus(status));
            error.set_retry(true);
            return Err(error);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        answer::dress(response, ctx.route.as_deref(), ctx.secure);
        if let Some((sticky, instance)) = ctx.sticky.as_ref().zip(ctx.last.as_ref())
            && !response.status.is_informational()
            && ctx.attempts.belongs != Some(Belongs::To(instance.id.clone()))
        {
            let cookie = self.plane.edge.signer().cookie(sticky, &instance.id, ctx.secure);
            response.append_header(header::SET_COOKIE, cookie)?;
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let another = self.has_another(session, ctx);
        if let Some(in_flight) = ctx.in_flight.take() {
            let why = match error.etype() {
                ErrorType::ConnectRefused | ErrorType::ConnectNoRoute => Refused::Gone,
                ErrorType::ConnectTimedout => Refused::Late,
                _ => Refused::Other,
            };
            let again = ctx.at.is_some_and(|at| {
                attempt::note_why_refused(&in_flight, at, &mut ctx.attempts, (why, error.etype().as_str()), another)
            });
            // Nothing was sent, so any request may go elsewhere, and no instance works twice for it: the budget is spared.
            let patient = ctx.until.is_none_or(|until| Instant::now() < until);
            error.set_retry(patient && again);
        }
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        let retry = if ctx.rejected {
            true
        } else if *error.esource() != ErrorSource::Upstream {
            false
        } else {
            // An idle connection that was closed says nothing about its instance.
            if !reused {
                self.judge(ctx, true);
            }
            if let Some(in_flight) = &ctx.in_flight {
                if !reused {
                    in_flight.count_error();
                }
                // It may have died: look at once. In-flight requests tell it before the next check does.
                in_flight.instance().suspected.notify_one();
            }
            let unanswered = session.response_written().is_none_or(|header| header.status.is_informational());
            let again = unanswered && is_idempotent(session) && !session.as_ref().retry_buffer_truncated();
            // Time that is over for one instance is over for all.
            let in_time = *error.etype() != ErrorType::ReadTimedout;
            again && in_time && ctx.retries < most_retries(ctx) && can_afford(ctx)
        };
        error.set_retry(retry);
        if let Some(in_flight) = ctx.in_flight.take()
            && retry
        {
            ctx.retries += 1;
            // An idle connection that was closed says nothing about its instance. Otherwise another one is tried; without
            // another, waiting for this one or its successor is what is left.
            if !reused || ctx.rejected {
                ctx.attempts.failed.push(in_flight.instance().clone());
            }
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
        let status = match error.etype() {
            ErrorType::HTTPStatus(status) => *status,
            ErrorType::ReadTimedout | ErrorType::ConnectTimedout if *error.esource() == ErrorSource::Upstream => 504,
            ErrorType::ReadTimedout => self.refuse(session, Refusal::SlowBody),
            ErrorType::WriteTimedout => self.refuse(session, Refusal::SlowReader),
            _ if downstream(session).is_some_and(Downstream::is_broken) => self.refuse(session, Refusal::BadFraming),
            kind => match error.esource() {
                ErrorSource::Upstream => 502,
                // The client has left: there is nobody to answer.
                ErrorSource::Downstream if is_broken(kind) => 0,
                ErrorSource::Downstream => 400,
                ErrorSource::Internal | ErrorSource::Unset => 500,
            },
        };
        let answered = session.response_written().is_some_and(|header| !header.status.is_informational());
        if status > 0 && !answered {
            let answer = ctx.stranded.take().unwrap_or_else(|| Answer::of(status));
            let (route, secure) = (ctx.route.as_deref(), ctx.secure);
            let answer = answer.in_words_of(route);
            // If this fails the client has left too.
            let _ = answer.send(session, true, |header| answer::dress(header, route, secure)).await;
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut RequestContext) {
        if let Some(in_flight) = &mut ctx.in_flight {
            match error {
                None => in_flight.finish(),
                Some(_) => in_flight.identify_if_cut(|| {
                    let asked = Aim::of(session).asked;
                    let client = ctx.client.map_or_else(|| "somebody".to_owned(), |client| client.to_string());
                    format!("{client} {} {}{}", asked.method, asked.host, asked.path)
                }),
            }
        }
        ctx.in_flight = None;
        watched::ended(&self.plane, session, ctx);
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        // Errors are counted and answered; a line for each would only slow an outage down further.
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &RequestContext, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

/// Gives a request the path and headers that its route says.
fn shape(request: &mut RequestHeader, route: &ReadyRoute) -> Result<()> {
    if let Some(path) = route.rewritten(request.uri.path()) {
        let target = match request.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let mut parts = request.uri.clone().into_parts();
        let target = target.parse().map_err(|_| Error::new(ErrorType::HTTPStatus(400)))?;
        parts.path_and_query = Some(target);
        let uri = http::Uri::from_parts(parts).map_err(|_| Error::new(ErrorType::HTTPStatus(400)))?;
        request.set_uri(uri);
    }
    for (name, value) in &route.request_headers {
        match value {
            Some(value) => request.insert_header(name.clone(), HeaderValue::clone(value))?,
            None => drop(request.remove_header(name)),
        }
    }
    Ok(())
}

/// Returns how often a request may be sent again.
fn most_retries(ctx: &RequestContext) -> u32 {
    ctx.route.as_ref().map_or(0, |route| route.retries())
}

/// Pays for a retry from the budget of the request's service.
fn can_afford(ctx: &RequestContext) -> bool {
    ctx.in_flight.as_ref().is_some_and(|in_flight| in_flight.instance().service.budget.withdraw())
}

fn is_broken(kind: &ErrorType) -> bool {
    matches!(kind, ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed)
}
