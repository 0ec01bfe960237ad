//! An entry of the refresh journal and the form of its file.
//!
//! A file is one line of JSON, `{"v":1,"tenant":"…","row":"<grant id>:<generation>"}`, and then
//! the envelope. The line is readable because the seal covers what it says: tenant and row are
//! needed to open the envelope, and altering them makes it open no more.

use serde::{Deserialize, Serialize};

use super::JournalError;
use crate::broker::token_set::TokenSet;
use crate::crypto::{self, Context, Keyring, Purpose};

/// Version of the file's form.
const VERSION: u8 = 1;

/// Longest grant id in bytes, so that the file's name stays within what file systems take.
const GRANT_ID_MAX: usize = 128;

/// One provider's answer to a refresh.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The tenant of the grant.
    pub tenant: String,
    /// The grant that was refreshed: ASCII letters, digits, `_` and `-`.
    pub grant_id: String,
    /// The generation that was spent to get this answer.
    pub generation: i64,
    /// What the provider answered.
    pub tokens: TokenSet,
}

impl Entry {
    /// The bytes of the entry's file.
    ///
    /// # Errors
    /// [`JournalError::GrantId`], [`JournalError::Seal`] or [`JournalError::Encode`].
    pub(super) fn seal(&self, keyring: &Keyring) -> Result<Vec<u8>, JournalError> {
        if !is_file_name_part(&self.grant_id) {
            return Err(JournalError::GrantId);
        }
        let row = format!("{}:{}", self.grant_id, self.generation);
        let body = self.tokens.to_json().map_err(|_| JournalError::Encode)?;
        let context = Context {
            tenant: &self.tenant,
            purpose: Purpose::RefreshJournal,
            row: &row,
        };
        let sealed = keyring.seal(&context, &body).map_err(JournalError::Seal)?;
        let header = Header {
            v: VERSION,
            tenant: self.tenant.clone(),
            row: row.clone(),
        };
        let mut bytes = serde_json::to_vec(&header).map_err(|_| JournalError::Encode)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(sealed.as_bytes());
        Ok(bytes)
    }

    /// The entry of a file's bytes.
    ///
    /// # Errors
    /// [`crypto::Error`]: the bytes are no entry, were altered, or their key is not known.
    pub(super) fn unseal(keyring: &Keyring, bytes: &[u8]) -> Result<Self, crypto::Error> {
        let malformed = || crypto::Error::Malformed;
        let end = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(malformed)?;
        let (line, rest) = bytes.split_at_checked(end).ok_or_else(malformed)?;
        let envelope = rest.get(1..).ok_or_else(malformed)?;
        let header: Header = serde_json::from_slice(line).map_err(|_| malformed())?;
        let (grant_id, generation) = header.row.rsplit_once(':').ok_or_else(malformed)?;
        let generation = generation.parse().map_err(|_| malformed())?;
        if header.v != VERSION {
            return Err(malformed());
        }
        let context = Context {
            tenant: &header.tenant,
            purpose: Purpose::RefreshJournal,
            row: &header.row,
        };
        let body = keyring.open_bytes(&context, envelope)?;
        let tokens = TokenSet::from_json(&body).map_err(|_| malformed())?;
        Ok(Self {
            grant_id: grant_id.to_owned(),
            generation,
            tokens,
            tenant: header.tenant,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    v: u8,
    tenant: String,
    row: String,
}

fn is_file_name_part(id: &str) -> bool {
    (1..=GRANT_ID_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
