//! The person's part: to sign in and to decide, in the browser that began the request.

use secrecy::SecretString;

use super::{
    Decision, Finish, Shown, decided, hash_of, is_standing, redirects, require_browser, unknown,
};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::users::normalised;
use crate::crypto::digest;
use crate::error::{Error, Precondition, Unknown};
use crate::issuer::Issuer;
use crate::model::{
    AuthorizationRequest, DeviceAuthorization, DeviceState, OauthClient, OauthError,
    OauthErrorCode, RequestState, SignInMethod, User,
};
use crate::store::{self, Tx, transact};

/// What a decision is about, locked until the transaction ends: the person before the device before the
/// request, so that no two transactions wait for each other.
pub(in crate::issuer) struct Held {
    pub(in crate::issuer) user: Option<User>,
    pub(in crate::issuer) device: Option<DeviceAuthorization>,
    pub(in crate::issuer) request: AuthorizationRequest,
    pub(in crate::issuer) client: OauthClient,
}

impl Issuer {
    /// What the person is asked.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a request that there is not, or that has lapsed; `BROWSER_MISMATCH`;
    /// `unauthorized_client` when the client was shut out; or the store's.
    pub async fn shown(&self, id: &str, cookie: &str) -> Result<Shown, Error> {
        let mut conn = self.parts.store.read().await?;
        let request = self.standing(&mut conn, id).await?;
        require_browser(request.cookie_hash.as_deref(), &hash_of(cookie))?;
        self.show(&mut conn, request).await
    }

    /// Signs a person in to decide on a request: for this one alone.
    ///
    /// # Errors
    /// Those of [`Issuer::shown`] and of [`crate::access::Users::sign_in`];
    /// `AUTHORIZATION_REQUEST_STATE`.
    pub async fn sign_in(
        &self,
        id: &str,
        cookie: &str,
        email: &str,
        password: &SecretString,
        origin: &Origin,
    ) -> Result<(), Error> {
        self.require_own_pages()?;
        let Shown {
            request, client, ..
        } = self.shown(id, cookie).await?;
        if request.state != RequestState::Pending {
            return Err(decided());
        }
        // What is no address is nobody's.
        if normalised(email).is_none() {
            return Err(Error::Unauthenticated(Unknown::SignInFailed));
        }
        let users = &self.parts.users;
        let user = users
            .sign_in(&request.tenant, email, password, origin)
            .await?;
        let who = Who::user(&user.id, &user.tenant, origin);
        let entry = Entry::new(Action::ConsentSignedIn, who)
            .on("authorization_request", &request.id)
            .detail("client_id", &client.id)
            .detail("method", SignInMethod::Password.as_str());
        let browser = hash_of(cookie);
        transact!(self.parts.store, |tx| {
            let now = self.parts.clock.now();
            let method = SignInMethod::Password;
            if !store::sessions::sign_in(&mut tx, &user, method, now).await? {
                return Err(Error::Unauthenticated(Unknown::SignInFailed));
            }
            let mut request = self.locked(&mut tx, id, &browser).await?;
            if request.state != RequestState::Pending {
                return Err(decided());
            }
            request.state = RequestState::SignedIn;
            request.user_id = Some(user.id.clone());
            request.auth_time = Some(now);
            write(&mut tx, &request, RequestState::Pending).await?;
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })
    }

    /// The person's decision: what it gives is made here, or nothing is. No may be said without signing
    /// in.
    ///
    /// # Errors
    /// Those of [`Issuer::shown`]; `AUTHORIZATION_REQUEST_STATE`; `USER_INACTIVE`.
    pub async fn decide(
        &self,
        id: &str,
        cookie: &str,
        decision: Decision,
        origin: &Origin,
    ) -> Result<Finish, Error> {
        self.require_own_pages()?;
        self.conclude(id, &hash_of(cookie), Some(decision), origin)
            .await
    }

    /// Takes the browser on whose request the operator's application has decided. It brings the cookie
    /// that it got when it began the request and the verifier of the address that the application sent
    /// it to: so whoever has somebody else decide on their request, and whoever is led into
    /// that, gets nothing.
    ///
    /// # Errors
    /// As [`Issuer::decide`].
    pub async fn resume(
        &self,
        id: &str,
        cookie: &str,
        verifier: &str,
        origin: &Origin,
    ) -> Result<Finish, Error> {
        let browser = with_verifier(&hash_of(cookie), verifier);
        self.conclude(id, &browser, None, origin).await
    }

    /// `decision` is none where the request tells it.
    async fn conclude(
        &self,
        id: &str,
        browser: &[u8; 32],
        decision: Option<Decision>,
        origin: &Origin,
    ) -> Result<Finish, Error> {
        let mut conn = self.parts.store.read().await?;
        let seen = self.standing(&mut conn, id).await?;
        require_browser(seen.cookie_hash.as_deref(), browser)?;
        drop(conn);
        let (finish, client) = transact!(self.parts.store, |tx| {
            let held = self.hold(&mut tx, &seen, browser).await?;
            let client = held.client.clone();
            let allowed = match (decision, held.request.state) {
                (Some(Decision::Allow), RequestState::SignedIn)
                | (None, RequestState::Accepted) => true,
                (Some(Decision::Deny), RequestState::Pending | RequestState::SignedIn)
                | (None, RequestState::Rejected) => false,
                _ => return Err(decided()),
            };
            if allowed {
                Ok((self.give(&mut tx, held, origin).await?, Some(client)))
            } else {
                Ok((self.refuse(&mut tx, held, origin).await?, None))
            }
        })?;
        if let Some(client) = client {
            self.usage.authorized(&client);
        }
        Ok(finish)
    }

    async fn hold(
        &self,
        tx: &mut Tx,
        seen: &AuthorizationRequest,
        browser: &[u8; 32],
    ) -> Result<Held, Error> {
        // Set once, so what was read before the locks still holds.
        let user = match &seen.user_id {
            Some(id) => store::users::lock(tx, &seen.tenant, id).await?,
            None => None,
        };
        let device = match &seen.device_id {
            Some(id) => store::issuer::devices::any_tenant_lock(tx, id).await?,
            None => None,
        };
        let request = self.locked(tx, &seen.id, browser).await?;
        let client = self.client_of(tx, &request).await?;
        Ok(Held {
            user: user.filter(|user| request.user_id.as_ref() == Some(&user.id)),
            device,
            request,
            client,
        })
    }

    async fn locked(
        &self,
        tx: &mut Tx,
        id: &str,
        browser: &[u8; 32],
    ) -> Result<AuthorizationRequest, Error> {
        let found = store::issuer::requests::any_tenant_lock(tx, id).await?;
        let request = found
            .filter(|request| is_standing(request, self.parts.clock.now()))
            .ok_or_else(|| unknown(id))?;
        require_browser(request.cookie_hash.as_deref(), browser)?;
        Ok(request)
    }

    /// Writes down a no, the person's or the operator's, and tells the client or the device.
    async fn refuse(&self, tx: &mut Tx, held: Held, origin: &Origin) -> Result<Finish, Error> {
        let now = self.parts.clock.now();
        let mut request = held.request;
        let was = request.state;
        let error = match OauthErrorCode::parse(&request.error) {
            Some(code) => OauthError::new(code, &request.error_description),
            None => OauthError::new(OauthErrorCode::AccessDenied, "the person said no"),
        };
        if was != RequestState::Rejected {
            let who = match &held.user {
                Some(user) => Who::user(&user.id, &user.tenant, origin),
                None => Who::browser(&request.id, &request.tenant, origin),
            };
            let entry = Entry::new(Action::ConsentRefused, who)
                .on("authorization_request", &request.id)
                .detail("client_id", &request.client_id);
            audit::record(tx, &entry, now).await?;
        }
        let finish = match held.device {
            Some(mut device) => {
                if device.state != DeviceState::Pending {
                    return Err(decided());
                }
                device.state = DeviceState::Rejected;
                store::issuer::devices::update(tx, &device, DeviceState::Pending).await?;
                Finish::Device { accepted: false }
            }
            None => Finish::Redirect(redirects::with_error(
                &request.redirect_uri,
                &error,
                &request.client_state,
                self.parts.config.identifier(),
            )?),
        };
        request.state = RequestState::Finished;
        error.code.as_str().clone_into(&mut request.error);
        request.error_description = error.description;
        write(tx, &request, was).await?;
        Ok(finish)
    }

    /// Where the operator's application signs people in, ours would be a way around what it asks for,
    /// such as a second factor.
    fn require_own_pages(&self) -> Result<(), Error> {
        if self.parts.config.interaction_url.is_none() {
            return Ok(());
        }
        Err(Error::precondition(
            Precondition::AuthorizationRequestState,
            "another application signs people in and asks for their consent here",
        ))
    }
}

/// What the browser has to bring once the operator's application has decided: the cookie, and what that
/// application gave it.
pub(super) fn with_verifier(browser: &[u8], verifier: &str) -> [u8; 32] {
    digest::sha256(&[browser, verifier.as_bytes()].concat())
}

/// Writes a locked request.
///
/// # Errors
/// `AUTHORIZATION_REQUEST_STATE` when its state was another one, or the store's.
pub(in crate::issuer) async fn write(
    tx: &mut Tx,
    request: &AuthorizationRequest,
    was: RequestState,
) -> Result<(), Error> {
    if store::issuer::requests::update(tx, request, was).await? {
        Ok(())
    } else {
        Err(decided())
    }
}
