//! Authorisations, imports and connected accounts on the wire.

mod imports;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost::Message as _;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

pub(super) use imports::import;

use super::caller::principal;
use super::connections::{checked, connection};
use super::convert;
use super::fields::{CLIENT_ID_MAX, Fields, NAME_MAX, ordered};
use super::page::Page;
use super::token_broker::Context;
use crate::access::requests::Once;
use crate::broker::authorizations::{AppAccounts, NewAuthorization};
use crate::model::{
    Authorization, AuthorizationFailure, AuthorizationMode, AuthorizationState, IdKind,
    RefreshPolicy, Timestamp,
};
use crate::pb;

/// Longest e-mail address, in characters (RFC 3696, erratum 1690).
const LOGIN_HINT_MAX: usize = 320;
/// Longest confirmation code taken, in characters; ours have 43.
const CODE_MAX: usize = 255;
/// Most parameters for the authorisation endpoint, and the longest name and value, in characters.
const PARAMETERS_MAX: (usize, usize, usize) = (20, 64, 1_024);
/// Most parameters of a callback, and the longest name and value, in characters.
const CALLBACK_MAX: (usize, usize, usize) = (50, 255, 8_192);
/// Most apps on a page of connected accounts.
const APPS_MAX: i32 = 50;

pub(super) async fn start(
    context: &Context,
    request: Request<pb::StartAuthorizationRequest>,
) -> Result<Response<pb::StartAuthorizationResponse>, Status> {
    let principal = principal(&request)?;
    let mut request = request.into_inner();
    let request_id = request.request_id.clone();
    // Maps are encoded in no order: the fingerprint takes them apart, sorted.
    let parameters = ordered(std::mem::take(&mut request.parameters));
    let message = fingerprinted(request.encode_to_vec(), &parameters);
    let new = new_authorization(request, parameters)?;
    let authorizations = Arc::clone(&context.authorizations);
    let started = context
        .tasks
        .run(async move {
            let tenant = &principal.tenant;
            let once = Once::of(tenant, "StartAuthorization", &request_id, &message);
            authorizations.start(&principal, new, once).await
        })
        .await?;
    let link = |link: Option<SecretString>| convert::shown(link.as_ref());
    Ok(Response::new(pb::StartAuthorizationResponse {
        authorization: Some(authorization(&started.authorization)),
        connect_url: link(started.connect_url),
        authorization_url: link(started.authorization_url),
    }))
}

fn new_authorization(
    request: pb::StartAuthorizationRequest,
    parameters: BTreeMap<String, String>,
) -> Result<NewAuthorization, crate::Error> {
    let mut fields = Fields::new();
    fields.required("app", &request.app, CLIENT_ID_MAX);
    fields.required("owner", &request.owner, NAME_MAX);
    fields.scopes("scopes", &request.scopes);
    if !request.return_url.is_empty() {
        fields.browser_url("return_url", &request.return_url);
    }
    fields.text("login_hint", &request.login_hint, LOGIN_HINT_MAX);
    if !request.connection_id.is_empty() {
        fields.id("connection_id", &request.connection_id, IdKind::Connection);
    }
    let mode = match pb::AuthorizationMode::try_from(request.mode) {
        Ok(pb::AuthorizationMode::LinkOnly) => AuthorizationMode::LinkOnly,
        Ok(pb::AuthorizationMode::Unspecified | pb::AuthorizationMode::Confirmed) => {
            AuthorizationMode::Confirmed
        }
        Err(_) => {
            fields.check(false, "mode", "is no mode");
            AuthorizationMode::Confirmed
        }
    };
    if !request.redirect_uri.is_empty() {
        fields.browser_url("redirect_uri", &request.redirect_uri);
    }
    let (entries, name, value) = PARAMETERS_MAX;
    fields.map("parameters", parameters.iter(), entries, name, value);
    fields.check(
        parameters.keys().all(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        }),
        "parameters",
        "names may hold letters, digits and _ . - only",
    );
    let refresh_policy = policy(&mut fields, request.refresh_policy);
    fields.request_id(&request.request_id);
    fields.finish()?;
    Ok(NewAuthorization {
        app: request.app,
        owner: request.owner,
        scopes: request.scopes,
        return_url: request.return_url,
        login_hint: request.login_hint,
        connection_id: Some(request.connection_id).filter(|id| !id.is_empty()),
        mode,
        redirect_uri: request.redirect_uri,
        parameters,
        refresh_policy,
        ttl: None,
    })
}

pub(super) async fn get(
    context: &Context,
    request: Request<pb::GetAuthorizationRequest>,
) -> Result<Response<pb::GetAuthorizationResponse>, Status> {
    let principal = principal(&request)?;
    let id = request.into_inner().authorization_id;
    let mut fields = Fields::new();
    fields.id("authorization_id", &id, IdKind::Authorization);
    fields.finish()?;
    let authorizations = Arc::clone(&context.authorizations);
    let found = context
        .tasks
        .run(async move { authorizations.get(&principal, &id).await })
        .await?;
    Ok(Response::new(pb::GetAuthorizationResponse {
        authorization: Some(authorization(&found)),
    }))
}

pub(super) async fn confirm(
    context: &Context,
    request: Request<pb::ConfirmAuthorizationRequest>,
) -> Result<Response<pb::ConfirmAuthorizationResponse>, Status> {
    let principal = principal(&request)?;
    let pb::ConfirmAuthorizationRequest {
        authorization_id: id,
        confirmation_code,
        owner,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.id("authorization_id", &id, IdKind::Authorization);
    fields.secret("confirmation_code", &confirmation_code, CODE_MAX);
    fields.required("owner", &owner, NAME_MAX);
    fields.finish()?;
    let code = SecretString::from(confirmation_code);
    let authorizations = Arc::clone(&context.authorizations);
    let confirmed = context
        .tasks
        .run(async move {
            authorizations
                .confirm(&principal, &id, code.expose_secret(), &owner)
                .await
        })
        .await?;
    Ok(Response::new(pb::ConfirmAuthorizationResponse {
        connection: Some(connection(&confirmed, context.clock.now())),
    }))
}

pub(super) async fn complete(
    context: &Context,
    request: Request<pb::CompleteAuthorizationRequest>,
) -> Result<Response<pb::CompleteAuthorizationResponse>, Status> {
    let principal = principal(&request)?;
    let pb::CompleteAuthorizationRequest {
        authorization_id: id,
        owner,
        parameters,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.id("authorization_id", &id, IdKind::Authorization);
    fields.required("owner", &owner, NAME_MAX);
    callback_parameters(&mut fields, &parameters);
    fields.finish()?;
    let parameters = ordered(parameters);
    let authorizations = Arc::clone(&context.authorizations);
    let (completed, made) = context
        .tasks
        .run(async move {
            authorizations
                .complete(&principal, &id, &owner, parameters)
                .await
        })
        .await?;
    Ok(Response::new(pb::CompleteAuthorizationResponse {
        authorization: Some(authorization(&completed)),
        connection: made.map(|made| connection(&made, context.clock.now())),
    }))
}

/// Names and lengths only: what a provider says may hold any character.
fn callback_parameters(fields: &mut Fields, parameters: &HashMap<String, String>) {
    let (entries, name_max, value_max) = CALLBACK_MAX;
    fields.check(
        (1..=entries).contains(&parameters.len()),
        "parameters",
        format!("1 to {entries} entries are needed"),
    );
    fields.check(
        parameters
            .keys()
            .all(|name| (1..=name_max).contains(&name.chars().count())),
        "parameters",
        format!("names of 1 to {name_max} characters are allowed"),
    );
    fields.check(
        parameters
            .values()
            .all(|value| value.chars().count() <= value_max),
        "parameters",
        format!("values of at most {value_max} characters are allowed"),
    );
}

pub(super) async fn connected_accounts(
    context: &Context,
    request: Request<pb::ListConnectedAccountsRequest>,
) -> Result<Response<pb::ListConnectedAccountsResponse>, Status> {
    let principal = principal(&request)?;
    let pb::ListConnectedAccountsRequest {
        owner,
        include_connect_urls,
        return_url,
        page_size,
        page_token,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.required("owner", &owner, NAME_MAX);
    if include_connect_urls || !return_url.is_empty() {
        fields.browser_url("return_url", &return_url);
    }
    let bound_to = (
        "ListConnectedAccounts",
        &owner,
        include_connect_urls,
        &return_url,
    );
    let page = Page::at_most(APPS_MAX, page_size, &page_token, bound_to);
    let page = checked(fields, page)?;
    let authorizations = Arc::clone(&context.authorizations);
    let (after, size) = (page.after.clone(), page.size);
    let mut rows = context
        .tasks
        .run(async move {
            let return_url = include_connect_urls.then_some(return_url.as_str());
            authorizations
                .connected_accounts(&principal, &owner, return_url, &after, size)
                .await
        })
        .await?;
    let next_page_token = page.cut(&mut rows, |row| row.app.id.clone());
    let now = context.clock.now();
    Ok(Response::new(pb::ListConnectedAccountsResponse {
        accounts: rows
            .into_iter()
            .flat_map(|row| accounts(row, now))
            .collect(),
        next_page_token,
    }))
}

/// One an account, or one that says there is none.
fn accounts(row: AppAccounts, now: Timestamp) -> Vec<pb::ConnectedAccount> {
    let AppAccounts {
        app,
        provider_display_name,
        connections,
        connect_url,
    } = row;
    let link = |link: Option<SecretString>| convert::shown(link.as_ref());
    let blank = || pb::ConnectedAccount {
        app_id: app.id.clone(),
        app_display_name: app.display_name.clone(),
        provider: app.provider.clone(),
        provider_display_name: provider_display_name.clone(),
        ..pb::ConnectedAccount::default()
    };
    if connections.is_empty() {
        return vec![pb::ConnectedAccount {
            connect_url: link(connect_url),
            ..blank()
        }];
    }
    connections
        .into_iter()
        .map(|account| pb::ConnectedAccount {
            connected: account.usable,
            connection: Some(connection(&account.details, now)),
            connect_url: link(account.connect_url),
            ..blank()
        })
        .collect()
}

/// A refresh policy; none where the caller has no wish.
fn policy(fields: &mut Fields, number: i32) -> Option<RefreshPolicy> {
    if number == 0 {
        return None;
    }
    let policy = convert::from_policy("refresh_policy", number).ok();
    fields.check(policy.is_some(), "refresh_policy", "is no refresh policy");
    policy
}

/// What identifies a request: its encoding without its map, and the map in order. Wiped, since it
/// may hold secrets.
fn fingerprinted(message: Vec<u8>, map: &BTreeMap<String, String>) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(message);
    for text in map.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn authorization(authorization: &Authorization) -> pb::Authorization {
    let failed = authorization.state == AuthorizationState::Failed;
    let connection_id = authorization
        .connection_id
        .as_ref()
        .or(authorization.renews.as_ref());
    pb::Authorization {
        id: authorization.id.clone(),
        app_id: authorization.app_id.clone(),
        owner: authorization.owner.clone(),
        mode: mode(authorization.mode).into(),
        state: state(authorization.state).into(),
        scopes: authorization.scopes.clone(),
        return_url: authorization.return_url.clone(),
        connection_id: connection_id.cloned().unwrap_or_default(),
        failure: failed.then(|| failure(&authorization.failure)),
        create_time: Some(convert::timestamp(authorization.created_at)),
        expire_time: Some(convert::timestamp(authorization.expires_at)),
    }
}

const fn mode(mode: AuthorizationMode) -> pb::AuthorizationMode {
    match mode {
        AuthorizationMode::Confirmed => pb::AuthorizationMode::Confirmed,
        AuthorizationMode::LinkOnly => pb::AuthorizationMode::LinkOnly,
    }
}

const fn state(state: AuthorizationState) -> pb::AuthorizationState {
    match state {
        AuthorizationState::Pending => pb::AuthorizationState::Pending,
        AuthorizationState::Exchanged => pb::AuthorizationState::Exchanged,
        AuthorizationState::AwaitingConfirmation => pb::AuthorizationState::AwaitingConfirmation,
        AuthorizationState::Succeeded => pb::AuthorizationState::Succeeded,
        AuthorizationState::Failed => pb::AuthorizationState::Failed,
        AuthorizationState::Expired => pb::AuthorizationState::Expired,
    }
}

fn failure(failure: &AuthorizationFailure) -> pb::AuthorizationFailure {
    pb::AuthorizationFailure {
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        provider_error: failure.provider_error.clone(),
        provider_error_description: failure.provider_description.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_tells_maps_apart() {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let one = fingerprinted(vec![1], &map(&[("ab", "c")]));
        assert_eq!(*one, *fingerprinted(vec![1], &map(&[("ab", "c")])));
        assert_ne!(*one, *fingerprinted(vec![1], &map(&[("a", "bc")])));
        assert_ne!(*one, *fingerprinted(vec![2], &map(&[("ab", "c")])));
    }

    #[test]
    fn every_fault_of_a_request_is_told() {
        let request = pb::StartAuthorizationRequest {
            owner: "a\u{7}".to_owned(),
            return_url: "http://a.example".to_owned(),
            mode: 9,
            refresh_policy: 9,
            connection_id: "x".to_owned(),
            ..pb::StartAuthorizationRequest::default()
        };
        let parameters = BTreeMap::from([("a b".to_owned(), String::new())]);
        let Err(crate::Error::InvalidArgument(faults)) = new_authorization(request, parameters)
        else {
            panic!("taken");
        };
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "app",
                "owner",
                "return_url",
                "connection_id",
                "mode",
                "parameters",
                "refresh_policy"
            ]
        );
    }
}
