//! Certificate authorities, what they issue, and clients that hold it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use tempfile::TempDir;
use tokenbroker::config::{self, Config};
use tokenbroker::model::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Endpoint};

use crate::fixture::leaks::Secrets;

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, key_pair()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with these names: URIs where they have a scheme, else DNS names.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| {})
    }

    pub fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let key = key_pair();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        change(&mut params);
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// One that ends then.
    pub fn issue_until(&self, names: &[&str], end: Timestamp) -> Identity {
        let end = Duration::from_micros(end.micros().unsigned_abs());
        self.issue_with(names, |params| {
            params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end.as_secs());
        })
    }
}

fn san(name: &str) -> SanType {
    let text = name.try_into().unwrap();
    if name.contains("://") {
        SanType::URI(text)
    } else {
        SanType::DnsName(text)
    }
}

fn key_pair() -> KeyPair {
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    Secrets::register_as("TLS key", pem.lines().nth(1).unwrap());
    key
}

/// A server's files, and who trusts it. The files change as Kubernetes changes those of a mounted
/// secret: all at once, by a link.
pub struct Site {
    pub authority: Authority,
    pub identity: Identity,
    folder: TempDir,
    versions: AtomicUsize,
}

impl Site {
    pub fn new() -> Self {
        let authority = Authority::new("site");
        let site = Self {
            identity: authority.issue(&["localhost"]),
            authority,
            folder: tempfile::tempdir().unwrap(),
            versions: AtomicUsize::new(0),
        };
        site.publish(&site.identity, &site.authority.pem());
        site
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    /// What a server with these files has in its configuration.
    pub fn tls(&self) -> config::Tls {
        config::Tls {
            cert_file: self.file("tls.crt"),
            key_file: self.file("tls.key"),
            client_ca_file: Some(self.file("ca.crt")),
            require_client_certificate: false,
            reload_interval: Duration::from_millis(50),
        }
    }

    pub fn serve(&self, config: &mut Config) {
        config.grpc.tls = Some(self.tls());
    }

    /// Replaces the files.
    pub fn publish(&self, identity: &Identity, client_ca: &str) {
        let version = self.versions.fetch_add(1, Ordering::Relaxed).to_string();
        let folder = self.folder.path().join(&version);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.crt"), &identity.certificate).unwrap();
        std::fs::write(folder.join("tls.key"), &identity.key).unwrap();
        std::fs::write(folder.join("ca.crt"), client_ca).unwrap();
        let link = self.folder.path().join("link");
        std::os::unix::fs::symlink(&version, &link).unwrap();
        std::fs::rename(link, self.folder.path().join("data")).unwrap();
    }

    /// A client that trusts the site.
    pub fn client(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.pem().as_bytes());
        roots.add(root.unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut client = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![identity.der()], key)
                    .unwrap()
            }
        };
        client.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(client)
    }
}

async fn connect(
    address: SocketAddr,
    client: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(client).connect(name, tcp).await
}

/// A channel on TLS.
pub fn channel(address: SocketAddr, client: &Arc<ClientConfig>) -> Channel {
    let client = Arc::clone(client);
    let connector = tower::service_fn(move |_: http::Uri| {
        let client = Arc::clone(&client);
        async move { connect(address, client).await.map(TokioIo::new) }
    });
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .timeout(Duration::from_secs(60))
        .connect_with_connector_lazy(connector)
}

/// Shakes hands and begins HTTP/2: the server's certificate, or how the server refused. (In TLS 1.3
/// a client learns only after the handshake that its certificate is not taken.)
pub async fn shake_hands(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> Result<CertificateDer<'static>, String> {
    let shaken = async {
        let mut stream = connect(address, Arc::clone(client)).await?;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await?;
        stream.read_u8().await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        Ok(chain[0].clone().into_owned())
    };
    shaken.await.map_err(|error: io::Error| error.to_string())
}
