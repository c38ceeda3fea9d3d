//! Threads that serve connections, each with a runtime of its own: a request then never wakes another thread.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::http1::pool;

/// Threads that accept. All that do are woken for each connection, so they are few.
const ACCEPT: usize = 2;

thread_local! {
    /// Which of the threads this one is, if it is one.
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Threads that serve connections. They end, with all that they serve, when this is dropped.
#[derive(Debug)]
pub(crate) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// How many connections it serves.
    load: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
}

/// Counts as load until it is dropped.
#[derive(Debug)]
pub(crate) struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Workers {
    /// Starts so many threads.
    ///
    /// # Errors
    /// If the machine has no more threads to give.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        (0..threads.max(1)).map(Worker::start).collect::<io::Result<Vec<_>>>().map(Self)
    }

    /// Has some of the threads accept connections.
    pub(crate) fn accept<F: Future<Output = ()> + Send + 'static>(&self, work: impl Fn() -> F) -> Vec<AbortHandle> {
        self.0.iter().take(ACCEPT).map(|worker| worker.runtime.spawn(work()).abort_handle()).collect()
    }

    /// Has the thread with the least connections serve another; the current one, which has accepted it, if it has hardly more.
    /// What serves it gives back its load at the end.
    pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        stream: TcpStream,
        connection: impl FnOnce(TcpStream, Load) -> F,
    ) {
        let load = |worker: &&Worker| worker.load.load(Relaxed);
        let Some(least) = self.0.iter().min_by_key(load) else { return };
        let here = HERE.get().and_then(|here| self.0.get(here));
        let here = here.filter(|here| load(here) <= load(&least) + load(&least) / 16 + 1);
        let worker = here.unwrap_or(least);
        let stream = if here.is_some() {
            stream
        } else {
            let _inside = worker.runtime.enter();
            // It fails only where there is no room to watch another.
            let Ok(stream) = stream.into_std().and_then(TcpStream::from_std) else { return };
            stream
        };
        worker.load.fetch_add(1, Relaxed);
        worker.runtime.spawn(connection(stream, Load(worker.load.clone())));
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
            pool::set_thread(number);
            HERE.set(Some(number));
            // The sender says nothing, it is only dropped.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, load: Arc::default(), _end: end })
    }
}
