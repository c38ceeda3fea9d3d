//! Laying a layer over a tree (OCI image spec, "Image Layer Filesystem Changeset").
//!
//! Of extended attributes only `security.capability` is kept: others are of the machine that packed the layer, or
//! (`trusted.overlay.*`) would speak to the kernel's overlay. Set-user-id bits are kept as they are: an instance has
//! no new privileges, so they do nothing, and what runs is what the image has.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use composefs::SYMLINK_MAX;
use composefs::generic_tree::Stat;
use composefs::tree::{Directory, Inode, LeafContent};

use crate::archive::{TarEntry, TarError, TarReader};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::staging::Staging;
use crate::tree::{self, Found, ObjectId, Parts, Tree};

/// Marks what a layer removes (OCI image spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Marks a directory whose lower contents a layer removes ("Opaque Whiteout").
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins names that AUFS kept for itself; readers of layers pass over them.
const AUFS: &[u8] = b".wh..wh.";
/// The one extended attribute that is kept.
const CAPABILITY: &[u8] = b"security.capability";
/// How long a file capability is (Linux `struct vfs_cap_data`, revisions 1 and 2, and `vfs_ns_cap_data`, revision 3).
const CAPABILITY_LENGTHS: [usize; 3] = [12, 20, 24];
/// The largest user or group number: the kernel takes the one above it for "none".
const LARGEST_ID: u64 = u32::MAX as u64 - 1;

/// What the layers so far took of the [`Limits`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// Lays a layer over `tree`; contents go to `staging`. `stream` is the unpacked layer, `packed` its packed size.
///
/// Reads the stream to its very end, so that its digest can be checked.
///
/// # Errors
/// If an entry is refused; the error names the layer and the entry.
pub(crate) fn apply(
    layer: &str,
    stream: impl Read,
    packed: u64,
    tree: &mut Tree,
    staging: &mut Staging<'_>,
    limits: &Limits,
    used: &mut Used,
) -> Result<()> {
    let allowed = limits.for_layer(packed, used.bytes);
    let mut lay = Lay { tree, staging, added: BTreeSet::new() };
    let mut tar = TarReader::new(Bounded { inner: stream, left: allowed, over: false });
    let result = lay.all(layer, &mut tar, limits, used);
    let mut stream = tar.into_inner();
    if result.is_ok() {
        let rest = io::copy(&mut stream, &mut io::sink());
        if !stream.over {
            rest.map_err(|e| whole(layer, e))?;
        }
    }
    used.bytes += allowed - stream.left;
    if stream.over {
        return Err(Error::Layer {
            layer: layer.to_owned(),
            why: format!(
                "it unpacks to more than {allowed} bytes, from {packed}; an image may have {} bytes unpacked, and a \
                 layer {} times its packed size",
                limits.unpacked, limits.ratio
            ),
        });
    }
    result?;
    tree.compact();
    Ok(())
}

struct Lay<'a, 'b> {
    tree: &'a mut Tree,
    staging: &'a mut Staging<'b>,
    /// What this layer itself has put, as joined paths: whiteouts don't touch it.
    added: BTreeSet<Vec<u8>>,
}

impl Lay<'_, '_> {
    fn all<R: Read>(&mut self, layer: &str, tar: &mut TarReader<R>, limits: &Limits, used: &mut Used) -> Result<()> {
        loop {
            let entry = match tar.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(TarError::Io(e)) => return Err(whole(layer, e)),
                Err(TarError::Refused { entry: None, why }) => {
                    return Err(Error::Layer { layer: layer.to_owned(), why });
                }
                Err(TarError::Refused { entry: Some(entry), why }) => return Err(at(layer, &entry, why)),
            };
            used.entries += 1;
            if used.entries > limits.entries {
                return Err(at(layer, &entry.path, format!("the image has more than {} entries", limits.entries)));
            }
            self.one(&entry, tar).map_err(|why| at(layer, &entry.path, why))?;
        }
    }

    fn one<R: Read>(&mut self, entry: &TarEntry, tar: &mut TarReader<R>) -> std::result::Result<(), String> {
        let parts = tree::parts(&entry.path)?;
        let Some((name, above)) = parts.split_last() else {
            return self.root(entry);
        };
        if above.iter().any(|part| part.as_bytes().starts_with(WHITEOUT)) {
            return Err("a directory's name begins with `.wh.`, which marks what a layer removes".into());
        }
        let name_bytes = name.as_bytes();
        if name_bytes == OPAQUE {
            return self.hide_below(above);
        }
        if name_bytes.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name_bytes.strip_prefix(WHITEOUT) {
            return self.hide(above, hidden);
        }
        let stat = stat_of(entry)?;
        match entry.kind {
            kind if kind.is_dir() => self.directory(&parts, stat),
            kind if kind.is_file() || kind.is_contiguous() => {
                self.make_room(&parts)?;
                let content = self.staging.put_file(tar.content(), entry.size).map_err(|e| e.to_string())?;
                self.leaf(&parts, stat, LeafContent::Regular(content))
            }
            kind if kind.is_symlink() => {
                let target = &entry.link;
                if target.is_empty() || target.len() > SYMLINK_MAX || target.contains(&0) {
                    return Err(format!("its target is empty, has a NUL byte, or more than {SYMLINK_MAX} bytes"));
                }
                self.make_room(&parts)?;
                self.leaf(&parts, stat, LeafContent::Symlink(OsStr::from_bytes(target).into()))
            }
            kind if kind.is_hard_link() => self.hard_link(&parts, &entry.link),
            // Nodes in /dev are in many roots made by `debootstrap` and the like, and can never be seen: a runtime
            // mounts its own /dev. Anywhere else they are no part of an image.
            _ if above.first().is_some_and(|part| part == "dev") => Ok(()),
            kind => Err(format!("it is {}, which an image must not have outside of /dev", kind_name(kind))),
        }
    }

    fn root(&mut self, entry: &TarEntry) -> std::result::Result<(), String> {
        if !entry.kind.is_dir() {
            return Err("it would replace the root, and is no directory".into());
        }
        self.tree.root.stat = stat_of(entry)?;
        Ok(())
    }

    fn directory(&mut self, parts: &[OsString], stat: Stat) -> std::result::Result<(), String> {
        let again = self.added.contains(&tree::joined(parts));
        let (name, dir) = self.place(parts)?;
        if again && matches!(dir.lookup(name), Some(Inode::Leaf(..))) {
            return Err("the layer has a file of the same name".into());
        }
        dir.merge(name, Inode::Directory(Box::new(Directory::new(stat))));
        self.added.insert(tree::joined(parts));
        Ok(())
    }

    /// Makes sure that a leaf may be put at `parts`: the layer has put nothing there yet.
    fn make_room(&mut self, parts: &[OsString]) -> std::result::Result<(), String> {
        let path = tree::joined(parts);
        if self.added.contains(&path) {
            return Err("the layer has it twice".into());
        }
        if has_below(&self.added, &path) {
            return Err("the layer has it as a directory too".into());
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        parts: &[OsString],
        stat: Stat,
        content: LeafContent<ObjectId>,
    ) -> std::result::Result<(), String> {
        let id = self.tree.push_leaf(stat, content);
        let (name, dir) = self.place(parts)?;
        dir.insert(name, Inode::leaf(id));
        self.added.insert(tree::joined(parts));
        Ok(())
    }

    fn hard_link(&mut self, parts: &[OsString], target: &[u8]) -> std::result::Result<(), String> {
        let shown = String::from_utf8_lossy(target).into_owned();
        let lead = |why: String| format!("it is a hard link to `{shown}`, which is refused: {why}");
        let target = tree::parts(target).map_err(lead)?;
        let Some((target_name, target_above)) = target.split_last() else {
            return Err(lead("that is the root".into()));
        };
        if target == parts {
            return Err(lead("that is itself".into()));
        }
        self.make_room(parts)?;
        let dir = tree::parent_of(self.tree, target_above).map_err(lead)?;
        let id = match dir.and_then(|dir| dir.lookup(target_name).map(inode_leaf)) {
            Some(Some(id)) => id,
            Some(None) => return Err(lead("that is a directory".into())),
            None => return Err(lead("there is no such file in this layer or below".into())),
        };
        let (name, dir) = self.place(parts)?;
        dir.insert(name, Inode::leaf(id));
        self.added.insert(tree::joined(parts));
        Ok(())
    }

    /// Returns the directory that `parts` lies in, made if it is missing, and the name in it.
    fn place<'p>(
        &mut self,
        parts: &'p [OsString],
    ) -> std::result::Result<(&'p OsStr, &mut Directory<ObjectId>), String> {
        let (name, above) = parts.split_last().ok_or("it is the root itself")?;
        let added = &mut self.added;
        let dir = tree::make_dirs(self.tree, above, |made| {
            added.insert(tree::joined(made));
        })?;
        Ok((name, dir))
    }

    /// Removes one entry of lower layers.
    fn hide(&mut self, above: &[OsString], name: &[u8]) -> std::result::Result<(), String> {
        if matches!(name, b"" | b"." | b"..") {
            return Err("it removes something that has no name of its own".into());
        }
        let mut path: Parts = above.to_vec();
        path.push(OsStr::from_bytes(name).to_owned());
        if self.replaced(above) {
            return Ok(());
        }
        if let Some(dir) = tree::parent_of(self.tree, above)? {
            prune(dir, OsStr::from_bytes(name), &tree::joined(&path), &self.added);
        }
        Ok(())
    }

    /// Returns whether this layer has put a file or link in the place of a directory on the way. Then nothing of lower
    /// layers is left there to be removed; `umoci` writes whiteouts below such a place all the same.
    fn replaced(&self, parts: &[OsString]) -> bool {
        (1..=parts.len()).any(|depth| {
            let here = &parts[..depth];
            self.added.contains(&tree::joined(here))
                && matches!(tree::look(self.tree, here), Some(Found::File | Found::Link(_)))
        })
    }

    /// Removes everything of lower layers in a directory.
    fn hide_below(&mut self, above: &[OsString]) -> std::result::Result<(), String> {
        let base = tree::joined(above);
        if self.replaced(above) {
            return Ok(());
        }
        if let Some(dir) = tree::parent_of(self.tree, above)? {
            prune_below(dir, &base, &self.added);
        }
        Ok(())
    }
}

fn inode_leaf(inode: &Inode<ObjectId>) -> Option<composefs::generic_tree::LeafId> {
    match inode {
        Inode::Leaf(id, _) => Some(*id),
        Inode::Directory(_) => None,
    }
}

/// Removes `name` from `dir` unless this layer has put it or something in it.
fn prune(dir: &mut Directory<ObjectId>, name: &OsStr, path: &[u8], added: &BTreeSet<Vec<u8>>) {
    match dir.lookup(name) {
        Some(Inode::Directory(_)) if has_below(added, path) || added.contains(path) => {
            if let Ok(inner) = dir.get_directory_mut(name) {
                prune_below(inner, path, added);
            }
        }
        Some(_) if added.contains(path) => {}
        Some(_) => dir.remove(name),
        None => {}
    }
}

fn prune_below(dir: &mut Directory<ObjectId>, base: &[u8], added: &BTreeSet<Vec<u8>>) {
    let names: Vec<OsString> = dir.entries().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let path = if base.is_empty() { name.as_bytes().to_vec() } else { [base, b"/", name.as_bytes()].concat() };
        prune(dir, &name, &path, added);
    }
}

/// Returns whether the layer has put something below `path`.
fn has_below(added: &BTreeSet<Vec<u8>>, path: &[u8]) -> bool {
    let below = [path, b"/"].concat();
    added.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below))
}

fn stat_of(entry: &TarEntry) -> std::result::Result<Stat, String> {
    let id = |what: &str, id: u64| {
        let fail = || format!("its {what} is {id}, beyond what the kernel takes ({LARGEST_ID})");
        if id > LARGEST_ID { Err(fail()) } else { u32::try_from(id).map_err(|_| fail()) }
    };
    let xattrs = entry.xattrs.iter().filter(|(name, _)| name.as_slice() == CAPABILITY);
    if let Some((_, value)) = xattrs.clone().find(|(_, value)| !CAPABILITY_LENGTHS.contains(&value.len())) {
        return Err(format!("its file capability has {} bytes, and none has so many", value.len()));
    }
    Ok(Stat {
        st_mode: entry.mode & 0o7777,
        st_uid: id("owner", entry.uid)?,
        st_gid: id("group", entry.gid)?,
        // A tree counts time from the epoch on; what is older is taken as the epoch.
        st_mtim_sec: entry.mtime.0.max(0),
        st_mtim_nsec: if entry.mtime.0 < 0 { 0 } else { entry.mtime.1 },
        xattrs: xattrs.map(|(k, v)| (OsStr::from_bytes(k).into(), v.clone().into_boxed_slice())).collect(),
    })
}

fn kind_name(kind: tar::EntryType) -> &'static str {
    match kind {
        tar::EntryType::Char => "a character device",
        tar::EntryType::Block => "a block device",
        tar::EntryType::Fifo => "a named pipe",
        _ => "of an unknown kind",
    }
}

fn at(layer: &str, entry: &[u8], why: impl Into<String>) -> Error {
    Error::Entry { layer: layer.to_owned(), entry: entry.escape_ascii().to_string(), why: why.into() }
}

fn whole(layer: &str, e: io::Error) -> Error {
    Error::Layer { layer: layer.to_owned(), why: format!("it can't be read: {e}") }
}

/// A stream that ends with an error when it is longer than allowed.
struct Bounded<R> {
    inner: R,
    left: u64,
    over: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                self.over = true;
                self.left = 0;
                return Err(io::Error::other("it is larger than allowed"));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_not_beside() {
        let added = BTreeSet::from([b"a-b".to_vec(), b"a/b".to_vec(), b"ab".to_vec(), b"c.d".to_vec()]);
        let check = |path: &str, expected: bool| assert_eq!(has_below(&added, path.as_bytes()), expected, "{path}");
        check("a", true);
        check("a/b", false);
        check("c", false);
        check("ab", false);
    }
}
