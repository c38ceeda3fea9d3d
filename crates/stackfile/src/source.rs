//! The files that were read, and places in them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::diagnostic::{Diagnostic, Place, Span};
use crate::fault::{Eval, Fault, Faults};
use crate::files::Files;
use crate::value::Kind;

/// A file that was read, kept for showing places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file, as it was named.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether its lines must not be shown, because secrets may stand in it.
    pub private: bool,
}

/// A stretch of a source, by the source's number. Files are below 4 GiB: larger ones are refused when read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) source: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl At {
    /// Returns the place of a byte range.
    pub(crate) fn new(source: u32, range: Range<usize>) -> Self {
        Self { source, start: range.start as u32, end: range.end as u32 }
    }
}

/// What the evaluation of one stack may use, in bytes made: ten thousand services use a tenth of it, and a stack that doubles
/// a text over and over ends within a second.
const BUDGET: u64 = 128 << 20;

/// What one step of evaluation is charged, in bytes: about what a value takes.
pub(crate) const STEP: usize = 16;

/// The largest file that is read into a value or parsed, in bytes: config files and templates are far smaller.
const LARGEST_FILE: usize = 16 << 20;

/// What all steps of loading one stack share: its files, its faults, and how much it may still evaluate.
pub(crate) struct Context<'f> {
    pub(crate) files: &'f dyn Files,
    /// The time that `timestamp()` returns, in seconds since 1970.
    pub(crate) now: Option<i64>,
    /// The folder of the stack, or of the module that is being read, absolute: relative paths start here.
    folder: RefCell<PathBuf>,
    /// All images, services and jobs, those of modules included, by their full names.
    pub(crate) declared: RefCell<BTreeMap<(Kind, String), At>>,
    sources: RefCell<Vec<Rc<Source>>>,
    faults: RefCell<Vec<Fault>>,
    /// `None` once it is used up.
    budget: Cell<Option<u64>>,
}

impl<'f> Context<'f> {
    pub(crate) fn new(files: &'f dyn Files, folder: PathBuf) -> Self {
        Self {
            files,
            folder: RefCell::new(folder),
            now: None,
            declared: RefCell::default(),
            sources: RefCell::default(),
            faults: RefCell::default(),
            budget: Cell::new(Some(BUDGET)),
        }
    }

    /// Adds a source and returns its number.
    pub(crate) fn add_source(&self, name: String, text: String) -> u32 {
        self.add(Source { name, text, private: false })
    }

    /// Adds a source whose lines are never shown, and returns its number.
    pub(crate) fn add_private_source(&self, name: String, text: String) -> u32 {
        self.add(Source { name, text, private: true })
    }

    fn add(&self, source: Source) -> u32 {
        let mut sources = self.sources.borrow_mut();
        sources.push(Rc::new(source));
        (sources.len() - 1) as u32
    }

    /// Returns the source with this number.
    pub(crate) fn source(&self, number: u32) -> Rc<Source> {
        Rc::clone(&self.sources.borrow()[number as usize])
    }

    /// Returns the marked text.
    pub(crate) fn text_at(&self, at: At) -> String {
        self.source(at.source).text.get(at.start as usize..at.end as usize).unwrap_or_default().to_owned()
    }

    /// Records a fault.
    pub(crate) fn report(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Returns whether anything was reported so far.
    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.borrow().is_empty()
    }

    /// Records all faults.
    pub(crate) fn report_all(&self, faults: Faults) {
        self.faults.borrow_mut().extend(faults.0);
    }

    /// Returns the value; records the faults if there is none.
    pub(crate) fn keep<T>(&self, result: Eval<T>) -> Option<T> {
        result.map_err(|faults| self.report_all(faults)).ok()
    }

    /// Takes `amount` bytes from what may still be made. Reports it at once when that is used up, so that no `try` hides it.
    pub(crate) fn spend(&self, amount: usize, at: At) -> Eval<()> {
        if let Some(rest) = self.budget.get().and_then(|rest| rest.checked_sub(amount as u64)) {
            self.budget.set(Some(rest));
            return Ok(());
        }
        if self.budget.replace(None).is_some() {
            let fault = Fault::at(at, "evaluating this stack takes too much").label("here it went beyond the limit");
            self.report(
                fault.help("look for a list or text that grows with every step, such as a `range` that is too long"),
            );
        }
        Err(Faults::default())
    }

    /// Reads a file of the stack as text.
    pub(crate) fn read_text(&self, path: &Path) -> Result<String, String> {
        let bytes = self.files.read(path).map_err(|error| format!("`{}` can't be read: {error}", path.display()))?;
        if bytes.len() > LARGEST_FILE {
            return Err(format!("`{}` is larger than 16 MiB", path.display()));
        }
        String::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8 text", path.display()))
    }

    /// Returns the absolute path of `path`, which is relative to the stack's folder.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.borrow().join(path).components().collect()
    }

    /// Does something with another folder as the one where relative paths start.
    pub(crate) fn within<T>(&self, folder: &Path, run: impl FnOnce() -> T) -> T {
        let before = self.folder.replace(folder.to_owned());
        let result = run();
        self.folder.replace(before);
        result
    }

    /// Returns everything that was said, sorted by place, and the sources.
    pub(crate) fn finish(self) -> (Vec<Diagnostic>, Vec<Source>) {
        let sources: Vec<Source> = self.sources.into_inner().into_iter().map(Rc::unwrap_or_clone).collect();
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| (fault.at, fault.severity));
        let mut seen = Vec::new();
        faults.retain(|fault| {
            let new = seen.last() != Some(fault);
            if new {
                seen.push(fault.clone());
            }
            new
        });
        let lines: Vec<OnceCell<Vec<usize>>> = sources.iter().map(|_| OnceCell::new()).collect();
        let span = |at: At| span(at, &sources[at.source as usize], &lines[at.source as usize]);
        let diagnostics = faults.into_iter().map(|fault| Diagnostic {
            severity: fault.severity,
            message: fault.message,
            span: fault.at.map(span),
            label: fault.label,
            places: fault.places.into_iter().map(|(at, label)| Place { span: span(at), label }).collect(),
            help: fault.help,
        });
        let diagnostics = diagnostics.collect();
        (diagnostics, sources)
    }
}

/// Returns the place with its file, lines and columns.
fn span(at: At, source: &Source, lines: &OnceCell<Vec<usize>>) -> Span {
    let starts = lines.get_or_init(|| {
        let ends = source.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        [0].into_iter().chain(ends.map(|(end, _)| end + 1)).collect()
    });
    let place = |offset: u32| {
        let line = starts.partition_point(|start| *start <= offset as usize);
        let before = source.text.get(starts[line - 1]..offset as usize).unwrap_or_default();
        (line, before.chars().count() + 1)
    };
    let ((line, column), (end_line, end_column)) = (place(at.start), place(at.end));
    Span {
        file: source.name.clone(),
        start: at.start as usize,
        end: at.end as usize,
        line,
        column,
        end_line,
        end_column,
    }
}
