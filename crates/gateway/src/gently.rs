//! Long work that gives way. Who runs, even with a low priority, runs on for a tick of the kernel (4 ms) while others wait; so work on
//! each of ten thousand services lets them in between.

/// So many items are worked on within some 100 µs.
const PIECE: usize = 32;

/// Returns the same items, and lets other threads run now and then.
pub(crate) fn gently<T>(items: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    items.into_iter().enumerate().map(|(nth, item)| {
        if nth % PIECE == PIECE - 1 {
            std::thread::yield_now();
        }
        item
    })
}
