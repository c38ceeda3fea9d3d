//! Writing an image as an OCI archive, for other tools to read.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use basalt_model::Digest;
use basalt_model::manifest::{Descriptor, OCI_INDEX};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::depot::Depot;
use crate::error::{Result, io};
use crate::manifest::REF_NAME;
use crate::progress::{Progress, Reporting};

impl Depot {
    /// Writes an image to `file` as an OCI archive (a tar of an OCI image layout), under `tag` if one is given. The same
    /// image gives the same bytes. The file appears whole or not at all.
    ///
    /// # Errors
    /// If the image is not here or the file can't be written.
    pub fn export(&self, digest: &Digest, file: &Path, tag: Option<&str>, progress: &dyn Progress) -> Result<()> {
        let _lock = self.store().lock()?;
        let record = self.record(digest)?;
        let (manifest, _) = self.documents(digest, &record)?;
        let size = fs::metadata(self.store().blob(digest)).map_err(io("read", &self.store().blob(digest)))?.len();
        let mut entry = Descriptor::new(&manifest.media_type, *digest, size);
        if let Some(tag) = tag {
            entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] });

        let dir = match file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let unfinished = tempfile::NamedTempFile::new_in(dir).map_err(io("create a file in", dir))?;
        let mut tar = Builder::new(BufWriter::with_capacity(128 << 10, unfinished));
        let mut put = |name: &str, content: &mut dyn Read, size: u64| {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(size);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            tar.append_data(&mut header, name, content).map_err(io("write", file))
        };
        let mut short = |name: &str, bytes: &[u8]| put(name, &mut &bytes[..], bytes.len() as u64);
        short("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        short("index.json", &basalt_model::canonical_bytes(&index))?;
        let blobs: BTreeSet<&Digest> = [digest, &record.config].into_iter().chain(&record.layers).collect();
        for blob in blobs {
            let path = self.store().blob(blob);
            let content = File::open(&path).map_err(io("open", &path))?;
            let size = content.metadata().map_err(io("read", &path))?.len();
            let what = format!("write {}", blob.short());
            let mut content = Reporting::new(content, progress, &what, Some(size));
            put(&format!("blobs/sha256/{}", blob.to_hex()), &mut content, size)?;
        }
        let mut buffered = tar.into_inner().map_err(io("write", file))?;
        buffered.flush().map_err(io("write", file))?;
        let unfinished = buffered.into_inner().map_err(|e| io("write", file)(e.into_error()))?;
        unfinished.as_file().sync_all().map_err(io("sync", file))?;
        // A temporary file is 0600; an image that was asked for is for whoever the umask allows.
        let mode = 0o666 & !umask();
        fs::set_permissions(unfinished.path(), std::os::unix::fs::PermissionsExt::from_mode(mode))
            .map_err(io("write", file))?;
        unfinished.persist(file).map_err(|e| io("write", file)(e.error))?;
        Ok(())
    }
}

/// Returns the umask, from procfs: asking the kernel by the system call would change it for other threads.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o077)
}
