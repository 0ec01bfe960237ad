//! Who vouches for callers without an API key: an authority that issues certificates, and an issuer
//! of JWTs. Settings of the server name their files.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::Outcome;

/// The server, as its certificate has it, and the one client.
const SERVER: &str = "localhost";
const CLIENT: &str = "bench.example.org";

/// The settings that make a server take certificates and JWTs of ours.
pub type Settings = Vec<(String, String)>;

/// TLS on the server's side, and a client that holds a certificate.
pub struct Tls {
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Writes the server's files into a folder: how a client connects, and the settings.
    pub fn new(folder: &Path) -> Outcome<(Self, Settings)> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let issue = |name: &str| -> Outcome<_> {
            let key = KeyPair::generate()?;
            let params = CertificateParams::new(vec![name.to_owned()])?;
            Ok((params.signed_by(&key, &authority)?, key))
        };
        let (certificate, key) = issue(SERVER)?;
        let write = |name: &str, pem: String| -> Outcome<String> {
            let file = folder.join(name);
            std::fs::write(&file, pem)?;
            Ok(file.to_string_lossy().into_owned())
        };
        let of = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let settings = vec![
            of(
                "GRPC__TLS__CERT_FILE",
                &write("tls.crt", certificate.pem())?,
            ),
            of(
                "GRPC__TLS__KEY_FILE",
                &write("tls.key", key.serialize_pem())?,
            ),
            of(
                "GRPC__TLS__CLIENT_CA_FILE",
                &write("ca.crt", authority.pem())?,
            ),
            of("ACCESS__CERTIFICATES__0__NAME", "bench"),
            of("ACCESS__CERTIFICATES__0__DNS_NAME", CLIENT),
            of("ACCESS__CERTIFICATES__0__ROLE", "consumer"),
        ];
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let (certificate, key) = issue(CLIENT)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        let client = Arc::new(client);
        Ok((Self { client }, settings))
    }

    /// An address that encrypts what it is sent and hands it on to the server, with the client's
    /// certificate: h2load has none.
    pub async fn relay(&self, server: SocketAddr) -> Outcome<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connector = TlsConnector::from(Arc::clone(&self.client));
        tokio::spawn(async move {
            while let Ok((plain, _)) = listener.accept().await {
                tokio::spawn(hand_on(connector.clone(), plain, server));
            }
        });
        Ok(address)
    }
}

async fn hand_on(connector: TlsConnector, mut plain: TcpStream, server: SocketAddr) -> Outcome<()> {
    let tcp = TcpStream::connect(server).await?;
    tcp.set_nodelay(true)?;
    plain.set_nodelay(true)?;
    let mut encrypted = connector
        .connect(ServerName::try_from(SERVER)?, tcp)
        .await?;
    tokio::io::copy_bidirectional(&mut plain, &mut encrypted).await?;
    Ok(())
}

/// A JWT of an issuer whose keys are in a file, and the settings that have it taken.
pub fn jwt(folder: &Path) -> Outcome<(String, Settings)> {
    const ISSUER: &str = "https://issuer.example.org";
    const AUDIENCE: &str = "tokenbroker";
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let odd = |error: ring::error::KeyRejected| error.to_string();
    let pkcs8 =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| "no key can be made")?;
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(odd)?;
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref()), "kid": "one",
        "use": "sig",
    });
    let file = folder.join("keys.json");
    std::fs::write(&file, json!({ "keys": [jwk] }).to_string())?;
    let now = jiff::Timestamp::now().as_second();
    let part = |value: Value| text(value.to_string().as_bytes());
    let signed = format!(
        "{}.{}",
        part(json!({ "alg": "EdDSA", "kid": "one", "typ": "JWT" })),
        part(json!({
            "iss": ISSUER, "sub": "system:serviceaccount:prod:billing", "aud": AUDIENCE,
            "iat": now, "exp": now + 12 * 3_600,
        })),
    );
    let token = format!("{signed}.{}", text(key.sign(signed.as_bytes()).as_ref()));
    let of = |key: &str, value: &str| (format!("ACCESS__JWT__0__{key}"), value.to_owned());
    let settings = vec![
        of("NAME", "bench"),
        of("ISSUER", ISSUER),
        of("AUDIENCES", AUDIENCE),
        of("JWKS_FILE", &file.to_string_lossy()),
        of("RULES__0__SUBJECT", "system:serviceaccount:prod:*"),
        of("RULES__0__ROLE", "consumer"),
    ];
    Ok((token, settings))
}
