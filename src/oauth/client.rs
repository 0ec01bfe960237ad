//! One app at one provider, ready to be used.

use std::collections::BTreeMap;
use std::time::Duration;

use oauth2::basic::BasicClient;
use oauth2::{AuthType, AuthUrl, ClientId, ClientSecret, EndpointNotSet, EndpointSet, RedirectUrl};
use oauth2::{TokenUrl, url::ParseError};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::Error;
use crate::model::provider::{ClientAuthentication, Provider, expand_template};

/// An app's identity at its provider.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Client id.
    pub client_id: String,
    /// Client secrets, newest first: during a rotation the next is tried when the provider
    /// refuses one. None for a public client.
    pub secrets: Vec<SecretString>,
}

/// An app at its provider: templates filled in, credentials at hand.
#[derive(Clone, Debug)]
pub struct ProviderClient {
    /// The definition, its templates expanded but for `{token}` and `{access_token}`.
    pub(super) provider: Provider,
    pub(super) credentials: Credentials,
    pub(super) redirect_uri: Option<String>,
}

/// The crate's client with both endpoints set.
pub(super) type Protocol =
    BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

impl ProviderClient {
    /// Fills an app's variables into its provider's templates. Fails on a variable that is
    /// missing, unknown or ill-formed, on a redirect URI that is no URL, and on an empty client
    /// id where the kind of connection needs one.
    pub fn new(
        provider: &Provider,
        credentials: Credentials,
        variables: &BTreeMap<String, String>,
        redirect_uri: Option<String>,
    ) -> Result<Self, Error> {
        let values = provider.resolve_variables(variables).map_err(|faults| {
            let (name, fault) = faults.into_iter().next().unwrap_or_default();
            Error::invalid(format!("variables.{name}"), fault)
        })?;
        if let Some(uri) = &redirect_uri {
            Url::parse(uri).map_err(|_| Error::invalid("redirect_uri", "is not a URL"))?;
        }
        let provider = expand(provider.clone(), &values, &credentials.client_id)
            .map_err(|fault| Error::invalid("provider", fault))?;
        Ok(Self {
            provider,
            credentials,
            redirect_uri,
        })
    }

    /// The provider's definition, its templates filled in.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// How long one call to this client can take at most, retries included. A lease that covers a
    /// refresh must last longer.
    pub fn total_timeout(&self) -> Duration {
        let takes_resource = self.provider.token_params.contains_key("resource")
            || self.provider.refresh_params.contains_key("resource");
        if self.credentials.secrets.len() > 1 || takes_resource {
            self.provider.http_timeout * 2
        } else {
            self.provider.http_timeout
        }
    }

    /// The secrets to try, in order; a single none for a public client.
    pub(super) fn secrets(&self) -> Vec<Option<&SecretString>> {
        let public = self.provider.client_authentication == ClientAuthentication::None;
        if public || self.credentials.secrets.is_empty() {
            return vec![None];
        }
        self.credentials.secrets.iter().map(Some).collect()
    }

    /// The crate's client with one of the secrets, for a token endpoint.
    pub(super) fn protocol(
        &self,
        secret: Option<&SecretString>,
        token_endpoint: &str,
    ) -> Result<Protocol, Error> {
        let bad = |field: &'static str| move |_: ParseError| Error::invalid(field, "is not a URL");
        let authorization = AuthUrl::new(self.provider.authorization_endpoint.clone())
            .map_err(bad("authorization_endpoint"))?;
        let token = TokenUrl::new(token_endpoint.to_owned()).map_err(bad("token_endpoint"))?;
        let mut client = BasicClient::new(ClientId::new(self.credentials.client_id.clone()))
            .set_auth_uri(authorization)
            .set_token_uri(token)
            .set_auth_type(match self.provider.client_authentication {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Post | ClientAuthentication::None => AuthType::RequestBody,
            });
        if let Some(secret) = secret {
            client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
        }
        if let Some(uri) = &self.redirect_uri {
            let uri = RedirectUrl::new(uri.clone()).map_err(bad("redirect_uri"))?;
            client = client.set_redirect_uri(uri);
        }
        Ok(client)
    }
}

/// What goes into a URL's path or query in the place of a variable of ours.
pub(super) fn url_encoded(value: &str) -> String {
    // A blank is %20 in a path; byte_serialize writes it as +.
    byte_serialize(value.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

fn expand(
    mut provider: Provider,
    values: &BTreeMap<String, String>,
    client_id: &str,
) -> Result<Provider, String> {
    let lookup = |name: &str| match name {
        "client_id" => Some(url_encoded(client_id)),
        "token" | "access_token" => Some(format!("{{{name}}}")),
        _ => values.get(name).cloned(),
    };
    let mut fault = None;
    let mut fill = |template: &str| {
        expand_template(template, lookup).unwrap_or_else(|text| {
            fault.get_or_insert(text);
            String::new()
        })
    };
    provider.map_endpoints(&mut fill);
    let maps = [
        &mut provider.authorization_params,
        &mut provider.token_params,
        &mut provider.refresh_params,
        &mut provider.token_headers,
    ];
    let headers = provider.userinfo.as_mut().map(|it| &mut it.headers);
    for value in maps
        .into_iter()
        .chain(headers)
        .flat_map(BTreeMap::values_mut)
    {
        *value = fill(value);
    }
    match fault {
        Some(text) => Err(text),
        None => Ok(provider),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::catalogue_entry;

    fn client(id: &str, variables: &[(&str, &str)]) -> Result<ProviderClient, Error> {
        let credentials = Credentials {
            client_id: "the id".to_owned(),
            secrets: Vec::new(),
        };
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        ProviderClient::new(&catalogue_entry(id), credentials, &variables, None)
    }

    #[test]
    fn variables_are_filled_in_and_judged() {
        let gitlab = client("gitlab", &[]).unwrap();
        assert_eq!(
            gitlab.provider.token_endpoint,
            "https://gitlab.com/oauth/token"
        );
        let own = client("gitlab", &[("host", "git.acme.example")]).unwrap();
        assert_eq!(
            own.provider.issuer.as_deref(),
            Some("https://git.acme.example")
        );
        assert!(client("gitlab", &[("host", "evil.example/x?")]).is_err());
        assert!(client("gitlab", &[("other", "x")]).is_err());
        assert!(client("okta", &[]).is_err(), "the domain has no default");
    }

    #[test]
    fn names_of_ours_stay_until_the_call() {
        let github = client("github", &[]).unwrap();
        let revocation = github.provider.revocation.unwrap();
        assert_eq!(
            revocation.endpoint,
            "https://api.github.com/applications/the%20id/token"
        );
        let hubspot = client("hubspot", &[]).unwrap();
        assert!(
            hubspot
                .provider
                .revocation
                .unwrap()
                .endpoint
                .ends_with("{token}")
        );
    }
}
