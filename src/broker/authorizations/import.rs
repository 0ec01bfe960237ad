//! Taking over credentials that were obtained elsewhere.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::Map;

use super::adopt::Adoption;
use super::{Authorizations, require_active};
use crate::access::audit::Who;
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::broker::token_set::TokenSet;
use crate::error::Error;
use crate::model::{
    App, ConnectionDetails, ConnectionKind, ConnectionState, IdKind, Provider, RefreshPolicy,
    Timestamp,
};
use crate::oauth::Identity;
use crate::store::{self, transact};

/// Credentials to take over.
#[derive(Clone, Debug)]
pub enum Imported {
    /// OAuth 2.0 tokens, one of them at least.
    OAuth2 {
        /// The access token.
        access_token: Option<SecretString>,
        /// The refresh token.
        refresh_token: Option<SecretString>,
        /// When the access token ends, where known.
        expires_at: Option<Timestamp>,
        /// The scopes granted.
        scopes: Vec<String>,
        /// How the token is sent; `Bearer` when empty.
        token_type: String,
    },
    /// An OAuth 1.0a token.
    OAuth1 {
        /// The token.
        token: SecretString,
        /// Its secret.
        token_secret: SecretString,
    },
    /// An API key.
    ApiKey {
        /// The key.
        key: SecretString,
    },
}

impl Imported {
    fn kind(&self) -> ConnectionKind {
        match self {
            Self::OAuth2 { .. } => ConnectionKind::Oauth2,
            Self::OAuth1 { .. } => ConnectionKind::Oauth1,
            Self::ApiKey { .. } => ConnectionKind::ApiKey,
        }
    }

    fn tokens(&self, provider: &Provider, now: Timestamp) -> TokenSet {
        let mut tokens = TokenSet {
            sent_at: now,
            access_token: None,
            refresh_token: None,
            id_token: None,
            token_secret: None,
            token_type: String::new(),
            expires_at: None,
            refresh_expires_at: None,
            scopes: None,
            metadata: Map::new(),
        };
        match self {
            Self::OAuth2 {
                access_token,
                refresh_token,
                expires_at,
                scopes,
                token_type,
            } => {
                tokens.access_token.clone_from(access_token);
                tokens.refresh_token.clone_from(refresh_token);
                // Without an access token there is one to fetch at once.
                tokens.expires_at = match access_token {
                    Some(_) => *expires_at,
                    None => Some(now),
                };
                tokens.scopes = (!scopes.is_empty()).then(|| scopes.clone());
                let bearer = if token_type.is_empty() {
                    "Bearer"
                } else {
                    token_type
                };
                bearer.clone_into(&mut tokens.token_type);
            }
            Self::OAuth1 {
                token,
                token_secret,
            } => {
                tokens.access_token = Some(token.clone());
                tokens.token_secret = Some(token_secret.clone());
                "OAuth".clone_into(&mut tokens.token_type);
            }
            Self::ApiKey { key } => {
                tokens.access_token = Some(key.clone());
                tokens.token_type.clone_from(&provider.token_header.name);
            }
        }
        tokens
    }
}

/// What to import.
#[derive(Clone, Debug)]
pub struct NewImport {
    /// The app's id, client id or external key.
    pub app: String,
    /// Whom the connection belongs to.
    pub owner: String,
    /// The account's id at the provider; looked up when empty, where that is possible.
    pub account_id: String,
    /// The account's name for people; the provider's when empty.
    pub display_name: String,
    /// What is imported.
    pub credentials: Imported,
    /// How the tokens are to be kept fresh; always when not said.
    pub refresh_policy: Option<RefreshPolicy>,
    /// The caller's labels. None leave those of a connection that is there already.
    pub labels: BTreeMap<String, String>,
}

impl Authorizations {
    /// Imports credentials as an active connection, or repeats the answer of the request that did.
    /// The same account of the same owner gets its tokens replaced.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for credentials of another kind than the provider's;
    /// [`Error::NotFound`], [`Error::PermissionDenied`]; `APP_INACTIVE`, `APP_MISCONFIGURED`; or
    /// the store's.
    pub async fn import(
        &self,
        caller: &Caller,
        new: NewImport,
        once: Option<Once<'_>>,
    ) -> Result<ConnectionDetails, Error> {
        let now = self.clock.now();
        let once = once.as_ref();
        let create = self.take_in(caller, &new, once, now);
        let id =
            match requests::answer(&self.store, self.vault.keyring(), once, now, create).await? {
                Outcome::Made(id) => id,
                Outcome::Before(replayed) => replayed.resource_id,
            };
        self.details(&caller.tenant, &id).await
    }

    /// The connection's id; `None`: a concurrent retry was first.
    async fn take_in(
        &self,
        caller: &Caller,
        new: &NewImport,
        once: Option<&Once<'_>>,
        now: Timestamp,
    ) -> Result<Option<String>, Error> {
        let mut conn = self.store.read().await?;
        let permission = Permission::ImportConnections;
        let app = self
            .app_allowed(&mut conn, caller, &new.app, &new.owner, permission)
            .await?;
        require_active(&app)?;
        let provider = self
            .registry
            .provider(&mut conn, &app.tenant, &app.provider)
            .await?;
        drop(conn);
        require_kind(&provider, &new.credentials)?;
        let tokens = new.credentials.tokens(&provider, now);
        let identity = self.account(&app, &provider, new, &tokens).await?;
        let scopes = tokens.scopes.clone().unwrap_or_default();
        let account_key = identity.account_id.clone().unwrap_or_default();
        let keyring = self.vault.keyring();
        let who = Who::from(caller);
        let made = transact!(self.store, |tx| {
            let fresh_id = IdKind::Connection.new_id();
            let existing = if account_key.is_empty() {
                None
            } else {
                let owner = &new.owner;
                store::connections::find_account(&mut tx, &app.tenant, &app.id, owner, &account_key)
                    .await?
            };
            let id = existing
                .as_ref()
                .map_or(fresh_id, |existing| existing.id.clone());
            // A concurrent retry waits here, for the id of what it will find made.
            if let Some(once) = once
                && !requests::remember(&mut tx, keyring, once, &id, None, now).await?
            {
                return Ok(None);
            }
            let adoption = Adoption {
                app: &app,
                provider: &provider,
                kind: provider.kind,
                owner: &new.owner,
                tokens: &tokens,
                identity: &identity,
                account_key: account_key.clone(),
                requested_scopes: &scopes,
                policy: new
                    .refresh_policy
                    .or(existing.as_ref().map(|existing| existing.refresh_policy))
                    .unwrap_or_default(),
                state: ConnectionState::Active,
                existing: existing.map(|existing| existing.id),
                new_id: id,
                display_name: &new.display_name,
                labels: (!new.labels.is_empty()).then_some(&new.labels),
                who: &who,
                authorization: None,
            };
            let connection = self.adopt(&mut tx, &adoption).await?;
            Ok(Some(connection.id))
        })?;
        self.poke.notify_one();
        Ok(made)
    }

    /// The account as the caller names it, else as the provider tells.
    async fn account(
        &self,
        app: &App,
        provider: &Provider,
        new: &NewImport,
        tokens: &TokenSet,
    ) -> Result<Identity, Error> {
        if !new.account_id.is_empty() {
            return Ok(Identity {
                account_id: Some(new.account_id.clone()),
                ..Identity::default()
            });
        }
        let client = self.registry.client(app, provider, None)?;
        Ok(self.identity(&client, tokens).await.unwrap_or_default())
    }
}

fn require_kind(provider: &Provider, credentials: &Imported) -> Result<(), Error> {
    if provider.kind == credentials.kind() {
        return Ok(());
    }
    let wanted = match provider.kind {
        ConnectionKind::Oauth2 => "oauth2",
        ConnectionKind::Oauth1 => "oauth1",
        ConnectionKind::ApiKey => "api_key",
    };
    Err(Error::invalid(
        "credentials",
        format!("{} takes `{wanted}`", provider.display_name),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1);

    #[test]
    fn credentials_fit_their_provider() {
        let provider = Provider {
            kind: ConnectionKind::ApiKey,
            ..Provider::default()
        };
        let key = Imported::ApiKey {
            key: SecretString::from("k"),
        };
        assert!(require_kind(&provider, &key).is_ok());
        assert!(require_kind(&Provider::default(), &key).is_err());
        assert_eq!(key.tokens(&provider, NOW).token_type, "Authorization");
    }

    #[test]
    fn a_lone_refresh_token_is_used_at_once() {
        let lone = Imported::OAuth2 {
            access_token: None,
            refresh_token: Some(SecretString::from("r")),
            expires_at: None,
            scopes: Vec::new(),
            token_type: String::new(),
        };
        let tokens = lone.tokens(&Provider::default(), NOW);
        assert_eq!(tokens.expires_at, Some(NOW));
        assert_eq!(tokens.token_type, "Bearer");
        assert_eq!(tokens.scopes, None);
    }
}
