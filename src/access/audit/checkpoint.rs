//! Checkpoints: signed statements of what the chain comes to, in the form of
//! <https://c2sp.org/tlog-checkpoint>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{self, Opened, Verifier};
use super::trail::Trail;
use crate::crypto::signing::Signer;
use crate::error::Error;
use crate::model::{Checkpoint, Timestamp};
use crate::store::{self, transact};

/// What the first line of a checkpoint has behind the origin when it tells of what retention removed:
/// so neither can stand for the other.
const TRIMMED: &str = "/trimmed";

/// What a note states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The place it speaks of.
    pub position: i64,
    /// The hash there.
    pub hash: Vec<u8>,
    /// By whom; `None` for nobody whom we know.
    pub signer: Option<String>,
    /// Signed in the name of a key that did not sign it.
    pub forged: bool,
}

/// The text of a statement.
fn text(origin: &str, position: i64, hash: &[u8]) -> String {
    format!("{origin}\n{position}\n{}\n", STANDARD.encode(hash))
}

/// Signs what the chain comes to at a place.
pub(super) fn sign(origin: &str, position: i64, hash: &[u8], signer: &Signer) -> String {
    note::sign(&text(origin, position, hash), origin, signer)
}

/// Signs that retention removed what is up to a place.
pub(super) fn sign_trimmed(origin: &str, position: i64, hash: &[u8], signer: &Signer) -> String {
    let first = format!("{origin}{TRIMMED}");
    note::sign(&text(&first, position, hash), origin, signer)
}

/// Reads a checkpoint. `None` for what is none.
pub(super) fn read(note: &str, verifiers: &[Verifier]) -> Option<Statement> {
    statement(note, verifiers, "")
}

/// Reads a statement on what retention removed. `None` for what is none.
pub(super) fn read_trimmed(note: &str, verifiers: &[Verifier]) -> Option<Statement> {
    statement(note, verifiers, TRIMMED)
}

fn statement(note: &str, verifiers: &[Verifier], kind: &str) -> Option<Statement> {
    let (text, by, forged) = match note::open(note, verifiers)? {
        Opened::Verified {
            text,
            name,
            verifier_key,
        } => (text, Some((name, verifier_key)), false),
        Opened::Unknown { text } => (text, None, false),
        Opened::Forged { text } => (text, None, true),
    };
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let (first, position, hash) = (lines.next()?, lines.next()?, lines.next()?);
    let origin = first.strip_suffix(kind)?;
    let number: i64 = position.parse().ok()?;
    // One statement has one form only.
    if lines.next().is_some() || number < 1 || number.to_string() != position {
        return None;
    }
    let hash = STANDARD.decode(hash).ok().filter(|hash| hash.len() == 32)?;
    let signer = match by {
        Some((name, key)) if name == origin => Some(key),
        _ => None,
    };
    Some(Statement {
        position: number,
        hash,
        signer,
        forged,
    })
}

impl Trail {
    /// Signs a checkpoint if the chain grew. Unless it must be now, as when the server stops, one that
    /// another replica made lately will do.
    ///
    /// # Errors
    /// The store's.
    pub async fn checkpoint(&self, now: bool) -> Result<Option<Checkpoint>, Error> {
        self.chain().await?;
        let signer = self
            .keyring
            .signer()
            .ok_or_else(|| Error::internal("no key can sign the audit trail"))?;
        let origin = &self.config.origin;
        let at: Timestamp = self.clock.now();
        let lately = at.minus(self.config.checkpoint_interval / 2);
        transact!(self.store, |tx| {
            let head = store::audit::chain::lock_head(&mut tx).await?;
            // One of a place that the chain does not have speaks of no chain of ours. When it was
            // signed is in no chain either: nobody may put off the next one by a time to come.
            let newest = store::audit::checkpoints::newest(&mut tx, head.position).await?;
            let done = newest.is_some_and(|newest| {
                let signed_lately = newest.created_at > lately && newest.created_at <= at;
                newest.position == head.position || (!now && signed_lately)
            });
            if done || head.position == 0 {
                return Ok(None);
            }
            let checkpoint = Checkpoint {
                position: head.position,
                note: sign(origin, head.position, &head.hash, &signer),
                hash: head.hash,
                created_at: at,
            };
            store::audit::checkpoints::insert(&mut tx, &checkpoint).await?;
            Ok(Some(checkpoint))
        })
    }

    /// Checkpoints behind a place, oldest first, each with the key that verifies it; that is empty
    /// where no key of ours does.
    ///
    /// # Errors
    /// The store's.
    pub async fn checkpoints(
        &self,
        after: i64,
        limit: i64,
    ) -> Result<Vec<(Checkpoint, String)>, Error> {
        let mut conn = self.store.read().await?;
        let rows = store::audit::checkpoints::list(&mut conn, after, limit).await?;
        let key = |checkpoint: &Checkpoint| {
            let statement = read(&checkpoint.note, &self.verifiers)?;
            statement.signer
        };
        Ok(rows
            .into_iter()
            .map(|row| {
                let key = key(&row).unwrap_or_default();
                (row, key)
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{KEY_BYTES, Keyring};

    #[test]
    fn a_checkpoint_has_one_form() {
        let key = zeroize::Zeroizing::new([7; KEY_BYTES]);
        let keyring = Keyring::new("k1", [("k1".to_owned(), key)]).unwrap();
        let signer = keyring.signer().unwrap();
        let verifiers = Verifier::all(&keyring, &[]);
        let note = sign("here/audit", 12, &[1; 32], &signer);
        let read_back = read(&note, &verifiers).unwrap();
        assert_eq!((read_back.position, read_back.forged), (12, false));
        assert_eq!(read_back.hash, [1; 32]);
        assert!(read_back.signer.unwrap().starts_with("here/audit+"));
        // What retention signs is no checkpoint, nor the other way round.
        let trimmed = sign_trimmed("here/audit", 12, &[1; 32], &signer);
        assert!(read(&trimmed, &verifiers).is_none_or(|read| read.signer.is_none()));
        assert!(read_trimmed(&note, &verifiers).is_none());
        assert!(read_trimmed(&trimmed, &verifiers).unwrap().signer.is_some());
        for text in ["here/audit\n012\n", "here/audit\n-1\n", "here/audit\n0\n"] {
            let text = format!("{text}{}\n", STANDARD.encode([1; 32]));
            let note = note::sign(&text, "here/audit", &signer);
            assert_eq!(read(&note, &verifiers), None, "{text}");
        }
    }
}
