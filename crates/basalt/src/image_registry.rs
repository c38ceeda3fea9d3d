//! Images of registries: found, brought into the depot, and sent.

use std::sync::OnceLock;

use basalt_depot::Depot;
use basalt_model::Digest;
use basalt_registry::{Image, Patience, Reference, Registry, Resolved, Settings};
use serde_json::json;

use crate::error::{CliError, Kind, Outcome, Result};
use crate::output::Output;
use crate::paths::Data;
use crate::progress::ImageProgress;

/// What begins a reference to something on this machine; all else is in a registry.
const LOCAL: [&str; 5] = ["oci:", "oci-archive:", "docker-archive:", "dir:", "tar:"];

/// The registries, reached when the first image of one is needed.
pub struct Registries<'a> {
    data: &'a Data,
    registry: OnceLock<Registry>,
}

impl<'a> Registries<'a> {
    /// Returns the registries, with settings in and a folder for transfers below the data directory.
    pub fn new(data: &'a Data) -> Self {
        Self { data, registry: OnceLock::new() }
    }

    /// Makes sure that the image which `reference` names is in the depot, and returns its digest. What is on this machine is
    /// imported; what is in a registry is resolved, and pulled if it is not here.
    ///
    /// # Errors
    /// If there is no such image, or it can't be had.
    pub fn image(&self, depot: &Depot, reference: &str, out: Output) -> Result<Digest> {
        let progress = ImageProgress::new(out, reference);
        if LOCAL.iter().any(|scheme| reference.starts_with(scheme)) {
            return depot.import(reference, &progress).map_err(|error| unreadable(reference, &error));
        }
        let parsed: Reference = reference.parse().map_err(|error| refused(reference, &error))?;
        if let Some(digest) = parsed.digest
            && depot.touch(&digest).map_err(|error| unreadable(reference, &error))?
        {
            return Ok(digest);
        }
        let registry = self.registry()?;
        let resolved = registry.resolve(&parsed).map_err(|error| {
            let last = registry.last(&parsed).filter(|_| error.is_unreachable());
            let known = last.filter(|digest| parsed.digest.is_none() && depot.touch(digest).unwrap_or(false));
            let failed = refused(reference, &error);
            match known {
                Some(digest) => failed.help(format!(
                    "it was {digest} when it was last seen, which is kept here: write `{parsed}@{digest}` to go on with that"
                )),
                None => failed,
            }
        })?;
        if depot.touch(&resolved.digest).map_err(|error| unreadable(reference, &error))? {
            return Ok(resolved.digest);
        }
        self.pull(depot, registry, &resolved, reference, &progress)
    }

    fn pull(
        &self,
        depot: &Depot,
        registry: &Registry,
        resolved: &Resolved,
        reference: &str,
        progress: &ImageProgress,
    ) -> Result<Digest> {
        let pulled = registry.pull(resolved, &|digest| depot.has_blob(digest), progress);
        let pulled = pulled.map_err(|error| refused(reference, &error))?;
        let imported = depot.import(&format!("oci:{}", pulled.dir().display()), progress);
        pulled.clear().map_err(|error| refused(reference, &error))?;
        let digest = imported.map_err(|error| unreadable(reference, &error))?;
        depot.set_origin(&digest, &resolved.reference.to_string()).map_err(|error| unreadable(reference, &error))?;
        Ok(digest)
    }

    fn registry(&self) -> Result<&Registry> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        let failed = |error: basalt_registry::Error| CliError::of(Kind::Invalid, &error);
        let settings = Settings::load(self.data.dir(), &|name| std::env::var(name).ok()).map_err(failed)?;
        let registry = Registry::new(settings, &self.data.pulls(), Patience::default()).map_err(failed)?;
        Ok(self.registry.get_or_init(|| registry))
    }
}

/// Brings an image into the depot.
///
/// # Errors
/// If there is no such image, or it can't be had.
pub fn pull(depot: &Depot, reference: &str, data: &Data, out: Output) -> Result<Outcome> {
    let digest = Registries::new(data).image(depot, reference, out)?;
    if out.json() {
        out.document(&json!({ "reference": reference, "digest": digest }))?;
    } else {
        out.text(&format!("{digest}\n"))?;
    }
    Ok(Outcome::Done)
}

/// Sends an image of the depot to a registry.
///
/// # Errors
/// If there is no such image here, or the registry does not take it.
pub fn push(depot: &Depot, image: &str, to: &str, data: &Data, out: Output) -> Result<Outcome> {
    let reference: Reference = to.parse().map_err(|error| CliError::of(Kind::Invalid, &error))?;
    let images = depot.images().map_err(|error| CliError::of(Kind::Internal, &error))?;
    let digest = find(&images, image)?;
    // What came from the same registry is there, and need not be sent again.
    let near: Vec<Reference> = images.iter().filter_map(|image| image.origin.parse().ok()).collect();
    {
        let progress = ImageProgress::new(out, to);
        let image = Image { manifest: digest, open: &|digest| depot.open_blob(digest) };
        let pushed = Registries::new(data).registry()?.push(&image, &reference, &near, &progress);
        pushed.map_err(|error| {
            let failed = CliError::invalid(format!("the image can't be pushed to `{to}`")).because(&error);
            helped(failed, &error)
        })?;
    }
    let by_digest = format!("{}@{digest}", reference.name());
    if out.json() {
        out.document(&json!({ "reference": reference.to_string(), "digest": digest }))?;
    } else {
        out.text(&format!("{by_digest}\n"))?;
    }
    Ok(Outcome::Done)
}

/// Returns the image that `name` names: its digest, the beginning of it, or where it came from.
fn find(images: &[basalt_depot::ImageInfo], name: &str) -> Result<Digest> {
    let start = name.strip_prefix("sha256:").unwrap_or(name);
    let reference = name.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
    let fits = |image: &&basalt_depot::ImageInfo| {
        (!start.is_empty() && image.digest.to_hex().starts_with(start))
            || image.origin == name
            || image.origin == reference
    };
    match images.iter().filter(fits).collect::<Vec<_>>()[..] {
        [one] => Ok(one.digest),
        [] => Err(CliError::invalid(format!("no image here is called `{name}`"))
            .help("name it by its digest or the beginning of it: see `basalt image list`")),
        _ => Err(CliError::invalid(format!("several images here are called `{name}`"))
            .help("name it by more of its digest: see `basalt image list`")),
    }
}

/// What is wrong with an image is wrong with what was given: a path, an archive, a reference.
fn unreadable(reference: &str, error: &basalt_depot::Error) -> CliError {
    CliError::invalid(format!("the image `{reference}` can't be read")).because(error)
}

fn refused(reference: &str, error: &basalt_registry::Error) -> CliError {
    let message = format!("the image `{reference}` can't be had");
    let kind = if error.is_unreachable() { Kind::Internal } else { Kind::Invalid };
    helped(CliError::new(kind, message).because(error), error)
}

fn helped(failed: CliError, error: &basalt_registry::Error) -> CliError {
    match error.help() {
        Some(help) => failed.help(help),
        None => failed,
    }
}
