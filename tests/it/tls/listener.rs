//! The listener: whom it lets connect.

use tokenbroker::model::{Constraints, Role};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::{Site, caller, list, shake_hands, start};
use crate::fixture::{Broker, Engine, caller_at, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_to_a_tls_port_fails_and_harms_nobody() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |_| {}).await;
    let key = b.key(Role::Admin, Constraints::default()).await;
    for _ in 0..10 {
        list(&caller_at(b.grpc_address(), &key)).await.unwrap_err();
    }
    list(&b.admin).await.unwrap();
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_handshakes_hold_up_nobody() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(b.grpc_address()).await.unwrap());
    }
    list(&b.admin).await.unwrap();
    drop(silent);
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_no_certificate_stays_out_where_one_is_required() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |config| {
        let tls = config.grpc.tls.as_mut().unwrap();
        tls.require_client_certificate = true;
    })
    .await;
    let refused = shake_hands(b.grpc_address(), &site.client(None)).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    // A certificate lets in; who one is may still be said by a key.
    let identity = site.authority.issue(&["anybody.example.org"]);
    let key = b.key(Role::Admin, Constraints::default()).await;
    list(&caller(&b, &site, Some(&identity), Some(&key)))
        .await
        .unwrap();
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_connections_are_kept_than_configured() {
    let b = Broker::start_with(Engine::Sqlite, |config| config.grpc.max_connections = 2).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut connection = TcpStream::connect(b.grpc_address()).await.unwrap();
        // The server speaks first (RFC 9113 section 3.4): it has taken the connection.
        connection.read_u8().await.unwrap();
        kept.push(connection);
    }
    let mut surplus = TcpStream::connect(b.grpc_address()).await.unwrap();
    assert!(surplus.read_u8().await.is_err(), "a third one was taken");
    list(&b.admin).await.unwrap_err();
    kept.pop();
    eventually("the place is free again", || async {
        list(&b.admin).await.is_ok()
    })
    .await;
    b.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_under_way_has_a_place_and_gives_it_back() {
    let site = Site::new();
    let b = start(Engine::Sqlite, &site, |config| {
        config.grpc.max_connections = 1
    })
    .await;
    let silent = TcpStream::connect(b.grpc_address()).await.unwrap();
    let client = site.client(None);
    assert!(shake_hands(b.grpc_address(), &client).await.is_err());
    drop(silent);
    eventually("the place is free again", || async {
        shake_hands(b.grpc_address(), &client).await.is_ok()
    })
    .await;
    b.finish().await;
}
