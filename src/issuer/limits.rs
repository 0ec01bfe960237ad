//! How many tokens a client may have in an hour, and how often its refusals are recorded, on each
//! replica.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::access::limits::Bucket;
use crate::clock::Clock;
use crate::error::Error;
use crate::model::OauthClient;

/// Clients whose buckets are kept.
const CAPACITY: u64 = 100_000;

/// Refused exchanges of a client that are recorded in a minute: whoever sends a million of them does not
/// fill the trail.
const TOLD_A_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

/// After so long without a token any bucket is full again.
const HOUR: Duration = Duration::from_secs(60 * 60);

const MINUTE: Duration = Duration::from_secs(60);

/// The limits. A bucket belongs to a client and its limit: another limit begins anew.
pub(super) struct Hourly {
    clock: Clock,
    buckets: Cache<(String, NonZeroU32), Arc<Bucket>>,
    told: Cache<String, Arc<Bucket>>,
}

impl Hourly {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            buckets: kept_an_hour(),
            told: kept_an_hour(),
        }
    }

    /// Whether one more refusal of this client is recorded.
    pub(super) fn may_tell(&self, client_id: &str) -> bool {
        let most = TOLD_A_MINUTE;
        let bucket = self.told.get_with_by_ref(client_id, || {
            Arc::new(Bucket::new(most, MINUTE, most, &self.clock))
        });
        bucket.take().is_ok()
    }

    /// One token more for this client.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the time until the next one.
    pub(super) fn charge(&self, client: &OauthClient) -> Result<(), Error> {
        match client
            .settings
            .rate_limit_per_hour
            .and_then(NonZeroU32::new)
        {
            Some(most) => self.charge_at(&client.id, most),
            None => Ok(()),
        }
    }

    fn charge_at(&self, client_id: &str, most: NonZeroU32) -> Result<(), Error> {
        let bucket = self.buckets.get_with((client_id.to_owned(), most), || {
            Arc::new(Bucket::new(most, HOUR, most, &self.clock))
        });
        bucket.take().map_err(|retry_after| Error::RateLimited {
            limit: "rate_limit_per_hour",
            message: format!("the client may have {most} tokens an hour"),
            retry_after,
        })
    }
}

/// A full bucket may be forgotten.
fn kept_an_hour<K>() -> Cache<K, Arc<Bucket>>
where
    K: Eq + std::hash::Hash + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(CAPACITY)
        .time_to_idle(HOUR)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn an_hour_has_as_many_tokens_as_the_limit_says() {
        let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let hourly = Hourly::new(clock.clone());
        let most = NonZeroU32::new(2).unwrap();
        hourly.charge_at("client_1", most).unwrap();
        hourly.charge_at("client_1", most).unwrap();
        match hourly.charge_at("client_1", most) {
            Err(Error::RateLimited { retry_after, .. }) => assert_eq!(retry_after, HOUR / 2),
            other => panic!("{other:?}"),
        }
        hourly.charge_at("client_2", most).unwrap();
        clock.advance(HOUR / 2);
        hourly.charge_at("client_1", most).unwrap();
    }

    #[test]
    fn a_flood_of_refusals_is_recorded_in_part() {
        let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let hourly = Hourly::new(clock);
        let told = (0..100).filter(|_| hourly.may_tell("client_1")).count();
        assert_eq!(told, 60);
        assert!(hourly.may_tell("client_2"));
    }
}
