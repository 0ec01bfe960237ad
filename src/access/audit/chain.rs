//! The chain: each entry's hash covers the one before it and all that the entry says.

use super::trail::Trail;
use crate::crypto::digest;
use crate::error::Error;
use crate::model::{AuditEvent, Chained};
use crate::store::audit::chain::{self, Place};
use crate::store::transact;

/// Frozen: every hash begins with it.
const TAG: &[u8] = b"tokenbroker.audit.v1";

/// The hash before the first place.
pub const ORIGIN: [u8; 32] = [0; 32];

/// Entries that get their places in one transaction.
const BATCH: i64 = 500;

/// What the chain holds of an entry: every field in this order. Texts and bytes have their length
/// before them, times are microseconds since 1970 and details are sorted by name, so that two
/// entries that differ have different bytes. Address and program are there as their hash, so that
/// they can be erased. Numbers have 8 bytes, the most significant first. Frozen.
pub(super) fn canonical(event: &AuditEvent) -> Vec<u8> {
    fn put(bytes: &mut Vec<u8>, field: &[u8]) {
        bytes.extend((field.len() as u64).to_be_bytes());
        bytes.extend(field);
    }
    let mut bytes = Vec::with_capacity(512);
    put(&mut bytes, event.id.as_bytes());
    put(&mut bytes, event.tenant.as_bytes());
    bytes.extend(event.occurred_at.micros().to_be_bytes());
    put(&mut bytes, event.action.as_bytes());
    bytes.push(u8::from(event.success));
    for field in [
        &event.reason,
        &event.actor_kind,
        &event.actor_id,
        &event.resource_kind,
        &event.resource_id,
        &event.provider,
        &event.trace_id,
    ] {
        put(&mut bytes, field.as_bytes());
    }
    bytes.extend((event.details.len() as u64).to_be_bytes());
    for (name, value) in &event.details {
        put(&mut bytes, name.as_bytes());
        put(&mut bytes, value.as_bytes());
    }
    put(&mut bytes, &event.personal_hash);
    bytes
}

/// The hash of a place.
pub(super) fn hash(previous: &[u8], canonical: &[u8]) -> [u8; 32] {
    digest::sha256(&[TAG, previous, canonical].concat())
}

impl Trail {
    /// Gives every committed entry its place; answers how many. Replicas do it one after the other.
    ///
    /// # Errors
    /// The store's.
    pub async fn chain(&self) -> Result<usize, Error> {
        let mut total = 0;
        loop {
            let mut conn = self.store.read().await?;
            if !chain::any_unchained(&mut conn).await? {
                break;
            }
            drop(conn);
            let placed: usize = transact!(self.store, |tx| {
                let head = chain::lock_head(&mut tx).await?;
                let waiting = chain::any_tenant_unchained(&mut tx, BATCH).await?;
                let places = places(head.position, &head.hash, &waiting);
                chain::place(&mut tx, &places).await?;
                Ok(places.len())
            })?;
            if placed == 0 {
                break;
            }
            total += placed;
        }
        if total > 0 {
            self.grown.notify_waiters();
        }
        Ok(total)
    }
}

/// The places of entries behind one whose place and hash are known.
fn places(after: i64, previous: &[u8], waiting: &[Chained]) -> Vec<Place> {
    let mut previous = previous.to_vec();
    let mut places = Vec::with_capacity(waiting.len());
    for (position, entry) in (after + 1..).zip(waiting) {
        previous = hash(&previous, &canonical(&entry.event)).to_vec();
        places.push(Place {
            id: entry.event.id.clone(),
            position,
            hash: previous.clone(),
        });
    }
    places
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Timestamp;

    fn event() -> AuditEvent {
        AuditEvent {
            id: "aud_1".to_owned(),
            tenant: "default".to_owned(),
            occurred_at: Timestamp::from_micros(1_700_000_000_000_001),
            action: "session.created".to_owned(),
            success: false,
            reason: "WRONG_PASSWORD".to_owned(),
            actor_kind: "anonymous".to_owned(),
            actor_id: String::new(),
            resource_kind: "user".to_owned(),
            resource_id: "user_1".to_owned(),
            provider: "github".to_owned(),
            trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            details: BTreeMap::from([
                ("b".to_owned(), "2".to_owned()),
                ("a".to_owned(), "ä".to_owned()),
            ]),
            ip: "192.0.2.1".to_owned(),
            user_agent: "curl/8".to_owned(),
            salt: Some(vec![1; 16]),
            personal_hash: vec![2; 32],
            erased_by: None,
        }
    }

    /// Every installation's chain depends on these.
    #[test]
    fn the_canonical_form_is_frozen() {
        let bytes = canonical(&event());
        assert_eq!(
            digest::hex(&bytes),
            "00000000000000056175645f31000000000000000764656661756c7400060a24181e400100000000\
             0000000f73657373696f6e2e6372656174656400000000000000000e57524f4e475f50415353574f\
             52440000000000000009616e6f6e796d6f7573000000000000000000000000000000047573657200\
             00000000000006757365725f31000000000000000667697468756200000000000000203061663736\
             35313931366364343364643834343865623231316338303331396300000000000000020000000000\
             000001610000000000000002c3a40000000000000001620000000000000001320000000000000020\
             0202020202020202020202020202020202020202020202020202020202020202"
        );
        assert_eq!(
            digest::hex(&hash(&ORIGIN, &bytes)),
            "db08b18f214a6712edc41703f6c1dd1125aae67e35260298662857080956c794"
        );
    }

    #[test]
    fn personal_data_is_covered_by_its_hash_alone() {
        let erased = AuditEvent {
            ip: String::new(),
            user_agent: String::new(),
            salt: None,
            erased_by: Some("aud_2".to_owned()),
            ..event()
        };
        assert_eq!(canonical(&erased), canonical(&event()));
    }

    #[test]
    fn borders_between_fields_count() {
        let moved = AuditEvent {
            actor_id: "x".to_owned(),
            ..event()
        };
        let other = AuditEvent {
            actor_kind: "anonymousx".to_owned(),
            ..event()
        };
        assert_ne!(canonical(&moved), canonical(&other));
    }
}
