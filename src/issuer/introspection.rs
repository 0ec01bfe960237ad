//! Whether a token is good: judged by it, its grant, its client and its user, and answered from memory
//! as long as this replica hears of everything that ends one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::issue::has;
use super::{Issuer, Parts};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::crypto::digest;
use crate::crypto::jwt::JWT_MAX;
use crate::error::Error;
use crate::freshness::Epochs;
use crate::model::{
    ClientState, Event, EventKind, IssuedToken, IssuedTokenKind, OauthClient, Timestamp,
};
use crate::store::issuer::tokens::{Standing, StandingUser};
use crate::store::{self, Store, Tx};

/// SHA-256 of a token.
type Hash = [u8; 32];

/// How long an answer is given from memory: what no event tells of, such as another e-mail address, is
/// seen after so long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Who asks about a token.
#[derive(Clone, Debug)]
pub enum Reader {
    /// A caller of this tenant: about any token of it.
    Tenant(String),
    /// A client: about its own tokens, and where it is one of the tenant's own, about any token of that.
    Client(Box<OauthClient>),
}

impl Reader {
    fn may_see(&self, token: &IssuedToken) -> bool {
        match self {
            Self::Tenant(tenant) => *tenant == token.tenant,
            Self::Client(client) => {
                client.id == token.client_id
                    || (client.settings.trusted && client.tenant == token.tenant)
            }
        }
    }
}

/// What is said of a good token (RFC 7662 section 2.2).
#[derive(Clone, Debug)]
pub struct Introspection {
    /// The token.
    pub token: IssuedToken,
    /// `Bearer`, `DPoP` or `refresh_token`.
    pub token_type: &'static str,
    /// Whom it speaks for: the user, or the client itself.
    pub subject: String,
    /// Their e-mail address, with the scope `email`; empty without.
    pub username: String,
    /// Who issued it.
    pub issuer: String,
}

/// A good token, as it is remembered.
pub(super) struct Held {
    pub(super) introspection: Introspection,
    pub(super) user: Option<StandingUser>,
    /// How the epochs of what could end it stood.
    epochs: Vec<u64>,
    uses: Arc<Uses>,
}

impl Held {
    /// Whatever ends the token names one of these.
    fn subjects(&self) -> impl Iterator<Item = &str> {
        let token = &self.introspection.token;
        let grant = token.grant_id.as_deref();
        let user = self.user.as_ref().map(|user| user.id.as_str());
        [Some(token.id.as_str()), Some(token.client_id.as_str())]
            .into_iter()
            .chain([grant, user])
            .flatten()
    }
}

/// How often a token was looked at since that was stored.
#[derive(Default)]
struct Uses {
    count: AtomicI64,
    /// Microseconds.
    last: AtomicI64,
}

/// Good tokens, and their uses.
pub(super) struct Cache {
    held: moka::sync::Cache<Hash, Arc<Held>>,
    epochs: Epochs,
    /// By the token's id, so that they are stored in this order: two replicas can't lock each other out.
    uses: Mutex<BTreeMap<String, Arc<Uses>>>,
}

impl Cache {
    pub(super) fn new(parts: &Parts) -> Self {
        Self::with_capacity(parts.config.cache_capacity)
    }

    fn with_capacity(capacity: u64) -> Self {
        Self {
            held: moka::sync::Cache::builder()
                .max_capacity(capacity)
                .time_to_live(REMEMBERED)
                .build(),
            epochs: Epochs::default(),
            uses: Mutex::default(),
        }
    }

    /// The token, if nothing that could have ended it was heard of since.
    fn get(&self, hash: &Hash) -> Option<Arc<Held>> {
        let held = self.held.get(hash)?;
        let now = held.subjects().map(|subject| self.epochs.at(subject));
        now.eq(held.epochs.iter().copied()).then_some(held)
    }

    /// Where history stands: to be taken before a token is read that is to be kept.
    fn epoch(&self) -> u64 {
        self.epochs.at(())
    }

    /// Keeps a token that was read after `epoch` was taken, unless something ended since. What ends later
    /// is noticed by the epochs that are kept with it.
    fn keep(&self, hash: Hash, mut held: Held, epoch: u64) -> Arc<Held> {
        held.epochs = held.subjects().map(|it| self.epochs.at(it)).collect();
        let held = Arc::new(held);
        // Asked after the epochs above: `forget` advances this one before those.
        if self.epoch() == epoch {
            self.held.insert(hash, Arc::clone(&held));
        }
        held
    }

    fn forget(&self, subject: &str) {
        self.epochs.advance(());
        self.epochs.advance(subject);
    }

    fn uses_of(&self, id: &str) -> Arc<Uses> {
        let mut all = self.all_uses();
        Arc::clone(all.entry(id.to_owned()).or_default())
    }

    /// Stores how often tokens were looked at.
    pub(super) async fn flush(&self, store: &Store) -> Result<(), Error> {
        let taken = self.take_uses();
        let add = async |tx: &mut Tx, chunk: &[(String, i64, i64)]| {
            for (id, count, last) in chunk {
                let last = Timestamp::from_micros(*last);
                store::issuer::tokens::add_use(tx, id, *count, last).await?;
            }
            Ok(())
        };
        let (done, stored) = store::write_in_chunks(store, &taken, add).await;
        for (id, count, last) in taken.into_iter().skip(done) {
            let uses = self.uses_of(&id);
            uses.count.fetch_add(count, Ordering::Relaxed);
            uses.last.fetch_max(last, Ordering::Relaxed);
        }
        stored
    }

    fn take_uses(&self) -> Vec<(String, i64, i64)> {
        let mut taken = Vec::new();
        self.all_uses().retain(|id, uses| {
            // Whoever holds the token may count on; nobody else comes to hold it meanwhile. Asked first, so
            // that what they count now is taken below or kept.
            let held = Arc::strong_count(uses) > 1;
            let count = uses.count.swap(0, Ordering::Relaxed);
            if count > 0 {
                taken.push((id.clone(), count, uses.last.load(Ordering::Relaxed)));
            }
            held
        });
        taken
    }

    fn all_uses(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Uses>>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Issuer {
    /// What is to be said of a token, to who may hear it; `None` for one that is not good.
    ///
    /// # Errors
    /// The store's.
    pub async fn introspect(
        &self,
        reader: Reader,
        token: &str,
    ) -> Result<Option<Introspection>, Error> {
        let Some(held) = self.look_up(token).await? else {
            return Ok(None);
        };
        if !reader.may_see(&held.introspection.token) {
            return Ok(None);
        }
        self.used(&held);
        Ok(Some(held.introspection.clone()))
    }

    /// A token that is good now.
    pub(super) async fn look_up(&self, text: &str) -> Result<Option<Arc<Held>>, Error> {
        let Some(hash) = hash_of(text) else {
            return Ok(None);
        };
        let now = self.parts.clock.now();
        if self.parts.freshness.holds()
            && let Some(held) = self.cache.get(&hash)
        {
            let good = held.introspection.token.expires_at > now;
            return Ok(good.then_some(held));
        }
        let epoch = self.cache.epoch();
        let found = {
            let mut conn = self.parts.store.read().await?;
            store::issuer::tokens::any_tenant_standing(&mut conn, &hash).await?
        };
        let Some(standing) = found.filter(|standing| is_good(standing, now)) else {
            return Ok(None);
        };
        let held = Held {
            uses: self.cache.uses_of(&standing.token.id),
            epochs: Vec::new(),
            introspection: self.said_of(&standing),
            user: standing.user,
        };
        // A refresh token that is exchanged ends without an event: few ask about one.
        if held.introspection.token.kind == IssuedTokenKind::Refresh {
            return Ok(Some(Arc::new(held)));
        }
        Ok(Some(self.cache.keep(hash, held, epoch)))
    }

    fn said_of(&self, standing: &Standing) -> Introspection {
        let mut token = standing.token.clone();
        // Of no use to anybody who asks, and not to be kept in memory.
        token.successor = None;
        let user = standing.user.as_ref();
        let email = user.filter(|_| has(&token.scopes, "email"));
        Introspection {
            token_type: match token.kind {
                IssuedTokenKind::Access => super::issue::token_type(&token.dpop_jkt),
                IssuedTokenKind::Refresh => "refresh_token",
            },
            subject: user.map_or(&token.client_id, |user| &user.id).clone(),
            username: email.map_or_else(String::new, |user| user.email.clone()),
            issuer: self.parts.config.identifier().to_owned(),
            token,
        }
    }

    /// Counts a look at a token.
    pub(super) fn used(&self, held: &Held) {
        held.uses.count.fetch_add(1, Ordering::Relaxed);
        let now = self.parts.clock.now().micros();
        held.uses.last.fetch_max(now, Ordering::Relaxed);
    }

    /// Forgets what an event, of this replica or another, ended.
    pub fn forget(&self, event: &Event) {
        if event.event.kind == EventKind::IssuedEnded {
            self.cache.forget(&event.event.subject);
        }
    }

    /// Forgets what this replica ended, and has the others told at once.
    pub(super) fn forget_now(&self, subject: &str) {
        self.cache.forget(subject);
        self.poke();
    }
}

/// By what a token is known; `None` for what can be none.
pub(super) fn hash_of(text: &str) -> Option<Hash> {
    let own = [Prefix::AccessToken, Prefix::RefreshToken]
        .into_iter()
        .find_map(|prefix| BearerSecret::parse(prefix, text).ok());
    if let Some(own) = own {
        return Some(own.hash());
    }
    let jwt = text.len() <= JWT_MAX && text.bytes().filter(|byte| *byte == b'.').count() == 2;
    jwt.then(|| digest::sha256(text.as_bytes()))
}

/// Whether all that a token depends on stands.
fn is_good(standing: &Standing, now: Timestamp) -> bool {
    let Standing {
        token,
        grant,
        client_state,
        client_deleted,
        user,
    } = standing;
    let client = *client_state == ClientState::Active && !client_deleted;
    let alone = token.revoked_at.is_none() && token.consumed_at.is_none() && token.expires_at > now;
    let consent = match (&token.grant_id, grant, user) {
        (None, _, _) => true,
        (Some(_), Some(grant), Some(user)) => grant.revoked_at.is_none() && user.active,
        (Some(_), _, _) => false,
    };
    client && alone && consent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TokenFormat;

    const HASH: Hash = [7; 32];

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn token() -> IssuedToken {
        IssuedToken {
            id: "itok_1".to_owned(),
            hash: HASH.to_vec(),
            tenant: "default".to_owned(),
            client_id: "client_1".to_owned(),
            grant_id: Some("ogrant_1".to_owned()),
            kind: IssuedTokenKind::Access,
            format: TokenFormat::Opaque,
            scopes: Vec::new(),
            resources: Vec::new(),
            dpop_jkt: String::new(),
            generation: 1,
            created_at: at(0),
            expires_at: at(60),
            revoked_at: None,
            revoke_reason: String::new(),
            consumed_at: None,
            reuse_count: 0,
            successor: None,
            use_count: 0,
            last_used_at: None,
            ip: String::new(),
            user_agent: String::new(),
            keep_until: at(60),
        }
    }

    fn held(cache: &Cache) -> Held {
        Held {
            uses: cache.uses_of("itok_1"),
            introspection: Introspection {
                token: token(),
                token_type: "Bearer",
                subject: "user_1".to_owned(),
                username: String::new(),
                issuer: String::new(),
            },
            user: Some(StandingUser {
                id: "user_1".to_owned(),
                email: String::new(),
                email_verified: false,
                name: String::new(),
                active: true,
            }),
            epochs: Vec::new(),
        }
    }

    #[test]
    fn whatever_ends_a_token_is_noticed() {
        for subject in ["itok_1", "ogrant_1", "client_1", "user_1"] {
            let cache = Cache::with_capacity(10);
            let epoch = cache.epoch();
            cache.keep(HASH, held(&cache), epoch);
            assert!(cache.get(&HASH).is_some(), "{subject}");
            cache.forget(subject);
            assert!(cache.get(&HASH).is_none(), "{subject}");
        }
    }

    #[test]
    fn what_was_read_before_an_end_was_heard_of_is_not_kept() {
        let cache = Cache::with_capacity(10);
        let epoch = cache.epoch();
        cache.forget("ogrant_1");
        cache.keep(HASH, held(&cache), epoch);
        assert!(cache.get(&HASH).is_none());
    }

    #[test]
    fn uses_are_counted_once_and_for_as_long_as_a_token_is_held() {
        let cache = Cache::with_capacity(10);
        let held = held(&cache);
        held.uses.count.fetch_add(2, Ordering::Relaxed);
        held.uses.last.fetch_max(5, Ordering::Relaxed);
        assert_eq!(cache.take_uses(), [("itok_1".to_owned(), 2, 5)]);
        assert!(cache.take_uses().is_empty());
        assert_eq!(cache.all_uses().len(), 1);
        drop(held);
        cache.take_uses();
        assert!(cache.all_uses().is_empty());
    }

    #[test]
    fn texts_that_can_be_no_token_are_not_looked_for() {
        let token = BearerSecret::generate(Prefix::AccessToken);
        let text = secrecy::ExposeSecret::expose_secret(token.text());
        assert_eq!(hash_of(text), Some(token.hash()));
        assert!(hash_of(&text[..52]).is_none());
        assert!(hash_of("").is_none());
        assert!(hash_of("a.b.c").is_some());
        assert!(hash_of(&"a.b.".repeat(JWT_MAX)).is_none());
    }

    #[test]
    fn a_token_is_as_good_as_all_that_it_depends_on() {
        let good = || {
            let cache = Cache::with_capacity(1);
            Standing {
                token: IssuedToken {
                    grant_id: None,
                    ..token()
                },
                grant: None,
                client_state: ClientState::Active,
                client_deleted: false,
                user: held(&cache).user,
            }
        };
        assert!(is_good(&good(), at(59)));
        assert!(!is_good(&good(), at(60)));
        let ended: [fn(&mut Standing); 5] = [
            |it| it.client_state = ClientState::Suspended,
            |it| it.client_deleted = true,
            |it| it.token.revoked_at = Some(at(1)),
            |it| it.token.consumed_at = Some(at(1)),
            |it| it.token.grant_id = Some("ogrant_gone".to_owned()),
        ];
        for end in ended {
            let mut standing = good();
            end(&mut standing);
            assert!(!is_good(&standing, at(1)));
        }
    }
}
