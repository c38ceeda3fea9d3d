//! A line for each request from outside, written by a thread of its own: a slow disk loses lines, never time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use http::Method;
use serde::Serialize;
use tokio::time::Instant;

use crate::instance::Instance;
use crate::ready::ReadyRoute;
use crate::trace::TraceContext;

/// Lines that may wait to be written: a second of 8,000 requests each.
const WAITING: usize = 8192;
/// The size at which a file is put aside, and how many are kept beside it: half a gigabyte in all.
const LARGEST: u64 = 64 << 20;
const KEPT: u32 = 7;
/// How long lines may wait for others before they are written.
const GATHERING: Duration = Duration::from_millis(500);
/// How often it is looked for them meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// How long the end of the gateway waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The common log format with referrer and user agent (NCSA combined).
    Combined,
    /// One JSON object a line.
    Json,
}

/// What is said of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: Method,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) protocol: &'static str,
    pub(crate) status: u16,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) took: Duration,
    pub(crate) retries: u32,
    pub(crate) hedges: u32,
    pub(crate) route: Option<Arc<ReadyRoute>>,
    pub(crate) instance: Option<Arc<Instance>>,
    pub(crate) referrer: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) trace: Option<TraceContext>,
}

/// What is said to the thread that writes.
#[derive(Debug)]
enum Entry {
    Line(SystemTime, Box<Line>),
    /// All before it is to be in the file.
    Flush(SyncSender<()>),
}

/// Takes lines.
#[derive(Debug)]
pub(crate) struct AccessLog {
    entries: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Writes to `DATA/logs/access.log`.
    ///
    /// # Errors
    /// If the file can't be opened, or the machine has no more threads.
    pub(crate) fn in_data(data: &Path, format: LogFormat) -> io::Result<Self> {
        let folder = data.join("logs");
        fs::create_dir_all(&folder)?;
        let file = Rotated::open(folder.join("access.log"), LARGEST)?;
        let (entries, arriving) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let told = lost.clone();
        std::thread::Builder::new().name("access-log".into()).spawn(move || write(&arriving, file, format, &told))?;
        Ok(Self { entries, lost })
    }

    /// Writes a line later. It is lost if too many wait.
    pub(crate) fn say(&self, line: Line) {
        // The time of day is what a log is about.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        if self.entries.try_send(Entry::Line(now, Box::new(line))).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Waits until all lines so far are in the file, or the disk is too slow.
    pub(crate) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.entries.try_send(Entry::Flush(done)).is_ok() {
            // Whether it is done or not, nothing more can be.
            let _ = wait.recv_timeout(PATIENCE);
        }
    }
}

fn write(entries: &Receiver<Entry>, mut file: Rotated, format: LogFormat, lost: &AtomicU64) {
    let mut next = entries.recv().ok();
    while next.is_some() {
        let began = Instant::now();
        let mut result = Ok(());
        let mut flushed = None;
        while let Some(entry) = next.take() {
            match entry {
                Entry::Line(at, line) => result = result.and(file.line(&in_words(at, &line, format))),
                Entry::Flush(done) => flushed = Some(done),
            }
            // Lines are looked for from time to time: to be woken by each would cost the request that it is of.
            while next.is_none() && flushed.is_none() && began.elapsed() < GATHERING {
                match entries.try_recv() {
                    Ok(entry) => next = Some(entry),
                    Err(TryRecvError::Empty) => sleep(LOOK),
                    Err(TryRecvError::Disconnected) => break,
                }
            }
        }
        if let Err(error) = result.and(file.flush()) {
            tracing::warn!("can't write `{}`: {error}", file.path.display());
        }
        let lost = lost.swap(0, Relaxed);
        if lost > 0 {
            tracing::warn!("{lost} lines of the access log were lost: the disk is too slow");
        }
        // Who waits for it may have given up.
        if let Some(done) = flushed {
            let _ = done.send(());
        }
        next = entries.recv().ok();
    }
}

/// Returns a line in words, with its end.
fn in_words(at: SystemTime, line: &Line, format: LogFormat) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or_default();
    if format == LogFormat::Json {
        let row = Row {
            at: format!("{at:.3}"),
            client: line.client,
            method: line.method.as_str(),
            host: &line.host,
            target: &line.target,
            protocol: line.protocol,
            status: line.status,
            received: line.received,
            sent: line.sent,
            seconds: line.took.as_secs_f64(),
            retries: line.retries,
            hedges: line.hedges,
            service: line.route.as_ref().map(|route| route.service.as_str()),
            route: line.route.as_ref().map(|route| route.label.as_str()),
            instance: line.instance.as_ref().map(|instance| instance.id.to_string()),
            referrer: line.referrer.as_deref(),
            user_agent: line.user_agent.as_deref(),
            trace: line.trace.map(|trace| trace.id()),
        };
        // Strings and numbers always have a JSON form.
        return without_controls(serde_json::to_string(&row).unwrap_or_default()) + "\n";
    }
    let zoned = at.strftime("%d/%b/%Y:%H:%M:%S +0000");
    let client = line.client.map_or("-".to_owned(), |client| client.to_string());
    let quoted = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), escaped);
    format!(
        "{client} - - [{zoned}] \"{} {} {}\" {} {} \"{}\" \"{}\"\n",
        line.method,
        escaped(&line.target),
        line.protocol,
        // Who reads this form knows of no status without an answer; nginx' own for a client that has left has become usual.
        if line.status == 0 { 499 } else { line.status },
        line.sent,
        quoted(&line.referrer),
        quoted(&line.user_agent),
    )
}

/// A line in JSON.
#[derive(Serialize)]
struct Row<'l> {
    at: String,
    client: Option<IpAddr>,
    method: &'l str,
    host: &'l str,
    target: &'l str,
    protocol: &'l str,
    status: u16,
    received: u64,
    sent: u64,
    seconds: f64,
    retries: u32,
    hedges: u32,
    service: Option<&'l str>,
    route: Option<&'l str>,
    instance: Option<String>,
    referrer: Option<&'l str>,
    user_agent: Option<&'l str>,
    trace: Option<String>,
}

/// Returns JSON in which terminals find nothing to obey either.
fn without_controls(json: String) -> String {
    if !json.contains(char::is_control) {
        return json;
    }
    let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

/// Returns a text that can neither end its quotes nor its line.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c == '"' || c == '\\' || c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// A file that is put aside when it is large: `access.log.1` is the last before it.
#[derive(Debug)]
pub(crate) struct Rotated {
    path: PathBuf,
    out: BufWriter<File>,
    size: u64,
    largest: u64,
}

impl Rotated {
    /// Opens a file to append to; its folder must be there.
    ///
    /// # Errors
    /// If it can't be opened.
    pub(crate) fn open(path: PathBuf, largest: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, out: BufWriter::new(file), size, largest })
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Appends a line, which has its end.
    ///
    /// # Errors
    /// If it can't be written, or the file not be put aside.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.largest {
            self.out.flush()?;
            // A gateway that takes over, or has handed over, writes to the same one, and may have put it aside already.
            let (own, there) = (self.out.get_ref().metadata()?, fs::metadata(&self.path));
            if !there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
                *self = Self::open(self.path.clone(), self.largest)?;
                return self.line(line);
            }
            let aside = |number: u32| self.path.with_extension(format!("log.{number}"));
            for number in (1..KEPT).rev() {
                // Those that are not there yet need not be moved.
                let _ = fs::rename(aside(number), aside(number + 1));
            }
            fs::rename(&self.path, aside(1))?;
            *self = Self::open(self.path.clone(), self.largest)?;
        }
        self.size += line.len() as u64;
        self.out.write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            client: "192.0.2.1".parse().ok(),
            method: Method::GET,
            host: "a.example".into(),
            target: "/x\"y?z".into(),
            protocol: "HTTP/1.1",
            status: 200,
            sent: 5,
            took: Duration::from_millis(250),
            user_agent: Some("curl\n\"8\"".into()),
            ..Line::default()
        }
    }

    #[test]
    fn lines() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
        assert_eq!(
            in_words(at, &line(), LogFormat::Combined),
            "192.0.2.1 - - [21/Sep/2026:14:13:20 +0000] \"GET /x\\\"y?z HTTP/1.1\" 200 5 \"-\" \"curl\\n\\\"8\\\"\"\n"
        );
        let json: serde_json::Value = serde_json::from_str(&in_words(at, &line(), LogFormat::Json)).unwrap();
        assert_eq!(
            (&json["at"], &json["status"], &json["seconds"]),
            (&"2026-09-21T14:13:20.123Z".into(), &200.into(), &0.25.into())
        );
    }

    #[test]
    fn large_files_are_put_aside_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = Rotated::open(folder.path().join("access.log"), 100).unwrap();
        for number in 0..100 {
            file.line(&format!("{number:059}\n")).unwrap();
        }
        file.out.flush().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        assert!(read("access.log").ends_with("99\n") && read("access.log.1").ends_with("98\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1 + KEPT as usize);
    }

    #[test]
    fn a_file_that_another_has_put_aside_is_not_put_aside_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Rotated::open(folder.path().join("access.log"), 100).unwrap();
        let (mut old, mut new) = (open(), open());
        let write = |file: &mut Rotated, text: &str| {
            file.line(&format!("{text:059}\n")).unwrap();
            file.flush().unwrap();
        };
        write(&mut old, "1");
        write(&mut new, "2");
        write(&mut new, "3");
        write(&mut old, "4");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default().lines().count();
        assert_eq!(["access.log", "access.log.1", "access.log.2"].map(read), [1, 1, 2]);
    }
}
