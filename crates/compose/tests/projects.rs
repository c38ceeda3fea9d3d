//! Whole Compose projects: each becomes a stack that loads, and each scalar decides something or is named.

mod common;

use basalt_compose::{Finding, Imported};
use common::{folder, import, load, names};

#[test]
fn stacks_and_findings() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for name in names() {
            let imported = import(&name, None).expect(&name);
            let findings: String = imported.findings.iter().map(line).collect();
            insta::assert_snapshot!(name.clone(), format!("{}\n---\n{findings}", imported.stack));
        }
    });
}

/// Returns a finding as a line.
fn line(finding: &Finding) -> String {
    let instead = finding.instead.as_ref().map(|text| format!(" => {text}")).unwrap_or_default();
    format!("{}:{}: {}{instead}\n", finding.path, finding.line, finding.what)
}

#[test]
fn stacks_load_without_faults() {
    let mut all = String::new();
    for name in names() {
        let faults = load(&name, &import(&name, None).expect(&name));
        if !faults.is_empty() {
            all.push_str(&format!("{name}:\n{faults}\n"));
        }
    }
    assert!(all.is_empty(), "{all}");
}

/// A scalar that is changed changes the stack or what is said, or it has been named.
#[test]
fn nothing_is_lost_silently() {
    let mut lost = Vec::new();
    for name in names() {
        let text = std::fs::read_to_string(folder(&name).join("compose.yaml")).expect(&name);
        let imported = import(&name, None).expect(&name);
        for (start, end, line, path) in common::scalars(&text) {
            let old = &text[start..end];
            let new = match old.trim_matches(['"', '\'']) {
                "true" => "false".to_owned(),
                "false" => "true".to_owned(),
                number if number.parse::<u32>().is_ok() => {
                    old.replace(number, &format!("{}7", number.trim_start_matches('0')))
                }
                _ => match old.chars().next() {
                    Some(quote @ ('"' | '\'')) => format!("{quote}zq{}", &old[1..]),
                    Some('|' | '>' | '*' | '&') => continue,
                    _ => format!("zq{old}"),
                },
            };
            let changed = format!("{}{new}{}", &text[..start], &text[end..]);
            let same = match import(&name, Some(&changed)) {
                Ok(other) => other.stack == imported.stack && plain(&other) == plain(&imported),
                Err(_) => false,
            };
            let named = imported.findings.iter().any(|finding| finding.line > 0 && within(&path, &finding.path));
            if same && !named {
                lost.push(format!("{name}:{line}: `{old}`"));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// Returns whether a path leads to a place or into it.
fn within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Returns what is said.
fn plain(imported: &Imported) -> Vec<&str> {
    imported.findings.iter().map(|finding| finding.what.as_str()).collect()
}

/// No file that is cut off or garbled makes an import panic.
#[test]
fn what_gives_a_secret_its_value_is_sensitive() {
    let text = "services:\n  db:\n    image: postgres:16\n    environment:\n      POSTGRES_PASSWORD: ${PW:?none}\n      LOG: ${LEVEL}\n";
    let imported = common::import("ghost", Some(text)).unwrap();
    assert!(
        imported.stack.contains("variable \"pw\" {\n  type      = string\n  sensitive = true\n}"),
        "{}",
        imported.stack
    );
    assert!(!imported.stack.contains("variable \"level\" {\n  type      = string\n  sensitive"), "{}", imported.stack);
    assert!(imported.required.contains(&"pw".to_owned()));
}

#[test]
fn any_prefix_is_answered() {
    for name in names() {
        let text = std::fs::read_to_string(folder(&name).join("compose.yaml")).expect(&name);
        for end in (0..text.len()).step_by(7).filter(|end| text.is_char_boundary(*end)) {
            drop(import(&name, Some(&text[..end])));
        }
    }
}

#[test]
fn what_is_no_compose_file_is_refused() {
    let check = |text: &str, part: &str| {
        let error = import("ghost", Some(text)).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    };
    check("services: [", "line");
    check("- a\n", "a Compose file is a mapping");
    check("a: 1\na: 2\n", "line 2: the key `a` stands twice");
}

/// What an import writes is written as `basalt fmt` would.
#[test]
fn stacks_are_in_the_canonical_style() {
    for name in names() {
        let imported = import(&name, None).expect(&name);
        let formatted = basalt_stackfile::format(&imported.stack).unwrap_or_else(|| panic!("{name} is no HCL"));
        assert_eq!(formatted, imported.stack, "{name}");
    }
}
