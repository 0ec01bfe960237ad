//! The refresh journal: the answer of a provider that rotates refresh tokens, on the disk before
//! the database is asked to keep it.
//!
//! Such a provider has forgotten the old refresh token by the time it answers. If the answer were
//! lost between the socket and the commit, the user would have to connect anew. So it is sealed
//! into a file of its own first, and the file is removed when the commit is certain. What is found
//! at start-up is replayed; the write to the database is a compare-and-set on the generation, so
//! replaying what was committed changes nothing.

mod entry;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use entry::Entry;

use crate::crypto::{self, Keyring, digest, private_file, random};

/// How the names of entries end.
const SEALED: &str = ".sealed";

/// What is appended to the name of an entry that does not open.
const UNREADABLE: &str = ".unreadable";

/// A file of more bytes than this is no entry: a provider's answer is limited to far less.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Bytes that the probe writes: more than most entries need.
const PROBE_BYTES: usize = 4096;

/// An unfinished file of this age is left over from a process that died. Younger ones are left
/// alone: another process that was given the same folder by mistake may be writing them.
const UNFINISHED_AGE: Duration = Duration::from_secs(600);

/// The journal's folder and the keys that it seals with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: Arc<Path>,
    keyring: Keyring,
}

/// The handle of an entry on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    name: String,
}

/// Why the journal cannot be used. No text holds what an entry holds.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder can't be made or written. No refresh token may be spent while that is so.
    #[error(
        "the refresh journal's folder {} cannot be written: {cause}; give tokenbroker a folder of its own there that it may write, on a disk with space left",
        folder.display()
    )]
    NotWritable {
        /// The journal's folder.
        folder: PathBuf,
        /// The file system's answer.
        cause: io::Error,
    },
    /// A file of the journal can't be written, read or removed.
    #[error("the refresh journal cannot be {action} at {}: {cause}", path.display())]
    Io {
        /// What was being done, a past participle: "written", "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The file system's answer.
        cause: io::Error,
    },
    /// The grant's id can't be part of a file name.
    #[error("a grant id of the refresh journal may have only ASCII letters, digits, '_' and '-'")]
    GrantId,
    /// The entry could not be sealed.
    #[error("the refresh journal cannot seal an entry: {0}")]
    Seal(crypto::Error),
    /// The entry could not be put into JSON.
    #[error("the refresh journal cannot encode an entry")]
    Encode,
    /// The runtime is shutting down and ran the work no more.
    #[error("the refresh journal was stopped by shutdown")]
    Stopped,
}

impl Journal {
    /// Opens the journal in `folder`, which is made (for its owner alone) when it is missing and
    /// is proven to be writable. Sweeps what processes that died left unfinished. Meant for
    /// start-up: it blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`JournalError::NotWritable`].
    pub fn open(folder: impl Into<PathBuf>, keyring: Keyring) -> Result<Self, JournalError> {
        let folder = folder.into();
        private_file::create_folder(&folder)
            .and_then(|()| try_write(&folder))
            .and_then(|()| sweep(&folder))
            .map_err(|cause| JournalError::NotWritable {
                folder: folder.clone(),
                cause,
            })?;
        Ok(Self {
            folder: folder.into(),
            keyring,
        })
    }

    /// Proves that the folder can be written, by writing a file and removing it. Asked before a
    /// refresh token is spent: afterwards it would be too late.
    ///
    /// # Errors
    /// [`JournalError::NotWritable`], or [`JournalError::Stopped`].
    pub async fn probe(&self) -> Result<(), JournalError> {
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            try_write(&folder).map_err(|cause| JournalError::NotWritable {
                folder: folder.to_path_buf(),
                cause,
            })
        })
        .await
    }

    /// Seals an entry and writes it. When this returns, the entry survives a power cut. Once it
    /// was polled for the first time, dropping the future does not stop the write.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the disk refuses; a later start may find the entry or not.
    pub async fn write(&self, entry: &Entry) -> Result<Written, JournalError> {
        let bytes = entry.seal(&self.keyring)?;
        let unique = digest::hex(&random::random_bytes::<8>());
        let written = Written {
            name: format!("{}.{}.{unique}{SEALED}", entry.grant_id, entry.generation),
        };
        let path = self.folder.join(&written.name);
        blocking(move || {
            private_file::replace(&path, &bytes).map_err(|cause| io_error("written", &path, cause))
        })
        .await?;
        Ok(written)
    }

    /// Removes an entry whose result is committed. One that is gone already is no error. The
    /// removal is not waited for: an entry that comes back after a power cut is replayed in vain.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the disk refuses.
    pub async fn remove(&self, written: &Written) -> Result<(), JournalError> {
        let path = self.folder.join(&written.name);
        blocking(move || match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(io_error("removed", &path, cause))
            }
            _ => Ok(()),
        })
        .await
    }

    /// All entries, the one sent first first.
    ///
    /// A file that does not open is kept, renamed to end with `.unreadable`, and logged. It is
    /// tried again each time, so an entry whose key was missing is found once the key is back.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the folder or a file in it can't be read.
    pub async fn entries(&self) -> Result<Vec<(Written, Entry)>, JournalError> {
        let journal = self.clone();
        blocking(move || journal.read_all()).await
    }

    fn read_all(&self) -> Result<Vec<(Written, Entry)>, JournalError> {
        let mut found = Vec::new();
        let names = names(&self.folder).map_err(|cause| io_error("read", &self.folder, cause))?;
        for name in names {
            let set_aside = name.ends_with(UNREADABLE);
            if !set_aside && !name.ends_with(SEALED) {
                continue;
            }
            let path = self.folder.join(&name);
            let bytes = match read_bounded(&path) {
                Ok(bytes) => bytes,
                // Removed meanwhile: its result is committed.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(io_error("read", &path, cause)),
            };
            match Entry::unseal(&self.keyring, &bytes) {
                Ok(entry) => found.push((Written { name }, entry)),
                Err(error) => {
                    tracing::warn!(
                        file = %name,
                        %error,
                        "an entry of the refresh journal does not open and is kept for a later start; \
                         if a sealing key was taken away, give it again and restart, else the grant \
                         may have to be authorised again"
                    );
                    if !set_aside {
                        let aside = self.folder.join(format!("{name}{UNREADABLE}"));
                        fs::rename(&path, aside)
                            .map_err(|cause| io_error("renamed", &path, cause))?;
                    }
                }
            }
        }
        found.sort_by(|(one, first), (other, second)| {
            (first.tokens.sent_at, first.generation, &one.name).cmp(&(
                second.tokens.sent_at,
                second.generation,
                &other.name,
            ))
        });
        Ok(found)
    }
}

/// Writes a file as an entry is written, and removes it.
fn try_write(folder: &Path) -> io::Result<()> {
    let unique = digest::hex(&random::random_bytes::<8>());
    let path = folder.join(format!(".probe-{unique}{}", private_file::UNFINISHED));
    private_file::write_new(&path, &[0; PROBE_BYTES])?;
    fs::remove_file(&path)
}

/// Removes unfinished files of processes that died.
fn sweep(folder: &Path) -> io::Result<()> {
    for name in names(folder)? {
        if !name.ends_with(private_file::UNFINISHED) {
            continue;
        }
        let path = folder.join(&name);
        let age = fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| modified.elapsed().ok());
        if age.is_some_and(|age| age >= UNFINISHED_AGE) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Names in `folder`. Those that are not UTF-8 are not ours.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in fs::read_dir(folder)? {
        if let Ok(name) = item?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// The first 4 MiB of a file; what is longer does not open.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(FILE_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn io_error(action: &'static str, path: &Path, cause: io::Error) -> JournalError {
    JournalError::Io {
        action,
        path: path.to_owned(),
        cause,
    }
}

/// Runs file work off the asynchronous threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| JournalError::Stopped)?
}

#[cfg(test)]
mod tests;
