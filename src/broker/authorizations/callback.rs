//! The way back from the provider: whose answer it is, and what it is worth.
//!
//! What is refused here changes nothing. Once the state is spent, every end is written down: a
//! failure as one, tokens before anything else can go wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use super::answer::{
    METADATA_MAX, Parameters, Verdict, nonce_matches, printable, refused_exchange, verdict,
};
use super::finish::Finished;
use super::trail::failed as failed_entry;
use super::{Authorizations, Flow, require_active, require_connecting, require_owner, wrong_state};
use crate::access::audit::{Action, Who};
use crate::access::{Caller, Origin};
use crate::broker::token_set::TokenSet;
use crate::crypto::{Context, Purpose, digest};
use crate::error::{Error, Precondition};
use crate::model::{
    Authorization, AuthorizationFailure, AuthorizationIntent, AuthorizationState,
    ConnectionDetails, Sealed, Visit,
};
use crate::oauth::Failure;
use crate::store::{self, transact};

/// Longest state that is looked up, in bytes; ours have 43.
const STATE_MAX: usize = 256;
/// How long tokens are tried to be written down while the database is away.
const KEEP_PATIENCE: Duration = Duration::from_secs(30);

/// Where a callback leads the browser.
pub enum CallbackOutcome {
    /// Back to the caller's product. May hold the confirmation code: not to be logged.
    Return(Url),
    /// To our own closing page.
    Connected {
        /// The provider's name for people.
        provider: String,
        /// The account's name, where it is known.
        account: Option<String>,
    },
    /// To our own page about a failure.
    Failed {
        /// The authorisation's id.
        authorization_id: String,
        /// Why.
        failure: AuthorizationFailure,
        /// The provider's name for people.
        provider: String,
    },
}

/// What names a visit to its browser: the first 16 hexadecimal digits of the state's hash.
pub fn browser_key(state: &str) -> String {
    let mut key = digest::hex(&digest::sha256(state.as_bytes()));
    key.truncate(16);
    key
}

/// A visit's secrets, opened.
struct Opened {
    verifier: Option<SecretString>,
    nonce: Option<SecretString>,
}

impl Authorizations {
    /// Takes the browser back from the provider. `app_id` is the one in the path, `cookie` the
    /// value that the visit tied the browser with, `origin` where the browser comes from.
    ///
    /// # Errors
    /// `STATE_INVALID`, `BROWSER_MISMATCH`, `AUTHORIZATION_STATE` or [`Error::InvalidArgument`],
    /// after which nothing has changed; `APP_INACTIVE`, `APP_MISCONFIGURED`; or the store's.
    pub async fn callback(
        &self,
        app_id: &str,
        parameters: Vec<(String, String)>,
        cookie: Option<&str>,
        origin: &Origin,
    ) -> Result<CallbackOutcome, Error> {
        let parameters = Parameters::of(parameters)?;
        let (visit, authorization) = self.recognise(&parameters).await?;
        // Each app has its own path, so that a code from one provider is never sent to another.
        if authorization.app_id != app_id || !authorization.redirect_uri.is_empty() {
            return Err(unknown_state());
        }
        require_browser(&visit, cookie)?;
        let who = Who::browser(&authorization.id, &authorization.tenant, origin);
        let (provider, finished) = self.receive(visit, authorization, &parameters, who).await?;
        self.outcome(provider, finished)
    }

    /// Finishes an authorisation whose redirect URI is the caller's own.
    ///
    /// # Errors
    /// Those of [`Authorizations::callback`] but for the browser; [`Error::NotFound`],
    /// [`Error::PermissionDenied`]; `OWNER_MISMATCH`, after which nothing has changed.
    pub async fn complete(
        &self,
        caller: &Caller,
        id: &str,
        owner: &str,
        parameters: BTreeMap<String, String>,
    ) -> Result<(Authorization, Option<ConnectionDetails>), Error> {
        let mut conn = self.store.read().await?;
        let expected = self.find_allowed(&mut conn, caller, id).await?;
        drop(conn);
        let outcome = self
            .try_complete(caller, &expected, owner, parameters)
            .await;
        let action = Action::AuthorizationCompleted;
        self.record_refusal(action, caller, &expected, &outcome)
            .await;
        outcome
    }

    async fn try_complete(
        &self,
        caller: &Caller,
        expected: &Authorization,
        owner: &str,
        parameters: BTreeMap<String, String>,
    ) -> Result<(Authorization, Option<ConnectionDetails>), Error> {
        require_connecting(expected)?;
        require_owner(expected, owner)?;
        if expected.redirect_uri.is_empty() {
            return Err(wrong_state(
                "the authorization has no redirect URI of the caller's; its callback is ours",
            ));
        }
        let parameters = Parameters::of(parameters)?;
        let (visit, authorization) = self.recognise(&parameters).await?;
        if authorization.id != expected.id || authorization.tenant != expected.tenant {
            return Err(unknown_state());
        }
        let (_, finished) = self
            .receive(visit, authorization, &parameters, Who::from(caller))
            .await?;
        let authorization = finished.authorization;
        let connection = match &authorization.connection_id {
            Some(id) if authorization.state == AuthorizationState::Succeeded => {
                let mut conn = self.store.read().await?;
                store::connections::find_details(&mut conn, &authorization.tenant, id).await?
            }
            _ => None,
        };
        Ok((authorization, connection))
    }

    /// The visit that the state belongs to. Says nothing about why there is none.
    async fn recognise(&self, parameters: &Parameters) -> Result<(Visit, Authorization), Error> {
        let state = parameters
            .get("state")
            .filter(|state| state.len() <= STATE_MAX)
            .ok_or_else(unknown_state)?;
        let hash = digest::sha256(state.as_bytes());
        let mut conn = self.store.read().await?;
        let visit = store::authorizations::any_tenant_find_visit(&mut conn, &hash)
            .await?
            .filter(|visit| visit.expires_at > self.clock.now())
            .ok_or_else(unknown_state)?;
        let id = &visit.authorization_id;
        let authorization = store::authorizations::find(&mut conn, &visit.tenant, id)
            .await?
            .ok_or_else(unknown_state)?;
        Ok((visit, authorization))
    }

    /// Judges the answer, spends the state, redeems the code, and finishes.
    async fn receive(
        &self,
        visit: Visit,
        authorization: Authorization,
        parameters: &Parameters,
        who: Who,
    ) -> Result<(String, Finished), Error> {
        if authorization.state != AuthorizationState::Pending || self.has_lapsed(&authorization) {
            return Err(wrong_state("the authorization was finished, or has lapsed"));
        }
        let flow = self.flow(authorization, who).await?;
        require_active(&flow.app)?;
        let verdict = verdict(flow.client.provider(), parameters)?;
        let opened = self.open(&visit)?;
        let finished = match verdict {
            Verdict::Failure(failure) => {
                let authorization = self.spend_and_fail(&visit, &flow, failure).await?;
                Finished::without_code(authorization)
            }
            Verdict::Code(code) => {
                self.spend(&visit).await?;
                self.redeem(&flow, &code, &opened, parameters).await?
            }
        };
        Ok((flow.provider.display_name, finished))
    }

    fn open(&self, visit: &Visit) -> Result<Opened, Error> {
        let row = digest::hex(&visit.state_hash);
        let open = |purpose, sealed: &Option<Sealed>| -> Result<Option<SecretString>, Error> {
            let Some(sealed) = sealed else {
                return Ok(None);
            };
            let context = Context {
                tenant: &visit.tenant,
                purpose,
                row: &row,
            };
            Ok(Some(self.vault.keyring().open_text(&context, sealed)?))
        };
        Ok(Opened {
            verifier: open(Purpose::AuthorizationVerifier, &visit.verifier)?,
            nonce: open(Purpose::AuthorizationNonce, &visit.nonce)?,
        })
    }

    async fn spend(&self, visit: &Visit) -> Result<(), Error> {
        transact!(self.store, |tx| {
            let now = self.clock.now();
            if store::authorizations::use_visit(&mut tx, &visit.state_hash, now).await? {
                Ok(())
            } else {
                Err(unknown_state())
            }
        })
    }

    async fn spend_and_fail(
        &self,
        visit: &Visit,
        flow: &Flow,
        failure: AuthorizationFailure,
    ) -> Result<Authorization, Error> {
        let entry = flow.entry(Action::AuthorizationCompleted);
        let entry = failed_entry(entry, &failure);
        let failed = self.failed(&flow.authorization, failure);
        transact!(self.store, |tx| {
            let now = self.clock.now();
            if !store::authorizations::use_visit(&mut tx, &visit.state_hash, now).await? {
                return Err(unknown_state());
            }
            let from = AuthorizationState::Pending;
            if store::authorizations::advance(&mut tx, &failed, from).await? {
                self.record(&mut tx, &entry).await?;
                Ok(failed.clone())
            } else {
                Err(wrong_state("the authorization was finished meanwhile"))
            }
        })
    }

    /// Exchanges the code and keeps what it brings.
    async fn redeem(
        &self,
        flow: &Flow,
        code: &SecretString,
        opened: &Opened,
        parameters: &Parameters,
    ) -> Result<Finished, Error> {
        let Flow {
            authorization,
            client,
            ..
        } = flow;
        let sent_at = self.clock.now();
        let exchange = client.exchange_code(&self.http, code, opened.verifier.as_ref());
        let answer = match tokio::time::timeout(client.total_timeout(), exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => return self.refuse(flow, refused_exchange(&failure)).await,
            Err(_) => {
                let late = Failure::Ambiguous {
                    detail: "no answer within the deadline".to_owned(),
                };
                return self.refuse(flow, refused_exchange(&late)).await;
            }
        };
        let mut tokens = TokenSet::of_answer(answer, client.provider(), sent_at);
        for name in &client.provider().callback_metadata {
            if let Some(value) = parameters.get(name) {
                let value = printable(value, METADATA_MAX);
                tokens.metadata.insert(name.clone(), Value::String(value));
            }
        }
        if !nonce_matches(opened.nonce.as_ref(), tokens.id_token.as_ref()) {
            let failure = AuthorizationFailure {
                reason: "NONCE_MISMATCH".to_owned(),
                message: "the provider's ID token belongs to another sign-in".to_owned(),
                ..AuthorizationFailure::default()
            };
            let finished = self.refuse(flow, failure).await;
            if authorization.intent == AuthorizationIntent::Connect {
                self.discard(client, &tokens).await;
            }
            return finished;
        }
        if authorization.intent == AuthorizationIntent::SignIn {
            self.mend(flow).await;
            return self.prove(flow, tokens).await;
        }
        let kept = self.keep(authorization, &tokens).await?;
        if kept.state != AuthorizationState::Exchanged {
            // Two visits of one link were finished at once, or its time ran out, or its person was
            // erased meanwhile. Tokens of a consent that somebody else's success rests on are left alone.
            if matches!(
                kept.state,
                AuthorizationState::Expired | AuthorizationState::Failed
            ) {
                self.discard_owned(flow, &tokens, None).await;
            }
            return Err(wrong_state("the authorization was finished meanwhile"));
        }
        self.mend(flow).await;
        self.finish(flow, kept).await
    }

    async fn refuse(&self, flow: &Flow, failure: AuthorizationFailure) -> Result<Finished, Error> {
        let from = AuthorizationState::Pending;
        let entry = flow.entry(Action::AuthorizationCompleted);
        let failed = self.fail(&flow.authorization, from, failure, entry).await?;
        Ok(Finished::without_code(failed))
    }

    /// Writes the tokens down on their authorisation, trying for a while when the database is
    /// away: the code is spent, and this is the only copy.
    async fn keep(
        &self,
        authorization: &Authorization,
        tokens: &TokenSet,
    ) -> Result<Authorization, Error> {
        let exchanged = Authorization {
            state: AuthorizationState::Exchanged,
            tokens: Some(self.stage(authorization, tokens, None)?),
            updated_at: self.clock.now(),
            ..authorization.clone()
        };
        let deadline = tokio::time::Instant::now() + KEEP_PATIENCE;
        let mut pause = Duration::from_millis(50);
        loop {
            let written = transact!(self.store, |tx| {
                let from = AuthorizationState::Pending;
                if store::authorizations::advance(&mut tx, &exchanged, from).await? {
                    return Ok(exchanged.clone());
                }
                // Also when the answer to our own COMMIT was lost: then these tokens stand there.
                let Authorization { tenant, id, .. } = authorization;
                let found = store::authorizations::find(&mut tx, tenant, id).await?;
                let Some(mut found) = found else {
                    // Closed and erased with its person meanwhile: nobody may use these tokens.
                    return Ok(self.expired(authorization));
                };
                if found.state == AuthorizationState::Exchanged && found.tokens != exchanged.tokens
                {
                    // Another visit's tokens: to this one it is over.
                    found.state = AuthorizationState::Succeeded;
                }
                Ok(found)
            });
            match written {
                Err(Error::Store(error)) if tokio::time::Instant::now() < deadline => {
                    tracing::warn!(%error, authorization = %authorization.id, "new tokens are not kept yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                done => return done,
            }
        }
    }

    /// The provider took the app: whatever it objected to before is mended.
    async fn mend(&self, flow: &Flow) {
        if flow.app.misconfiguration.is_empty() {
            return;
        }
        let mended = transact!(self.store, |tx| {
            self.registry
                .clear_misconfiguration(&mut tx, &flow.app)
                .await
        });
        match mended {
            Ok(()) => self.poke.notify_one(),
            Err(error) => tracing::warn!(%error, app = %flow.app.id, "the app stays marked"),
        }
    }

    fn outcome(&self, provider: String, finished: Finished) -> Result<CallbackOutcome, Error> {
        let Finished {
            authorization,
            code,
            account,
        } = finished;
        let failed = authorization.state == AuthorizationState::Failed;
        if !authorization.return_url.is_empty() {
            let mut url = Url::parse(&authorization.return_url).map_err(Error::internal)?;
            let outcome = if failed { "failure" } else { "success" };
            let mut query = url.query_pairs_mut();
            query.append_pair("authorization_id", &authorization.id);
            query.append_pair("outcome", outcome);
            if let Some(code) = code {
                let name = match authorization.intent {
                    AuthorizationIntent::Connect => "confirmation_code",
                    AuthorizationIntent::SignIn => "code",
                };
                query.append_pair(name, code.expose_secret());
            }
            drop(query);
            return Ok(CallbackOutcome::Return(url));
        }
        if failed {
            return Ok(CallbackOutcome::Failed {
                authorization_id: authorization.id,
                failure: authorization.failure,
                provider,
            });
        }
        Ok(CallbackOutcome::Connected { provider, account })
    }
}

/// The one answer to a state that is forged, spent, lapsed, or another app's.
fn unknown_state() -> Error {
    Error::precondition(
        Precondition::State,
        "the state is not known, was used already, or has lapsed",
    )
}

/// Refuses another browser than the one that was sent to the provider. Nothing is spent by that.
fn require_browser(visit: &Visit, cookie: Option<&str>) -> Result<(), Error> {
    let tied = match (&visit.cookie_hash, cookie) {
        (Some(hash), Some(cookie)) => {
            digest::constant_time_eq(hash, &digest::sha256(cookie.as_bytes()))
        }
        _ => false,
    };
    if tied {
        Ok(())
    } else {
        Err(Error::precondition(
            Precondition::BrowserMismatch,
            "another browser began this",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn the_browser_is_told_by_its_cookie() {
        let visit = |cookie_hash| Visit {
            state_hash: Vec::new(),
            tenant: "t".to_owned(),
            authorization_id: "auth_1".to_owned(),
            verifier: None,
            nonce: None,
            cookie_hash,
            created_at: Timestamp::default(),
            expires_at: Timestamp::default(),
        };
        let tied = visit(Some(digest::sha256(b"mine").to_vec()));
        assert!(require_browser(&tied, Some("mine")).is_ok());
        assert!(require_browser(&tied, Some("yours")).is_err());
        assert!(require_browser(&tied, None).is_err());
        assert!(require_browser(&visit(None), Some("mine")).is_err());
    }

    #[test]
    fn a_visit_is_named_by_its_state() {
        assert_eq!(browser_key("abc"), "ba7816bf8f01cfea");
    }
}
