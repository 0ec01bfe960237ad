//! What a person's consent becomes: a grant, and the code by which the client, or the device, gets at it.
//! Both are made in the transaction that decides, so neither is there without the other.

use secrecy::ExposeSecret as _;

use super::Issuer;
use super::requests::{Finish, Held, decided, with_code, write};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::config;
use crate::error::{Error, Precondition};
use crate::model::{
    AuthorizationCode, AuthorizationRequest, DeviceAuthorization, DeviceState, IdKind, IssuedGrant,
    RequestState, Timestamp, User, UserState,
};
use crate::store::{self, Tx};

impl Issuer {
    /// Makes what the person agreed to. The person's row stays locked: whoever switches them off comes
    /// before this, or finds the grant.
    ///
    /// # Errors
    /// `USER_INACTIVE`; `AUTHORIZATION_REQUEST_STATE` when the device lapsed or was decided on
    /// otherwise; or the store's.
    pub(super) async fn give(
        &self,
        tx: &mut Tx,
        held: Held,
        origin: &Origin,
    ) -> Result<Finish, Error> {
        let Held {
            user,
            device,
            mut request,
            client,
        } = held;
        let user = user
            .filter(|user| user.state == UserState::Active)
            .ok_or_else(|| {
                Error::precondition(Precondition::UserInactive, "the user is switched off")
            })?;
        let was = request.state;
        // Who decides here is asked for all or nothing; the operator's application may give less.
        if was == RequestState::SignedIn {
            request.granted_scopes.clone_from(&request.scopes);
        }
        request.state = RequestState::Finished;
        let config = &self.parts.config;
        let now = self.parts.clock.now();
        let usable_until = device
            .as_ref()
            .map_or(now.plus(config.code_lifetime), |device| device.expires_at);
        let grant = grant_of(&request, &user, usable_until, now);
        store::issuer::grants::insert(tx, &grant).await?;
        let mut entry = Entry::new(
            Action::ConsentGiven,
            Who::user(&user.id, &user.tenant, origin),
        )
        .on("issued_grant", &grant.id)
        .detail("client_id", &client.id)
        .detail("authorization_request_id", &request.id)
        .detail("scopes", grant.scopes.join(" "));
        let finish = match device {
            Some(device) => {
                entry = entry.detail("device_id", &device.id);
                let_in(tx, device, &grant, now).await?;
                Finish::Device { accepted: true }
            }
            None => {
                let secret = BearerSecret::generate(Prefix::AuthorizationCode);
                let code = code_of(config, &request, &grant, &secret);
                store::issuer::codes::insert(tx, &code).await?;
                let text = secret.text().expose_secret();
                Finish::Redirect(with_code(&request, text, config.identifier())?)
            }
        };
        write(tx, &request, was).await?;
        audit::record(tx, &entry, now).await?;
        Ok(finish)
    }
}

/// Until its first tokens, the grant ends with what leads to them.
fn grant_of(
    request: &AuthorizationRequest,
    user: &User,
    usable_until: Timestamp,
    now: Timestamp,
) -> IssuedGrant {
    IssuedGrant {
        id: IdKind::IssuedGrant.new_id(),
        tenant: request.tenant.clone(),
        client_id: request.client_id.clone(),
        user_id: user.id.clone(),
        scopes: request.granted_scopes.clone(),
        resources: request.resources.clone(),
        dpop_jkt: String::new(),
        generation: 0,
        auth_time: request.auth_time.unwrap_or(now),
        ip: request.ip.clone(),
        user_agent: request.user_agent.clone(),
        created_at: now,
        last_issued_at: now,
        expires_at: usable_until,
        revoked_at: None,
        revoke_reason: String::new(),
    }
}

fn code_of(
    config: &config::Issuer,
    request: &AuthorizationRequest,
    grant: &IssuedGrant,
    secret: &BearerSecret,
) -> AuthorizationCode {
    AuthorizationCode {
        hash: secret.hash().to_vec(),
        tenant: grant.tenant.clone(),
        client_id: grant.client_id.clone(),
        grant_id: grant.id.clone(),
        redirect_uri: request.redirect_uri.clone(),
        redirect_uri_sent: request.redirect_uri_sent,
        client_state: request.client_state.clone(),
        nonce: request.nonce.clone(),
        code_challenge: request.code_challenge.clone(),
        dpop_jkt: request.dpop_jkt.clone(),
        ip: request.ip.clone(),
        user_agent: request.user_agent.clone(),
        created_at: grant.created_at,
        expires_at: grant.expires_at,
        consumed_at: None,
        keep_until: grant.expires_at.plus(config.keep_spent),
    }
}

/// Tells a device's code what it gives.
async fn let_in(
    tx: &mut Tx,
    mut device: DeviceAuthorization,
    grant: &IssuedGrant,
    now: Timestamp,
) -> Result<(), Error> {
    if device.state != DeviceState::Pending || device.expires_at <= now {
        return Err(decided());
    }
    device.state = DeviceState::Accepted;
    device.grant_id = Some(grant.id.clone());
    if store::issuer::devices::update(tx, &device, DeviceState::Pending).await? {
        Ok(())
    } else {
        Err(decided())
    }
}
