//! Whose account a token opens.

use http::Request;
use http::header::ACCEPT;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::answer::{decode, denies_success, id_token_claims, metadata_at, refusal, text_at};
use super::classify::{Failure, classify};
use super::client::{ProviderClient, url_encoded};
use super::http::Http;
use super::quirks::{insert_headers, method};
use super::token::TokenAnswer;
use crate::model::provider::{IdentitySource, Userinfo, expand_template};

/// Longest text that is taken from a profile.
const LONGEST_TEXT: usize = 512;

/// An account at a provider, as far as the provider tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// The account's id at the provider; none when it cannot be learnt.
    pub account_id: Option<String>,
    /// Name shown to people.
    pub display_name: Option<String>,
    /// URL of a picture.
    pub avatar_url: Option<String>,
    /// E-mail address; not known to be verified.
    pub email: Option<String>,
    /// What the provider's definition wants kept.
    pub metadata: Map<String, Value>,
}

impl ProviderClient {
    /// Looks up the account behind fresh tokens. An empty identity where the provider has no way
    /// to tell. A failure says nothing of the grant: the tokens stay what they are.
    pub async fn identity(&self, http: &Http, tokens: &TokenAnswer) -> Result<Identity, Failure> {
        let Some(userinfo) = &self.provider.userinfo else {
            return Ok(Identity::default());
        };
        let source = match userinfo.source {
            IdentitySource::Endpoint => self.ask(http, userinfo, tokens).await?,
            IdentitySource::IdToken => tokens
                .id_token
                .as_ref()
                .and_then(id_token_claims)
                .map_or(Value::Null, Value::Object),
            IdentitySource::TokenResponse => Value::Object(tokens.metadata.clone()),
        };
        Ok(read(userinfo, &source))
    }

    async fn ask(
        &self,
        http: &Http,
        userinfo: &Userinfo,
        tokens: &TokenAnswer,
    ) -> Result<Value, Failure> {
        let request = self
            .userinfo_request(userinfo, tokens)
            .map_err(|detail| Failure::NotSent { detail })?;
        let answer = http.send(request, self.provider.http_timeout).await?;
        let body = decode(&answer);
        if answer.status.is_success() && !denies_success(&self.provider, &body) {
            return Ok(body);
        }
        let sent = [tokens.access_token.expose_secret()];
        let refused = refusal(&self.provider, &answer, &body, &sent, http.clock().now());
        Err(match classify(refused, &self.provider.error_map) {
            // Words of a token endpoint, which this is not.
            Failure::GrantDead { code, description }
            | Failure::ClientMisconfigured { code, description } => {
                Failure::Rejected { code, description }
            }
            failure => failure,
        })
    }

    fn userinfo_request(
        &self,
        userinfo: &Userinfo,
        tokens: &TokenAnswer,
    ) -> Result<Request<Vec<u8>>, String> {
        let token = tokens.access_token.expose_secret();
        let url = expand_template(&userinfo.endpoint, |name| {
            (name == "access_token").then(|| url_encoded(token))
        })?;
        let header = &self.provider.token_header;
        let bearer = Zeroizing::new(format!("{}{token}", header.prefix));
        let mut request = Request::builder()
            .method(method(userinfo.method))
            .uri(url)
            .header(ACCEPT, "application/json")
            .header(header.name.as_str(), bearer.as_str())
            .body(userinfo.body.clone().unwrap_or_default().into_bytes())
            .map_err(|_| "the userinfo request cannot be built".to_owned())?;
        insert_headers(request.headers_mut(), &userinfo.headers)?;
        Ok(request)
    }
}

fn read(userinfo: &Userinfo, source: &Value) -> Identity {
    let text = |path: &str| {
        text_at(source, path).map(|text| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(LONGEST_TEXT)
                .collect::<String>()
        })
    };
    let optional = |path: &Option<String>| path.as_deref().and_then(text);
    Identity {
        account_id: text(&userinfo.account_id),
        display_name: optional(&userinfo.display_name),
        // It ends up in pages: nothing but a web address.
        avatar_url: optional(&userinfo.avatar).filter(|url| url.starts_with("https://")),
        email: optional(&userinfo.email),
        metadata: metadata_at(source, &userinfo.metadata),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::catalogue_entry;
    use serde_json::json;

    #[test]
    fn profiles_are_read_by_their_paths() {
        let userinfo = |id: &str| catalogue_entry(id).userinfo.unwrap();
        let profile = json!({
            "id": 42, "login": "octocat", "name": null, "email": "o@example.com",
            "avatar_url": "javascript:alert(1)",
        });
        let identity = read(&userinfo("github"), &profile);
        assert_eq!(identity.account_id.as_deref(), Some("42"));
        assert_eq!(identity.display_name.as_deref(), Some("octocat"));
        assert_eq!(identity.avatar_url, None);
        assert_eq!(identity.metadata["login"], "octocat");
        let motion = json!({"workspaces": [{"id": "w1", "name": "Mine"}]});
        let identity = read(&userinfo("motion"), &motion);
        assert_eq!(identity.account_id.as_deref(), Some("w1"));
        assert_eq!(read(&userinfo("x"), &Value::Null), Identity::default());
    }
}
