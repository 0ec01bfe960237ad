//! `private_key_jwt`: a client proves who it is by a JWT that it signed (RFC 7523 section 3, OpenID
//! Connect Core section 9).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::sync::Semaphore;
use url::Url;

use super::authentication::Verdict;
use super::{Issuer, Parts};
use crate::clock::Clock;
use crate::crypto::jwt::{self, Claims, KeySet, Refusal};
use crate::error::Error;
use crate::model::{OauthClient, Timestamp};
use crate::oauth::{Http, jwks};

/// The longest that an assertion may be good for.
const LIFETIME_MAX: Duration = Duration::from_secs(5 * 60);

/// How far a client's clock may be ahead.
const LEEWAY: Duration = Duration::from_secs(10);

/// Longest `jti`, in bytes.
const JTI_MAX: usize = 255;

/// Frozen while rows live.
const SPENT_LABEL: &str = "tokenbroker.client_assertion.v1";

/// What sorts of JWT are taken (`typ`), where it says. Others are meant for something else.
const MEDIA_TYPES: [&str; 2] = ["jwt", "client-authentication+jwt"];

/// How long fetched keys are used.
const FRESH_FOR: Duration = Duration::from_secs(5 * 60);

/// The least time between two fetches of one client's keys: what strangers write into assertions must
/// not become load on anybody.
const PAUSE: Duration = Duration::from_secs(30);

/// How long keys are used while others are fetched in their place: longer than a fetch takes.
const FRESH_MEANWHILE: Duration = FRESH_FOR.saturating_add(PAUSE);

/// Clients whose fetched keys are kept.
const CLIENTS_MAX: u64 = 10_000;

/// Most clients whose keys are fetched at a time.
const FETCHES_MAX: usize = 64;

/// The keys of clients that publish them, fetched when they are needed.
pub(super) struct ClientKeys {
    http: Http,
    clock: Clock,
    /// By client and address: keys of another address are not used once it changed.
    published: moka::sync::Cache<(String, String), Arc<Published>>,
    fetches: Semaphore,
}

/// The keys of one client.
#[derive(Default)]
struct Published {
    state: Mutex<State>,
    /// Held by the one that fetches. Nobody waits for it: a slow publisher would hold up requests without
    /// end.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The keys, and when their fetch began.
    held: Option<(Arc<KeySet>, Duration)>,
    /// When the last fetch began, whatever came of it.
    asked: Option<Duration>,
}

impl State {
    /// The keys, if they are no older than that.
    fn held(&self, now: Duration, age: Duration) -> Option<Arc<KeySet>> {
        let (set, since) = self.held.as_ref()?;
        (now.saturating_sub(*since) < age).then(|| Arc::clone(set))
    }
}

impl Published {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What memory says: keys that are no older than that, or, where it is too early to ask again,
    /// those that there are. `None` when they are to be fetched.
    fn known(&self, now: Duration, age: Duration) -> Option<Option<Arc<KeySet>>> {
        let state = self.state();
        if let Some(set) = state.held(now, age) {
            return Some(Some(set));
        }
        let early = now.saturating_sub(state.asked?) < PAUSE;
        early.then(|| state.held(now, FRESH_FOR))
    }

    /// The keys there are, while they can't be fetched; none for who has seen that they won't do.
    fn meanwhile(&self, now: Duration, age: Duration) -> Option<Arc<KeySet>> {
        let kept = self.state().held(now, FRESH_MEANWHILE);
        kept.filter(|_| age >= FRESH_FOR)
    }
}

impl ClientKeys {
    /// None is fetched yet.
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            http: parts.http.clone(),
            clock: parts.clock.clone(),
            published: moka::sync::Cache::new(CLIENTS_MAX),
            fetches: Semaphore::new(FETCHES_MAX),
        }
    }

    /// The keys at a client's address, no older than that if they can be had. That there are none is the
    /// fault of nobody who asks: they are to try again.
    async fn get(
        &self,
        client_id: &str,
        address: &str,
        age: Duration,
    ) -> Result<Arc<KeySet>, Error> {
        let keys = self.find(client_id, address, age).await;
        keys.ok_or_else(|| Error::Unavailable("the client's keys can't be had".to_owned(), None))
    }

    async fn find(&self, client_id: &str, address: &str, age: Duration) -> Option<Arc<KeySet>> {
        let key = (client_id.to_owned(), address.to_owned());
        let published = self.published.get_with(key, Arc::default);
        let now = self.clock.elapsed();
        if let Some(known) = published.known(now, age) {
            return known;
        }
        // The turn comes first: a client with a slow publisher takes one place, and not all.
        let Ok(_turn) = published.fetching.try_lock() else {
            return published.meanwhile(now, age);
        };
        let Ok(_place) = self.fetches.try_acquire() else {
            return published.meanwhile(now, age);
        };
        // Whoever had the turn before may have fetched them.
        if let Some(known) = published.known(now, age) {
            return known;
        }
        let fetched = self.fetch(address).await;
        let mut state = published.state();
        state.asked = Some(now);
        match fetched {
            Ok(set) => state.held = Some((Arc::new(set), now)),
            Err(problem) => {
                tracing::warn!(client_id, "the keys of a client can't be had: {problem}");
            }
        }
        drop(state);
        published.known(now, FRESH_FOR).flatten()
    }

    async fn fetch(&self, address: &str) -> Result<KeySet, String> {
        let address = Url::parse(address).map_err(|_| "its jwks_uri is no URL".to_owned())?;
        let document = jwks::fetch(&self.http, &address, None).await?;
        KeySet::parse(&document).map_err(|fault| fault.to_string())
    }
}

impl Issuer {
    /// Whether a client signed this, for us, and for this once. [`Error::Unavailable`] where its keys
    /// can't be had.
    pub(super) async fn judge_assertion(
        &self,
        client: &OauthClient,
        assertion: &SecretString,
    ) -> Result<Verdict, Error> {
        let text = assertion.expose_secret();
        let claims = match self.verified(client, text).await? {
            Ok(claims) => claims,
            Err(reason) => return Ok(Err(reason)),
        };
        let ours = self.parts.config.identifier();
        let judged = judge(&claims, &client.id, ours, self.parts.clock.now());
        let Judged { jti, expires_at } = match judged {
            Ok(judged) => judged,
            Err(reason) => return Ok(Err(reason)),
        };
        let spent = [SPENT_LABEL, client.id.as_str(), jti];
        let first = self.spend(spent, expires_at.plus(LEEWAY)).await?;
        Ok(first.then_some(()).ok_or("ASSERTION_REPLAYED"))
    }

    async fn verified(
        &self,
        client: &OauthClient,
        text: &str,
    ) -> Result<Result<Claims, &'static str>, Error> {
        let Ok(token) = jwt::read(text) else {
            return Ok(Err("ASSERTION_MALFORMED"));
        };
        if !is_taken(token.media_type.as_deref()) {
            return Ok(Err("ASSERTION_TYPE"));
        }
        let settings = &client.settings;
        let verified = if settings.jwks.is_empty() {
            let (id, address) = (&client.id, &settings.jwks_uri);
            let keys = self.client_keys.get(id, address, FRESH_FOR).await?;
            match keys.verify(text, &token) {
                Err(Refusal::UnknownKey) => {
                    let keys = self.client_keys.get(id, address, PAUSE).await?;
                    keys.verify(text, &token)
                }
                verified => verified,
            }
        } else {
            let Ok(keys) = KeySet::parse(settings.jwks.as_bytes()) else {
                return Ok(Err("NO_KEYS"));
            };
            keys.verify(text, &token)
        };
        Ok(verified.map(|verified| verified.claims).map_err(reason))
    }
}

fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownKey => "ASSERTION_KEY_UNKNOWN",
        Refusal::UnfitKey | Refusal::AmbiguousKey => "ASSERTION_KEY",
        Refusal::Signature => "ASSERTION_SIGNATURE",
    }
}

fn is_taken(media_type: Option<&str>) -> bool {
    let taken = |text: &str| MEDIA_TYPES.iter().any(|it| text.eq_ignore_ascii_case(it));
    media_type.is_none_or(taken)
}

/// What is kept of an assertion that is right.
#[derive(Debug, PartialEq, Eq)]
struct Judged<'a> {
    jti: &'a str,
    expires_at: Timestamp,
}

/// Judges the claims of an assertion whose signature is right.
fn judge<'a>(
    claims: &'a Claims,
    client_id: &str,
    ours: &str,
    now: Timestamp,
) -> Result<Judged<'a>, &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(client_id) || text("sub") != Some(client_id) {
        return Err("ASSERTION_SUBJECT");
    }
    // Anything beside us, even our token endpoint's address, would let another server pass it on
    // (draft-ietf-oauth-rfc7523bis).
    let audience = match claims.get("aud") {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Array(items)) => match items.as_slice() {
            [only] => only.as_str(),
            _ => None,
        },
        _ => None,
    };
    if audience != Some(ours) {
        return Err("ASSERTION_AUDIENCE");
    }
    let time = |name: &str| jwt::time(claims, name).map_err(|_| "ASSERTION_TIME");
    let expires_at = time("exp")?.ok_or("ASSERTION_TIME")?;
    let soon = now.plus(LEEWAY);
    let begins = [time("nbf")?, time("iat")?];
    if expires_at <= now
        || expires_at > soon.plus(LIFETIME_MAX)
        || begins.into_iter().flatten().any(|begins| begins > soon)
    {
        return Err("ASSERTION_TIME");
    }
    let jti = text("jti").filter(|jti| (1..=JTI_MAX).contains(&jti.len()));
    Ok(Judged {
        jti: jti.ok_or("ASSERTION_JTI")?,
        expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OURS: &str = "https://as.example";

    fn now() -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(1_000))
    }

    fn judged(change: &Value) -> Result<(), &'static str> {
        let mut claims = json!({
            "iss": "client_1", "sub": "client_1", "aud": OURS, "exp": 1_300, "jti": "1",
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        judge(claims.as_object().unwrap(), "client_1", OURS, now()).map(drop)
    }

    #[test]
    fn what_is_for_us_alone_is_taken() {
        for fine in [
            json!({}),
            json!({ "aud": [OURS] }),
            json!({ "iat": 1_000, "nbf": 1_010 }),
            json!({ "exp": 1_310 }),
            json!({ "exp": 1_000.5 }),
        ] {
            assert_eq!(judged(&fine), Ok(()), "{fine}");
        }
    }

    #[test]
    fn what_is_for_others_is_not() {
        for audience in [
            json!(null),
            json!([]),
            json!("https://as.example/"),
            json!("https://as.example/oauth2/token"),
            json!([OURS, "https://other.example"]),
            json!([OURS, OURS]),
            json!([[OURS]]),
            json!({ "0": OURS }),
        ] {
            let change = json!({ "aud": audience });
            assert_eq!(judged(&change), Err("ASSERTION_AUDIENCE"), "{change}");
        }
    }

    #[test]
    fn a_client_speaks_of_itself_for_five_minutes() {
        for (change, reason) in [
            (json!({ "iss": "client_2" }), "ASSERTION_SUBJECT"),
            (json!({ "sub": "client_2" }), "ASSERTION_SUBJECT"),
            (json!({ "sub": null }), "ASSERTION_SUBJECT"),
            (json!({ "exp": 1_000 }), "ASSERTION_TIME"),
            (json!({ "exp": 1_311 }), "ASSERTION_TIME"),
            (json!({ "exp": null }), "ASSERTION_TIME"),
            (json!({ "nbf": 1_011 }), "ASSERTION_TIME"),
            (json!({ "iat": 1_011 }), "ASSERTION_TIME"),
            (json!({ "iat": "now" }), "ASSERTION_TIME"),
            (json!({ "jti": "" }), "ASSERTION_JTI"),
            (json!({ "jti": null }), "ASSERTION_JTI"),
            (json!({ "jti": "x".repeat(256) }), "ASSERTION_JTI"),
        ] {
            assert_eq!(judged(&change), Err(reason), "{change}");
        }
    }

    #[test]
    fn jwts_for_something_else_are_not_taken() {
        for fine in [None, Some("JWT"), Some("client-authentication+jwt")] {
            assert!(is_taken(fine), "{fine:?}");
        }
        for other in ["", "at+jwt", "dpop+jwt"] {
            assert!(!is_taken(Some(other)), "{other}");
        }
    }

    #[test]
    fn keys_are_fetched_again_when_they_are_old_and_not_too_often() {
        let published = Published::default();
        let at = Duration::from_secs;
        let known = |now, age| published.known(at(now), age).map(|set| set.is_some());
        assert_eq!(known(0, FRESH_FOR), None);
        // It failed: there are none, and nobody asks again at once.
        published.state().asked = Some(at(0));
        assert_eq!(known(29, FRESH_FOR), Some(false));
        assert_eq!(known(30, FRESH_FOR), None);
        published.state().held = Some((Arc::default(), at(0)));
        assert_eq!(known(299, FRESH_FOR), Some(true));
        assert_eq!(known(300, FRESH_FOR), None);
        assert_eq!(known(29, PAUSE), Some(true));
        assert_eq!(known(30, PAUSE), None);
        // Asked again in vain, for a key that is not known: the others stay good.
        published.state().asked = Some(at(40));
        assert_eq!(known(41, PAUSE), Some(true));
        published.state().asked = Some(at(290));
        assert_eq!(known(300, FRESH_FOR), Some(false));
    }

    #[test]
    fn while_keys_are_fetched_the_old_ones_do_for_a_moment() {
        let published = Published::default();
        let at = Duration::from_secs;
        let meanwhile = |now, age| published.meanwhile(at(now), age).is_some();
        assert!(!meanwhile(0, FRESH_FOR));
        published.state().held = Some((Arc::default(), at(0)));
        assert!(meanwhile(329, FRESH_FOR) && !meanwhile(330, FRESH_FOR));
        assert!(!meanwhile(40, PAUSE));
    }
}
