//! What is counted, in OpenMetrics 1.0, the older text format of Prometheus, or its protobuf form, which alone has native
//! histograms.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NativeHistogram, NativeHistogramBuckets, prometheus_protobuf,
};
use prometheus_client::metrics::MetricType::{self, Counter, Gauge, Histogram};
use prometheus_client::registry::Registry;

use crate::native;
use crate::plane::Plane;
use crate::ready::ReadyRoute;
use crate::routing::Routing;
use crate::stats::{BOUNDS, Stats};

/// The media types of what [`render`], [`as_prometheus_text`] and [`render_protobuf`] return.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(crate) const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) const PROMETHEUS_PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Words for classes of status; requests whose client left before an answer have none.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Returns everything that is counted, in OpenMetrics.
pub(crate) fn render(plane: &Arc<Plane>) -> String {
    as_text(&registry(plane, histogram))
}

/// Returns the same with the buckets of native histograms.
pub(crate) fn render_finely(plane: &Arc<Plane>) -> String {
    as_text(&registry(plane, fine_histogram))
}

fn as_text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

/// Returns the same in Prometheus' protobuf form, with native histograms.
pub(crate) fn render_protobuf(plane: &Arc<Plane>) -> Vec<u8> {
    // Writing to memory does not fail.
    prometheus_protobuf::encode_to_vec(&registry(plane, native_histogram)).unwrap_or_default()
}

fn registry(plane: &Arc<Plane>, histogram: Encode) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics { plane: plane.clone(), histogram }));
    registry
}

/// Returns the same in the text format 0.0.4, which describes a counter by the name of its samples, `_total` included,
/// and knows no last line.
pub(crate) fn as_prometheus_text(openmetrics: &str) -> String {
    let kind = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
        Some(name.to_owned())
    };
    let counters: BTreeSet<String> = openmetrics.lines().filter_map(kind).collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines().filter(|line| *line != "# EOF") {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", what, name, rest] if counters.contains(name) => {
                text.extend(["# ", what, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[derive(Debug)]
struct Metrics {
    plane: Arc<Plane>,
    histogram: Encode,
}

/// Encodes a histogram.
type Encode = fn(MetricEncoder, &Stats) -> fmt::Result;

type Labels = Vec<(&'static str, String)>;

/// One metric with all its label sets.
fn family<'r, T: 'r>(
    encoder: &mut DescriptorEncoder,
    (name, help, kind): (&str, &str, MetricType),
    rows: impl Iterator<Item = (Labels, T)>,
    encode: impl Fn(MetricEncoder, T) -> fmt::Result,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in rows {
        encode(metric.encode_family(&labels)?, value)?;
    }
    Ok(())
}

fn counter(mut metric: MetricEncoder, value: u64) -> fmt::Result {
    metric.encode_counter::<[(&str, &str); 0], u64, u64>(&value, None)
}

fn gauge(mut metric: MetricEncoder, value: f64) -> fmt::Result {
    metric.encode_gauge(&value)
}

/// Returns the counts of a histogram by upper bound, and the sum, in seconds.
fn buckets(stats: &Stats) -> (Vec<(f64, u64)>, f64) {
    let (counts, sum) = stats.took.counts();
    let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
    (bounds.zip(counts).collect(), sum)
}

fn histogram(metric: MetricEncoder, stats: &Stats) -> fmt::Result {
    let (buckets, sum) = buckets(stats);
    histogram_of(metric, &buckets, sum)
}

fn fine_histogram(metric: MetricEncoder, stats: &Stats) -> fmt::Result {
    let mut buckets = stats.took_native.bounded();
    buckets.push((f64::INFINITY, 0));
    histogram_of(metric, &buckets, stats.took.counts().1)
}

fn histogram_of(mut metric: MetricEncoder, buckets: &[(f64, u64)], sum: f64) -> fmt::Result {
    let count = buckets.iter().map(|(_, count)| count).sum();
    metric.encode_histogram::<[(&str, &str); 0]>(sum, count, buckets, None)
}

/// Writes fine buckets beside the others. Counted is what is in the fine ones: Prometheus takes no histogram whose sums differ.
fn native_histogram(mut metric: MetricEncoder, stats: &Stats) -> fmt::Result {
    let (buckets, sum) = buckets(stats);
    let used = stats.took_native.sparse();
    let none = NativeHistogramBuckets { spans: &[], deltas: &[] };
    let native = NativeHistogram {
        schema: native::SCHEMA,
        zero_threshold: native::ZERO,
        zero_count: used.zero,
        negative: none,
        positive: NativeHistogramBuckets { spans: &used.spans, deltas: &used.deltas },
        created: None,
    };
    metric.encode_histogram_with_native::<[(&str, &str); 0]>(sum, used.count, &buckets, None, native)
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let routing = self.plane.routing();
        let rows = stats(&routing);
        let all = || rows.iter().map(|(labels, stats)| (labels.clone(), *stats));
        let classes = all().flat_map(|(labels, stats)| {
            CLASSES.into_iter().zip(&stats.classes).map(move |(class, count)| {
                let labels = labels.iter().cloned().chain([("code", class.to_owned())]).collect();
                (labels, count.load(Relaxed))
            })
        });
        let encoder = &mut encoder;
        family(
            encoder,
            ("http_requests", "Requests answered, by class of status", Counter),
            classes.filter(|row| row.1 > 0),
            counter,
        )?;
        let seconds = "Seconds from a request's beginning to the end of its answer";
        family(encoder, ("http_request_duration_seconds", seconds, Histogram), all(), self.histogram)?;
        let sum = |of: fn(&Stats) -> u64| all().map(move |(labels, stats)| (labels, of(stats)));
        let retries = sum(|stats| stats.retries.load(Relaxed));
        family(encoder, ("http_request_retries", "Requests sent to an instance again", Counter), retries, counter)?;
        let hedges = sum(|stats| stats.hedges.load(Relaxed));
        let help = "Requests sent to a second instance while the first was silent";
        family(encoder, ("http_request_hedges", help, Counter), hedges, counter)?;
        let received = sum(|stats| stats.received.load(Relaxed));
        family(
            encoder,
            ("http_request_body_bytes", "Bytes of bodies received from clients", Counter),
            received,
            counter,
        )?;
        let sent = sum(|stats| stats.sent.load(Relaxed));
        family(encoder, ("http_response_body_bytes", "Bytes of bodies sent to clients", Counter), sent, counter)?;
        let refused = self.plane.edge.refusals.counts();
        let peers = self.plane.edge.peers.get().into_iter().flat_map(|peers| peers.counts());
        let refused = refused.chain(peers.map(|(why, count)| (why.name(), count)));
        let refused = refused.map(|(reason, count)| (vec![("reason", reason.to_owned())], count));
        family(encoder, ("http_requests_refused", "Requests that the gateway refused", Counter), refused, counter)?;
        self.instances(encoder, &routing)?;
        let help = "Version of the route table in force";
        gauge(encoder.encode_descriptor("gateway_route_table_version", help, None, Gauge)?, routing.version as f64)?;
        let times = self.plane.edge.certificates.get().map(|known| known.times()).unwrap_or_default();
        let ends = times.into_iter().filter_map(|(host, times)| Some((vec![("host", host)], times?.ends as f64)));
        let help = "When a certificate ends to be valid, in seconds since the Unix epoch";
        family(encoder, ("tls_certificate_not_after_seconds", help, Gauge), ends, gauge)
    }
}

impl Metrics {
    fn instances(&self, encoder: &mut DescriptorEncoder, routing: &Routing) -> fmt::Result {
        let releases =
            || routing.services.iter().flat_map(|service| service.releases.iter().map(move |r| (service, r)));
        let weights = releases().map(|(service, release)| {
            let labels = vec![("service", service.service.name.to_string()), ("release", release.number.to_string())];
            (labels, f64::from(release.weight.0) / 10_000.0)
        });
        family(encoder, ("gateway_release_weight", "Share of a service's requests, 0 to 1", Gauge), weights, gauge)?;
        let rows: Vec<_> = releases()
            .flat_map(|(service, release)| release.instances.iter().map(move |instance| (service, release, instance)))
            .map(|(service, release, instance)| {
                let labels = vec![
                    ("service", service.service.name.to_string()),
                    ("release", release.number.to_string()),
                    ("instance", instance.id.to_string()),
                ];
                (labels, instance)
            })
            .collect();
        let all = || rows.iter().map(|(labels, instance)| (labels.clone(), *instance));
        let traffic = || all().map(|(labels, instance)| (labels, instance.traffic()));
        let requests = traffic().map(|(labels, seen)| (labels, seen.requests));
        family(encoder, ("gateway_instance_requests", "Requests sent to an instance", Counter), requests, counter)?;
        let errors = traffic().map(|(labels, seen)| (labels, seen.errors));
        let help = "Requests that an instance answered with 500 or more, or not at all";
        family(encoder, ("gateway_instance_errors", help, Counter), errors, counter)?;
        let in_flight = traffic().map(|(labels, seen)| (labels, seen.in_flight as f64));
        let help = "Requests and connections under way to an instance";
        family(encoder, ("gateway_instance_in_flight", help, Gauge), in_flight, gauge)?;
        let one = |yes: bool| f64::from(u8::from(yes));
        let healthy = all().map(|(labels, instance)| (labels, one(instance.is_healthy())));
        family(
            encoder,
            ("gateway_instance_healthy", "Whether checks call an instance healthy", Gauge),
            healthy,
            gauge,
        )?;
        let ejected = all().map(|(labels, instance)| (labels, one(instance.is_ejected())));
        let help = "Whether an instance gets no requests because of what they have met";
        family(encoder, ("gateway_instance_ejected", help, Gauge), ejected, gauge)?;
        let ejections = all().map(|(labels, instance)| (labels, instance.ejections()));
        family(
            encoder,
            ("gateway_instance_ejections", "How often an instance was ejected", Counter),
            ejections,
            counter,
        )
    }
}

/// Returns what is counted with its labels: one row for each service, route and release.
fn stats(routing: &Routing) -> Vec<(Labels, &Stats)> {
    let mut seen = BTreeSet::new();
    let fresh = |route: &&Arc<ReadyRoute>| seen.insert((route.service.clone(), route.label.clone()));
    let rows = routing.routes.iter().filter(fresh).flat_map(|route| {
        route.stats.iter().filter(|(number, stats)| *number > 0 || stats.took.is_used()).map(move |(number, stats)| {
            // Release 0 stands for answers of the gateway itself.
            let release = if *number == 0 { "none".to_owned() } else { number.to_string() };
            let labels: Labels =
                vec![("service", route.service.to_string()), ("route", route.label.clone()), ("release", release)];
            (labels, Arc::as_ref(stats))
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Handle;

    use super::*;
    use crate::tests::gateway::table;

    #[tokio::test]
    async fn histograms_are_native_in_protobuf() {
        let plane = Plane::new(Handle::current());
        plane.set_any(Arc::new(table(1, &[(1, 100, &[[127, 0, 0, 1].into()])])));
        let route = plane.routing().routes[0].clone();
        for millis in [1000, 500, 0] {
            route.stats(1).unwrap().count(200, Duration::from_millis(millis), 0, 0);
        }
        let families = prometheus_protobuf::encode(&registry(&plane, native_histogram)).unwrap();
        let named = |name: &str| families.iter().find(|family| family.name == name).unwrap();
        let metric = &named("http_request_duration_seconds").metric[0];
        let labels: Vec<_> = metric.label.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
        assert_eq!(labels, [("service", "web"), ("route", "*/"), ("release", "1")]);
        let histogram = metric.histogram.as_ref().unwrap();
        let spans: Vec<_> = histogram.positive_span.iter().map(|span| (span.offset, span.length)).collect();
        assert_eq!((histogram.schema, histogram.zero_count, &spans[..]), (3, 1, &[(-8, 1), (7, 1)][..]));
        assert_eq!((histogram.sample_count, &histogram.positive_delta[..]), (3, &[1, 0][..]));
        assert_eq!((histogram.bucket.len(), histogram.bucket.last().unwrap().cumulative_count), (15, 3));
        assert_eq!(named("http_requests_total").metric[0].counter.as_ref().unwrap().value, 3.0);
        assert!(!render_protobuf(&plane).is_empty());
    }

    #[test]
    fn counters_are_described_by_the_name_of_their_samples() {
        let openmetrics = "# HELP a Of a counter.\n# TYPE a counter\na_total{b=\"# EOF\"} 1\n# HELP g Of a.\n# TYPE g gauge\ng 2\n# EOF\n";
        let text = "# HELP a_total Of a counter.\n# TYPE a_total counter\na_total{b=\"# EOF\"} 1\n# HELP g Of a.\n# TYPE g gauge\ng 2\n";
        assert_eq!(as_prometheus_text(openmetrics), text);
        assert_eq!(as_prometheus_text(""), "");
    }
}
