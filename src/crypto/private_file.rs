//! Files that only their owner may read, written so that a power cut leaves either the whole
//! file or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{digest, random};

/// How the name of a file ends that is not yet complete.
pub const UNFINISHED: &str = ".unfinished";

/// Makes `folder` and those above it where they are missing, usable by their owner alone.
/// A folder that exists keeps its permissions: it may not be ours to change.
///
/// # Errors
/// What the file system answers.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Writes a file of mode 0600 that must not exist yet, and waits until it is on the disk, its
/// name in the folder included. Removes what it began when it fails.
///
/// # Errors
/// `AlreadyExists` when there is such a file, else what the file system answers.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fill_new(path, bytes)?;
    sync_folder(folder_of(path)).inspect_err(|_| discard(path))
}

/// Puts `bytes` in the place of `path`, whether or not there is such a file, with mode 0600:
/// written beside it, waited for, then renamed. Returns when the rename too is on the disk.
///
/// # Errors
/// What the file system answers; what was at `path` before is then still there, except when
/// only the last wait failed.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = unfinished_beside(path);
    fill_new(&unfinished, bytes)?;
    fs::rename(&unfinished, path).inspect_err(|_| discard(&unfinished))?;
    sync_folder(folder_of(path))
}

/// A path in the folder of `path` that nobody else uses, and that says that it is not complete.
fn unfinished_beside(path: &Path) -> PathBuf {
    let name = digest::hex(&random::random_bytes::<8>());
    folder_of(path).join(format!(".{name}{UNFINISHED}"))
}

fn fill_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .inspect_err(|_| discard(path))
}

/// Removes what a failed attempt left. If even that fails, the failure that is reported already
/// says more.
fn discard(path: &Path) {
    let _ = fs::remove_file(path);
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Waits until the names in `folder` are on the disk.
///
/// # Errors
/// What the file system answers.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Folders can't be opened as files here; the file's own wait is what there is.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_never_an_old_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        write_new(&path, b"first").unwrap();
        let error = write_new(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        replace(&path, b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("above").join("folder");
        create_folder(&folder).unwrap();
        let path = folder.join("file");
        replace(&path, b"bytes").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&path), 0o600);
    }
}
