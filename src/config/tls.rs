//! `[grpc.tls]`: TLS on the gRPC listener.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::Reader;
use super::{HOUR, SECOND};

/// TLS on the gRPC listener. What the files hold is read when the listener is made, and again
/// whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM: the server's certificate, and then the intermediate ones.
    pub cert_file: PathBuf,
    /// PEM: the certificate's private key (PKCS #8, PKCS #1 or SEC 1), not encrypted.
    pub key_file: PathBuf,
    /// PEM: the authorities whose client certificates are taken. `None`: none is asked for.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    pub require_client_certificate: bool,
    /// How often the files are looked at.
    pub reload_interval: Duration,
}

impl Tls {
    /// `None` where none of the files is named.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        const CERT: &str = "grpc.tls.cert_file";
        const KEY: &str = "grpc.tls.key_file";
        const CLIENT_CA: &str = "grpc.tls.client_ca_file";
        const REQUIRE: &str = "grpc.tls.require_client_certificate";
        let cert_file = file(reader, CERT);
        let key_file = file(reader, KEY);
        let client_ca_file = file(reader, CLIENT_CA);
        let require_client_certificate = reader.boolean(REQUIRE);
        let reload_interval = reader.duration("grpc.tls.reload_interval", SECOND..=HOUR);
        if require_client_certificate && client_ca_file.is_none() && reader.sound(&[CLIENT_CA]) {
            reader.fault(REQUIRE, format!("this needs {CLIENT_CA}"));
        }
        let needed = "this must be set where another key of grpc.tls is";
        let any = cert_file.is_some() || key_file.is_some() || client_ca_file.is_some();
        for (key, given) in [(CERT, &cert_file), (KEY, &key_file)] {
            if any && given.is_none() && reader.sound(&[key]) {
                reader.fault(key, needed);
            }
        }
        Some(Self {
            cert_file: cert_file?,
            key_file: key_file?,
            client_ca_file,
            require_client_certificate,
            reload_interval,
        })
    }
}

/// A file that can be opened now: what is missing shows before anything is started.
fn file(reader: &mut Reader, key: &str) -> Option<PathBuf> {
    let path = reader.optional_path(key)?;
    if let Err(error) = openable(&path) {
        reader.fault(key, format!("{} can't be read: {error}", path.display()));
    }
    Some(path)
}

fn openable(path: &Path) -> io::Result<()> {
    if File::open(path)?.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(())
}
