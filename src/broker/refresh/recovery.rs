//! After a crash: answers that were journaled and not committed.

use super::Refresher;
use super::commit::Kept;
use crate::access::audit::Who;
use crate::broker::journal::{Entry, Written};
use crate::error::Error;
use crate::model::{IdKind, RefreshAttempt, RefreshOutcome, RefreshTrigger};
use crate::store;

impl Refresher {
    /// Commits what the journal holds. Run at the start, before anything is refreshed, and now and
    /// then: an entry whose commit failed for long stays until it goes through.
    ///
    /// # Errors
    /// The journal's, when its folder can't be read. Entries that fail stay.
    pub async fn recover(&self) -> Result<usize, Error> {
        let entries = self.journal.entries().await.map_err(Error::internal)?;
        let mut recovered = 0;
        for (written, entry) in entries {
            match self.replay(&written, &entry).await {
                Ok(true) => recovered += 1,
                Ok(false) => {}
                Err(error) => {
                    crate::error::log(&error);
                    tracing::warn!(grant = %entry.grant_id, "a journal entry was not recovered yet");
                }
            }
        }
        if recovered > 0 {
            tracing::info!(
                recovered,
                "committed answers that a crash had left in the journal"
            );
        }
        Ok(recovered)
    }

    async fn replay(&self, written: &Written, entry: &Entry) -> Result<bool, Error> {
        if self.is_under_way(entry) {
            return Ok(false);
        }
        let mut conn = self.store.read().await?;
        let grant = store::grants::find(&mut conn, &entry.tenant, &entry.grant_id).await?;
        let app = match &grant {
            Some(grant) => {
                self.registry
                    .app(&mut conn, &entry.tenant, &grant.app_id)
                    .await?
            }
            None => None,
        };
        let (Some(grant), Some(app)) = (grant, app) else {
            // The grant is gone with its app: nobody can use the tokens, nor name their provider.
            tracing::warn!(grant = %entry.grant_id, "a journaled answer belongs to no grant any more");
            self.journal
                .remove(written)
                .await
                .map_err(Error::internal)?;
            return Ok(false);
        };
        let provider = self
            .registry
            .provider(&mut conn, &entry.tenant, &app.provider)
            .await?;
        drop(conn);
        let now = self.clock.now();
        let mut record = RefreshAttempt {
            id: IdKind::RefreshAttempt.new_id(),
            tenant: entry.tenant.clone(),
            grant_id: entry.grant_id.clone(),
            started_at: entry.tokens.sent_at,
            duration: now.since(entry.tokens.sent_at),
            trigger: RefreshTrigger::Recovery,
            outcome: RefreshOutcome::Succeeded,
            error_code: String::new(),
            error_message: String::new(),
            fingerprint: grant.refresh_fingerprint.clone().unwrap_or_default(),
            new_fingerprint: entry
                .tokens
                .refresh_token
                .as_ref()
                .map(|token| self.vault.fingerprint(&entry.tenant, token))
                .unwrap_or_default(),
            generation: entry.generation,
        };
        let who = Who::system("recovery", &entry.tenant);
        let kept = self
            .commit_until_done(entry, &provider, &mut record, &who)
            .await?;
        if let Kept::Unwanted = kept {
            let client = self.registry.client(&app, &provider, None)?;
            self.discard(&client, &entry.tokens).await;
        }
        self.journal
            .remove(written)
            .await
            .map_err(Error::internal)?;
        Ok(matches!(kept, Kept::Held(_)))
    }

    /// Whether this process is at it: then the entry is not left over.
    fn is_under_way(&self, entry: &Entry) -> bool {
        let flights = self
            .flights
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        flights.contains_key(&(entry.grant_id.clone(), entry.generation))
    }
}
