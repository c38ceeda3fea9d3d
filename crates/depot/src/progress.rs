//! Telling how far a long piece of work is.

/// Is told how far a bake, import or export is.
pub trait Progress: Sync {
    /// Takes note that of the work `what`, `done` of `total` bytes are done.
    fn report(&self, what: &str, done: u64, total: Option<u64>);

    /// Takes note that a step of a bake that runs a program begins, or that what it gave before is taken. `place` is its
    /// number, and how many there are.
    fn step(&self, _place: (usize, usize), _title: &str, _cached: bool) {}

    /// Takes note of a line that the program wrote.
    fn line(&self, _text: &str) {}
}

impl<F: Fn(&str, u64, Option<u64>) + Sync> Progress for F {
    fn report(&self, what: &str, done: u64, total: Option<u64>) {
        self(what, done, total);
    }
}

/// Reads from `R` and tells how far it is.
pub(crate) struct Reporting<'a, R> {
    pub(crate) inner: R,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) what: &'a str,
    pub(crate) done: u64,
    pub(crate) told: u64,
    pub(crate) total: Option<u64>,
}

/// A report every 4 MiB: often enough for a smooth bar, rare enough to cost nothing.
const REPORT_EVERY: u64 = 4 << 20;

impl<'a, R> Reporting<'a, R> {
    pub(crate) fn new(inner: R, progress: &'a dyn Progress, what: &'a str, total: Option<u64>) -> Self {
        progress.report(what, 0, total);
        Self { inner, progress, what, done: 0, told: 0, total }
    }
}

impl<R: std::io::Read> std::io::Read for Reporting<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.done += n as u64;
        if self.done - self.told >= REPORT_EVERY || (n == 0 && self.told != self.done) {
            self.told = self.done;
            self.progress.report(self.what, self.done, self.total);
        }
        Ok(n)
    }
}
