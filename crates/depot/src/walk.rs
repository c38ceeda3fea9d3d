//! What a bake's steps put into the image: each place, resolved, with the digest of its content.
//!
//! Nothing is written here. What comes out decides the image, so its digest is what a bake is remembered by.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use basalt_model::{BakeStep, Digest};
use composefs::SYMLINK_MAX;
use composefs::tree::LeafContent;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::limits::{DEEPEST, Limits};
use crate::progress::{Progress, Reporting};
use crate::staging::hash;
use crate::tree::{self, Found, Parts, Tree};

/// Something to be put at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Put {
    Dir,
    Link(String),
    File {
        mode: u32,
        size: u64,
        digest: Digest,
        /// Where its content is; not part of what is remembered.
        #[serde(skip)]
        content: Content,
    },
}

/// Where the content of a file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Here(PathBuf),
    Text(String),
}

/// All that is put, by joined path: directories come before what is in them.
#[derive(Debug, Default)]
pub(crate) struct Puts {
    pub(crate) all: BTreeMap<Vec<u8>, Put>,
    /// Which step put it last, for errors.
    pub(crate) step: BTreeMap<Vec<u8>, usize>,
}

/// Returns what `steps` put over `tree`, and changes `tree` alike (with empty files).
pub(crate) fn walk(steps: &[BakeStep], tree: &mut Tree, limits: &Limits, progress: &dyn Progress) -> Result<Puts> {
    let mut walk = Walk { tree, limits, progress, puts: Puts::default(), step: 0 };
    for (i, step) in steps.iter().enumerate() {
        walk.step = i + 1;
        match step {
            BakeStep::Copy { from, to, mode } => walk.copy(from, to, *mode)?,
            BakeStep::File { path, content, mode } => {
                let at = walk.leaf_place(path)?;
                let digest = Digest::from_bytes(Sha256::digest(content).into());
                let (mode, size) = (walk.mode(path, *mode)?, content.len() as u64);
                walk.put_file(&at, Put::File { mode, size, digest, content: Content::Text(content.clone()) })?;
            }
            BakeStep::Link { path, to } => {
                let at = walk.leaf_place(path)?;
                walk.put_link(&at, to.as_ref())?;
            }
        }
    }
    Ok(walk.puts)
}

struct Walk<'a> {
    tree: &'a mut Tree,
    limits: &'a Limits,
    progress: &'a dyn Progress,
    puts: Puts,
    step: usize,
}

impl Walk<'_> {
    fn copy(&mut self, from: &Path, to: &str, mode: Option<u32>) -> Result<()> {
        let shown = from.display().to_string();
        if !from.is_absolute() {
            return Err(self.fail(&shown, "it is not an absolute path"));
        }
        let mode = mode.map(|mode| self.mode(to, mode)).transpose()?;
        // The path that is named is followed, so that `/bin/sh` is a shell; links found below it stay links.
        let meta = fs::metadata(from).map_err(|e| self.fail(&shown, &e.to_string()))?;
        if meta.is_dir() {
            let at = self.resolve(to, true)?;
            self.put_dir(&at)?;
            return self.copy_dir(from, &at, mode);
        }
        let to = match (to.ends_with('/'), from.file_name()) {
            (true, Some(name)) => format!("{to}{}", name.to_string_lossy()),
            _ => to.to_owned(),
        };
        let at = self.leaf_place(&to)?;
        self.copy_file(from, &meta, &at, mode)
    }

    fn copy_dir(&mut self, from: &Path, to: &[OsString], mode: Option<u32>) -> Result<()> {
        let shown = from.display().to_string();
        if to.len() >= DEEPEST {
            return Err(self.fail(&shown, &format!("it lies more than {DEEPEST} directories deep")));
        }
        let names = fs::read_dir(from)
            .and_then(|dir| dir.map(|e| e.map(|e| e.file_name())).collect::<std::io::Result<Vec<_>>>());
        let mut names = names.map_err(|e| self.fail(&shown, &e.to_string()))?;
        names.sort_unstable();
        for name in names {
            let path = from.join(&name);
            let shown = path.display().to_string();
            let mut at = to.to_vec();
            at.push(name);
            let meta = fs::symlink_metadata(&path).map_err(|e| self.fail(&shown, &e.to_string()))?;
            if meta.is_dir() {
                // A directory of the image may be a link there (`/bin` to `usr/bin`): what is copied goes where it leads.
                let at = tree::resolve(self.tree, &tree::joined(&at), true).map_err(|why| self.fail(&shown, &why))?;
                self.put_dir(&at)?;
                self.copy_dir(&path, &at, mode)?;
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).map_err(|e| self.fail(&shown, &e.to_string()))?;
                self.put_link(&at, target.as_os_str())?;
            } else {
                self.copy_file(&path, &meta, &at, mode)?;
            }
        }
        Ok(())
    }

    fn copy_file(&mut self, from: &Path, meta: &fs::Metadata, to: &[OsString], mode: Option<u32>) -> Result<()> {
        let shown = from.display().to_string();
        if !meta.is_file() {
            return Err(self.fail(&shown, "it is neither a file, a directory nor a symbolic link; leave it out"));
        }
        // Only whether a file can be executed is taken over: the rest differs with the umask of who checked it out.
        let mode = mode.unwrap_or(if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 });
        let file = File::open(from).map_err(|e| self.fail(&shown, &e.to_string()))?;
        let what = format!("read {shown}");
        let digest = hash(Reporting::new(file, self.progress, &what, Some(meta.len())));
        let digest = digest.map_err(|e| self.fail(&shown, &e.to_string()))?;
        self.put_file(to, Put::File { mode, size: meta.len(), digest, content: Content::Here(from.to_owned()) })
    }

    fn put_file(&mut self, at: &[OsString], put: Put) -> Result<()> {
        self.make_room(at)?;
        tree::put_empty_file(self.tree, at).map_err(|why| self.fail(&tree::show(at), &why))?;
        self.put(at, put)
    }

    fn put_link(&mut self, at: &[OsString], target: &OsStr) -> Result<()> {
        let shown = tree::show(at);
        let bytes = target.as_bytes();
        if bytes.is_empty() || bytes.len() > SYMLINK_MAX || bytes.contains(&0) {
            let why = format!("the link's target is empty, has a NUL byte, or more than {SYMLINK_MAX} bytes");
            return Err(self.fail(&shown, &why));
        }
        let Some(text) = target.to_str() else {
            return Err(self.fail(&shown, "the link's target is not UTF-8"));
        };
        self.make_room(at)?;
        let content = LeafContent::Symlink(target.into());
        tree::put_leaf(self.tree, at, tree::stat(0o777), content).map_err(|why| self.fail(&shown, &why))?;
        self.put(at, Put::Link(text.to_owned()))
    }

    /// Makes the directories above a leaf, and refuses to put it where a directory is.
    fn make_room(&mut self, at: &[OsString]) -> Result<()> {
        let above = &at[..at.len().saturating_sub(1)];
        self.put_dir(above)?;
        match tree::look(self.tree, at) {
            Some(Found::Directory) => {
                Err(self.fail(&tree::show(at), "the image has a directory there; give the path of a file in it"))
            }
            _ => Ok(()),
        }
    }

    fn put_dir(&mut self, at: &[OsString]) -> Result<()> {
        let mut made: Vec<Parts> = Vec::new();
        let result = tree::make_dirs(self.tree, at, |parts| made.push(parts.to_vec())).map(drop);
        result.map_err(|why| self.fail(&tree::show(at), &why))?;
        made.iter().try_for_each(|parts| self.put(parts, Put::Dir))
    }

    fn put(&mut self, at: &[OsString], put: Put) -> Result<()> {
        // A name in a layer that begins so would remove something instead of putting it.
        if at.iter().any(|part| part.as_bytes().starts_with(b".wh.")) {
            return Err(self.fail(&tree::show(at), "a name beginning with `.wh.` can't be in a layer; rename it"));
        }
        let path = tree::joined(at);
        self.puts.step.insert(path.clone(), self.step);
        self.puts.all.insert(path, put);
        if self.puts.all.len() as u64 > self.limits.entries {
            return Err(self.fail(&tree::show(at), &format!("the image has more than {} entries", self.limits.entries)));
        }
        Ok(())
    }

    fn leaf_place(&self, path: &str) -> Result<Parts> {
        let at = self.resolve(path, false)?;
        if at.is_empty() || path.ends_with('/') {
            Err(self.fail(path, "it names a directory, not a file"))
        } else {
            Ok(at)
        }
    }

    fn resolve(&self, path: &str, follow_last: bool) -> Result<Parts> {
        if !path.starts_with('/') {
            return Err(self.fail(path, "the path in the image is not absolute"));
        }
        tree::resolve(self.tree, path.as_bytes(), follow_last).map_err(|why| self.fail(path, &why))
    }

    fn mode(&self, path: &str, mode: u32) -> Result<u32> {
        match mode {
            0..=0o7777 => Ok(mode),
            _ => Err(self.fail(path, &format!("mode `{mode:o}` has more than permission bits (at most 7777)"))),
        }
    }

    fn fail(&self, path: &str, why: &str) -> Error {
        Error::Bake { step: self.step, path: path.to_owned(), why: why.to_owned() }
    }
}
