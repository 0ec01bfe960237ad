//! Secrets of clients: shown once, kept as hashes, replaced with an overlap.

use tokenbroker::access::bearer::{BearerSecret, Prefix};
use tokenbroker::crypto::digest;

use super::*;

pub async fn rotate(
    caller: &Caller,
    id: &str,
    overlap: Option<Duration>,
) -> Result<pb::RotateClientSecretResponse, Status> {
    rotate_once(caller, id, overlap, "").await
}

async fn rotate_once(
    caller: &Caller,
    id: &str,
    overlap: Option<Duration>,
    request_id: &str,
) -> Result<pb::RotateClientSecretResponse, Status> {
    let request = pb::RotateClientSecretRequest {
        client_id: id.to_owned(),
        overlap: overlap.map(duration),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let answer = caller
        .registry
        .clone()
        .rotate_client_secret(request)
        .await?;
    let rotated = answer.into_inner();
    Secrets::register(&rotated.client_secret);
    Ok(rotated)
}

/// The first characters of the secrets that are good now, the current one first.
async fn good(b: &Broker, id: &str) -> Vec<String> {
    let client = get(&b.admin, id).await.unwrap();
    client.secrets.into_iter().map(|it| it.prefix).collect()
}

/// The hashes that are kept, in upper case.
async fn kept(b: &Broker) -> Vec<String> {
    let hash = b.ground.word("hex(hash)", "upper(encode(hash, 'hex'))");
    let sql = format!("SELECT {hash} AS line FROM oauth_client_secrets");
    b.ground.lines(&sql).await
}

fn hash(secret: &str) -> String {
    digest::hex(&digest::sha256(secret.as_bytes())).to_uppercase()
}

on_both_engines! {
    async fn a_secret_is_shown_once_and_kept_as_a_hash(engine: Engine) {
        let b = Broker::start(engine).await;
        let made = create_once(&b.admin, zapier(), "").await.unwrap();
        let client = made.client.unwrap();
        BearerSecret::parse(Prefix::ClientSecret, &made.client_secret).unwrap();
        assert!(made.client_secret.starts_with(&client.secrets[0].prefix));
        assert_eq!(kept(&b).await, [hash(&made.client_secret)]);
        // It ends by itself.
        b.clock.advance(Duration::from_secs(366 * 24 * 60 * 60));
        assert!(good(&b, &client.id).await.is_empty());
        b.finish().await;
    }

    async fn two_secrets_are_good_while_a_rotation_lasts(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, zapier()).await.unwrap().id;
        let first = good(&b, &id).await;
        let rotated = rotate(&b.admin, &id, Some(2 * HOUR)).await.unwrap();
        let prefix = |text: &str| text[..12].to_owned();
        let second = prefix(&rotated.client_secret);
        assert_eq!(good(&b, &id).await, [second.clone(), first[0].clone()]);
        // Another rotation ends the oldest at once.
        let third = prefix(&rotate(&b.admin, &id, Some(HOUR)).await.unwrap().client_secret);
        assert_eq!(good(&b, &id).await, [third.clone(), second]);
        b.clock.advance(HOUR);
        assert_eq!(good(&b, &id).await, [third]);
        // Without an overlap the one before ends, too.
        let fourth = rotate(&b.admin, &id, Some(Duration::ZERO)).await.unwrap().client_secret;
        assert_eq!(good(&b, &id).await, [prefix(&fourth)]);
        assert_eq!(kept(&b).await, [hash(&fourth)]);
        b.finish().await;
    }

    async fn an_overlap_has_bounds(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, zapier()).await.unwrap().id;
        let long = rotate(&b.admin, &id, Some(31 * 24 * HOUR)).await.unwrap_err();
        assert_eq!(violations(&long), ["overlap"]);
        let request = pb::RotateClientSecretRequest {
            client_id: id.clone(),
            secret_lifetime: Some(duration(HOUR)),
            ..Default::default()
        };
        let short = b.admin.registry.clone().rotate_client_secret(request).await.unwrap().into_inner();
        Secrets::register(&short.client_secret);
        // A secret is not good for longer because another came.
        rotate(&b.admin, &id, Some(24 * HOUR)).await.unwrap();
        b.clock.advance(HOUR);
        assert_eq!(good(&b, &id).await.len(), 1);
        b.finish().await;
    }

    async fn a_repeated_rotation_is_one(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, zapier()).await.unwrap().id;
        let request_id = Uuid::now_v7().to_string();
        let first = rotate_once(&b.admin, &id, None, &request_id).await.unwrap();
        let again = rotate_once(&b.admin, &id, None, &request_id).await.unwrap();
        assert_eq!((again.client, again.client_secret), (first.client, first.client_secret));
        b.finish().await;
    }

    async fn who_needs_no_secret_has_none(engine: Engine) {
        let b = Broker::start(engine).await;
        let public = pb::Client { auth_method: pb::ClientAuthMethod::None.into(), ..zapier() };
        let made = create_once(&b.admin, public, "").await.unwrap();
        let client = made.client.unwrap();
        assert_eq!((made.client_secret.as_str(), client.secrets.len()), ("", 0));
        let refused = rotate(&b.admin, &client.id, None).await.unwrap_err();
        assert_eq!(violations(&refused), ["client_id"]);
        // With another method it can have one, and loses it with that.
        let with = |method: pb::ClientAuthMethod| pb::Client {
            id: client.id.clone(),
            auth_method: method.into(),
            ..Default::default()
        };
        update(&b.admin, with(pb::ClientAuthMethod::ClientSecretBasic), &["auth_method"]).await.unwrap();
        rotate(&b.admin, &client.id, None).await.unwrap();
        assert_eq!(good(&b, &client.id).await.len(), 1);
        update(&b.admin, with(pb::ClientAuthMethod::None), &["auth_method"]).await.unwrap();
        assert!(kept(&b).await.is_empty());
        b.finish().await;
    }

    async fn what_webhooks_are_signed_with_comes_with_their_url(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, zapier()).await.unwrap().id;
        let with = |url: &str| pb::Client {
            id: id.clone(),
            webhook_url: url.to_owned(),
            ..Default::default()
        };
        let first = update(&b.admin, with("https://acme.example/1"), &["webhook_url"]).await.unwrap();
        assert!(first.webhook_secret.starts_with("whsec_"));
        Secrets::register(&first.webhook_secret);
        // Another address, the same key.
        let second = update(&b.admin, with("https://acme.example/2"), &["webhook_url"]).await.unwrap();
        assert_eq!((second.webhook_secret.as_str(), second.client.unwrap().has_webhook_secret), ("", true));
        let none = update(&b.admin, with(""), &["webhook_url"]).await.unwrap();
        assert!(!none.client.unwrap().has_webhook_secret);
        b.finish().await;
    }
}
