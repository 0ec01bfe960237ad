//! Our own authorisation server, as its clients and their people meet it.

pub mod exchanges;
pub mod introspections;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::header::{COOKIE, HeaderName, LOCATION, SET_COOKIE};
use tokenbroker::crypto::digest;
use tokenbroker::pb;
use tokenbroker::pb::exchange_token_request::Grant;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::Url;

use crate::Outcome;
use crate::callers::{self, Caller};
use crate::database::Below;
use crate::ground::{self, Engine, Ground, Server};
use crate::process::Cores;

/// Where people are sent back to, and where they would sign in; nothing listens there.
const REDIRECT_URI: &str = "https://client.example.org/callback";
const APPLICATION: &str = "http://127.0.0.1:9/consent";

/// What people agree to: an ID token is signed for each exchange of a code.
const SCOPES: [&str; 3] = ["openid", "email", "contacts.readonly"];

/// What the client may do for itself.
const OWN_SCOPE: &str = "contacts.readonly";

/// Where a proxy says whom it speaks for.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// People at once.
const CROWD: usize = 32;

/// How long the audit trail may take to be chained.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server with a client that may be issued tokens, and a person who agrees to everything.
struct Stage {
    ground: Ground,
    server: Server,
    key: String,
    caller: Caller,
    /// Where forms are posted to.
    forms: SocketAddr,
    client: pb::ClientCredentials,
    user: String,
    http: reqwest::Client,
    verifier: String,
}

impl Stage {
    async fn start(engine: Engine, cores: Cores) -> Outcome<Self> {
        let mut ground = Ground::new(engine).await?;
        let forms = ground::loopback(ground::free_port()?);
        let of = |key: &str, value: &str| (format!("ISSUER__{key}"), value.to_owned());
        ground.set(vec![
            of("LISTEN", &forms.to_string()),
            of("URL", &format!("http://{forms}")),
            of("INTERACTION_URL", APPLICATION),
            // All codes are made before the first is exchanged.
            of("CODE_LIFETIME", "10m"),
            (
                "WEB__TRUSTED_PROXIES".to_owned(),
                "[\"127.0.0.0/8\"]".to_owned(),
            ),
        ]);
        let server = ground.start("a", cores).await?;
        let key = ground.key("admin")?;
        let caller = Caller::new(server.address, &key)?;
        Ok(Self {
            client: register(caller.clone()).await?,
            user: caller
                .user("person@example.org", &callers::random_token())
                .await?,
            http: plain_http()?,
            verifier: "v".repeat(64),
            ground,
            server,
            key,
            caller,
            forms,
        })
    }

    /// The exchange of this for tokens.
    fn request(&self, grant: Grant) -> pb::ExchangeTokenRequest {
        pb::ExchangeTokenRequest {
            credentials: Some(self.client.clone()),
            grant: Some(grant),
            ..Default::default()
        }
    }

    /// The exchange of a code.
    fn redeem(&self, code: String) -> pb::ExchangeTokenRequest {
        self.request(Grant::AuthorizationCode(pb::AuthorizationCodeGrant {
            code,
            redirect_uri: REDIRECT_URI.to_owned(),
            code_verifier: self.verifier.clone(),
        }))
    }

    /// The exchange of a refresh token.
    fn renew(&self, refresh_token: String) -> pb::ExchangeTokenRequest {
        self.request(Grant::RefreshToken(pb::RefreshTokenGrant {
            refresh_token,
            scopes: Vec::new(),
        }))
    }

    /// The client's question for a token of its own.
    fn for_itself(&self) -> pb::ExchangeTokenRequest {
        self.request(Grant::ClientCredentials(pb::ClientCredentialsGrant {
            scopes: vec![OWN_SCOPE.to_owned()],
        }))
    }

    /// So many codes, of a consent each.
    async fn codes(&self, count: usize) -> Outcome<Vec<String>> {
        stream::iter(0..count)
            .map(|number| self.code(number))
            .buffer_unordered(CROWD)
            .try_collect()
            .await
    }

    /// A browser's way to a code, and the word of an application that it stopped at. Nobody types a
    /// password, which would take more time than all the rest. Each has an address of its own: from one,
    /// few requests are taken.
    async fn code(&self, number: usize) -> Outcome<String> {
        let address = Ipv4Addr::from_bits(0x0a00_0000 | u32::try_from(number)?);
        let challenge = URL_SAFE_NO_PAD.encode(digest::sha256(self.verifier.as_bytes()));
        let mut url = Url::parse(&format!("http://{}/oauth2/authorize", self.server.web))?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client.client_id)
            .append_pair("redirect_uri", REDIRECT_URI)
            .append_pair("scope", &SCOPES.join(" "))
            .append_pair("state", "of the client")
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        let begun = self
            .http
            .get(url)
            .header(FORWARDED_FOR, address.to_string());
        let begun = begun.send().await?;
        let cookie = header(&begun, SET_COOKIE)?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        let accept = pb::AcceptAuthorizationRequestRequest {
            id: parameter(&begun, "authorization_request")?,
            user_id: self.user.clone(),
            scopes: SCOPES.map(str::to_owned).to_vec(),
            auth_time: None,
        };
        let mut server = self.caller.authorization_server.clone();
        let accepted = server.accept_authorization_request(accept).await?;
        let back = self.http.get(accepted.into_inner().redirect_url);
        let back = back.header(COOKIE, cookie).send().await?;
        parameter(&back, "code")
    }

    /// Waits until nothing that was done so far is left to be chained in the audit trail.
    async fn settled(&self) -> Outcome<()> {
        const LEFT: &str = "SELECT count(*) AS number FROM audit_events WHERE position IS NULL";
        let mut below = Below::open(&self.ground).await?;
        let began = Instant::now();
        while below.number(LEFT).await? > 0 {
            if began.elapsed() > PATIENCE {
                return Err("the audit trail is not being chained".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn end(self) -> Outcome<()> {
        self.server.process.stop()?;
        self.ground.remove().await
    }
}

/// Registers a client and approves it: how it proves who it is.
async fn register(mut caller: Caller) -> Outcome<pb::ClientCredentials> {
    let grants = [
        pb::ClientGrantType::AuthorizationCode,
        pb::ClientGrantType::RefreshToken,
        pb::ClientGrantType::ClientCredentials,
    ];
    let client = pb::Client {
        name: "Benchmark".to_owned(),
        auth_method: pb::ClientAuthMethod::ClientSecretPost.into(),
        redirect_uris: vec![REDIRECT_URI.to_owned()],
        grant_types: grants.map(i32::from).to_vec(),
        allowed_scopes: SCOPES.map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let request = pb::CreateClientRequest {
        client: Some(client),
        ..Default::default()
    };
    let made = caller.registry.create_client(request).await?.into_inner();
    let client_id = made.client.ok_or("no client was made")?.id;
    let request = pb::ApproveClientRequest {
        client_id: client_id.clone(),
        ..Default::default()
    };
    caller.registry.approve_client(request).await?;
    Ok(pb::ClientCredentials {
        client_id,
        client_secret: made.client_secret,
        client_assertion: String::new(),
    })
}

/// What browsers and clients on loopback speak. A redirect is told of, not followed.
fn plain_http() -> Outcome<reqwest::Client> {
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .no_proxy();
    Ok(client.build()?)
}

fn header(answer: &reqwest::Response, name: HeaderName) -> Outcome<&str> {
    let value = answer.headers().get(&name);
    let missing = || format!("{} came without {name}", answer.status());
    Ok(value.ok_or_else(missing)?.to_str()?)
}

/// A parameter of the address that a browser is sent on to.
fn parameter(answer: &reqwest::Response, name: &str) -> Outcome<String> {
    let next = Url::parse(header(answer, LOCATION)?)?;
    let found = next.query_pairs().find(|(key, _)| key == name);
    let (_, value) = found.ok_or_else(|| format!("the browser is sent on without {name}"))?;
    Ok(value.into_owned())
}
