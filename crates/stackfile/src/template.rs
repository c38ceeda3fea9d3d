//! String templates: `${…}`, `%{ if … }`, `%{ for … }`.

use hcl_edit::template::{Directive, Element, ForDirective, IfDirective, StringTemplate, Strip, Template};

use crate::eval::{Evaluator, Scope, pairs};
use crate::fault::{Eval, Fault, Faults};
use crate::source::At;
use crate::value::Value;

/// The longest text that evaluation makes, in bytes; config files and templates are far smaller.
pub(crate) const LONGEST_TEXT: usize = 16 << 20;

impl Evaluator<'_> {
    /// Returns the value of a quoted template. `"${x}"` alone is `x` itself, not its text.
    pub(crate) fn template(&self, template: &StringTemplate, scope: &Scope, at: At) -> Eval<Value> {
        if let Some(Element::Interpolation(only)) = template.as_single_element() {
            return self.eval(&only.expr, scope, at);
        }
        let elements: Vec<&Element> = template.iter().collect();
        let (text, sensitive) = self.elements(&elements, scope, at, (false, false), true)?;
        Ok(Value::text(text, at).marked(sensitive))
    }

    /// Returns the value of the template in a string of a YAML or JSON file, by the same rule.
    pub(crate) fn text_template(&self, template: &Template, scope: &Scope, at: At) -> Eval<Value> {
        if let (Some(Element::Interpolation(only)), 1) = (template.get(0), template.len()) {
            return self.eval(&only.expr, scope, at);
        }
        let (text, sensitive) = self.render(template, scope, at)?;
        Ok(Value::text(text, at).marked(sensitive))
    }

    /// Returns the text of a template, and whether anything sensitive is in it.
    pub(crate) fn render(&self, template: &Template, scope: &Scope, at: At) -> Eval<(String, bool)> {
        self.trimmed(template, scope, at, (false, false), false)
    }

    fn trimmed(
        &self,
        template: &Template,
        scope: &Scope,
        at: At,
        trim: (bool, bool),
        quoted: bool,
    ) -> Eval<(String, bool)> {
        self.elements(&template.iter().collect::<Vec<_>>(), scope, at, trim, quoted)
    }

    /// Returns the text of some elements; `start` and `end` say whether the markers around them ask for trimming, and
    /// `quoted` whether they stand in quotes.
    fn elements(
        &self,
        elements: &[&Element],
        scope: &Scope,
        at: At,
        (start, end): (bool, bool),
        quoted: bool,
    ) -> Eval<(String, bool)> {
        let mut text = String::new();
        let mut sensitive = false;
        let mut failed: Option<Faults> = None;
        for (i, element) in elements.iter().enumerate() {
            let part = match element {
                Element::Literal(literal) => {
                    let before = i.checked_sub(1).map_or(start, |i| strips(elements[i]).strip_end());
                    let after = elements.get(i + 1).map_or(end, |next| strips(next).strip_start());
                    let literal = if before { without_start(literal, quoted) } else { literal.to_string() };
                    Ok((if after { without_end(&literal, quoted).to_owned() } else { literal }, false))
                }
                Element::Interpolation(interpolation) => self
                    .eval(&interpolation.expr, scope, at)
                    .and_then(|value| Ok((value.to_text()?, value.is_sensitive()))),
                Element::Directive(directive) => match &**directive {
                    Directive::If(directive) => self.if_directive(directive, scope, at, quoted),
                    Directive::For(directive) => self.for_directive(directive, scope, at, quoted),
                },
            };
            match part {
                Ok((part, mark)) => {
                    self.cx.spend(part.len(), at)?;
                    text.push_str(&part);
                    sensitive |= mark;
                }
                Err(faults) => failed.get_or_insert_default().0.extend(faults.0),
            }
        }
        if text.len() > LONGEST_TEXT {
            return Err(Fault::at(at, "text longer than 16 MiB").into());
        }
        failed.map_or(Ok((text, sensitive)), Err)
    }

    fn if_directive(&self, directive: &IfDirective, scope: &Scope, at: At, quoted: bool) -> Eval<(String, bool)> {
        let condition = self.eval(&directive.if_expr.cond_expr, scope, at)?;
        let end = directive.endif_expr.strip.strip_start();
        let (text, sensitive) = match (condition.to_bool()?, &directive.else_expr) {
            (true, other) => {
                let end = other.as_ref().map_or(end, |other| other.strip.strip_start());
                let start = directive.if_expr.strip.strip_end();
                self.trimmed(&directive.if_expr.template, scope, at, (start, end), quoted)?
            }
            (false, Some(other)) => self.trimmed(&other.template, scope, at, (other.strip.strip_end(), end), quoted)?,
            (false, None) => (String::new(), false),
        };
        Ok((text, sensitive || condition.is_sensitive()))
    }

    fn for_directive(&self, directive: &ForDirective, scope: &Scope, at: At, quoted: bool) -> Eval<(String, bool)> {
        let intro = &directive.for_expr;
        let collection = self.eval(&intro.collection_expr, scope, at)?;
        let mut sensitive = collection.is_sensitive();
        let mut text = String::new();
        for (key, value) in pairs(&collection)? {
            self.cx.spend(value.size(), at)?;
            let value_name = intro.value_var.as_str().to_owned();
            let key = intro.key_var.as_ref().map(|name| (name.as_str().to_owned(), key));
            let inner = scope.with(key.into_iter().chain([(value_name, value)]));
            let (start, end) = (intro.strip.strip_end(), directive.endfor_expr.strip.strip_start());
            let (part, mark) = self.trimmed(&intro.template, &inner, at, (start, end), quoted)?;
            text.push_str(&part);
            sensitive |= mark;
        }
        Ok((text, sensitive))
    }
}

/// Returns a literal without the white space at its start: all of it in quotes, else up to the end of the line, so that
/// what the next line is indented by stays, as in HCL's own implementation, whose literals end with their lines.
fn without_start(literal: &str, quoted: bool) -> String {
    let end = if quoted { literal.len() } else { literal.find('\n').map_or(literal.len(), |end| end + 1) };
    let (line, rest) = literal.split_at(end);
    format!("{}{rest}", line.trim_start())
}

/// Returns a literal without the white space at its end, by the same rule.
fn without_end(literal: &str, quoted: bool) -> &str {
    let body = literal.strip_suffix('\n').unwrap_or(literal);
    let start = if quoted { 0 } else { body.rfind('\n').map_or(0, |end| end + 1) };
    &literal[..start + literal[start..].trim_end().len()]
}

/// Returns what an element trims of the literals before and behind it.
fn strips(element: &Element) -> Strip {
    match element {
        Element::Literal(_) => Strip::None,
        Element::Interpolation(interpolation) => interpolation.strip,
        Element::Directive(directive) => match &**directive {
            Directive::If(d) => Strip::from((d.if_expr.strip.strip_start(), d.endif_expr.strip.strip_end())),
            Directive::For(d) => Strip::from((d.for_expr.strip.strip_start(), d.endfor_expr.strip.strip_end())),
        },
    }
}
