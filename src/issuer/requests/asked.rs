//! What a client asks for, judged before any person is asked: RFC 6749 section 4.1.1 with RFC 7636,
//! RFC 8707, RFC 9449 section 10, and the parameters of OpenID Connect that we know.

use super::redirects;
use crate::access::users::EMAIL_MAX;
use crate::issuer::{Parameters, scopes};
use crate::model::{
    ClientAuthMethod, ClientGrantType, ClientResponseType, ClientState, OauthClient, OauthError,
    OauthErrorCode,
};

/// Longest state, in bytes: it comes back in an address, which not every browser takes longer.
const STATE_MAX: usize = 2_048;

/// Longest nonce, in bytes.
const NONCE_MAX: usize = 512;

/// Characters of a SHA-256 in base64url: a challenge (RFC 7636 section 4.2), a thumbprint (RFC 9449
/// section 10).
const DIGEST_CHARS: usize = 43;

/// Where the browser is to be sent back to, and with what.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) redirect_uri: String,
    /// Whether the client named it.
    pub(super) sent: bool,
    pub(super) state: String,
}

/// The rest of a request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) scopes: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) nonce: String,
    pub(super) code_challenge: String,
    pub(super) dpop_jkt: String,
    pub(super) login_hint: String,
}

pub(super) fn error(code: OauthErrorCode, description: impl Into<String>) -> OauthError {
    OauthError::new(code, description)
}

fn invalid(description: impl Into<String>) -> OauthError {
    error(OauthErrorCode::InvalidRequest, description)
}

/// That a client may ask for anything now.
///
/// # Errors
/// `unauthorized_client`.
pub(in crate::issuer) fn require_active(client: &OauthClient) -> Result<(), OauthError> {
    if client.state == ClientState::Active && client.deleted_at.is_none() {
        return Ok(());
    }
    let id = &client.id;
    Err(error(
        OauthErrorCode::UnauthorizedClient,
        format!("the client {id} is not active"),
    ))
}

/// Where the answer goes. While that is not known, nothing is sent anywhere.
///
/// # Errors
/// `invalid_request`.
pub(super) fn address(
    client: &OauthClient,
    parameters: &Parameters,
) -> Result<Address, OauthError> {
    let sent = parameters.get("redirect_uri");
    let registered = &client.settings.redirect_uris;
    let Some(redirect_uri) = redirects::matched(registered, sent) else {
        return Err(invalid(match sent {
            Some(_) => "the redirect_uri is not one that the client registered",
            None => "redirect_uri is required, since the client registered not exactly one",
        }));
    };
    let state = parameters.get("state").unwrap_or_default();
    if state.len() > STATE_MAX || state.chars().any(char::is_control) {
        return Err(invalid(format!(
            "state has at most {STATE_MAX} bytes and no control characters"
        )));
    }
    Ok(Address {
        redirect_uri,
        sent: sent.is_some(),
        state: state.to_owned(),
    })
}

/// Judges the rest.
///
/// # Errors
/// What the client did wrong, by the RFCs' codes.
pub(super) fn judge(
    known_resources: &[String],
    client: &OauthClient,
    redirect_uri: &str,
    parameters: &Parameters,
) -> Result<Asked, OauthError> {
    let settings = &client.settings;
    if parameters.get("request").is_some() {
        return Err(error(
            OauthErrorCode::RequestNotSupported,
            "request objects are not taken; push the request instead",
        ));
    }
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => {
            return Err(error(
                OauthErrorCode::UnsupportedResponseType,
                "the only response_type is code",
            ));
        }
        None => return Err(invalid("response_type is required")),
    }
    if !settings
        .grant_types
        .contains(&ClientGrantType::AuthorizationCode)
        || !settings.response_types.contains(&ClientResponseType::Code)
    {
        return Err(error(
            OauthErrorCode::UnauthorizedClient,
            "the client may not ask for codes",
        ));
    }
    if !matches!(parameters.get("response_mode"), None | Some("query")) {
        return Err(invalid("the only response_mode is query"));
    }
    let asked = Asked {
        code_challenge: challenge(client, redirect_uri, parameters)?,
        dpop_jkt: thumbprint(parameters)?,
        scopes: scopes::asked(
            client,
            &scopes::parse(parameters.get("scope").unwrap_or_default())?,
        )?,
        resources: scopes::resources(known_resources, parameters.all("resource"))?,
        nonce: nonce(parameters)?,
        login_hint: login_hint(parameters),
    };
    prompt(parameters)?;
    Ok(asked)
}

/// The PKCE challenge; empty for none. Without one, whoever gets hold of the code can use it.
fn challenge(
    client: &OauthClient,
    redirect_uri: &str,
    parameters: &Parameters,
) -> Result<String, OauthError> {
    let method = parameters.get("code_challenge_method");
    let Some(challenge) = parameters.get("code_challenge") else {
        if method.is_some() {
            return Err(invalid("code_challenge_method needs a code_challenge"));
        }
        let public = client.settings.auth_method == ClientAuthMethod::None;
        if client.settings.require_pkce || public || redirects::needs_pkce(redirect_uri) {
            return Err(invalid("code_challenge is required (RFC 7636)"));
        }
        return Ok(String::new());
    };
    // Left out it would mean `plain`, which whoever reads the request can answer.
    if method != Some("S256") {
        return Err(invalid("code_challenge_method is required to be S256"));
    }
    if !is_digest(challenge) {
        return Err(invalid(
            "code_challenge is a SHA-256 in base64url: 43 characters",
        ));
    }
    Ok(challenge.to_owned())
}

fn thumbprint(parameters: &Parameters) -> Result<String, OauthError> {
    let jkt = parameters.get("dpop_jkt").unwrap_or_default();
    if jkt.is_empty() || is_digest(jkt) {
        return Ok(jkt.to_owned());
    }
    Err(invalid("dpop_jkt is a SHA-256 in base64url: 43 characters"))
}

fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_CHARS
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn nonce(parameters: &Parameters) -> Result<String, OauthError> {
    let nonce = parameters.get("nonce").unwrap_or_default();
    if nonce.len() > NONCE_MAX || nonce.chars().any(char::is_control) {
        return Err(invalid(format!(
            "nonce has at most {NONCE_MAX} bytes and no control characters"
        )));
    }
    Ok(nonce.to_owned())
}

/// A hint that can be no address is none.
fn login_hint(parameters: &Parameters) -> String {
    parameters
        .get("login_hint")
        .filter(|hint| hint.chars().count() <= EMAIL_MAX && !hint.chars().any(char::is_control))
        .unwrap_or_default()
        .to_owned()
}

/// Each request is decided by a person who signs in for it, so there is nothing to do without one.
fn prompt(parameters: &Parameters) -> Result<(), OauthError> {
    let mut prompts = parameters.get("prompt").unwrap_or_default().split(' ');
    if !prompts.any(|prompt| prompt == "none") {
        return Ok(());
    }
    if parameters.get("prompt") != Some("none") {
        return Err(invalid("prompt none goes with no other"));
    }
    Err(error(
        OauthErrorCode::LoginRequired,
        "somebody has to sign in and consent",
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{ClientSettings, Timestamp, TokenFormat};

    const URI: &str = "https://a.example/cb";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn client(auth_method: ClientAuthMethod, require_pkce: bool) -> OauthClient {
        OauthClient {
            id: "client_1".to_owned(),
            tenant: "default".to_owned(),
            settings: ClientSettings {
                name: "Acme".to_owned(),
                description: String::new(),
                logo_url: String::new(),
                homepage_url: String::new(),
                auth_method,
                jwks: String::new(),
                jwks_uri: String::new(),
                redirect_uris: vec![URI.to_owned()],
                grant_types: vec![ClientGrantType::AuthorizationCode],
                response_types: vec![ClientResponseType::Code],
                allowed_scopes: vec!["read".to_owned(), "write".to_owned()],
                access_token_lifetime: Duration::from_secs(60),
                refresh_token_lifetime: Duration::from_secs(60),
                require_pkce,
                trusted: false,
                rate_limit_per_hour: None,
                webhook_url: String::new(),
                webhook_events: Vec::new(),
                access_token_format: TokenFormat::Opaque,
                dpop_bound: false,
                require_pushed: false,
            },
            webhook_secret: None,
            state: ClientState::Active,
            state_reason: String::new(),
            state_changed_at: Timestamp::default(),
            created_by: String::new(),
            version: 1,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            deleted_at: None,
        }
    }

    fn confidential() -> OauthClient {
        client(ClientAuthMethod::SecretPost, false)
    }

    fn judged(client: &OauthClient, uri: &str, query: &str) -> Result<Asked, OauthErrorCode> {
        let parameters = Parameters::parse(query.as_bytes()).unwrap();
        judge(&[], client, uri, &parameters).map_err(|error| {
            let plain = error
                .description
                .bytes()
                .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
            assert!(plain, "{}", error.description);
            error.code
        })
    }

    #[test]
    fn a_plain_request_asks_for_all_that_is_allowed() {
        let asked = judged(&confidential(), URI, "response_type=code&x=y").unwrap();
        assert_eq!(asked.scopes, ["read", "write"]);
        assert_eq!(asked.code_challenge, "");
        let asked = judged(
            &confidential(),
            URI,
            "response_type=code&scope=write&nonce=n&login_hint=a@b.c&prompt=login",
        );
        let asked = asked.unwrap();
        assert_eq!(asked.scopes, ["write"]);
        assert_eq!(
            (asked.nonce.as_str(), asked.login_hint.as_str()),
            ("n", "a@b.c")
        );
    }

    #[test]
    fn each_fault_has_its_code() {
        use OauthErrorCode as Code;
        let client = confidential();
        let more = format!("code_challenge={CHALLENGE}");
        for (query, code) in [
            ("", Code::InvalidRequest),
            ("response_type=token", Code::UnsupportedResponseType),
            ("response_type=code+id_token", Code::UnsupportedResponseType),
            (
                "response_type=code&response_mode=fragment",
                Code::InvalidRequest,
            ),
            (
                "response_type=code&request=x.y.z",
                Code::RequestNotSupported,
            ),
            ("response_type=code&scope=admin", Code::InvalidScope),
            ("response_type=code&scope=a%22", Code::InvalidScope),
            (
                "response_type=code&resource=https://x.example",
                Code::InvalidTarget,
            ),
            ("response_type=code&prompt=none", Code::LoginRequired),
            ("response_type=code&prompt=none+login", Code::InvalidRequest),
            ("response_type=code&dpop_jkt=short", Code::InvalidRequest),
            (
                "response_type=code&code_challenge_method=S256",
                Code::InvalidRequest,
            ),
            (
                format!("response_type=code&{more}").as_str(),
                Code::InvalidRequest,
            ),
            (
                format!("response_type=code&{more}&code_challenge_method=plain").as_str(),
                Code::InvalidRequest,
            ),
            (
                format!("response_type=code&{more}=&code_challenge_method=S256").as_str(),
                Code::InvalidRequest,
            ),
        ] {
            assert_eq!(judged(&client, URI, query).unwrap_err(), code, "{query}");
        }
    }

    #[test]
    fn codes_that_could_be_stolen_need_pkce() {
        let plain = "response_type=code";
        let with = format!("{plain}&code_challenge={CHALLENGE}&code_challenge_method=S256");
        for (client, uri) in [
            (client(ClientAuthMethod::None, false), URI),
            (client(ClientAuthMethod::SecretBasic, true), URI),
            (confidential(), "http://127.0.0.1/cb"),
            (confidential(), "com.example.app:/cb"),
        ] {
            judged(&client, uri, plain).unwrap_err();
            assert_eq!(
                judged(&client, uri, &with).unwrap().code_challenge,
                CHALLENGE
            );
        }
    }

    #[test]
    fn a_client_that_may_not_ask_for_codes_gets_none() {
        let mut client = confidential();
        client.settings.grant_types = vec![ClientGrantType::ClientCredentials];
        let refused = judged(&client, URI, "response_type=code").unwrap_err();
        assert_eq!(refused, OauthErrorCode::UnauthorizedClient);
        require_active(&client).unwrap();
        client.state = ClientState::Suspended;
        require_active(&client).unwrap_err();
    }

    #[test]
    fn an_answer_goes_to_the_client_alone() {
        let of = |query: &str| {
            let parameters = Parameters::parse(query.as_bytes()).unwrap();
            address(&confidential(), &parameters)
        };
        assert!(!of("state=s").unwrap().sent);
        assert!(of(&format!("redirect_uri={URI}")).unwrap().sent);
        of("redirect_uri=https://evil.example/cb").unwrap_err();
        of(&format!("state={}", "s".repeat(STATE_MAX + 1))).unwrap_err();
        of("state=a%0d%0ab").unwrap_err();
    }
}
