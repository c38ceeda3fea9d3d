//! `health` blocks.

use std::collections::BTreeMap;

use basalt_model::{Health, HealthCheck, Name, Port, Protocol};

use super::service::{default_port, port_name, positive};
use crate::fault::Fault;
use crate::read;
use crate::reader::Reader;

/// The most successes or failures in a row: more would take minutes at any interval.
const MOST_IN_A_ROW: u32 = 1000;

/// Decodes the `health` block. Without one, an accepted connection on the first port is asked for; without a port, that the
/// instance runs.
pub(super) fn health(reader: &mut Reader, ports: &BTreeMap<Name, Port>) -> Health {
    let default = Health {
        check: default_port(ports).map_or(HealthCheck::Running, |port| HealthCheck::Tcp { port: port.clone() }),
        ..Health::default()
    };
    let Some(mut health) = reader.only_block("health") else { return default };
    let check = check(&mut health, ports);
    let decoded = Health {
        check: check.unwrap_or(default.check),
        interval: health.get("interval", positive).unwrap_or(default.interval),
        timeout: health.get("timeout", positive).unwrap_or(default.timeout),
        healthy_after: health.get("healthy_after", read::integer(1..=MOST_IN_A_ROW)).unwrap_or(default.healthy_after),
        unhealthy_after: health
            .get("unhealthy_after", read::integer(1..=MOST_IN_A_ROW))
            .unwrap_or(default.unhealthy_after),
        start_within: health.get("start_within", positive).unwrap_or(default.start_within),
    };
    let needed = decoded.interval.0.saturating_mul(u64::from(decoded.healthy_after.saturating_sub(1)));
    if needed >= decoded.start_within.0 {
        let fault = Fault::at(health.place("start_within"), "an instance can't become healthy in that time");
        health.report(fault.help(format!(
            "{} checks, one every {}, take longer than {}",
            decoded.healthy_after, decoded.interval, decoded.start_within
        )));
    }
    health.finish();
    decoded
}

/// Decodes what is asked: one of `http`, `tcp`, `grpc` and `command`.
fn check(health: &mut Reader, ports: &BTreeMap<Name, Port>) -> Option<HealthCheck> {
    let mut checks = Vec::new();
    let http = health.only_block("http");
    let tcp = health.only_block("tcp");
    let grpc = health.only_block("grpc");
    let command = health.has("command");
    if let Some(mut http) = http {
        let path = http.get("path", |value| {
            let path = read::text(value)?;
            let plain = path.bytes().all(|b| b.is_ascii_graphic());
            if path.starts_with('/') && plain {
                return Ok(path);
            }
            Err(Fault::at(value.at, format!("{} is not a request path", value.shown()))
                .help("it begins with `/`")
                .into())
        });
        let port = port(&mut http, ports);
        checks.push(port.map(|port| HealthCheck::Http { path: path.unwrap_or_else(|| "/".to_owned()), port }));
        http.finish();
    }
    if let Some(mut tcp) = tcp {
        checks.push(port(&mut tcp, ports).map(|port| HealthCheck::Tcp { port }));
        tcp.finish();
    }
    if let Some(mut grpc) = grpc {
        let service = grpc.get("service", read::text).unwrap_or_default();
        checks.push(port(&mut grpc, ports).map(|port| HealthCheck::Grpc { service, port }));
        grpc.finish();
    }
    let program = health.get("command", read::command);
    if command {
        checks.push(program.map(HealthCheck::Command));
    }
    if checks.len() > 1 {
        let fault = Fault::at(health.at, format!("{} has more than one check", health.what));
        health.report(fault.help("keep one of `http`, `tcp`, `grpc` and `command`"));
    }
    checks.into_iter().next().flatten()
}

/// Decodes the port to ask; the first one if none is named.
fn port(reader: &mut Reader, ports: &BTreeMap<Name, Port>) -> Option<Name> {
    if reader.has("port") {
        return reader.get("port", |value| port_name(value, ports));
    }
    // Asked for by name, so that it counts as known.
    let _ = reader.value("port");
    let port = default_port(ports);
    if port.is_none() {
        let fault = Fault::at(reader.at, format!("{} has no port to ask", reader.what));
        reader.report(fault.help("declare one: port \"http\" { container = 8080 }"));
    }
    port.cloned()
}

/// Returns whether a port speaks HTTP.
pub(super) fn speaks_http(ports: &BTreeMap<Name, Port>, name: &Name) -> bool {
    ports.get(name).is_some_and(|port| port.protocol == Protocol::Http)
}
