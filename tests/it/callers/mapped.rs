//! Callers whom the configuration maps to a role: holders of client certificates and of JWTs.

use std::time::Duration;

use tokenbroker::config::spiffe::SpiffePattern;
use tokenbroker::config::{CertificateName, CertificateRule, JwtRule};
use tokenbroker::model::{Constraints, Role};
use tonic::Code;

use super::table::by_role;
use super::{bearer, verdict};
use crate::fixture::rpcs::{Descriptors, call};
use crate::fixture::*;
use crate::jwt::issuer::{Issuer, Key, rule};
use crate::on_both_engines;
use crate::tls::authority::{Site, channel};

/// One that is given secrets, and one that reads what no other may.
const MAPPED: [Role; 2] = [Role::Consumer, Role::Auditor];

fn spiffe_id(role: &str) -> String {
    format!("spiffe://example.org/ns/prod/sa/{role}")
}

/// A certificate's rule that gives the same as a JWT's.
fn certificate(rule: &JwtRule) -> CertificateRule {
    let role = rule.granted.role.as_str();
    let pattern = SpiffePattern::parse(&spiffe_id(role)).unwrap();
    let mut granted = rule.granted.clone();
    granted.name = role.to_owned();
    CertificateRule {
        holder: CertificateName::Spiffe(pattern),
        granted,
    }
}

on_both_engines! {
    async fn a_certificate_and_a_jwt_may_what_a_key_of_their_role_may(engine: Engine) {
        let site = Site::new();
        let signing = Key::ec("k1");
        let issuer = Issuer::start(&[&signing]).await;
        let b = Broker::start_with(engine, |config| {
            site.serve(config);
            config.events.heartbeat_interval = Duration::from_millis(100);
            let mut trusted = issuer.trusted();
            trusted.rules = MAPPED.map(|role| rule(role.as_str(), &[], role)).to_vec();
            config.access.certificates = trusted.rules.iter().map(certificate).collect();
            config.access.jwt = vec![trusted];
        }).await;
        let bare = channel(b.grpc_address(), &site.client(None));
        for role in MAPPED {
            let key = bearer(&b.key(role, Constraints::default()).await);
            let claims = issuer.claims(role.as_str(), b.clock.now());
            let jwt = bearer(&signing.token(&claims));
            let identity = site.authority.issue(&[&spiffe_id(role.as_str())]);
            let shown = channel(b.grpc_address(), &site.client(Some(&identity)));
            for rpc in Descriptors::own().rpcs() {
                let by_key = verdict(&call(&bare, Some(&key), &rpc.path, Vec::new()).await);
                let by_jwt = verdict(&call(&bare, Some(&jwt), &rpc.path, Vec::new()).await);
                let by_certificate = verdict(&call(&shown, None, &rpc.path, Vec::new()).await);
                let what = format!("{role:?} calls {}", rpc.name);
                assert_eq!(by_key.0 != Code::PermissionDenied, by_role(role, &rpc.name), "{what}: {by_key:?}");
                assert_eq!(by_jwt, by_key, "{what} with a JWT");
                assert_eq!(by_certificate, by_key, "{what} with a certificate");
            }
        }
        b.finish().await;
    }
}
