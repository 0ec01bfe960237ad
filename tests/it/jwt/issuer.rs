//! An issuer on loopback that serves its keys, and keys to sign with. Tokens are put together by
//! hand, so that they can be as wrong as an attacker's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tokenbroker::config::{Granted, JwtIssuer, JwtKeySource, JwtRule};
use tokenbroker::model::{Constraints, Role, Timestamp};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::leaks::Secrets;

/// For whom tokens are meant.
pub const AUDIENCE: &str = "tokenbroker";

/// A key pair of an issuer.
pub struct Key {
    pub id: String,
    pair: Pair,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Key {
    /// For ES256.
    pub fn ec(id: &str) -> Self {
        let random = SystemRandom::new();
        let scheme = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(scheme, pkcs8.as_ref(), &random).unwrap();
        Self::new(id, Pair::Ec(pair))
    }

    /// For EdDSA.
    pub fn ed(id: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::new(
            id,
            Pair::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()),
        )
    }

    /// For RS256 and PS256; always the same, since making one takes seconds.
    pub fn rsa(id: &str) -> Self {
        let body: String = include_str!("rsa.pem")
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let pkcs8 = STANDARD.decode(body).unwrap();
        Self::new(
            id,
            Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&pkcs8).unwrap())),
        )
    }

    fn new(id: &str, pair: Pair) -> Self {
        Self {
            id: id.to_owned(),
            pair,
        }
    }

    /// How the issuer publishes it.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..]) })
            }
            Pair::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) })
            }
            Pair::Rsa(pair) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public_key().into();
                json!({ "kty": "RSA", "n": text(&n), "e": text(&e) })
            }
        };
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The algorithm that tokens of this key name.
    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ec(_) => "ES256",
            Pair::Ed(_) => "EdDSA",
            Pair::Rsa(_) => "RS256",
        }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(json!({}), claims)
    }

    /// A token with more in its header, or other things.
    pub fn token_with(&self, more: Value, claims: &Value) -> String {
        let mut header = json!({ "alg": self.algorithm(), "kid": self.id, "typ": "JWT" });
        for (name, value) in more.as_object().unwrap() {
            match value {
                Value::Null => drop(header.as_object_mut().unwrap().remove(name)),
                value => header[name] = value.clone(),
            }
        }
        let pss = header["alg"] == "PS256";
        assembled(&header, claims, |message| self.sign(message, pss))
    }

    fn sign(&self, message: &[u8], pss: bool) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding = if pss {
                    &RSA_PSS_SHA256
                } else {
                    &RSA_PKCS1_SHA256
                };
                pair.sign(padding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }
}

/// A token of any header and signature; it must not show up anywhere.
pub fn assembled(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        text(header.to_string().as_bytes()),
        text(claims.to_string().as_bytes())
    );
    let signature = sign(message.as_bytes());
    let token = format!("{message}.{}", text(&signature));
    Secrets::register_as("JWT", &token);
    token
}

/// Base64url without padding.
pub fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer on loopback.
#[derive(Clone)]
pub struct Issuer {
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    body: String,
    down: bool,
    fetches: usize,
    bearer: Option<String>,
}

impl Issuer {
    pub async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self {
            url,
            state: Arc::default(),
        };
        issuer.publish(keys);
        let serving = issuer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        issuer
    }

    async fn serve(self, stream: TcpStream) {
        let service = service_fn(|request| {
            let answer = self.answer(&request);
            async move { Ok::<_, hyper::Error>(answer) }
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut state = self.state.lock().unwrap();
        let body = match request.uri().path() {
            "/.well-known/openid-configuration" => json!({
                "issuer": self.url,
                "jwks_uri": format!("{}/keys", self.url),
            })
            .to_string(),
            _ => {
                state.fetches += 1;
                let sent = request.headers().get("authorization");
                state.bearer = sent.map(|value| value.to_str().unwrap().to_owned());
                state.body.clone()
            }
        };
        let status = if state.down { 503 } else { 200 };
        Response::builder()
            .status(status)
            .body(Full::from(body))
            .unwrap()
    }

    /// From now on these are its keys.
    pub fn publish(&self, keys: &[&Key]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.publish_text(&json!({ "keys": keys }).to_string());
    }

    /// From now on this is what it serves.
    pub fn publish_text(&self, body: &str) {
        self.state.lock().unwrap().body = body.to_owned();
    }

    pub fn set_down(&self, down: bool) {
        self.state.lock().unwrap().down = down;
    }

    /// How often its keys were asked for.
    pub fn fetches(&self) -> usize {
        self.state.lock().unwrap().fetches
    }

    /// What was sent as `authorization` the last time.
    pub fn bearer(&self) -> Option<String> {
        self.state.lock().unwrap().bearer.clone()
    }

    /// Trusted with everything as by default, and every token of it is a consumer's.
    pub fn trusted(&self) -> JwtIssuer {
        let hour = Duration::from_secs(3_600);
        let names = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];
        JwtIssuer {
            name: "cluster".to_owned(),
            issuer: self.url.clone(),
            audiences: vec![AUDIENCE.to_owned()],
            keys: JwtKeySource::Url(format!("{}/keys", self.url).parse().unwrap()),
            ca_file: None,
            bearer_token_file: None,
            algorithms: names.map(str::to_owned).to_vec(),
            leeway: Duration::from_secs(30),
            max_lifetime: 24 * hour,
            jwks_max_age: hour,
            jwks_max_stale: 24 * hour,
            rules: vec![rule("*", &[], Role::Consumer)],
        }
    }

    /// The claims of a good token.
    pub fn claims(&self, subject: &str, now: Timestamp) -> Value {
        let now = now.micros() / 1_000_000;
        json!({
            "iss": self.url,
            "aud": [AUDIENCE],
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + 3_600,
        })
    }
}

/// A rule for a subject and claims.
pub fn rule(subject: &str, claims: &[(&str, &str)], role: Role) -> JwtRule {
    let claims = claims.iter();
    JwtRule {
        subject: Some(subject.to_owned()),
        claims: claims
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect(),
        granted: Granted {
            name: String::new(),
            tenant: "default".to_owned(),
            role,
            constraints: Constraints::default(),
            rate_limit: None,
        },
    }
}
