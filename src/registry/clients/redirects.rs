//! Redirect URIs of clients: where codes are sent. A loose rule here is a way to steal them (RFC 9700
//! sections 2.1 and 4.1).

use url::{Host, Url};

/// Most redirect URIs of a client.
pub const REDIRECT_URIS_MAX: usize = 20;

/// Longest redirect URI, in bytes.
const URI_MAX: usize = 2_048;

/// What is wrong with a redirect URI; `None` when nothing is. It is later compared byte by byte with
/// what an authorisation request sends, but for the port of a loopback address (RFC 8252 section 7.3),
/// so it is kept as it was given.
pub(super) fn fault(uri: &str) -> Option<&'static str> {
    if uri.len() > URI_MAX {
        return Some("at most 2048 characters are allowed");
    }
    if !uri.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Some("only printable ASCII characters without blanks are allowed");
    }
    if uri.contains('*') {
        return Some("is matched exactly: wildcards are not allowed");
    }
    // Browsers take a backslash for a slash, others do not: they would see different hosts.
    if uri.contains('\\') {
        return Some("a backslash is not allowed");
    }
    if uri.contains('#') {
        return Some("a fragment is not allowed");
    }
    // RFC 3986 has them percent-encoded only; it is compared and sent as it is.
    if uri.contains(['"', '<', '>', '^', '`', '{', '|', '}']) {
        return Some("holds a character that must be percent-encoded");
    }
    let Ok(url) = Url::parse(uri) else {
        return Some("is not an absolute URI");
    };
    // By the text: a parsed URL does not tell of an empty one.
    let authority = uri.split_once("//").map(|(_, rest)| rest);
    let authority = authority.and_then(|rest| rest.split(['/', '?']).next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Some("user info is not allowed");
    }
    match url.scheme() {
        // Leniently parsed, `https:host` and `https:///host` would be URLs too.
        "https" if !names_a_host(uri, "https://") => Some("is not an absolute URI"),
        "https" => None,
        "http" if !names_a_host(uri, "http://") => Some("is not an absolute URI"),
        "http" if is_loopback(&url) => None,
        "http" => Some("http is allowed on loopback only; use https"),
        // RFC 8252 section 7.1: a domain name of the app's owner, reversed. It keeps out `javascript`
        // and its kind, and names that anybody may take.
        scheme if scheme.contains('.') && has_path(uri, scheme) => None,
        _ => Some("needs https, http on loopback, or a private-use scheme with a dot"),
    }
}

fn names_a_host(uri: &str, start: &str) -> bool {
    uri.split_at_checked(start.len())
        .is_some_and(|(head, rest)| head.eq_ignore_ascii_case(start) && !rest.starts_with('/'))
}

fn has_path(uri: &str, scheme: &str) -> bool {
    uri.get(scheme.len()..)
        .is_some_and(|rest| rest.starts_with(":/"))
}

// `*.localhost` does not count: outside browsers it may be asked for in the DNS, and codes would follow.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_the_client_alone_is_taken() {
        for uri in [
            "https://zapier.com/dashboard/auth/oauth/return/App123CLIAPI/",
            "https://acme.example:8443/cb?tenant=7",
            "http://127.0.0.1/cb",
            "http://127.0.0.1:49152/cb",
            "http://[::1]:8080/cb",
            "http://localhost:3000/cb",
            "com.example.app:/oauth2redirect",
        ] {
            assert_eq!(fault(uri), None, "{uri}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_not() {
        for uri in [
            "",
            "/cb",
            "acme.example/cb",
            "http://acme.example/cb",
            "http://127.0.0.1.acme.example/cb",
            "http://localhost.acme.example/cb",
            "https://*.acme.example/cb",
            "https://acme.example/*",
            "https://acme.example/cb#",
            "https://acme.example/cb#part",
            "https://user@acme.example/cb",
            "https://@acme.example/cb",
            "https://:@acme.example",
            "https://acme.example/a|b",
            "com.example.app:x?next=a:/b",
            "https://acme.example@evil.example/cb",
            "https://evil.example\\@acme.example/cb",
            "https:acme.example/cb",
            "https:/acme.example/cb",
            "https:///acme.example/cb",
            "acme.example:8443",
            "https://",
            "https://acme.example/a b",
            "https://acme.example/\u{fc}",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "myapp:/cb",
            "urn:ietf:wg:oauth:2.0:oob",
        ] {
            assert!(fault(uri).is_some(), "{uri}");
        }
        assert!(fault(&format!("https://acme.example/{}", "x".repeat(URI_MAX))).is_some());
    }
}
