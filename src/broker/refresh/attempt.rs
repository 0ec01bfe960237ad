//! One attempt, under the lease: ask the provider, keep the answer, commit it.

use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::commit::Kept;
use super::{Failure, Leased, Outcome, Refresher, ended, later};
use crate::broker::journal::Entry;
use crate::broker::token_set::TokenSet;
use crate::config::refresh::LEASE_SPARE;
use crate::error::Error;
use crate::model::provider::Rotation;
use crate::model::{GrantState, IdKind, RefreshAttempt, RefreshOutcome, Timestamp};
use crate::oauth;
use crate::store;
use crate::store::grants::Setback;

/// How a failed attempt is written down.
pub(super) struct Verdict {
    outcome: RefreshOutcome,
    code: String,
    message: String,
    setback: Setback,
    failure: Failure,
}

impl Refresher {
    /// Makes the attempt and writes down what came of it.
    pub(super) async fn attempt(&self, leased: Leased) -> Outcome {
        let _renewal = self.keep_lease(&leased);
        let grant = &leased.grant;
        let refresh_token = self
            .vault
            .refresh_token(grant)
            .map_err(Error::from)?
            .ok_or(Failure::NotRefreshable)?;
        let rotates = leased.provider.rotation != Rotation::Never;
        if rotates && let Err(error) = self.journal.probe().await {
            // Nothing is spent that could not be kept.
            tracing::error!(%error, "the refresh journal can't be written: not refreshing");
            return self
                .unsent(leased, "the server can't keep new tokens")
                .await;
        }
        if leased.since.elapsed() + leased.client.total_timeout() + LEASE_SPARE > leased.lease {
            return self.unsent(leased, "the lease was taken too slowly").await;
        }
        let sent_at = self.clock.now();
        let began = Instant::now();
        let asked = leased
            .client
            .refresh(&self.http, &refresh_token, &grant.scopes);
        let answer = tokio::time::timeout(leased.client.total_timeout(), asked)
            .await
            .unwrap_or_else(|_| {
                Err(oauth::Failure::Ambiguous {
                    detail: "no answer in time".to_owned(),
                })
            });
        let fingerprint = self.vault.fingerprint(&grant.tenant, &refresh_token);
        let mut record = RefreshAttempt {
            id: IdKind::RefreshAttempt.new_id(),
            tenant: grant.tenant.clone(),
            grant_id: grant.id.clone(),
            started_at: sent_at,
            duration: began.elapsed(),
            trigger: leased.trigger,
            outcome: RefreshOutcome::Succeeded,
            error_code: String::new(),
            error_message: String::new(),
            fingerprint,
            new_fingerprint: String::new(),
            generation: grant.generation,
        };
        let outcome = match answer {
            Ok(answer) => {
                let tokens = TokenSet::of_answer(answer, &leased.provider, sent_at);
                if let Some(new) = &tokens.refresh_token {
                    record.new_fingerprint = self.vault.fingerprint(&grant.tenant, new);
                }
                self.succeed(&leased, tokens, &mut record).await
            }
            Err(failure) => self.fail(&leased, failure, &mut record).await,
        };
        self.metrics.refreshed(
            record.outcome.as_str(),
            record.trigger.as_str(),
            &leased.provider.id,
            record.duration,
        );
        outcome
    }

    /// Renews the lease until the guard is dropped: committing may take longer than planned.
    fn keep_lease(&self, leased: &Leased) -> DropGuard {
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let store = self.store.clone();
        let lease = leased.lease;
        let (tenant, id, holder) = (
            leased.grant.tenant.clone(),
            leased.grant.id.clone(),
            leased.holder.clone(),
        );
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(lease / 3) => {}
                }
                let renewed = async {
                    let mut conn = store.write().await?;
                    store::grants::renew_lease(&mut conn, &tenant, &id, &holder, lease).await
                };
                match renewed.await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => tracing::warn!(%error, "a refresh lease could not be renewed"),
                }
            }
        });
        cancel.drop_guard()
    }

    /// Keeps the answer of the provider, come what may.
    async fn succeed(
        &self,
        leased: &Leased,
        tokens: TokenSet,
        record: &mut RefreshAttempt,
    ) -> Outcome {
        let grant = &leased.grant;
        let entry = Entry {
            tenant: grant.tenant.clone(),
            grant_id: grant.id.clone(),
            generation: grant.generation,
            tokens,
        };
        // A provider that never rotates gives the same again: nothing would be lost.
        let written = if leased.provider.rotation == Rotation::Never {
            None
        } else {
            match self.journal.write(&entry).await {
                Ok(written) => Some(written),
                Err(error) => {
                    tracing::error!(%error, grant = %grant.id, "an answer could not be journaled");
                    None
                }
            }
        };
        let kept = self
            .commit_until_done(&entry, &leased.provider, record, &leased.who)
            .await?;
        if let Some(written) = written
            && let Err(error) = self.journal.remove(&written).await
        {
            // Replayed at the next start, where the newer generation makes it void.
            tracing::warn!(%error, "a journal entry could not be removed");
        }
        match kept {
            Kept::Held(grant) => self.opened(*grant),
            Kept::Newer(grant) => self.opened(*grant),
            Kept::Unwanted => {
                self.discard(&leased.client, &entry.tokens).await;
                Err(Failure::Gone)
            }
        }
    }

    /// Gives the lease back when nothing was sent.
    async fn unsent(&self, leased: Leased, detail: &str) -> Outcome {
        let now = self.clock.now();
        let wait = self.vault.backoff(0);
        let setback = Setback {
            unspent: true,
            state: GrantState::Active,
            state_reason: String::new(),
            not_before: Some(now.plus(wait)),
            next_refresh_at: Some(now.plus(wait)),
            last_error: detail.to_owned(),
            at: now,
        };
        self.set_back(&leased, &setback, None).await?;
        Err(Failure::Unavailable {
            retry_after: wait,
            detail: detail.to_owned(),
        })
    }

    /// Writes down why there are no new tokens, unless the row has newer ones by now.
    async fn fail(
        &self,
        leased: &Leased,
        failure: oauth::Failure,
        record: &mut RefreshAttempt,
    ) -> Outcome {
        let verdict = self.judge(leased, failure);
        record.outcome = verdict.outcome;
        record.error_code = verdict.code;
        record.error_message = verdict.message;
        let written = self
            .set_back(leased, &verdict.setback, Some(record))
            .await?;
        if written {
            return Err(verdict.failure);
        }
        // The lease was lost meanwhile. If somebody else's refresh went through, theirs was the
        // attempt that counted, and this failure is its echo.
        let grant = &leased.grant;
        let mut conn = self.store.read().await?;
        let found = store::grants::find(&mut conn, &grant.tenant, &grant.id).await?;
        if let Some(failure) = found.as_ref().and_then(ended) {
            return Err(failure);
        }
        match found {
            Some(newer) if newer.generation != grant.generation => self.opened(newer),
            Some(_) => Err(verdict.failure),
            None => Err(Failure::Gone),
        }
    }

    /// What a failure means for the grant.
    fn judge(&self, leased: &Leased, failure: oauth::Failure) -> Verdict {
        let now = self.clock.now();
        let grant = &leased.grant;
        let wait = self.vault.backoff(grant.failure_count);
        let transient = |wait: std::time::Duration, code: String, message: String| {
            let until = now.plus(wait);
            Verdict {
                outcome: RefreshOutcome::Transient,
                setback: setback(now, Some(until), Some(until), &message),
                failure: Failure::Unavailable {
                    retry_after: wait,
                    detail: message.clone(),
                },
                code,
                message,
            }
        };
        match failure {
            oauth::Failure::NotSent { detail } => transient(wait, "not_sent".to_owned(), detail),
            oauth::Failure::Transient {
                status,
                retry_after,
                detail,
            } => {
                let code =
                    status.map_or_else(|| "transient".to_owned(), |status| status.to_string());
                let most = self.config.backoff_max;
                transient(
                    wait.max(retry_after.unwrap_or_default().min(most)),
                    code,
                    detail,
                )
            }
            oauth::Failure::Rejected { code, description } => transient(wait, code, description),
            oauth::Failure::Ambiguous { detail } if leased.provider.rotation == Rotation::Never => {
                transient(wait, "no_answer".to_owned(), detail)
            }
            oauth::Failure::Ambiguous { detail } => {
                // Looked at again when the held token has ended and nobody has brought a result,
                // or at once where the provider's grace admits it.
                let grace = !leased.provider.reuse_grace.is_zero();
                let again = if grace {
                    now.plus(wait)
                } else {
                    later(grant.expires_at, now.plus(self.config.ambiguous_hold))
                };
                let mut setback = setback(now, grace.then(|| now.plus(wait)), Some(again), &detail);
                setback.unspent = false;
                Verdict {
                    outcome: RefreshOutcome::Ambiguous,
                    setback,
                    failure: Failure::Unavailable {
                        retry_after: if grace { wait } else { again.since(now) },
                        detail: detail.clone(),
                    },
                    code: "no_answer".to_owned(),
                    message: detail,
                }
            }
            oauth::Failure::GrantDead { code, description } => {
                let mut setback = setback(now, None, None, &code);
                setback.state = GrantState::ReauthorizationRequired;
                setback.state_reason.clone_from(&code);
                Verdict {
                    outcome: RefreshOutcome::GrantDead,
                    setback,
                    failure: Failure::Dead {
                        reason: code.clone(),
                    },
                    code,
                    message: description,
                }
            }
            oauth::Failure::ClientMisconfigured { code, description } => Verdict {
                outcome: RefreshOutcome::ClientMisconfigured,
                // Out of the due index until the app is mended; a caller may try after a while.
                setback: setback(
                    now,
                    Some(now.plus(wait.max(MISCONFIGURED_WAIT))),
                    None,
                    &code,
                ),
                failure: Failure::Misconfigured { code: code.clone() },
                code,
                message: description,
            },
        }
    }
}

/// How long a grant waits after its app was refused, before a caller's request tries again.
const MISCONFIGURED_WAIT: Duration = Duration::from_secs(60);

fn setback(
    now: Timestamp,
    not_before: Option<Timestamp>,
    next_refresh_at: Option<Timestamp>,
    last_error: &str,
) -> Setback {
    Setback {
        unspent: true,
        state: GrantState::Active,
        state_reason: String::new(),
        not_before,
        next_refresh_at,
        last_error: last_error.to_owned(),
        at: now,
    }
}
