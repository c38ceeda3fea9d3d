//! Diagnostics for people: the marked text, what is wrong beside it, and how to mend it.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};

use crate::diagnostic::{Diagnostic, Severity};
use crate::load::Loaded;
use crate::source::Source;

/// Columns that a report is wrapped to: narrow enough to stand beside code, wide enough for one sentence.
const WIDTH: usize = 110;

/// Returns all diagnostics of a stack as text, with `file:line:column` and the marked lines; empty if there are none.
pub fn render(loaded: &Loaded, colour: bool) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false).with_context_lines(1);
    let mut text = String::new();
    for diagnostic in &loaded.diagnostics {
        let report = Report::new(diagnostic, loaded);
        // Writing into a string only fails if a span lies outside its source; then the bare facts must do.
        if handler.render_report(&mut text, &report).is_err() {
            text.push_str(&format!("{diagnostic}\n"));
        }
    }
    text
}

/// A diagnostic as miette wants it.
#[derive(Debug)]
struct Report {
    severity: Severity,
    message: String,
    help: Option<String>,
    source: Option<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
}

impl Report {
    fn new(diagnostic: &Diagnostic, loaded: &Loaded) -> Self {
        let mut help = diagnostic.help.clone();
        let mut labels = Vec::new();
        let mut source = None;
        let mut message = diagnostic.message.clone();
        let found = diagnostic.span.as_ref().map(|span| (span, loaded.sources.iter().find(|s| s.name == span.file)));
        if let Some((_, Some(Source { private: true, .. }))) = found {
            // Secrets may stand in the lines.
            message = diagnostic.to_string();
        } else if let Some((span, found)) = found {
            let text = found.map(|s| s.text.clone()).unwrap_or_default();
            source = Some(NamedSource::new(&span.file, text));
            labels.push(LabeledSpan::new_primary_with_span(diagnostic.label.clone(), span.start..span.end));
            for place in &diagnostic.places {
                if place.span.file == span.file {
                    labels
                        .push(LabeledSpan::new_with_span(Some(place.label.clone()), place.span.start..place.span.end));
                } else {
                    let line =
                        format!("{}:{}:{}: {}", place.span.file, place.span.line, place.span.column, place.label);
                    help = Some(help.map_or(line.clone(), |help| format!("{help}\n{line}")));
                }
            }
        }
        Self { severity: diagnostic.severity, message, help, source, labels }
    }
}

impl fmt::Display for Diagnostic {
    /// Writes it in one line: `file:line:column: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.span {
            Some(span) => write!(f, "{}:{}:{}: {}", span.file, span.line, span.column, self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}

impl miette::Diagnostic for Report {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}
