//! Long work that gives way. Who runs, even with a low priority, runs on for a tick of the kernel (4 ms) while others wait; so work on
//! each of ten thousand services lets them in between.

use std::io;

use tokio::sync::oneshot;

/// So many items are worked on within some 100 µs.
const PIECE: usize = 32;
/// Services of a table whose change is felt.
const MANY: usize = 1_000;
/// Bytes of a change that is felt: up to that, some thousand routes and instances, it is read and put in force within a few
/// milliseconds.
const LARGE: usize = 512 << 10;
/// How much a thread with long work gives way (`nice`): it has a tenth of the share of a thread with requests, when there is not
/// enough for all.
const NICENESS: i32 = 10;

/// Returns the same items, and lets other threads run now and then.
pub(crate) fn gently<T>(items: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    items.into_iter().enumerate().map(|(nth, item)| {
        if nth % PIECE == PIECE - 1 {
            std::thread::yield_now();
        }
        item
    })
}

/// Returns whether a change to a table of so many services, and of so many bytes where that is known, is long work.
pub(crate) fn is_long(services: usize, bytes: usize) -> bool {
    services > MANY || bytes > LARGE
}

/// Does work on a table on a thread of its own: it may wait for the disk, and who gives way does so for good.
///
/// # Errors
/// If there is no thread for it, or the work panics.
pub(crate) async fn apart<T: Send + 'static>(long: bool, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("table".to_owned()).spawn(move || {
        if long {
            give_way();
        }
        // Fails only if nobody waits for it any more.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| io::Error::other("work on a table has ended early"))
}

/// Has the current thread give way to those that serve requests.
fn give_way() {
    // Without it, all works as well while nothing else wants the processor.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!("can't lower the priority of a thread: {error}");
    }
}
