//! What goes between the depot and registries: blobs by their digests.

use std::fs::File;

use basalt_model::Digest;

use crate::depot::Depot;
use crate::error::Result;
use crate::record::ImageRecord;

impl Depot {
    /// Returns whether a blob (a manifest, configuration or layer as it came) is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.store().blob(digest).is_file()
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// If it is not here or can't be read.
    pub fn open_blob(&self, digest: &Digest) -> std::io::Result<File> {
        File::open(self.store().blob(digest))
    }

    /// Notes where an image came from, for people, where it was brought here in more than one step.
    ///
    /// # Errors
    /// If the image is not here, or the depot can't be written.
    pub fn set_origin(&self, digest: &Digest, origin: &str) -> Result<()> {
        let _lock = self.store().lock()?;
        let record = self.record(digest)?;
        self.store().write_record("images", digest, &ImageRecord { origin: origin.to_owned(), ..record })
    }
}
