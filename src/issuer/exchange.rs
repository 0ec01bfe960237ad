//! The token endpoint: who asks is judged here, and what they ask with elsewhere.

use std::time::Duration;

use secrecy::SecretString;

use super::issue::Wanted;
use super::{Credentials, Issuer, Proof, scopes};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::error::Error;
use crate::model::{ClientAuthMethod, ClientGrantType, OauthClient, OauthError, OauthErrorCode};
use crate::store::{self, transact};

/// Scopes that speak of a person: of no use to a client that acts for itself.
const OF_PERSONS: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// What a client exchanges for tokens.
#[derive(Clone, Debug)]
pub enum TokenGrant {
    /// A code.
    Code {
        /// The code.
        code: SecretString,
        /// As in the authorisation request; empty for none.
        redirect_uri: String,
        /// The PKCE verifier; empty for none.
        verifier: SecretString,
    },
    /// A refresh token.
    Refresh {
        /// The token.
        token: SecretString,
        /// Less than was granted; empty for all of it.
        scopes: Vec<String>,
    },
    /// Nothing: the client acts for itself.
    Client {
        /// Of what it may ask for; empty for all of it.
        scopes: Vec<String>,
    },
    /// A device code.
    Device {
        /// The code.
        code: SecretString,
    },
}

impl TokenGrant {
    const fn kind(&self) -> ClientGrantType {
        match self {
            Self::Code { .. } => ClientGrantType::AuthorizationCode,
            Self::Refresh { .. } => ClientGrantType::RefreshToken,
            Self::Client { .. } => ClientGrantType::ClientCredentials,
            Self::Device { .. } => ClientGrantType::DeviceCode,
        }
    }
}

/// A request for tokens.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Who asks.
    pub credentials: Credentials,
    /// With what.
    pub grant: TokenGrant,
    /// For which resources (RFC 8707), of those that were granted; empty for all of these.
    pub resources: Vec<String>,
    /// That the client holds a key (RFC 9449).
    pub proof: Option<Proof>,
}

/// Tokens for a client: here, and nowhere else.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// For resource servers.
    pub access_token: SecretString,
    /// `Bearer` or `DPoP`.
    pub token_type: &'static str,
    /// How long it lives.
    pub expires_in: Duration,
    /// For the next tokens; none where the client has none.
    pub refresh_token: Option<SecretString>,
    /// What it is good for.
    pub scopes: Vec<String>,
    /// Who the person is; none without a person or the scope `openid`.
    pub id_token: Option<SecretString>,
}

/// What a client asks with, once it is known who it is.
pub(super) struct Asked<'a> {
    pub(super) client: &'a OauthClient,
    pub(super) resources: &'a [String],
    /// The thumbprint of the key that it proved to hold; empty for none.
    pub(super) jkt: &'a str,
    pub(super) origin: &'a Origin,
}

impl Asked<'_> {
    /// The resources of the access token: those that are asked for, of those that were granted; where
    /// any was, of those that we know.
    pub(super) fn resources(
        &self,
        granted: &[String],
        known: &[String],
    ) -> Result<Vec<String>, Error> {
        // One that left the configuration is no longer ours to speak for; none at all would be good anywhere.
        let standing: Vec<String> = granted
            .iter()
            .filter(|resource| known.contains(resource))
            .cloned()
            .collect();
        if standing.is_empty() && !granted.is_empty() {
            return Err(Error::oauth(
                OauthErrorCode::InvalidTarget,
                "the resources that were granted are no longer known",
            ));
        }
        let among = if granted.is_empty() { known } else { &standing };
        let asked = self.resources.iter().map(String::as_str);
        let asked = scopes::resources(among, asked).map_err(Error::Oauth)?;
        Ok(if asked.is_empty() { standing } else { asked })
    }

    /// Who asks, for the audit trail.
    pub(super) fn who(&self) -> Who {
        Who::client(&self.client.id, &self.client.tenant, self.origin)
    }
}

impl Issuer {
    /// Gives tokens for what a client has.
    ///
    /// # Errors
    /// [`Error::Oauth`] as RFC 6749 section 5.2, RFC 8628 section 3.5, RFC 8707 and RFC 9449 have it;
    /// [`Error::RateLimited`] when the client had as many tokens as it may in an hour; or the store's.
    pub async fn exchange(&self, exchange: Exchange, origin: &Origin) -> Result<Tokens, Error> {
        let client = self.authenticate(&exchange.credentials, origin).await?;
        let outcome = self.exchange_as(&client, &exchange, origin).await;
        match outcome {
            Ok(tokens) => {
                self.usage.token(&client, self.parts.clock.now());
                Ok(tokens)
            }
            Err(Error::Oauth(refusal)) => {
                let kind = exchange.grant.kind();
                self.tell_refused(&client, kind, &refusal, origin).await?;
                Err(Error::Oauth(refusal))
            }
            Err(error) => Err(error),
        }
    }

    async fn exchange_as(
        &self,
        client: &OauthClient,
        exchange: &Exchange,
        origin: &Origin,
    ) -> Result<Tokens, Error> {
        if !client.settings.grant_types.contains(&exchange.grant.kind()) {
            return Err(Error::oauth(
                OauthErrorCode::UnauthorizedClient,
                "the client is not registered for this grant type",
            ));
        }
        let jkt = self.proved_key(client, exchange.proof.as_ref()).await?;
        let asked = Asked {
            client,
            resources: &exchange.resources,
            jkt: &jkt,
            origin,
        };
        match &exchange.grant {
            TokenGrant::Code {
                code,
                redirect_uri,
                verifier,
            } => self.redeem_code(&asked, code, redirect_uri, verifier).await,
            TokenGrant::Refresh { token, scopes } => self.refresh(&asked, token, scopes).await,
            TokenGrant::Client { scopes } => self.for_itself(&asked, scopes).await,
            TokenGrant::Device { code } => self.redeem_device(&asked, code).await,
        }
    }

    /// The thumbprint of the key that the client proves to hold; empty where it proves none.
    async fn proved_key(
        &self,
        client: &OauthClient,
        proof: Option<&Proof>,
    ) -> Result<String, Error> {
        match proof {
            Some(proof) => self.verify_proof(proof, None).await,
            None if client.settings.dpop_bound => Err(Error::oauth(
                OauthErrorCode::InvalidDpopProof,
                "the client is registered for tokens that are bound to a key: a proof is required",
            )),
            None => Ok(String::new()),
        }
    }

    /// A token for a client that acts for itself (RFC 6749 section 4.4).
    async fn for_itself(&self, asked: &Asked<'_>, wanted: &[String]) -> Result<Tokens, Error> {
        let client = asked.client;
        if client.settings.auth_method == ClientAuthMethod::None {
            return Err(Error::oauth(
                OauthErrorCode::UnauthorizedClient,
                "a public client can't act for itself",
            ));
        }
        let scopes = own_scopes(client, wanted)?;
        let resources = asked.resources(&[], &self.parts.config.resources)?;
        self.hourly.charge(client)?;
        let now = self.parts.clock.now();
        let minted = self.mint(&Wanted {
            client,
            consent: None,
            scopes,
            resources,
            jkt: asked.jkt,
            origin: asked.origin,
            now,
        })?;
        let entry = Entry::new(Action::IssuedTokens, asked.who())
            .on("client", &client.id)
            .detail("grant_type", ClientGrantType::ClientCredentials.as_str())
            .detail("token_id", &minted.access.id)
            .detail("scopes", minted.access.scopes.join(" "));
        transact!(self.parts.store, |tx| {
            store::issuer::tokens::insert(&mut tx, &minted.access).await?;
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })?;
        Ok(minted.tokens)
    }

    /// Records that a known client was refused, unless that is how it goes, or it is told too often: the
    /// id of a public client is anybody's to send.
    async fn tell_refused(
        &self,
        client: &OauthClient,
        kind: ClientGrantType,
        refusal: &OauthError,
        origin: &Origin,
    ) -> Result<(), Error> {
        let usual = matches!(
            refusal.code,
            OauthErrorCode::AuthorizationPending
                | OauthErrorCode::SlowDown
                | OauthErrorCode::UseDpopNonce
        );
        if usual || !self.hourly.may_tell(&client.id) {
            return Ok(());
        }
        let who = Who::client(&client.id, &client.tenant, origin);
        let entry = Entry::new(Action::IssuedRefused, who)
            .on("client", &client.id)
            .detail("grant_type", kind.as_str())
            .detail("description", &refusal.description)
            .failed(refusal.code.as_str());
        let now = self.parts.clock.now();
        transact!(self.parts.store, |tx| {
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })
    }
}

/// What a client may do for itself: no person is there to be spoken of.
fn own_scopes(client: &OauthClient, wanted: &[String]) -> Result<Vec<String>, Error> {
    let of_person = |scope: &String| OF_PERSONS.contains(&scope.as_str());
    if wanted.iter().any(of_person) {
        return Err(Error::oauth(
            OauthErrorCode::InvalidScope,
            "openid, profile, email and offline_access need a person",
        ));
    }
    let mut scopes = scopes::asked(client, wanted).map_err(Error::Oauth)?;
    scopes.retain(|scope| !of_person(scope));
    Ok(scopes)
}
