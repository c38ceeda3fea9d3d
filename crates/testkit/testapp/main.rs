//! A small HTTP/1.1 server on the standard library alone, which misbehaves as its environment says.
//!
//! | variable | does |
//! |---|---|
//! | `VERSION` | is in every answer, as `version=…` |
//! | `PORT` | is listened on; 8080; 0 is any that is free, as the log tells |
//! | `CRASH` | exits with this status at once, after three lines on standard error |
//! | `SLOW_START_MS` | waits so long before it listens |
//! | `SLOW_MS` | waits so long before each answer but those of `/health` |
//! | `NEVER_HEALTHY` | answers `/health` with 503 |
//! | `FAIL_AFTER_MS`, `FAIL_AFTER_REQUESTS` | then fails, as `FAIL_HOW` says; after a time, each instance a little later than the one before |
//! | `FAIL_HOW` | `error` (500 to everything), `health` (503 to `/health` alone), `refuse` (listens no more) |
//! | `IGNORE_TERM` | goes on after SIGTERM |
//! | `EXIT_AFTER_MS` | ends after so long, with the status in `EXIT_CODE` |
//! | `EAT` | takes memory until it gets no more |
//! | `JOB` | serves nothing: prints `VERSION` and ends with the status in `EXIT_CODE` |
//!
//! | path | answers |
//! |---|---|
//! | `/health` | 200 while it is healthy |
//! | `/env?NAME` | the variable's value |
//! | `/file?PATH` | what the file holds |
//! | `/call?HOST:PORT/PATH` | what another server answers |
//! | `/exit?STATUS`, `/abort`, `/eat` | nothing: it ends |
//! | anything else | version, host name and path; to a POST the length of the body too |

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// Set by SIGTERM.
static TERM: AtomicBool = AtomicBool::new(false);
/// Requests being answered.
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);
/// Requests answered, those of `/health` apart.
static ANSWERED: AtomicU64 = AtomicU64::new(0);

// The standard library offers neither signals nor waiting, and this file is compiled without any other.
unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn poll(polled: *mut Polled, count: u64, within_ms: i32) -> i32;
}

/// What poll(2) looks at.
#[repr(C)]
struct Polled {
    descriptor: i32,
    wanted: i16,
    found: i16,
}

extern "C" fn on_term(_: i32) {
    TERM.store(true, SeqCst);
}

fn main() {
    let version = text("VERSION").unwrap_or_else(|| "none".to_owned());
    println!("version {version} starts");
    if let Some(status) = number("CRASH") {
        eprintln!("reading configuration\nfatal: the thing is broken\ngiving up");
        exit(status as i32);
    }
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(15, on_term) };
    if text("EAT").is_some() {
        eat();
    }
    if text("JOB").is_some() {
        sleep(Duration::from_millis(number("SLOW_MS").unwrap_or(0)));
        eprintln!("job {version} ends");
        exit(number("EXIT_CODE").unwrap_or(0) as i32);
    }
    if let Some(ms) = number("EXIT_AFTER_MS") {
        spawn(move || {
            sleep(Duration::from_millis(ms));
            eprintln!("time is over");
            exit(number("EXIT_CODE").unwrap_or(0) as i32);
        });
    }
    sleep(Duration::from_millis(number("SLOW_START_MS").unwrap_or(0)));
    let app = App {
        version,
        started: Instant::now(),
        slow: Duration::from_millis(number("SLOW_MS").unwrap_or(0)),
        never_healthy: text("NEVER_HEALTHY").is_some(),
        // A request is sent again twice: it can't do without three instances that fail in the same millisecond.
        fail_after: number("FAIL_AFTER_MS").map(|ms| Duration::from_millis(ms + ms / 20 * (ordinal() % 10))),
        fail_after_requests: number("FAIL_AFTER_REQUESTS"),
        fail_how: text("FAIL_HOW").unwrap_or_else(|| "error".to_owned()),
    };
    let app: &'static App = Box::leak(Box::new(app));
    let port = number("PORT").unwrap_or(8080) as u16;
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap_or_else(|error| {
        eprintln!("port {port}: {error}");
        exit(1);
    });
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    let port = listener.local_addr().map_or(port, |address| address.port());
    println!("listening on {port}");
    let mut listener = Some(listener);
    loop {
        if TERM.load(SeqCst) && text("IGNORE_TERM").is_none() && UNDER_WAY.load(SeqCst) == 0 {
            println!("told to end");
            exit(0);
        }
        if app.fails("refuse") {
            listener = None;
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((stream, _))) => {
                let _ = stream.set_nonblocking(false);
                let _ = stream.set_nodelay(true);
                spawn(move || app.serve(stream));
            }
            _ => wait(listener.as_ref()),
        }
    }
}

/// Waits for a connection, or until there may be something else to look at: hundreds of these share a machine.
fn wait(listener: Option<&TcpListener>) {
    const READABLE: i16 = 1;
    match listener {
        Some(listener) if !TERM.load(SeqCst) => {
            let mut polled = Polled { descriptor: listener.as_raw_fd(), wanted: READABLE, found: 0 };
            // SAFETY: the structure is there, and is one. A signal ends the waiting; one that comes just before costs its length.
            unsafe { poll(&mut polled, 1, 50) };
        }
        _ => sleep(Duration::from_millis(1)),
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    text(name)?.parse().ok()
}

/// Takes memory until the kernel says no.
fn eat() -> ! {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; 1 << 20]);
        std::hint::black_box(&eaten);
    }
}

struct App {
    version: String,
    started: Instant,
    slow: Duration,
    never_healthy: bool,
    fail_after: Option<Duration>,
    fail_after_requests: Option<u64>,
    fail_how: String,
}

/// A request, read to its end.
struct Request {
    method: String,
    target: String,
    length: u64,
    keep: bool,
}

fn host() -> String {
    std::fs::read_to_string("/etc/hostname").unwrap_or_default()
}

/// Returns the last number of the host's name, which is an instance's.
fn ordinal() -> u64 {
    host().trim().rsplit('-').next().and_then(|last| last.parse().ok()).unwrap_or(0)
}

impl App {
    fn fails(&self, how: &str) -> bool {
        let late = self.fail_after.is_some_and(|after| self.started.elapsed() >= after);
        let tired = self.fail_after_requests.is_some_and(|after| ANSWERED.load(SeqCst) >= after);
        self.fail_how == how && (late || tired)
    }

    /// Answers the requests of one connection.
    fn serve(&self, stream: TcpStream) {
        let mut writer = stream.try_clone().expect("a socket has a second handle");
        let mut reader = BufReader::new(stream);
        // Waiting for the next request is not being under way: an idle connection never delays the end.
        while reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) && !self.fails("refuse") {
            UNDER_WAY.fetch_add(1, SeqCst);
            let goes_on = self.answer(&mut reader, &mut writer);
            UNDER_WAY.fetch_sub(1, SeqCst);
            if !goes_on.unwrap_or(false) {
                return;
            }
        }
    }

    fn answer(&self, reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> io::Result<bool> {
        let Some(request) = read(reader, writer)? else { return Ok(false) };
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let (status, body) = if path == "/health" {
            let ill = self.never_healthy || self.fails("health") || self.fails("error");
            if ill { (503, "ill\n".to_owned()) } else { (200, "well\n".to_owned()) }
        } else {
            sleep(self.slow);
            ANSWERED.fetch_add(1, SeqCst);
            if self.fails("error") { (500, "broken\n".to_owned()) } else { self.page(path, query, &request) }
        };
        let keep = request.keep && !TERM.load(SeqCst);
        let connection = if keep { "keep-alive" } else { "close" };
        let (reason, length) = (if status == 200 { "OK" } else { "Error" }, body.len());
        write!(
            writer,
            "HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: {connection}\r\n\r\n{body}"
        )?;
        Ok(keep)
    }

    fn page(&self, path: &str, query: &str, request: &Request) -> (u16, String) {
        let or_404 =
            |result: io::Result<String>| result.map_or_else(|error| (404, format!("{error}\n")), |text| (200, text));
        match path {
            "/env" => or_404(text(query).ok_or_else(|| io::ErrorKind::NotFound.into())),
            "/file" => or_404(std::fs::read_to_string(query)),
            "/call" => call(query).map_or_else(|error| (502, format!("{query}: {error}\n")), |text| (200, text)),
            "/exit" => exit(query.parse().unwrap_or(0)),
            "/abort" => std::process::abort(),
            "/eat" => eat(),
            _ => {
                let length =
                    if request.method == "POST" { format!("length={}\n", request.length) } else { String::new() };
                (200, format!("version={}\nhost={}\npath={path}\n{length}", self.version, host().trim()))
            }
        }
    }
}

/// Reads a request to the end of its body (RFC 9112 §6); `None` if the client closed before one began.
fn read(reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or("/").to_owned(),
        length: 0,
        keep: words.next() != Some("HTTP/1.0"),
    };
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim().to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?,
            "transfer-encoding" => chunked = value == "chunked",
            "connection" => request.keep = value != "close",
            "expect" => writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?,
            _ => {}
        }
    }
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            skip(reader, size)?;
            request.length += size;
            reader.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    } else {
        skip(reader, length)?;
        request.length = length;
    }
    Ok(Some(request))
}

fn skip(reader: &mut impl Read, length: u64) -> io::Result<()> {
    let read = io::copy(&mut reader.take(length), &mut io::sink())?;
    if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Asks another server for `HOST:PORT/PATH`, and returns the body of its answer if that is 200.
fn call(url: &str) -> io::Result<String> {
    let (authority, path) = url.split_once('/').unwrap_or((url, ""));
    let address = authority.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(io::Error::other(format!("status {}", status.unwrap_or("missing")))),
    }
}
