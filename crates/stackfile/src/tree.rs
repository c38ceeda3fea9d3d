//! The tree of a stack file: blocks, attributes and expressions with their places, whatever kind of text they were written in.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, Traversal, TraversalOperator};
use hcl_edit::structure::{BlockLabel, Structure};
use hcl_edit::template::Template;
use hcl_edit::visit::{Visit, visit_traversal};

use crate::eval::Scope;
use crate::number::Number;
use crate::schema::{self, Shape};
use crate::source::At;

/// What stands between two braces, or in a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) blocks: Vec<Block>,
}

/// `name = value`.
#[derive(Debug, Clone)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) name_at: At,
    pub(crate) value: Rc<Expr>,
}

/// `ident "label" { … }`.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) ident: String,
    pub(crate) ident_at: At,
    pub(crate) labels: Vec<Label>,
    /// Its first line: kind and labels.
    pub(crate) header: At,
    pub(crate) body: Body,
    /// What may stand in it.
    pub(crate) shape: &'static Shape,
    /// The names bound around it, by `for_each` or `dynamic`.
    pub(crate) scope: Option<Rc<Scope<'static>>>,
}

/// A label of a block.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) text: String,
    pub(crate) at: At,
}

/// An expression, not yet evaluated.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    /// Of an HCL file. What it says of its own place may count from the begin of a piece of the file.
    Hcl(At, Box<Expression>),
    /// Of a YAML or JSON file, or a plain value of an HCL file.
    Node(Node),
}

/// A value in a YAML or JSON file.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) data: NodeData,
    pub(crate) at: At,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone)]
pub(crate) enum NodeData {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    /// A string with `${…}` or `%{…}` in it.
    Template(Box<TextTemplate>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A template in a YAML or JSON string.
#[derive(Debug, Clone)]
pub(crate) struct TextTemplate {
    pub(crate) template: Template,
    /// Its text, escapes resolved.
    pub(crate) text: String,
    /// Where the text begins in the file, if it stands there as it is; else only the whole string has a place.
    pub(crate) start: Option<u32>,
}

/// An entry of a map.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: At,
    pub(crate) value: Node,
}

impl Body {
    /// Returns the attribute of a name.
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// Adds what a parsed piece of an HCL file holds.
    pub(crate) fn add_hcl(&mut self, piece: &Piece, body: hcl_edit::structure::Body, shape: &'static Shape) {
        let Self { attributes, blocks } = Self::of_hcl(piece, body, shape, None);
        self.attributes.extend(attributes);
        self.blocks.extend(blocks);
    }

    /// Returns the body of a parsed HCL block; `content` is what may stand in a `content` block of it.
    fn of_hcl(
        piece: &Piece,
        body: hcl_edit::structure::Body,
        shape: &'static Shape,
        content: Option<&'static Shape>,
    ) -> Self {
        let place = |span: Option<Range<usize>>| piece.place(span);
        // Blocks are many and small: what a growing list has to spare would be most of what they take.
        let mut converted = Self {
            attributes: Vec::with_capacity(body.attributes().count()),
            blocks: Vec::with_capacity(body.blocks().count()),
        };
        for structure in body {
            let block = match structure {
                Structure::Attribute(attribute) => {
                    converted.attributes.push(Attribute {
                        name: attribute.key.as_str().to_owned(),
                        name_at: place(attribute.key.span()),
                        value: Rc::new(piece.expr(attribute.value)),
                    });
                    continue;
                }
                Structure::Block(block) => block,
            };
            let ident = block.ident.as_str().to_owned();
            let ident_at = place(block.ident.span());
            let label = |label: &BlockLabel| Label {
                text: label.as_str().to_owned(),
                at: place(match label {
                    BlockLabel::Ident(ident) => ident.span(),
                    BlockLabel::String(text) => text.span(),
                }),
            };
            let labels: Vec<Label> = block.labels.iter().map(label).collect();
            let (inner, inner_content) = match content {
                Some(content) if ident == "content" => (content, None),
                _ if ident == schema::DYNAMIC => {
                    let of = labels.first().map_or(&schema::OPEN, |label| shape.inner(&label.text));
                    (&schema::OF_DYNAMIC, Some(of))
                }
                _ => (shape.inner(&ident), None),
            };
            converted.blocks.push(Block {
                header: At { end: labels.last().map_or(ident_at.end, |label| label.at.end), ..ident_at },
                body: Self::of_hcl(piece, block.body, inner, inner_content),
                shape: inner,
                scope: None,
                ident,
                ident_at,
                labels,
            });
        }
        converted
    }
}

/// A piece of an HCL file, which was parsed by itself.
pub(crate) struct Piece<'t> {
    pub(crate) source: u32,
    /// Where it begins in the file.
    pub(crate) start: usize,
    pub(crate) text: &'t str,
}

impl Piece<'_> {
    fn place(&self, span: Option<Range<usize>>) -> At {
        let span = span.unwrap_or_default();
        At::new(self.source, self.start + span.start..self.start + span.end)
    }

    /// Returns an expression, in the short form of other kinds of text if it is a plain value: most are, and the parser's
    /// own form takes ten times the memory.
    fn expr(&self, expr: Expression) -> Expr {
        let at = self.place(expr.span());
        let data = match &expr {
            Expression::Null(_) => Some(NodeData::Null),
            Expression::Bool(b) => Some(NodeData::Bool(*b.value())),
            Expression::String(text) => Some(NodeData::Text(text.value().clone())),
            // The parser rounds to a double: the text is exact. What is out of range is said where it is evaluated.
            Expression::Number(number) => {
                let text = number.span().and_then(|span| self.text.get(span));
                text.and_then(Number::parse).map(NodeData::Number)
            }
            _ => None,
        };
        match data {
            Some(data) => Expr::Node(Node { data, at }),
            None => Expr::Hcl(at, Box::new(expr)),
        }
    }
}

impl Block {
    /// Returns whether a `dynamic` block is in it, at any depth.
    pub(crate) fn has_dynamic(&self) -> bool {
        self.body.blocks.iter().any(|block| block.ident == schema::DYNAMIC || block.has_dynamic())
    }
}

impl Expr {
    /// Returns where it stands.
    pub(crate) fn at(&self) -> At {
        match self {
            Self::Hcl(at, _) => *at,
            Self::Node(node) => node.at,
        }
    }

    /// Returns the references in it, as root and name: `local.a`, `module.b`, `service.c`.
    pub(crate) fn references(&self) -> BTreeSet<(String, String)> {
        let mut references = References(BTreeSet::new());
        match self {
            Self::Hcl(_, expr) => references.visit_expr(expr),
            Self::Node(node) => references.node(node),
        }
        references.0
    }
}

impl Block {
    /// Returns the references in it, as root and name.
    pub(crate) fn references(&self) -> BTreeSet<(String, String)> {
        let own = self.body.attributes.iter().flat_map(|attribute| attribute.value.references());
        own.chain(self.body.blocks.iter().flat_map(Self::references)).collect()
    }
}

struct References(BTreeSet<(String, String)>);

impl References {
    fn node(&mut self, node: &Node) {
        match &node.data {
            NodeData::Template(template) => self.visit_template(&template.template),
            NodeData::List(items) => items.iter().for_each(|item| self.node(item)),
            NodeData::Map(entries) => entries.iter().for_each(|entry| self.node(&entry.value)),
            NodeData::Null | NodeData::Bool(_) | NodeData::Number(_) | NodeData::Text(_) => {}
        }
    }
}

impl Visit for References {
    fn visit_traversal(&mut self, node: &Traversal) {
        if let Some(root) = node.expr.as_variable() {
            let name = match node.operators.first().map(|op| op.value()) {
                Some(TraversalOperator::GetAttr(name)) => Some(name.as_str()),
                Some(TraversalOperator::Index(Expression::String(name))) => Some(name.value().as_str()),
                _ => None,
            };
            self.0.extend(name.map(|name| (root.as_str().to_owned(), name.to_owned())));
        }
        visit_traversal(self, node);
    }
}
