//! The verbs on images.

use std::path::Path;
use std::time::UNIX_EPOCH;

use basalt_api::Timestamp;
use basalt_depot::{Depot, Freed, ImageInfo, Keep, Problem};
use basalt_model::{Bytes, Digest, Millis};
use basalt_seam::Clock;
use serde_json::{Value, json};

use crate::cli::{ImageVerb, StackArgs};
use crate::clock::SystemClock;
use crate::error::{CliError, Kind, Outcome, Result};
use crate::output::Output;
use crate::paths::Data;
use crate::progress::ImageProgress;
use crate::recorded::recorded;
use crate::render::printable;
use crate::sweeping::{self, Needed, needed};
use crate::{baking, desired, image_registry, render};

/// Does something with images.
///
/// # Errors
/// If the depot can't be used, or an image can't be had.
pub fn image(verb: &ImageVerb, data: &Data, out: Output) -> Result<Outcome> {
    data.make()?;
    let depot = || Depot::open(&data.depot()).map_err(failed);
    match verb {
        ImageVerb::List => list(&depot()?, data, out),
        ImageVerb::Inspect { image } => inspect(&depot()?, image, data, out),
        ImageVerb::Bake { stack, no_cache } => bake(stack, *no_cache, data, out),
        ImageVerb::Lock(args) => lock(args, data, out),
        ImageVerb::Import { reference } => import(&depot()?, reference, out),
        ImageVerb::Export { image, file, tag } => export(&depot()?, image, file, tag.as_deref(), out),
        ImageVerb::Remove { image } => remove(&depot()?, image, data, out),
        ImageVerb::Gc { all } => gc(&depot()?, *all, data, out),
        ImageVerb::Pull { reference } => image_registry::pull(&depot()?, reference, data, out),
        ImageVerb::Push { image, reference } => image_registry::push(&depot()?, image, reference, data, out),
        ImageVerb::Verify { repair: false } => verify(&depot()?, out),
        ImageVerb::Verify { repair: true } => repair(&depot()?, out),
    }
}

fn failed(error: basalt_depot::Error) -> CliError {
    CliError::of(Kind::Internal, &error)
}

/// What is wrong with an image is wrong with what was given: a name, a path, an archive.
fn invalid(error: basalt_depot::Error) -> CliError {
    CliError::of(Kind::Invalid, &error)
}

fn list(depot: &Depot, data: &Data, out: Output) -> Result<Outcome> {
    let images = depot.images().map_err(failed)?;
    let needed = needed(&recorded(data)?);
    if out.json() {
        let rows: Vec<_> = images.iter().map(|image| row(image, &needed)).collect();
        out.document(&rows)?;
        return Ok(Outcome::Done);
    }
    let now = SystemClock.now();
    for image in &images {
        let (size, age) = (Bytes(image.bytes).to_string(), render::age(now.since(millis(image))));
        let by = by(&needed, &image.digest).join(" ");
        let by = if by.is_empty() { String::new() } else { format!("  needed by {by}") };
        let origin = printable(&image.origin);
        out.text(&format!("{} {size:>10}  used {age:>3} ago  {origin}{by}\n", image.digest))?;
    }
    Ok(Outcome::Done)
}

fn row(image: &ImageInfo, needed: &Needed) -> Value {
    json!({
        "digest": image.digest,
        "origin": image.origin,
        "layers": image.layers,
        "bytes": image.bytes,
        "used_at": Timestamp(millis(image)),
        "needed_by": by(needed, &image.digest),
    })
}

fn by<'a>(needed: &'a Needed, image: &Digest) -> &'a [String] {
    needed.get(image).map_or(&[], Vec::as_slice)
}

fn millis(image: &ImageInfo) -> Millis {
    let since = image.used_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn inspect(depot: &Depot, image: &str, data: &Data, out: Output) -> Result<Outcome> {
    let digest = depot.find(image).map_err(invalid)?;
    let details = depot.inspect(&digest).map_err(failed)?;
    let needed = needed(&recorded(data)?);
    if out.json() {
        let mut value = row(&details.info, &needed);
        value["platform"] = json!(details.platform);
        value["config"] = json!(details.config);
        value["layers"] = json!(details.layers);
        value["objects"] = json!({ "count": details.objects, "bytes": details.unpacked, "own_bytes": details.own });
        out.document(&value)?;
        return Ok(Outcome::Done);
    }
    let mut text = format!("{digest}\n");
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {label:<10} {}\n", printable(value)));
        }
    };
    let config = &details.config;
    line("from", &details.info.origin);
    line("platform", &details.platform);
    line("command", &config.command.join(" "));
    line("user", &config.user);
    line("workdir", &config.workdir);
    for (name, value) in &config.env {
        line("env", &format!("{name}={value}"));
    }
    for (name, value) in &config.labels {
        line("label", &format!("{name}={value}"));
    }
    for layer in &details.layers {
        line("layer", &format!("{} {} {}", layer.digest, Bytes(layer.bytes), layer.media_type));
    }
    let (all, own) = (Bytes(details.unpacked), Bytes(details.own));
    line("files", &format!("{} of {all}, {own} of them in no other image here", details.objects));
    line("needed by", &by(&needed, &digest).join(" "));
    out.text(&text)?;
    Ok(Outcome::Done)
}

fn lock(args: &StackArgs, data: &Data, out: Output) -> Result<Outcome> {
    let Some(declared) = desired::stack(args, out)? else { return Ok(Outcome::Invalid) };
    baking::lock(&declared.stack, data, out)?;
    Ok(Outcome::Done)
}

fn bake(args: &StackArgs, fresh: bool, data: &Data, out: Output) -> Result<Outcome> {
    let Some(declared) = desired::stack(args, out)? else { return Ok(Outcome::Invalid) };
    let baked = desired::bake_all(&declared.stack, fresh, data, out)?;
    if out.json() {
        out.document(&baked)?;
    } else {
        for (name, digest) in baked {
            out.text(&format!("{:<24} {digest}\n", name.as_str()))?;
        }
    }
    Ok(Outcome::Done)
}

fn import(depot: &Depot, reference: &str, out: Output) -> Result<Outcome> {
    let digest = {
        let progress = ImageProgress::new(out, reference);
        depot.import(reference, &progress).map_err(invalid)?
    };
    if out.json() {
        out.document(&json!({ "digest": digest }))?
    } else {
        out.text(&format!("{digest}\n"))?
    }
    Ok(Outcome::Done)
}

fn export(depot: &Depot, image: &str, file: &Path, tag: Option<&str>, out: Output) -> Result<Outcome> {
    let digest = depot.find(image).map_err(invalid)?;
    {
        let progress = ImageProgress::new(out, &digest.short());
        depot.export(&digest, file, tag, &progress).map_err(failed)?;
    }
    if out.json() {
        out.document(&json!({ "digest": digest, "file": file }))?;
    } else {
        out.text(&format!("{digest} is in {}\n", file.display()))?;
    }
    Ok(Outcome::Done)
}

fn remove(depot: &Depot, image: &str, data: &Data, out: Output) -> Result<Outcome> {
    let digest = depot.find(image).map_err(invalid)?;
    let needed = needed(&recorded(data)?);
    let by = by(&needed, &digest);
    if !by.is_empty() {
        let message = format!("the image {} is needed by {}", digest.short(), by.join(", "));
        return Err(CliError::invalid(message).help("it goes by itself a day after no kept release needs it any more"));
    }
    freed(depot.gc(&Keep::AllBut(digest)).map_err(failed)?, out)
}

fn gc(depot: &Depot, all: bool, data: &Data, out: Output) -> Result<Outcome> {
    let images = needed(&recorded(data)?).into_keys().collect();
    let keep = if all { Keep::Only(images) } else { sweeping::keep(images, SystemClock.now()) };
    freed(depot.gc(&keep).map_err(failed)?, out)
}

fn freed(freed: Freed, out: Output) -> Result<Outcome> {
    if out.json() {
        out.document(&json!({ "images": freed.images, "files": freed.files, "bytes": freed.bytes }))?;
    } else {
        let (images, files, bytes) = (freed.images, freed.files, Bytes(freed.bytes));
        out.text(&format!("removed: {images} images, {files} files, {bytes}\n"))?;
    }
    Ok(Outcome::Done)
}

fn verify(depot: &Depot, out: Output) -> Result<Outcome> {
    let found = {
        let progress = ImageProgress::new(out, "all");
        depot.verify(&progress).map_err(failed)?
    };
    if out.json() {
        let problems: Vec<_> = found.problems.iter().map(problem).collect();
        out.document(&json!({ "images": found.images, "files": found.files, "problems": problems }))?;
    } else {
        out.text(&format!("{} images, {} files checked\n", found.images, found.files))?;
    }
    damaged(&found.problems)
}

fn repair(depot: &Depot, out: Output) -> Result<Outcome> {
    let repaired = {
        let progress = ImageProgress::new(out, "all");
        depot.repair(&progress).map_err(failed)?
    };
    if out.json() {
        let problems: Vec<_> = repaired.problems.iter().map(problem).collect();
        out.document(&json!({ "rebuilt": repaired.images, "problems": problems }))?;
    } else {
        out.text(&format!("{} images rebuilt\n", repaired.images.len()))?;
    }
    damaged(&repaired.problems)
}

fn problem(p: &Problem) -> Value {
    json!({ "image": p.image, "origin": p.origin, "path": p.path, "what": p.what, "mend": p.mend })
}

fn damaged(problems: &[Problem]) -> Result<Outcome> {
    if problems.is_empty() {
        return Ok(Outcome::Done);
    }
    let mut error = CliError::internal(format!("{} files are not what they should be", problems.len()));
    error.causes = problems.iter().map(|p| format!("{}: {} ({})", p.image, p.what, p.path.display())).collect();
    let mut mends: Vec<&str> = problems.iter().map(|p| p.mend.as_str()).collect();
    mends.sort_unstable();
    mends.dedup();
    Err(error.help(mends.join("; ")))
}
