//! What is to be said about a Compose file.

use std::cell::RefCell;

use serde::Serialize;

use crate::yaml::Node;

/// Something in the Compose file that the stack says otherwise, or does not say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The line it stands in, counted from 1; 0 if it is about the file as a whole.
    pub line: usize,
    /// Where in the YAML it is: `services.web.ports[0]`.
    pub path: String,
    /// What it did, and what became of it.
    pub what: String,
    /// What to do instead, if anything.
    pub instead: Option<String>,
}

/// Findings while they are being collected.
#[derive(Debug, Default)]
pub(crate) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    /// Names a node with everything in it.
    pub(crate) fn name(&self, node: &Node, what: impl Into<String>, instead: impl Into<String>) {
        node.use_all();
        self.note(node, what, instead);
    }

    /// Says something about a node.
    pub(crate) fn note(&self, node: &Node, what: impl Into<String>, instead: impl Into<String>) {
        self.add(node.line, &node.path, what, instead);
    }

    /// Says something about the file as a whole.
    pub(crate) fn general(&self, path: &str, what: impl Into<String>, instead: impl Into<String>) {
        self.add(0, path, what, instead);
    }

    fn add(&self, line: usize, path: &str, what: impl Into<String>, instead: impl Into<String>) {
        let instead = Some(instead.into()).filter(|text| !text.is_empty());
        let finding = Finding { line, path: path.to_owned(), what: what.into(), instead };
        let mut all = self.0.borrow_mut();
        if !all.contains(&finding) {
            all.push(finding);
        }
    }

    /// Returns all findings in the order of the file.
    pub(crate) fn finish(self) -> Vec<Finding> {
        let mut findings = self.0.into_inner();
        findings.sort();
        findings
    }
}
