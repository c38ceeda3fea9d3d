//! Steps of a bake that run a program.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use basalt_model::{BakeStep, Digest, ImageConfig, ImageSource, RunInput, RunStep, digest_of};
use basalt_seam::{PinnedImage, SandboxRun};

use crate::bake::BakeInputs;
use crate::depot::Depot;
use crate::error::{Error, Result, io as on};
use crate::progress::Progress;
use crate::staging::{Staging, hash};
use crate::tree;
use crate::walk::{Given, walk};

/// What the inputs of a program are hashed with; counted up whenever the same would give another image than before.
const RECIPE: &str = "basalt bake run 1";

/// The time that programs are told to write into what they make (reproducible-builds.org, SOURCE_DATE_EPOCH): the
/// first of 1980, before which zip archives have no time.
pub(crate) const EPOCH: &str = "315532800";

/// So many of its last lines a program that failed is shown with.
const LAST_LINES: usize = 20;

/// An archive of nothing: two blocks of zeros.
const EMPTY_LAYER: u64 = 1024;

/// Variables that say where a proxy is. A program that reaches the network gets this machine's; they decide how it
/// reaches it, not what it makes.
const PROXIES: [&str; 8] =
    ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"];

impl Depot {
    /// Runs a program over an image, and returns the image of what it changed. `place` is its number among all.
    pub(crate) fn run_step(
        &self,
        parent: &Digest,
        step: &RunStep,
        place: (usize, usize),
        inputs: &BakeInputs<'_>,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let given = step.inputs.iter().map(|(name, input)| {
            let digest = match input {
                RunInput::Path(path) => self.digest_of_input(path, place.0, progress)?,
                RunInput::Text(text) => digest_of(text),
            };
            Ok((name, digest))
        });
        let given = given.collect::<Result<BTreeMap<_, _>>>()?;
        let key = digest_of(&(
            RECIPE,
            parent,
            RunStep { inputs: BTreeMap::new(), title: String::new(), ..step.clone() },
            given,
        ));
        if !inputs.fresh
            && let Some(digest) = self.remembered(&key)?
        {
            progress.step(place, &step.title, true);
            return Ok(digest);
        }
        progress.step(place, &step.title, false);
        let staging = Staging::new(self.store())?;
        let record = self.record(parent)?;
        let base = self.base(parent)?;
        let image = PinnedImage {
            digest: *parent,
            erofs: self.store().erofs(&record.erofs),
            objects: self.store().objects(),
            config: base.process.clone(),
        };
        let layer = self.run_in_sandbox(step, image, place.0, inputs, progress, staging)?;
        let (staging, layer) = layer;
        self.add(base, layer, &ImageConfig::default(), staging, &key)
    }

    /// Runs a program and returns the layer of what it changed, if it changed anything.
    #[allow(clippy::type_complexity)] // The staging goes in and comes out again, for it holds the layer.
    pub(crate) fn run_in_sandbox<'a>(
        &self,
        step: &RunStep,
        image: PinnedImage,
        number: usize,
        inputs: &BakeInputs<'_>,
        progress: &dyn Progress,
        mut staging: Staging<'a>,
    ) -> Result<(Staging<'a>, Option<(std::path::PathBuf, Digest, u64)>)> {
        let Some(sandbox) = inputs.sandbox else {
            return Err(Error::BakeSays(format!(
                "`{}` has to be run, and there is nothing to run it with",
                step.title
            )));
        };
        let work = staging.fresh_path();
        fs::create_dir(&work).map_err(on("create", &work))?;
        let config = &image.config;
        let mut env = config.env.clone();
        env.insert("SOURCE_DATE_EPOCH".to_owned(), EPOCH.to_owned());
        if step.network {
            env.extend(PROXIES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))));
        }
        env.extend(step.env.clone());
        let workdir = if step.workdir.is_empty() { config.workdir.clone() } else { step.workdir.clone() };
        let mut files = BTreeMap::new();
        for (name, input) in &step.inputs {
            let path = match input {
                RunInput::Path(path) => path.clone(),
                RunInput::Text(text) => {
                    let path = staging.fresh_path();
                    fs::write(&path, text).map_err(on("write", &path))?;
                    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).map_err(on("restrict", &path))?;
                    path
                }
            };
            files.insert(name.clone(), path);
        }
        let run = SandboxRun {
            image,
            work,
            tools: step.tools,
            inputs: files,
            command: step.command.clone(),
            env,
            user: step.user.clone(),
            workdir,
            network: step.network,
            timeout: step.timeout,
        };
        let mut last = VecDeque::new();
        let ended = sandbox.run(&run, &mut |line| {
            progress.line(line);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line.to_owned());
        });
        let title = step.title.clone();
        let ended = ended.map_err(|e| Error::BakeRun {
            step: number,
            title: title.clone(),
            how: e.to_string(),
            lines: vec![],
        })?;
        let Some(path) = ended.layer else {
            let how = ended.exit.to_string();
            return Err(Error::BakeRun { step: number, title, how, lines: last.into() });
        };
        let size = fs::metadata(&path).map_err(on("read", &path))?.len();
        if size <= EMPTY_LAYER {
            return Ok((staging, None));
        }
        let file = File::open(&path).map_err(on("open", &path))?;
        let digest = hash(file).map_err(on("read", &path))?;
        let own = staging.fresh_path();
        fs::rename(&path, &own).map_err(on("move", &path))?;
        Ok((staging, Some((own, digest, size))))
    }

    /// Returns the digest of a file or folder with all that is in it.
    fn digest_of_input(&self, path: &std::path::Path, step: usize, progress: &dyn Progress) -> Result<Digest> {
        let tree_of = |_: &ImageSource| Err(Error::BakeSays("an input is no image".into()));
        let given = Given { store: self.store(), limits: self.limits(), progress, tree_of: &tree_of };
        let steps = [BakeStep::copy(path, "/input")];
        Ok(digest_of(&walk(&steps, step, &mut tree::empty(), &given)?.remembered()))
    }
}
