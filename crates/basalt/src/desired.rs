//! From a stack file to a desired stack: loaded, images baked or read, secrets pinned.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use basalt_depot::Depot;
use basalt_model::{Digest, ImageSource, Name, Release, Stack};
use basalt_plan::{Desired, PinError, pin};
use basalt_seam::Secrets;
use basalt_stackfile::{Disk, Inputs, Loaded, OutputValue, Sealed, load, load_text, render};
use basalt_trust::SecretStore;

use crate::baking;
use crate::cli::StackArgs;
use crate::error::{CliError, Kind, Result};
use crate::image_registry::Registries;
use crate::output::Output;
use crate::paths::Data;

/// What variables in the environment begin with.
const VARIABLE: &str = "BASALT_VAR_";

/// The largest stack read from standard input, in bytes: as large as a file may be.
const LONGEST_INPUT: u64 = 16 << 20;

/// Reads a stack.
///
/// # Errors
/// If the arguments are not as they must be; what is wrong with the stack itself is in its diagnostics.
pub fn read(args: &StackArgs) -> Result<Loaded> {
    let mut vars = BTreeMap::new();
    for var in &args.vars {
        let (name, value) = var.split_once('=').ok_or_else(|| {
            CliError::invalid(format!("`--var {var}` gives no value")).help("write it as --var NAME=VALUE")
        })?;
        vars.insert(name.to_owned(), value.to_owned());
    }
    let process = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter_map(|(name, value)| Some((name.strip_prefix(VARIABLE)?.to_owned(), value)))
        .collect();
    // A clock would make a new release of an unchanged stack (law 6): the time is what reproducible builds go by.
    let now = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let (var_files, environment) = (args.var_files.clone(), args.environment.clone());
    let inputs = Inputs { vars, process, var_files, environment, now };
    if args.stack != Path::new("-") {
        return Ok(checked(load(&args.stack, &inputs)));
    }
    let mut text = String::new();
    std::io::stdin().take(LONGEST_INPUT).read_to_string(&mut text).map_err(|error| {
        CliError::of(Kind::Invalid, &error).help("standard input holds a stack in HCL, YAML or JSON")
    })?;
    Ok(checked(load_text(&Disk, &text, Path::new("."), &inputs)))
}

/// Adds what is to be said about files that a stack refers to.
fn checked(mut loaded: Loaded) -> Loaded {
    baking::check(&mut loaded);
    loaded
}

/// Reads a stack and shows what is to be said about it; `None` if it is invalid.
///
/// # Errors
/// If the arguments are not as they must be.
pub fn stack(args: &StackArgs, out: Output) -> Result<Option<Declared>> {
    let loaded = read(args)?;
    out.note(&render(&loaded, out.error_style.colour));
    let Loaded { stack, sealed, outputs, .. } = loaded;
    Ok(stack.map(|stack| Declared { stack, sealed, outputs }))
}

/// A stack without faults.
pub struct Declared {
    /// The stack.
    pub stack: Stack,
    /// What its sensitive values are.
    sealed: BTreeMap<Name, Sealed>,
    /// What it gives out.
    pub outputs: BTreeMap<String, OutputValue>,
}

/// Makes a stack the desired one: bakes or reads every image that is used, and pins images and secrets.
///
/// # Errors
/// If an image can't be had, or a secret is missing.
pub fn desired(declared: &Declared, data: &Data, out: Output) -> Result<Desired> {
    let stack = &declared.stack;
    data.make()?;
    let images = Images::resolve(stack, data, out)?;
    let secrets = if needs_secrets(stack) { Some(SecretStore::open(&data.secrets()).map_err(internal)?) } else { None };
    let mut versions = BTreeMap::new();
    if let Some(store) = &secrets {
        // A value that is unchanged gets no new version.
        for (name, value) in &declared.sealed {
            store.set(name, value.reveal().as_bytes()).map_err(internal)?;
        }
        for name in secret_names(stack) {
            if let Some(version) = store.latest(name).map_err(internal)? {
                versions.insert(name.clone(), version);
            }
        }
    }
    pin(stack, &|source| images.digest(source), &|name| versions.get(name).copied()).map_err(|errors| missing(&errors))
}

fn internal(error: impl std::error::Error) -> CliError {
    CliError::of(Kind::Internal, &error)
}

fn secret_names(stack: &Stack) -> impl Iterator<Item = &Name> {
    let releases = stack.services.values().map(|s| &s.release).chain(stack.jobs.values().map(|j| &j.release));
    releases.flat_map(Release::secret_names)
}

fn needs_secrets(stack: &Stack) -> bool {
    secret_names(stack).next().is_some()
}

/// Returns one error for all that is missing.
fn missing(errors: &[PinError]) -> CliError {
    // What a service needs in two places is missing once.
    let all: BTreeSet<String> = errors.iter().map(ToString::to_string).collect();
    if let (Some(one), 1) = (all.first(), all.len()) {
        return CliError::invalid(one);
    }
    let mut error = CliError::invalid("the stack needs what is not there");
    error.causes = all.into_iter().collect();
    error
}

/// The digests of a stack's images.
pub(crate) struct Images<'a> {
    pub(crate) stack: &'a Stack,
    pub(crate) depot: Depot,
    registries: Registries<'a>,
    pub(crate) out: Output,
    /// Whether programs run again although what they gave is known.
    pub(crate) fresh: bool,
    found: BTreeMap<String, Digest>,
}

impl<'a> Images<'a> {
    /// Bakes or reads every image that a service or job uses, and those that these start from.
    fn resolve(stack: &'a Stack, data: &'a Data, out: Output) -> Result<Self> {
        let depot = Depot::open(&data.depot()).map_err(|error| CliError::of(Kind::Internal, &error))?;
        let registries = Registries::new(data);
        let mut images = Self { stack, depot, registries, out, fresh: false, found: BTreeMap::new() };
        let services = stack.services.values().map(|service| &service.image);
        for source in services.chain(stack.jobs.values().map(|job| &job.image)) {
            images.find(source, &mut Vec::new())?;
        }
        Ok(images)
    }

    pub(crate) fn find(&mut self, source: &ImageSource, under_way: &mut Vec<Name>) -> Result<Digest> {
        let key = key(source);
        if let Some(digest) = self.found.get(&key) {
            return Ok(*digest);
        }
        let digest = match source {
            ImageSource::Reference(reference) if reference.starts_with("sha256:") => {
                let digest = reference
                    .parse()
                    .map_err(|error| CliError::of(Kind::Invalid, &error as &basalt_model::InvalidDigest))?;
                self.depot
                    .config(&digest)
                    .map_err(|error| failed(&format!("the image `{reference}` can't be had"), &error))?;
                digest
            }
            ImageSource::Reference(reference) => self.registries.image(&self.depot, reference, self.out)?,
            ImageSource::Block(name) => self.bake(name, under_way)?,
        };
        self.found.insert(key, digest);
        Ok(digest)
    }

    fn digest(&self, source: &ImageSource) -> Option<Digest> {
        self.found.get(&key(source)).copied()
    }
}

/// What is wrong with an image is wrong with what was given: a path, an archive.
pub(crate) fn failed(message: &str, error: &basalt_depot::Error) -> CliError {
    CliError::invalid(message).because(error)
}

/// Bakes all image blocks of a stack, used or not.
///
/// # Errors
/// If one can't be baked.
pub fn bake_all(stack: &Stack, fresh: bool, data: &Data, out: Output) -> Result<BTreeMap<Name, Digest>> {
    let depot = Depot::open(&data.depot()).map_err(|error| CliError::of(Kind::Internal, &error))?;
    let registries = Registries::new(data);
    let mut images = Images { stack, depot, registries, out, fresh, found: BTreeMap::new() };
    let mut baked = BTreeMap::new();
    for name in stack.images.keys() {
        baked.insert(name.clone(), images.find(&ImageSource::Block(name.clone()), &mut Vec::new())?);
    }
    Ok(baked)
}

/// Names an image within one stack; block names have no colon.
pub(crate) fn key(source: &ImageSource) -> String {
    match source {
        ImageSource::Block(name) => name.to_string(),
        ImageSource::Reference(reference) => format!("reference:{reference}"),
    }
}
