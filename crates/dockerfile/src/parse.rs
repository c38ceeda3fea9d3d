//! A whole Dockerfile: its stages, and which of them are needed.

use std::collections::{BTreeMap, BTreeSet};

use crate::Fault;
use crate::expand::expand;
use crate::instruction::{Instruction, understand};
use crate::lines::cut;

/// A Dockerfile that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its stages, in order.
    pub stages: Vec<Stage>,
    /// What is not part of an image here, and what to do instead.
    pub notes: Vec<Fault>,
    pub(crate) escape: char,
    /// Build arguments from before the first stage, with those that were given, replaced.
    pub(crate) globals: BTreeMap<String, String>,
    /// Build arguments that were given.
    pub(crate) given: BTreeMap<String, String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name, in small letters.
    pub name: Option<String>,
    /// What it starts from.
    pub from: StageFrom,
    /// The line of its FROM, counted from 1.
    pub line: usize,
    pub(crate) instructions: Vec<(usize, Instruction)>,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageFrom {
    /// An empty root.
    Scratch,
    /// An earlier stage, by number from 0.
    Stage(usize),
    /// An image, as a reference.
    Image(String),
}

impl Dockerfile {
    /// Understands a Dockerfile. `args` are build arguments, `architecture` is that of the machine as OCI names it.
    ///
    /// # Errors
    /// All faults, each with its line.
    pub fn parse(text: &str, args: &BTreeMap<String, String>, architecture: &str) -> Result<Self, Vec<Fault>> {
        let (raws, escape) = cut(text).map_err(|fault| vec![fault])?;
        let (mut faults, mut notes) = (Vec::new(), Vec::new());
        let mut stages: Vec<Stage> = Vec::new();
        let mut globals = predefined(architecture);
        let mut declared = BTreeSet::new();
        for raw in &raws {
            let line = raw.line;
            let instruction = match understand(raw, escape) {
                Ok(instruction) => instruction,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let replace = |text: &str, globals: &BTreeMap<String, String>| {
                expand(text, escape, &|name| globals.get(name).cloned()).map_err(|why| Fault::new(line, why))
            };
            match instruction {
                Instruction::From { image, platform, name } => {
                    let platform = platform.map(|platform| replace(&platform, &globals)).transpose();
                    match platform {
                        Err(fault) => faults.push(fault),
                        Ok(Some(platform))
                            if platform.split('/').take(2).collect::<Vec<_>>() != ["linux", architecture] =>
                        {
                            let what = format!("`--platform={platform}`: this machine bakes for linux/{architecture}");
                            faults.push(Fault::new(line, what));
                        }
                        Ok(_) => {}
                    }
                    match replace(&image, &globals) {
                        Err(fault) => faults.push(fault),
                        Ok(image) if image.is_empty() => {
                            faults.push(Fault::new(line, "no image is named; a variable in it is empty"));
                        }
                        Ok(image) => {
                            let stage = stage_named(&stages, &image);
                            let from = match stage {
                                _ if image == "scratch" => StageFrom::Scratch,
                                Some(n) => StageFrom::Stage(n),
                                None => StageFrom::Image(image),
                            };
                            stages.push(Stage { name, from, line, instructions: Vec::new() });
                        }
                    }
                }
                Instruction::Arg(list) if stages.is_empty() => {
                    for (name, default) in list {
                        let value = match (args.get(&name), default) {
                            (Some(given), _) => Ok(Some(given.clone())),
                            (None, Some(default)) => replace(&default, &globals).map(Some),
                            (None, None) => Ok(None),
                        };
                        match value {
                            Ok(value) => drop(value.map(|value| globals.insert(name.clone(), value))),
                            Err(fault) => faults.push(fault),
                        }
                        declared.insert(name);
                    }
                }
                Instruction::Noted(why) => notes.push(Fault::new(line, format!("{} has no effect: {why}", raw.word))),
                other => {
                    if let Instruction::Arg(list) = &other {
                        declared.extend(list.iter().map(|(name, _)| name.clone()));
                    }
                    match stages.last_mut() {
                        Some(stage) => stage.instructions.push((line, other)),
                        None => faults.push(Fault::new(line, "only ARG may stand before the first FROM")),
                    }
                }
            }
        }
        if stages.is_empty() && faults.is_empty() {
            faults.push(Fault::new(1, "there is no FROM in it"));
        }
        for name in args.keys().filter(|name| !declared.contains(*name) && !globals.contains_key(*name)) {
            faults.push(Fault::new(1, format!("the argument `{name}` is given, and no ARG declares it")));
        }
        let given = args.clone();
        if faults.is_empty() { Ok(Self { stages, notes, escape, globals, given }) } else { Err(faults) }
    }

    /// Returns the number of a stage by name or number; of the last one if none is named.
    ///
    /// # Errors
    /// A sentence, if there is none.
    pub fn target(&self, name: Option<&str>) -> Result<usize, String> {
        match name {
            None => Ok(self.stages.len() - 1),
            Some(name) => {
                stage_named(&self.stages, name).ok_or_else(|| format!("there is no stage `{name}` in the Dockerfile"))
            }
        }
    }
}

/// Returns the number of a stage, by name or number.
pub(crate) fn stage_named(stages: &[Stage], name: &str) -> Option<usize> {
    let by_name = stages.iter().rposition(|stage| stage.name.as_deref() == Some(&name.to_ascii_lowercase()));
    by_name.or_else(|| name.parse().ok().filter(|n| *n < stages.len()))
}

/// Arguments that are there without being declared (Dockerfile reference, "Automatic platform ARGs").
fn predefined(architecture: &str) -> BTreeMap<String, String> {
    let platform = format!("linux/{architecture}");
    let pairs = ["TARGET", "BUILD"].into_iter().flat_map(|kind| {
        [
            (format!("{kind}PLATFORM"), platform.clone()),
            (format!("{kind}OS"), "linux".to_owned()),
            (format!("{kind}ARCH"), architecture.to_owned()),
            (format!("{kind}VARIANT"), String::new()),
        ]
    });
    pairs.collect()
}
