//! `service` blocks.

use std::collections::BTreeMap;

use basalt_model::{Kind as ReleaseKind, Millis, Name, Port, Protocol, ProxyProtocol, ServiceSpec, Settings, Strategy};

use super::health::health;
use super::release::{Secrets, names, release};
use super::rollout::rollout;
use super::route::routes;
use super::traffic::traffic;
use crate::check::Places;
use crate::fault::{Eval, Fault};
use crate::read;
use crate::reader::Reader;
use crate::source::At;
use crate::suggest::did_you_mean;
use crate::units;
use crate::value::{Kind, Value};

/// Decodes a `service` block.
pub(super) fn service(mut reader: Reader, name: &Name, places: &mut Places, sealed: &mut Secrets) -> ServiceSpec {
    let (image, mut release) = release(&mut reader, ReleaseKind::Service, name, places, sealed);
    let ports = ports(&mut reader);
    release.ports = ports.iter().map(|(name, (port, _))| (name.clone(), *port)).collect();
    places.ports.insert(name.clone(), release.ports.len());
    release.health = health(&mut reader, &release.ports);
    release.routes = routes(&mut reader, name, &release.ports, places);
    let default = Settings::default();
    let mut settings = Settings {
        instances: reader.get("instances", read::integer(0..=Settings::MOST_INSTANCES)).unwrap_or(default.instances),
        drain: reader.get("drain", units::duration).unwrap_or(default.drain),
        stop_within: reader.get("stop_within", units::duration).unwrap_or(default.stop_within),
        depends_on: names(&mut reader, "depends_on", Kind::Job).into_iter().map(|(job, _)| job).collect(),
        rollout: rollout(&mut reader),
        traffic: traffic(&mut reader, name),
    };
    settings.depends_on.sort();
    settings.depends_on.dedup();
    for word in ["retries", "timeout"] {
        reader.refuse(
            word,
            format!("a service has no `{word}`: it runs until it is replaced, and is always started again"),
        );
    }
    reader.refuse("count", "a service has no `count`: write `instances = 3`, or `for_each` for services of their own");
    reader.refuse("restart", "a service has no `restart`: an instance that ends is always replaced");
    for word in ["autoscale", "for_each", "domains", "tls", "cron"] {
        reader.not_yet(word);
    }
    exclusive_volumes(&reader, name, &settings, places);
    reader.finish();
    ServiceSpec { image, release, settings }
}

/// Decodes `port` blocks.
fn ports(reader: &mut Reader) -> BTreeMap<Name, (Port, At)> {
    let ev = reader.ev;
    let mut ports: BTreeMap<Name, (Port, At)> = BTreeMap::new();
    for block in reader.blocks(&["port"]) {
        let Some((label, at)) = Reader::single_label(ev, block) else { continue };
        let mut inner = Reader::block(ev, block, format!("port `{label}` of {}", reader.what));
        let container = inner.required("container", "container = 8080", read::integer(1..=65535));
        let protocol = inner.get("protocol", |value| match value.to_text()?.as_str() {
            "http" => Ok(Protocol::Http),
            "tcp" => Ok(Protocol::Tcp),
            "grpc" | "http2" | "h2c" => {
                Err(Fault::at(value.at, format!("{} is spoken on a port of protocol \"http\"", value.shown()))
                    .help("write \"http\"")
                    .into())
            }
            "udp" => Err(Fault::at(value.at, "`udp` is not supported yet").into()),
            other => Err(Fault::at(value.at, format!("unknown protocol `{}`", other.escape_debug()))
                .help("write \"http\" or \"tcp\"")
                .into()),
        });
        let proxy_protocol = proxy_protocol(&mut inner, protocol);
        inner.finish();
        let Some(name) = ev.cx.keep(read::name(&label, at)) else { continue };
        if let Some((_, first)) = ports.get(&name) {
            let fault = Fault::at(at, format!("{} has two ports named `{name}`", reader.what));
            reader.report(fault.label("the second").place(*first, "the first"));
            continue;
        }
        // Port 1 stands in for one that is wrong, so that references to the port are not reported as well.
        let container = container.unwrap_or(1) as u16;
        let same = ports.iter().find(|(_, (port, _))| port.container == container && container != 1);
        if let Some((other, (_, first))) = same {
            let fault = Fault::at(at, format!("ports `{other}` and `{name}` of {} are both {container}", reader.what));
            reader.report(fault.label("the second").place(*first, "the first").help("one name for it is enough"));
        }
        let port = Port { proxy_protocol, ..Port::new(container, protocol.unwrap_or(Protocol::Http)) };
        ports.insert(name, (port, at));
    }
    ports
}

/// Decodes how an instance is told whose a connection is.
fn proxy_protocol(port: &mut Reader, protocol: Option<Protocol>) -> Option<ProxyProtocol> {
    let version = port.get("proxy_protocol", |value| match value.to_text()?.as_str() {
        "v1" => Ok(ProxyProtocol::V1),
        "v2" => Ok(ProxyProtocol::V2),
        other => Err(Fault::at(value.at, format!("unknown version `{}` of the PROXY protocol", other.escape_debug()))
            .help("write \"v1\" or \"v2\"")
            .into()),
    });
    // A protocol that can't be read has been reported.
    if version.is_some() && protocol != Some(Protocol::Tcp) && (protocol.is_some() || !port.has("protocol")) {
        let message = format!("{} speaks HTTP, where requests of many clients share a connection", port.what);
        let fault = Fault::at(port.place("proxy_protocol"), message);
        port.report(
            fault.help("leave it out: `X-Forwarded-For` tells whose each request is; or write protocol = \"tcp\""),
        );
    }
    version
}

/// Returns the port that is meant where none is named: `http`, else the first by name.
pub(super) fn default_port(ports: &BTreeMap<Name, Port>) -> Option<&Name> {
    ports.keys().find(|name| name.as_str() == "http").or_else(|| ports.keys().next())
}

/// Reads the name of a port of this service, which must exist.
pub(super) fn port_name(value: &Value, ports: &BTreeMap<Name, Port>) -> Eval<Name> {
    let text = value.to_text()?;
    match ports.keys().find(|name| name.as_str() == text) {
        Some(name) => Ok(name.clone()),
        None if ports.is_empty() => Err(Fault::at(value.at, format!("there is no port {}", value.shown()))
            .help("declare it: port \"http\" { container = 8080 }")
            .into()),
        None => Err(Fault::at(value.at, format!("there is no port {}", value.shown()))
            .maybe_help(did_you_mean(&text, ports.keys().map(Name::as_str)))
            .into()),
    }
}

/// Reads a duration that is not zero.
pub(super) fn positive(value: &Value) -> Eval<Millis> {
    let duration = units::duration(value)?;
    if duration == Millis::ZERO {
        return Err(Fault::at(value.at, "expected more than no time at all").into());
    }
    Ok(duration)
}

/// Reports an exclusive volume that several instances would need at once.
fn exclusive_volumes(reader: &Reader, name: &Name, settings: &Settings, places: &Places) {
    // The service's own stand at the end, for it is being decoded now.
    let own = places.volumes.iter().rev().take_while(|(_, _, owner, _)| owner == name);
    let exclusive = own.filter(|(_, shared, _, _)| !shared);
    for (volume, _, _, at) in exclusive {
        let fault = |message: String| Fault::at(*at, message).label("exclusive");
        if settings.instances > 1 {
            let message = format!("{} instances can't share the exclusive volume `{volume}`", settings.instances);
            let fault = fault(message).place(reader.place("instances"), "so many instances");
            reader.report(fault.help("write `shared = true` if the program can share it, or have one instance"));
        } else if settings.rollout.strategy != Strategy::Recreate {
            let strategy = settings.rollout.strategy.name();
            let message = format!("the exclusive volume `{volume}` allows no `{strategy}` rollout of {}", reader.what);
            let help = "such a rollout starts the new before the old is stopped, and both need the volume: \
                        write `shared = true` if the program can share it, or rollout \"recreate\" {}";
            reader.report(fault(message).help(help));
        }
    }
}
