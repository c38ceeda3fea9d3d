//! `docs/functions.md` is written from the table, and every example in it is evaluated.

use super::tests::eval;
use super::*;

/// Where the page is.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/functions.md");

/// Returns the page.
fn page() -> String {
    let mut page = String::from(
        "# Functions\n\n\
         Functions are those of Terraform's language and behave as it documents them. A name is followed by its arguments in \
         parentheses; `list...` behind the last one spreads a list. `x?` may be left out, `x...` may stand any number of times. \
         Results are shown as JSON.\n\n\
         What is sensitive in an argument is sensitive in the result: as a whole, or, where a function passes elements on as \
         they are, in those elements. Characters are grapheme clusters, as people see them. Texts are at most 16 MiB long. The \
         files in these examples are `hello.txt` (`hello` and a line break) and `list.tpl` (`%{ for n, h in hosts ~}`, \
         `${n}=${h}`, `%{ endfor ~}`, `end`); the stack's folder is `/s`.\n\n\
         This page is written from the functions themselves: `BASALT_WRITE_DOCS=1 cargo test -p basalt-stackfile docs`.\n",
    );
    for (heading, table) in TABLES {
        page.push_str(&format!("\n## {heading}\n"));
        for function in table {
            let (example, result) = function.example;
            let (usage, about) = (function.usage, function.about);
            page.push_str(&format!("\n### `{usage}`\n\n{about}\n\n```hcl\n{example}  # {result}\n```\n"));
        }
    }
    page.push_str("\n## Left out\n\n| function | why |\n|---|---|\n");
    for (name, why) in LEFT_OUT {
        page.push_str(&format!("| `{name}` | {why} |\n"));
    }
    page
}

#[test]
fn the_page_is_up_to_date() {
    let page = page();
    if std::env::var_os("BASALT_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(PAGE).expect("the page is there");
    assert!(written == page, "docs/functions.md is out of date: run with BASALT_WRITE_DOCS=1");
}

#[test]
fn every_example_is_right() {
    let mut wrong = Vec::new();
    for function in TABLES.iter().flat_map(|(_, table)| *table) {
        let (example, result) = function.example;
        let found = eval(example);
        if found.as_deref() != Ok(result) {
            wrong.push(format!("{example}: {found:?}, expected {result}"));
        }
        assert!(
            example.contains(&format!("{}(", function.name())),
            "the example of {} does not call it",
            function.usage
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_function_has_one_row() {
    let mut names: Vec<&str> = TABLES.iter().flat_map(|(_, table)| *table).map(Function::name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for (name, _) in LEFT_OUT {
        assert!(!names.contains(&name), "{name} is left out, and there");
    }
}

/// Whatever the function: sensitive arguments never make a result that may be shown.
#[test]
fn marks_pass_through_every_function() {
    const EXEMPT: [&str; 4] = ["can", "issensitive", "nonsensitive", "type"];
    let mut lost = Vec::new();
    for function in TABLES.iter().flat_map(|(_, table)| *table).filter(|f| !EXEMPT.contains(&f.name())) {
        let expr: hcl_edit::expr::Expression = function.example.0.parse().expect(function.usage);
        // Some examples shorten what the function returns.
        let Some(call) = innermost(&expr, function.name()) else { panic!("{} is not called", function.usage) };
        let args: Vec<String> = call.args.iter().map(|arg| format!("sensitive({})", arg.to_string().trim())).collect();
        if args.is_empty() {
            continue;
        }
        let dots = if call.args.expand_final() { "..." } else { "" };
        let text = format!("issensitive({}({}{dots}))", function.name(), args.join(", "));
        if eval(&text).as_deref() != Ok("true") {
            lost.push(format!("{text}: {:?}", eval(&text)));
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// Returns the call of a function within an example.
fn innermost<'e>(expr: &'e hcl_edit::expr::Expression, name: &str) -> Option<&'e hcl_edit::expr::FuncCall> {
    let call = expr.as_func_call()?;
    if call.name.name.as_str() == name {
        return Some(call);
    }
    call.args.iter().find_map(|arg| innermost(arg, name))
}
