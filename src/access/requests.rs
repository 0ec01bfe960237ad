//! Creates that may be repeated (AIP-155): with a request id, a retry answers what the first call
//! answered, and makes nothing twice.

use std::time::Duration;

use secrecy::SecretString;

use crate::crypto::{Context, Keyring, Purpose, digest};
use crate::error::{Error, Resource};
use crate::model::{IdKind, Timestamp};
use crate::store::idempotency::{self, Answered};
use crate::store::{Conn, Store, Tx};

/// How long a request id is remembered at least.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an answer that holds a secret can be repeated.
pub const SECRET_REPEATED_FOR: Duration = Duration::from_secs(10 * 60);

/// A create that carries a request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once<'a> {
    /// The tenant. Request ids of different tenants have nothing to do with each other.
    pub tenant: &'a str,
    /// The RPC's name, such as `CreateApp`.
    pub rpc: &'static str,
    /// The caller's id for the request.
    pub request_id: &'a str,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

/// What the first call answered.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The id of what it made.
    pub resource_id: String,
    /// The answer itself where it holds a secret and so can't be made again from the resource.
    pub response: Option<SecretString>,
}

/// What a create came to.
#[derive(Clone, Debug)]
pub enum Outcome<T> {
    /// It made something.
    Made(T),
    /// The same request made it before.
    Before(Replayed),
}

/// What names a request among others, from bytes that are the same whenever it is.
pub fn fingerprint(message: &[u8]) -> [u8; 32] {
    digest::sha256(message)
}

impl<'a> Once<'a> {
    /// `None` for an empty request id: such a call is not remembered.
    ///
    /// `message` identifies the request. Its bytes must be the same whenever the request is: the
    /// encoding of a protobuf message with a `map` field is not, since the order of its entries
    /// changes with every decoding.
    pub fn of(
        tenant: &'a str,
        rpc: &'static str,
        request_id: &'a str,
        message: &[u8],
    ) -> Option<Self> {
        (!request_id.is_empty()).then(|| Self {
            tenant,
            rpc,
            request_id,
            fingerprint: fingerprint(message),
        })
    }

    /// What is stored for the fingerprint: keyed, because a request may hold a secret that a plain
    /// hash would let somebody guess. A retry after the keyring's oldest key was dropped is taken
    /// for another request.
    fn keyed_fingerprint(&self, keyring: &Keyring) -> Vec<u8> {
        keyring
            .fingerprint(self.tenant, &self.fingerprint)
            .into_bytes()
    }

    fn row(&self) -> String {
        format!("{}/{}", self.rpc, self.request_id)
    }
}

impl Replayed {
    /// The answer of an RPC whose answers hold a secret.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when it is no longer kept.
    pub fn into_secret(self) -> Result<SecretString, Error> {
        let Self {
            resource_id,
            response,
        } = self;
        response.ok_or_else(|| no_longer_kept(resource_id))
    }
}

/// What a request was answered before; `None` when it is new.
///
/// # Errors
/// [`Error::InvalidArgument`] when the id was used for another request, [`Error::AlreadyExists`]
/// with the resource's id when the answer held a secret and is older than ten minutes, or the
/// store's.
pub async fn replayed(
    conn: &mut Conn,
    keyring: &Keyring,
    once: &Once<'_>,
    now: Timestamp,
) -> Result<Option<Replayed>, Error> {
    let found = idempotency::find(conn, once.tenant, once.rpc, once.request_id).await?;
    found
        .map(|answered| repeat(keyring, once, answered, now))
        .transpose()
}

fn repeat(
    keyring: &Keyring,
    once: &Once<'_>,
    answered: Answered,
    now: Timestamp,
) -> Result<Replayed, Error> {
    if answered.fingerprint != once.keyed_fingerprint(keyring) {
        return Err(Error::invalid(
            "request_id",
            "was used for another request; take a new one for each",
        ));
    }
    let response = match &answered.response {
        None => None,
        Some(_) if now.since(answered.created_at) > SECRET_REPEATED_FOR => {
            return Err(no_longer_kept(answered.resource_id));
        }
        Some(sealed) => {
            let row = once.row();
            Some(keyring.open_text(&context(once, &row), sealed)?)
        }
    };
    Ok(Replayed {
        resource_id: answered.resource_id,
        response,
    })
}

/// Remembers what a request made, in the transaction that makes it and before it does: a
/// concurrent retry waits here. `false` when such a retry was first; then nothing is to be made,
/// and [`replayed`] answers.
///
/// # Errors
/// [`Error::Internal`] when sealing fails, or the store's.
pub async fn remember(
    tx: &mut Tx,
    keyring: &Keyring,
    once: &Once<'_>,
    resource_id: &str,
    secret_response: Option<&str>,
    now: Timestamp,
) -> Result<bool, Error> {
    let row = once.row();
    let response = secret_response
        .map(|text| keyring.seal(&context(once, &row), text.as_bytes()))
        .transpose()?;
    let answered = Answered {
        tenant: once.tenant.to_owned(),
        rpc: once.rpc.to_owned(),
        request_id: once.request_id.to_owned(),
        fingerprint: once.keyed_fingerprint(keyring),
        resource_id: resource_id.to_owned(),
        response,
        created_at: now,
        expires_at: now.plus(REMEMBERED_FOR),
    };
    Ok(idempotency::insert(tx, &answered).await?)
}

/// Runs a create unless the same request ran before. `create` answers `None` when [`remember`]
/// told it that a concurrent retry was first. Without a request id it simply runs.
///
/// # Errors
/// Those of [`replayed`] and of `create`.
pub async fn answer<T>(
    store: &Store,
    keyring: &Keyring,
    once: Option<&Once<'_>>,
    now: Timestamp,
    create: impl Future<Output = Result<Option<T>, Error>>,
) -> Result<Outcome<T>, Error> {
    if let Some(replayed) = before(store, keyring, once, now).await? {
        return Ok(Outcome::Before(replayed));
    }
    if let Some(made) = create.await? {
        return Ok(Outcome::Made(made));
    }
    match before(store, keyring, once, now).await? {
        Some(replayed) => Ok(Outcome::Before(replayed)),
        None => Err(Error::internal("a create made nothing and was not a retry")),
    }
}

/// Holds no connection while the create runs.
async fn before(
    store: &Store,
    keyring: &Keyring,
    once: Option<&Once<'_>>,
    now: Timestamp,
) -> Result<Option<Replayed>, Error> {
    match once {
        Some(once) => {
            let mut conn = store.read().await?;
            replayed(&mut conn, keyring, once, now).await
        }
        None => Ok(None),
    }
}

fn context<'a>(once: &Once<'a>, row: &'a str) -> Context<'a> {
    Context {
        tenant: once.tenant,
        purpose: Purpose::IdempotentResponse,
        row,
    }
}

fn no_longer_kept(resource_id: String) -> Error {
    let kinds = [
        (IdKind::ApiKey, Resource::ApiKey),
        (IdKind::App, Resource::App),
        (IdKind::Authorization, Resource::Authorization),
        (IdKind::Client, Resource::Client),
        (IdKind::Connection, Resource::Connection),
        (IdKind::Session, Resource::Session),
        (IdKind::Job, Resource::Job),
        (IdKind::User, Resource::User),
    ];
    let resource = kinds
        .into_iter()
        .find(|(kind, _)| kind.matches(&resource_id))
        .map_or(Resource::Provider, |(_, resource)| resource);
    Error::AlreadyExists {
        resource,
        name: resource_id,
        detail: "this request made it, and its answer held a secret that is kept for ten minutes \
                 only"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::crypto::random;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn keyring() -> Keyring {
        let key = zeroize::Zeroizing::new(random::random_bytes::<32>());
        Keyring::new("one", [("one".to_owned(), key)]).unwrap()
    }

    fn answered(keyring: &Keyring, once: &Once<'_>, secret: Option<&str>) -> Answered {
        let row = once.row();
        Answered {
            tenant: once.tenant.to_owned(),
            rpc: once.rpc.to_owned(),
            request_id: once.request_id.to_owned(),
            fingerprint: once.keyed_fingerprint(keyring),
            resource_id: IdKind::Authorization.new_id(),
            response: secret
                .map(|text| keyring.seal(&context(once, &row), text.as_bytes()).unwrap()),
            created_at: NOW,
            expires_at: NOW.plus(REMEMBERED_FOR),
        }
    }

    #[test]
    fn a_call_without_an_id_is_not_remembered() {
        assert_eq!(Once::of("t", "CreateApp", "", b"message"), None);
    }

    #[test]
    fn the_same_request_gets_the_same_answer_for_ten_minutes() {
        let keyring = keyring();
        let once = Once::of("t", "StartAuthorization", "r", b"message").unwrap();
        let answered = answered(&keyring, &once, Some("the link"));
        let later = NOW.plus(SECRET_REPEATED_FOR);
        let repeated = repeat(&keyring, &once, answered.clone(), later).unwrap();
        assert_eq!(repeated.resource_id, answered.resource_id);
        assert_eq!(repeated.into_secret().unwrap().expose_secret(), "the link");
        let too_late = later.plus(Duration::from_micros(1));
        match repeat(&keyring, &once, answered.clone(), too_late) {
            Err(Error::AlreadyExists { resource, name, .. }) => {
                assert_eq!(resource, Resource::Authorization);
                assert_eq!(name, answered.resource_id);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_without_a_secret_has_no_such_end() {
        let keyring = keyring();
        let once = Once::of("t", "CreateApp", "r", b"message").unwrap();
        let answered = answered(&keyring, &once, None);
        let later = NOW.plus(REMEMBERED_FOR);
        let repeated = repeat(&keyring, &once, answered, later).unwrap();
        assert!(repeated.response.is_none());
        // What an RPC with secret answers finds when the sweeper was there.
        assert!(matches!(
            repeated.into_secret(),
            Err(Error::AlreadyExists { .. })
        ));
    }

    #[test]
    fn an_id_stands_for_one_request() {
        let keyring = keyring();
        let once = Once::of("t", "CreateApp", "r", b"message").unwrap();
        let other = Once::of("t", "CreateApp", "r", b"another").unwrap();
        let answered = answered(&keyring, &once, None);
        match repeat(&keyring, &other, answered, NOW) {
            Err(Error::InvalidArgument(faults)) => assert_eq!(faults[0].field, "request_id"),
            other => panic!("{other:?}"),
        }
    }
}
