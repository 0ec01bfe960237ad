//! New certificates without a restart.

use super::{Authority, Site, channel, list, shake_hands, start};
use crate::fixture::process::Process;
use crate::fixture::{Broker, Engine, Ground, caller_over, eventually, logs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_served_without_a_restart() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |_| {}).await;
    list(&b.admin).await.unwrap();
    let new = site.authority.issue(&["localhost"]);
    site.publish(&new, &site.authority.pem());
    serves(&b, &site, &new).await;
    // The connection made before lives on.
    list(&b.admin).await.unwrap();
    b.finish().await;
}

/// Waits for a certificate.
async fn serves(b: &Broker, site: &Site, identity: &super::Identity) {
    let client = site.client(None);
    eventually("the certificate is served", || async {
        shake_hands(b.grpc_address(), &client).await == Ok(identity.der())
    })
    .await;
}

fn logged(b: &Broker, text: &str) -> usize {
    let log = String::from_utf8_lossy(&logs::since(&b.ground.logged)).into_owned();
    log.matches(text).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_pair_changes_nothing_and_is_told_of_once() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |_| {}).await;
    let mut broken = site.authority.issue(&["localhost"]);
    broken.key = site.authority.issue(&["localhost"]).key;
    site.publish(&broken, &site.authority.pem());
    let told = format!(
        "{} is not the key of {}",
        site.file("tls.key").display(),
        site.file("tls.crt").display()
    );
    eventually("it is told of", || async { logged(&b, &told) > 0 }).await;
    serves(&b, &site, &site.identity).await;
    let new = site.authority.issue(&["localhost"]);
    site.publish(&new, &site.authority.pem());
    serves(&b, &site, &new).await;
    assert_eq!(logged(&b, &told), 1);
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_files_change_nothing() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |_| {}).await;
    let file = site.file("tls.key");
    std::fs::remove_file(&file).unwrap();
    let told = format!("{} can't be read", file.display());
    eventually("it is told of", || async { logged(&b, &told) > 0 }).await;
    serves(&b, &site, &site.identity).await;
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_authorities_come_and_go_without_a_restart() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |_| {}).await;
    let other = Authority::new("other");
    let client = site.client(Some(&other.issue(&["host.example.org"])));
    assert!(shake_hands(b.grpc_address(), &client).await.is_err());
    let both = format!("{}{}", site.authority.pem(), other.pem());
    site.publish(&site.identity, &both);
    eventually("the other one counts", || async {
        shake_hands(b.grpc_address(), &client).await.is_ok()
    })
    .await;
    site.publish(&site.identity, &site.authority.pem());
    // No session from before is resumed past it.
    eventually("the other one counts no longer", || async {
        shake_hands(b.grpc_address(), &client).await.is_err()
    })
    .await;
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reads_the_files_at_once() {
    let site = Site::new();
    let ground = Ground::new(Engine::Sqlite).await;
    let (cert, key) = (site.file("tls.crt"), site.file("tls.key"));
    let more = [
        ("TOKENBROKER__GRPC__TLS__CERT_FILE", cert.to_str().unwrap()),
        ("TOKENBROKER__GRPC__TLS__KEY_FILE", key.to_str().unwrap()),
        ("TOKENBROKER__GRPC__TLS__RELOAD_INTERVAL", "1h"),
    ];
    let process = Process::start(&ground.config("a"), &more).await;
    let client = site.client(None);
    let nobody = caller_over(channel(process.address, &client), None);
    list(&nobody).await.unwrap_err();
    let new = site.authority.issue(&["localhost"]);
    site.publish(&new, &site.authority.pem());
    process.hang_up();
    eventually("the certificate is served", || async {
        shake_hands(process.address, &client).await == Ok(new.der())
    })
    .await;
    assert!(process.terminate().await);
}
