//! The operator's own sign-in and consent application: it reads a request and says what came of it.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use url::Url;

use super::person::{with_verifier, write};
use super::{Shown, decided, is_standing, unknown};
use crate::access::audit::{self, Action, Entry};
use crate::access::{Caller, Permission, users};
use crate::crypto::random;
use crate::error::{Error, FieldViolation, Precondition};
use crate::issuer::{Issuer, scopes};
use crate::model::{
    AuthorizationRequest, IdKind, OauthErrorCode, RequestState, Timestamp, UserState,
};
use crate::store::{self, Conn, Tx, transact};

/// How long ago somebody may have signed in.
const AUTH_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the application's clock may be ahead.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// What a request may be refused with: a person's reasons, and their application's.
const REFUSALS: [OauthErrorCode; 4] = [
    OauthErrorCode::AccessDenied,
    OauthErrorCode::LoginRequired,
    OauthErrorCode::ServerError,
    OauthErrorCode::TemporarilyUnavailable,
];

/// Longest description of a refusal, in characters.
const DESCRIPTION_MAX: usize = 255;

/// What a person agreed to in the operator's application.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Who.
    pub user_id: String,
    /// When they signed in; now when not said.
    pub auth_time: Option<Timestamp>,
    /// To which of the scopes.
    pub scopes: Vec<String>,
}

impl Issuer {
    /// A request of the caller's tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that there is not, or that has lapsed; `unauthorized_client` when its
    /// client was shut out; or the store's.
    pub async fn get_request(&self, caller: &Caller, id: &str) -> Result<Shown, Error> {
        let mut conn = self.parts.store.read().await?;
        let request = self.of_caller(&mut conn, caller, id).await?;
        self.show(&mut conn, request).await
    }

    /// Says who signed in and what they agreed to; where to send their browser.
    ///
    /// # Errors
    /// Those of [`Issuer::get_request`]; [`Error::InvalidArgument`] for scopes that were not asked for
    /// and a time that is not of today; [`Error::NotFound`] for a user that the caller does not see;
    /// `USER_INACTIVE`; `AUTHORIZATION_REQUEST_STATE`.
    pub async fn accept_request(
        &self,
        caller: &Caller,
        id: &str,
        accepted: Accepted,
    ) -> Result<Url, Error> {
        let auth_time = auth_time(accepted.auth_time, self.parts.clock.now())?;
        let user_id = accepted.user_id.as_str();
        let verifier = random::random_token(32);
        let entry = Entry::new(Action::ConsentSignedIn, caller)
            .on("authorization_request", id)
            .detail("user_id", user_id)
            .detail("scopes", accepted.scopes.join(" "));
        transact!(self.parts.store, |tx| {
            let now = self.parts.clock.now();
            let found = store::users::lock(&mut tx, &caller.tenant, user_id).await?;
            let permission = Permission::DriveAuthorizations;
            let user = users::visible(caller, user_id, found, permission)?;
            let mut request = self.lock_undecided(&mut tx, caller, id).await?;
            let client = self.client_of(&mut tx, &request).await?;
            if user.state != UserState::Active {
                return Err(Error::precondition(
                    Precondition::UserInactive,
                    "the user is switched off",
                ));
            }
            request.granted_scopes = granted(&request.scopes, &accepted.scopes)?;
            request.user_id = Some(user.id);
            request.auth_time = Some(auth_time);
            request.state = RequestState::Accepted;
            bind(&mut request, verifier.expose_secret());
            write(&mut tx, &request, RequestState::Pending).await?;
            let entry = entry.clone().detail("client_id", &client.id);
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })?;
        self.way_back(id, verifier.expose_secret())
    }

    /// Says that nobody signed in, or that they said no (`access_denied`, when `error` is empty); where to
    /// send their browser.
    ///
    /// # Errors
    /// Those of [`Issuer::get_request`]; [`Error::InvalidArgument`] for an error that is none of a
    /// person's or their application's; `AUTHORIZATION_REQUEST_STATE`.
    pub async fn reject_request(
        &self,
        caller: &Caller,
        id: &str,
        error: &str,
        description: &str,
    ) -> Result<Url, Error> {
        let code = refusal(error, description)?;
        let verifier = random::random_token(32);
        let entry = Entry::new(Action::ConsentRefused, caller)
            .on("authorization_request", id)
            .reason(code.as_str());
        transact!(self.parts.store, |tx| {
            let now = self.parts.clock.now();
            let mut request = self.lock_undecided(&mut tx, caller, id).await?;
            request.state = RequestState::Rejected;
            code.as_str().clone_into(&mut request.error);
            description.clone_into(&mut request.error_description);
            bind(&mut request, verifier.expose_secret());
            write(&mut tx, &request, RequestState::Pending).await?;
            let entry = entry.clone().detail("client_id", &request.client_id);
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })?;
        self.way_back(id, verifier.expose_secret())
    }

    async fn of_caller(
        &self,
        conn: &mut Conn,
        caller: &Caller,
        id: &str,
    ) -> Result<AuthorizationRequest, Error> {
        let request = self.standing(conn, id).await?;
        if request.tenant == caller.tenant {
            Ok(request)
        } else {
            Err(unknown(id))
        }
    }

    async fn lock_undecided(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        id: &str,
    ) -> Result<AuthorizationRequest, Error> {
        if !IdKind::AuthorizationRequest.matches(id) {
            return Err(unknown(id));
        }
        let found = store::issuer::requests::any_tenant_lock(tx, id).await?;
        let now = self.parts.clock.now();
        let request = found
            .filter(|request| request.tenant == caller.tenant && is_standing(request, now))
            .ok_or_else(|| unknown(id))?;
        if request.state == RequestState::Pending {
            Ok(request)
        } else {
            Err(decided())
        }
    }

    /// Holds the verifier: not to be logged.
    fn way_back(&self, id: &str, verifier: &str) -> Result<Url, Error> {
        let mut url = self.page(&format!("oauth2/continue/{id}"))?;
        url.query_pairs_mut().append_pair("verifier", verifier);
        Ok(url)
    }
}

/// From here on the browser needs the verifier, too.
fn bind(request: &mut AuthorizationRequest, verifier: &str) {
    request.cookie_hash = request
        .cookie_hash
        .take()
        .map(|browser| with_verifier(&browser, verifier).to_vec());
}

fn auth_time(said: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Error> {
    let at = said.unwrap_or(now);
    if at > now.plus(CLOCK_SKEW) || now.since(at) > AUTH_AGE_MAX {
        return Err(Error::invalid(
            "auth_time",
            "is in the future, or more than a day ago",
        ));
    }
    Ok(at.min(now))
}

fn granted(asked: &[String], agreed: &[String]) -> Result<Vec<String>, Error> {
    if agreed.is_empty() && !asked.is_empty() {
        return Err(Error::invalid(
            "scopes",
            "is required: what the person agreed to; reject the request if that is nothing",
        ));
    }
    scopes::within(agreed, asked)
        .ok_or_else(|| Error::invalid("scopes", "holds a scope that the client did not ask for"))
}

/// A refusal goes to the client as it is (RFC 6749 section 4.1.2.1).
fn refusal(error: &str, description: &str) -> Result<OauthErrorCode, Error> {
    let code = match error {
        "" => Some(OauthErrorCode::AccessDenied),
        error => REFUSALS.into_iter().find(|code| code.as_str() == error),
    };
    let mut faults = Vec::new();
    if code.is_none() {
        faults.push(FieldViolation::new(
            "error",
            "access_denied, login_required, server_error or temporarily_unavailable is needed",
        ));
    }
    let plain = description
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
    if !plain || description.len() > DESCRIPTION_MAX {
        faults.push(FieldViolation::new(
            "error_description",
            format!(
                "at most {DESCRIPTION_MAX} visible ASCII characters without quotes and backslashes are \
                 allowed"
            ),
        ));
    }
    match code {
        Some(code) if faults.is_empty() => Ok(code),
        _ => Err(Error::InvalidArgument(faults)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn nobody_signed_in_tomorrow_or_the_day_before_yesterday() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        assert_eq!(auth_time(None, now).unwrap(), now);
        assert_eq!(auth_time(Some(now.plus(CLOCK_SKEW)), now).unwrap(), now);
        let before = now.minus(AUTH_AGE_MAX);
        assert_eq!(auth_time(Some(before), now).unwrap(), before);
        let second = Duration::from_secs(1);
        auth_time(Some(before.minus(second)), now).unwrap_err();
        auth_time(Some(now.plus(CLOCK_SKEW).plus(second)), now).unwrap_err();
    }

    #[test]
    fn nobody_agrees_to_more_than_was_asked_for() {
        let asked = texts(&["read", "write"]);
        assert_eq!(granted(&asked, &texts(&["read"])).unwrap(), ["read"]);
        granted(&asked, &texts(&["admin"])).unwrap_err();
        granted(&asked, &[]).unwrap_err();
        assert!(granted(&[], &[]).unwrap().is_empty());
    }

    #[test]
    fn a_refusal_has_a_persons_or_their_applications_reasons() {
        assert_eq!(
            refusal("", "they said no").unwrap(),
            OauthErrorCode::AccessDenied
        );
        for code in REFUSALS {
            assert_eq!(refusal(code.as_str(), "").unwrap(), code);
        }
        refusal("invalid_scope", "").unwrap_err();
        for bad in ["a\"b", "a\\b", "a\nb", "é", &"a".repeat(256)] {
            refusal("", bad).unwrap_err();
        }
        match refusal("x", "é") {
            Err(Error::InvalidArgument(faults)) => assert_eq!(faults.len(), 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn after_a_decision_the_cookie_alone_is_not_enough() {
        let cookie = [7; 32];
        let bound = with_verifier(&cookie, "verifier");
        assert_ne!(bound, cookie);
        assert_ne!(bound, with_verifier(&cookie, "other"));
        assert_ne!(bound, with_verifier(&[8; 32], "verifier"));
    }
}
