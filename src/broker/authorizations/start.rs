//! Starting an authorisation: what is asked for is judged here, before anybody is sent anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::{Authorizations, require_active, trail};
use crate::access::audit::Action;
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission, Principal};
use crate::crypto::{digest, random};
use crate::error::{Error, FieldViolation, Precondition, Resource};
use crate::model::{
    App, Authorization, AuthorizationFailure, AuthorizationIntent, AuthorizationMode,
    AuthorizationState, Connection, ConnectionKind, ConnectionState, IdKind, Provider,
    RefreshPolicy, Timestamp,
};
use crate::store::{self, Conn, transact};

/// Parameters of the authorisation endpoint that no caller sets: the flow's safety hangs on them,
/// or they would replace the whole request (RFC 9101).
const PROTOCOL: [&str; 14] = [
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct NewAuthorization {
    /// The app's id, client id or external key.
    pub app: String,
    /// Whom the connection will belong to.
    pub owner: String,
    /// Scopes or their friendly names; the app's, then the provider's, when empty.
    pub scopes: Vec<String>,
    /// Where the browser goes at the end: exactly one of the app's, or empty.
    pub return_url: String,
    /// Which account to preselect; may be empty.
    pub login_hint: String,
    /// The connection to renew.
    pub connection_id: Option<String>,
    /// How it is bound to its owner.
    pub mode: AuthorizationMode,
    /// The caller's own redirect URI: exactly one of the app's, or empty for ours.
    pub redirect_uri: String,
    /// More parameters for the authorisation endpoint.
    pub parameters: BTreeMap<String, String>,
    /// How the connection is to be kept fresh; when not said, as before where it is renewed, else
    /// always.
    pub refresh_policy: Option<RefreshPolicy>,
    /// How long its link is good; `authorizations.ttl` when not said.
    pub ttl: Option<Duration>,
}

/// An authorisation that was started. The links are secrets.
#[derive(Clone, Debug)]
pub struct Started {
    /// What was started.
    pub authorization: Authorization,
    /// The link for the owner's browser; none where the caller owns the redirect URI.
    pub connect_url: Option<SecretString>,
    /// The provider's consent page, where the caller owns the redirect URI.
    pub authorization_url: Option<SecretString>,
}

impl Started {
    fn of(authorization: Authorization, link: SecretString) -> Self {
        let (connect_url, authorization_url) = if authorization.redirect_uri.is_empty() {
            (Some(link), None)
        } else {
            (None, Some(link))
        };
        Self {
            authorization,
            connect_url,
            authorization_url,
        }
    }
}

impl Authorizations {
    /// Starts an authorisation, or repeats the answer of the request that started it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for addresses that are not the app's and parameters that are the
    /// protocol's; [`Error::NotFound`] and [`Error::PermissionDenied`]; `APP_INACTIVE`,
    /// `APP_MISCONFIGURED`, `NOT_AUTHORIZABLE`, `CONNECTION_PENDING` (the one to renew);
    /// [`Error::ResourceExhausted`] when too many of the owner's are open;
    /// [`Error::AlreadyExists`] for a late retry; or the store's.
    pub async fn start(
        &self,
        caller: &Caller,
        new: NewAuthorization,
        once: Option<Once<'_>>,
    ) -> Result<Started, Error> {
        if new.mode == AuthorizationMode::LinkOnly {
            caller.require(Permission::AuthorizeLinkOnly)?;
        }
        let now = self.clock.now();
        let once = once.as_ref();
        let create = self.create(caller, &new, once, now);
        match requests::answer(&self.store, self.vault.keyring(), once, now, create).await? {
            Outcome::Made(started) => Ok(started),
            Outcome::Before(replayed) => {
                let authorization = self.get(caller, &replayed.resource_id).await?;
                Ok(Started::of(authorization, replayed.into_secret()?))
            }
        }
    }

    /// `None`: a concurrent retry was first.
    async fn create(
        &self,
        caller: &Caller,
        new: &NewAuthorization,
        once: Option<&Once<'_>>,
        now: Timestamp,
    ) -> Result<Option<Started>, Error> {
        let mut conn = self.store.read().await?;
        let permission = Permission::Authorize;
        let app = self
            .app_allowed(&mut conn, caller, &new.app, &new.owner, permission)
            .await?;
        require_active(&app)?;
        let provider = self
            .registry
            .provider(&mut conn, &app.tenant, &app.provider)
            .await?;
        if provider.kind != ConnectionKind::Oauth2 {
            return Err(Error::precondition(
                Precondition::NotAuthorizable,
                format!("{} has no OAuth 2.0 consent", provider.display_name),
            ));
        }
        judge(&app, &provider, new)?;
        let renewed = match &new.connection_id {
            Some(id) => Some(renewable(&mut conn, caller, &app, &new.owner, id).await?),
            None => None,
        };
        drop(conn);

        let redirect_uri = self.redirect_uri(&app, &new.redirect_uri);
        let client = self.registry.client(&app, &provider, Some(redirect_uri))?;
        let asked = if new.scopes.is_empty() {
            &app.default_scopes
        } else {
            &new.scopes
        };
        let mut authorization = Authorization {
            id: IdKind::Authorization.new_id(),
            tenant: app.tenant.clone(),
            app_id: app.id.clone(),
            intent: AuthorizationIntent::Connect,
            owner: new.owner.clone(),
            mode: new.mode,
            state: AuthorizationState::Pending,
            ticket_hash: None,
            scopes: client.requested_scopes(asked),
            return_url: new.return_url.clone(),
            redirect_uri: new.redirect_uri.clone(),
            login_hint: new.login_hint.clone(),
            parameters: new.parameters.clone(),
            refresh_policy: new
                .refresh_policy
                .or(renewed.as_ref().map(|connection| connection.refresh_policy))
                .unwrap_or_default(),
            renews: renewed.map(|connection| connection.id),
            connection_id: None,
            tokens: None,
            account_id: String::new(),
            confirmation_hash: None,
            failure: AuthorizationFailure::default(),
            created_by: caller.id.clone(),
            created_at: now,
            updated_at: now,
            expires_at: now.plus(new.ttl.unwrap_or(self.config.ttl)),
        };
        // Minted for our own link too, whose visits mint theirs: what the provider would refuse is
        // told to the caller, not to the person who opens the link.
        let minted = self.mint(&authorization, &client, false, authorization.expires_at)?;
        let (link, visit) = if new.redirect_uri.is_empty() {
            let ticket = random::random_token(32);
            let hash = digest::sha256(ticket.expose_secret().as_bytes());
            authorization.ticket_hash = Some(hash.to_vec());
            let link = format!("{}connect/{}", self.public_url, ticket.expose_secret());
            (SecretString::from(link), None)
        } else {
            (
                SecretString::from(String::from(minted.url)),
                Some(minted.visit),
            )
        };

        let mut entry = trail::entry(Action::AuthorizationStarted, caller, &authorization)
            .provider(&provider.id)
            .detail("mode", authorization.mode.as_str())
            .detail("scopes", authorization.scopes.join(" "));
        if let Some(renews) = &authorization.renews {
            entry = entry.detail("connection_id", renews);
        }
        let most = i64::from(self.config.max_pending_per_owner);
        let keyring = self.vault.keyring();
        let made = transact!(self.store, |tx| {
            if let Some(once) = once {
                let id = &authorization.id;
                let secret = Some(link.expose_secret());
                if !requests::remember(&mut tx, keyring, once, id, secret, now).await? {
                    return Ok(false);
                }
            }
            let tenant = &authorization.tenant;
            let owner = &authorization.owner;
            if store::authorizations::pending_count(&mut tx, tenant, owner).await? >= most {
                return Err(Error::ResourceExhausted {
                    message: format!("the owner has {most} authorizations in progress already"),
                    retry_after: self.config.ttl,
                });
            }
            store::authorizations::insert(&mut tx, &authorization).await?;
            if let Some(visit) = &visit {
                store::authorizations::insert_visit(&mut tx, visit).await?;
            }
            self.record(&mut tx, &entry).await?;
            Ok(true)
        })?;
        Ok(made.then(|| Started::of(authorization, link)))
    }
}

/// The connection to renew: one of this app and owner that the caller is allowed.
async fn renewable(
    conn: &mut Conn,
    principal: &Principal,
    app: &App,
    owner: &str,
    id: &str,
) -> Result<Connection, Error> {
    let found = store::connections::find(conn, &principal.tenant, id).await?;
    let connection = found
        .map(|(connection, _)| connection)
        .filter(|connection| connection.app_id == app.id && connection.owner == owner)
        .ok_or_else(|| {
            let missing = Error::NotFound(Resource::Connection, id.to_owned());
            principal.hidden(Permission::Authorize, missing)
        })?;
    if connection.state == ConnectionState::Pending {
        return Err(Error::precondition(
            Precondition::ConnectionPending,
            "the connection was never confirmed, so there is nothing to renew",
        ));
    }
    Ok(connection)
}

/// Judges what only the app and its provider can tell.
fn judge(app: &App, provider: &Provider, new: &NewAuthorization) -> Result<(), Error> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, description: &str| {
        faults.push(FieldViolation::new(field, description));
    };
    if new.return_url.is_empty() {
        if new.mode == AuthorizationMode::Confirmed && new.redirect_uri.is_empty() {
            fault(
                "return_url",
                "is required, since the page behind it confirms the connection",
            );
        }
    } else if !app.allowed_return_urls.contains(&new.return_url) {
        fault("return_url", "is not one of the app's allowed return URLs");
    }
    if !new.redirect_uri.is_empty() && !app.redirect_uris.contains(&new.redirect_uri) {
        fault("redirect_uri", "is not one of the app's redirect URIs");
    }
    for name in new.parameters.keys() {
        if is_protocol(provider, name) {
            fault(
                &format!("parameters[{name}]"),
                "is the protocol's and can't be set",
            );
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::InvalidArgument(faults))
    }
}

/// Whether a parameter is the protocol's, under its own name or the one that the provider has for
/// it.
fn is_protocol(provider: &Provider, name: &str) -> bool {
    let renamed = |standard: &str| {
        provider
            .authorization_param_renames
            .get(standard)
            .is_some_and(|new| new.eq_ignore_ascii_case(name))
    };
    let scopes = provider.additional_scopes.as_ref();
    PROTOCOL
        .iter()
        .any(|standard| standard.eq_ignore_ascii_case(name) || renamed(standard))
        || scopes.is_some_and(|scopes| scopes.parameter.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AppState;
    use crate::model::provider::AdditionalScopes;

    fn app() -> App {
        App {
            id: "app_1".to_owned(),
            tenant: "t".to_owned(),
            provider: "p".to_owned(),
            client_id: None,
            external_key: None,
            display_name: String::new(),
            client_secret: None,
            previous_secret: None,
            previous_secret_expires_at: None,
            default_scopes: Vec::new(),
            allowed_return_urls: vec!["https://a.example/done".to_owned()],
            redirect_uris: vec!["https://a.example/cb".to_owned()],
            variables: BTreeMap::new(),
            workspace_email: String::new(),
            workspace_name: String::new(),
            state: AppState::Active,
            misconfiguration: String::new(),
            misconfigured_at: None,
            version: 1,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        }
    }

    fn asked(return_url: &str, redirect_uri: &str) -> NewAuthorization {
        NewAuthorization {
            app: "app_1".to_owned(),
            owner: "o".to_owned(),
            scopes: Vec::new(),
            return_url: return_url.to_owned(),
            login_hint: String::new(),
            connection_id: None,
            mode: AuthorizationMode::Confirmed,
            redirect_uri: redirect_uri.to_owned(),
            parameters: BTreeMap::new(),
            refresh_policy: None,
            ttl: None,
        }
    }

    fn faults(new: &NewAuthorization) -> Vec<String> {
        let provider = Provider {
            authorization_param_renames: BTreeMap::from([(
                "client_id".to_owned(),
                "client_key".to_owned(),
            )]),
            additional_scopes: Some(AdditionalScopes {
                parameter: "user_scope".to_owned(),
                ..AdditionalScopes::default()
            }),
            ..Provider::default()
        };
        match judge(&app(), &provider, new) {
            Ok(()) => Vec::new(),
            Err(Error::InvalidArgument(faults)) => {
                faults.into_iter().map(|fault| fault.field).collect()
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_the_apps_to_the_letter() {
        assert!(faults(&asked("https://a.example/done", "")).is_empty());
        assert!(faults(&asked("", "https://a.example/cb")).is_empty());
        for url in [
            "https://a.example/done/",
            "https://a.example/done?x=1",
            "https://A.example/done",
            "https://evil.example/done",
            "",
        ] {
            assert_eq!(faults(&asked(url, "")), ["return_url"], "{url}");
        }
        let both = asked("https://evil.example", "https://a.example/cb#");
        assert_eq!(faults(&both), ["return_url", "redirect_uri"]);
        let mut link_only = asked("", "");
        link_only.mode = AuthorizationMode::LinkOnly;
        assert!(faults(&link_only).is_empty());
    }

    #[test]
    fn the_protocols_parameters_are_not_the_callers() {
        let mut new = asked("https://a.example/done", "");
        for name in ["prompt", "State", "request_uri", "client_key", "user_scope"] {
            new.parameters.insert(name.to_owned(), "x".to_owned());
        }
        assert_eq!(
            faults(&new),
            [
                "parameters[State]",
                "parameters[client_key]",
                "parameters[request_uri]",
                "parameters[user_scope]"
            ]
        );
    }
}
