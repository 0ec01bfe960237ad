//! `[audit]`: the audit trail.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::reader::Reader;
use super::{DAY, SECOND};

/// Longest origin, in characters.
const ORIGIN_MAX: usize = 100;

/// The audit trail.
#[derive(Clone, Debug)]
pub struct Audit {
    /// How long entries are kept; none for ever.
    pub retention: Option<Duration>,
    /// How it tells of access tokens that were handed out.
    pub token_reads: TokenReads,
    /// How often a checkpoint is signed, if the chain grew.
    pub checkpoint_interval: Duration,
    /// The name under which checkpoints are signed.
    pub origin: String,
    /// Verifier keys of sealing keys that are no longer in the keyring.
    pub former_keys: Vec<String>,
}

/// How the audit trail tells of access tokens that were handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenReads {
    /// Counted by caller, connection and minute.
    Aggregated,
    /// Each, before it is answered.
    Each,
}

impl Audit {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let retention = reader.duration("audit.retention", Duration::ZERO..=3_650 * DAY);
        if !retention.is_zero() && retention < DAY {
            reader.fault("audit.retention", "1d at least is needed, or 0s for ever");
        }
        let origin = reader.text("audit.origin");
        // The restrictions of C2SP signed-note on a key's name.
        let fine = origin.chars().count() <= ORIGIN_MAX
            && !origin
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || c == '+');
        if !fine {
            let needed = format!(
                "1 to {ORIGIN_MAX} characters are needed, without blanks, control characters and +"
            );
            reader.fault("audit.origin", needed);
        }
        let former_keys = reader.texts("audit.former_keys");
        for key in &former_keys {
            if !is_verifier_key(key) {
                let problem = format!("{key:?} is not a verifier key such as a checkpoint shows");
                reader.fault("audit.former_keys", problem);
            }
        }
        const TOKEN_READS: [(&str, TokenReads); 2] = [
            ("aggregated", TokenReads::Aggregated),
            ("each", TokenReads::Each),
        ];
        Self {
            token_reads: reader
                .choice("audit.token_reads", &TOKEN_READS)
                .unwrap_or(TokenReads::Each),
            retention: (!retention.is_zero()).then_some(retention),
            checkpoint_interval: reader.duration("audit.checkpoint_interval", SECOND..=DAY),
            origin,
            former_keys,
        }
    }
}

/// `NAME+HASH+BASE64`, of which the base64 has the algorithm, 1 for Ed25519, and 32 bytes of key.
fn is_verifier_key(text: &str) -> bool {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    !name.is_empty()
        && hash.len() == 8
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        && STANDARD
            .decode(key)
            .is_ok_and(|key| key.len() == 33 && key.first() == Some(&1))
}
