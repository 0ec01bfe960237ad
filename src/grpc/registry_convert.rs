//! Providers and apps: the wire's words for the registry's, and back.

use std::collections::BTreeMap;

use prost::Message as _;
use secrecy::SecretString;
use url::Url;

use super::convert::{etag, from_structure, kind, structure, timestamp};
use super::fields::{self, Fields};
use super::mask::Mask;
use crate::error::Error;
use crate::model::{App, AppState};
use crate::pb;
use crate::registry::{AppChanges, AppFields, NewApp, NewProvider, ProviderEntry};

/// Longest provider id or alias, in characters.
pub const PROVIDER_MAX: usize = 63;
/// Longest name of an app: its id, client id or external key, in characters.
pub const APP_NAME_MAX: usize = fields::CLIENT_ID_MAX;
/// Longest client secret, in characters.
pub const CLIENT_SECRET_MAX: usize = 4_096;

const EXTERNAL_KEY_MAX: usize = fields::NAME_MAX;
const EMAIL_MAX: usize = 320;
const RETURN_URLS_MAX: usize = 50;
const REDIRECT_URIS_MAX: usize = 20;
const VARIABLES_MAX: usize = 32;
const VARIABLE_NAME_MAX: usize = 32;
const VARIABLE_MAX: usize = 253;
const DEFINITION_MAX: usize = 64 * 1024;

/// What `UpdateApp` can change, by the names of the message's fields.
const MUTABLE: [&str; 10] = [
    "client_id",
    "external_key",
    "display_name",
    "default_scopes",
    "allowed_return_urls",
    "redirect_uris",
    "variables",
    "workspace_email",
    "workspace_name",
    "state",
];

/// A provider on the wire.
///
/// # Errors
/// [`Error::Internal`] when its definition can't be written as JSON, which none does.
pub fn provider(entry: &ProviderEntry) -> Result<pb::Provider, Error> {
    let definition = entry.definition();
    let mut message = pb::Provider {
        id: definition.id.clone(),
        display_name: definition.display_name.clone(),
        builtin: true,
        definition: Some(structure(&entry.fields()?)),
        ..pb::Provider::default()
    };
    message.set_kind(kind(definition.kind));
    if let ProviderEntry::Custom(custom) = entry {
        message.builtin = false;
        message.create_time = Some(timestamp(custom.created_at));
        message.update_time = Some(timestamp(custom.updated_at));
        message.etag = etag(custom.version);
    }
    Ok(message)
}

/// An app on the wire; its secrets stay behind.
pub fn app(app: &App, callback_url: String) -> pb::App {
    let mut message = pb::App {
        id: app.id.clone(),
        provider: app.provider.clone(),
        client_id: app.client_id.clone().unwrap_or_default(),
        external_key: app.external_key.clone().unwrap_or_default(),
        display_name: app.display_name.clone(),
        default_scopes: app.default_scopes.clone(),
        allowed_return_urls: app.allowed_return_urls.clone(),
        redirect_uris: app.redirect_uris.clone(),
        variables: app.variables.clone().into_iter().collect(),
        workspace_email: app.workspace_email.clone(),
        workspace_name: app.workspace_name.clone(),
        state: 0,
        misconfiguration: app.misconfiguration.clone(),
        callback_url,
        has_client_secret: app.client_secret.is_some(),
        previous_secret_expire_time: app.previous_secret_expires_at.map(timestamp),
        create_time: Some(timestamp(app.created_at)),
        update_time: Some(timestamp(app.updated_at)),
        etag: etag(app.version),
    };
    message.set_state(match app.state {
        AppState::Active => pb::AppState::Active,
        AppState::Inactive => pb::AppState::Inactive,
    });
    message
}

/// A provider to be made.
///
/// # Errors
/// [`Error::InvalidArgument`] with every field that is not as it must be.
pub fn new_provider(request: pb::CreateProviderRequest) -> Result<NewProvider, Error> {
    let mut fields = Fields::new();
    provider_id(&mut fields, "provider_id", &request.provider_id);
    fields.request_id(&request.request_id);
    fields.check(
        !request.issuer.is_empty() || request.definition.is_some(),
        "definition",
        "a definition, an issuer or both are required",
    );
    let issuer = (!request.issuer.is_empty()).then_some(request.issuer.as_str());
    let issuer = issuer.and_then(|issuer| {
        fields.browser_url("issuer", issuer);
        Url::parse(issuer).ok()
    });
    let definition = request.definition.unwrap_or_default();
    definition_size(&mut fields, &definition);
    fields.finish()?;
    Ok(NewProvider {
        id: request.provider_id,
        issuer,
        definition: from_structure(definition),
        request_id: request.request_id,
    })
}

/// The bounds of a definition; what stands in it is the registry's to judge.
pub fn definition_size(fields: &mut Fields, definition: &prost_types::Struct) {
    fields.check(
        definition.encoded_len() <= DEFINITION_MAX,
        "definition",
        format!("at most {DEFINITION_MAX} bytes are allowed"),
    );
}

/// The id of a provider to be made or changed.
pub fn provider_id(fields: &mut Fields, field: &str, id: &str) {
    let fine = (2..=PROVIDER_MAX).contains(&id.len())
        && id.starts_with(|first: char| first.is_ascii_lowercase())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    fields.check(
        fine,
        field,
        "2 to 63 lower-case letters, digits and hyphens are needed, a letter first",
    );
}

/// An app to be made.
///
/// # Errors
/// [`Error::InvalidArgument`] with every field that is not as it must be.
pub fn new_app(request: pb::CreateAppRequest) -> Result<NewApp, Error> {
    let mut fields = Fields::new();
    fields.request_id(&request.request_id);
    if !request.client_secret.is_empty() {
        fields.secret("client_secret", &request.client_secret, CLIENT_SECRET_MAX);
    }
    let client_secret = SecretString::from(request.client_secret);
    fields.check(request.app.is_some(), "app", "is required");
    let app = request.app.unwrap_or_default();
    fields.required("app.provider", &app.provider, PROVIDER_MAX);
    judge(&mut fields, &app);
    let state = state(&mut fields, app.state);
    fields.finish()?;
    Ok(NewApp {
        provider: app.provider,
        fields: AppFields {
            client_id: non_empty(app.client_id),
            external_key: non_empty(app.external_key),
            display_name: app.display_name,
            default_scopes: app.default_scopes,
            allowed_return_urls: app.allowed_return_urls,
            redirect_uris: app.redirect_uris,
            variables: fields::ordered(app.variables),
            workspace_email: app.workspace_email,
            workspace_name: app.workspace_name,
            state: state.unwrap_or(AppState::Active),
        },
        client_secret: (!is_empty(&client_secret)).then_some(client_secret),
        request_id: request.request_id,
    })
}

/// Which fields of an app to change, and to what. An empty mask means those that are set, `*` means
/// all.
///
/// # Errors
/// [`Error::InvalidArgument`] with every path and field that is not as it must be.
pub fn changes(app: pb::App, mask: Option<prost_types::FieldMask>) -> Result<AppChanges, Error> {
    let mut fields = Fields::new();
    let mask = Mask::of(&mut fields, mask, &MUTABLE);
    let named = |name: &str, set: bool| mask.names(name, set);
    judge(&mut fields, &app);
    let state_named = named("state", app.state != 0);
    let state = state(&mut fields, app.state);
    fields.check(
        !state_named || state.is_some() || app.state != 0,
        "app.state",
        "is named in `update_mask` and not set",
    );
    fields.finish()?;
    let changes = AppChanges {
        client_id: named("client_id", !app.client_id.is_empty()).then(|| non_empty(app.client_id)),
        external_key: named("external_key", !app.external_key.is_empty())
            .then(|| non_empty(app.external_key)),
        display_name: named("display_name", !app.display_name.is_empty())
            .then_some(app.display_name),
        default_scopes: named("default_scopes", !app.default_scopes.is_empty())
            .then_some(app.default_scopes),
        allowed_return_urls: named("allowed_return_urls", !app.allowed_return_urls.is_empty())
            .then_some(app.allowed_return_urls),
        redirect_uris: named("redirect_uris", !app.redirect_uris.is_empty())
            .then_some(app.redirect_uris),
        variables: named("variables", !app.variables.is_empty())
            .then(|| -> BTreeMap<String, String> { fields::ordered(app.variables) }),
        workspace_email: named("workspace_email", !app.workspace_email.is_empty())
            .then_some(app.workspace_email),
        workspace_name: named("workspace_name", !app.workspace_name.is_empty())
            .then_some(app.workspace_name),
        state: state.filter(|_| state_named),
    };
    Ok(changes)
}

/// Every field that callers set, whether it is required or not.
fn judge(fields: &mut Fields, app: &pb::App) {
    fields.text("app.client_id", &app.client_id, APP_NAME_MAX);
    fields.text("app.external_key", &app.external_key, EXTERNAL_KEY_MAX);
    fields.text("app.display_name", &app.display_name, fields::NAME_MAX);
    fields.scopes("app.default_scopes", &app.default_scopes);
    let field = "app.allowed_return_urls";
    let urls = &app.allowed_return_urls;
    fields.check(
        urls.len() <= RETURN_URLS_MAX,
        field,
        format!("at most {RETURN_URLS_MAX} URLs are allowed"),
    );
    for (index, url) in urls.iter().take(RETURN_URLS_MAX).enumerate() {
        fields.browser_url(&format!("{field}[{index}]"), url);
    }
    let field = "app.redirect_uris";
    let uris = &app.redirect_uris;
    fields.check(
        uris.len() <= REDIRECT_URIS_MAX,
        field,
        format!("at most {REDIRECT_URIS_MAX} URIs are allowed"),
    );
    for (index, uri) in uris.iter().take(REDIRECT_URIS_MAX).enumerate() {
        if !is_private_use(uri) {
            fields.browser_url(&format!("{field}[{index}]"), uri);
        }
    }
    fields.map(
        "app.variables",
        app.variables.iter(),
        VARIABLES_MAX,
        VARIABLE_NAME_MAX,
        VARIABLE_MAX,
    );
    fields.text("app.workspace_email", &app.workspace_email, EMAIL_MAX);
    fields.check(
        app.workspace_email.is_empty() || is_email(&app.workspace_email),
        "app.workspace_email",
        "is not an e-mail address",
    );
    fields.text("app.workspace_name", &app.workspace_name, fields::NAME_MAX);
}

/// A redirect URI of a native app: RFC 8252 section 7.1, a scheme that is a reversed domain name.
fn is_private_use(uri: &str) -> bool {
    uri.len() <= fields::URL_MAX
        && !uri.chars().any(|c| c.is_control() || c.is_whitespace())
        && Url::parse(uri).is_ok_and(|uri| uri.scheme().contains('.') && uri.fragment().is_none())
}

/// Something on both sides of one `@`: whether it reaches anybody only a message can tell.
fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    }) && !text.contains(char::is_whitespace)
}

fn state(fields: &mut Fields, number: i32) -> Option<AppState> {
    match pb::AppState::try_from(number) {
        Ok(pb::AppState::Unspecified) => None,
        Ok(pb::AppState::Active) => Some(AppState::Active),
        Ok(pb::AppState::Inactive) => Some(AppState::Inactive),
        Err(_) => {
            fields.check(false, "app.state", "is no state of an app");
            None
        }
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn is_empty(secret: &SecretString) -> bool {
    secrecy::ExposeSecret::expose_secret(secret).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
        Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        })
    }

    fn faulty<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Vec<String> {
        match outcome {
            Err(Error::InvalidArgument(faults)) => faults.into_iter().map(|it| it.field).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_mask_means_what_is_set() {
        let app = pb::App {
            display_name: "Acme".to_owned(),
            ..pb::App::default()
        };
        let expected = AppChanges {
            display_name: Some("Acme".to_owned()),
            ..AppChanges::default()
        };
        assert_eq!(changes(app.clone(), None).unwrap(), expected);
        assert_eq!(changes(app, mask(&[])).unwrap(), expected);
    }

    #[test]
    fn a_named_field_can_be_emptied() {
        let found = changes(pb::App::default(), mask(&["external_key"])).unwrap();
        let expected = AppChanges {
            external_key: Some(None),
            ..AppChanges::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn every_mutable_field_is_reached() {
        let mut app = pb::App::default();
        app.set_state(pb::AppState::Inactive);
        let all = changes(app.clone(), mask(&["*"])).unwrap();
        let each = changes(app, mask(&MUTABLE)).unwrap();
        assert_eq!(all, each);
        assert_eq!(each.state, Some(AppState::Inactive));
        let unset = format!("{each:?}");
        assert!(!unset.contains(": None"), "{unset}");
    }

    #[test]
    fn unknown_paths_and_unset_states_are_faults() {
        let paths = mask(&["provider", "state", "id"]);
        assert_eq!(
            faulty(changes(pb::App::default(), paths)),
            ["update_mask", "update_mask", "app.state"]
        );
    }

    #[test]
    fn all_faults_of_an_app_come_at_once() {
        let request = pb::CreateAppRequest {
            app: Some(pb::App {
                client_id: "x".repeat(APP_NAME_MAX + 1),
                allowed_return_urls: vec!["http://acme.example/".to_owned()],
                redirect_uris: vec![
                    "com.acme.app:/callback".to_owned(),
                    "javascript:alert(1)".to_owned(),
                ],
                workspace_email: "nobody".to_owned(),
                state: 9,
                ..pb::App::default()
            }),
            client_secret: "not printable: \u{7}".to_owned(),
            request_id: "once".to_owned(),
        };
        assert_eq!(
            faulty(new_app(request)),
            [
                "request_id",
                "client_secret",
                "app.provider",
                "app.client_id",
                "app.allowed_return_urls[0]",
                "app.redirect_uris[1]",
                "app.workspace_email",
                "app.state",
            ]
        );
    }

    #[test]
    fn a_provider_needs_an_issuer_or_a_definition() {
        let request = pb::CreateProviderRequest {
            provider_id: "Acme".to_owned(),
            ..pb::CreateProviderRequest::default()
        };
        assert_eq!(faulty(new_provider(request)), ["provider_id", "definition"]);
    }
}
