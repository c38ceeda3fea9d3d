//! Field-by-field changes.

use basalt_plan::FieldChange;

use super::{Paint, Style};

/// The longest value shown whole in one line: two of them and a field's path still fit in most terminals.
const LONGEST: usize = 48;

/// The most lines of a changed text that are shown; a whole file would bury the rest of the plan.
const MOST_LINES: usize = 12;

/// Returns one entry a field. Long texts of several lines show the lines that differ.
pub fn fields(changes: &[FieldChange], style: Style) -> Vec<String> {
    changes.iter().map(|change| field(change, style)).collect()
}

fn field(change: &FieldChange, style: Style) -> String {
    let name = &change.field;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if before.contains('\n') || after.contains('\n') => {
            format!("{} {name}{}", style.paint(Paint::Busy, "~"), lines(before, after, style))
        }
        (Some(before), Some(after)) => {
            let before = style.paint(Paint::Faint, &value(name, before));
            format!("{} {name}: {before} → {}", style.paint(Paint::Busy, "~"), value(name, after))
        }
        (None, Some(after)) => format!("{} {name}: {}", style.paint(Paint::Good, "+"), value(name, after)),
        (Some(before), None) => {
            let before = style.paint(Paint::Faint, &value(name, before));
            format!("{} {name}: {before}", style.paint(Paint::Bad, "-"))
        }
        (None, None) => name.clone(),
    }
}

/// Returns a value in one line, in the units that people write.
fn value(field: &str, text: &str) -> String {
    if let Some(digits) = text.strip_prefix("sha256:") {
        return format!("sha256:{}…", digits.get(..12).unwrap_or(digits));
    }
    if let Some(number) = unit(field, text) {
        return number;
    }
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let more = lines.count();
    let shown: String = first.chars().take(LONGEST).collect();
    let cut = if shown.len() < first.len() { "…" } else { "" };
    let quoted = if text.starts_with(['[', '{']) || text.parse::<f64>().is_ok() || text == "true" || text == "false" {
        format!("{shown}{cut}")
    } else {
        format!("\"{shown}{cut}\"")
    };
    if more == 0 { quoted } else { format!("{quoted} and {more} more lines") }
}

/// Returns a number in its unit where the field has one.
fn unit(field: &str, text: &str) -> Option<String> {
    use basalt_model::{Bytes, CpuMillis, Millis};
    let last = field.rsplit('.').next()?;
    let number: u64 = text.parse().ok()?;
    match last {
        "drain" | "stop_within" | "interval" | "timeout" | "start_within" | "deadline" | "hold" | "keep_old" => {
            Some(Millis(number).to_string())
        }
        "memory" => Some(Bytes(number).to_string()),
        "cpu" => Some(CpuMillis(u32::try_from(number).ok()?).to_string()),
        "mode" => Some(format!("{number:04o}")),
        _ => None,
    }
}

/// Returns the lines that differ between two texts: what is between their common beginning and their common end.
fn lines(before: &str, after: &str, style: Style) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let room = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(room).take_while(|(a, b)| a == b).count();
    let gone = old[head..old.len() - tail].iter().map(|line| style.paint(Paint::Bad, &format!("- {line}")));
    let come = new[head..new.len() - tail].iter().map(|line| style.paint(Paint::Good, &format!("+ {line}")));
    let all: Vec<String> = gone.chain(come).collect();
    let mut out = format!(" (line {})", head + 1);
    for line in all.iter().take(MOST_LINES) {
        out.push_str(&format!("\n  {line}"));
    }
    if all.len() > MOST_LINES {
        out.push_str(&format!("\n  … and {} more lines", all.len() - MOST_LINES));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let check = |name: &str, before: Option<&str>, after: Option<&str>, expected: &str| {
            let change =
                FieldChange { field: name.into(), before: before.map(Into::into), after: after.map(Into::into) };
            assert_eq!(fields(&[change], Style::PLAIN), [expected]);
        };
        check("env.LOG", Some("info"), Some("debug"), "~ env.LOG: \"info\" → \"debug\"");
        check("env.NEW", None, Some("1"), "+ env.NEW: 1");
        check("env.OLD", Some("x"), None, "- env.OLD: \"x\"");
        check("settings.drain", Some("30000"), Some("500"), "~ settings.drain: 30s → 500ms");
        check("limits.memory", None, Some("134217728"), "+ limits.memory: 128MiB");
        check("limits.cpu", None, Some("500"), "+ limits.cpu: 500m");
        check("configs[\"/a\"].mode", Some("420"), Some("384"), "~ configs[\"/a\"].mode: 0644 → 0600");
        let (a, b) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        check("image", Some(&a), Some(&b), "~ image: sha256:aaaaaaaaaaaa… → sha256:bbbbbbbbbbbb…");
        check("x", Some("a\nb\nc\n"), Some("a\nB\nc\n"), "~ x (line 2)\n  - b\n  + B");
        check("x", Some("a\na\n"), Some("a\n"), "~ x (line 2)\n  - a");
    }

    #[test]
    fn long_texts_are_shortened() {
        let change = FieldChange { field: "x".into(), before: None, after: Some("y".repeat(100)) };
        assert_eq!(fields(&[change], Style::PLAIN)[0].chars().count(), "+ x: \"…\"".chars().count() + LONGEST);
        let long = |c: &str| (0..40).map(|n| format!("{c}{n}\n")).collect::<String>();
        let change = FieldChange { field: "x".into(), before: Some(long("a")), after: Some(long("b")) };
        assert!(fields(&[change], Style::PLAIN)[0].ends_with("… and 68 more lines"));
    }
}
