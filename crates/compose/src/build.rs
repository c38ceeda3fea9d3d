//! `build` to an `image` block.

use std::path::Path;

use crate::fields::Fields;
use crate::hcl::{Block, Expr};
use crate::import::{Cx, PathKind};
use crate::interpolate::Where;
use crate::keys;
use crate::yaml::{Data, Node};

/// The image that a service builds.
pub(crate) struct Built {
    /// Its name in the stack: that of the first service that builds the same.
    pub(crate) name: String,
    /// Its block, unless another service has it.
    pub(crate) block: Option<Block>,
}

/// Returns the image that a service builds.
pub(crate) fn image(cx: &Cx, node: &Node, name: &str) -> Option<Built> {
    let block = block(cx, node, name)?;
    let same = format!("{:?} {:?}", block.attributes, block.blocks);
    let mut built = cx.built.borrow_mut();
    if let Some(first) = built.get(&same) {
        return Some(Built { name: first.clone(), block: None });
    }
    built.insert(same, name.to_owned());
    Some(Built { name: name.to_owned(), block: Some(block) })
}

fn block(cx: &Cx, node: &Node, name: &str) -> Option<Block> {
    let fields = Fields::new(node);
    let context = match &node.data {
        Data::Scalar(_) => cx.known(node),
        _ => fields.get("context").and_then(|node| cx.known(node)),
    };
    let context = context.unwrap_or_else(|| ".".to_owned());
    if context.contains("://") || context.starts_with("git@") {
        cx.findings.name(
            node,
            "images are built from folders, not from a repository elsewhere",
            "check it out beside the stack",
        );
        return None;
    }
    let file = fields.get("dockerfile").and_then(|node| cx.known(node)).unwrap_or_else(|| "Dockerfile".to_owned());
    let file = if file.starts_with('/') { file } else { join(&context, &file) };
    if cx.files.kind(Path::new(&file)) != Some(PathKind::File) && node.get("dockerfile_inline").is_none() {
        cx.findings.note(node, format!("there is no `{file}`"), "the stack is not valid without it");
    }
    let mut block = Block::new("image", name);
    let target = fields.get("target").and_then(|node| cx.text(node, Where::Elsewhere));
    let args = fields.get("args").map(|node| cx.pairs(node, Where::Elsewhere)).unwrap_or_default();
    let folder = context.trim_start_matches("./").trim_end_matches('/');
    let folder = if folder == "." { "" } else { folder };
    let beside = Path::new(&file).parent() == Some(Path::new(folder));
    if target.is_none() && args.is_empty() && beside {
        block.set("dockerfile", Expr::text(cx.path(&file)));
    } else {
        let mut inner = Block::plain("build").with("dockerfile", Expr::text(cx.path(&file)));
        if !beside {
            inner.set("context", Expr::text(cx.path(&context)));
        }
        if let Some(target) = target {
            inner.set("target", Expr::Text(target));
        }
        if !args.is_empty() {
            inner.set("args", Expr::Map(args));
        }
        block.blocks.push(inner);
    }
    if node.map().is_some() {
        fields.finish(cx, keys::BUILD);
    }
    Some(block)
}

/// Returns the path of a file in a folder, without `./`.
fn join(folder: &str, file: &str) -> String {
    let folder = folder.trim_start_matches("./").trim_end_matches('/');
    match folder {
        "" | "." => file.trim_start_matches("./").to_owned(),
        folder => format!("{folder}/{}", file.trim_start_matches("./")),
    }
}
