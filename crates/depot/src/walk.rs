//! What a bake's steps put into the image: each place, resolved, with the digest of its content.
//!
//! Nothing is written here. What comes out decides the image, so its digest is what a bake is remembered by.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use basalt_model::{BakeStep, Digest, ImageSource};
use composefs::SYMLINK_MAX;
use composefs::tree::{Inode, LeafContent, RegularFile};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::owner::{self, Owner};
use crate::progress::Progress;
use crate::put::{Content, Put, PutFile, Puts};
use crate::store::Store;
use crate::tree::{self, Found, Parts, Tree};

/// What a walk needs to know besides the steps.
pub(crate) struct Given<'a> {
    pub(crate) store: &'a Store,
    pub(crate) limits: &'a Limits,
    pub(crate) progress: &'a dyn Progress,
    /// Returns the tree of another image.
    pub(crate) tree_of: &'a dyn Fn(&ImageSource) -> Result<Tree>,
}

/// Returns what `steps` put over `tree`, and changes `tree` alike (with empty files). `first` is the number of the first.
pub(crate) fn walk(steps: &[BakeStep], first: usize, tree: &mut Tree, given: &Given<'_>) -> Result<Puts> {
    let mut walk = Walk { tree, given, puts: Puts::default(), step: first };
    for (i, step) in steps.iter().enumerate() {
        walk.step = first + i;
        match step {
            BakeStep::Copy(copy) => walk.copy(copy)?,
            BakeStep::File(file) => {
                let at = walk.leaf_place(&file.path)?;
                let (mode, owner) = (walk.mode(&file.path, file.mode)?, walk.owner(file.owner.as_deref())?);
                walk.put_bytes(&at, file.content.as_bytes().into(), mode, owner)?;
            }
            BakeStep::Link { path, to } => {
                let at = walk.leaf_place(path)?;
                walk.put_link(&at, to.as_ref(), owner::ROOT)?;
            }
            BakeStep::Directory { path } => {
                let at = walk.resolve(path, true)?;
                walk.put_dir(&at, 0o755, owner::ROOT)?;
            }
            BakeStep::Run(run) => return Err(walk.fail(&run.title, "a program puts nothing by itself")),
        }
    }
    Ok(walk.puts)
}

/// Steps on their way into an image.
pub(crate) struct Walk<'a> {
    pub(crate) tree: &'a mut Tree,
    pub(crate) given: &'a Given<'a>,
    puts: Puts,
    step: usize,
}

impl Walk<'_> {
    pub(crate) fn put_bytes(&mut self, at: &[OsString], bytes: Arc<[u8]>, mode: u32, owner: Owner) -> Result<()> {
        let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
        let size = bytes.len() as u64;
        let content = Content::Bytes(bytes);
        self.put_file(at, PutFile { mode, owner, size, digest, capability: None, content })
    }

    pub(crate) fn put_file(&mut self, at: &[OsString], file: PutFile) -> Result<()> {
        self.make_room(at)?;
        tree::put_empty_file(self.tree, at).map_err(|why| self.fail(&tree::show(at), &why))?;
        self.put(at, Put::File(file))
    }

    pub(crate) fn put_link(&mut self, at: &[OsString], target: &OsStr, owner: Owner) -> Result<()> {
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
        self.put(at, Put::Link { target: text.to_owned(), owner })
    }

    /// Makes the directories above a leaf, and refuses to put it where a directory is.
    fn make_room(&mut self, at: &[OsString]) -> Result<()> {
        let above = &at[..at.len().saturating_sub(1)];
        self.put_dir(above, 0o755, owner::ROOT)?;
        match tree::look(self.tree, at) {
            Some(Found::Directory) => {
                Err(self.fail(&tree::show(at), "the image has a directory there; give the path of a file in it"))
            }
            _ => Ok(()),
        }
    }

    /// Makes a directory, with those above it that are missing; one that is there is kept as it is.
    pub(crate) fn put_dir(&mut self, at: &[OsString], mode: u32, owner: Owner) -> Result<()> {
        let mut made: Vec<Parts> = Vec::new();
        let result = tree::make_dirs(self.tree, at, |parts| made.push(parts.to_vec())).map(drop);
        result.map_err(|why| self.fail(&tree::show(at), &why))?;
        made.iter().try_for_each(|parts| {
            let (mode, owner) = if parts.len() == at.len() { (mode, owner) } else { (0o755, owner::ROOT) };
            self.put(parts, Put::Dir { mode, owner })
        })
    }

    fn put(&mut self, at: &[OsString], put: Put) -> Result<()> {
        // A name in a layer that begins so would remove something instead of putting it.
        if at.iter().any(|part| part.as_bytes().starts_with(b".wh.")) {
            return Err(self.fail(&tree::show(at), "a name beginning with `.wh.` can't be in a layer; rename it"));
        }
        let path = tree::joined(at);
        self.puts.step.insert(path.clone(), self.step);
        self.puts.all.insert(path, put);
        let most = self.given.limits.entries;
        if self.puts.all.len() as u64 > most {
            return Err(self.fail(&tree::show(at), &format!("the image has more than {most} entries")));
        }
        Ok(())
    }

    pub(crate) fn leaf_place(&self, path: &str) -> Result<Parts> {
        let at = self.resolve(path, false)?;
        if at.is_empty() || path.ends_with('/') {
            Err(self.fail(path, "it names a directory, not a file"))
        } else {
            Ok(at)
        }
    }

    pub(crate) fn resolve(&self, path: &str, follow_last: bool) -> Result<Parts> {
        if !path.starts_with('/') {
            return Err(self.fail(path, "the path in the image is not absolute"));
        }
        tree::resolve(self.tree, path.as_bytes(), follow_last).map_err(|why| self.fail(path, &why))
    }

    pub(crate) fn mode(&self, path: &str, mode: u32) -> Result<u32> {
        match mode {
            0..=0o7777 => Ok(mode),
            _ => Err(self.fail(path, &format!("mode `{mode:o}` has more than permission bits (at most 7777)"))),
        }
    }

    /// Returns an owner by number; root if none is said.
    pub(crate) fn owner(&self, owner: Option<&str>) -> Result<Owner> {
        let Some(text) = owner else { return Ok(owner::ROOT) };
        let read = |path: &str| self.read(path);
        owner::resolve(text, || read("/etc/passwd"), || read("/etc/group")).map_err(|why| self.fail(text, &why))
    }

    /// Reads a short file as the image has it by now; absent is empty.
    fn read(&self, path: &str) -> std::result::Result<String, String> {
        let at = tree::resolve(self.tree, path.as_bytes(), true)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let here = |path: &std::path::Path| std::fs::read(path).map(|b| text(&b)).map_err(|e| e.to_string());
        if let Some(Put::File(file)) = self.puts.all.get(&tree::joined(&at)) {
            return match &file.content {
                Content::Bytes(bytes) => Ok(text(bytes)),
                Content::Here(path) => here(path),
            };
        }
        let Some((name, above)) = at.split_last() else { return Ok(String::new()) };
        let mut dir = &self.tree.root;
        for part in above {
            match dir.lookup(part) {
                Some(Inode::Directory(inner)) => dir = inner,
                _ => return Ok(String::new()),
            }
        }
        match dir.lookup(name) {
            Some(Inode::Leaf(id, _)) => match &self.tree.leaf(*id).content {
                LeafContent::Regular(RegularFile::Inline(bytes)) => Ok(text(bytes)),
                LeafContent::Regular(RegularFile::External(id, _)) => here(&self.given.store.object(id)),
                _ => Ok(String::new()),
            },
            _ => Ok(String::new()),
        }
    }

    pub(crate) fn fail(&self, path: &str, why: &str) -> Error {
        Error::Bake { step: self.step, path: path.to_owned(), why: why.to_owned() }
    }
}
