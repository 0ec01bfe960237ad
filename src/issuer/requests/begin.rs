//! A browser comes with a client's request.

use super::asked::{self, Address, Asked};
use super::{Begun, NotBegun, redirects};
use crate::access::Origin;
use crate::error::Error;
use crate::issuer::{Issuer, Parameters};
use crate::model::{AuthorizationRequest, OauthClient, OauthError, OauthErrorCode, RequestState};
use crate::store::{self, transact};

impl Issuer {
    /// Judges a client's request and ties it to the browser that brings it.
    ///
    /// An error goes back by itself to trusted clients only: whoever registers a client could else have
    /// our address lead people anywhere they like, without anybody being asked (RFC 9700 section 4.11).
    ///
    /// # Errors
    /// [`NotBegun`].
    pub async fn begin(&self, parameters: &Parameters, origin: &Origin) -> Result<Begun, NotBegun> {
        self.begun.charge(origin.ip)?;
        let client = self.asking(parameters).await?;
        if let Some(request_uri) = parameters.get("request_uri") {
            return Ok(self.take_pushed(&client, request_uri, origin).await?);
        }
        let address =
            asked::address(&client, parameters).map_err(|error| naming(error, &client))?;
        let judged = if client.settings.require_pushed {
            Err(asked::error(
                OauthErrorCode::InvalidRequest,
                "the client has to push its requests (RFC 9126)",
            ))
        } else {
            let resources = &self.parts.config.resources;
            asked::judge(resources, &client, &address.redirect_uri, parameters)
        };
        let asked = match judged {
            Ok(asked) => asked,
            Err(error) => return Err(self.refusal(&client, &address, error)),
        };
        let mut request = self.request_of(&client, RequestState::Pending, address, asked, origin);
        let begun = self.tie(&mut request)?;
        transact!(self.parts.store, |tx| {
            Ok(store::issuer::requests::insert(&mut tx, &request).await?)
        })?;
        Ok(begun)
    }

    /// The client that the browser names.
    async fn asking(&self, parameters: &Parameters) -> Result<OauthClient, Error> {
        let Some(id) = parameters.get("client_id") else {
            let code = OauthErrorCode::InvalidRequest;
            return Err(Error::oauth(code, "client_id is required"));
        };
        let mut conn = self.parts.store.read().await?;
        let found = store::clients::any_tenant_find(&mut conn, id).await?;
        let client = found.ok_or_else(|| {
            Error::oauth(OauthErrorCode::InvalidClient, "the client is not known")
        })?;
        asked::require_active(&client).map_err(Error::Oauth)?;
        Ok(client)
    }

    fn refusal(&self, client: &OauthClient, address: &Address, error: OauthError) -> NotBegun {
        if !client.settings.trusted {
            return NotBegun::Page(naming(error, client));
        }
        let issuer = self.parts.config.identifier();
        match redirects::with_error(&address.redirect_uri, &error, &address.state, issuer) {
            Ok(url) => NotBegun::Redirect(url),
            Err(error) => NotBegun::Failed(error),
        }
    }

    /// The request, not stored yet.
    pub(super) fn request_of(
        &self,
        client: &OauthClient,
        state: RequestState,
        address: Address,
        asked: Asked,
        origin: &Origin,
    ) -> AuthorizationRequest {
        let config = &self.parts.config;
        let lifetime = match state {
            RequestState::Pushed => config.pushed_request_lifetime,
            _ => config.request_lifetime,
        };
        AuthorizationRequest {
            redirect_uri: address.redirect_uri,
            redirect_uri_sent: address.sent,
            client_state: address.state,
            scopes: asked.scopes,
            resources: asked.resources,
            nonce: asked.nonce,
            code_challenge: asked.code_challenge,
            dpop_jkt: asked.dpop_jkt,
            login_hint: asked.login_hint,
            ..self.new_request(client, state, lifetime, origin)
        }
    }
}

/// The error for a page that nobody but the person sees: they are to know whose fault it is.
fn naming(error: OauthError, client: &OauthClient) -> OauthError {
    let description = format!("{} (client {})", error.description, client.id);
    OauthError {
        description,
        ..error
    }
}
