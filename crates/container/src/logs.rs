//! What instances say: kept as they wrote it, a file for each stream, with the times beside it.
//!
//! `DATA/logs/SERVICE/INSTANCE/STREAM.N.log` holds the bytes. Beside it, `….times` says in lines of `END AT` that what
//! is before byte END had come by AT (milliseconds since 1970). The higher N, the newer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use basalt_model::{InstanceId, Millis, Name};
use serde::{Deserialize, Serialize};

/// How many files there are per instance and stream, the one in use included.
pub(crate) const FILES: u32 = 3;

/// A longer line is shown in pieces: 16 KiB is what container engines cut at, and few programs write more in one.
const LONGEST_LINE: usize = 16 << 10;

/// How many last lines of an instance are shown when it dies.
const LAST_LINES: usize = 20;

/// How many instances of a service that have ended keep their logs: some updates of a large service.
const ENDED: usize = 100;

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// When its end had come.
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

/// Goes along with logs that grow. Ask [`Follow::more`] as often as new lines should be seen.
#[derive(Debug)]
pub struct Follow {
    data: PathBuf,
    filter: Filter,
    /// Per instance and stream: which file was read how far.
    places: BTreeMap<(InstanceId, Stream), (u32, Place)>,
}

/// How far a file was read.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    /// The first byte of the next line.
    byte: u64,
    /// Where in the times its own is found, or further on.
    time: u64,
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
        let mut lines = self.more()?;
        let skip = tail.map_or(0, |n| lines.len().saturating_sub(n));
        Ok((lines.split_off(skip), self))
    }

    /// Returns the lines that have come since the last call.
    ///
    /// # Errors
    /// If a log can't be read.
    pub fn more(&mut self) -> io::Result<Vec<InstanceLine>> {
        let mut lines = Vec::new();
        for part in parts(&self.data, &self.filter)? {
            let (number, place) = self.places.entry((part.id.clone(), part.stream)).or_default();
            if part.number < *number {
                continue;
            }
            if part.number > *number {
                (*number, *place) = (part.number, Place::default());
            }
            let own = read_from(&part, place)?;
            lines.extend(own.into_iter().map(|line| InstanceLine { instance: part.id.clone(), line }));
        }
        // Lines of the same time stay in the order of their instances.
        lines.sort_by_key(|l| l.line.at);
        Ok(lines)
    }
}

/// Returns what an instance said last, since a time; empty if there is no log.
pub(crate) fn last_lines(data: &Path, id: &InstanceId, since: Millis) -> Vec<String> {
    let mut lines = Vec::new();
    for part in parts_of(data, id).unwrap_or_default() {
        let size = std::fs::metadata(&part.bytes).map_or(0, |m| m.len());
        let mut place = Place { byte: size.saturating_sub((LAST_LINES * LONGEST_LINE) as u64), time: 0 };
        let within = usize::from(place.byte > 0);
        // The first may be the end of a line only.
        lines.extend(read_from(&part, &mut place).unwrap_or_default().into_iter().skip(within));
    }
    lines.retain(|line| line.at >= since);
    lines.sort_by_key(|line| line.at);
    let skip = lines.len().saturating_sub(LAST_LINES);
    lines.into_iter().skip(skip).map(|line| line.line).collect()
}

/// Removes what the longest-ended instances of a service have said, if there are many; `runs` tells those that have not ended.
pub(crate) fn prune(data: &Path, service: &Name, runs: impl Fn(&InstanceId) -> bool) -> io::Result<()> {
    let mut ended = entries(&data.join("logs").join(service.as_str()))?;
    ended.retain(|dir| id_of(dir).is_some_and(|id| !runs(&id)));
    let Some(surplus @ 1..) = ended.len().checked_sub(ENDED) else { return Ok(()) };
    // A file's coming or going, not its growth: the first is when the instance began.
    ended.sort_by_cached_key(|dir| std::fs::metadata(dir).and_then(|m| m.modified()).ok());
    ended[..surplus].iter().try_for_each(std::fs::remove_dir_all)
}

/// One file of what an instance has written to one stream, and its times.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    id: InstanceId,
    stream: Stream,
    pub(crate) number: u32,
    pub(crate) bytes: PathBuf,
    pub(crate) times: PathBuf,
}

impl Part {
    pub(crate) fn new(data: &Path, id: &InstanceId, stream: Stream, number: u32) -> Self {
        let dir = dir(data, id);
        let path = |kind: &str| dir.join(format!("{}.{number}.{kind}", stream.name()));
        Self { id: id.clone(), stream, number, bytes: path("log"), times: path("times") }
    }

    /// Returns the newest of an instance and stream.
    pub(crate) fn newest(data: &Path, id: &InstanceId, stream: Stream) -> io::Result<Option<Self>> {
        Ok(parts_of(data, id)?.into_iter().rfind(|part| part.stream == stream))
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.bytes)?;
        std::fs::remove_file(&self.times)
    }
}

impl Stream {
    pub(crate) const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

fn dir(data: &Path, id: &InstanceId) -> PathBuf {
    data.join("logs").join(id.service().as_str()).join(id.to_string())
}

fn id_of(dir: &Path) -> Option<InstanceId> {
    dir.file_name()?.to_str()?.parse().ok()
}

/// Returns all parts that are wanted, those of an instance and stream from the oldest on.
fn parts(data: &Path, filter: &Filter) -> io::Result<Vec<Part>> {
    let ids = match &filter.instance {
        Some(id) => vec![id.clone()],
        None => {
            let mut ids = Vec::new();
            for service in entries(&data.join("logs"))?.iter().filter(|path| path.is_dir()) {
                ids.extend(entries(service)?.iter().filter_map(|dir| id_of(dir)));
            }
            ids.sort();
            ids
        }
    };
    let mut parts = Vec::new();
    for id in ids.iter().filter(|id| filter.wants(id)) {
        parts.extend(parts_of(data, id)?);
    }
    Ok(parts)
}

fn parts_of(data: &Path, id: &InstanceId) -> io::Result<Vec<Part>> {
    let part = |path: PathBuf| {
        let (stream, number) = path.file_name()?.to_str()?.strip_suffix(".log")?.split_once('.')?;
        let stream = Stream::ALL.into_iter().find(|s| s.name() == stream)?;
        Some(Part::new(data, id, stream, number.parse().ok()?))
    };
    let mut parts: Vec<Part> = entries(&dir(data, id))?.into_iter().filter_map(part).collect();
    parts.sort();
    Ok(parts)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reads whole lines from a place on, and moves that behind the last. What has no time yet is left for later.
fn read_from(part: &Part, place: &mut Place) -> io::Result<Vec<LogLine>> {
    let open = |path: &Path| match File::open(path) {
        Ok(file) => Ok(Some(file)),
        // Removed just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let (Some(mut bytes), Some(mut times)) = (open(&part.bytes)?, open(&part.times)?) else { return Ok(Vec::new()) };
    if bytes.metadata()?.len() <= place.byte {
        return Ok(Vec::new());
    }
    times.seek(SeekFrom::Start(place.time))?;
    let times = read_times(BufReader::new(times), place.time)?;
    let Some(end) = times.last().map(|t| t.end) else { return Ok(Vec::new()) };
    bytes.seek(SeekFrom::Start(place.byte))?;
    let mut text = Vec::new();
    bytes.take(end.saturating_sub(place.byte)).read_to_end(&mut text)?;

    let (mut lines, mut rest, mut time) = (Vec::new(), &text[..], 0);
    while let Some((line, length)) = next_line(rest) {
        rest = &rest[length..];
        place.byte += length as u64;
        while times[time].end < place.byte {
            time += 1;
        }
        let line = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
        lines.push(LogLine { at: times[time].at, stream: part.stream, line });
    }
    // The next line ends no earlier than where that of the last one's time does.
    place.time = times[time].begins;
    Ok(lines)
}

/// Returns the first line without its end, and the length of both; `None` if it is not whole and not long.
fn next_line(text: &[u8]) -> Option<(&[u8], usize)> {
    let reach = &text[..text.len().min(LONGEST_LINE)];
    match reach.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some((&text[..end], end + 1)),
        None if reach.len() == LONGEST_LINE => Some((reach, LONGEST_LINE)),
        None => None,
    }
}

/// By when what is before a byte had come.
struct Time {
    /// The byte.
    end: u64,
    at: Millis,
    /// Where this is written in the file of times.
    begins: u64,
}

/// Reads times from where `begins` is; one that was cut off by a power loss is passed over.
fn read_times(mut reader: impl BufRead, mut begins: u64) -> io::Result<Vec<Time>> {
    let (mut times, mut line) = (Vec::new(), String::new());
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        let pair = line.trim_end().split_once(' ').and_then(|(end, at)| Some((end.parse().ok()?, at.parse().ok()?)));
        times.extend(pair.map(|(end, at)| Time { end, at: Millis(at), begins }));
        begins += line.len() as u64;
        line.clear();
    }
    Ok(times)
}
