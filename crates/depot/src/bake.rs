//! Baking: from files of this machine, and programs run over a root, to an image.
//!
//! Steps that only put files become one layer, which is the same, bit for bit, wherever it is baked: nothing of the
//! machine goes in, no clock, no owners, no permission bits but "executable". A step that runs a program becomes a layer
//! of what that changed. Each of these parts is an image of its own in the depot, found again by the digest of
//! everything that decided it, so that of a bake only what has changed is done anew.
//!
//! Layers are stored unpacked: compressed bytes differ between versions of a compressor, and with them the digest of
//! the image would.

use std::fs::{self, File};
use std::path::PathBuf;

use basalt_model::manifest::{Descriptor, Document, Manifest, OCI_CONFIG, architecture};
use basalt_model::{Bake, BakeFrom, BakeStep, Digest, ImageConfig, ImageSource, digest_of};
use basalt_seam::Sandbox;

use crate::config::{self, Config, Process, RootFs};
use crate::depot::Depot;
use crate::erofs;
use crate::error::{Error, Result, io as on};
use crate::layer::{self, Used};
use crate::manifest::{self, OCI_LAYER};
use crate::mounts;
use crate::progress::Progress;
use crate::put::Puts;
use crate::record::ImageRecord;
use crate::staging::Staging;
use crate::tree::{self, Tree};
use crate::walk::{Given, walk};

/// What a bake's inputs are hashed with; counted up whenever the same inputs would give another image than before.
const RECIPE: &str = "basalt bake 2";

/// When a baked image was made, as far as it says (OCI image spec, "created"): fixed, for the same bytes anywhere.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What an image that is baked says of where it came from.
const BAKED: &str = "bake";

/// What an image says that is only on the way to another one.
const ON_THE_WAY: &str = "bake step";

/// What a bake is done with.
pub struct BakeInputs<'a> {
    /// The image to start from, of this depot: what `bake.from` asks for, if that is an image or a Dockerfile.
    pub from: Option<Digest>,
    /// Finds images that steps copy from.
    pub images: &'a dyn Fn(&ImageSource) -> Option<Digest>,
    /// Runs programs; without it, steps that need one are refused.
    pub sandbox: Option<&'a dyn Sandbox>,
    /// Does everything anew, whatever is remembered.
    pub fresh: bool,
}

/// Steps that become one layer.
enum Part<'b> {
    /// Files, and what the image says.
    Files { steps: &'b [BakeStep], says: &'b ImageConfig },
    /// A program.
    Run(&'b basalt_model::RunStep),
}

impl Depot {
    /// Bakes an image over `from` (an image of this depot, which `bake.from` must ask for) or from scratch, and returns
    /// the digest of its manifest. The same inputs give the same digest on any machine of the same architecture, and
    /// are baked only once.
    ///
    /// # Errors
    /// If a step can't be done (the error names the step and the path), or the depot can't be written. Then nothing
    /// half-made stays.
    pub fn bake(&self, bake: &Bake, from: Option<&Digest>, progress: &dyn Progress) -> Result<Digest> {
        let inputs = BakeInputs { from: from.copied(), images: &|_| None, sandbox: None, fresh: false };
        self.bake_with(bake, &inputs, progress)
    }

    /// Bakes an image, also with steps that run programs or copy from other images. What such a step gives is as much
    /// the same anywhere as its program lets it be.
    ///
    /// # Errors
    /// As [`Depot::bake`]; if a program fails, the error has its last lines.
    pub fn bake_with(&self, bake: &Bake, inputs: &BakeInputs<'_>, progress: &dyn Progress) -> Result<Digest> {
        config::check(&bake.config)?;
        let wants_image = matches!(bake.from, BakeFrom::Image(_) | BakeFrom::Dockerfile(_));
        match (wants_image, inputs.from) {
            (false, Some(_)) => return Err(Error::BakeSays("it starts from scratch, not from an image".into())),
            (true, None) => return Err(Error::BakeSays("the image it starts from was not given".into())),
            _ => {}
        }
        // What one part gave must be there for the next one, whoever sweeps meanwhile.
        let _lock = self.store().lock()?;
        let parts = parts(bake);
        let mut parent = inputs.from;
        if let BakeFrom::Debian(debian) = &bake.from {
            parent = Some(self.debian(debian, inputs, progress)?);
        }
        let (mut first, total) = (1, bake.steps.len());
        for part in &parts {
            parent = Some(match part {
                Part::Files { steps, says } => {
                    let digest = self.put(parent.as_ref(), steps, first, says, inputs, progress)?;
                    first += steps.len();
                    digest
                }
                Part::Run(run) => {
                    let digest = match parent {
                        Some(parent) => parent,
                        None => self.put(None, &[], first, &ImageConfig::default(), inputs, progress)?,
                    };
                    let digest = self.run_step(&digest, run, (first, total), inputs, progress)?;
                    first += 1;
                    digest
                }
            });
        }
        let digest = parent.ok_or_else(|| Error::BakeSays("it has no part".into()))?;
        let record = self.record(&digest)?;
        if record.origin == ON_THE_WAY {
            self.store().write_record("images", &digest, &ImageRecord { origin: BAKED.to_owned(), ..record })?;
        }
        Ok(digest)
    }

    /// Puts files into an image, and what the image says of itself.
    fn put(
        &self,
        from: Option<&Digest>,
        steps: &[BakeStep],
        first: usize,
        says: &ImageConfig,
        inputs: &BakeInputs<'_>,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let mut staging = Staging::new(self.store())?;
        let base = match from {
            Some(digest) => self.base(digest)?,
            None => Base::scratch(),
        };
        let tree_of = |source: &ImageSource| {
            let digest = (inputs.images)(source);
            let digest = digest.ok_or_else(|| Error::BakeSays("an image that it copies from was not given".into()))?;
            erofs::read(self.store(), &self.record(&digest)?.erofs)
        };
        let given = Given { store: self.store(), limits: self.limits(), progress, tree_of: &tree_of };
        let puts = walk(steps, first, &mut base.tree.clone(), &given)?;
        let key = key(from, says, &base.architecture, &puts);
        if let Some(digest) = self.remembered(&key)? {
            return Ok(digest);
        }
        let layer = if puts.all.is_empty() { None } else { Some(puts.write_layer(&mut staging, progress)?) };
        self.add(base, layer, says, staging, &key)
    }

    /// Returns the image that a part led to before, if it is still there.
    pub(crate) fn remembered(&self, key: &Digest) -> Result<Option<Digest>> {
        let Some(digest) = self.store().read_record::<Digest>("bakes", key)? else { return Ok(None) };
        Ok(self.is_whole(&digest)?.then_some(digest))
    }

    /// Lays a layer over a base, stores the image that this gives, and remembers it by `key`.
    pub(crate) fn add(
        &self,
        base: Base,
        layer: Option<(PathBuf, Digest, u64)>,
        says: &ImageConfig,
        mut staging: Staging<'_>,
        key: &Digest,
    ) -> Result<Digest> {
        let Base { mut tree, mut layers, mut diff_ids, process, architecture } = base;
        if let Some((path, digest, size)) = layer {
            let file = File::open(&path).map_err(on("open", &path))?;
            let (name, mut used) = (digest.to_string(), Used::default());
            layer::apply(&name, file, size, &mut tree, &mut staging, self.limits(), &mut used)?;
            staging.adopt_blob(path, digest);
            layers.push(Descriptor::new(OCI_LAYER, digest, size));
            diff_ids.push(digest.to_string());
        }
        mounts::add_standard(&mut tree)?;

        let config = Config {
            created: Some(CREATED.to_owned()),
            architecture,
            os: "linux".to_owned(),
            config: Some(Process::over(&process, says)),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        };
        let config = basalt_model::canonical_bytes(&config);
        let config_digest = staging.put_bytes(&config)?;
        let manifest = Manifest::new(Descriptor::new(OCI_CONFIG, config_digest, config.len() as u64), layers);
        let digest = staging.put_bytes(&basalt_model::canonical_bytes(&manifest))?;
        let layers = manifest.layers.iter().map(|layer| layer.digest).collect();

        let _lock = staging.commit()?;
        let erofs = erofs::write(self.store(), tree)?;
        // What another bake ended with stays what it is, although it is on the way here.
        let known = self.store().read_record::<ImageRecord>("images", &digest)?.map(|record| record.origin);
        let origin = known.unwrap_or_else(|| ON_THE_WAY.to_owned());
        let record = ImageRecord { erofs, config: config_digest, layers, origin };
        self.store().write_record("images", &digest, &record)?;
        self.store().write_record("bakes", key, &digest)?;
        Ok(digest)
    }

    /// Returns what a part starts from.
    pub(crate) fn base(&self, digest: &Digest) -> Result<Base> {
        let record = self.record(digest)?;
        let (manifest, config) = self.documents(digest, &record)?;
        let mut layers = manifest.layers;
        for layer in &mut layers {
            layer.media_type = manifest::Packing::of(layer)?.media_type().to_owned();
        }
        Ok(Base {
            tree: erofs::read(self.store(), &record.erofs)?,
            layers,
            process: config.process(),
            architecture: config.architecture,
            diff_ids: config.rootfs.diff_ids,
        })
    }

    /// Returns what an image says about running it.
    ///
    /// # Errors
    /// If it is not here, or can't be read.
    pub fn config(&self, digest: &Digest) -> Result<ImageConfig> {
        let _lock = self.store().lock()?;
        Ok(self.documents(digest, &self.record(digest)?)?.1.process())
    }

    /// Returns an image's manifest and configuration.
    pub(crate) fn documents(&self, digest: &Digest, record: &ImageRecord) -> Result<(Manifest, Config)> {
        let read = |digest: &Digest| {
            let path = self.store().blob(digest);
            fs::read(&path).map_err(on("read", &path))
        };
        let what = format!("manifest `{digest}`");
        let Document::Manifest(manifest) = manifest::parse(&what, &read(digest)?, "")? else {
            return Err(manifest::refuse(&what, "it is an index".to_owned()));
        };
        Ok((manifest, Config::parse(&format!("configuration `{}`", record.config), &read(&record.config)?)?))
    }
}

/// Cuts the steps into parts. What the image says of itself comes last, and in a part that is cheap to do again.
fn parts(bake: &Bake) -> Vec<Part<'_>> {
    static NOTHING: std::sync::LazyLock<ImageConfig> = std::sync::LazyLock::new(ImageConfig::default);
    let mut parts = Vec::new();
    let is_run = |step: &BakeStep| matches!(step, BakeStep::Run(_));
    for steps in bake.steps.chunk_by(|a, b| !is_run(a) && !is_run(b)) {
        parts.push(match steps {
            [BakeStep::Run(run)] => Part::Run(run),
            steps => Part::Files { steps, says: &NOTHING },
        });
    }
    match parts.last_mut() {
        Some(Part::Files { says, .. }) => *says = &bake.config,
        Some(Part::Run(_)) if bake.config == ImageConfig::default() => {}
        _ => parts.push(Part::Files { steps: &[], says: &bake.config }),
    }
    parts
}

/// What a bake starts from.
pub(crate) struct Base {
    tree: Tree,
    layers: Vec<Descriptor>,
    diff_ids: Vec<String>,
    pub(crate) process: ImageConfig,
    architecture: String,
}

impl Base {
    pub(crate) fn scratch() -> Self {
        Self {
            tree: tree::empty(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            process: ImageConfig::default(),
            architecture: architecture().to_owned(),
        }
    }
}

/// Returns the digest of everything that decides what a bake gives.
fn key(from: Option<&Digest>, config: &ImageConfig, architecture: &str, puts: &Puts) -> Digest {
    digest_of(&(RECIPE, from, config, architecture, puts.remembered()))
}
