//! `[journal]`: where answers of rotating providers are kept until they are committed.

use std::path::{Path, PathBuf};

use super::reader::Reader;

/// The journal of answers from rotating providers.
#[derive(Clone, Debug)]
pub struct Journal {
    /// A writable folder of this replica's own, on a disk that survives a restart.
    pub dir: PathBuf,
}

impl Journal {
    pub(super) fn read(reader: &mut Reader, data_dir: &Path) -> Self {
        let dir = reader.optional_path("journal.dir");
        Self {
            dir: dir.unwrap_or_else(|| data_dir.join("journal")),
        }
    }
}
