//! W3C trace context, and spans sent to a collector by OTLP over HTTP in JSON. Batches are sent by a task of its own, and spans
//! are lost rather than waited for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::instance::Instance;
use crate::ready::ReadyRoute;

/// Spans that may wait to be sent, and how many are worth a batch (the defaults of OpenTelemetry's batch processor).
const WAITING: usize = 2048;
const BATCH: usize = 512;
/// Methods that spans are named by (RFC 9110 §9, RFC 5789).
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];
/// How long spans wait for others.
const GATHERING: Duration = Duration::from_secs(1);
/// How often it is looked for them meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a request is in a trace (W3C Trace Context §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    trace: u128,
    /// The span of whoever has sent the request; 0 is nobody.
    parent: u64,
    /// The span of the gateway.
    span: u64,
    sampled: bool,
}

impl TraceContext {
    /// Returns the context of a request: the one that its header says, or a new one.
    pub(crate) fn of(traceparent: Option<&str>) -> Self {
        let said = traceparent.and_then(parse);
        let (trace, parent, sampled) =
            said.unwrap_or_else(|| ((u128::from(random()) << 64) | u128::from(random()), 0, true));
        Self { trace, parent, span: random(), sampled }
    }

    /// Whether it began before the gateway.
    pub(crate) fn goes_on(&self) -> bool {
        self.parent != 0
    }

    /// Returns the header for the next in the trace.
    pub(crate) fn header(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }

    /// Returns the name of the trace.
    pub(crate) fn id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// Returns trace, parent and whether it is sampled. Later versions are read as this one (§4.3).
fn parse(text: &str) -> Option<(u128, u64, bool)> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if !hex(version, 2) || version == "ff" || !hex(trace, 32) || !hex(parent, 16) || !hex(flags, 2) {
        return None;
    }
    if version == "00" && parts.next().is_some() {
        return None;
    }
    let (trace, parent) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(parent, 16).ok()?);
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    (trace != 0 && parent != 0).then_some((trace, parent, sampled))
}

/// Returns a number that nobody else is likely to have. It is no secret.
fn random() -> u64 {
    thread_local!(static STATE: Cell<u64> = const { Cell::new(0) });
    STATE.with(|state| {
        if state.get() == 0 {
            let seed = aws_lc_rs::rand::generate::<[u8; 8]>(&aws_lc_rs::rand::SystemRandom::new());
            state.set(seed.map_or(1, |seed| u64::from_ne_bytes(seed.expose())) | 1);
        }
        // SplitMix64: each state gives another number.
        let next = state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).max(1)
    })
}

/// What a span says of one request.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) context: TraceContext,
    pub(crate) method: Method,
    pub(crate) route: Option<Arc<ReadyRoute>>,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) instance: Option<Arc<Instance>>,
    pub(crate) retries: u32,
    pub(crate) took: Duration,
}

/// Takes spans.
#[derive(Debug)]
pub(crate) struct Spans {
    spans: mpsc::Sender<(SystemTime, Span)>,
    lost: AtomicU64,
}

impl Spans {
    /// Sends spans to a collector, such as `http://127.0.0.1:4318`; `/v1/traces` is added. Needs a runtime.
    pub(crate) fn to(collector: Uri) -> Self {
        let (spans, arriving) = mpsc::channel(WAITING);
        tokio::spawn(send(collector, arriving));
        Self { spans, lost: AtomicU64::new(0) }
    }

    /// Sends a span later, if its trace is sampled. It is lost if too many wait.
    pub(crate) fn say(&self, span: Span) {
        if !span.context.sampled {
            return;
        }
        // When it happened is what a span is about.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        if self.spans.try_send((now, span)).is_err() && self.lost.fetch_add(1, Relaxed).is_multiple_of(10_000) {
            tracing::warn!("spans are lost: the collector is too slow, or not there");
        }
    }
}

async fn send(collector: Uri, mut arriving: mpsc::Receiver<(SystemTime, Span)>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut failing = false;
    loop {
        batch.clear();
        let Some(first) = arriving.recv().await else { return };
        batch.push(first);
        // Spans are looked for from time to time: to be woken by each would cost whoever sends it.
        let began = tokio::time::Instant::now();
        while batch.len() < BATCH && began.elapsed() < GATHERING {
            sleep(LOOK).await;
            while let Ok(next) = arriving.try_recv() {
                batch.push(next);
            }
        }
        let result = timeout(PATIENCE, post(&collector, to_json(&batch).to_string())).await;
        let problem = match result {
            Ok(Ok(status)) if status < 300 => None,
            Ok(Ok(status)) => Some(format!("it answers {status}")),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it does not answer".to_owned()),
        };
        if let Some(problem) = problem.as_ref().filter(|_| !failing) {
            tracing::warn!("spans don't reach the collector `{collector}`: {problem}");
        }
        failing = problem.is_some();
    }
}

async fn post(collector: &Uri, body: String) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let host = collector.host().ok_or("its address names no host")?;
    let stream = TcpStream::connect((host, collector.port_u16().unwrap_or(4318))).await?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("{}/v1/traces", collector.path().trim_end_matches('/')))
        .header("host", collector.authority().map_or(host, |authority| authority.as_str()))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let status = client.send_request(request).await?.status().as_u16();
    connection.abort();
    Ok(status)
}

/// Returns a request of OTLP (opentelemetry-proto, `ExportTraceServiceRequest` in JSON).
fn to_json(batch: &[(SystemTime, Span)]) -> Value {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let number = |key: &str, value: u64| json!({ "key": key, "value": { "intValue": value.to_string() } });
    let spans = batch.iter().map(|(ended, span)| {
        let ended = ended.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let began = ended.saturating_sub(span.took);
        let route = span.route.as_ref().map_or("", |route| route.label.as_str());
        // Names that clients may choose would be without number (OpenTelemetry's conventions for HTTP spans).
        let (method, named) = if METHODS.contains(&span.method) {
            (span.method.as_str(), span.method.as_str())
        } else {
            ("_OTHER", "HTTP")
        };
        let mut attributes = vec![
            text("http.request.method", method),
            text("http.route", route),
            text("url.path", &span.path),
            number("http.response.status_code", span.status.into()),
            number("http.request.resend_count", span.retries.into()),
        ];
        attributes.extend(span.instance.as_ref().map(|instance| text("service.instance.id", &instance.id.to_string())));
        let mut json = json!({
            "traceId": format!("{:032x}", span.context.trace),
            "spanId": format!("{:016x}", span.context.span),
            "name": format!("{named} {route}"),
            "kind": 2, // SPAN_KIND_SERVER
            "startTimeUnixNano": began.as_nanos().to_string(),
            "endTimeUnixNano": ended.as_nanos().to_string(),
            "attributes": attributes,
            "status": { "code": if span.status >= 500 || span.status == 0 { 2 } else { 0 } },
        });
        if span.context.parent != 0 {
            json["parentSpanId"] = format!("{:016x}", span.context.parent).into();
        }
        json
    });
    let spans: Vec<Value> = spans.collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", "basalt-gateway")] },
        "scopeSpans": [{ "scope": { "name": "basalt-gateway" }, "spans": spans }],
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(traceparent: &str) -> TraceContext {
        TraceContext::of(Some(traceparent))
    }

    #[test]
    fn a_trace_goes_on() {
        let context = of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(
            (context.id().as_str(), context.parent),
            ("0af7651916cd43dd8448eb211c80319c", 0xb7ad_6b71_6920_3331)
        );
        let header = context.header();
        assert!(header.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && header.ends_with("-01"), "{header}");
        assert!(!header.contains("b7ad6b7169203331"));
        assert!(!of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").sampled);
        assert_eq!(of("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what").parent, 0xb7ad_6b71_6920_3331);
    }

    #[test]
    fn spans_have_few_names() {
        let span = |method: &str| Span {
            context: of(""),
            method: method.parse().unwrap(),
            path: "/x".to_owned(),
            status: 200,
            retries: 0,
            route: None,
            instance: None,
            took: Duration::ZERO,
        };
        for (method, name, told) in
            [("PATCH", "PATCH ", "PATCH"), ("QQ~Z1", "HTTP ", "_OTHER"), ("get", "HTTP ", "_OTHER")]
        {
            let sent = to_json(&[(SystemTime::UNIX_EPOCH, span(method))]);
            let sent = &sent["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
            assert_eq!((&sent["name"], &sent["attributes"][0]["value"]["stringValue"]), (&name.into(), &told.into()));
        }
    }

    #[test]
    fn what_is_no_trace_begins_one() {
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
        ] {
            let context = of(wrong);
            assert!(context.parent == 0 && context.trace != 0 && context.sampled, "{wrong}");
            assert_ne!(context.trace, of(wrong).trace);
        }
    }
}
