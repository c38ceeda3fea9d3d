//! `image` blocks, and references to images.

use basalt_model::{Bake, BakeFrom, BakeStep, ImageConfig, ImageSource, Name};

use crate::check::Places;
use crate::fault::{Eval, Fault};
use crate::read;
use crate::reader::Reader;
use crate::source::{At, Context};
use crate::tree::Block;
use crate::units;
use crate::value::{Data, Kind, Value};

/// Permission bits of a file that says nothing else: readable by all, since instances run under many users.
const FILE_MODE: u32 = 0o644;

/// Decodes an `image` block.
pub(super) fn image(mut reader: Reader, name: &Name, places: &mut Places) -> Bake {
    let cx = reader.ev.cx;
    let from_at = reader.place("from");
    let from = reader.required("from", "from = \"scratch\", or an image", |value| match &value.data {
        Data::Text(text) if text == "scratch" => Ok(BakeFrom::Scratch),
        _ => source(cx, value).map(BakeFrom::Image),
    });
    if let Some(BakeFrom::Image(ImageSource::Block(base))) = &from {
        places.bases.push((name.clone(), base.clone(), from_at));
    }
    let config = ImageConfig {
        command: reader.get("command", read::command).unwrap_or_default(),
        env: reader.get("env", read::environment).unwrap_or_default(),
        user: reader.get("user", user).unwrap_or_default(),
        workdir: reader.get("workdir", |v| read::path(&read::text(v)?, v.at)).unwrap_or_default(),
        labels: reader.get("labels", read::text_map).unwrap_or_default(),
    };
    let blocks = reader.blocks(&["copy", "file", "link"]);
    let steps = blocks.into_iter().filter_map(|block| step(&reader, block)).collect();
    reader.not_yet("run");
    reader.finish();
    Bake { from: from.unwrap_or(BakeFrom::Scratch), steps, config }
}

/// Decodes a `copy`, `file` or `link` block.
fn step(image: &Reader, block: &Block) -> Option<BakeStep> {
    let ev = image.ev;
    let (label, label_at) = Reader::single_label(ev, block)?;
    let word = block.ident.as_str();
    let mut reader = Reader::block(ev, block, format!("`{word}` of {}", image.what));
    let step = match word {
        "copy" => {
            let to = reader.required("to", "to = \"/path/in/the/image\"", |v| read::path(&read::text(v)?, v.at));
            let mode = reader.get("mode", units::mode);
            let from = ev.cx.resolve(&label);
            if label.is_empty() || !ev.cx.files.exists(&from) {
                let fault = Fault::at(label_at, format!("there is no `{}` to copy", from.display()));
                reader.report(fault.help("paths that are not absolute begin at the stack's folder"));
            }
            to.map(|to| BakeStep::Copy { from, to, mode })
        }
        "file" => {
            let path = ev.cx.keep(read::inner_path(&label, label_at));
            let content = reader.required("content", "content = \"…\"", read::content);
            let mode = reader.get("mode", units::mode).unwrap_or(FILE_MODE);
            path.zip(content).map(|(path, content)| BakeStep::File { path, content, mode })
        }
        _ => {
            let path = ev.cx.keep(read::inner_path(&label, label_at));
            let to = reader.required("to", "to = \"…\", what the link points to", read::text);
            path.zip(to).map(|(path, to)| BakeStep::Link { path, to })
        }
    };
    reader.finish();
    step
}

/// Reads where an image comes from: `image.NAME` or a reference in quotes.
pub(super) fn source(cx: &Context, value: &Value) -> Eval<ImageSource> {
    match &value.data {
        Data::Reference(Kind::Image, name) => read::name(name, value.at).map(ImageSource::Block),
        Data::Text(text) => reference(cx, text, value.at).map(ImageSource::Reference),
        _ => Err(value.wrong_type("an image").help("write `image.NAME`, or a reference in quotes").into()),
    }
}

/// Reads a reference: paths in it become absolute, and must be there.
fn reference(cx: &Context, text: &str, at: At) -> Eval<String> {
    let shown = text.escape_debug();
    for scheme in ["oci-archive:", "docker-archive:", "oci:", "dir:", "tar:"] {
        let Some(path) = text.strip_prefix(scheme) else { continue };
        let path = cx.resolve(path);
        let folder = matches!(scheme, "oci:" | "dir:");
        let what = if folder { "folder" } else { "file" };
        if !cx.files.exists(&path) || folder != cx.files.is_folder(&path) {
            let fault = Fault::at(at, format!("there is no {what} `{}`", path.display()));
            return Err(fault.help("paths that are not absolute begin at the stack's folder").into());
        }
        return Ok(format!("{scheme}{}", path.display()));
    }
    let fault = |message: &str, help: &str| Err(Fault::at(at, format!("`{shown}` {message}")).help(help).into());
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if text == "scratch" {
        return fault("is empty: nothing in it can run", "declare an `image` block that starts from it");
    }
    if text.contains("://") {
        return fault("is not an image reference", "leave out the part up to `://`");
    }
    if text.starts_with(['/', '.']) || text.ends_with(".tar") {
        return fault("looks like a file", "write `oci-archive:FILE`, `docker-archive:FILE` or `oci:DIR`");
    }
    if !text.chars().all(plain) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return fault("is not an image reference", "write for example \"registry.example.com/team/web:1.2\"");
    }
    Ok(text.to_owned())
}

/// Reads a user: `user`, `uid`, `user:group` or `uid:gid`.
pub(super) fn user(value: &Value) -> Eval<String> {
    /// The largest id: what the kernel and all container tools agree on to be none of the special ones.
    const LARGEST_ID: u64 = i32::MAX as u64;
    let text = read::text(value)?;
    let part = |part: &str| {
        if part.bytes().all(|b| b.is_ascii_digit()) {
            part.parse::<u64>().is_ok_and(|id| id <= LARGEST_ID)
        } else {
            part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        }
    };
    let (user, group) = text.split_once(':').map_or((text.as_str(), None), |(user, group)| (user, Some(group)));
    if part(user) && group.is_none_or(part) {
        return Ok(text);
    }
    let fault = Fault::at(value.at, format!("{} is not a user", value.shown()));
    Err(fault.help("write a name or number, and a group behind a colon if need be: \"www-data\", \"1000:1000\"").into())
}
