//! Tokens that wait on their authorisation: sealed there before anything else can fail, with the
//! account behind them once that is known.

use serde_json::{Map, Value, json};

use super::Authorizations;
use crate::broker::token_set::TokenSet;
use crate::crypto::{Context, Purpose};
use crate::error::Error;
use crate::model::{Authorization, Sealed};
use crate::oauth::Identity;

/// Where the account stands in the sealed metadata: no name that a provider's definition can have,
/// since those become part of a grant.
const ACCOUNT: &str = "\u{0}account";

impl Authorizations {
    /// Seals tokens for their authorisation.
    pub(super) fn stage(
        &self,
        authorization: &Authorization,
        tokens: &TokenSet,
        identity: Option<&Identity>,
    ) -> Result<Sealed, Error> {
        let mut tokens = tokens.clone();
        if let Some(identity) = identity {
            tokens
                .metadata
                .insert(ACCOUNT.to_owned(), written(identity));
        }
        let plaintext = tokens.to_json().map_err(Error::internal)?;
        Ok(self
            .vault
            .keyring()
            .seal(&context(authorization), &plaintext)?)
    }

    /// Opens the tokens that wait on an authorisation, and the account where it was known.
    pub(super) fn staged(
        &self,
        authorization: &Authorization,
    ) -> Result<(TokenSet, Option<Identity>), Error> {
        let Some(sealed) = &authorization.tokens else {
            return Err(Error::internal("an authorization without its tokens"));
        };
        let plaintext = self.vault.keyring().open(&context(authorization), sealed)?;
        let mut tokens = TokenSet::from_json(&plaintext).map_err(Error::internal)?;
        let identity = tokens
            .metadata
            .remove(ACCOUNT)
            .map(|account| read(&account));
        Ok((tokens, identity))
    }
}

fn context(authorization: &Authorization) -> Context<'_> {
    Context {
        tenant: &authorization.tenant,
        purpose: Purpose::AuthorizationTokens,
        row: &authorization.id,
    }
}

fn written(identity: &Identity) -> Value {
    json!({
        "account_id": identity.account_id,
        "display_name": identity.display_name,
        "avatar_url": identity.avatar_url,
        "email": identity.email,
        "metadata": identity.metadata,
    })
}

fn read(account: &Value) -> Identity {
    let text = |name: &str| account.get(name).and_then(Value::as_str).map(str::to_owned);
    Identity {
        account_id: text("account_id"),
        display_name: text("display_name"),
        avatar_url: text("avatar_url"),
        email: text("email"),
        metadata: account
            .get("metadata")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_else(Map::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_survives_its_wait() {
        let mut metadata = Map::new();
        metadata.insert("team_id".to_owned(), Value::from("T1"));
        let identity = Identity {
            account_id: Some("42".to_owned()),
            display_name: Some("Ada".to_owned()),
            avatar_url: None,
            email: Some("ada@example.com".to_owned()),
            metadata,
        };
        assert_eq!(read(&written(&identity)), identity);
        assert_eq!(read(&written(&Identity::default())), Identity::default());
    }
}
