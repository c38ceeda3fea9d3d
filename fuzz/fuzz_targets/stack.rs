//! Stack files of each kind: they end in a stack or in faults, and formatting is done once.
#![no_main]

use std::io;
use std::path::{Path, PathBuf};

use basalt_stackfile::{Files, Inputs, format, load_from, render};
use libfuzzer_sys::fuzz_target;

/// One file, which is also the template and the module that it may name.
struct One<'t>(&'t [u8]);

impl Files for One<'_> {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.to_vec())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn is_folder(&self, _: &Path) -> bool {
        false
    }
    fn exists(&self, _: &Path) -> bool {
        true
    }
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let path = ["/s/x.hcl", "/s/x.yaml", "/s/x.json"][usize::from(*kind) % 3];
    let loaded = load_from(&One(text), Path::new(path), &Inputs::default());
    assert_eq!(loaded.stack.is_none(), loaded.has_errors());
    render(&loaded, false);
    if let Ok(text) = std::str::from_utf8(text)
        && let Some(once) = format(text)
    {
        assert_eq!(format(&once).as_ref(), Some(&once));
    }
});
