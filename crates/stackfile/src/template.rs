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
        let (text, sensitive) = self.elements(&elements, scope, at, false, false)?;
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
        self.trimmed(template, scope, at, false, false)
    }

    fn trimmed(&self, template: &Template, scope: &Scope, at: At, start: bool, end: bool) -> Eval<(String, bool)> {
        self.elements(&template.iter().collect::<Vec<_>>(), scope, at, start, end)
    }

    /// Returns the text of some elements; `start` and `end` say whether the markers around them ask for trimming.
    fn elements(&self, elements: &[&Element], scope: &Scope, at: At, start: bool, end: bool) -> Eval<(String, bool)> {
        let mut text = String::new();
        let mut sensitive = false;
        let mut failed: Option<Faults> = None;
        for (i, element) in elements.iter().enumerate() {
            let part = match element {
                Element::Literal(literal) => {
                    let before = i.checked_sub(1).map_or(start, |i| strips(elements[i]).strip_end());
                    let after = elements.get(i + 1).map_or(end, |next| strips(next).strip_start());
                    let literal = literal.as_str();
                    let literal = if before { literal.trim_start() } else { literal };
                    Ok((if after { literal.trim_end() } else { literal }.to_owned(), false))
                }
                Element::Interpolation(interpolation) => self
                    .eval(&interpolation.expr, scope, at)
                    .and_then(|value| Ok((value.to_text()?, value.is_sensitive()))),
                Element::Directive(directive) => match &**directive {
                    Directive::If(directive) => self.if_directive(directive, scope, at),
                    Directive::For(directive) => self.for_directive(directive, scope, at),
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

    fn if_directive(&self, directive: &IfDirective, scope: &Scope, at: At) -> Eval<(String, bool)> {
        let condition = self.eval(&directive.if_expr.cond_expr, scope, at)?;
        let end = directive.endif_expr.strip.strip_start();
        let (text, sensitive) = match (condition.to_bool()?, &directive.else_expr) {
            (true, other) => {
                let end = other.as_ref().map_or(end, |other| other.strip.strip_start());
                let start = directive.if_expr.strip.strip_end();
                self.trimmed(&directive.if_expr.template, scope, at, start, end)?
            }
            (false, Some(other)) => self.trimmed(&other.template, scope, at, other.strip.strip_end(), end)?,
            (false, None) => (String::new(), false),
        };
        Ok((text, sensitive || condition.is_sensitive()))
    }

    fn for_directive(&self, directive: &ForDirective, scope: &Scope, at: At) -> Eval<(String, bool)> {
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
            let (part, mark) = self.trimmed(&intro.template, &inner, at, start, end)?;
            text.push_str(&part);
            sensitive |= mark;
        }
        Ok((text, sensitive))
    }
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
