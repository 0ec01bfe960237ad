//! Writing down what an attempt brought: tokens, record and events in one transaction.

use std::time::{Duration, Instant};

use super::{Leased, Refresher};
use crate::access::audit::{self, Action, Who};
use crate::broker::journal::Entry;
use crate::broker::token_set::TokenSet;
use crate::error::Error;
use crate::model::{
    Connection, ConnectionState, EventKind, Grant, GrantState, NewEvent, Provider, RefreshAttempt,
    RefreshOutcome,
};
use crate::oauth::ProviderClient;
use crate::store::connections::lock_of_grant;
use crate::store::grants::Setback;
use crate::store::{self, Tx, transact};

/// What became of new tokens.
pub(super) enum Kept {
    /// They are the held ones.
    Held(Box<Grant>),
    /// The row had newer ones already.
    Newer(Box<Grant>),
    /// The grant was revoked or deleted meanwhile: nobody may use them.
    Unwanted,
}

/// How long a commit is tried in one go. The journal has the tokens whatever happens.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

impl Refresher {
    /// Commits new tokens, again and again while the database is away.
    pub(super) async fn commit_until_done(
        &self,
        entry: &Entry,
        provider: &Provider,
        record: &mut RefreshAttempt,
        who: &Who,
    ) -> Result<Kept, Error> {
        let deadline = Instant::now() + COMMIT_PATIENCE;
        let mut pause = Duration::from_millis(50);
        loop {
            match self.commit(entry, provider, record, who).await {
                Err(Error::Store(error)) if Instant::now() < deadline => {
                    // Also when the answer to COMMIT was lost: trying again finds the row at the
                    // new generation, with these very tokens.
                    tracing::warn!(%error, grant = %entry.grant_id, "new tokens are not committed yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                done => {
                    self.poke.notify_one();
                    return done;
                }
            }
        }
    }

    async fn commit(
        &self,
        entry: &Entry,
        provider: &Provider,
        record: &mut RefreshAttempt,
        who: &Who,
    ) -> Result<Kept, Error> {
        let (kept, outcome) = transact!(self.store, |tx| {
            let now = self.clock.now();
            let (tenant, grant_id) = (&entry.tenant, &entry.grant_id);
            let connections = lock_of_grant(&mut tx, tenant, grant_id).await?;
            let found = store::grants::lock(&mut tx, tenant, grant_id).await?;
            let mut record = record.clone();
            let kept = match found {
                None => Kept::Unwanted,
                Some(grant) if grant.state == GrantState::Revoked => Kept::Unwanted,
                Some(grant) if grant.generation != entry.generation => {
                    if self.holds(&grant, &entry.tokens) {
                        // Committed before, by an attempt whose answer was lost.
                        return Ok((Kept::Held(Box::new(grant)), RefreshOutcome::Succeeded));
                    }
                    Kept::Newer(Box::new(grant))
                }
                Some(mut grant) => {
                    grant.state = GrantState::Active;
                    grant.state_reason = String::new();
                    let next = self.vault.refreshed(&grant, provider, &entry.tokens, now)?;
                    store::grants::replace(&mut tx, &next, entry.generation).await?;
                    for connection in &connections {
                        if connection.state == ConnectionState::Active {
                            let event =
                                NewEvent::of(EventKind::Refreshed, connection, &next, "", now);
                            store::events::append(&mut tx, &event).await?;
                        }
                    }
                    Kept::Held(Box::new(next))
                }
            };
            record.outcome = match kept {
                Kept::Held(_) => RefreshOutcome::Succeeded,
                Kept::Newer(_) | Kept::Unwanted => RefreshOutcome::Superseded,
            };
            store::records::insert_attempt(&mut tx, &record).await?;
            let told = audited(who, &connections, &record, &provider.id);
            audit::record(&mut tx, &told, now).await?;
            Ok((kept, record.outcome))
        })?;
        record.outcome = outcome;
        Ok(kept)
    }

    /// Whether a grant holds these very tokens.
    fn holds(&self, grant: &Grant, tokens: &TokenSet) -> bool {
        use secrecy::ExposeSecret as _;
        let held = self.vault.access_token(grant).ok().flatten();
        match (held, &tokens.access_token) {
            (Some(held), Some(new)) => held.expose_secret() == new.expose_secret(),
            _ => false,
        }
    }

    /// Gives the lease back with what went wrong; `false` when it was not this attempt's any more.
    pub(super) async fn set_back(
        &self,
        leased: &Leased,
        setback: &Setback,
        record: Option<&RefreshAttempt>,
    ) -> Result<bool, Error> {
        let grant = &leased.grant;
        let written = transact!(self.store, |tx| {
            let connections = lock_of_grant(&mut tx, &grant.tenant, &grant.id).await?;
            let written = store::grants::set_back(
                &mut tx,
                &grant.tenant,
                &grant.id,
                &leased.holder,
                grant.generation,
                setback,
            )
            .await?;
            if let Some(record) = record {
                let mut record = record.clone();
                if !written {
                    record.outcome = RefreshOutcome::Superseded;
                }
                store::records::insert_attempt(&mut tx, &record).await?;
                let told = audited(&leased.who, &connections, &record, &leased.provider.id);
                audit::record(&mut tx, &told, setback.at).await?;
                let kind = match record.outcome {
                    RefreshOutcome::Succeeded | RefreshOutcome::Superseded => None,
                    RefreshOutcome::GrantDead => Some(EventKind::ReauthorizationRequired),
                    RefreshOutcome::Transient
                    | RefreshOutcome::Ambiguous
                    | RefreshOutcome::ClientMisconfigured => Some(EventKind::RefreshFailed),
                };
                if let Some(kind) = kind {
                    self.tell(&mut tx, &connections, grant, kind, &record.error_code)
                        .await?;
                }
                if record.outcome == RefreshOutcome::ClientMisconfigured
                    && !self
                        .registry
                        .mark_misconfigured(&mut tx, &leased.app, &record.error_code)
                        .await?
                {
                    // The app was changed while it was being refused: maybe mended. Not parked.
                    let soon = self.clock.now().plus(self.config.backoff_initial);
                    store::grants::reschedule(&mut tx, grant, Some(soon)).await?;
                }
            }
            Ok(written)
        })?;
        self.poke.notify_one();
        Ok(written)
    }

    /// Marks a grant as dead whose refresh token was spent and whose successor is lost.
    pub(super) async fn give_up(
        &self,
        grant: &Grant,
        who: &Who,
        now: crate::model::Timestamp,
    ) -> Result<(), Error> {
        transact!(self.store, |tx| {
            let connections = lock_of_grant(&mut tx, &grant.tenant, &grant.id).await?;
            let found = store::grants::lock(&mut tx, &grant.tenant, &grant.id).await?;
            // Another replica that came to the same end has told of it.
            let Some(mut dead) = found.filter(|found| {
                found.generation == grant.generation && found.state == GrantState::Active
            }) else {
                return Ok(());
            };
            dead.state = GrantState::ReauthorizationRequired;
            super::LOST.clone_into(&mut dead.state_reason);
            dead.next_refresh_at = None;
            dead.notice_at = None;
            dead.updated_at = now;
            store::grants::replace(&mut tx, &dead, grant.generation).await?;
            let kind = EventKind::ReauthorizationRequired;
            self.tell(&mut tx, &connections, &dead, kind, super::LOST)
                .await?;
            let told = of_grant(who, &connections, &dead.id).failed(super::LOST);
            audit::record(&mut tx, &told, now).await.map(drop)
        })?;
        self.poke.notify_one();
        Ok(())
    }

    async fn tell(
        &self,
        tx: &mut Tx,
        connections: &[Connection],
        grant: &Grant,
        kind: EventKind,
        reason: &str,
    ) -> Result<(), Error> {
        for connection in connections {
            if connection.state == ConnectionState::Active {
                let event = NewEvent::of(kind, connection, grant, reason, self.clock.now());
                store::events::append(tx, &event).await?;
            }
        }
        Ok(())
    }

    /// Revokes tokens at the provider that nobody here may use any more. Best effort: they were
    /// never handed out.
    pub(super) async fn discard(&self, client: &ProviderClient, tokens: &TokenSet) {
        let revoked = client.revoke(
            &self.http,
            tokens.access_token.as_ref(),
            tokens.refresh_token.as_ref(),
        );
        match tokio::time::timeout(client.total_timeout(), revoked).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "superfluous tokens were not revoked at the provider");
            }
            Err(_) => tracing::warn!("revoking superfluous tokens took too long"),
        }
    }
}

/// What is recorded of an attempt: one entry, however many connections share the grant.
fn audited(
    who: &Who,
    connections: &[Connection],
    record: &RefreshAttempt,
    provider: &str,
) -> audit::Entry {
    let entry = of_grant(who, connections, &record.grant_id)
        .provider(provider)
        .detail("trigger", record.trigger.as_str())
        .detail("outcome", record.outcome.as_str())
        .detail("generation", record.generation)
        .detail("attempt_id", &record.id);
    match record.outcome {
        RefreshOutcome::Succeeded => entry,
        outcome if record.error_code.is_empty() => entry.failed(outcome.as_str()),
        _ => entry.failed(&record.error_code),
    }
}

/// On the first of the grant's connections, which is the only one as a rule; the others are named.
fn of_grant(who: &Who, connections: &[Connection], grant_id: &str) -> audit::Entry {
    let entry = audit::Entry::new(Action::TokenRefreshed, who).detail("grant_id", grant_id);
    let Some((first, others)) = connections.split_first() else {
        return entry.on("grant", grant_id);
    };
    let entry = entry
        .on("connection", &first.id)
        .provider(&first.provider)
        .detail("app_id", &first.app_id)
        .detail("owner", &first.owner);
    if others.is_empty() {
        return entry;
    }
    let others: Vec<&str> = others.iter().map(|other| other.id.as_str()).collect();
    entry.detail("shared_with", others.join(" "))
}
