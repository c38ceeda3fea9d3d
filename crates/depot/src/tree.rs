//! The tree of an image in memory, and how paths are found in it.
//!
//! Two ways, on purpose: entries of a layer name a place exactly ([`parent_of`] refuses symbolic links on the way), while
//! people and stacks name a place as a program in the image would ([`resolve`] follows them, inside the root).

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use composefs::fsverity::Sha256HashValue;
use composefs::generic_tree::Stat;
use composefs::tree::{Directory, FileSystem, Inode, LeafContent, RegularFile};

use crate::limits::{DEEPEST, LONGEST_NAME, LONGEST_PATH, MOST_LINKS};

/// The name of an object: its fs-verity digest (SHA-256, blocks of 4 KiB).
pub(crate) type ObjectId = Sha256HashValue;
/// The tree of an image.
pub(crate) type Tree = FileSystem<ObjectId>;
/// A path as its parts; the root has none.
pub(crate) type Parts = Vec<OsString>;

/// Returns an empty tree.
pub(crate) fn empty() -> Tree {
    Tree::new(stat(0o755))
}

/// Returns what belongs to root, from the epoch, with these permission bits.
pub(crate) fn stat(mode: u32) -> Stat {
    Stat { st_mode: mode, st_uid: 0, st_gid: 0, st_mtim_sec: 0, st_mtim_nsec: 0, xattrs: BTreeMap::new() }
}

/// Cuts a path into its parts; a leading `/` and `.` are dropped.
///
/// # Errors
/// A sentence, if the path has `..` or a NUL, or is too long or too deep.
pub(crate) fn parts(path: &[u8]) -> Result<Parts, String> {
    if path.len() > LONGEST_PATH {
        return Err(format!("its path has more than {LONGEST_PATH} bytes"));
    }
    let mut parts = Parts::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its path has `..`, which could lead out of the root".into()),
            _ if part.contains(&0) => return Err("its path has a NUL byte".into()),
            _ if part.len() > LONGEST_NAME => {
                return Err(format!("a part of its path has more than {LONGEST_NAME} bytes"));
            }
            _ => parts.push(OsString::from_vec(part.to_vec())),
        }
    }
    if parts.len() > DEEPEST { Err(format!("it lies more than {DEEPEST} directories deep")) } else { Ok(parts) }
}

/// Writes parts as an absolute path, for people.
pub(crate) fn show(parts: &[OsString]) -> String {
    format!("/{}", String::from_utf8_lossy(&joined(parts)))
}

/// Joins parts with `/`, without one in front.
pub(crate) fn joined(parts: &[OsString]) -> Vec<u8> {
    parts.join(OsStr::new("/")).into_vec()
}

/// What is at a place.
pub(crate) fn look<'a>(tree: &'a Tree, parts: &[OsString]) -> Option<Found<'a>> {
    let Some((name, above)) = parts.split_last() else {
        return Some(Found::Directory);
    };
    let mut dir = &tree.root;
    for part in above {
        match dir.lookup(part) {
            Some(Inode::Directory(inner)) => dir = inner,
            _ => return None,
        }
    }
    Some(match dir.lookup(name)? {
        Inode::Directory(_) => Found::Directory,
        Inode::Leaf(id, _) => match &tree.leaf(*id).content {
            LeafContent::Symlink(target) => Found::Link(target),
            _ => Found::File,
        },
    })
}

/// What is at a place.
pub(crate) enum Found<'a> {
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Link(&'a OsStr),
    /// A file (or what a file can't be told from here).
    File,
}

/// Returns the directory at `parts` exactly, making what is missing (0755, root's), and tells each that is made.
///
/// # Errors
/// A sentence, if a part is a file or a symbolic link.
pub(crate) fn make_dirs<'a>(
    tree: &'a mut Tree,
    parts: &[OsString],
    mut made: impl FnMut(&[OsString]),
) -> Result<&'a mut Directory<ObjectId>, String> {
    let leaves = &tree.leaves;
    let mut dir = &mut tree.root;
    for (depth, part) in parts.iter().enumerate() {
        let here = &parts[..=depth];
        match dir.lookup(part) {
            Some(Inode::Directory(_)) => {}
            Some(Inode::Leaf(id, _)) => {
                let what = match &leaves[id.0].content {
                    LeafContent::Symlink(_) => "a symbolic link",
                    _ => "a file",
                };
                return Err(format!("`{}` on its way is {what}, not a directory", show(here)));
            }
            None => {
                dir.insert(part, Inode::Directory(Box::new(Directory::new(stat(0o755)))));
                made(here);
            }
        }
        // It was there as a directory or has just been put there.
        dir = dir.get_directory_mut(part).map_err(|e| e.to_string())?;
    }
    Ok(dir)
}

/// Returns the directory at `parts` exactly if it is there.
///
/// # Errors
/// A sentence, if a part is a file or a symbolic link.
pub(crate) fn parent_of<'a>(
    tree: &'a mut Tree,
    parts: &[OsString],
) -> Result<Option<&'a mut Directory<ObjectId>>, String> {
    for depth in 0..parts.len() {
        match look(tree, &parts[..=depth]) {
            Some(Found::Directory) => {}
            None => return Ok(None),
            Some(Found::Link(_)) => {
                return Err(format!("`{}` on its way is a symbolic link", show(&parts[..=depth])));
            }
            Some(Found::File) => return Err(format!("`{}` on its way is a file", show(&parts[..=depth]))),
        }
    }
    let mut dir = &mut tree.root;
    for part in parts {
        dir = dir.get_directory_mut(part).map_err(|e| e.to_string())?;
    }
    Ok(Some(dir))
}

/// Returns where `path` leads for a program whose root is the tree: symbolic links on the way are followed, and the last
/// part too if `follow_last`. What is missing is taken as a plain name.
///
/// # Errors
/// A sentence, if a file is on the way or links go in circles.
pub(crate) fn resolve(tree: &Tree, path: &[u8], follow_last: bool) -> Result<Parts, String> {
    let mut left: VecDeque<OsString> = parts(path)?.into();
    let mut at = Parts::new();
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        match look(tree, &at) {
            Some(Found::Link(target)) if follow_last || !left.is_empty() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(format!("more than {MOST_LINKS} symbolic links on its way: they may go in circles"));
                }
                let target = target.as_bytes();
                at.pop();
                if target.starts_with(b"/") {
                    at.clear();
                }
                let steps = target.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
                for step in steps.rev() {
                    left.push_front(OsString::from_vec(step.to_vec()));
                }
            }
            Some(Found::File) if !left.is_empty() => {
                return Err(format!("`{}` on its way is a file", show(&at)));
            }
            _ => {}
        }
        if at.len() + left.len() > DEEPEST {
            return Err(format!("it leads more than {DEEPEST} directories deep"));
        }
    }
    Ok(at)
}

/// Puts an empty file (0644, root's) at `parts` exactly; its directory must be there.
pub(crate) fn put_empty_file(tree: &mut Tree, parts: &[OsString]) -> Result<(), String> {
    let content = LeafContent::Regular(RegularFile::Inline(Box::default()));
    put_leaf(tree, parts, stat(0o644), content)
}

/// Puts a leaf at `parts` exactly, in the place of what is there; its directory must be there.
pub(crate) fn put_leaf(
    tree: &mut Tree,
    parts: &[OsString],
    stat: Stat,
    content: LeafContent<ObjectId>,
) -> Result<(), String> {
    let (name, above) = parts.split_last().ok_or("it is the root itself")?;
    let id = tree.push_leaf(stat, content);
    let dir = parent_of(tree, above)?.ok_or("its directory is missing")?;
    dir.insert(name, Inode::leaf(id));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = empty();
        make_dirs(&mut tree, &parts(b"/usr/bin").unwrap(), |_| {}).unwrap();
        let mut link = |path: &str, to: &str| {
            let target = LeafContent::Symlink(OsStr::new(to).into());
            put_leaf(&mut tree, &parts(path.as_bytes()).unwrap(), stat(0o777), target).unwrap();
        };
        link("/bin", "usr/bin");
        link("/abs", "/usr");
        link("/up", "../../../../usr");
        link("/loop", "loop");
        link("/usr/back", "../abs/bin");
        put_empty_file(&mut tree, &parts(b"/file").unwrap()).unwrap();
        tree
    }

    #[test]
    fn paths_are_cut() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(parts(path.as_bytes()).ok().map(|p| show(&p)).as_deref(), expected, "{path}");
        };
        check("/", Some("/"));
        check("", Some("/"));
        check("./a//b/", Some("/a/b"));
        check("../a", None);
        check("a/../b", None);
        check("a\0b", None);
        check(&"a".repeat(256), None);
        check(&"a/".repeat(257), None);
        check(&"a/".repeat(3000), None);
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let tree = tree();
        let check = |path: &str, expected: Result<&str, &str>| match (resolve(&tree, path.as_bytes(), true), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(show(&found), expected, "{path}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{path}: {why}"),
            (found, _) => panic!("{path}: {found:?}"),
        };
        check("/bin/sh", Ok("/usr/bin/sh"));
        check("/abs/bin", Ok("/usr/bin"));
        check("/up/new", Ok("/usr/new"));
        check("/usr/back/x", Ok("/usr/bin/x"));
        check("/not/there", Ok("/not/there"));
        check("/loop/x", Err("circles"));
        check("/file/x", Err("is a file"));
        assert_eq!(show(&resolve(&tree, b"/bin", false).unwrap()), "/bin");
    }

    #[test]
    fn exact_paths_refuse_links() {
        let mut tree = tree();
        assert!(parent_of(&mut tree, &parts(b"/bin").unwrap()).unwrap_err().contains("symbolic link"));
        assert!(make_dirs(&mut tree, &parts(b"/bin/x").unwrap(), |_| {}).unwrap_err().contains("symbolic link"));
        assert!(parent_of(&mut tree, &parts(b"/none").unwrap()).unwrap().is_none());
    }
}
