//! How much an image may be.

/// How much an image may be. Whoever made it may be hostile: a few kilobytes can unpack to terabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers together, unpacked.
    pub unpacked: u64,
    /// Entries of all layers together.
    pub entries: u64,
    /// Unpacked bytes of a layer for each of its packed bytes, beyond [`Limits::free`].
    pub ratio: u64,
    /// Unpacked bytes of a layer that are allowed at any ratio.
    pub free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The largest images in use (GPU frameworks) have about 25 GiB.
            unpacked: 64 << 30,
            // A full desktop system has about 400,000 files; a tree of a million takes about 400 MiB of memory.
            entries: 1_000_000,
            // Text packs 5 to 20 times, sparse disk images rarely above 100; a bomb packs 1,000 times and more.
            ratio: 200,
            // Small layers may be mostly zeros; a gibibyte does no harm.
            free: 1 << 30,
        }
    }
}

impl Limits {
    /// Returns how many bytes a layer of `packed` bytes may unpack to, after `before` bytes of earlier layers.
    pub(crate) fn for_layer(&self, packed: u64, before: u64) -> u64 {
        let by_ratio = self.free.saturating_add(packed.saturating_mul(self.ratio));
        by_ratio.min(self.unpacked.saturating_sub(before))
    }
}

/// The longest PAX header, GNU long name or the like: extended attributes have at most 64 KiB each (Linux xattr(7)).
pub(crate) const LONGEST_EXTENSION: u64 = 1 << 20;

/// The longest name of a file (Linux NAME_MAX).
pub(crate) const LONGEST_NAME: usize = 255;

/// The longest path, and the longest path in the kernel's calls (Linux PATH_MAX, less the NUL).
pub(crate) const LONGEST_PATH: usize = 4095;

/// The deepest nesting of directories: no known image exceeds 60, and trees are walked recursively.
pub(crate) const DEEPEST: usize = 256;

/// The most symbolic links followed for one path (Linux MAXSYMLINKS).
pub(crate) const MOST_LINKS: usize = 40;
