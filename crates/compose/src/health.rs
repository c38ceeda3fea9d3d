//! `healthcheck` to a `health` block.

use crate::fields::Fields;
use crate::hcl::{Block, Expr};
use crate::import::Cx;
use crate::interpolate::Where;
use crate::keys;
use crate::ports::Port;
use crate::shell::words;
use crate::yaml::{Data, Node};

/// What Docker takes where the file says nothing, in milliseconds.
const INTERVAL: u64 = 30_000;
/// Likewise: failures in a row that make a container unhealthy.
const RETRIES: u64 = 3;
/// The least time an instance may take to become healthy, in milliseconds: what a stack gives one that says nothing.
const START: u64 = 30_000;

/// Returns the `health` block; `None` if there is no check.
pub(crate) fn health(cx: &Cx, node: &Node, ports: &[Port]) -> Option<Block> {
    let fields = Fields::new(node);
    let disabled = fields.get("disable").and_then(|node| cx.bool(node)).unwrap_or(false);
    let test = fields.get("test");
    let mut block = Block::plain("health");
    let none = test.is_some_and(|test| matches!(command(cx, test).as_deref(), Some([only]) if only == "NONE"));
    if disabled || none {
        cx.findings.name(
            node,
            "the check is turned off: an instance counts as healthy when its first port accepts a connection",
            "",
        );
        return None;
    }
    let Some(test) = test else {
        cx.findings.name(
            node,
            "only the image knows what this check runs: it is left out",
            "write `command = [...]` in a `health` block",
        );
        return None;
    };
    match command(cx, test).map(|words| (http(&words, ports), words)) {
        Some((Some((path, port)), _)) => {
            cx.findings.note(test, "asked by the gateway itself, without a program in the instance", "");
            let http = Block::plain("http").with("path", Expr::text(path));
            block.blocks.push(http.with("port", Expr::text(port)));
        }
        Some((None, words)) if !words.is_empty() => {
            let shell = words.first().is_some_and(|word| word == "CMD-SHELL");
            let texts = match (shell, test.list()) {
                (_, Some(items)) => items[1..].iter().filter_map(|item| cx.text(item, Where::Elsewhere)).collect(),
                (_, None) => cx.text(test, Where::Elsewhere).into_iter().collect::<Vec<_>>(),
            };
            let shell = ["/bin/sh", "-c"].into_iter().filter(|_| shell).map(Expr::text);
            block.set("command", Expr::List(shell.chain(texts.into_iter().map(Expr::Text)).collect()));
        }
        _ => cx.odd(test, "a command"),
    }
    let duration = |key| fields.get(key).and_then(|node| Some((node, millis(&cx.known(node)?))));
    let mut taken = |key: &'static str, name: &'static str| match duration(key) {
        Some((_, Some(0))) => None,
        Some((node, None)) => {
            cx.findings.name(node, "is no duration in hours to milliseconds, and is left out", "");
            None
        }
        Some((_, Some(time))) => {
            if !name.is_empty() {
                block.set(name, Expr::text(shown(time)));
            }
            Some(time)
        }
        None => None,
    };
    let interval = taken("interval", "interval").unwrap_or(INTERVAL);
    let timeout = taken("timeout", "timeout").unwrap_or(INTERVAL);
    let start = taken("start_period", "").unwrap_or(0);
    let retries = fields.get("retries").and_then(|node| cx.number(node)).unwrap_or(RETRIES).clamp(1, 1000);
    block.set("healthy_after", Expr::Raw("1".to_owned()));
    block.set("unhealthy_after", Expr::Raw(retries.to_string()));
    let within = start.saturating_add(retries.saturating_mul(interval)).saturating_add(timeout).max(START);
    block.set("start_within", Expr::text(shown(within.min(24 * 3_600_000))));
    fields.finish(cx, keys::HEALTH);
    Some(block)
}

/// Returns the words of a test, beginning with CMD or CMD-SHELL.
fn command(cx: &Cx, test: &Node) -> Option<Vec<String>> {
    match &test.data {
        Data::Scalar(_) => Some(vec!["CMD-SHELL".to_owned(), cx.known(test)?]),
        Data::List(items) => items.iter().map(|item| cx.known(item)).collect(),
        _ => None,
    }
}

/// Returns path and port if the test is no more than `curl` or `wget` of a page of the instance itself.
fn http(test: &[String], ports: &[Port]) -> Option<(String, String)> {
    let words = match test.split_first()? {
        (word, rest) if word == "CMD" => rest.to_vec(),
        (word, [line]) if word == "CMD-SHELL" => {
            words(line.trim_end().trim_end_matches("exit 1").trim_end().trim_end_matches("||"))
        }
        _ => return None,
    };
    let (program, rest) = words.split_first()?;
    if !matches!(program.rsplit('/').next()?, "curl" | "wget") {
        return None;
    }
    const FLAGS: [&str; 17] = [
        "-f",
        "--fail",
        "-s",
        "-S",
        "-sS",
        "-fsS",
        "-sf",
        "-fs",
        "-q",
        "--quiet",
        "--spider",
        "--no-verbose",
        "--tries=1",
        "-O-",
        "--silent",
        "--show-error",
        "-L",
    ];
    let urls: Vec<&String> = rest.iter().filter(|word| !FLAGS.contains(&word.as_str())).collect();
    let [url] = urls.as_slice() else { return None };
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let rest = ["localhost", "127.0.0.1", "[::1]"].into_iter().find_map(|host| rest.strip_prefix(host))?;
    let (port, path) = rest.split_once('/').map_or((rest, "/".to_owned()), |(port, path)| (port, format!("/{path}")));
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if port.is_empty() => 80,
        None => return None,
    };
    let port = ports.iter().find(|declared| declared.container == port && declared.http)?;
    path.bytes().all(|b| b.is_ascii_graphic()).then(|| (path, port.name.clone()))
}

/// Reads a duration such as `1m30s`, in milliseconds.
pub(crate) fn millis(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 5] =
        [("ms", 1.0), ("s", 1000.0), ("m", 60_000.0), ("h", 3_600_000.0), ("d", 86_400_000.0)];
    let mut rest = text;
    let mut total = 0.0;
    if rest == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    (!text.is_empty() && total < 1e13).then_some(total as u64)
}

/// Writes a duration in the largest unit that it is a whole number of.
pub(crate) fn shown(millis: u64) -> String {
    match millis {
        m if m % 3_600_000 == 0 && m > 0 => format!("{}h", m / 3_600_000),
        m if m % 60_000 == 0 && m > 0 => format!("{}m", m / 60_000),
        m if m % 1000 == 0 => format!("{}s", m / 1000),
        m => format!("{m}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(millis(text).map(shown).as_deref(), expected, "{text}");
        check("1m30s", Some("90s"));
        check("1.5h", Some("90m"));
        check("500ms", Some("500ms"));
        check("0", Some("0s"));
        check("10us", None);
        check("", None);
        check("5", None);
    }

    #[test]
    fn pages() {
        let port =
            |container: u16| Port { name: format!("p{container}"), container, http: true, published: None, node: None };
        let ports = [port(80), port(8080)];
        let check = |test: &[&str], expected: Option<(&str, &str)>| {
            let test: Vec<String> = test.iter().map(|word| (*word).to_owned()).collect();
            let expected = expected.map(|(path, port)| (path.to_owned(), port.to_owned()));
            assert_eq!(http(&test, &ports), expected, "{test:?}");
        };
        check(&["CMD-SHELL", "curl -f http://localhost:8080/health || exit 1"], Some(("/health", "p8080")));
        check(&["CMD", "wget", "-q", "--spider", "http://127.0.0.1/"], Some(("/", "p80")));
        check(&["CMD", "curl", "-f", "http://localhost:9999/"], None);
        check(&["CMD", "curl", "-f", "-H", "X: y", "http://localhost/"], None);
        check(&["CMD-SHELL", "curl -s http://localhost/ | grep ok"], None);
        check(&["CMD", "pg_isready"], None);
        check(&["CMD", "curl", "https://localhost/"], None);
    }
}
