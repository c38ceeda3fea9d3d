//! What the gateway is told at its start: by arguments, and by what it was told last.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use basalt_gateway::{AcmeOptions, GatewayOptions, LogFormat, Network};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};
use crate::paths::Data;

/// Where the gateway listens unless told otherwise: reachable from this machine alone.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// What the gateway is told at its start. What is left out is as last time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeArgs {
    /// Where the gateway takes HTTP requests [default: as last time, or 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,
    /// Where the gateway takes HTTPS requests, for routes with `tls` [default: as last time, or nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub https: Option<SocketAddr>,
    /// Proxies and load balancers before the gateway, as 10.0.0.0/8, whose word about clients is believed [default: as last
    /// time, or none]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<String>,
    /// Whether trusted proxies begin each connection with the header of the PROXY protocol, version 1 or 2 [default: as last
    /// time, or not]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub proxy_protocol: Option<bool>,
    /// Where the gateway shows its metrics to Prometheus [default: as last time, or nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Whether requests are logged to logs/access.log in the data directory [default: as last time, or off]
    #[arg(long, value_name = "FORMAT")]
    pub access_log: Option<AccessLog>,
    /// Where spans are sent by OTLP over HTTP, such as http://127.0.0.1:4318 [default: as last time, or nowhere]
    #[arg(long, value_name = "URL")]
    pub traces: Option<String>,
    /// The authority for routes with `tls { acme = true }` [default: as last time, or Let's Encrypt]
    #[arg(long, value_name = "URL")]
    pub acme_directory: Option<String>,
    /// Whom that authority writes to, such as mailto:ops@example.com [default: as last time, or nobody]
    #[arg(long, value_name = "URL")]
    pub acme_contact: Option<String>,
    /// The root that the authority's own certificate is signed by, in PEM [default: as last time, or the public ones]
    #[arg(long, value_name = "FILE")]
    pub acme_ca: Option<PathBuf>,
}

/// How requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// Not at all
    Off,
    /// In the common log format, with referrer and user agent
    Combined,
    /// One JSON object a line
    Json,
}

/// Checks a network.
fn network(text: &str) -> std::result::Result<String, basalt_gateway::NotANetwork> {
    text.parse::<Network>().map(|network| network.to_string())
}

impl EdgeArgs {
    /// Returns these, and what was told last where they leave something out.
    pub fn or_recorded(&self, data: &Data) -> Self {
        self.clone().or(Self::recorded(data))
    }

    /// Returns these, and those of before where they leave something out.
    pub fn or(self, before: Self) -> Self {
        let new = self;
        Self {
            http: new.http.or(before.http),
            https: new.https.or(before.https),
            trusted_proxies: if new.trusted_proxies.is_empty() { before.trusted_proxies } else { new.trusted_proxies },
            proxy_protocol: new.proxy_protocol.or(before.proxy_protocol),
            metrics: new.metrics.or(before.metrics),
            access_log: new.access_log.or(before.access_log),
            traces: new.traces.or(before.traces),
            acme_directory: new.acme_directory.or(before.acme_directory),
            acme_contact: new.acme_contact.or(before.acme_contact),
            acme_ca: new.acme_ca.or(before.acme_ca),
        }
    }

    /// Returns what was told last.
    pub fn recorded(data: &Data) -> Self {
        let read = |path| std::fs::read_to_string(path).ok();
        let whole = read(data.edge()).and_then(|text| serde_json::from_str(&text).ok());
        // Data directories of version 0.1 remember the address alone.
        let address = || Self { http: read(data.http())?.trim().parse().ok(), ..Self::default() }.into();
        whole.or_else(address).unwrap_or_default()
    }

    /// Remembers these.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn record(&self, data: &Data) -> Result<()> {
        if *self == Self::recorded(data) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        std::fs::write(data.edge(), text).map_err(|error| {
            CliError::internal(format!("`{}` can't be written", data.edge().display())).because(&error)
        })
    }

    /// Whether a gateway that was told one of them behaves as if told the other.
    pub fn same(&self, other: &Self) -> bool {
        let whole = |args: &Self| Self { http: Some(args.http()), ..args.clone() };
        whole(self) == whole(other)
    }

    /// Refuses what could never work. It is asked of people alone: a gateway starts with whatever was recorded.
    ///
    /// # Errors
    /// If spans or certificates could not be had with these.
    pub fn check(&self) -> Result<()> {
        let begins = |text: &Option<String>, with: &str| {
            let rest = text.as_ref().map(|text| text.strip_prefix(with).unwrap_or_default());
            rest.is_none_or(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
        };
        let wrong = |option: &str, text: &Option<String>, help: &str| {
            let text = text.as_deref().unwrap_or_default();
            Err(CliError::invalid(format!("`{option}` can't be `{}`", text.escape_debug())).help(help))
        };
        if !begins(&self.traces, "http://") {
            return wrong("--traces", &self.traces, "write for example http://127.0.0.1:4318, without TLS");
        }
        if !begins(&self.acme_directory, "https://") {
            let help = "write the URL of the authority's directory, which begins with https:// (RFC 8555 §6.1)";
            return wrong("--acme-directory", &self.acme_directory, help);
        }
        if !begins(&self.acme_contact, "mailto:") {
            return wrong("--acme-contact", &self.acme_contact, "write for example mailto:ops@example.com");
        }
        if let Some(file) = &self.acme_ca {
            std::fs::File::open(file).map_err(|error| {
                CliError::invalid(format!("`--acme-ca` can't be read from `{}`", file.display())).because(&error)
            })?;
        }
        Ok(())
    }

    /// Refuses addresses that a gateway which has those of `before`, or none at all, could not listen on.
    ///
    /// # Errors
    /// If something else listens there, or the machine does not have the address.
    pub fn can_listen(&self, before: Option<&Self>) -> Result<()> {
        // What is had for one purpose can't be taken over for another while the old gateway finishes.
        let addresses = |args: &Self| [Some(args.http()), args.https, args.metrics];
        let pairs = addresses(self).into_iter().zip(before.map(addresses).unwrap_or_default());
        for address in pairs.filter(|(new, had)| new != had).filter_map(|(new, _)| new) {
            std::net::TcpListener::bind(address).map_err(|error| {
                CliError::invalid(format!("the gateway can't listen on `{address}`")).because(&error).help(
                    "name another address, or run `basalt down` first if the gateway itself has this one; it goes on as it was",
                )
            })?;
        }
        Ok(())
    }

    /// Returns where HTTP requests are taken.
    pub fn http(&self) -> SocketAddr {
        self.http.unwrap_or(HTTP)
    }

    /// Returns these as arguments of another process.
    pub fn to_arguments(&self) -> Vec<String> {
        let access_log = self.access_log.and_then(|log| log.to_possible_value()).map(|log| log.get_name().to_owned());
        let pairs = [
            ("--http", Some(self.http().to_string())),
            ("--https", self.https.map(|address| address.to_string())),
            ("--trusted-proxies", Some(self.trusted_proxies.join(",")).filter(|all| !all.is_empty())),
            ("--metrics", self.metrics.map(|address| address.to_string())),
            ("--access-log", access_log),
            ("--traces", self.traces.clone()),
            ("--acme-directory", self.acme_directory.clone()),
            ("--acme-contact", self.acme_contact.clone()),
            ("--acme-ca", self.acme_ca.as_ref().map(|file| file.display().to_string())),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])).flatten();
        pairs.chain(self.proxy_protocol.map(|yes| format!("--proxy-protocol={yes}"))).collect()
    }

    /// Returns these in the words of the gateway.
    pub fn to_options(&self, data: &Data) -> GatewayOptions {
        let access_log = match self.access_log {
            None | Some(AccessLog::Off) => None,
            Some(AccessLog::Combined) => Some(LogFormat::Combined),
            Some(AccessLog::Json) => Some(LogFormat::Json),
        };
        let directory = self.acme_directory.clone().unwrap_or_else(|| basalt_gateway::LETS_ENCRYPT.to_owned());
        GatewayOptions {
            https: self.https,
            // They were checked when they were given.
            trusted: self.trusted_proxies.iter().filter_map(|network| network.parse().ok()).collect(),
            proxy_protocol: self.proxy_protocol.unwrap_or(false),
            metrics: self.metrics,
            access_log,
            traces: self.traces.clone(),
            acme: AcmeOptions { directory, contact: self.acme_contact.clone(), root: self.acme_ca.clone() },
            ..GatewayOptions::new(data.dir().to_owned(), self.http())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        edge: EdgeArgs,
    }

    #[test]
    fn arguments_come_back() {
        let line = "x --http 127.0.0.1:1 --https [::1]:2 --trusted-proxies 10.0.0.0/8,192.0.2.1 --proxy-protocol --access-log json --traces http://c:4318 --acme-ca /ca.pem";
        let edge = Program::parse_from(line.split(' ')).edge;
        let again = Program::parse_from(["x".to_owned()].into_iter().chain(edge.to_arguments())).edge;
        assert_eq!(edge, again);
        let bare = Program::parse_from(["x"]).edge;
        assert_eq!(bare.to_arguments(), ["--http", "127.0.0.1:8080"]);
    }

    #[test]
    fn what_was_told_last_holds() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::find(Some(folder.path())).unwrap();
        let parse = |line: &str| Program::parse_from(line.split(' ')).edge;
        std::fs::write(data.http(), "127.0.0.1:7\n").unwrap();
        assert_eq!(parse("x").or_recorded(&data), parse("x --http 127.0.0.1:7"));
        parse("x --https 127.0.0.1:9").or_recorded(&data).record(&data).unwrap();
        assert_eq!(parse("x --metrics 127.0.0.1:8").or_recorded(&data).https, "127.0.0.1:9".parse().ok());
        let same = |line: &str| parse(line).or_recorded(&data).same(&EdgeArgs::recorded(&data));
        assert!(same("x") && same("x --https 127.0.0.1:9") && same("x --http 127.0.0.1:7"));
        assert!(!same("x --metrics 127.0.0.1:8") && !same("x --http 127.0.0.1:8"));
    }

    #[test]
    fn what_could_never_work_is_refused() {
        let check = |option: &str| Program::parse_from(["x"].into_iter().chain(option.split(' '))).edge.check();
        for good in [
            "--traces http://[::1]:4318/x",
            "--acme-directory https://a.example/dir",
            "--acme-contact mailto:ops@a.example",
            "--acme-ca /dev/null",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "--traces 127.0.0.1:4318",
            "--traces ftp://x",
            "--traces http://",
            "--acme-directory nonsense",
            "--acme-contact ops@a.example",
            "--acme-ca /none",
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.message.contains(bad.split(' ').next().unwrap()), "{bad}: {}", error.message);
        }
    }

    #[test]
    fn only_addresses_that_are_new_have_to_be_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let parse = |line: String| Program::parse_from(line.split(' ')).edge;
        let at = taken.local_addr().unwrap();
        let (bare, https) = (parse("x".into()), parse(format!("x --https {at}")));
        let error = https.can_listen(Some(&bare)).unwrap_err();
        assert!(error.message.contains(&at.to_string()), "{}", error.message);
        let metrics = parse(format!("x --metrics {at}"));
        assert!(https.can_listen(Some(&https)).is_ok() && metrics.can_listen(Some(&https)).is_err());
        let http = parse(format!("x --http {at}"));
        assert!(http.can_listen(Some(&http)).is_ok() && http.can_listen(None).is_err());
        drop(taken);
        assert!(https.can_listen(Some(&bare)).is_ok() && http.can_listen(None).is_ok());
    }
}
