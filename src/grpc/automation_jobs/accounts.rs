//! Accounts on the wire.

use std::sync::Arc;

use prost_types::FieldMask;
use secrecy::SecretString;
use tonic::{Request, Response};

use super::convert::{from_type, labels};
use super::wire::{NAME_MAX, given};
use super::{Answer, Context, unconstrained};
use crate::access::{Caller, Permission};
use crate::automation::{AccountChanges, AccountFilter, Credentials, NewAccount};
use crate::error::Error;
use crate::grpc::client_registry::version;
use crate::grpc::convert::{etag, kind, timestamp};
use crate::grpc::fields::{self, Fields};
use crate::grpc::mask::Mask;
use crate::grpc::page::Page;
use crate::grpc::registry_convert::{APP_NAME_MAX, CLIENT_SECRET_MAX, PROVIDER_MAX};
use crate::model::{Account, ConnectionKind, IdKind};
use crate::pb;
use crate::registry::Registry;

const USERNAME_MAX: usize = 320;
const CLIENT_ID_MAX: usize = 500;
const PASSWORD_MAX: usize = 1_000;
/// A seed's 256 characters, with a blank before each.
const SEED_MAX: usize = 512;
/// Both in the old text form.
const TEXT_MAX: usize = PASSWORD_MAX + SEED_MAX + 64;

/// What `UpdateAccount` can change, by the names of the message's fields.
const MUTABLE: [&str; 6] = [
    "display_name",
    "type",
    "owner",
    "app",
    "client_id",
    "labels",
];

pub(super) async fn create_account(
    context: &Context,
    request: Request<pb::CreateAccountRequest>,
) -> Answer<pb::CreateAccountResponse> {
    let caller = unconstrained(&request, Permission::WriteAccounts)?;
    let (mut new, app) = new_account(request.into_inner())?;
    let (automation, registry) = (
        Arc::clone(&context.automation),
        Arc::clone(&context.registry),
    );
    let account = context
        .tasks
        .run(async move {
            (new.provider, new.app_id) = resolved(&registry, &caller, &new.provider, &app).await?;
            automation.create_account(&caller, new).await
        })
        .await?;
    let account = Some(wire(&account));
    Ok(Response::new(pb::CreateAccountResponse { account }))
}

pub(super) async fn get_account(
    context: &Context,
    request: Request<pb::GetAccountRequest>,
) -> Answer<pb::GetAccountResponse> {
    let caller = unconstrained(&request, Permission::ReadAccounts)?;
    let id = account_id(request.into_inner().account_id)?;
    let automation = Arc::clone(&context.automation);
    let account = context
        .tasks
        .run(async move { automation.get_account(&caller, &id).await })
        .await?;
    let account = Some(wire(&account));
    Ok(Response::new(pb::GetAccountResponse { account }))
}

pub(super) async fn list_accounts(
    context: &Context,
    request: Request<pb::ListAccountsRequest>,
) -> Answer<pb::ListAccountsResponse> {
    let caller = unconstrained(&request, Permission::ReadAccounts)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.text("provider", &request.provider, PROVIDER_MAX);
    let connected = from_connected(&mut fields, request.connected);
    fields.finish()?;
    let bound_to = ("accounts", &request.provider, request.connected);
    let page = Page::of(request.page_size, &request.page_token, bound_to)?;
    let filter = AccountFilter {
        provider: given(request.provider),
        connected,
    };
    let automation = Arc::clone(&context.automation);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut found = context
        .tasks
        .run(async move {
            automation
                .list_accounts(&caller, &filter, &after, limit)
                .await
        })
        .await?;
    let next_page_token = page.cut(&mut found, |account| account.id.clone());
    let accounts = found.iter().map(wire).collect();
    Ok(Response::new(pb::ListAccountsResponse {
        accounts,
        next_page_token,
    }))
}

pub(super) async fn update_account(
    context: &Context,
    request: Request<pb::UpdateAccountRequest>,
) -> Answer<pb::UpdateAccountResponse> {
    let caller = unconstrained(&request, Permission::WriteAccounts)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.check(request.account.is_some(), "account", "is required");
    let account = request.account.unwrap_or_default();
    fields.id("account.id", &account.id, IdKind::Account);
    let version = version(&mut fields, "account.etag", &account.etag);
    let id = account.id.clone();
    let mut changes = changes(&mut fields, account, request.update_mask);
    fields.finish()?;
    let (automation, registry) = (
        Arc::clone(&context.automation),
        Arc::clone(&context.registry),
    );
    let account = context
        .tasks
        .run(async move {
            if let Some(Some(app)) = &mut changes.app_id {
                *app = registry.get_app(&caller, app).await?.id;
            }
            automation
                .update_account(&caller, &id, &changes, version)
                .await
        })
        .await?;
    let account = Some(wire(&account));
    Ok(Response::new(pb::UpdateAccountResponse { account }))
}

pub(super) async fn delete_account(
    context: &Context,
    request: Request<pb::DeleteAccountRequest>,
) -> Answer<pb::DeleteAccountResponse> {
    let caller = unconstrained(&request, Permission::WriteAccounts)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    let id = request.account_id;
    fields.id("account_id", &id, IdKind::Account);
    let version = version(&mut fields, "etag", &request.etag);
    fields.finish()?;
    let automation = Arc::clone(&context.automation);
    context
        .tasks
        .run(async move { automation.delete_account(&caller, &id, version).await })
        .await?;
    Ok(Response::new(pb::DeleteAccountResponse {}))
}

pub(super) async fn set_credentials(
    context: &Context,
    request: Request<pb::SetCredentialsRequest>,
) -> Answer<pb::SetCredentialsResponse> {
    let caller = unconstrained(&request, Permission::WriteAccounts)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    let (id, replace) = (request.account_id, request.replace);
    fields.id("account_id", &id, IdKind::Account);
    let credentials = credentials(&mut fields, request.credentials);
    fields.finish()?;
    let automation = Arc::clone(&context.automation);
    let account = context
        .tasks
        .run(async move {
            automation
                .set_credentials(&caller, &id, credentials, replace)
                .await
        })
        .await?;
    let account = Some(wire(&account));
    Ok(Response::new(pb::SetCredentialsResponse { account }))
}

pub(super) async fn mark_connected(
    context: &Context,
    request: Request<pb::MarkConnectedRequest>,
) -> Answer<pb::MarkConnectedResponse> {
    let caller = unconstrained(&request, Permission::WriteAccounts)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    let id = request.account_id;
    fields.id("account_id", &id, IdKind::Account);
    let connection = given(request.connection_id);
    if let Some(connection) = &connection {
        fields.id("connection_id", connection, IdKind::Connection);
    }
    fields.finish()?;
    let automation = Arc::clone(&context.automation);
    let account = context
        .tasks
        .run(async move {
            automation
                .mark_connected(&caller, &id, connection.as_deref())
                .await
        })
        .await?;
    let account = Some(wire(&account));
    Ok(Response::new(pb::MarkConnectedResponse { account }))
}

/// An account on the wire; its credentials stay behind.
fn wire(account: &Account) -> pb::Account {
    let it = account.clone();
    let connected = it.connection_id.is_some();
    pb::Account {
        id: it.id,
        provider: it.provider,
        username: it.username,
        display_name: it.display_name,
        r#type: kind(it.kind).into(),
        owner: it.owner,
        app: it.app_id.unwrap_or_default(),
        client_id: it.client_id,
        has_password: it.password.is_some(),
        has_totp: it.totp_secret.is_some(),
        has_client_secret: it.client_secret.is_some(),
        credentials_time: it.credentials_at.map(timestamp),
        connection_id: it.connection_id.unwrap_or_default(),
        // A connection that was deleted took its id with it, and left the time.
        connect_time: it.connected_at.filter(|_| connected).map(timestamp),
        labels: it.labels.into_iter().collect(),
        create_time: Some(timestamp(it.created_at)),
        update_time: Some(timestamp(it.updated_at)),
        etag: etag(it.version),
    }
}

fn account_id(id: String) -> Result<String, Error> {
    let mut fields = Fields::new();
    fields.id("account_id", &id, IdKind::Account);
    fields.finish()?;
    Ok(id)
}

fn from_connected(fields: &mut Fields, number: i32) -> Option<bool> {
    match pb::ConnectedFilter::try_from(number) {
        Ok(pb::ConnectedFilter::Unspecified) => None,
        Ok(pb::ConnectedFilter::Connected) => Some(true),
        Ok(pb::ConnectedFilter::NotConnected) => Some(false),
        Err(_) => {
            fields.check(false, "connected", "is no value of this field");
            None
        }
    }
}

/// The provider's id and the app's, by their names; the app's provider where none is named.
async fn resolved(
    registry: &Registry,
    caller: &Caller,
    provider: &str,
    app: &str,
) -> Result<(String, Option<String>), Error> {
    let app = match app {
        "" => None,
        name => Some(registry.get_app(caller, name).await?),
    };
    let provider = match (provider, &app) {
        ("", Some(app)) => app.provider.clone(),
        (name, _) => {
            let entry = registry.get_provider(caller, name).await?;
            entry.definition().id.clone()
        }
    };
    Ok((provider, app.map(|app| app.id)))
}

/// An account to be made, its provider as it was named, and the name of its app.
fn new_account(request: pb::CreateAccountRequest) -> Result<(NewAccount, String), Error> {
    let mut fields = Fields::new();
    fields.request_id(&request.request_id);
    let credentials = credentials(&mut fields, request.credentials);
    fields.check(request.account.is_some(), "account", "is required");
    let account = request.account.unwrap_or_default();
    // A new account has none; a wrong one is a mistake all the same.
    version(&mut fields, "account.etag", &account.etag);
    fields.check(
        !account.provider.is_empty() || !account.app.is_empty(),
        "account.provider",
        "a provider or an app is required",
    );
    fields.text("account.provider", &account.provider, PROVIDER_MAX);
    fields.required("account.username", &account.username, USERNAME_MAX);
    judge(&mut fields, &account);
    let kind = from_type(&mut fields, "account.type", account.r#type);
    let labels = labels(&mut fields, "account.labels", account.labels);
    fields.finish()?;
    let new = NewAccount {
        provider: account.provider,
        username: account.username,
        display_name: account.display_name,
        kind: kind.unwrap_or(ConnectionKind::Oauth2),
        owner: account.owner,
        app_id: None,
        client_id: account.client_id,
        labels,
        credentials,
        request_id: request.request_id,
    };
    Ok((new, account.app))
}

/// Which fields of an account to change, and to what; the app is named as the caller did. An empty mask
/// means those that are set, `*` means all.
fn changes(fields: &mut Fields, account: pb::Account, mask: Option<FieldMask>) -> AccountChanges {
    let mask = Mask::of(fields, mask, &MUTABLE);
    judge(fields, &account);
    let kind = from_type(fields, "account.type", account.r#type);
    let labels = labels(fields, "account.labels", account.labels);
    let text = |name: &str, value: String| mask.names(name, !value.is_empty()).then_some(value);
    AccountChanges {
        display_name: text("display_name", account.display_name),
        kind: mask
            .names("type", kind.is_some())
            .then(|| kind.unwrap_or(ConnectionKind::Oauth2)),
        owner: text("owner", account.owner),
        app_id: text("app", account.app).map(given),
        client_id: text("client_id", account.client_id),
        labels: mask.names("labels", !labels.is_empty()).then_some(labels),
    }
}

/// Every text that callers may change.
fn judge(fields: &mut Fields, account: &pb::Account) {
    fields.text("account.display_name", &account.display_name, NAME_MAX);
    fields.text("account.owner", &account.owner, fields::NAME_MAX);
    fields.text("account.app", &account.app, APP_NAME_MAX);
    fields.text("account.client_id", &account.client_id, CLIENT_ID_MAX);
}

/// What an account signs in with. No fault repeats any of it.
fn credentials(fields: &mut Fields, asked: Option<pb::AccountCredentials>) -> Credentials {
    let pb::AccountCredentials {
        password,
        totp_secret,
        client_secret,
        text,
    } = asked.unwrap_or_default();
    fields.text("credentials.password", &password, PASSWORD_MAX);
    fields.text("credentials.totp_secret", &totp_secret, SEED_MAX);
    if !client_secret.is_empty() {
        let field = "credentials.client_secret";
        fields.secret(field, &client_secret, CLIENT_SECRET_MAX);
    }
    fields.text("credentials.text", &text, TEXT_MAX);
    let secret = |text: String| (!text.is_empty()).then(|| SecretString::from(text));
    let apart = Credentials {
        password: secret(password),
        totp_secret: secret(totp_secret),
        client_secret: secret(client_secret),
    };
    let credentials = match secret(text) {
        None => apart,
        Some(text) => {
            fields.check(
                apart.password.is_none() && apart.totp_secret.is_none(),
                "credentials.text",
                "is instead of `password` and `totp_secret`",
            );
            let parsed = Credentials::parse_text(&text).unwrap_or_else(|fault| {
                fields.check(false, fault.field, fault.description);
                Credentials::default()
            });
            Credentials {
                client_secret: apart.client_secret,
                ..parsed
            }
        }
    };
    for fault in credentials.faults() {
        fields.check(false, fault.field, fault.description);
    }
    credentials
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn mask(paths: &[&str]) -> Option<FieldMask> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Some(FieldMask { paths })
    }

    fn faulty<T>(outcome: Result<T, Error>) -> Vec<String> {
        match outcome {
            Err(Error::InvalidArgument(faults)) => faults.into_iter().map(|it| it.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_mutable_field_is_reached() {
        let mut fields = Fields::new();
        let all = changes(&mut fields, pb::Account::default(), mask(&["*"]));
        let each = changes(&mut fields, pb::Account::default(), mask(&MUTABLE));
        assert_eq!(all, each);
        assert_eq!(each.app_id, Some(None));
        assert_eq!(each.kind, Some(ConnectionKind::Oauth2));
        assert!(each.labels.is_some() && each.owner.is_some() && each.client_id.is_some());
        let none = changes(&mut fields, pb::Account::default(), None);
        assert_eq!(none, AccountChanges::default());
        assert!(fields.finish().is_ok());
    }

    #[test]
    fn all_faults_of_an_account_come_at_once() {
        let request = pb::CreateAccountRequest {
            account: Some(pb::Account {
                r#type: 9,
                owner: "x".repeat(fields::NAME_MAX + 1),
                ..pb::Account::default()
            }),
            credentials: Some(pb::AccountCredentials {
                totp_secret: "not Base32".to_owned(),
                ..pb::AccountCredentials::default()
            }),
            request_id: "once".to_owned(),
        };
        assert_eq!(
            faulty(new_account(request)),
            [
                "request_id",
                "credentials.totp_secret",
                "account.provider",
                "account.username",
                "account.owner",
                "account.type",
            ]
        );
    }

    #[test]
    fn the_old_text_is_instead_of_the_other_two() {
        let wanted = |password: &str, text: &str| pb::AccountCredentials {
            password: password.to_owned(),
            text: text.to_owned(),
            ..pb::AccountCredentials::default()
        };
        let mut fields = Fields::new();
        let read = credentials(&mut fields, Some(wanted("", "CSV_PASSWORD:pass")));
        let password = read.password.as_ref().map(|it| it.expose_secret());
        assert_eq!(password, Some("pass"));
        credentials(&mut fields, Some(wanted("pass", "CSV_PASSWORD:pass")));
        credentials(&mut fields, Some(wanted("", "pass")));
        assert_eq!(faulty(fields.finish()), ["credentials.text"; 2]);
    }
}
