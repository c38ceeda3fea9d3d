//! Copy steps: from files of this machine, from what matches in a folder, from another image, from an archive.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_model::{CopyFrom, CopyStep};
use composefs::generic_tree::Stat;
use composefs::tree::{Directory, Inode, LeafContent, RegularFile};

use crate::archive::{TarError, TarReader};
use crate::error::Result;
use crate::limits::DEEPEST;
use crate::manifest::Packing;
use crate::owner::Owner;
use crate::patterns::{Exclude, Pattern};
use crate::progress::Reporting;
use crate::put::{Content, PutFile};
use crate::staging::hash;
use crate::tree::{self, Found, ObjectId, Parts, Tree};
use crate::walk::Walk;

/// How much an archive that is unpacked by a step may hold: it goes through memory.
const LARGEST_ARCHIVE: u64 = 1 << 30;

/// What is the same for everything that one step copies.
struct How {
    mode: Option<u32>,
    owner: Owner,
    exclude: Exclude,
}

impl Walk<'_> {
    /// Does a copy step.
    pub(crate) fn copy(&mut self, copy: &CopyStep) -> Result<()> {
        let how = How {
            mode: copy.mode.map(|mode| self.mode(&copy.to, mode)).transpose()?,
            owner: self.owner(copy.owner.as_deref())?,
            exclude: Exclude::new(&copy.exclude),
        };
        match &copy.from {
            CopyFrom::Machine(path) => {
                let shown = path.display().to_string();
                if !path.is_absolute() {
                    return Err(self.fail(&shown, "it is not an absolute path"));
                }
                // The path that is named is followed, so that `/bin/sh` is a shell; links found below it stay links.
                self.copy_here(path, "", &copy.to, copy.unpack, &how)
            }
            CopyFrom::Folder { folder, pattern } => {
                for (path, relative) in self.matching(folder, pattern, &how.exclude)? {
                    self.copy_here(&path, &relative, &copy.to, copy.unpack, &how)?;
                }
                Ok(())
            }
            CopyFrom::Image { image, path } => {
                let other = (self.given.tree_of)(image)?;
                let found = matching_in(&other, path).map_err(|why| self.fail(path, &why))?;
                found.iter().try_for_each(|at| self.copy_from_image(&other, at, &copy.to, &how))
            }
        }
    }

    /// Returns what matches a pattern in a folder: where it is, and its path below the folder.
    fn matching(&self, folder: &Path, pattern: &str, exclude: &Exclude) -> Result<Vec<(PathBuf, String)>> {
        let mut found = vec![(folder.to_owned(), String::new())];
        for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(self.fail(pattern, "it leads out of the folder that is copied from"));
            }
            let matcher = Pattern::new(part);
            let mut next = Vec::new();
            for (dir, relative) in found {
                let below =
                    |name: &str| if relative.is_empty() { name.to_owned() } else { format!("{relative}/{name}") };
                if !part.contains(['*', '?', '[', '\\']) {
                    if fs::symlink_metadata(dir.join(part)).is_ok() {
                        next.push((dir.join(part), below(part)));
                    }
                    continue;
                }
                let mut names: Vec<OsString> =
                    fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
                names.sort_unstable();
                let names = names.iter().filter_map(|name| name.to_str()).filter(|name| matcher.matches(name));
                next.extend(names.map(|name| (dir.join(name), below(name))));
            }
            found = next;
        }
        found.retain(|(_, relative)| !exclude.leaves_out(relative) || exclude.may_take_back(relative));
        let Some(root) = folder.canonicalize().ok().filter(|_| !found.is_empty()) else {
            let why = format!("there is no such file in `{}` (or it is left out by a pattern)", folder.display());
            return Err(self.fail(pattern, &why));
        };
        for (path, relative) in &found {
            let leads = path.canonicalize().map_err(|e| self.fail(relative, &e.to_string()))?;
            if !leads.starts_with(&root) {
                return Err(self.fail(relative, "it is a link out of the folder that is copied from"));
            }
        }
        Ok(found)
    }

    /// Copies a file or directory of this machine, which patterns know as `relative`.
    fn copy_here(&mut self, from: &Path, relative: &str, to: &str, unpack: bool, how: &How) -> Result<()> {
        let shown = from.display().to_string();
        let meta = fs::metadata(from).map_err(|e| self.fail(&shown, &e.to_string()))?;
        if meta.is_dir() {
            let at = self.resolve(to, true)?;
            self.put_dir(&at, 0o755, how.owner)?;
            return self.copy_dir(from, relative, &at, how);
        }
        if unpack && let Some(packing) = archive(from).map_err(|e| self.fail(&shown, &e.to_string()))? {
            let at = self.resolve(to, true)?;
            self.put_dir(&at, 0o755, how.owner)?;
            return self.unpack(from, packing, &at);
        }
        let at = self.place(to, from.file_name())?;
        self.copy_file(from, &meta, &at, how)
    }

    /// Returns where a leaf goes: into a directory if `to` names one, else to `to` itself.
    fn place(&self, to: &str, name: Option<&OsStr>) -> Result<Parts> {
        let inner = |to: &str| name.map(|name| format!("{}/{}", to.trim_end_matches('/'), name.to_string_lossy()));
        let is_dir = || {
            let at = tree::resolve(self.tree, to.as_bytes(), true).ok();
            at.is_some_and(|at| matches!(tree::look(self.tree, &at), Some(Found::Directory)))
        };
        match inner(to) {
            Some(inner) if to.ends_with('/') || is_dir() => self.leaf_place(&inner),
            _ => self.leaf_place(to),
        }
    }

    fn copy_dir(&mut self, from: &Path, relative: &str, to: &[OsString], how: &How) -> Result<()> {
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
            let text = name.to_string_lossy();
            let below = if relative.is_empty() { text.into_owned() } else { format!("{relative}/{text}") };
            let mut at = to.to_vec();
            at.push(name);
            let meta = fs::symlink_metadata(&path).map_err(|e| self.fail(&shown, &e.to_string()))?;
            let left_out = how.exclude.leaves_out(&below);
            if left_out && !(meta.is_dir() && how.exclude.may_take_back(&below)) {
                continue;
            }
            if meta.is_dir() {
                // A directory of the image may be a link there (`/bin` to `usr/bin`): what is copied goes where it leads.
                let at = tree::resolve(self.tree, &tree::joined(&at), true).map_err(|why| self.fail(&shown, &why))?;
                if !left_out {
                    self.put_dir(&at, 0o755, how.owner)?;
                }
                self.copy_dir(&path, &below, &at, how)?;
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).map_err(|e| self.fail(&shown, &e.to_string()))?;
                self.put_link(&at, target.as_os_str(), how.owner)?;
            } else {
                self.copy_file(&path, &meta, &at, how)?;
            }
        }
        Ok(())
    }

    fn copy_file(&mut self, from: &Path, meta: &fs::Metadata, to: &[OsString], how: &How) -> Result<()> {
        let shown = from.display().to_string();
        if !meta.is_file() {
            return Err(self.fail(&shown, "it is neither a file, a directory nor a symbolic link; leave it out"));
        }
        // Only whether a file can be executed is taken over: the rest differs with the umask of who checked it out.
        let mode = how.mode.unwrap_or(if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 });
        let file = PutFile {
            mode,
            owner: how.owner,
            size: meta.len(),
            digest: self.hash(from, meta.len())?,
            capability: None,
            content: Content::Here(from.to_owned()),
        };
        self.put_file(to, file)
    }

    fn hash(&self, path: &Path, size: u64) -> Result<basalt_model::Digest> {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(|e| self.fail(&shown, &e.to_string()))?;
        let what = format!("read {shown}");
        hash(Reporting::new(file, self.given.progress, &what, Some(size)))
            .map_err(|e| self.fail(&shown, &e.to_string()))
    }

    /// Copies a file or directory of another image. Permission bits stay; who owns it does not.
    fn copy_from_image(&mut self, other: &Tree, from: &[OsString], to: &str, how: &How) -> Result<()> {
        match lookup(other, from) {
            Some(Node::Directory(dir)) => {
                let at = self.resolve(to, true)?;
                self.put_dir(&at, dir.stat.st_mode & 0o7777, how.owner)?;
                self.copy_image_dir(other, dir, "", &at, how)
            }
            Some(Node::Leaf(stat, content)) => {
                let at = self.place(to, from.last().map(OsString::as_os_str))?;
                self.put_from_image(&at, stat, content, how)
            }
            None => Err(self.fail(&tree::show(from), "the image that is copied from does not have it")),
        }
    }

    fn copy_image_dir(
        &mut self,
        other: &Tree,
        dir: &Directory<ObjectId>,
        relative: &str,
        to: &[OsString],
        how: &How,
    ) -> Result<()> {
        for (name, inode) in dir.sorted_entries() {
            let text = name.to_string_lossy();
            let below = if relative.is_empty() { text.into_owned() } else { format!("{relative}/{text}") };
            if how.exclude.leaves_out(&below) && !how.exclude.may_take_back(&below) {
                continue;
            }
            let mut at = to.to_vec();
            at.push(name.to_owned());
            match inode {
                Inode::Directory(inner) => {
                    let at = tree::resolve(self.tree, &tree::joined(&at), true)
                        .map_err(|why| self.fail(&tree::show(&at), &why))?;
                    self.put_dir(&at, inner.stat.st_mode & 0o7777, how.owner)?;
                    self.copy_image_dir(other, inner, &below, &at, how)?;
                }
                Inode::Leaf(id, _) => {
                    let leaf = other.leaf(*id);
                    self.put_from_image(&at, &leaf.stat, &leaf.content, how)?;
                }
            }
        }
        Ok(())
    }

    fn put_from_image(
        &mut self,
        at: &[OsString],
        stat: &Stat,
        content: &LeafContent<ObjectId>,
        how: &How,
    ) -> Result<()> {
        let mode = how.mode.unwrap_or(stat.st_mode & 0o7777);
        match content {
            LeafContent::Symlink(target) => self.put_link(at, target, how.owner),
            LeafContent::Regular(RegularFile::Inline(bytes)) => {
                self.put_bytes(at, Arc::from(&bytes[..]), mode, how.owner)
            }
            LeafContent::Regular(RegularFile::External(id, size)) => {
                let path = self.given.store.object(id);
                let capability = stat.xattrs.get(OsStr::new("security.capability")).map(|value| value.to_vec());
                let digest = self.hash(&path, *size)?;
                let content = Content::Here(path);
                self.put_file(at, PutFile { mode, owner: how.owner, size: *size, digest, capability, content })
            }
            _ => Err(self.fail(&tree::show(at), "it is neither a file, a directory nor a symbolic link; leave it out")),
        }
    }

    /// Unpacks an archive into a directory: names, owners and permission bits are as it says, times are not.
    fn unpack(&mut self, from: &Path, packing: Packing, to: &[OsString]) -> Result<()> {
        let shown = from.display().to_string();
        let fail = |walk: &Self, why: String| walk.fail(&shown, &why);
        let stream = File::open(from).and_then(|file| packing.unpack(io::BufReader::new(file)));
        let stream = stream.map_err(|e| fail(self, e.to_string()))?.take(LARGEST_ARCHIVE);
        let mut tar = TarReader::new(stream);
        let mut files: BTreeMap<Vec<u8>, PutFile> = BTreeMap::new();
        loop {
            let entry = match tar.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(TarError::Io(e)) => return Err(fail(self, format!("it can't be read: {e}"))),
                Err(TarError::Refused { why, .. }) => return Err(fail(self, why)),
            };
            let id = |id: u64| u32::try_from(id).map_err(|_| fail(self, format!("it has an owner {id}")));
            let (owner, mode) = ((id(entry.uid)?, id(entry.gid)?), entry.mode & 0o7777);
            let inner = tree::parts(&entry.path).map_err(|why| fail(self, why))?;
            if inner.is_empty() {
                continue;
            }
            let path = [to, &inner].concat();
            let leaf_at = |walk: &Self| {
                // Directories of the image may be links; what is unpacked goes where they lead, inside the root.
                let at = tree::resolve(walk.tree, &tree::joined(&path), false);
                at.map_err(|why| walk.fail(&tree::show(&path), &why))
            };
            match entry.kind {
                kind if kind.is_dir() => {
                    let at = tree::resolve(self.tree, &tree::joined(&path), true);
                    let at = at.map_err(|why| self.fail(&tree::show(&path), &why))?;
                    self.put_dir(&at, mode, owner)?;
                }
                kind if kind.is_file() || kind.is_contiguous() => {
                    let mut bytes = Vec::new();
                    tar.content().read_to_end(&mut bytes).map_err(|e| fail(self, e.to_string()))?;
                    let digest = hash(&bytes[..]).map_err(|e| fail(self, e.to_string()))?;
                    let size = bytes.len() as u64;
                    let content = Content::Bytes(bytes.into());
                    let file = PutFile { mode, owner, size, digest, capability: None, content };
                    files.insert(tree::joined(&inner), file.clone());
                    let at = leaf_at(self)?;
                    self.put_file(&at, file)?;
                }
                kind if kind.is_symlink() => {
                    let at = leaf_at(self)?;
                    self.put_link(&at, OsStr::from_bytes(&entry.link), owner)?;
                }
                kind if kind.is_hard_link() => {
                    let target = tree::parts(&entry.link).map_err(|why| fail(self, why))?;
                    let Some(file) = files.get(&tree::joined(&target)).cloned() else {
                        return Err(fail(self, format!("`{}` is a hard link to nothing in it", tree::show(&inner))));
                    };
                    let at = leaf_at(self)?;
                    self.put_file(&at, file)?;
                }
                _ => {
                    let why = format!("`{}` in it is neither a file, a directory nor a link", tree::show(&inner));
                    return Err(fail(self, why));
                }
            }
        }
    }
}

/// Returns how a file is packed if it is a tar archive.
fn archive(path: &Path) -> io::Result<Option<Packing>> {
    /// Where a tar header has its mark (POSIX.1-2017, pax, "ustar Interchange Format").
    const MARK: std::ops::Range<usize> = 257..262;
    let mut first = Vec::new();
    File::open(path)?.take(512).read_to_end(&mut first)?;
    let packing = Packing::by_magic(&first);
    let mut head = Vec::new();
    let unpacked = packing.unpack(File::open(path)?).and_then(|s| s.take(512).read_to_end(&mut head));
    Ok((unpacked.is_ok() && head.get(MARK) == Some(b"ustar")).then_some(packing))
}

enum Node<'a> {
    Directory(&'a Directory<ObjectId>),
    Leaf(&'a Stat, &'a LeafContent<ObjectId>),
}

fn lookup<'a>(tree: &'a Tree, at: &[OsString]) -> Option<Node<'a>> {
    let mut dir = &tree.root;
    for (n, part) in at.iter().enumerate() {
        match dir.lookup(part)? {
            Inode::Directory(inner) => dir = inner,
            Inode::Leaf(id, _) if n + 1 == at.len() => {
                let leaf = tree.leaf(*id);
                return Some(Node::Leaf(&leaf.stat, &leaf.content));
            }
            Inode::Leaf(..) => return None,
        }
    }
    Some(Node::Directory(dir))
}

/// Returns what matches a path with patterns in a tree; links on the way are followed, inside the root.
fn matching_in(tree: &Tree, path: &str) -> std::result::Result<Vec<Parts>, String> {
    let mut found = vec![Parts::new()];
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let pattern = Pattern::new(part);
        let mut next = Vec::new();
        for at in found {
            if !part.contains(['*', '?', '[', '\\']) {
                let joined = [&tree::joined(&at)[..], b"/", part.as_bytes()].concat();
                let at = tree::resolve(tree, &joined, true)?;
                if tree::look(tree, &at).is_some() {
                    next.push(at);
                }
            } else if let Some(Node::Directory(dir)) = lookup(tree, &at) {
                let names = dir.sorted_entries().filter(|(name, _)| name.to_str().is_some_and(|n| pattern.matches(n)));
                for (name, _) in names {
                    let joined = [&tree::joined(&at)[..], b"/", name.as_bytes()].concat();
                    next.push(tree::resolve(tree, &joined, true)?);
                }
            }
        }
        found = next;
    }
    if found.is_empty() { Err("the image that is copied from does not have it".into()) } else { Ok(found) }
}
