//! Requests that clients push before a browser comes with them (RFC 9126): nobody on the way can read
//! or change them.

use secrecy::{ExposeSecret as _, SecretString};

use super::{Begun, Pushed, asked, redirects};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::error::Error;
use crate::issuer::{Credentials, Issuer, Parameters, Proof};
use crate::model::{OauthClient, OauthErrorCode, RequestState};
use crate::store::{self, transact};

/// How a `request_uri` of ours begins.
const URI_PREFIX: &str = "urn:ietf:params:oauth:request_uri:";

impl Issuer {
    /// Keeps a client's request until a browser comes with its `request_uri`. A proof of possession
    /// binds the code to its key (RFC 9449 section 10.1).
    ///
    /// # Errors
    /// [`Error::Oauth`] with what the client did wrong; [`Error::ResourceExhausted`] when public clients
    /// began too much from that address; or the store's.
    pub async fn push(
        &self,
        credentials: &Credentials,
        parameters: &Parameters,
        proof: Option<&Proof>,
        origin: &Origin,
    ) -> Result<Pushed, Error> {
        let client = self.authenticate(credentials, origin).await?;
        asked::require_active(&client).map_err(Error::Oauth)?;
        self.slow_down_public(&client, origin)?;
        let invalid = |text: &str| Error::oauth(OauthErrorCode::InvalidRequest, text);
        if parameters
            .get("client_id")
            .is_some_and(|id| id != client.id)
        {
            return Err(invalid("the client_id is not that of the credentials"));
        }
        if parameters.get("request_uri").is_some() {
            return Err(invalid("a request_uri can not be pushed"));
        }
        let address = asked::address(&client, parameters).map_err(Error::Oauth)?;
        let resources = &self.parts.config.resources;
        let mut asked = asked::judge(resources, &client, &address.redirect_uri, parameters)
            .map_err(Error::Oauth)?;
        if let Some(proof) = proof {
            let jkt = self.verify_proof(proof, None).await?;
            if !asked.dpop_jkt.is_empty() && asked.dpop_jkt != jkt {
                return Err(invalid(
                    "dpop_jkt is not the thumbprint of the key of the proof",
                ));
            }
            asked.dpop_jkt = jkt;
        }

        let secret = BearerSecret::generate(Prefix::PushedRequest);
        let mut request = self.request_of(&client, RequestState::Pushed, address, asked, origin);
        request.request_uri_hash = Some(secret.hash().to_vec());
        let who = Who::client(&client.id, &client.tenant, origin);
        let entry = Entry::new(Action::RequestPushed, who)
            .on("authorization_request", &request.id)
            .detail("client_id", &client.id)
            .detail("scopes", request.scopes.join(" "));
        transact!(self.parts.store, |tx| {
            store::issuer::requests::insert(&mut tx, &request).await?;
            audit::record(&mut tx, &entry, request.created_at).await?;
            Ok(())
        })?;
        let uri = format!("{URI_PREFIX}{}", secret.text().expose_secret());
        Ok(Pushed {
            request_uri: SecretString::from(uri),
            expires_in: self.parts.config.pushed_request_lifetime,
        })
    }

    /// Ties a pushed request to the browser that comes with it: once, and for its client alone.
    pub(super) async fn take_pushed(
        &self,
        client: &OauthClient,
        request_uri: &str,
        origin: &Origin,
    ) -> Result<Begun, Error> {
        let secret = request_uri
            .strip_prefix(URI_PREFIX)
            .and_then(|text| BearerSecret::parse(Prefix::PushedRequest, text).ok());
        let hash = secret.ok_or_else(unusable)?.hash();
        transact!(self.parts.store, |tx| {
            let now = self.parts.clock.now();
            let found = store::issuer::requests::any_tenant_take_pushed(&mut tx, &hash).await?;
            // An error rolls back: who brings it for another client does not spend it.
            let mut request = found
                .filter(|request| {
                    let registered = &client.settings.redirect_uris;
                    request.client_id == client.id
                        && request.state == RequestState::Pushed
                        && request.expires_at > now
                        && redirects::matched(registered, Some(&request.redirect_uri)).is_some()
                })
                .ok_or_else(unusable)?;
            request.state = RequestState::Pending;
            request.ip = origin.ip_text();
            request.user_agent = Origin::clean_user_agent(&origin.user_agent);
            request.expires_at = now.plus(self.parts.config.request_lifetime);
            let begun = self.tie(&mut request)?;
            let from = RequestState::Pushed;
            if !store::issuer::requests::update(&mut tx, &request, from).await? {
                return Err(unusable());
            }
            Ok(begun)
        })
    }
}

fn unusable() -> Error {
    Error::oauth(
        OauthErrorCode::InvalidRequestUri,
        "the request_uri is not one of ours, was used already, or has lapsed",
    )
}
