//! What instances say: kept as JSON lines with time and stream in `DATA/logs/SERVICE/INSTANCE.log`.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use basalt_model::{InstanceId, Millis};
use serde::{Deserialize, Serialize};

/// A file is put aside when it reaches 10 MiB: small enough to open in an editor, days of a quiet service.
const LONGEST_FILE: u64 = 10 << 20;

/// How many files there are per instance, the one in use included: a chatty instance has at most 30 MiB.
const FILES: u32 = 3;

/// A longer line is kept in pieces: 16 KiB is what container engines cut at, and few programs write more in one.
const LONGEST_LINE: usize = 16 << 10;

/// How many last lines are kept in memory per instance, to be shown when it dies.
const LAST_LINES: usize = 20;

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When its end was read.
    pub at: Millis,
    /// Where it was written to.
    pub stream: Stream,
    /// Without the line break; bytes that are not UTF-8 are replaced.
    pub line: String,
}

/// A line, and who said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLine {
    /// The instance.
    pub instance: InstanceId,
    /// What it said.
    #[serde(flatten)]
    pub line: LogLine,
}

/// Which instances' lines are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Services and jobs by name; empty is all.
    pub services: Vec<String>,
    /// A single instance.
    pub instance: Option<InstanceId>,
}

impl Filter {
    fn wants(&self, id: &InstanceId) -> bool {
        let service = self.services.is_empty() || self.services.iter().any(|s| s == id.service().as_str());
        service && self.instance.as_ref().is_none_or(|i| i == id)
    }
}

/// Returns lines in the order of time, the last `tail` of them if it is given.
///
/// # Errors
/// If a log can't be read.
pub fn read(data: &Path, filter: &Filter, tail: Option<usize>) -> io::Result<Vec<InstanceLine>> {
    Ok(Follow::new(data, filter.clone()).start(tail)?.0)
}

/// Returns the last `n` lines of an instance, without time and stream; empty if there is no log.
pub fn last_lines(data: &Path, id: &InstanceId, n: usize) -> Vec<String> {
    let filter = Filter { services: Vec::new(), instance: Some(id.clone()) };
    let lines = read(data, &filter, Some(n)).unwrap_or_default();
    lines.into_iter().map(|l| l.line.line).collect()
}

/// Goes along with logs that grow. Ask [`Follow::more`] as often as new lines should be seen.
#[derive(Debug)]
pub struct Follow {
    data: PathBuf,
    filter: Filter,
    /// Per instance: which file (inode) was read how far.
    places: BTreeMap<InstanceId, (u64, u64)>,
}

impl Follow {
    /// Returns what goes along from the beginning of the logs on.
    pub fn new(data: &Path, filter: Filter) -> Self {
        Self { data: data.to_owned(), filter, places: BTreeMap::new() }
    }

    /// Returns the lines that are there, the last `tail` of them if it is given, and what goes along from there on.
    ///
    /// # Errors
    /// If a log can't be read.
    pub fn start(mut self, tail: Option<usize>) -> io::Result<(Vec<InstanceLine>, Self)> {
        let mut lines = Vec::new();
        for (id, path) in self.files()? {
            let mut own = Vec::new();
            for n in (1..FILES).rev() {
                own.extend(read_from(&aside(&path, n), 0)?.0);
            }
            let (newest, end) = read_from(&path, 0)?;
            own.extend(newest);
            if let Ok(meta) = std::fs::metadata(&path) {
                self.places.insert(id.clone(), (meta.ino(), end));
            }
            let skip = tail.map_or(0, |n| own.len().saturating_sub(n));
            lines.extend(own.into_iter().skip(skip).map(|line| InstanceLine { instance: id.clone(), line }));
        }
        lines.sort_by_key(|l| l.line.at);
        let skip = tail.map_or(0, |n| lines.len().saturating_sub(n));
        Ok((lines.split_off(skip), self))
    }

    /// Returns the lines that have come since the last call.
    ///
    /// # Errors
    /// If a log can't be read.
    pub fn more(&mut self) -> io::Result<Vec<InstanceLine>> {
        let mut lines = Vec::new();
        for (id, path) in self.files()? {
            let (inode, end) = self.places.get(&id).copied().unwrap_or_default();
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            let mut own = Vec::new();
            let mut from = 0;
            if inode == meta.ino() {
                from = end;
            } else if inode != 0 && std::fs::metadata(aside(&path, 1)).is_ok_and(|m| m.ino() == inode) {
                own.extend(read_from(&aside(&path, 1), end)?.0);
            }
            let (newest, end) = read_from(&path, from)?;
            own.extend(newest);
            self.places.insert(id.clone(), (meta.ino(), end));
            lines.extend(own.into_iter().map(|line| InstanceLine { instance: id.clone(), line }));
        }
        lines.sort_by_key(|l| l.line.at);
        Ok(lines)
    }

    fn files(&self) -> io::Result<Vec<(InstanceId, PathBuf)>> {
        let mut files = Vec::new();
        for service in entries(&self.data.join("logs"))? {
            if !service.is_dir() {
                continue;
            }
            for path in entries(&service)? {
                let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".log"));
                let Some(id) = name.and_then(|n| n.parse::<InstanceId>().ok()) else { continue };
                if self.filter.wants(&id) {
                    files.push((id, path));
                }
            }
        }
        // Lines of the same time stay in the order of their instances.
        files.sort();
        Ok(files)
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reads whole lines from an offset on; returns them and the offset behind the last. An absent file has none.
fn read_from(path: &Path, from: u64) -> io::Result<(Vec<LogLine>, u64)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file.take(LONGEST_FILE * 2));
    let (mut lines, mut end, mut line) = (Vec::new(), from, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        end += line.len() as u64;
        // A line cut off by a power loss is passed over.
        lines.extend(serde_json::from_slice::<LogLine>(&line).ok());
        line.clear();
    }
    Ok((lines, end))
}

fn aside(path: &Path, n: u32) -> PathBuf {
    path.with_extension(format!("log.{n}"))
}

/// Returns the log of an instance.
pub(crate) fn path(data: &Path, id: &InstanceId) -> PathBuf {
    data.join("logs").join(id.service().as_str()).join(format!("{id}.log"))
}

/// Writes the log of one instance: joins parts of lines, cuts endless ones, and puts full files aside.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    parts: [Vec<u8>; 2],
    last: VecDeque<String>,
}

impl LogWriter {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, parts: [Vec::new(), Vec::new()], last: VecDeque::new() })
    }

    /// Takes bytes that were read from a stream.
    pub(crate) fn write(&mut self, at: Millis, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut part = std::mem::take(&mut self.parts[stream as usize]);
        let mut text = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                part.push(*byte);
            }
            if *byte == b'\n' || part.len() >= LONGEST_LINE {
                self.line(at, stream, &part, &mut text);
                part.clear();
            }
        }
        self.parts[stream as usize] = part;
        self.put(&text)
    }

    /// Writes what is left of lines that were not ended, and returns the last lines.
    pub(crate) fn finish(mut self, at: Millis) -> io::Result<Vec<String>> {
        let mut text = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let part = std::mem::take(&mut self.parts[stream as usize]);
            if !part.is_empty() {
                self.line(at, stream, &part, &mut text);
            }
        }
        self.put(&text)?;
        Ok(self.last.into())
    }

    fn line(&mut self, at: Millis, stream: Stream, bytes: &[u8], text: &mut Vec<u8>) {
        let line = String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned();
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.clone());
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut *text, &LogLine { at, stream, line });
        text.push(b'\n');
    }

    fn put(&mut self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + text.len() as u64 > LONGEST_FILE {
            for n in (1..FILES).rev() {
                let from = if n == 1 { self.path.clone() } else { aside(&self.path, n - 1) };
                match std::fs::rename(from, aside(&self.path, n)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.file = append(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(text)?;
        self.size += text.len() as u64;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    fn texts(lines: &[InstanceLine]) -> Vec<&str> {
        lines.iter().map(|l| l.line.line.as_str()).collect()
    }

    #[test]
    fn lines_are_joined_merged_and_followed() {
        let dir = tempfile::tempdir().unwrap();
        let open = |i: &str| LogWriter::open(path(dir.path(), &id(i))).unwrap();
        let (mut a, mut b) = (open("web-1-1"), open("api-1-1"));
        a.write(Millis(1), Stream::Stdout, b"hel").unwrap();
        a.write(Millis(2), Stream::Stderr, b"oh\n").unwrap();
        a.write(Millis(3), Stream::Stdout, b"lo\r\nrest").unwrap();
        b.write(Millis(2), Stream::Stdout, b"\xffb\n").unwrap();
        let all = Filter::default();
        let (lines, mut follow) = Follow::new(dir.path(), all.clone()).start(None).unwrap();
        assert_eq!(texts(&lines), ["\u{fffd}b", "oh", "hello"]);
        assert_eq!(lines[1].line.stream, Stream::Stderr);
        assert_eq!(texts(&read(dir.path(), &all, Some(1)).unwrap()), ["hello"]);
        let web = Filter { services: vec!["web".into()], instance: None };
        assert_eq!(texts(&read(dir.path(), &web, None).unwrap()), ["oh", "hello"]);
        assert!(follow.more().unwrap().is_empty());
        open("new-1-1").write(Millis(4), Stream::Stdout, b"new\n").unwrap();
        assert_eq!(a.finish(Millis(5)).unwrap(), ["oh", "hello", "rest"]);
        assert_eq!(texts(&follow.more().unwrap()), ["new", "rest"]);
        assert_eq!(last_lines(dir.path(), &id("web-1-1"), 2), ["hello", "rest"]);
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let at = path(dir.path(), &id("web-1-1"));
        let mut log = LogWriter::open(at.clone()).unwrap();
        let mut follow = Follow::new(dir.path(), Filter::default());
        let chunk = [vec![b'x'; LONGEST_LINE - 1], b"\n".to_vec()].concat().repeat(32);
        let mut followed = 0;
        for n in 0..80 {
            log.write(Millis(n), Stream::Stdout, &chunk).unwrap();
            followed += follow.more().unwrap().len();
        }
        assert_eq!(followed, 80 * 32);
        let sizes: Vec<u64> =
            [at.clone(), aside(&at, 1), aside(&at, 2)].iter().map(|p| p.metadata().unwrap().len()).collect();
        assert!(sizes.iter().all(|s| *s <= LONGEST_FILE), "{sizes:?}");
        assert!(!aside(&at, 3).exists());
    }

    #[test]
    fn an_endless_line_is_kept_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path().join("web-1-1.log")).unwrap();
        log.write(Millis(1), Stream::Stdout, &vec![b'x'; 3 * LONGEST_LINE + 5]).unwrap();
        assert!(log.parts[0].len() < LONGEST_LINE);
        let last = log.finish(Millis(2)).unwrap();
        assert_eq!(last.iter().map(String::len).collect::<Vec<_>>(), [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 5]);
    }
}
