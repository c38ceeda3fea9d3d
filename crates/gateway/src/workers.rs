//! Threads that serve connections, each with a runtime of its own: a request then never wakes another thread.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::http1::pool;

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
struct Load(Arc<AtomicUsize>);

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

    /// Has the thread with the least connections serve another.
    pub(crate) fn serve(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.load.load(Relaxed)) else { return };
        worker.load.fetch_add(1, Relaxed);
        let load = Load(worker.load.clone());
        worker.runtime.spawn(async move {
            connection.await;
            drop(load);
        });
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
            pool::set_thread(number);
            // The sender says nothing, it is only dropped.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, load: Arc::default(), _end: end })
    }
}
