//! What a client certificate says, once its chain was verified.

use std::time::Duration;

use x509_cert::Certificate;
use x509_cert::der::{self, Decode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, SubjectAltName};

use crate::access::caller::PeerCertificate;
use crate::access::certificates::fingerprint;
use crate::config::spiffe;
use crate::model::Timestamp;

/// Why a certificate is not taken although its chain is good.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// It is not as RFC 5280 has it.
    #[error("the client certificate can't be read")]
    Unreadable(#[from] der::Error),
    /// An X509-SVID that is not a leaf (X509-SVID section 4.3).
    #[error("the client certificate has a SPIFFE id and may sign certificates")]
    Signing,
}

/// Reads a client certificate, in DER.
///
/// # Errors
/// [`Unfit`]: the connection is not to be used.
pub(super) fn certificate(der: &[u8]) -> Result<PeerCertificate, Unfit> {
    let parsed = Certificate::from_der(der)?;
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    let names = parsed.tbs_certificate.get::<SubjectAltName>()?;
    for name in names
        .into_iter()
        .flat_map(|(_, SubjectAltName(names))| names)
    {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
            GeneralName::DnsName(name) => dns_names.push(name.to_string()),
            _ => {}
        }
    }
    if uris.iter().any(|uri| spiffe::claims_to_be_id(uri)) {
        let usage = parsed.tbs_certificate.get::<KeyUsage>()?;
        if usage.is_some_and(|(_, usage)| usage.key_cert_sign() || usage.crl_sign()) {
            return Err(Unfit::Signing);
        }
    }
    Ok(PeerCertificate {
        fingerprint: fingerprint(der),
        uris,
        dns_names,
        not_after: end_of(&parsed),
    })
}

/// When a certificate in DER ends; `None` when it can't be read.
pub(super) fn end(der: &[u8]) -> Option<Timestamp> {
    let parsed = Certificate::from_der(der).ok()?;
    Some(end_of(&parsed))
}

/// RFC 5280 section 4.1.2.5: the second named is still good.
fn end_of(certificate: &Certificate) -> Timestamp {
    let validity = &certificate.tbs_certificate.validity;
    let last_second = validity.not_after.to_unix_duration();
    Timestamp::from_micros(0).plus(last_second + Duration::from_secs(1))
}
