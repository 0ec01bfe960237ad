//! Sign-ins through a provider: the way of a connection as far as the account, and no further. The
//! tokens are dropped where they arrive; they are not revoked, since some providers end the whole
//! consent of a person with one token, and their connections with it.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::finish::Finished;
use super::{Authorizations, Flow, require_active, wrong_state};
use crate::access::audit::{self, Action, Entry};
use crate::access::{Caller, Permission};
use crate::broker::token_set::TokenSet;
use crate::crypto::{digest, random};
use crate::error::{Error, Precondition, Resource};
use crate::model::{
    Authorization, AuthorizationFailure, AuthorizationIntent, AuthorizationMode,
    AuthorizationState, ConnectionKind, IdKind, NotProved, ProvedAccount, Provider, RefreshPolicy,
};
use crate::store::{self, transact};

/// How long the code is good for at most: what brought it to the browser redeems it at once (RFC 6749
/// section 4.1.2).
const CODE_TTL: Duration = Duration::from_secs(10 * 60);

/// How far back sign-ins that wait count against an app's limit. Visitors whom nobody knows begin them:
/// were all counted that wait, a slow trickle of clicks could keep everybody out until the last link had
/// lapsed.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// Scopes that ask for a refresh token.
const OFFLINE_SCOPES: [&str; 3] = ["offline_access", "offline.access", "offline"];

/// Parameters that ask for a refresh token, for consent anew, or for what was granted before.
const OFFLINE_PARAMETERS: [(&str, &str); 5] = [
    ("access_type", "offline"),
    ("token_access_type", "offline"),
    ("duration", "permanent"),
    ("prompt", "consent"),
    ("include_granted_scopes", "true"),
];

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct NewSignIn {
    /// The app's id, client id or external key.
    pub app: String,
    /// Where the browser goes at the end: exactly one of the app's.
    pub return_url: String,
    /// Which account to preselect; may be empty.
    pub login_hint: String,
}

/// A sign-in that was begun.
#[derive(Clone, Debug)]
pub struct SignInStarted {
    /// What was begun.
    pub authorization: Authorization,
    /// The link for the browser. A secret.
    pub link: SecretString,
}

impl Authorizations {
    /// Begins a sign-in.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::PermissionDenied`] for the app; [`Error::InvalidArgument`]
    /// for a return URL that is not the app's; `APP_INACTIVE`, `APP_MISCONFIGURED`,
    /// `NOT_A_SIGN_IN_PROVIDER`; [`Error::ResourceExhausted`] when too many of the app's that were
    /// begun within the last minute still wait for the person; or the store's.
    pub async fn start_sign_in(
        &self,
        caller: &Caller,
        new: NewSignIn,
    ) -> Result<SignInStarted, Error> {
        caller.require(Permission::SignOthersIn)?;
        let mut conn = self.store.read().await?;
        let app = self
            .registry
            .app(&mut conn, &caller.tenant, &new.app)
            .await?
            .filter(|app| caller.allows_app(&app.id, &app.provider))
            .ok_or_else(|| {
                let missing = Error::NotFound(Resource::App, new.app.clone());
                caller.hidden(Permission::SignOthersIn, missing)
            })?;
        require_active(&app)?;
        let provider = self
            .registry
            .provider(&mut conn, &app.tenant, &app.provider)
            .await?;
        drop(conn);
        if provider.kind != ConnectionKind::Oauth2 || provider.userinfo.is_none() {
            return Err(Error::precondition(
                Precondition::NotASignInProvider,
                format!(
                    "{} does not tell whose account it is; take another provider to sign in",
                    provider.display_name
                ),
            ));
        }
        if !app.allowed_return_urls.contains(&new.return_url) {
            return Err(Error::invalid(
                "return_url",
                "is not one of the app's allowed return URLs",
            ));
        }
        let provider = for_identity(&provider);
        let redirect_uri = self.redirect_uri(&app, "");
        let client = self.registry.client(&app, &provider, Some(redirect_uri))?;
        let asked = if provider.default_scopes.is_empty() {
            without_offline(&app.default_scopes)
        } else {
            provider.default_scopes.clone()
        };
        let now = self.clock.now();
        let ticket = random::random_token(32);
        let authorization = Authorization {
            id: IdKind::Authorization.new_id(),
            tenant: app.tenant.clone(),
            app_id: app.id.clone(),
            intent: AuthorizationIntent::SignIn,
            owner: String::new(),
            mode: AuthorizationMode::Confirmed,
            state: AuthorizationState::Pending,
            ticket_hash: Some(digest::sha256(ticket.expose_secret().as_bytes()).to_vec()),
            scopes: client.requested_scopes(&asked),
            return_url: new.return_url,
            redirect_uri: String::new(),
            login_hint: new.login_hint,
            parameters: std::collections::BTreeMap::new(),
            refresh_policy: RefreshPolicy::OnDemand,
            renews: None,
            connection_id: None,
            tokens: None,
            account_id: String::new(),
            confirmation_hash: None,
            failure: AuthorizationFailure::default(),
            created_by: caller.id.clone(),
            created_at: now,
            updated_at: now,
            expires_at: now.plus(self.config.ttl),
        };
        // What the provider would refuse is told to the caller, not to the person.
        self.mint(&authorization, &client, false, authorization.expires_at)?;
        let entry = Entry::new(Action::SessionSignInStarted, caller)
            .on("authorization", &authorization.id)
            .provider(&app.provider)
            .detail("app_id", &app.id);
        let most = i64::from(self.config.max_pending_sign_ins_per_app);
        transact!(self.store, |tx| {
            let Authorization { tenant, app_id, .. } = &authorization;
            let after = now.minus(COUNTED_FOR);
            let pending =
                store::authorizations::pending_sign_ins(&mut tx, tenant, app_id, after).await?;
            if pending >= most {
                return Err(Error::ResourceExhausted {
                    message: format!(
                        "{most} sign-ins of the app that were begun within a minute still wait"
                    ),
                    retry_after: COUNTED_FOR,
                });
            }
            store::authorizations::insert(&mut tx, &authorization).await?;
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })?;
        let link = format!("{}connect/{}", self.public_url, ticket.expose_secret());
        Ok(SignInStarted {
            authorization,
            link: SecretString::from(link),
        })
    }

    /// Learns the account behind fresh tokens, which end here, and gives the browser its code.
    pub(super) async fn prove(&self, flow: &Flow, tokens: TokenSet) -> Result<Finished, Error> {
        let identity = self.identity(&flow.client, &tokens).await;
        drop(tokens);
        let identity = identity.unwrap_or_default();
        let from = AuthorizationState::Pending;
        let Some(account_id) = identity.account_id.filter(|id| !id.is_empty()) else {
            let failure = AuthorizationFailure {
                reason: "IDENTITY_UNKNOWN".to_owned(),
                message: "the provider did not tell whose account it is".to_owned(),
                ..AuthorizationFailure::default()
            };
            let entry = flow.entry(Action::AuthorizationCompleted);
            let failed = self.fail(&flow.authorization, from, failure, entry).await?;
            return Ok(Finished::without_code(failed));
        };
        let code = random::random_token(32);
        let now = self.clock.now();
        let ttl = self.config.confirmation_ttl.min(CODE_TTL);
        let proved = Authorization {
            state: AuthorizationState::AwaitingConfirmation,
            account_id,
            confirmation_hash: Some(digest::sha256(code.expose_secret().as_bytes()).to_vec()),
            updated_at: now,
            expires_at: now.plus(ttl),
            ..flow.authorization.clone()
        };
        let first = transact!(self.store, |tx| {
            let first = store::authorizations::advance(&mut tx, &proved, from).await?;
            if first {
                let entry = flow.entry(Action::AuthorizationCompleted);
                self.record(&mut tx, &entry).await?;
            }
            Ok(first)
        })?;
        if !first {
            return Err(wrong_state("the sign-in was finished meanwhile"));
        }
        Ok(Finished {
            authorization: proved,
            code: Some(code),
            account: identity.display_name,
        })
    }

    /// Redeems the code of a sign-in, once: the account that it proves.
    ///
    /// # Errors
    /// The store's, or [`Error::Internal`].
    pub async fn redeem_sign_in(
        &self,
        tenant: &str,
        id: &str,
        code: &SecretString,
    ) -> Result<Result<ProvedAccount, NotProved>, Error> {
        let mut conn = self.store.read().await?;
        let found = store::authorizations::find(&mut conn, tenant, id).await?;
        let told = digest::sha256(code.expose_secret().as_bytes());
        let Some(proved) = found.filter(|found| found.intent == AuthorizationIntent::SignIn) else {
            return Ok(Err(NotProved::Unknown));
        };
        let expected = proved.confirmation_hash.as_deref();
        if !expected.is_some_and(|expected| digest::constant_time_eq(expected, &told)) {
            return Ok(Err(NotProved::CodeInvalid));
        }
        let waits = proved.state == AuthorizationState::AwaitingConfirmation;
        if !waits || self.has_lapsed(&proved) {
            return Ok(Err(NotProved::CodeSpent));
        }
        let app = self
            .registry
            .app(&mut conn, tenant, &proved.app_id)
            .await?
            .ok_or_else(|| Error::NotFound(Resource::App, proved.app_id.clone()))?;
        drop(conn);
        // The hash stays: that the code was right, and is spent, can still be told apart.
        let redeemed = Authorization {
            state: AuthorizationState::Succeeded,
            updated_at: self.clock.now(),
            ..proved.clone()
        };
        let first = transact!(self.store, |tx| {
            let from = AuthorizationState::AwaitingConfirmation;
            Ok(store::authorizations::advance(&mut tx, &redeemed, from).await?)
        })?;
        if !first {
            return Ok(Err(NotProved::CodeSpent));
        }
        Ok(Ok(ProvedAccount {
            provider: app.provider,
            account_id: proved.account_id,
            variables: app.variables,
        }))
    }
}

/// The provider as a sign-in asks it: who it is, and nothing that lasts.
pub(super) fn for_identity(provider: &Provider) -> Provider {
    let mut provider = provider.clone();
    provider.default_scopes = without_offline(&provider.default_scopes);
    provider.authorization_params.retain(|name, value| {
        let pair = (name.as_str(), value.as_str());
        !OFFLINE_PARAMETERS.contains(&pair)
    });
    provider
}

fn without_offline(scopes: &[String]) -> Vec<String> {
    let lasting = |scope: &String| OFFLINE_SCOPES.contains(&scope.as_str());
    scopes
        .iter()
        .filter(|scope| !lasting(scope))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn nothing_that_lasts_is_asked_for() {
        let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let provider = Provider {
            default_scopes: vec!["openid".to_owned(), "offline_access".to_owned()],
            authorization_params: pairs(&[
                ("access_type", "offline"),
                ("prompt", "consent"),
                ("response_mode", "query"),
            ]),
            ..Provider::default()
        };
        let asked = for_identity(&provider);
        assert_eq!(asked.default_scopes, ["openid"]);
        assert_eq!(
            asked.authorization_params,
            pairs(&[("response_mode", "query")])
        );
    }
}
