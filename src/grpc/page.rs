//! Pages: AIP-158. A token is opaque, bound to the request's other fields, and no authority: what
//! it says is judged like any other field, so a checksum is enough to notice another request's.

use std::hash::Hash;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crc32fast::Hasher;
use prost::Message;

use crate::error::Error;

/// Largest page.
pub const MAX: i32 = 1_000;
/// How many bytes of messages an answer has room for: clients take 4 MiB unless they are told otherwise.
pub const ROOM: usize = 3 << 20;
const DEFAULT: i32 = 100;

/// Where a page begins and how large it is.
#[derive(Clone, Debug)]
pub struct Page {
    /// Behind this key; empty for the first page.
    pub after: String,
    /// At most this many.
    pub size: usize,
    binding: [u8; 4],
}

impl Page {
    /// From a request's fields; `bound_to` is every other field that selects what is listed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a negative size, or a token that is not of such a request.
    pub fn of(size: i32, token: &str, bound_to: impl Hash) -> Result<Self, Error> {
        Self::at_most(MAX, size, token, bound_to)
    }

    /// The same with a smaller largest page.
    ///
    /// # Errors
    /// As [`Page::of`].
    pub fn at_most(max: i32, size: i32, token: &str, bound_to: impl Hash) -> Result<Self, Error> {
        if size < 0 {
            return Err(Error::invalid("page_size", "must not be negative"));
        }
        let size = if size == 0 { DEFAULT } else { size }.min(max);
        let mut hasher = Hasher::new();
        bound_to.hash(&mut hasher);
        let binding = hasher.finalize().to_be_bytes();
        let after = if token.is_empty() {
            String::new()
        } else {
            read(token, binding).ok_or_else(|| {
                Error::invalid(
                    "page_token",
                    "is not a `next_page_token` of a request with the same other fields",
                )
            })?
        };
        Ok(Self {
            after,
            size: usize::try_from(size).unwrap_or(1),
            binding,
        })
    }

    /// How many rows to ask for: one more than the page, to know whether it is the last.
    pub fn limit(&self) -> i64 {
        i64::try_from(self.size)
            .unwrap_or(i64::MAX)
            .saturating_add(1)
    }

    /// Cuts the rows down to the page; the token of the next page, empty on the last.
    pub fn cut<T>(&self, rows: &mut Vec<T>, key: impl Fn(&T) -> String) -> String {
        self.cut_to(self.size, rows, key)
    }

    /// The same of messages, of which there are fewer where an answer has no room for all: but one is
    /// left, however large.
    pub fn cut_messages<M: Message>(
        &self,
        messages: &mut Vec<M>,
        key: impl Fn(&M) -> String,
    ) -> String {
        let mut bytes = 0_usize;
        let fits = messages.iter().take_while(|message| {
            bytes = bytes.saturating_add(message.encoded_len());
            bytes <= ROOM
        });
        let fits = fits.count().max(1).min(self.size);
        self.cut_to(fits, messages, key)
    }

    fn cut_to<T>(&self, size: usize, rows: &mut Vec<T>, key: impl Fn(&T) -> String) -> String {
        if rows.len() <= size {
            return String::new();
        }
        rows.truncate(size);
        rows.last()
            .map_or_else(String::new, |row| self.token(&key(row)))
    }

    /// The token of the page behind this key, where the rows themselves don't tell that there is one.
    pub fn token(&self, key: &str) -> String {
        let mut bytes = self.binding.to_vec();
        bytes.extend_from_slice(key.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

fn read(token: &str, binding: [u8; 4]) -> Option<String> {
    if token.len() > 1_024 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let after = bytes.strip_prefix(&binding)?;
    // No key has a NUL, and PostgreSQL can't compare one.
    String::from_utf8(after.to_vec())
        .ok()
        .filter(|after| !after.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_large_messages_ends_early() {
        let page = Page::of(3, "", "bound").unwrap();
        let mut large = ["a", "b", "c", "d"]
            .map(|text| text.repeat(1 << 20))
            .to_vec();
        let token = page.cut_messages(&mut large, |text| text[..1].to_owned());
        assert_eq!(large.len(), 2);
        assert_eq!(Page::of(3, &token, "bound").unwrap().after, "b");
        let mut larger = vec!["a".repeat(4 << 20), "b".to_owned()];
        assert!(!page.cut_messages(&mut larger, Clone::clone).is_empty());
        assert_eq!(larger.len(), 1);
        let mut small = vec!["a".to_owned(); 4];
        assert!(!page.cut_messages(&mut small, Clone::clone).is_empty());
        assert_eq!(small.len(), 3);
        assert!(page.cut_messages(&mut small, Clone::clone).is_empty());
        assert_eq!(small.len(), 3);
    }
}
