//! The verb `traffic`: what the gateway has counted, as rates over a second.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Serialize;

use crate::error::{CliError, Outcome, Result};
use crate::live::Live;
use crate::output::Output;
use crate::paths::Data;
use crate::render;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long the gateway may take to answer: it answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// A service and a release; release `none` stands for answers of the gateway itself.
type Key = (String, String);

/// What the gateway has counted since it was started, by service and release.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    requests: u64,
    errors: u64,
    /// Requests that took at most so many seconds, and more than the bound before; in no order.
    buckets: Vec<(f64, u64)>,
    weight: f64,
    in_flight: u64,
}

/// What one release does, over a second.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    service: String,
    release: String,
    /// Percent of the service's requests.
    weight: f64,
    requests_per_second: f64,
    errors_per_second: f64,
    /// Milliseconds below which half, and 99 of 100, of the requests stay; none without requests.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    in_flight: u64,
}

/// Shows what the gateway does: again and again on a terminal, once elsewhere.
///
/// # Errors
/// If the gateway can't be reached.
pub async fn traffic(data: &Data, out: Output) -> Result<Outcome> {
    let mut live = Live::new(out);
    let mut before = look(data)?;
    loop {
        tokio::time::sleep(EVERY).await;
        let now = look(data)?;
        let rows = rows(&before, &now, EVERY.as_secs_f64());
        if out.json() {
            return out.document(&serde_json::json!({ "releases": rows })).map(|()| Outcome::Done);
        }
        if !out.live {
            return out.text(&table(&rows)).map(|()| Outcome::Done);
        }
        live.draw(&table(&rows))?;
        before = now;
    }
}

/// Asks the gateway.
fn look(data: &Data) -> Result<BTreeMap<Key, Counts>> {
    let path = data.socket("metrics");
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics?buckets=fine HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| {
        let help = "it runs where `basalt up` or `basalt serve` was called for this data directory";
        CliError::unreachable("the gateway can't be reached").because(&error).help(help)
    })?;
    Ok(counts(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)))
}

/// Sums what is counted by service and release.
fn counts(text: &str) -> BTreeMap<Key, Counts> {
    let mut counts: BTreeMap<Key, Counts> = BTreeMap::new();
    // The histogram whose buckets are being read, and how much was in those before.
    let (mut series, mut below) = (BTreeMap::new(), 0);
    for (name, mut labels, value) in text.lines().filter_map(sample) {
        let bound = labels.remove("le");
        let (Some(service), Some(release)) = (labels.get("service"), labels.get("release")) else { continue };
        let entry = counts.entry((service.clone(), release.clone())).or_default();
        match name {
            "http_requests_total" => {
                entry.requests += value as u64;
                if matches!(labels.get("code").map(String::as_str), Some("5xx" | "none")) {
                    entry.errors += value as u64;
                }
            }
            "http_request_duration_seconds_bucket" => {
                let bound = bound.and_then(|le| le.parse().ok()).unwrap_or(f64::INFINITY);
                if labels != series {
                    (series, below) = (labels, 0);
                }
                let more = (value as u64).saturating_sub(std::mem::replace(&mut below, value as u64));
                match entry.buckets.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, count)) => *count += more,
                    None => entry.buckets.push((bound, more)),
                }
            }
            "gateway_release_weight" => entry.weight = value,
            "gateway_instance_in_flight" => entry.in_flight += value as u64,
            _ => {}
        }
    }
    counts
}

/// Reads a line such as `name{label="value"} 1`; `None` if it is a comment.
fn sample(line: &str) -> Option<(&str, BTreeMap<String, String>, f64)> {
    let (head, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, mut rest) = head.split_once('{').unwrap_or((head, ""));
    let mut labels = BTreeMap::new();
    while let Some((key, after)) = rest.split_once("=\"") {
        // Values escape quotes, backslashes and ends of lines.
        let (mut text, mut escaped, mut end) = (String::new(), false, None);
        for (at, c) in after.char_indices() {
            match c {
                '"' if !escaped => {
                    end = Some(at);
                    break;
                }
                '\\' if !escaped => escaped = true,
                c => {
                    text.push(c);
                    escaped = false;
                }
            }
        }
        labels.insert(key.trim_start_matches(',').to_owned(), text);
        rest = &after[end? + 1..];
    }
    Some((name, labels, value.parse().ok()?))
}

fn rows(before: &BTreeMap<Key, Counts>, now: &BTreeMap<Key, Counts>, seconds: f64) -> Vec<Row> {
    let none = Counts::default();
    let row = |((service, release), now): (&Key, &Counts)| {
        // A gateway that was restarted counts anew.
        let before =
            before.get(&(service.clone(), release.clone())).filter(|b| b.requests <= now.requests).unwrap_or(&none);
        let had = |bound: f64| before.buckets.iter().find(|(known, _)| *known == bound).map_or(0, |(_, count)| *count);
        let mut buckets: Vec<(f64, u64)> =
            now.buckets.iter().map(|(bound, count)| (*bound, count.saturating_sub(had(*bound)))).collect();
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Row {
            service: service.clone(),
            release: release.clone(),
            weight: now.weight * 100.0,
            requests_per_second: (now.requests - before.requests) as f64 / seconds,
            errors_per_second: now.errors.saturating_sub(before.errors) as f64 / seconds,
            p50_ms: quantile(&buckets, 0.5),
            p99_ms: quantile(&buckets, 0.99),
            in_flight: now.in_flight,
        }
    };
    now.iter().map(row).collect()
}

/// Returns the milliseconds below which a share of the requests stays, evenly spread within a bucket; beyond the last
/// bound nothing more is known than that.
fn quantile(buckets: &[(f64, u64)], share: f64) -> Option<f64> {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    if all == 0 {
        return None;
    }
    let rank = share * all as f64;
    let (mut low, mut below) = (0.0, 0);
    for (bound, count) in buckets {
        if (below + count) as f64 >= rank {
            if bound.is_infinite() {
                return Some(low * 1000.0);
            }
            let within = (rank - below as f64) / (*count).max(1) as f64;
            return Some((low + (bound - low) * within) * 1000.0);
        }
        (low, below) = (*bound, below + count);
    }
    None
}

fn table(rows: &[Row]) -> String {
    let name = |row: &Row| match row.release.as_str() {
        "none" => format!("{} (gateway)", row.service),
        release => format!("{}#{release}", row.service),
    };
    let names: Vec<String> = rows.iter().map(|row| render::printable(&name(row))).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(7);
    let mut text = format!(
        "{:width$}  {:>7}  {:>9}  {:>8}  {:>8}  {:>8}  {:>9}\n",
        "release", "weight", "requests", "errors", "p50", "p99", "in flight"
    );
    let time = |ms: Option<f64>| match ms {
        None => "–".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2}ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.0}ms"),
        Some(ms) => format!("{:.1}s", ms / 1000.0),
    };
    for (row, name) in rows.iter().zip(names) {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name:width$}  {:>6.2}%  {:>7.0}/s  {:>6.0}/s  {:>8}  {:>8}  {:>9}",
            row.weight,
            row.requests_per_second,
            row.errors_per_second,
            time(row.p50_ms),
            time(row.p99_ms),
            row.in_flight
        );
    }
    if rows.is_empty() {
        text.push_str("no requests yet\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(requests: u64, slow: u64) -> String {
        format!(
            "# TYPE http_requests counter\n\
             http_requests_total{{service=\"web\",route=\"a\\\"b\",release=\"2\",code=\"2xx\"}} {requests}\n\
             http_requests_total{{service=\"web\",route=\"*/\",release=\"2\",code=\"5xx\"}} {slow}\n\
             http_request_duration_seconds_bucket{{le=\"0.001\",service=\"web\",route=\"*/\",release=\"2\"}} {requests}\n\
             http_request_duration_seconds_bucket{{le=\"0.1\",service=\"web\",route=\"*/\",release=\"2\"}} {all}\n\
             http_request_duration_seconds_bucket{{le=\"+Inf\",service=\"web\",route=\"*/\",release=\"2\"}} {all}\n\
             gateway_release_weight{{service=\"web\",release=\"2\"}} 0.05\n\
             gateway_instance_in_flight{{service=\"web\",release=\"2\",instance=\"web-2-1\"}} 3.0\n# EOF\n",
            all = requests + slow
        )
    }

    #[test]
    fn rates_and_quantiles() {
        let rows = rows(&counts(&text(100, 0)), &counts(&text(190, 10)), 1.0);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.requests_per_second, row.errors_per_second, row.weight, row.in_flight), (100.0, 10.0, 5.0, 3));
        let (p50, p99) = (row.p50_ms.unwrap(), row.p99_ms.unwrap());
        assert!((0.5..0.6).contains(&p50) && (90.0..91.0).contains(&p99), "{p50} {p99}");
        assert!(
            table(&rows).contains("web#2      5.00%      100/s      10/s    0.56ms      90ms          3"),
            "{}",
            table(&rows)
        );
    }

    #[test]
    fn columns_stay_below_their_names() {
        let mut both = rows(&counts(&text(1, 0)), &counts(&text(2, 0)), 1.0);
        both.push(Row {
            release: "none".to_owned(),
            ..rows(&counts(&text(1, 0)), &counts(&text(2, 0)), 1.0).remove(0)
        });
        let table = table(&both);
        assert!(table.contains("web (gateway)    5.00%"), "{table}");
        assert!(
            table.lines().all(|line| line.chars().count() == table.lines().next().unwrap().chars().count()),
            "{table}"
        );
    }

    #[test]
    fn without_requests_there_is_no_time() {
        let same = counts(&text(5, 5));
        let rows = rows(&same, &counts(&text(5, 5)), 1.0);
        assert_eq!((rows[0].p50_ms, rows[0].requests_per_second), (None, 0.0));
        assert!(table(&[]).ends_with("no requests yet\n"));
    }
}
