//! `[[access.certificates]]`: what the holders of client certificates may do.

use super::spiffe::SpiffePattern;
use super::{Granted, names_are_unique};
use crate::config::reader::Reader;

/// The longest DNS name, in bytes (RFC 1035 section 2.3.4, as text).
const DNS_NAME_MAX: usize = 253;

/// What the holder of a client certificate may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRule {
    /// Which certificates it is for.
    pub holder: CertificateName,
    /// What they may do.
    pub granted: Granted,
}

/// A subject alternative name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// A URI that is a SPIFFE id.
    Spiffe(SpiffePattern),
    /// A DNS name, in lower case; no wildcards.
    Dns(String),
}

impl CertificateRule {
    pub(super) fn read_all(reader: &mut Reader, asks: bool) -> Vec<Self> {
        const SECTION: &str = "access.certificates";
        let mut rules = Vec::new();
        for position in reader.positions(SECTION) {
            let key = |name: &str| format!("{SECTION}.{position}.{name}");
            let holder = holder(reader, &key);
            let granted = Granted::read(reader, &key);
            rules.push((position, holder, granted));
        }
        if let Some((position, ..)) = rules.first()
            && !asks
        {
            reader.fault(
                &format!("{SECTION}.{position}"),
                "no client certificate is ever asked for: set grpc.tls.client_ca_file",
            );
        }
        let named = rules
            .iter()
            .map(|(position, _, granted)| (*position, granted));
        names_are_unique(reader, SECTION, named);
        rules
            .into_iter()
            .filter_map(|(_, holder, granted)| holder.map(|holder| Self { holder, granted }))
            .collect()
    }
}

fn holder(reader: &mut Reader, key: &dyn Fn(&str) -> String) -> Option<CertificateName> {
    let (spiffe_key, dns_key) = (key("spiffe_id"), key("dns_name"));
    let spiffe_id = reader.optional_text(&spiffe_key);
    let dns_name = reader.optional_text(&dns_key);
    match (spiffe_id, dns_name) {
        (Some(text), None) => {
            let pattern = SpiffePattern::parse(&text);
            if pattern.is_none() {
                let problem = format!(
                    "{text:?} is not a SPIFFE id such as \"spiffe://example.org/ns/prod/sa/billing\", \
                     nor the beginning of one that ends with \"/*\""
                );
                reader.fault(&spiffe_key, problem);
            }
            pattern.map(CertificateName::Spiffe)
        }
        (None, Some(text)) => {
            let name = text.to_ascii_lowercase();
            if !is_dns_name(&name) {
                let problem = format!("{text:?} is not a DNS name such as \"billing.example.org\"");
                reader.fault(&dns_key, problem);
            }
            Some(CertificateName::Dns(name))
        }
        (None, None) => {
            reader.fault(&spiffe_key, "set this or dns_name");
            None
        }
        (Some(_), Some(_)) => {
            reader.fault(&dns_key, "set either this or spiffe_id, not both");
            None
        }
    }
}

fn is_dns_name(text: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(fit);
    text.len() <= DNS_NAME_MAX && text.split('.').all(label)
}
