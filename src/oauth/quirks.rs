//! Bends a request of the protocol crate, which knows form POST alone, to what a provider takes.

use std::collections::BTreeMap;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request};
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::model::provider::{BodyFormat, Method, Provider};

/// The two token requests; they differ in their extra parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Exchange,
    Refresh,
}

/// Rewrites a token request. `with_resource` is false for the second attempt at a provider that
/// refused the `resource` parameter. Fails with a text when the outcome is no HTTP request.
pub(super) fn rewrite(
    provider: &Provider,
    step: Step,
    with_resource: bool,
    request: Request<Vec<u8>>,
) -> Result<Request<Vec<u8>>, String> {
    let (mut parts, body) = request.into_parts();
    let mut params: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let extra = match step {
        Step::Exchange => &provider.token_params,
        Step::Refresh => &provider.refresh_params,
    };
    for (name, value) in extra {
        if with_resource || name != "resource" {
            params.insert(name.clone(), value.clone());
        }
    }
    if let Some(scope) = params.get_mut("scope") {
        *scope = scope.replace(' ', &provider.scope_separator);
    }
    let params = renamed(params, &provider.token_param_renames);

    parts.headers.remove(CONTENT_TYPE);
    let mut body = Vec::new();
    let content_type = match provider.token_body_format {
        BodyFormat::Form => {
            body = encoded(&params).into_bytes();
            Some("application/x-www-form-urlencoded")
        }
        BodyFormat::Json => {
            let object: Map<String, Value> = params
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)))
                .collect();
            body = Value::Object(object).to_string().into_bytes();
            Some("application/json")
        }
        BodyFormat::Query => {
            let uri = parts.uri.to_string();
            let joint = if uri.contains('?') { '&' } else { '?' };
            let uri = format!("{uri}{joint}{}", encoded(&params));
            parts.uri = uri.parse().map_err(|_| "the query is too long")?;
            None
        }
    };
    if let Some(content_type) = content_type {
        parts
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    // GitHub answers form-encoded to whoever does not ask for JSON.
    parts
        .headers
        .insert(ACCEPT, HeaderValue::from_static("application/json"));
    parts.method = method(provider.token_method);
    insert_headers(&mut parts.headers, &provider.token_headers)?;
    Ok(Request::from_parts(parts, body))
}

/// Gives standard parameters the names a provider has for them; an empty name drops one.
pub(super) fn renamed(
    params: BTreeMap<String, String>,
    renames: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    params
        .into_iter()
        .filter_map(|(name, value)| match renames.get(&name) {
            Some(new) if new.is_empty() => None,
            Some(new) => Some((new.clone(), value)),
            None => Some((name, value)),
        })
        .collect()
}

/// Adds a definition's headers to a request.
pub(super) fn insert_headers(
    headers: &mut http::HeaderMap,
    add: &BTreeMap<String, String>,
) -> Result<(), String> {
    for (name, value) in add {
        let header = HeaderName::try_from(name).map_err(|_| format!("{name} is no header"))?;
        let value = HeaderValue::try_from(value).map_err(|_| format!("{name} has a bad value"))?;
        headers.insert(header, value);
    }
    Ok(())
}

/// The HTTP method of a definition's.
pub(super) fn method(method: Method) -> http::Method {
    match method {
        Method::Post => http::Method::POST,
        Method::Get => http::Method::GET,
        Method::Delete => http::Method::DELETE,
    }
}

fn encoded(params: &BTreeMap<String, String>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(params)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<Vec<u8>> {
        Request::post("https://acme.example/token")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(b"grant_type=refresh_token&client_id=c+d&scope=a+b".to_vec())
            .unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn body(request: Request<Vec<u8>>) -> String {
        String::from_utf8(request.into_body()).unwrap()
    }

    #[test]
    fn a_plain_provider_gets_what_the_crate_built() {
        let sent = rewrite(&Provider::default(), Step::Refresh, true, request()).unwrap();
        assert_eq!(sent.method(), http::Method::POST);
        assert_eq!(
            body(sent),
            "client_id=c+d&grant_type=refresh_token&scope=a+b"
        );
    }

    #[test]
    fn parameters_are_added_renamed_and_dropped() {
        let provider = Provider {
            refresh_params: map(&[("resource", "r"), ("x", "y")]),
            token_params: map(&[("only", "exchange")]),
            token_param_renames: map(&[("client_id", "client_key"), ("scope", "")]),
            ..Provider::default()
        };
        let sent = rewrite(&provider, Step::Refresh, true, request()).unwrap();
        assert_eq!(
            body(sent),
            "client_key=c+d&grant_type=refresh_token&resource=r&x=y"
        );
        let sent = rewrite(&provider, Step::Refresh, false, request()).unwrap();
        assert!(!body(sent).contains("resource"));
    }

    #[test]
    fn json_query_and_headers() {
        let mut provider = Provider {
            token_body_format: BodyFormat::Json,
            token_headers: map(&[("Notion-Version", "2022-06-28")]),
            scope_separator: ",".to_owned(),
            ..Provider::default()
        };
        let sent = rewrite(&provider, Step::Refresh, true, request()).unwrap();
        assert_eq!(sent.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(sent.headers()["notion-version"], "2022-06-28");
        let value: Value = serde_json::from_str(&body(sent)).unwrap();
        assert_eq!(value["client_id"], "c d");
        assert_eq!(value["scope"], "a,b");

        provider.token_body_format = BodyFormat::Query;
        provider.token_method = Method::Get;
        let sent = rewrite(&provider, Step::Refresh, true, request()).unwrap();
        assert_eq!(sent.method(), http::Method::GET);
        assert_eq!(
            sent.uri().query(),
            Some("client_id=c+d&grant_type=refresh_token&scope=a%2Cb")
        );
        assert!(sent.headers().get(CONTENT_TYPE).is_none());
        assert_eq!(body(sent), "");
    }
}
