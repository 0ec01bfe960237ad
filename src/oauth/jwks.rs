//! Where others publish the keys of their JWTs (RFC 7517 section 5; OpenID Connect Discovery 1.0
//! section 4). The addresses of trusted issuers are named by the operator, so they may be in any
//! network: [`client`] is for them. Those of our own clients are named by whoever registers one, and
//! fetched by the client that talks to providers. The rest of the hardness is the same: no redirects,
//! a deadline, a bounded answer.

use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use super::classify::Failure;
use super::http::{Http, HttpConfig};

/// Longest document that is read, in bytes.
const DOCUMENT_MAX: usize = 256 * 1_024;

/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is taken; the API server of Kubernetes insists on the first for keys.
const ACCEPTED: &str = "application/jwk-set+json, application/json;q=0.9, */*;q=0.1";

/// A client for the addresses of issuers. It trusts these certificate authorities (PEM), or else
/// the system's.
///
/// # Errors
/// What is wrong with the authorities, or with TLS.
pub fn client(authorities: Option<&[u8]>) -> Result<Http, super::Error> {
    let config = HttpConfig {
        timeout: TIMEOUT,
        connect_timeout: CONNECT_TIMEOUT,
        allow_private_networks: true,
        allowed_networks: vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())],
    };
    match authorities {
        Some(pem) => Http::with_authorities(config, pem),
        None => Http::new(config),
    }
}

/// The document at an address, such as a JWK set.
///
/// # Errors
/// Why there is none, fit for the log.
pub async fn fetch(
    http: &Http,
    address: &Url,
    bearer: Option<&SecretString>,
) -> Result<Vec<u8>, String> {
    let mut request = Request::get(address.as_str()).header(ACCEPT, ACCEPTED);
    if let Some(bearer) = bearer {
        let text = zeroize::Zeroizing::new(format!("Bearer {}", bearer.expose_secret()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| "the bearer token has characters that no token has".to_owned())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request
        .body(Vec::new())
        .map_err(|_| "this is no web address".to_owned())?;
    let answer = http.send(request, TIMEOUT).await.map_err(told)?;
    if !answer.status.is_success() {
        return Err(format!("the server answered {}", answer.status.as_u16()));
    }
    if answer.truncated || answer.body.len() > DOCUMENT_MAX {
        return Err(format!("the answer is longer than {DOCUMENT_MAX} bytes"));
    }
    Ok(answer.body.to_vec())
}

/// Where an issuer's keys are, as its metadata says.
///
/// # Errors
/// Why that is not known, fit for the log: the metadata can't be had, is another issuer's, or
/// names no address.
pub async fn address(http: &Http, issuer: &Url, exactly: &str) -> Result<Url, String> {
    let mut metadata = issuer.clone();
    let path = issuer.path().trim_end_matches('/');
    metadata.set_path(&format!("{path}/.well-known/openid-configuration"));
    let document = fetch(http, &metadata, None).await?;
    let document: Value = serde_json::from_slice(&document)
        .map_err(|_| "the issuer's metadata are no JSON".to_owned())?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    // Section 4.3: it must be the one that was asked for.
    if text("issuer") != Some(exactly) {
        return Err("the metadata name another issuer".to_owned());
    }
    let address = text("jwks_uri").ok_or("the metadata have no jwks_uri")?;
    Url::parse(address).map_err(|_| "the metadata's jwks_uri is no URL".to_owned())
}

/// The failure without the words for providers.
fn told(failure: Failure) -> String {
    match failure {
        Failure::NotSent { detail }
        | Failure::Ambiguous { detail }
        | Failure::Transient { detail, .. } => detail,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;

    use rustls::pki_types::PrivateKeyDer;

    /// A server over TLS, by this certificate: its address.
    fn server(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Url {
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(tls, stream.unwrap());
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                if stream.read(&mut [0; 4_096]).is_ok() {
                    let _ = stream.write_all(answer);
                }
            }
        });
        format!("https://{address}/").parse().unwrap()
    }

    #[tokio::test]
    async fn only_the_named_authorities_are_trusted() {
        let names = || vec!["127.0.0.1".to_owned()];
        let ours = rcgen::generate_simple_self_signed(names()).unwrap();
        let other = rcgen::generate_simple_self_signed(names()).unwrap();
        let address = server(&ours);
        let trusting = |pem: Option<String>| client(pem.as_ref().map(String::as_bytes)).unwrap();
        let fine = fetch(&trusting(Some(ours.cert.pem())), &address, None).await;
        assert_eq!(fine.unwrap(), b"{}");
        for pem in [Some(other.cert.pem()), None] {
            fetch(&trusting(pem), &address, None).await.unwrap_err();
        }
        assert!(client(Some(b"no certificate")).is_err());
    }

    #[tokio::test]
    async fn plaintext_is_for_loopback_alone() {
        let http = client(None).unwrap();
        let address = "http://10.0.0.1/keys".parse().unwrap();
        fetch(&http, &address, None).await.unwrap_err();
    }
}
