//! What can go wrong with keys and envelopes. No text here holds a secret, nor anything that
//! an operator could have typed in the place of one.

use std::path::PathBuf;

/// Why a value could not be sealed or opened, or why the keys could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keyring would be empty.
    #[error("no sealing key is given: give at least one key, or a key file")]
    NoKeys,
    /// Several keys are given and none is named as the active one.
    #[error("several sealing keys are given: name the one to seal with as the active key")]
    ActiveUnset,
    /// The active key is not among the keys.
    #[error(
        "the active sealing key {id:?} is not among the keys given: add it, or name another as active"
    )]
    ActiveMissing {
        /// The id that was named as active.
        id: String,
    },
    /// A key id has a form that envelopes cannot hold. The id is left out of the text: whoever
    /// swaps an id and a key would read the key in a log.
    #[error(
        "a sealing key's id is not valid: use 1 to 32 ASCII letters, digits, '-' and '_' (key ids are not shown here in case one holds a key)"
    )]
    KeyId,
    /// Two keys carry one id.
    #[error("the sealing key {id:?} is given twice: give each key an id of its own")]
    KeyRepeated {
        /// The repeated id.
        id: String,
    },
    /// A key is not 32 bytes in base64.
    #[error(
        "the sealing key {id:?} is not 32 bytes in base64: make one with `openssl rand -base64 32`"
    )]
    KeyText {
        /// The id of the key at fault.
        id: String,
    },
    /// An envelope was sealed with a key that this keyring does not hold.
    #[error(
        "the value is sealed with key {id:?}, which is not among the keys given: give that key again beside the active one"
    )]
    UnknownKey {
        /// The id that the envelope names.
        id: String,
    },
    /// The envelope does not open under the key that it names.
    #[error(
        "the sealed value does not open: it was altered, moved from another row or column, or sealed with a different key of the same id"
    )]
    Damaged,
    /// The bytes are not an envelope, or one of a version that this program does not know.
    #[error(
        "the bytes are not a sealed value of a known version: they were cut short, or a newer release wrote them"
    )]
    Malformed,
    /// The envelope opened, and what it holds is not UTF-8 text.
    #[error("the sealed value is not text")]
    NotText,
    /// The plaintext is longer than the cipher admits (256 GiB).
    #[error("the value is too long to seal")]
    TooLong,
    /// A password could not be hashed, or a stored hash is none of Argon2id.
    #[error("Argon2id failed: {0}")]
    Password(String),
    /// The key file could not be made or used.
    #[error("key file {}: {fault}", path.display())]
    KeyFile {
        /// Where the file is or was to be.
        path: PathBuf,
        /// What is the matter with it.
        fault: KeyFileFault,
    },
}

/// What is the matter with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileFault {
    /// There is no such file.
    #[error(
        "it does not exist: restore it from its backup, since nothing sealed with its keys opens without it, or correct the path"
    )]
    Missing,
    /// There is a file already where one was to be made.
    #[error("it exists already and is never overwritten: use it, or name another path")]
    Exists,
    /// Others than its owner may read it.
    #[error(
        "others than its owner may use it (mode {mode:04o}): run `chmod 600` on it, and make a new key if somebody may have read it"
    )]
    Exposed {
        /// The permission bits of the file.
        mode: u32,
    },
    /// The file is empty, as a start leaves it that is cut off before the key is written.
    #[error(
        "it is empty: if nothing was sealed yet, remove it and start again, else restore it from its backup"
    )]
    Empty,
    /// The file is not the TOML that is expected. The parser's own words would quote the line,
    /// and with it the key.
    #[error(
        "line {line} is not what is expected, `active = \"<key id>\"` and `[keys]` with `<key id> = \"<base64>\"` lines"
    )]
    Syntax {
        /// The line at fault, counted from 1.
        line: usize,
    },
    /// The file was read, and its keys cannot be used.
    #[error("{0}")]
    Keys(Box<Error>),
    /// The file system refused.
    #[error("it cannot be {action}: {cause}")]
    Io {
        /// What was being done, a past participle: "read", "written".
        action: &'static str,
        /// The file system's answer.
        cause: std::io::Error,
    },
}
