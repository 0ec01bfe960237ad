//! TLS on the gRPC listener, client certificates as credentials, and how many may connect.

pub mod authority;
mod configured;
mod listener;
mod reload;

use std::time::Duration;

use tokenbroker::config::spiffe::SpiffePattern;
use tokenbroker::config::{CertificateName, CertificateRule, Config, Granted};
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};

use crate::fixture::provider::Account;
use crate::fixture::{Broker, Caller, Engine, assert_refused, caller_over, reason};
use crate::on_both_engines;
use authority::{Authority, Identity, Site, channel, shake_hands};

/// A server of the site, and an admin who calls it with a key.
async fn start(engine: Engine, site: &Site, change: impl FnOnce(&mut Config)) -> Broker {
    let mut b = Broker::start_with(engine, |config| {
        site.serve(config);
        change(config);
    })
    .await;
    let key = b.key(Role::Admin, Constraints::default()).await;
    b.admin = caller(&b, site, None, Some(&key));
    b
}

/// A caller with a certificate, a key, both or neither.
fn caller(b: &Broker, site: &Site, identity: Option<&Identity>, key: Option<&str>) -> Caller {
    let channel = channel(b.grpc_address(), &site.client(identity));
    caller_over(channel, key)
}

fn rule(name: &str, holder: CertificateName, role: Role) -> CertificateRule {
    CertificateRule {
        holder,
        granted: Granted {
            name: name.to_owned(),
            tenant: "default".to_owned(),
            role,
            constraints: Constraints::default(),
            rate_limit: None,
        },
    }
}

fn spiffe(pattern: &str) -> CertificateName {
    CertificateName::Spiffe(SpiffePattern::parse(pattern).unwrap())
}

const BILLING: &str = "spiffe://example.org/ns/prod/sa/billing";

async fn token(caller: &Caller, connection: &pb::Connection) -> Result<pb::AccessToken, Status> {
    let request = pb::GetAccessTokenRequest {
        connection_id: connection.id.clone(),
        ..Default::default()
    };
    caller.get_token(request).await
}

async fn list(caller: &Caller) -> Result<(), Status> {
    let request = pb::ListConnectionsRequest::default();
    caller
        .broker
        .clone()
        .list_connections(request)
        .await
        .map(drop)
}

on_both_engines! {
    async fn a_spiffe_id_gets_its_role_and_its_constraints(engine: Engine) {
        let site = Site::new();
        let mut billing = rule("billing", spiffe(BILLING), Role::Consumer);
        billing.granted.constraints.owners = vec!["owner-1".to_owned()];
        let b = start(engine, &site, |config| {
            config.access.certificates = vec![
                billing,
                rule("others", spiffe("spiffe://example.org/ns/prod/*"), Role::Auditor),
            ];
        }).await;
        let app = b.app().await;
        b.provider.sign_in_as(Account::named("ada"));
        let first = b.connect(&app, "owner-1").await;
        b.provider.sign_in_as(Account::named("grace"));
        let second = b.connect(&app, "owner-2").await;

        let billing = caller(&b, &site, Some(&site.authority.issue(&[BILLING])), None);
        token(&billing, &first).await.unwrap();
        assert_refused(token(&billing, &second).await, Code::PermissionDenied, "PERMISSION_DENIED");
        let others = site.authority.issue(&["spiffe://example.org/ns/prod/sa/audit"]);
        let others = caller(&b, &site, Some(&others), None);
        assert_refused(token(&others, &first).await, Code::PermissionDenied, "PERMISSION_DENIED");
        b.finish().await;
    }

    async fn a_certificate_counts_until_it_ends(engine: Engine) {
        let site = Site::new();
        let b = start(engine, &site, |config| {
            config.events.heartbeat_interval = Duration::from_millis(100);
            config.access.certificates = vec![rule("billing", spiffe(BILLING), Role::Consumer)];
        }).await;
        let end = b.clock.now().plus(Duration::from_secs(60));
        let identity = site.authority.issue_until(&[BILLING], end);
        let billing = caller(&b, &site, Some(&identity), None);
        list(&billing).await.unwrap();
        let mut broker = billing.broker.clone();
        let request = pb::WatchTokenEventsRequest::default();
        let mut stream = broker.watch_token_events(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();

        b.clock.advance(Duration::from_secs(61));
        assert_refused(list(&billing).await, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        let ended = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                if let Err(status) = stream.message().await.map(Option::unwrap) {
                    return status;
                }
            }
        });
        let status = ended.await.expect("the stream ends");
        assert_eq!(reason(&status), "CREDENTIALS_EXPIRED");
        let refused = shake_hands(b.grpc_address(), &site.client(Some(&identity))).await;
        assert!(refused.unwrap_err().contains("CertificateExpired"));
        b.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_served_over_tls() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |_| {}).await;
    let connection = b.connected().await;
    let token = b.token(&connection.id).await.unwrap();
    assert!(!token.access_token.is_empty());
    let shown = shake_hands(b.grpc_address(), &site.client(None)).await;
    assert_eq!(shown, Ok(site.identity.der()));
    // Without a certificate and without a key one is nobody.
    let nobody = caller(&b, &site, None, None);
    assert_refused(
        list(&nobody).await,
        Code::Unauthenticated,
        "CREDENTIALS_MISSING",
    );
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_from_another_ca_is_refused() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |config| {
        config.access.certificates = vec![rule("billing", spiffe(BILLING), Role::Admin)];
    })
    .await;
    // Of the same name, even: only the key tells the authorities apart.
    let forged = Authority::new("site").issue(&[BILLING]);
    let refused = shake_hands(b.grpc_address(), &site.client(Some(&forged))).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("received fatal alert"), "{refused}");
    assert!(list(&caller(&b, &site, Some(&forged), None)).await.is_err());
    list(&b.admin).await.unwrap();
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_servers_only_is_refused() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |_| {}).await;
    let server = site.authority.issue_with(&[BILLING], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(
        shake_hands(b.grpc_address(), &site.client(Some(&server)))
            .await
            .is_err()
    );
    // An X509-SVID that signs certificates is no leaf (X509-SVID section 4.3).
    let signing = site.authority.issue_with(&[BILLING], |params| {
        params.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign);
    });
    assert!(
        shake_hands(b.grpc_address(), &site.client(Some(&signing)))
            .await
            .is_err()
    );
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_no_rule_takes_is_nobodys() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |config| {
        config.access.certificates = vec![
            rule("billing", spiffe(BILLING), Role::Admin),
            rule(
                "host",
                CertificateName::Dns("host.example.org".to_owned()),
                Role::Admin,
            ),
        ];
    })
    .await;
    let below = format!("{BILLING}/x");
    let case = BILLING.replace("billing", "Billing");
    for names in [
        &["other.example.org"][..],
        &["*.example.org"],
        &["spiffe://example.com/ns/prod/sa/billing"],
        &[&below],
        &[&case],
        // Two SPIFFE ids are none, whatever else the certificate says (X509-SVID section 2).
        &[BILLING, "spiffe://example.org/ns/prod/sa/shipping"],
        &[BILLING, BILLING, "host.example.org"],
        &[],
    ] {
        let identity = site.authority.issue(names);
        let unmapped = caller(&b, &site, Some(&identity), None);
        assert_refused(
            list(&unmapped).await,
            Code::Unauthenticated,
            "CREDENTIALS_NOT_MAPPED",
        );
    }
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dns_name_gets_its_role() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |config| {
        let name = CertificateName::Dns("host.example.org".to_owned());
        config.access.certificates = vec![rule("host", name, Role::Consumer)];
    })
    .await;
    let connection = b.connected().await;
    let identity = site.authority.issue(&["x.example.org", "Host.example.org"]);
    let host = caller(&b, &site, Some(&identity), None);
    token(&host, &connection).await.unwrap();
    let mut registry = host.registry.clone();
    let deleted = registry.delete_app(pb::DeleteAppRequest::default()).await;
    assert_refused(deleted, Code::PermissionDenied, "PERMISSION_DENIED");
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_sent_counts_and_not_the_certificate() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |config| {
        config.access.certificates = vec![rule("billing", spiffe(BILLING), Role::Consumer)];
    })
    .await;
    let connection = b.connected().await;
    let identity = site.authority.issue(&[BILLING]);
    let key = b.key(Role::Auditor, Constraints::default()).await;
    let auditor = caller(&b, &site, Some(&identity), Some(&key));
    assert_refused(
        token(&auditor, &connection).await,
        Code::PermissionDenied,
        "PERMISSION_DENIED",
    );
    let wrong = caller(&b, &site, Some(&identity), Some("tbk_wrong"));
    assert_refused(
        token(&wrong, &connection).await,
        Code::Unauthenticated,
        "CREDENTIALS_INVALID",
    );
    token(&caller(&b, &site, Some(&identity), None), &connection)
        .await
        .unwrap();
    b.finish().await;
}
