//! Ways in for the fuzzer, which are in no other build: what a hostile image can say, without the file system around it.

use std::cell::RefCell;
use std::io::Read;

use crate::config::Config;
use crate::depot::Depot;
use crate::layer::{self, Used};
use crate::limits::Limits;
use crate::manifest::{self, Packing};
use crate::mounts;
use crate::staging::Staging;
use crate::store::Store;
use crate::{erofs, tree};
use basalt_model::manifest::{Document, OCI_INDEX, OCI_MANIFEST};

/// Small, so that every limit is within reach of a fuzzer.
const LIMITS: Limits = Limits { unpacked: 4 << 20, entries: 500, ratio: 50, free: 1 << 20 };

thread_local! {
    static STORE: RefCell<Option<(tempfile::TempDir, Store)>> = const { RefCell::new(None) };
}

/// Lays one or two layers over an empty tree. The first byte says how the input is packed and where it is cut in two.
///
/// # Panics
/// If what was taken can't be written as EROFS and read again, or is another tree the second time.
pub fn unpack(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let packing = [Packing::None, Packing::Gzip, Packing::Zstd, Packing::None][usize::from(how & 3)];
    let cut = if how & 4 == 0 { data.len() } else { data.len() / 2 / 512 * 512 };
    STORE.with_borrow_mut(|slot| {
        let (_, store) = slot.get_or_insert_with(|| {
            let dir = tempfile::tempdir_in("/dev/shm").expect("the fuzzer needs /dev/shm");
            let store = Store::open(dir.path()).expect("a new depot");
            (dir, store)
        });
        let layers = [&data[..cut], &data[cut..]];
        let first = lay(store, &layers, packing);
        assert_eq!(first, lay(store, &layers, packing), "the same layers gave another tree");
    });
}

/// Returns the bytes of the tree, or what was refused.
fn lay(store: &Store, layers: &[&[u8]], packing: Packing) -> Result<Vec<u8>, String> {
    let mut staging = Staging::new(store).map_err(|e| e.to_string())?;
    let mut tree = tree::empty();
    let mut used = Used::default();
    for bytes in layers.iter().filter(|bytes| !bytes.is_empty()) {
        let stream = packing.unpack(*bytes).map_err(|e| e.to_string())?;
        let stream: Box<dyn Read> = Box::new(stream);
        layer::apply("fuzz", stream, bytes.len() as u64, &mut tree, &mut staging, &LIMITS, &mut used)
            .map_err(|e| e.to_string())?;
    }
    mounts::add_standard(&mut tree).map_err(|e| e.to_string())?;
    Ok(erofs::round_trip(tree).expect("what was taken can be written and read"))
}

/// Reads a document as each kind that it may be.
pub fn manifest(data: &[u8]) {
    for media_type in ["", OCI_MANIFEST, OCI_INDEX] {
        if let Ok(Document::Manifest(manifest)) = manifest::parse("fuzz", data, media_type) {
            manifest.layers.iter().for_each(|layer| drop(Packing::of(layer)));
        }
    }
    if let Ok(config) = Config::parse("fuzz", data) {
        drop((config.diff_ids("fuzz"), config.check_platform("fuzz"), config.process()));
    }
}

/// Imports the bytes as an archive of either kind.
pub fn archive(data: &[u8]) {
    STORE.with_borrow_mut(|slot| {
        let (dir, _) = slot.get_or_insert_with(|| {
            let dir = tempfile::tempdir_in("/dev/shm").expect("the fuzzer needs /dev/shm");
            let store = Store::open(dir.path()).expect("a new depot");
            (dir, store)
        });
        let file = dir.path().join("a.tar");
        std::fs::write(&file, data).expect("the archive");
        let depot = Depot::open(&dir.path().join("depot")).expect("a depot").with_limits(LIMITS);
        for kind in ["oci-archive", "docker-archive"] {
            drop(depot.import(&format!("{kind}:{}", file.display()), &|_: &str, _: u64, _: Option<u64>| {}));
        }
    });
}
