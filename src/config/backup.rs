//! `[backup]`: where backups go.

use std::path::PathBuf;

use super::reader::Reader;

/// Where backups go.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The folder that `backup` writes to and `list-backups` and `restore` read.
    pub dir: PathBuf,
}

impl Backup {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            dir: reader.path("backup.dir"),
        }
    }
}
