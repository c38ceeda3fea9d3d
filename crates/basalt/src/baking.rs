//! Baking the images of a stack: what they start from and copy from first, stages of Dockerfiles among them.

use std::collections::BTreeMap;

use basalt_container::sandbox::Sandboxes;
use basalt_depot::{BakeInputs, Depot};
use basalt_dockerfile::{Context, Dockerfile, Fault, StageFrom, stage_of};
use basalt_model::{Bake, BakeFrom, BakeStep, CopyFrom, DebianPin, Digest, ImageConfig, ImageSource, Name, Stack};
use basalt_stackfile::{Diagnostic, Loaded, Severity, Source, Span};

use crate::desired::{Images, failed};
use crate::error::{CliError, Kind, Result};
use crate::output::Output;
use crate::paths::Data;
use crate::progress::ImageProgress;
use crate::start;

impl Images<'_> {
    /// Bakes an image block, and before it what it is made of.
    pub(crate) fn bake(&mut self, name: &Name, under_way: &mut Vec<Name>) -> Result<Digest> {
        let Some(bake) = self.stack.images.get(name) else {
            return Err(CliError::invalid(format!("there is no image `{name}` in the stack")));
        };
        if under_way.contains(name) {
            return Err(CliError::invalid(format!("the image `{name}` starts from itself")));
        }
        under_way.push(name.clone());
        let from = match &bake.from {
            BakeFrom::Scratch | BakeFrom::Debian(_) => None,
            BakeFrom::Image(source) => Some(self.find(source, under_way)?),
            BakeFrom::Dockerfile(dockerfile) => Some(self.dockerfile(name, dockerfile, under_way)?),
        };
        let mut others = BTreeMap::new();
        for source in copied_from(bake) {
            others.insert(source_key(source), self.find(source, under_way)?);
        }
        under_way.pop();
        self.bake_one(name.as_str(), bake, from, &others)
    }

    fn bake_one(
        &self,
        name: &str,
        bake: &Bake,
        from: Option<Digest>,
        others: &BTreeMap<String, Digest>,
    ) -> Result<Digest> {
        let sandboxes = Sandboxes { basalt: start::program()? };
        let images = |source: &ImageSource| others.get(&source_key(source)).copied();
        let inputs = BakeInputs { from, images: &images, sandbox: Some(&sandboxes), fresh: self.fresh };
        let progress = ImageProgress::new(self.out, name);
        let baked = self.depot.bake_with(bake, &inputs, &progress);
        baked.map_err(|error| failed(&format!("the image `{name}` can't be baked"), &error))
    }

    /// Bakes the stages of a Dockerfile that are needed, and returns the image of the wanted one.
    fn dockerfile(
        &mut self,
        name: &Name,
        dockerfile: &basalt_model::Dockerfile,
        under_way: &mut Vec<Name>,
    ) -> Result<Digest> {
        let refused = |faults: Vec<Fault>| {
            let mut error = CliError::invalid(format!("`{}` can't be taken", dockerfile.file.display()));
            error.causes = faults.iter().map(ToString::to_string).collect();
            error
        };
        let file = parse(dockerfile).map_err(refused)?;
        let target = file.target(dockerfile.target.as_deref()).map_err(CliError::invalid)?;
        let mut stages = Stages { name: name.as_str(), dockerfile, file: &file, baked: BTreeMap::new() };
        self.stage(&mut stages, target, under_way)
    }

    fn stage(&mut self, stages: &mut Stages<'_>, number: usize, under_way: &mut Vec<Name>) -> Result<Digest> {
        if let Some(digest) = stages.baked.get(&number) {
            return Ok(*digest);
        }
        let stage = &stages.file.stages[number];
        let from = match &stage.from {
            StageFrom::Scratch => None,
            StageFrom::Stage(earlier) => Some(self.stage(stages, *earlier, under_way)?),
            StageFrom::Image(reference) => Some(self.find(&stages.image(reference), under_way)?),
        };
        let base = match &from {
            Some(digest) => self.depot.config(digest).map_err(|error| CliError::of(Kind::Internal, &error))?,
            None => ImageConfig::default(),
        };
        let context = Context {
            folder: stages.dockerfile.context.clone(),
            ignore: stages.dockerfile.ignore.clone(),
            network: stages.dockerfile.network,
        };
        let planned = stages
            .file
            .plan(number, &base, &context)
            .map_err(|fault| CliError::invalid(format!("`{}`: {fault}", stages.dockerfile.file.display())))?;
        let from_source =
            from.map_or(BakeFrom::Scratch, |digest| BakeFrom::Image(ImageSource::Reference(digest.to_string())));
        let bake = Bake { from: from_source, steps: planned.steps, config: planned.config };
        let mut others = BTreeMap::new();
        for source in copied_from(&bake) {
            let digest = match (stage_of(source), source) {
                (Some(earlier), _) => self.stage(stages, earlier, under_way)?,
                (None, ImageSource::Reference(reference)) => self.find(&stages.image(reference), under_way)?,
                (None, source) => self.find(source, under_way)?,
            };
            others.insert(source_key(source), digest);
        }
        let name = match &stage.name {
            Some(stage) => format!("{} {stage}", stages.name),
            None if stages.file.stages.len() > 1 => format!("{} stage {number}", stages.name),
            None => stages.name.to_owned(),
        };
        let digest = self.bake_one(&name, &bake, from, &others)?;
        stages.baked.insert(number, digest);
        Ok(digest)
    }
}

/// The stages of one Dockerfile that were baked so far.
struct Stages<'s> {
    name: &'s str,
    dockerfile: &'s basalt_model::Dockerfile,
    file: &'s Dockerfile,
    baked: BTreeMap<usize, Digest>,
}

impl Stages<'_> {
    /// Returns what a name in the Dockerfile stands for.
    fn image(&self, reference: &str) -> ImageSource {
        let given = self.dockerfile.images.get(reference).cloned();
        given.unwrap_or_else(|| ImageSource::Reference(reference.to_owned()))
    }
}

fn parse(dockerfile: &basalt_model::Dockerfile) -> std::result::Result<Dockerfile, Vec<Fault>> {
    Dockerfile::parse(&dockerfile.text, &dockerfile.args, basalt_model::manifest::architecture())
}

/// Returns the images that the steps of a bake copy from.
fn copied_from(bake: &Bake) -> impl Iterator<Item = &ImageSource> {
    bake.steps.iter().filter_map(|step| match step {
        BakeStep::Copy(copy) => match &copy.from {
            CopyFrom::Image { image, .. } => Some(image),
            _ => None,
        },
        _ => None,
    })
}

fn source_key(source: &ImageSource) -> String {
    crate::desired::key(source)
}

/// Adds to what is said about a stack what is to be said about its Dockerfiles.
pub fn check(loaded: &mut Loaded) {
    let Some(stack) = &loaded.stack else { return };
    for bake in stack.images.values() {
        let BakeFrom::Dockerfile(dockerfile) = &bake.from else { continue };
        let name = dockerfile.file.display().to_string();
        let (faults, severity) = match parse(dockerfile) {
            Ok(file) => {
                let target = file.target(dockerfile.target.as_deref()).err();
                let wrong = target.map(|message| Diagnostic {
                    severity: Severity::Error,
                    message: format!("`{name}`: {message}"),
                    span: None,
                    label: None,
                    places: Vec::new(),
                    help: None,
                });
                loaded.diagnostics.extend(wrong);
                (file.notes, Severity::Warning)
            }
            Err(faults) => (faults, Severity::Error),
        };
        if faults.is_empty() {
            continue;
        }
        if !loaded.sources.iter().any(|source| source.name == name) {
            loaded.sources.push(Source { name: name.clone(), text: dockerfile.text.clone(), private: false });
        }
        for Fault { line, message } in faults {
            let start: usize = dockerfile.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
            let length = dockerfile.text[start..].lines().next().unwrap_or_default().len();
            let (file, end) = (name.clone(), start + length);
            let end_column = dockerfile.text[start..end].chars().count() + 1;
            let span = Span { file, start, end, line, column: 1, end_line: line, end_column };
            let (label, places, help) = (None, Vec::new(), None);
            loaded.diagnostics.push(Diagnostic { severity, message, span: Some(span), label, places, help });
        }
    }
}

/// Writes the locks of a stack's Debian bases anew.
///
/// # Errors
/// If a base can't be made, or a lock can't be written.
pub fn lock(stack: &Stack, data: &Data, out: Output) -> Result<()> {
    let depot = Depot::open(&data.depot()).map_err(|error| CliError::of(Kind::Internal, &error))?;
    let sandboxes = Sandboxes { basalt: start::program()? };
    let mut locks = 0;
    for (name, bake) in &stack.images {
        let BakeFrom::Debian(debian) = &bake.from else { continue };
        let DebianPin::Lock { file, lock: old } = &debian.pin else { continue };
        locks += 1;
        let inputs = BakeInputs { from: None, images: &|_| None, sandbox: Some(&sandboxes), fresh: true };
        let lock = {
            let progress = ImageProgress::new(out, name.as_str());
            depot.debian_lock(debian, &inputs, &progress)
        };
        let lock = lock.map_err(|error| failed(&format!("the base of image `{name}` can't be made"), &error))?;
        let changed = old.as_ref() != Some(&lock);
        if changed {
            std::fs::write(file, lock.to_string()).map_err(|error| {
                CliError::internal(format!("`{}` can't be written", file.display())).because(&error)
            })?;
        }
        let said = if changed { "" } else { ", unchanged" };
        out.text(&format!("{:<24} {} packages in {}{said}\n", name.as_str(), lock.packages.len(), file.display()))?;
    }
    if locks == 0 {
        return Err(CliError::invalid("no image of the stack has a base with a `lock`"));
    }
    Ok(())
}
