//! How clients use us: counted in memory, stored every few seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Issuer;
use crate::error::Error;
use crate::model::{ClientUsage, OauthClient, Timestamp};
use crate::store::{self, Tx};
use crate::telemetry::Metrics;

/// Whose use it is: the client's id, and its tenant.
type Client = (String, String);

/// What is not stored yet. Sorted by client, so that two replicas can't lock each other out.
pub(super) struct Usage {
    counted: Mutex<BTreeMap<Client, ClientUsage>>,
    metrics: Arc<Metrics>,
}

impl Usage {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            counted: Mutex::default(),
            metrics,
        }
    }

    /// A consent led to a code, or let a device in. Call it after the commit.
    pub(super) fn authorized(&self, client: &OauthClient) {
        self.change(client, |usage| usage.authorizations += 1);
    }

    /// The client was given an access token. Call it after the commit.
    pub(super) fn token(&self, client: &OauthClient, now: Timestamp) {
        self.metrics.token_issued();
        self.change(client, |usage| {
            usage.tokens += 1;
            usage.last_used_at = usage.last_used_at.max(Some(now));
        });
    }

    fn change(&self, client: &OauthClient, change: impl FnOnce(&mut ClientUsage)) {
        let key = (client.id.clone(), client.tenant.clone());
        change(self.all().entry(key).or_default());
    }

    fn take(&self) -> Vec<(Client, ClientUsage)> {
        std::mem::take(&mut *self.all()).into_iter().collect()
    }

    /// Counts again what could not be stored.
    fn give_back(&self, counted: impl IntoIterator<Item = (Client, ClientUsage)>) {
        let mut all = self.all();
        for (key, counted) in counted {
            let usage = all.entry(key).or_default();
            usage.authorizations += counted.authorizations;
            usage.tokens += counted.tokens;
            usage.last_used_at = usage.last_used_at.max(counted.last_used_at);
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Client, ClientUsage>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Issuer {
    /// Stores how clients used us, and how often tokens were looked at, since the last time.
    ///
    /// # Errors
    /// The store's; what was not stored is stored the next time.
    pub async fn flush_use(&self) -> Result<(), Error> {
        let tokens = self.cache.flush(&self.parts.store).await;
        let counted = self.usage.take();
        let add = async |tx: &mut Tx, chunk: &[(Client, ClientUsage)]| {
            for ((id, tenant), usage) in chunk {
                store::clients::add_usage(tx, tenant, id, usage).await?;
            }
            Ok(())
        };
        let (done, stored) = store::write_in_chunks(&self.parts.store, &counted, add).await;
        self.usage.give_back(counted.into_iter().skip(done));
        tokens.and(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_stored_is_counted_again() {
        let usage = Usage::new(Arc::new(Metrics::disabled()));
        let key = || ("client_1".to_owned(), "default".to_owned());
        let at = |micros| Some(Timestamp::from_micros(micros));
        let counted = |tokens, micros| ClientUsage {
            tokens,
            last_used_at: at(micros),
            ..ClientUsage::default()
        };
        usage.give_back([(key(), counted(2, 5))]);
        usage.give_back([(key(), counted(1, 3))]);
        let taken = usage.take();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].1.tokens, 3);
        assert_eq!(taken[0].1.last_used_at, at(5));
        assert!(usage.take().is_empty());
    }
}
