//! OAuth clients: the wire's words for the registry's, and back. What a client may be set to is the
//! registry's to judge.

use std::time::Duration;

use crate::error::Error;
use crate::grpc::client_registry::version;
use crate::grpc::convert::{duration, etag, timestamp};
use crate::grpc::fields::Fields;
use crate::grpc::mask::Mask;
use crate::model::{
    ClientAuthMethod, ClientGrantType, ClientResponseType, ClientSecret, ClientSettings,
    ClientState, TokenFormat,
};
use crate::pb;
use crate::registry::{
    ClientChanges, DEFAULT_ACCESS_LIFETIME, DEFAULT_REFRESH_LIFETIME, MAX_SECRET_LIFETIME,
    MIN_SECRET_LIFETIME, NewClient, RegisteredClient, client_faults, default_responses,
};

/// Longest lifetime that is looked at: the registry knows which is too long for what.
const LIFETIME_MAX: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// Most entries of a list of kinds that are looked at; the registry refuses longer ones.
const KINDS_MAX: usize = 16;

/// What `UpdateClient` can change, by the names of the message's fields.
const MUTABLE: [&str; 21] = [
    "name",
    "description",
    "logo_url",
    "homepage_url",
    "auth_method",
    "jwks",
    "jwks_uri",
    "redirect_uris",
    "grant_types",
    "response_types",
    "allowed_scopes",
    "access_token_lifetime",
    "refresh_token_lifetime",
    "require_pkce",
    "trusted",
    "rate_limit_per_hour",
    "webhook_url",
    "webhook_events",
    "access_token_format",
    "dpop_bound_access_tokens",
    "require_pushed_authorization_requests",
];

/// A client on the wire.
pub(super) fn client(registered: &RegisteredClient) -> pb::Client {
    let RegisteredClient { client, secrets } = registered;
    let settings = client.settings.clone();
    let grants = settings.grant_types.into_iter().map(grant);
    let responses = settings.response_types.into_iter().map(response);
    let rate = settings.rate_limit_per_hour.unwrap_or_default();
    pb::Client {
        id: client.id.clone(),
        name: settings.name,
        description: settings.description,
        logo_url: settings.logo_url,
        homepage_url: settings.homepage_url,
        auth_method: method(settings.auth_method).into(),
        jwks: settings.jwks,
        jwks_uri: settings.jwks_uri,
        redirect_uris: settings.redirect_uris,
        grant_types: grants.map(i32::from).collect(),
        response_types: responses.map(i32::from).collect(),
        allowed_scopes: settings.allowed_scopes,
        access_token_lifetime: Some(duration(settings.access_token_lifetime)),
        refresh_token_lifetime: Some(duration(settings.refresh_token_lifetime)),
        require_pkce: Some(settings.require_pkce),
        trusted: settings.trusted,
        rate_limit_per_hour: i32::try_from(rate).unwrap_or(i32::MAX),
        webhook_url: settings.webhook_url,
        webhook_events: settings.webhook_events,
        state: state(client.state).into(),
        state_reason: client.state_reason.clone(),
        state_change_time: Some(timestamp(client.state_changed_at)),
        secrets: secrets.iter().map(secret).collect(),
        has_webhook_secret: client.webhook_secret.is_some(),
        created_by: client.created_by.clone(),
        create_time: Some(timestamp(client.created_at)),
        update_time: Some(timestamp(client.updated_at)),
        etag: etag(client.version),
        access_token_format: format(settings.access_token_format).into(),
        dpop_bound_access_tokens: settings.dpop_bound,
        require_pushed_authorization_requests: settings.require_pushed,
    }
}

fn secret(secret: &ClientSecret) -> pb::ClientSecret {
    pb::ClientSecret {
        prefix: secret.prefix.clone(),
        create_time: Some(timestamp(secret.created_at)),
        expire_time: Some(timestamp(secret.expires_at)),
        supersede_time: secret.superseded_at.map(timestamp),
    }
}

const fn state(state: ClientState) -> pb::ClientState {
    match state {
        ClientState::Pending => pb::ClientState::Pending,
        ClientState::Active => pb::ClientState::Active,
        ClientState::Suspended => pb::ClientState::Suspended,
        ClientState::Revoked => pb::ClientState::Revoked,
    }
}

/// A state of the wire; none where it is not set. A number that is no state is a fault.
pub(super) fn from_state(fields: &mut Fields, field: &str, number: i32) -> Option<ClientState> {
    match pb::ClientState::try_from(number) {
        Ok(pb::ClientState::Unspecified) => None,
        Ok(pb::ClientState::Pending) => Some(ClientState::Pending),
        Ok(pb::ClientState::Active) => Some(ClientState::Active),
        Ok(pb::ClientState::Suspended) => Some(ClientState::Suspended),
        Ok(pb::ClientState::Revoked) => Some(ClientState::Revoked),
        Err(_) => {
            fields.check(false, field, "is no state of a client");
            None
        }
    }
}

const fn method(method: ClientAuthMethod) -> pb::ClientAuthMethod {
    match method {
        ClientAuthMethod::None => pb::ClientAuthMethod::None,
        ClientAuthMethod::SecretBasic => pb::ClientAuthMethod::ClientSecretBasic,
        ClientAuthMethod::SecretPost => pb::ClientAuthMethod::ClientSecretPost,
        ClientAuthMethod::PrivateKeyJwt => pb::ClientAuthMethod::PrivateKeyJwt,
    }
}

fn from_method(fields: &mut Fields, number: i32) -> Option<ClientAuthMethod> {
    match pb::ClientAuthMethod::try_from(number) {
        Ok(pb::ClientAuthMethod::Unspecified) => None,
        Ok(pb::ClientAuthMethod::None) => Some(ClientAuthMethod::None),
        Ok(pb::ClientAuthMethod::ClientSecretBasic) => Some(ClientAuthMethod::SecretBasic),
        Ok(pb::ClientAuthMethod::ClientSecretPost) => Some(ClientAuthMethod::SecretPost),
        Ok(pb::ClientAuthMethod::PrivateKeyJwt) => Some(ClientAuthMethod::PrivateKeyJwt),
        Err(_) => {
            fields.check(false, "client.auth_method", "is no authentication method");
            None
        }
    }
}

const fn grant(grant: ClientGrantType) -> pb::ClientGrantType {
    match grant {
        ClientGrantType::AuthorizationCode => pb::ClientGrantType::AuthorizationCode,
        ClientGrantType::RefreshToken => pb::ClientGrantType::RefreshToken,
        ClientGrantType::ClientCredentials => pb::ClientGrantType::ClientCredentials,
        ClientGrantType::DeviceCode => pb::ClientGrantType::DeviceCode,
    }
}

fn from_grant(number: i32) -> Option<ClientGrantType> {
    match pb::ClientGrantType::try_from(number).ok()? {
        pb::ClientGrantType::Unspecified => None,
        pb::ClientGrantType::AuthorizationCode => Some(ClientGrantType::AuthorizationCode),
        pb::ClientGrantType::RefreshToken => Some(ClientGrantType::RefreshToken),
        pb::ClientGrantType::ClientCredentials => Some(ClientGrantType::ClientCredentials),
        pb::ClientGrantType::DeviceCode => Some(ClientGrantType::DeviceCode),
    }
}

const fn response(response: ClientResponseType) -> pb::ClientResponseType {
    match response {
        ClientResponseType::Code => pb::ClientResponseType::Code,
    }
}

fn from_response(number: i32) -> Option<ClientResponseType> {
    match pb::ClientResponseType::try_from(number).ok()? {
        pb::ClientResponseType::Unspecified => None,
        pb::ClientResponseType::Code => Some(ClientResponseType::Code),
    }
}

const fn format(format: TokenFormat) -> pb::AccessTokenFormat {
    match format {
        TokenFormat::Opaque => pb::AccessTokenFormat::Opaque,
        TokenFormat::Jwt => pb::AccessTokenFormat::Jwt,
    }
}

fn from_format(fields: &mut Fields, number: i32) -> TokenFormat {
    use pb::AccessTokenFormat as Format;
    match Format::try_from(number) {
        Ok(Format::Unspecified | Format::Opaque) => TokenFormat::Opaque,
        Ok(Format::Jwt) => TokenFormat::Jwt,
        Err(_) => {
            fields.check(false, "client.access_token_format", "is no format");
            TokenFormat::Opaque
        }
    }
}

/// A list of kinds of the wire; numbers that are none are faults.
fn kinds<T>(
    fields: &mut Fields,
    field: &str,
    numbers: &[i32],
    kind: impl Fn(i32) -> Option<T>,
) -> Vec<T> {
    fields.check(numbers.len() <= KINDS_MAX, field, "holds something twice");
    let mut found = Vec::new();
    for (index, number) in numbers.iter().take(KINDS_MAX).enumerate() {
        let kind = kind(*number);
        fields.check(
            kind.is_some(),
            format!("{field}[{index}]"),
            "is no value of this field",
        );
        found.extend(kind);
    }
    found
}

/// How long a secret is to be good.
pub(super) fn secret_lifetime(
    fields: &mut Fields,
    value: Option<prost_types::Duration>,
) -> Option<Duration> {
    let lifetime = fields.duration("secret_lifetime", value, MAX_SECRET_LIFETIME);
    fields.check(
        lifetime.is_none_or(|lifetime| lifetime >= MIN_SECRET_LIFETIME),
        "secret_lifetime",
        "must not be shorter than 1 hour",
    );
    lifetime
}

/// What the fields of a message come to where they need more than to be taken over.
struct Judged {
    auth_method: Option<ClientAuthMethod>,
    grant_types: Vec<ClientGrantType>,
    response_types: Vec<ClientResponseType>,
    access_token_lifetime: Option<Duration>,
    refresh_token_lifetime: Option<Duration>,
    rate_limit_per_hour: Option<u32>,
    access_token_format: TokenFormat,
}

impl Judged {
    fn of(fields: &mut Fields, client: &pb::Client) -> Self {
        fields.check(
            client.rate_limit_per_hour >= 0,
            "client.rate_limit_per_hour",
            "must not be negative",
        );
        let rate = u32::try_from(client.rate_limit_per_hour).ok();
        Self {
            auth_method: from_method(fields, client.auth_method),
            grant_types: kinds(
                fields,
                "client.grant_types",
                &client.grant_types,
                from_grant,
            ),
            response_types: kinds(
                fields,
                "client.response_types",
                &client.response_types,
                from_response,
            ),
            access_token_lifetime: lifetime(
                fields,
                "client.access_token_lifetime",
                client.access_token_lifetime,
            ),
            refresh_token_lifetime: lifetime(
                fields,
                "client.refresh_token_lifetime",
                client.refresh_token_lifetime,
            ),
            rate_limit_per_hour: rate.filter(|rate| *rate > 0),
            access_token_format: from_format(fields, client.access_token_format),
        }
    }
}

/// Lifetimes are told to clients in seconds: parts of one are refused, and not lost in silence.
fn lifetime(
    fields: &mut Fields,
    field: &str,
    value: Option<prost_types::Duration>,
) -> Option<Duration> {
    let lifetime = fields.duration(field, value, LIFETIME_MAX);
    fields.check(
        lifetime.is_none_or(|lifetime| lifetime.subsec_nanos() == 0),
        field,
        "whole seconds are needed",
    );
    lifetime
}

fn default_grants() -> Vec<ClientGrantType> {
    vec![
        ClientGrantType::AuthorizationCode,
        ClientGrantType::RefreshToken,
    ]
}

fn or<T>(list: Vec<T>, default: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if list.is_empty() { default() } else { list }
}

/// A client to be registered.
///
/// # Errors
/// [`Error::InvalidArgument`] with every field that is not as it must be.
pub(super) fn new_client(request: pb::CreateClientRequest) -> Result<NewClient, Error> {
    let mut fields = Fields::new();
    fields.request_id(&request.request_id);
    fields.check(request.client.is_some(), "client", "is required");
    let secret_lifetime = secret_lifetime(&mut fields, request.secret_lifetime);
    let client = request.client.unwrap_or_default();
    // A new client has none; a wrong one is a mistake all the same.
    version(&mut fields, "client.etag", &client.etag);
    fields.check(client.auth_method != 0, "client.auth_method", "is required");
    let judged = Judged::of(&mut fields, &client);
    if let Some(method) = judged.auth_method {
        fields.check(
            secret_lifetime.is_none() || method.has_secret(),
            "secret_lifetime",
            "the client's authentication method has no secret",
        );
    }
    let grant_types = or(judged.grant_types, default_grants);
    let response_types = or(judged.response_types, || default_responses(&grant_types));
    let settings = ClientSettings {
        name: client.name,
        description: client.description,
        logo_url: client.logo_url,
        homepage_url: client.homepage_url,
        auth_method: judged.auth_method.unwrap_or(ClientAuthMethod::SecretBasic),
        jwks: client.jwks,
        jwks_uri: client.jwks_uri,
        redirect_uris: client.redirect_uris,
        grant_types,
        response_types,
        allowed_scopes: client.allowed_scopes,
        access_token_lifetime: judged
            .access_token_lifetime
            .unwrap_or(DEFAULT_ACCESS_LIFETIME),
        refresh_token_lifetime: judged
            .refresh_token_lifetime
            .unwrap_or(DEFAULT_REFRESH_LIFETIME),
        require_pkce: client.require_pkce.unwrap_or(true),
        trusted: client.trusted,
        rate_limit_per_hour: judged.rate_limit_per_hour,
        webhook_url: client.webhook_url,
        webhook_events: client.webhook_events,
        access_token_format: judged.access_token_format,
        dpop_bound: client.dpop_bound_access_tokens,
        require_pushed: client.require_pushed_authorization_requests,
    };
    for fault in client_faults(&settings) {
        fields.check(false, fault.field, fault.description);
    }
    fields.finish()?;
    Ok(NewClient {
        settings,
        secret_lifetime,
        request_id: request.request_id,
    })
}

/// Which fields of a client to change, and to what. An empty mask means those that are set, `*` means
/// all.
pub(super) fn changes(
    fields: &mut Fields,
    client: pb::Client,
    mask: Option<prost_types::FieldMask>,
) -> ClientChanges {
    let mask = Mask::of(fields, mask, &MUTABLE);
    let named = |name: &str, set: bool| mask.names(name, set);
    let judged = Judged::of(fields, &client);
    let method_named = named("auth_method", client.auth_method != 0);
    fields.check(
        !method_named || client.auth_method != 0,
        "client.auth_method",
        "is named in `update_mask` and not set",
    );
    let (access, refresh) = (judged.access_token_lifetime, judged.refresh_token_lifetime);
    let rate = judged.rate_limit_per_hour;
    let (bound, pushed) = (
        client.dpop_bound_access_tokens,
        client.require_pushed_authorization_requests,
    );
    ClientChanges {
        name: named("name", !client.name.is_empty()).then_some(client.name),
        description: named("description", !client.description.is_empty())
            .then_some(client.description),
        logo_url: named("logo_url", !client.logo_url.is_empty()).then_some(client.logo_url),
        homepage_url: named("homepage_url", !client.homepage_url.is_empty())
            .then_some(client.homepage_url),
        auth_method: judged.auth_method.filter(|_| method_named),
        jwks: named("jwks", !client.jwks.is_empty()).then_some(client.jwks),
        jwks_uri: named("jwks_uri", !client.jwks_uri.is_empty()).then_some(client.jwks_uri),
        redirect_uris: named("redirect_uris", !client.redirect_uris.is_empty())
            .then_some(client.redirect_uris),
        grant_types: named("grant_types", !client.grant_types.is_empty())
            .then(|| or(judged.grant_types, default_grants)),
        response_types: named("response_types", !client.response_types.is_empty())
            .then_some(judged.response_types),
        allowed_scopes: named("allowed_scopes", !client.allowed_scopes.is_empty())
            .then_some(client.allowed_scopes),
        access_token_lifetime: named("access_token_lifetime", access.is_some())
            .then(|| access.unwrap_or(DEFAULT_ACCESS_LIFETIME)),
        refresh_token_lifetime: named("refresh_token_lifetime", refresh.is_some())
            .then(|| refresh.unwrap_or(DEFAULT_REFRESH_LIFETIME)),
        require_pkce: named("require_pkce", client.require_pkce.is_some())
            .then(|| client.require_pkce.unwrap_or(true)),
        trusted: named("trusted", client.trusted).then_some(client.trusted),
        rate_limit_per_hour: named("rate_limit_per_hour", rate.is_some()).then_some(rate),
        webhook_url: named("webhook_url", !client.webhook_url.is_empty())
            .then_some(client.webhook_url),
        webhook_events: named("webhook_events", !client.webhook_events.is_empty())
            .then_some(client.webhook_events),
        access_token_format: named("access_token_format", client.access_token_format != 0)
            .then_some(judged.access_token_format),
        dpop_bound: named("dpop_bound_access_tokens", bound).then_some(bound),
        require_pushed: named("require_pushed_authorization_requests", pushed).then_some(pushed),
    }
}

#[cfg(test)]
mod tests;
