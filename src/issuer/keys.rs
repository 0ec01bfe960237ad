//! The keys that our tokens are signed with: made here, sealed, published before they sign and until
//! nothing that they signed is good any more.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Issuer, Parts};
use crate::crypto::jwt::SigningKey;
use crate::crypto::{Context, Purpose};
use crate::error::Error;
use crate::model::{IssuerKey, Timestamp};
use crate::store::issuer::keys;
use crate::store::transact;

/// The longest that a key is published before it signs; a tenth of the time that it signs at most.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest, if keys sign for long enough: whoever verifies may keep our keys that long.
const AHEAD_MIN: Duration = Duration::from_secs(60 * 60);

/// How long a key is published after it signs: a day is the longest that a token lives, and another
/// is for a successor that comes late, since the key goes on until there is one.
const KEPT: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// The keys in memory, as they were last read.
pub(super) struct SigningKeys(RwLock<Arc<[Held]>>);

#[derive(Clone)]
struct Held {
    row: IssuerKey,
    /// None where the keyring does not open it: then it is published, and does not sign.
    signer: Option<Arc<SigningKey>>,
}

impl SigningKeys {
    /// None is read yet.
    pub(super) fn new(_: &Parts) -> Self {
        Self(RwLock::default())
    }

    fn held(&self) -> Arc<[Held]> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&held)
    }
}

impl Issuer {
    /// Reads the keys, and makes the first one. To be called before anything is signed.
    ///
    /// # Errors
    /// The store's; [`Error::Internal`] where no key can be made.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.rotate_keys().await.map(drop)
    }

    /// Reads the keys, and makes the next one when it is time for it; whether it did. To be called
    /// every minute or so on each replica: that is how they hear of each other's keys.
    ///
    /// # Errors
    /// As [`Issuer::prepare`].
    pub async fn rotate_keys(&self) -> Result<bool, Error> {
        self.read_keys().await?;
        let held = self.keys.held();
        let (now, rotation) = (self.parts.clock.now(), self.parts.config.key_rotation);
        let Some(signs_from) = next_signs_from(&held, rotation, now) else {
            return Ok(false);
        };
        let key = self.new_key(signs_from, now)?;
        let newest = held.first().map(|held| held.row.id.as_str());
        let made = transact!(self.parts.store, |tx| {
            Ok(keys::insert_if_newest_is(&mut tx, &key, newest).await?)
        })?;
        if made {
            tracing::info!(kid = key.id, %signs_from, "a key to sign tokens with was made");
        }
        self.read_keys().await?;
        Ok(made)
    }

    /// The public keys, as a JWK set (RFC 7517 section 5).
    pub fn jwks(&self) -> Value {
        let (held, now) = (self.keys.held(), self.parts.clock.now());
        let signing = signing(&held, now).map(|held| held.row.id.as_str());
        let published = held
            .iter()
            .filter(|held| held.row.expires_at > now || Some(held.row.id.as_str()) == signing)
            .map(|held| &held.row.public_jwk);
        json!({ "keys": published.collect::<Vec<_>>() })
    }

    /// A JWT of this media type (`typ`) with these claims.
    ///
    /// # Errors
    /// [`Error::Unavailable`] before [`Issuer::prepare`].
    pub(super) fn sign(&self, media_type: &str, claims: &Value) -> Result<String, Error> {
        let held = self.keys.held();
        let signer = signing(&held, self.parts.clock.now()).and_then(|held| held.signer.as_ref());
        let signer = signer.ok_or_else(|| {
            Error::Unavailable("there is no key to sign tokens with yet".to_owned(), None)
        })?;
        signer.sign(media_type, claims).map_err(Error::internal)
    }

    async fn read_keys(&self) -> Result<(), Error> {
        let rows = {
            let mut conn = self.parts.store.read().await?;
            keys::list(&mut conn).await?
        };
        let before = self.keys.held();
        let held = rows.into_iter().map(|row| {
            let known = before.iter().find(|held| held.row.id == row.id);
            match known {
                Some(known) => known.clone(),
                None => Held {
                    signer: self.opened(&row).map(Arc::new),
                    row,
                },
            }
        });
        let held: Arc<[Held]> = held.collect();
        *self.keys.0.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }

    fn opened(&self, row: &IssuerKey) -> Option<SigningKey> {
        let opened = self.parts.keyring.open(&context(&row.id), &row.private_key);
        let opened = opened
            .map_err(Error::from)
            .and_then(|private| SigningKey::from_pkcs8(&private).map_err(Error::internal));
        opened
            .inspect_err(|error| {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::error!(
                    kid = row.id,
                    cause,
                    "a key to sign tokens with can't be used"
                );
            })
            .ok()
    }

    fn new_key(&self, signs_from: Timestamp, now: Timestamp) -> Result<IssuerKey, Error> {
        let (key, private) = SigningKey::generate().map_err(Error::internal)?;
        let signs_until = signs_from.plus(self.parts.config.key_rotation);
        Ok(IssuerKey {
            id: key.id().to_owned(),
            private_key: self.parts.keyring.seal(&context(key.id()), &private)?,
            public_jwk: key.public_jwk().clone(),
            created_at: now,
            signs_from,
            signs_until,
            expires_at: signs_until.plus(KEPT),
        })
    }
}

/// Keys are the installation's: no tenant's.
fn context(kid: &str) -> Context<'_> {
    Context {
        tenant: "",
        purpose: Purpose::IssuerKey,
        row: kid,
    }
}

/// The key that signs: the latest that may. One whose time is over goes on until another's begins;
/// one whose time is still to come, by a clock that is behind, begins where there is no other.
fn signing(held: &[Held], now: Timestamp) -> Option<&Held> {
    let able = || held.iter().filter(|held| held.signer.is_some());
    let begun = able().filter(|held| held.row.signs_from <= now);
    begun
        .max_by_key(|held| held.row.signs_from)
        .or_else(|| able().min_by_key(|held| held.row.signs_from))
}

/// From when on the next key signs, if it is time to make it. At once where none does.
fn next_signs_from(held: &[Held], rotation: Duration, now: Timestamp) -> Option<Timestamp> {
    let able = held.iter().filter(|held| held.signer.is_some());
    let ends = able.map(|held| held.row.signs_until).max();
    let Some(ends) = ends.filter(|ends| *ends > now) else {
        return Some(now);
    };
    let ahead = (rotation / 10)
        .clamp(AHEAD_MIN, AHEAD_MAX)
        .min(rotation / 2);
    let soonest = now.plus(ahead);
    (ends <= soonest).then_some(ends.max(soonest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const ROTATION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

    fn day(number: u32) -> Timestamp {
        Timestamp::default().plus(DAY * number)
    }

    fn held(kid: &str, from: u32, until: u32) -> Held {
        let keys = [("k1".to_owned(), [1_u8; crate::crypto::KEY_BYTES].into())];
        let keyring = crate::crypto::Keyring::new("k1", keys).unwrap();
        let (key, private) = SigningKey::generate().unwrap();
        Held {
            row: IssuerKey {
                id: kid.to_owned(),
                private_key: keyring.seal(&context(kid), &private).unwrap(),
                public_jwk: key.public_jwk().clone(),
                created_at: day(0),
                signs_from: day(from),
                signs_until: day(until),
                expires_at: day(until).plus(KEPT),
            },
            signer: Some(Arc::new(key)),
        }
    }

    fn signs(held: &[Held], now: Timestamp) -> Option<&str> {
        signing(held, now).map(|held| held.row.id.as_str())
    }

    #[test]
    fn the_next_key_is_published_a_day_before_it_signs() {
        let next = |held: &[Held], now| next_signs_from(held, ROTATION, now);
        assert_eq!(next(&[], day(0)), Some(day(0)));
        let one = [held("a", 0, 90)];
        assert_eq!(next(&one, day(88)), None);
        assert_eq!(next(&one, day(89)), Some(day(90)));
        assert_eq!(
            next(&one, day(89).plus(DAY / 2)),
            Some(day(90).plus(DAY / 2))
        );
        // Nobody looked for long: there is nothing to wait for.
        assert_eq!(next(&one, day(200)), Some(day(200)));
        let two = [held("b", 90, 180), held("a", 0, 90)];
        assert_eq!(next(&two, day(89)), None);
    }

    #[test]
    fn keys_of_an_hour_overlap_and_do_not_pile_up() {
        let hour = Duration::from_secs(60 * 60);
        let mut one = held("a", 0, 90);
        one.row.signs_until = day(0).plus(hour);
        let next = |now| next_signs_from(std::slice::from_ref(&one), hour, now);
        assert_eq!(next(day(0)), None);
        assert_eq!(next(day(0).plus(hour / 2)), Some(day(0).plus(hour)));
    }

    #[test]
    fn there_is_always_one_that_signs() {
        let two = [held("b", 90, 180), held("a", 1, 90)];
        assert_eq!(signs(&two, day(0)), Some("a"));
        assert_eq!(signs(&two, day(89)), Some("a"));
        assert_eq!(signs(&two, day(90)), Some("b"));
        assert_eq!(signs(&two, day(500)), Some("b"));
        let mut closed = two.clone();
        closed[0].signer = None;
        assert_eq!(signs(&closed, day(90)), Some("a"));
        assert_eq!(signs(&[], day(0)), None);
    }
}
