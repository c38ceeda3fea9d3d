//! Collects what instances write. What is in a pipe goes to the log within the kernel, so that at no moment it is in
//! this process alone: one that is killed leaves all of it in the one or in the other.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use basalt_model::{InstanceId, Millis};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::watch::{now, watchable};
use crate::logs::{FILES, Part, Stream};

/// How much is taken at once: what a pipe holds (pipe(7)).
const CHUNK: usize = 64 << 10;

/// How often in a row one pipe is read: one that is written to without pause must not keep the others from being heard.
const ROUNDS: usize = 16;

/// A file is full when it has 5 MiB with its times, and the line is at its end: small enough to open in an editor,
/// days of a quiet service. A chatty instance has three of them for each of two streams: 30 MiB.
const FULL: u64 = 5 << 20;

/// At this size it is full in the midst of a line, too.
const OVERFULL: u64 = 2 * FULL;

/// The collecting of what one instance writes.
#[derive(Debug)]
pub(super) struct Collector {
    finish: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    /// Begins to collect from the pipes in an instance's directory.
    pub(super) fn start(dir: &Path, data: &Path, id: &InstanceId) -> io::Result<Self> {
        let open = |stream: Stream| {
            // Opened for both directions, so that the end of one of the instance's programs is no end of the pipe.
            let pipe = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(dir.join(stream.name()))?;
            Ok::<_, io::Error>((watchable(OwnedFd::from(pipe))?, LogWriter::open(data, id, stream)?))
        };
        let streams = [open(Stream::Stdout)?, open(Stream::Stderr)?];
        let (finish, finished) = oneshot::channel();
        Ok(Self { finish, task: tokio::task::spawn_local(collect(streams, finished)) })
    }

    /// Collects what is left in the pipes. To be called after the instance has ended.
    pub(super) async fn finish(self) {
        // Both fail only if the task has ended.
        let _ = self.finish.send(());
        let _ = self.task.await;
    }
}

async fn collect(mut streams: [(AsyncFd<OwnedFd>, LogWriter); 2], mut finished: oneshot::Receiver<()>) {
    loop {
        let [(stdout, _), (stderr, _)] = &streams;
        tokio::select! {
            biased;
            _ = stdout.readable() => {}
            _ = stderr.readable() => {}
            _ = &mut finished => break,
        }
        for (pipe, log) in &mut streams {
            for _ in 0..ROUNDS {
                if pipe.try_io(Interest::READABLE, |pipe| log.take(pipe.as_fd())).is_err() {
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
    for (pipe, log) in &mut streams {
        while log.take(pipe.as_fd()).is_ok() {}
        log.finish();
    }
}

/// The log of one stream of one instance.
#[derive(Debug)]
struct LogWriter {
    data: PathBuf,
    id: InstanceId,
    stream: Stream,
    part: Part,
    bytes: File,
    size: u64,
    times: File,
    size_of_times: u64,
    /// Whether the last thing was lost, as it was told.
    failing: bool,
}

impl LogWriter {
    fn open(data: &Path, id: &InstanceId, stream: Stream) -> io::Result<Self> {
        let part = Part::newest(data, id, stream)?.unwrap_or_else(|| Part::new(data, id, stream, 1));
        if let Some(dir) = part.bytes.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let (bytes, times) = open(&part)?;
        let (size, times_so_far) = (bytes.metadata()?.len(), std::fs::read(&part.times)?);
        let mut writer = Self {
            data: data.to_owned(),
            id: id.clone(),
            stream,
            part,
            bytes,
            size,
            times,
            size_of_times: times_so_far.len() as u64,
            failing: false,
        };
        let last = times_so_far.rsplit(|byte| *byte == b'\n').nth(1).map(String::from_utf8_lossy);
        let known = last.and_then(|last| last.split_once(' ')?.0.parse::<u64>().ok()).unwrap_or(0);
        if !(times_so_far.is_empty() || times_so_far.ends_with(b"\n")) || known > size {
            // What a power loss has torn is not written to again.
            writer.next()?;
        } else if known < size {
            // A killed keeper had it taken, but could not say when.
            writer.note_time(now())?;
        }
        Ok(writer)
    }

    /// Moves what a pipe holds into the log.
    ///
    /// # Errors
    /// `WouldBlock` if it holds nothing.
    fn take(&mut self, pipe: BorrowedFd<'_>) -> io::Result<()> {
        let moved = self.make_room().map_err(|_| Errno::IO).and_then(|()| {
            let (mut at, flags) = (self.size, SpliceFlags::NONBLOCK);
            splice(pipe, None, &self.bytes, Some(&mut at), CHUNK, flags)
        });
        let noted = match moved {
            Ok(moved) => {
                self.size += moved as u64;
                self.note_time(now())
            }
            Err(error @ (Errno::AGAIN | Errno::INTR)) => return Err(error.into()),
            // The disk is full, or not for this: what can't be kept must not stop the program that writes it.
            Err(error) => self.copy(pipe)?.map_err(|_| error.into()),
        };
        if let Err(error) = &noted
            && !self.failing
        {
            tracing::warn!(id = %self.id, stream = self.stream.name(), %error, "could not write a log; what is written meanwhile is lost");
        }
        self.failing = noted.is_err();
        Ok(())
    }

    /// Copies what a pipe holds, through this process; what can't be written is dropped.
    ///
    /// # Errors
    /// If it can't be read; within that, if it can't be written.
    fn copy(&mut self, pipe: BorrowedFd<'_>) -> io::Result<io::Result<()>> {
        let mut chunk = vec![0; CHUNK];
        let length = rustix::io::read(pipe, &mut chunk)?;
        Ok(self.put(&chunk[..length]))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.write_all_at(bytes, self.size)?;
        self.size += bytes.len() as u64;
        self.note_time(now())
    }

    fn note_time(&mut self, at: Millis) -> io::Result<()> {
        let line = format!("{} {}\n", self.size, at.0);
        self.times.write_all(line.as_bytes())?;
        self.size_of_times += line.len() as u64;
        Ok(())
    }

    /// Goes on with a new file if the one in use is full.
    fn make_room(&mut self) -> io::Result<()> {
        match self.size + self.size_of_times {
            FULL..OVERFULL if self.ends_within_line()? => Ok(()),
            FULL.. => self.next(),
            _ => Ok(()),
        }
    }

    fn next(&mut self) -> io::Result<()> {
        let part = Part::new(&self.data, &self.id, self.stream, self.part.number + 1);
        (self.bytes, self.times) = open(&part)?;
        (self.part, self.size, self.size_of_times) = (part, 0, 0);
        if let Some(oldest @ 1..) = self.part.number.checked_sub(FILES) {
            Part::new(&self.data, &self.id, self.stream, oldest).remove()?;
        }
        Ok(())
    }

    fn ends_within_line(&self) -> io::Result<bool> {
        let mut last = [b'\n'];
        if let Some(at) = self.size.checked_sub(1) {
            self.bytes.read_exact_at(&mut last, at)?;
        }
        Ok(last != [b'\n'])
    }

    /// Ends a line that the program has not ended.
    fn finish(&mut self) {
        if let Err(error) = self.ends_within_line().and_then(|within| if within { self.put(b"\n") } else { Ok(()) }) {
            tracing::warn!(id = %self.id, %error, "could not end a log");
        }
    }
}

fn open(part: &Part) -> io::Result<(File, File)> {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    // The times first: who sees a log looks for them.
    let times = options.clone().append(true).open(&part.times)?;
    // Not to append: the kernel splices into no such file (splice(2)).
    Ok((options.read(true).write(true).open(&part.bytes)?, times))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{Filter, Follow, read};

    /// A pipe and the log that it goes to.
    struct World {
        dir: tempfile::TempDir,
        read: OwnedFd,
        write: File,
    }

    impl World {
        fn new() -> Self {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
            Self { dir: tempfile::tempdir().unwrap(), read, write: File::from(write) }
        }

        fn open(&self, id: &str, stream: Stream) -> LogWriter {
            LogWriter::open(self.dir.path(), &id.parse().unwrap(), stream).unwrap()
        }

        fn say(&mut self, log: &mut LogWriter, text: &[u8]) {
            self.write.write_all(text).unwrap();
            while log.take(self.read.as_fd()).is_ok() {}
        }

        fn lines(&self) -> Vec<String> {
            let lines = read(self.dir.path(), &Filter::default(), None).unwrap();
            lines.into_iter().map(|l| l.line.line).collect()
        }
    }

    fn texts(lines: Vec<crate::logs::InstanceLine>) -> Vec<String> {
        lines.into_iter().map(|l| l.line.line).collect()
    }

    #[test]
    fn lines_are_joined_merged_and_followed() {
        let mut world = World::new();
        let (mut out, mut err) = (world.open("web-1-1", Stream::Stdout), world.open("web-1-1", Stream::Stderr));
        world.say(&mut out, b"hel");
        assert!(world.lines().is_empty());
        world.say(&mut err, b"oh\n");
        std::thread::sleep(std::time::Duration::from_millis(2));
        world.say(&mut out, b"lo\r\n\xffb\nrest");
        let (lines, mut follow) = Follow::new(world.dir.path(), Filter::default()).start(None).unwrap();
        assert_eq!(
            lines.iter().map(|l| l.line.stream).collect::<Vec<_>>(),
            [Stream::Stderr, Stream::Stdout, Stream::Stdout]
        );
        assert!(lines[0].line.at < lines[1].line.at && lines[1].line.at == lines[2].line.at);
        assert_eq!(texts(lines), ["oh", "hello", "\u{fffd}b"]);
        assert_eq!(texts(read(world.dir.path(), &Filter::default(), Some(1)).unwrap()), ["\u{fffd}b"]);
        let api = Filter { services: vec!["api".into()], instance: None };
        assert!(read(world.dir.path(), &api, None).unwrap().is_empty());
        assert!(follow.more().unwrap().is_empty());
        std::thread::sleep(std::time::Duration::from_millis(2));
        let since = now();
        out.finish();
        out.finish();
        let mut other = world.open("api-1-1", Stream::Stdout);
        world.say(&mut other, b"new\n");
        assert_eq!(texts(follow.more().unwrap()).len(), 2);
        let last = |since| crate::logs::last_lines(world.dir.path(), &"web-1-1".parse().unwrap(), since);
        assert_eq!(last(Millis::ZERO), ["oh", "hello", "\u{fffd}b", "rest"]);
        assert_eq!(last(since), ["rest"]);
    }

    #[test]
    fn one_that_was_killed_is_gone_on_with() {
        let mut world = World::new();
        let mut log = world.open("web-1-1", Stream::Stdout);
        world.say(&mut log, b"one\ntw");
        // Taken, and then killed before the time is written.
        world.write.write_all(b"o\nthree\n").unwrap();
        let mut at = log.size;
        splice(&world.read, None, &log.bytes, Some(&mut at), CHUNK, SpliceFlags::NONBLOCK).unwrap();
        drop(log);
        assert_eq!(world.lines(), ["one"]);
        let mut log = world.open("web-1-1", Stream::Stdout);
        assert_eq!(world.lines(), ["one", "two", "three"]);
        world.say(&mut log, b"four\n");
        assert_eq!(world.lines(), ["one", "two", "three", "four"]);
    }

    #[test]
    fn what_a_power_loss_has_torn_is_left_alone() {
        for torn in ["4 1\n8", "4 1\n80 2\n"] {
            let mut world = World::new();
            let mut log = world.open("web-1-1", Stream::Stdout);
            world.say(&mut log, b"one\n");
            std::fs::write(&log.part.times, torn).unwrap();
            let mut log = world.open("web-1-1", Stream::Stdout);
            world.say(&mut log, b"two\n");
            assert_eq!(world.lines(), ["one", "two"], "{torn}");
        }
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_dropped() {
        let mut world = World::new();
        let mut log = world.open("web-1-1", Stream::Stdout);
        let mut follow = Follow::new(world.dir.path(), Filter::default());
        let chunk = [vec![b'x'; 1023], b"\n".to_vec()].concat().repeat(32);
        let mut followed = 0;
        for _ in 0..800 {
            world.say(&mut log, &chunk);
            followed += follow.more().unwrap().len();
        }
        assert_eq!(followed, 800 * 32);
        assert_eq!(log.part.number, 6);
        let left = std::fs::read_dir(log.part.bytes.parent().unwrap()).unwrap().count();
        assert_eq!(left, 2 * FILES as usize);
        assert!(world.lines().len() > 2 * 5 * 1000);

        let endless = vec![b'x'; 32 << 10];
        for _ in 0..2 * (OVERFULL / (32 << 10)) {
            world.say(&mut log, &endless);
        }
        assert!(log.part.number > 6 && log.size < OVERFULL + CHUNK as u64);
    }

    #[test]
    fn an_endless_line_is_shown_in_pieces() {
        let mut world = World::new();
        let mut log = world.open("web-1-1", Stream::Stdout);
        world.say(&mut log, &[b'x'; (48 << 10) + 5]);
        let lengths = |lines: Vec<String>| lines.iter().map(String::len).collect::<Vec<_>>();
        assert_eq!(lengths(world.lines()), [16 << 10; 3]);
        log.finish();
        assert_eq!(lengths(world.lines()), [16 << 10, 16 << 10, 16 << 10, 5]);
    }

    #[test]
    fn a_disk_that_takes_nothing_does_not_stop_the_program() {
        let mut world = World::new();
        let mut log = world.open("web-1-1", Stream::Stdout);
        log.bytes = File::options().write(true).open("/dev/full").unwrap();
        world.say(&mut log, b"lost\n");
        assert!(log.failing);
        assert_eq!(rustix::io::ioctl_fionread(&world.read).unwrap(), 0);
        (log.bytes, log.times) = open(&log.part).unwrap();
        world.say(&mut log, b"kept\n");
        assert!(!log.failing);
        assert_eq!(world.lines(), ["kept"]);
    }

    #[test]
    fn logs_of_those_that_ended_long_ago_go() {
        let mut world = World::new();
        for n in 1..=103 {
            let mut log = world.open(&format!("web-1-{n}"), Stream::Stdout);
            world.say(&mut log, b"x\n");
            let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n);
            File::open(log.part.bytes.parent().unwrap()).unwrap().set_modified(at).unwrap();
        }
        let first = "web-1-1".parse::<InstanceId>().unwrap();
        crate::logs::prune(world.dir.path(), first.service(), |id| *id == first).unwrap();
        let left = read(world.dir.path(), &Filter::default(), None).unwrap();
        let left: Vec<String> = left.into_iter().map(|l| l.instance.to_string()).collect();
        assert_eq!(left.len(), 101);
        assert!(
            left.contains(&"web-1-1".into()) && !left.contains(&"web-1-3".into()) && left.contains(&"web-1-4".into())
        );
    }
}
