//! Licences: everything that ends up in the binary may be given on under Apache-2.0.

use crate::workspace::{Package, Workspace};

/// Licences that ask for nothing but that their text and notices stay; MPL-2.0 asks in addition that changed files of
/// the library itself stay open, which using it unchanged does not touch.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    // MIT without its one condition, that its text be passed on.
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that name a file instead of a licence, and what that file says.
const BY_FILE: [(&str, &str); 1] = [("rust-criu", "MIT")];

/// Returns a sentence for each package whose licence is not allowed.
pub fn breaches(workspace: &Workspace) -> Vec<String> {
    workspace.packages.iter().filter_map(breach).collect()
}

fn breach(package: &Package) -> Option<String> {
    let by_file = BY_FILE.iter().find(|(name, _)| *name == package.name).map(|(_, licence)| *licence);
    let who = format!("`{} {}`", package.name, package.version);
    match package.license.as_deref().or(by_file) {
        None => Some(format!("{who} names no licence; help: read its licence file and add it to BY_FILE in xtask")),
        Some(expression) => match allowed(expression) {
            true => None,
            false => Some(format!("{who} has the licence `{expression}`, which is not on the list in xtask")),
        },
    }
}

/// Returns whether an SPDX expression can be met with allowed licences alone. The old spelling `A/B` means `A OR B`.
/// What can't be read is not met.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

/// `A OR B`, which binds less tightly than AND.
fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut met = all_of(words)?;
    while let Some(rest) = words.strip_prefix(&["OR"]) {
        *words = rest;
        met |= all_of(words)?;
    }
    Some(met)
}

/// `A AND B`.
fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut met = one(words)?;
    while let Some(rest) = words.strip_prefix(&["AND"]) {
        *words = rest;
        met &= one(words)?;
    }
    Some(met)
}

/// A licence, a licence WITH an exception, or an expression in parentheses.
fn one(words: &mut &[&str]) -> Option<bool> {
    let (first, mut rest) = words.split_first()?;
    let met = if *first == "(" {
        let met = any_of(&mut rest)?;
        rest = rest.strip_prefix(&[")"])?;
        met
    } else if let ["WITH", exception, behind @ ..] = rest {
        rest = behind;
        ALLOWED.contains(&format!("{first} WITH {exception}").as_str())
    } else {
        ALLOWED.contains(first)
    };
    *words = rest;
    Some(met)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let check = |expression: &str, expected: bool| assert_eq!(allowed(expression), expected, "{expression}");
        check("MIT", true);
        check("MIT OR Apache-2.0", true);
        check("MIT/Apache-2.0", true);
        check("Apache-2.0 / MIT", true);
        check("MPL-2.0 OR LGPL-3.0-or-later", true);
        check("GPL-3.0-only OR MIT", true);
        check("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true);
        check("(MIT OR GPL-2.0) AND Unicode-3.0", true);
        check("GPL-3.0-only", false);
        check("MIT AND GPL-3.0-only", false);
        check("(MIT OR Apache-2.0) AND GPL-2.0", false);
        check("MIT AND GPL-2.0 OR AGPL-3.0", false);
        check("GPL-2.0 WITH Classpath-exception-2.0", false);
        check("(MIT", false);
        check("MIT)", false);
        check("MIT OR", false);
        check("", false);
    }

    #[test]
    fn packages() {
        let package = |name: &str, license: Option<&str>| Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: license.map(Into::into),
            ..Package::default()
        };
        assert_eq!(breach(&package("a", Some("MIT"))), None);
        assert_eq!(breach(&package("rust-criu", None)), None);
        assert!(breach(&package("b", None)).is_some_and(|text| text.contains("names no licence")));
        assert!(breach(&package("c", Some("AGPL-3.0"))).is_some_and(|text| text.contains("`c 1.0.0`")));
    }
}
