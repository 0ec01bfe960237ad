//! Client certificates, mapped to roles by the configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::Principal;
use super::caller::PeerCertificate;
use super::known::{Known, KnownKeys};
use super::limits::Limits;
use super::principal::Credential;
use crate::clock::Clock;
use crate::config::{CertificateName, CertificateRule, Granted, spiffe};
use crate::crypto::digest;
use crate::error::{Error, Unknown};

/// The rules of the configuration.
pub struct Certificates {
    rules: Vec<CertificateRule>,
    limits: Arc<Limits>,
    clock: Clock,
    known: KnownKeys,
}

/// What certificates are told apart by: SHA-256 of their DER form.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    digest::sha256(der)
}

impl Certificates {
    /// By these rules; the first that takes a certificate counts.
    pub fn new(rules: &[CertificateRule], limits: Arc<Limits>, clock: Clock) -> Self {
        Self {
            rules: rules.to_vec(),
            limits,
            clock,
            known: KnownKeys::default(),
        }
    }

    /// Whom a certificate stands for, if memory knows.
    pub fn recognise(&self, certificate: &PeerCertificate) -> Option<Arc<Principal>> {
        if certificate.not_after <= self.clock.now() {
            return None;
        }
        let principal = |known: &Known| Some(Arc::clone(&known.principal));
        self.known.look(&certificate.fingerprint, principal)
    }

    /// Whom a certificate stands for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when no rule takes it, or it has ended.
    pub fn authenticate(&self, certificate: &PeerCertificate) -> Result<Arc<Principal>, Error> {
        if certificate.not_after <= self.clock.now() {
            return Err(Error::Unauthenticated(Unknown::Expired));
        }
        let rule = self
            .rule(certificate)
            .ok_or(Error::Unauthenticated(Unknown::Unmapped))?;
        let Granted {
            name,
            tenant,
            role,
            constraints,
            rate_limit,
        } = &rule.granted;
        let id = format!("cert:{name}");
        let principal = Arc::new(Principal {
            limiter: self.limits.of(&id, *role, *rate_limit),
            id,
            name: name.clone(),
            tenant: tenant.clone(),
            role: *role,
            constraints: constraints.clone(),
            credential: Credential::Certificate {
                fingerprint: certificate.fingerprint,
            },
            expires_at: Some(certificate.not_after),
        });
        let known = Known {
            id: principal.id.clone(),
            principal: Arc::clone(&principal),
            // Whose use is stored nowhere.
            used: AtomicI64::new(0),
            stored: AtomicI64::new(0),
        };
        self.known.insert(certificate.fingerprint, known);
        Ok(principal)
    }

    /// Judges a caller again.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the certificate has ended.
    pub fn reauthenticate(&self, principal: &Principal) -> Result<(), Error> {
        let now = self.clock.now();
        if principal.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::Unauthenticated(Unknown::Expired));
        }
        Ok(())
    }

    fn rule(&self, certificate: &PeerCertificate) -> Option<&CertificateRule> {
        let uris = certificate.uris.as_slice();
        let spiffe_id = match uris {
            [one] if spiffe::is_id(one) => Some(one.as_str()),
            // An X509-SVID has one URI, a good SPIFFE id, or is none (X509-SVID section 2): nothing
            // else that it says counts then.
            uris if uris.iter().any(|uri| spiffe::claims_to_be_id(uri)) => return None,
            _ => None,
        };
        self.rules.iter().find(|rule| match &rule.holder {
            CertificateName::Spiffe(pattern) => spiffe_id.is_some_and(|id| pattern.takes(id)),
            CertificateName::Dns(name) => {
                let mut names = certificate.dns_names.iter();
                names.any(|theirs| theirs.eq_ignore_ascii_case(name))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spiffe::SpiffePattern;
    use crate::model::{Constraints, Role, Timestamp};

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn rule(name: &str, holder: CertificateName) -> CertificateRule {
        CertificateRule {
            holder,
            granted: Granted {
                name: name.to_owned(),
                tenant: "default".to_owned(),
                role: Role::Consumer,
                constraints: Constraints::default(),
                rate_limit: None,
            },
        }
    }

    fn certificates(clock: &Clock) -> Certificates {
        let spiffe = |text| CertificateName::Spiffe(SpiffePattern::parse(text).unwrap());
        let rules = [
            rule("billing", spiffe("spiffe://a/billing")),
            rule("others", spiffe("spiffe://a/*")),
            rule("host", CertificateName::Dns("host.a".to_owned())),
        ];
        let limits = Arc::new(Limits::none(clock.clone()));
        Certificates::new(&rules, limits, clock.clone())
    }

    fn certificate(uris: &[&str], dns_names: &[&str]) -> PeerCertificate {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        PeerCertificate {
            fingerprint: fingerprint(format!("{uris:?}{dns_names:?}").as_bytes()),
            uris: owned(uris),
            dns_names: owned(dns_names),
            not_after: NOW.plus(std::time::Duration::from_secs(60)),
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let certificates = certificates(&Clock::manual(NOW));
        for (uris, dns_names, expected) in [
            (&["spiffe://a/billing"][..], &[][..], Some("cert:billing")),
            (&["spiffe://a/shipping"], &[], Some("cert:others")),
            (&["spiffe://b/billing"], &[], None),
            (&["spiffe://a/billing"], &["host.a"], Some("cert:billing")),
            (&["spiffe://b/billing"], &["host.a"], Some("cert:host")),
            (&["https://a"], &["x", "HOST.a"], Some("cert:host")),
            (&[], &["host.a.b"], None),
            (&[], &["*.a"], None),
            (&[], &[], None),
            // What claims to be an X509-SVID and is none.
            (&["spiffe://a/billing", "spiffe://a/x"], &["host.a"], None),
            (&["spiffe://a/billing", "https://a"], &[], None),
            (&["spiffe://a/../billing"], &["host.a"], None),
            (&["SPIFFE://a/billing"], &["host.a"], None),
        ] {
            let known = certificates.authenticate(&certificate(uris, dns_names));
            let id = known.as_ref().ok().map(|principal| principal.id.as_str());
            assert_eq!(id, expected, "{uris:?} {dns_names:?}");
        }
    }

    #[test]
    fn a_certificate_is_known_until_it_ends() {
        let clock = Clock::manual(NOW);
        let certificates = certificates(&clock);
        let theirs = certificate(&["spiffe://a/billing"], &[]);
        assert!(certificates.recognise(&theirs).is_none());
        let principal = certificates.authenticate(&theirs).unwrap();
        assert!(Arc::ptr_eq(
            &principal,
            &certificates.recognise(&theirs).unwrap()
        ));
        certificates.reauthenticate(&principal).unwrap();
        clock.advance(std::time::Duration::from_secs(60));
        assert!(certificates.recognise(&theirs).is_none());
        assert!(certificates.authenticate(&theirs).is_err());
        assert!(certificates.reauthenticate(&principal).is_err());
    }
}
