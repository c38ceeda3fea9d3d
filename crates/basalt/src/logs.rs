//! The output of instances, as the API wants it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use basalt_api::{LogFilter, LogLine, LogLines, LogSource, LogStream};
use basalt_container::logs::{Filter, Follow, InstanceLine};
use futures::StreamExt;

/// How often new lines are looked for: what appears within it seems immediate.
const EVERY: Duration = Duration::from_millis(100);

/// The logs of a data directory.
#[derive(Debug, Clone)]
pub struct Logs {
    /// The data directory.
    pub data: PathBuf,
}

impl LogSource for Logs {
    fn lines(&self, filter: &LogFilter) -> io::Result<Vec<LogLine>> {
        let lines = basalt_container::logs::read(&self.data, &wanted(filter)?, filter.tail)?;
        Ok(lines.into_iter().map(shown).collect())
    }

    fn follow(&self, filter: LogFilter) -> io::Result<LogLines> {
        let start = Follow::new(&self.data, wanted(&filter)?);
        let first = async move { blocking(move || start.start(filter.tail)).await };
        let lines = futures::stream::once(first).flat_map(|begun| match begun {
            Ok((lines, follow)) => futures::stream::iter(lines.into_iter().map(Ok)).chain(growing(follow)).boxed(),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        });
        Ok(lines.map(|line| line.map(shown)).boxed())
    }
}

/// Returns the lines that come from now on; it ends with the first error.
fn growing(follow: Follow) -> impl futures::Stream<Item = io::Result<InstanceLine>> {
    let more = futures::stream::unfold(Some(follow), |follow| async move {
        let mut follow = follow?;
        tokio::time::sleep(EVERY).await;
        let read = blocking(move || follow.more().map(|lines| (lines, follow))).await;
        Some(match read {
            Ok((lines, follow)) => (lines.into_iter().map(Ok).collect(), Some(follow)),
            Err(error) => (vec![Err(error)], None),
        })
    });
    more.flat_map(futures::stream::iter)
}

/// Reads where waiting for a disk holds up nobody.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

fn wanted(filter: &LogFilter) -> io::Result<Filter> {
    let instance = match &filter.instance {
        Some(id) => Some(id.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?),
        None => None,
    };
    Ok(Filter { services: filter.service.iter().cloned().collect(), instance })
}

fn shown(line: InstanceLine) -> LogLine {
    let stream = match line.line.stream {
        basalt_container::logs::Stream::Stdout => LogStream::Stdout,
        basalt_container::logs::Stream::Stderr => LogStream::Stderr,
    };
    LogLine::new(line.line.at, line.instance, stream, line.line.line)
}
