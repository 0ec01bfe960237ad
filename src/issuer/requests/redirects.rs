//! Where browsers are sent back to: an address that the client registered, and no other. Whoever gets
//! another one past this has the codes.

use url::Url;

use crate::error::Error;
use crate::model::{AuthorizationRequest, OauthError};

/// How an address on loopback begins whose port may vary (RFC 8252 section 7.3). Not `localhost`: that
/// may resolve elsewhere.
const LOOPBACK: [&str; 2] = ["http://127.0.0.1", "http://[::1]"];

/// The redirect URI to use; none where what was sent is not the client's, or there is no saying which
/// of several is meant.
pub(super) fn matched(registered: &[String], sent: Option<&str>) -> Option<String> {
    match (sent, registered) {
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
        (Some(sent), _) => registered
            .iter()
            .any(|known| known == sent || same_but_for_port(known, sent))
            .then(|| sent.to_owned()),
    }
}

fn same_but_for_port(known: &str, sent: &str) -> bool {
    LOOPBACK.into_iter().any(|start| {
        let known = known.strip_prefix(start).and_then(after_port);
        known.is_some() && known == sent.strip_prefix(start).and_then(after_port)
    })
}

/// What follows the port, if what comes first is one or none.
fn after_port(rest: &str) -> Option<&str> {
    let rest = match rest.strip_prefix(':') {
        None => rest,
        Some(port) => {
            let end = port.find(['/', '?']).unwrap_or(port.len());
            let (port, rest) = port.split_at_checked(end)?;
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (digits && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(rest)?
        }
    };
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
}

/// Whether what is sent there can be read on the way, or taken by another program: then a code is
/// worth nothing without PKCE.
pub(super) fn needs_pkce(redirect_uri: &str) -> bool {
    !Url::parse(redirect_uri).is_ok_and(|url| url.scheme() == "https")
}

/// The address that takes a code to the client. Holds the code: not to be logged.
///
/// # Errors
/// [`Error::Internal`] for an address that is none.
pub(in crate::issuer) fn with_code(
    request: &AuthorizationRequest,
    code: &str,
    issuer: &str,
) -> Result<Url, Error> {
    let (uri, state) = (&request.redirect_uri, &request.client_state);
    answer(uri, &[("code", code)], state, issuer)
}

/// The address that takes an error to the client (RFC 6749 section 4.1.2.1).
///
/// # Errors
/// [`Error::Internal`] for an address that is none.
pub(super) fn with_error(
    redirect_uri: &str,
    error: &OauthError,
    state: &str,
    issuer: &str,
) -> Result<Url, Error> {
    let mut pairs = vec![("error", error.code.as_str())];
    if !error.description.is_empty() {
        pairs.push(("error_description", error.description.as_str()));
    }
    answer(redirect_uri, &pairs, state, issuer)
}

/// The issuer is in every answer (RFC 9207), so that a client that knows several servers is not made to
/// send one's code to another.
fn answer(
    redirect_uri: &str,
    pairs: &[(&str, &str)],
    state: &str,
    issuer: &str,
) -> Result<Url, Error> {
    let mut url = Url::parse(redirect_uri).map_err(Error::internal)?;
    let mut query = url.query_pairs_mut();
    query.extend_pairs(pairs);
    if !state.is_empty() {
        query.append_pair("state", state);
    }
    query.append_pair("iss", issuer);
    drop(query);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OauthErrorCode;

    fn registered(list: &[&str]) -> Vec<String> {
        list.iter().map(|uri| (*uri).to_owned()).collect()
    }

    fn matches(known: &str, sent: &str) -> bool {
        matched(&registered(&[known]), Some(sent)).is_some()
    }

    #[test]
    fn addresses_match_to_the_letter() {
        let known = "https://acme.example/cb?tenant=7";
        assert!(matches(known, known));
        for sent in [
            "https://acme.example/cb",
            "https://acme.example/cb?tenant=7&x=1",
            "https://acme.example/cb?tenant=7#",
            "https://ACME.example/cb?tenant=7",
            "https://acme.example:443/cb?tenant=7",
            "https://acme.example/%63b?tenant=7",
            "https://acme.example/x/../cb?tenant=7",
            "https://acme.example@evil.example/cb?tenant=7",
            "http://acme.example/cb?tenant=7",
            "",
        ] {
            assert!(!matches(known, sent), "{sent}");
        }
    }

    #[test]
    fn the_port_of_a_loopback_address_may_vary_and_nothing_else() {
        for (known, sent) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb"),
            ("http://127.0.0.1:8080/cb", "http://127.0.0.1/cb"),
            ("http://[::1]:8080/cb?x=1", "http://[::1]:9/cb?x=1"),
            ("http://127.0.0.1", "http://127.0.0.1:1"),
        ] {
            assert!(matches(known, sent), "{known} {sent}");
        }
        for sent in [
            "http://127.0.0.1:49152/other",
            "http://127.0.0.1:49152/cb/",
            "http://127.0.0.1:49152/cb?x",
            "http://127.0.0.1:0/cb",
            "http://127.0.0.1:/cb",
            "http://127.0.0.1:65536/cb",
            "http://127.0.0.1:+80/cb",
            "http://127.0.0.1:80@evil.example/cb",
            "http://127.0.0.1@evil.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://127.0.0.10/cb",
            "http://[::1]/cb",
            "http://localhost:80/cb",
            "https://127.0.0.1:80/cb",
        ] {
            assert!(!matches("http://127.0.0.1/cb", sent), "{sent}");
        }
        assert!(!matches("http://localhost/cb", "http://localhost:80/cb"));
        assert!(!matches("https://127.0.0.1/cb", "https://127.0.0.1:8/cb"));
    }

    #[test]
    fn an_address_is_left_out_only_where_there_is_one() {
        let one = registered(&["https://a.example/cb"]);
        assert_eq!(matched(&one, None).as_deref(), Some("https://a.example/cb"));
        let two = registered(&["https://a.example/cb", "https://b.example/cb"]);
        assert_eq!(matched(&two, None), None);
        assert_eq!(matched(&[], None), None);
    }

    #[test]
    fn state_comes_back_as_it_was_and_the_issuer_always() {
        let error = OauthError::new(OauthErrorCode::AccessDenied, "no");
        let uri = "https://a.example/cb?x=1";
        let url = with_error(uri, &error, "a &=%+é", "https://issuer.example").unwrap();
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            pairs,
            [
                of("x", "1"),
                of("error", "access_denied"),
                of("error_description", "no"),
                of("state", "a &=%+é"),
                of("iss", "https://issuer.example"),
            ]
        );
        let app = with_error("com.example.app:/cb", &error, "", "https://i.example").unwrap();
        assert!(app.as_str().starts_with("com.example.app:/cb?error="));
    }

    #[test]
    fn only_https_does_without_pkce() {
        assert!(!needs_pkce("https://a.example/cb"));
        assert!(needs_pkce("http://127.0.0.1/cb"));
        assert!(needs_pkce("com.example.app:/cb"));
        assert!(needs_pkce(""));
    }
}
