//! Who a client is: by its secret, by a JWT that it signed, or, of a public client, by its word alone.
//!
//! Whatever is wrong, the answer is the same, but for a client that proved who it is and may not be
//! used. Failures are counted by client and address together, and by address: a stranger can keep
//! nobody out but those who share their address.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::{Issuer, Parts};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::limits::{Addresses, Failures, network};
use crate::crypto::{digest, jwt};
use crate::error::Error;
use crate::model::{
    ClientAuthMethod, ClientSecret, ClientState, OauthClient, OauthErrorCode, Timestamp,
};
use crate::store::{clients, transact};

/// Failures of one client from one address in a minute, before it has to wait.
const CLIENT_FAILURES: u32 = 30;

/// Failures from one address in a minute: a platform has many clients behind one.
const ADDRESS_FAILURES: u32 = 600;

/// How often failures of one client from one address are recorded at most.
const RECORDED_EVERY: Duration = Duration::from_secs(60);

/// Clients and addresses whose last record is remembered.
const RECORDED_MAX: u64 = 10_000;

/// Longest `client_id` that is looked up, in bytes; ours are shorter.
const CLIENT_ID_MAX: usize = 64;

/// How a secret was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretMethod {
    /// In HTTP Basic authentication.
    Basic,
    /// In the body.
    Post,
    /// In a way that has no such difference.
    Either,
}

impl SecretMethod {
    const fn suits(self, registered: ClientAuthMethod) -> bool {
        match registered {
            ClientAuthMethod::SecretBasic => matches!(self, Self::Basic | Self::Either),
            ClientAuthMethod::SecretPost => matches!(self, Self::Post | Self::Either),
            ClientAuthMethod::None | ClientAuthMethod::PrivateKeyJwt => false,
        }
    }
}

/// What a client says of itself, and how it proves that.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Its id. An assertion may say it alone.
    pub client_id: Option<String>,
    /// Its secret.
    pub secret: Option<(SecretMethod, SecretString)>,
    /// A JWT that it signed (RFC 7523).
    pub assertion: Option<SecretString>,
    /// The tenant of the caller that passes this on: to it, clients of others are not known. `None` where
    /// the client itself asks, by nothing but its id.
    pub within: Option<String>,
}

impl Credentials {
    /// Those of a public client.
    pub fn none(client_id: impl Into<String>) -> Self {
        Self {
            client_id: Some(client_id.into()),
            ..Self::default()
        }
    }
}

/// Whether a client proved who it is, or why not, for the audit trail.
pub(super) type Verdict = Result<(), &'static str>;

/// SHA-256 of a tenant, a client's id and an address.
type Place = [u8; 32];

/// Attempts that failed, in bounded memory.
pub(super) struct Attempts {
    addresses: Addresses,
    places: Failures<Place>,
    /// When a failure was last recorded.
    recorded: moka::sync::Cache<Place, Timestamp>,
}

impl Attempts {
    /// None yet.
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            addresses: Addresses::new(ADDRESS_FAILURES, parts.clock.clone()),
            places: Failures::new(CLIENT_FAILURES, parts.clock.clone()),
            recorded: moka::sync::Cache::new(RECORDED_MAX),
        }
    }

    fn admit(&self, place: &Place, address: Option<IpAddr>) -> Result<(), Error> {
        self.addresses.admit(address)?;
        match self.places.wait(place) {
            None => Ok(()),
            Some(retry_after) => Err(Error::RateLimited {
                limit: "failed_authentications_per_client",
                message: "the client failed too often to prove who it is from this address"
                    .to_owned(),
                retry_after,
            }),
        }
    }

    fn failed(&self, place: Place, address: Option<IpAddr>) {
        self.addresses.refused(address);
        self.places.count(place);
    }

    /// Whether a failure is to be recorded: not each of a thousand a minute.
    fn is_recorded(&self, place: &Place, now: Timestamp) -> bool {
        let before = self.recorded.get(place);
        let due = before.is_none_or(|before| now.since(before) >= RECORDED_EVERY);
        if due {
            self.recorded.insert(*place, now);
        }
        due
    }
}

impl Issuer {
    /// The client that these credentials are of, which may be used.
    ///
    /// # Errors
    /// `invalid_client` for a client that is not known, did not prove who it is in the way that it is
    /// registered for, or may not be used; `invalid_request` for two proofs at once;
    /// [`Error::RateLimited`] after too many failures of this client from this address, or from this
    /// address; [`Error::Unavailable`] where the client's keys can't be had; or the store's.
    pub async fn authenticate(
        &self,
        credentials: &Credentials,
        origin: &Origin,
    ) -> Result<OauthClient, Error> {
        if credentials.secret.is_some() && credentials.assertion.is_some() {
            // RFC 6749 section 2.3.
            let why = "the client proves who it is in more than one way";
            return Err(Error::oauth(OauthErrorCode::InvalidRequest, why));
        }
        let id = client_id(credentials).unwrap_or_default();
        let within = credentials.within.as_deref();
        let place = place(within, &id, origin.ip);
        self.attempts.admit(&place, origin.ip)?;
        let (client, secrets) = self.known(within, &id).await?;
        let verdict = self.judge(client.as_ref(), &secrets, credentials).await?;
        match (client, verdict) {
            (Some(client), Ok(())) => {
                require_active(&client)?;
                Ok(client)
            }
            (client, verdict) => {
                self.attempts.failed(place, origin.ip);
                let reason = verdict.err().unwrap_or("UNKNOWN_CLIENT");
                tracing::debug!(client_id = id, reason, "a client did not prove who it is");
                if let Some(client) = client
                    && self.attempts.is_recorded(&place, self.parts.clock.now())
                {
                    self.record_failed(&client, reason, origin).await?;
                }
                Err(not_proved())
            }
        }
    }

    /// The client of this id, with its secrets. Of an unknown client they are asked for too, so that
    /// the time does not tell which ids there are.
    async fn known(
        &self,
        within: Option<&str>,
        id: &str,
    ) -> Result<(Option<OauthClient>, Vec<ClientSecret>), Error> {
        if !is_id(id) {
            return Ok((None, Vec::new()));
        }
        let mut conn = self.parts.store.read().await?;
        let client = clients::any_tenant_find(&mut conn, id)
            .await?
            .filter(|client| within.is_none_or(|tenant| tenant == client.tenant));
        let has_secret = |client: &OauthClient| client.settings.auth_method.has_secret();
        if !client.as_ref().is_none_or(has_secret) {
            return Ok((client, Vec::new()));
        }
        let tenant = client.as_ref().map_or("", |client| client.tenant.as_str());
        let secrets = clients::secrets(&mut conn, tenant, &[id.to_owned()]).await?;
        Ok((client, secrets))
    }

    /// What a public client leaves here is counted by address: anybody may be one.
    pub(super) fn slow_down_public(
        &self,
        client: &OauthClient,
        origin: &Origin,
    ) -> Result<(), Error> {
        match client.settings.auth_method {
            ClientAuthMethod::None => self.public.charge(origin.ip),
            _ => Ok(()),
        }
    }

    async fn judge(
        &self,
        client: Option<&OauthClient>,
        secrets: &[ClientSecret],
        credentials: &Credentials,
    ) -> Result<Verdict, Error> {
        let sent = credentials.secret.as_ref();
        let right =
            sent.is_some_and(|(_, secret)| is_one_of(secrets, secret, self.parts.clock.now()));
        let Some(client) = client else {
            return Ok(Err("UNKNOWN_CLIENT"));
        };
        let registered = client.settings.auth_method;
        let by_secret = sent.is_some_and(|(method, _)| method.suits(registered));
        match (registered, sent, &credentials.assertion) {
            (ClientAuthMethod::None, None, None) => Ok(Ok(())),
            (ClientAuthMethod::PrivateKeyJwt, None, Some(assertion)) => {
                self.judge_assertion(client, assertion).await
            }
            (_, None, None) => Ok(Err("NO_PROOF")),
            (_, Some(_), None) if by_secret && right => Ok(Ok(())),
            (_, Some(_), None) if by_secret => Ok(Err("WRONG_SECRET")),
            _ => Ok(Err("OTHER_METHOD")),
        }
    }

    async fn record_failed(
        &self,
        client: &OauthClient,
        reason: &str,
        origin: &Origin,
    ) -> Result<(), Error> {
        let who = Who::anonymous(&client.tenant, origin);
        let entry = Entry::new(Action::ClientAuthenticationFailed, who)
            .on("client", &client.id)
            .failed(reason);
        let now = self.parts.clock.now();
        transact!(self.parts.store, |tx| {
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })
    }
}

/// Whom the credentials are about; `None` where they don't say, or say two things.
fn client_id(credentials: &Credentials) -> Option<String> {
    let said = credentials.client_id.clone();
    let Some(assertion) = &credentials.assertion else {
        return said;
    };
    // RFC 7521 section 4.2: it may stand alone, and must agree.
    let issuer = jwt::read(assertion.expose_secret()).ok()?.issuer;
    said.is_none_or(|said| said == issuer).then_some(issuer)
}

/// Whether this may be an id of ours: what is not is not looked for.
fn is_id(text: &str) -> bool {
    (1..=CLIENT_ID_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Of a /64 of IPv6 all addresses count as one. A gateway says which address it is: another tenant's is not
/// to lock a client out from where it is, so what comes through a tenant's gateways is counted by itself.
fn place(within: Option<&str>, id: &str, address: Option<IpAddr>) -> Place {
    let address = address.map_or_else(String::new, |ip| network(ip).to_string());
    let within = within.unwrap_or_default();
    digest::sha256(format!("{address} {within} {id}").as_bytes())
}

/// Whether this is one of the secrets, the current one or one before it, whose time is not over. All are
/// compared, whatever comes of it.
fn is_one_of(secrets: &[ClientSecret], sent: &SecretString, now: Timestamp) -> bool {
    let hash = digest::sha256(sent.expose_secret().as_bytes());
    secrets.iter().fold(false, |right, secret| {
        right | (digest::constant_time_eq(&secret.hash, &hash) & (secret.expires_at > now))
    })
}

/// The one answer to a client that did not prove who it is.
fn not_proved() -> Error {
    Error::oauth(
        OauthErrorCode::InvalidClient,
        "the client is not known, or did not prove who it is in the way that it is registered for",
    )
}

/// Says what keeps a client out, now that it is known to be the client.
fn require_active(client: &OauthClient) -> Result<(), Error> {
    let state = match client.state {
        ClientState::Active => return Ok(()),
        ClientState::Pending => "not approved yet",
        ClientState::Suspended => "suspended",
        ClientState::Revoked => "revoked",
    };
    let description = format!("the client is {state}");
    Err(Error::oauth(OauthErrorCode::InvalidClient, description))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    fn secret(text: &str, ends: u64, superseded: Option<u64>) -> ClientSecret {
        ClientSecret {
            hash: digest::sha256(text.as_bytes()).to_vec(),
            tenant: "default".to_owned(),
            client_id: "client_1".to_owned(),
            prefix: String::new(),
            created_at: at(0),
            expires_at: at(ends),
            superseded_at: superseded.map(at),
        }
    }

    #[test]
    fn a_secret_is_good_until_its_end_also_beside_its_successor() {
        let secrets = [secret("new", 100, None), secret("old", 50, Some(10))];
        let good = |text: &str, now| is_one_of(&secrets, &SecretString::from(text), at(now));
        assert!(good("new", 20) && good("old", 20));
        assert!(good("new", 50) && !good("old", 50));
        assert!(!good("new", 100));
        for other in ["", "ne", "new ", "NEW"] {
            assert!(!good(other, 20), "{other}");
        }
        assert!(!is_one_of(&[], &SecretString::from("new"), at(20)));
    }

    #[test]
    fn a_secret_is_sent_as_it_was_registered() {
        use ClientAuthMethod::{None, PrivateKeyJwt, SecretBasic, SecretPost};
        assert!(SecretMethod::Basic.suits(SecretBasic));
        assert!(SecretMethod::Post.suits(SecretPost));
        assert!(!SecretMethod::Post.suits(SecretBasic));
        assert!(!SecretMethod::Basic.suits(SecretPost));
        for method in [SecretBasic, SecretPost] {
            assert!(SecretMethod::Either.suits(method));
        }
        for method in [None, PrivateKeyJwt] {
            assert!(!SecretMethod::Either.suits(method));
        }
    }

    #[test]
    fn an_assertion_names_its_client_and_no_other() {
        let (key, _) = jwt::SigningKey::generate().unwrap();
        let claims = serde_json::json!({ "iss": "client_1" });
        let assertion = SecretString::from(key.sign("JWT", &claims).unwrap());
        let of = |client_id: Option<&str>, assertion: &SecretString| {
            client_id_of(client_id, Some(assertion.clone()))
        };
        assert_eq!(of(None, &assertion).as_deref(), Some("client_1"));
        assert_eq!(
            of(Some("client_1"), &assertion).as_deref(),
            Some("client_1")
        );
        assert_eq!(of(Some("client_2"), &assertion), None);
        assert_eq!(of(Some("client_1"), &SecretString::from("x")), None);
        assert_eq!(
            client_id_of(Some("client_2"), None).as_deref(),
            Some("client_2")
        );
    }

    fn client_id_of(said: Option<&str>, assertion: Option<SecretString>) -> Option<String> {
        super::client_id(&Credentials {
            client_id: said.map(str::to_owned),
            assertion,
            ..Credentials::default()
        })
    }

    #[test]
    fn failures_elsewhere_keep_nobody_out() {
        let clock = Clock::manual(at(1_000));
        let attempts = Attempts {
            addresses: Addresses::new(ADDRESS_FAILURES, clock.clone()),
            places: Failures::new(CLIENT_FAILURES, clock.clone()),
            recorded: moka::sync::Cache::new(RECORDED_MAX),
        };
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let (stranger, own) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..CLIENT_FAILURES {
            attempts
                .admit(&place(None, "client_1", stranger), stranger)
                .unwrap();
            attempts.failed(place(None, "client_1", stranger), stranger);
        }
        attempts
            .admit(&place(None, "client_1", stranger), stranger)
            .unwrap_err();
        attempts
            .admit(&place(None, "client_2", stranger), stranger)
            .unwrap();
        attempts.admit(&place(None, "client_1", own), own).unwrap();
        let elsewhere = place(Some("elsewhere"), "client_1", stranger);
        attempts.admit(&elsewhere, stranger).unwrap();
        clock.advance(Duration::from_secs(2));
        attempts
            .admit(&place(None, "client_1", stranger), stranger)
            .unwrap();
    }

    #[test]
    fn failures_are_recorded_once_a_minute() {
        let attempts = Attempts {
            addresses: Addresses::new(0, Clock::manual(at(0))),
            places: Failures::new(0, Clock::manual(at(0))),
            recorded: moka::sync::Cache::new(RECORDED_MAX),
        };
        let here = place(None, "client_1", None);
        assert!(attempts.is_recorded(&here, at(0)));
        assert!(!attempts.is_recorded(&here, at(59)));
        assert!(attempts.is_recorded(&here, at(60)));
    }

    #[test]
    fn what_is_no_id_is_not_looked_for() {
        assert!(is_id("client_01h455vb4pex5vsknk084sn02q"));
        for text in ["", "client\0", "client-1", "é", &"x".repeat(65)] {
            assert!(!is_id(text), "{text}");
        }
    }
}
