//! `image` blocks, and references to images.

use std::collections::BTreeMap;
use std::path::Path;

use basalt_model::{
    Bake, BakeFrom, BakeStep, CopyFrom, CopyStep, Debian, DebianPin, Dockerfile, FileStep, ImageConfig, ImageSource,
    Name,
};

use super::provision;
use crate::check::Places;
use crate::fault::{Eval, Fault};
use crate::read;
use crate::reader::Reader;
use crate::source::{At, Context};
use crate::suggest::did_you_mean;
use crate::tree::Block;
use crate::units;
use crate::value::{Data, Kind, Value};

/// Permission bits of a file that says nothing else: readable by all, since instances run under many users.
const FILE_MODE: u32 = 0o644;

/// The blocks that are steps, done in the order in which they are written.
const STEPS: [&str; 6] = ["copy", "file", "link", "directory", "run", "provision"];

/// Decodes an `image` block.
pub(super) fn image(mut reader: Reader, name: &Name, places: &mut Places) -> Bake {
    let from = base(&mut reader, name, places).unwrap_or(BakeFrom::Scratch);
    let config = ImageConfig {
        command: reader.get("command", read::command).unwrap_or_default(),
        env: reader.get("env", read::environment).unwrap_or_default(),
        user: reader.get("user", user).unwrap_or_default(),
        workdir: reader.get("workdir", |v| read::path(&read::text(v)?, v.at)).unwrap_or_default(),
        labels: reader.get("labels", read::text_map).unwrap_or_default(),
        expose: reader.get("expose", |v| Ok(read::list(v, exposed)?.into_iter().collect())).unwrap_or_default(),
        entrypoint: Vec::new(),
    };
    let mut steps = Vec::new();
    for block in reader.blocks(&STEPS) {
        let step = match block.ident.as_str() {
            "run" => provision::run(&reader, block, &config.env),
            "provision" => provision::provision(&reader, block, &config.env),
            _ => step(&reader, block, name, places),
        };
        steps.extend(step);
    }
    reader.finish();
    Bake { from, steps, config }
}

/// Decodes what an image starts from: exactly one of `from`, `base`, `dockerfile` and `build`.
fn base(reader: &mut Reader, name: &Name, places: &mut Places) -> Option<BakeFrom> {
    let cx = reader.ev.cx;
    let from_at = reader.place("from");
    let mut bases = Vec::new();
    if reader.has("from") {
        let from = reader.get("from", |value| match &value.data {
            Data::Text(text) if text == "scratch" => Ok(BakeFrom::Scratch),
            _ => source(cx, value).map(BakeFrom::Image),
        });
        if let Some(BakeFrom::Image(ImageSource::Block(base))) = &from {
            places.bases.push((name.clone(), base.clone(), from_at));
        }
        bases.push((from_at, from));
    } else {
        // Asked for by name, so that it counts as known.
        let _ = reader.value("from");
    }
    if let Some(block) = reader.only_labelled_block("base") {
        bases.push((block.header, debian(reader, block)));
    }
    let has_file = reader.has("dockerfile");
    let file_at = reader.place("dockerfile");
    let file = reader.get("dockerfile", read::text);
    if has_file {
        bases.push((file_at, file.and_then(|file| dockerfile(cx, &file, file_at, None)).map(BakeFrom::Dockerfile)));
    }
    if let Some(mut block) = reader.only_block("build") {
        let at = block.place("dockerfile");
        let file = block.get("dockerfile", read::text).unwrap_or_else(|| "Dockerfile".to_owned());
        let context = block.get("context", read::text);
        let decoded = dockerfile(cx, &file, at, context.as_deref());
        let target = block.get("target", read::text);
        let args = block.get("args", read::text_map).unwrap_or_default();
        let network = block.get("network", read::boolean).unwrap_or(true);
        let images_at = block.place("images");
        let images = block.get("images", |value| images(cx, value)).unwrap_or_default();
        for image in images.values() {
            if let ImageSource::Block(base) = image {
                places.bases.push((name.clone(), base.clone(), images_at));
            }
        }
        let whole = |decoded| BakeFrom::Dockerfile(Dockerfile { target, args, network, images, ..decoded });
        bases.push((block.at, decoded.map(whole)));
        block.finish();
    }
    match bases.len() {
        0 => {
            let fault = Fault::at(reader.at, format!("{} does not say what it starts from", reader.what));
            reader.report(
                fault.help("write from = \"scratch\", or an image; or base \"debian\" { … }, or dockerfile = \"…\""),
            );
        }
        1 => {}
        _ => {
            let fault = Fault::at(bases[1].0, format!("{} starts from two things", reader.what)).label("the second");
            reader.report(
                fault.place(bases[0].0, "the first").help("keep one of `from`, `base`, `dockerfile` and `build`"),
            );
        }
    }
    bases.into_iter().next().and_then(|(_, base)| base)
}

/// Decodes a `base` block.
fn debian(image: &Reader, block: &Block) -> Option<BakeFrom> {
    let ev = image.ev;
    let (label, label_at) = Reader::single_label(ev, block)?;
    if label != "debian" {
        let fault = Fault::at(label_at, format!("there is no base `{}`", label.escape_debug()));
        image.report(fault.maybe_help(did_you_mean(&label, ["debian"])));
        return None;
    }
    let mut reader = Reader::block(ev, block, format!("`base` of {}", image.what));
    let suite = reader.required("suite", "suite = \"bookworm\"", |v| plain(v, "a suite of Debian", "-"));
    let packages = reader.get("packages", |v| read::list(v, |v| plain(v, "the name of a package", "+-.:")));
    let components = reader.get("components", |v| read::list(v, |v| plain(v, "a section of the archive", "-/")));
    let mirror = reader.get("mirror", |v| plain(v, "the address of an archive", "+-.:/_~%@"));
    let snapshot_at = reader.place("snapshot");
    let snapshot = reader.get("snapshot", snapshot);
    let lock_at = reader.place("lock");
    let lock = reader.get("lock", |value| lock(ev.cx, value));
    let pin = match (snapshot, lock) {
        (Some(_), Some(_)) => {
            let fault = Fault::at(lock_at, "a snapshot and a lock are two pins").label("the second");
            reader.report(fault.place(snapshot_at, "the first").help("keep one of them"));
            None
        }
        (Some(snapshot), None) => Some(DebianPin::Snapshot(snapshot)),
        (None, lock) => {
            if lock.is_none() && !reader.has("lock") && !reader.has("snapshot") {
                let fault = Fault::at(reader.at, "nothing pins the versions of the packages");
                reader.report(fault.help(
                    "write lock = \"NAME.lock\" and then `basalt image lock STACK`, or snapshot = \"20260101T000000Z\"",
                ));
            }
            lock
        }
    };
    reader.finish();
    let components = components.unwrap_or_else(|| vec!["main".to_owned()]);
    let packages = packages.unwrap_or_default();
    suite.zip(pin).map(|(suite, pin)| BakeFrom::Debian(Debian { suite, packages, components, mirror, pin }))
}

/// Reads a word that becomes part of apt's own files.
fn plain(value: &Value, what: &str, more: &str) -> Eval<String> {
    let text = read::text(value)?;
    let good = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(good) {
        return Ok(text);
    }
    Err(Fault::at(value.at, format!("{} is not {what}", value.shown())).into())
}

/// Reads the time of a snapshot of the archive.
fn snapshot(value: &Value) -> Eval<String> {
    let text = read::text(value)?;
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape == "00000000T000000Z" {
        return Ok(text);
    }
    let fault = Fault::at(value.at, format!("{} is not the time of a snapshot", value.shown()));
    Err(fault.help("write it as snapshot.debian.org does: \"20260101T000000Z\"").into())
}

/// Reads a lock of packages; one that is not there yet is written by `basalt image lock`.
fn lock(cx: &Context, value: &Value) -> Eval<DebianPin> {
    let file = cx.resolve(&read::text(value)?);
    if !cx.files.exists(&file) {
        return Ok(DebianPin::Lock { file, lock: None });
    }
    let text = cx.read_text(&file).map_err(|why| Fault::at(value.at, why))?;
    let lock = text.parse().map_err(|error| {
        let fault = Fault::at(value.at, format!("`{}`: {error}", file.display()));
        fault.help("it is written by `basalt image lock STACK`; remove it and write it anew")
    })?;
    Ok(DebianPin::Lock { file, lock: Some(lock) })
}

/// Reads a Dockerfile and what is left out of its context.
fn dockerfile(cx: &Context, file: &str, at: At, context: Option<&str>) -> Option<Dockerfile> {
    let path = cx.resolve(file);
    let read = |path: &Path| cx.read_text(path).map_err(|why| Fault::at(at, why).into());
    let text = cx.keep(read(&path))?;
    let context = match context {
        Some(context) => cx.resolve(context),
        None => path.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    if !cx.files.is_folder(&context) {
        let fault = Fault::at(at, format!("there is no folder `{}`", context.display()));
        cx.report(fault.help("`context` is the folder that COPY takes from"));
        return None;
    }
    let mut own = path.clone().into_os_string();
    own.push(".dockerignore");
    let ignores = [own.into(), context.join(".dockerignore")];
    let ignore = match ignores.iter().find(|path| cx.files.exists(path)) {
        Some(path) => patterns(&cx.keep(read(path))?),
        None => Vec::new(),
    };
    let (args, images) = (BTreeMap::new(), BTreeMap::new());
    Some(Dockerfile { file: path, text, context, ignore, target: None, args, network: true, images })
}

/// Reads which images stand for names in a Dockerfile.
fn images(cx: &Context, value: &Value) -> Eval<BTreeMap<String, ImageSource>> {
    let Data::Map(map) = &value.data else {
        return Err(value.wrong_type("a map").help("write { name = image.NAME }").into());
    };
    map.iter().map(|(name, value)| Ok((name.clone(), source(cx, value)?))).collect()
}

/// Returns the patterns of a file such as `.dockerignore`.
fn patterns(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Reads a port that the image says it listens on.
fn exposed(value: &Value) -> Eval<String> {
    let text = read::text(value)?;
    let (port, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let good = port.parse::<u16>().is_ok_and(|port| port > 0) && ["tcp", "udp", "sctp"].contains(&protocol);
    if good {
        return Ok(format!("{port}/{protocol}"));
    }
    Err(Fault::at(value.at, format!("{} is not a port", value.shown())).help("write 8080, or \"53/udp\"").into())
}

/// Decodes a `copy`, `file`, `link` or `directory` block.
fn step(image: &Reader, block: &Block, name: &Name, places: &mut Places) -> Option<BakeStep> {
    let ev = image.ev;
    let (label, label_at) = Reader::single_label(ev, block)?;
    let word = block.ident.as_str();
    let mut reader = Reader::block(ev, block, format!("`{word}` of {}", image.what));
    let step = match word {
        "copy" => copy(&mut reader, &label, label_at, name, places),
        "file" => {
            let path = ev.cx.keep(read::inner_path(&label, label_at));
            let content = reader.required("content", "content = \"…\"", read::content);
            let mode = reader.get("mode", units::mode).unwrap_or(FILE_MODE);
            let owner = reader.get("owner", user);
            path.zip(content).map(|(path, content)| BakeStep::File(FileStep { path, content, mode, owner }))
        }
        "directory" => {
            let path = ev.cx.keep(read::inner_path(&label, label_at));
            path.map(|path| BakeStep::Directory { path })
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

fn copy(reader: &mut Reader, label: &str, label_at: At, name: &Name, places: &mut Places) -> Option<BakeStep> {
    let cx = reader.ev.cx;
    let to = reader.required("to", "to = \"/path/in/the/image\"", |v| {
        let text = read::text(v)?;
        let path = read::path(&text, v.at)?;
        // A slash at the end says that it is a directory.
        Ok(if text.ends_with('/') && path != "/" { format!("{path}/") } else { path })
    });
    let mode = reader.get("mode", units::mode);
    let owner = reader.get("owner", user);
    let mut exclude = reader.get("exclude", read::texts).unwrap_or_default();
    let file = reader.get("exclude_file", |value| {
        let path = cx.resolve(&read::text(value)?);
        Ok(patterns(&cx.read_text(&path).map_err(|why| Fault::at(value.at, why))?))
    });
    exclude.splice(0..0, file.unwrap_or_default());
    let image_at = reader.place("image");
    let other = reader.has("image");
    let image = reader.get("image", |value| source(cx, value));
    let from = if other {
        if let Some(ImageSource::Block(base)) = &image {
            places.bases.push((name.clone(), base.clone(), image_at));
        }
        let path = cx.keep(read::path(label, label_at));
        image.zip(path).map(|(image, path)| CopyFrom::Image { image, path })
    } else {
        let from = cx.resolve(label);
        if label.is_empty() || !cx.files.exists(&from) {
            let fault = Fault::at(label_at, format!("there is no `{}` to copy", from.display()));
            reader.report(fault.help("paths that are not absolute begin at the stack's folder"));
        }
        Some(CopyFrom::Machine(from))
    };
    from.zip(to).map(|(from, to)| BakeStep::Copy(CopyStep { from, to, mode, owner, exclude, unpack: false }))
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
    if let Ok(digest) = text.parse::<basalt_model::Digest>() {
        return Ok(digest.to_string());
    }
    for scheme in ["oci-archive:", "docker-archive:", "oci:", "dir:", "tar:"] {
        let Some(rest) = text.strip_prefix(scheme) else { continue };
        let folder = matches!(scheme, "oci:" | "dir:");
        let what = if folder { "folder" } else { "file" };
        let is_there = |path: &Path| cx.files.exists(path) && folder == cx.files.is_folder(path);
        let whole = cx.resolve(rest);
        // A path that is there as it stands may have colons itself. A bare root has no tag.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) if !is_there(&whole) && !matches!(scheme, "dir:" | "tar:") => {
                (cx.resolve(path), Some(tag))
            }
            _ => (whole, None),
        };
        if !is_there(&path) {
            let fault = Fault::at(at, format!("there is no {what} `{}`", path.display()));
            return Err(fault.help("paths that are not absolute begin at the stack's folder").into());
        }
        let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        return Ok(format!("{scheme}{}{tag}", path.display()));
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
