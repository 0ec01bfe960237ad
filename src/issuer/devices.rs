//! Devices without a browser (RFC 8628): they show a short code, which a person types elsewhere.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::requests::{Begun, require_active};
use super::{Credentials, Issuer, scopes};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::crypto::{digest, random};
use crate::error::{Error, Resource};
use crate::model::{
    AuthorizationRequest, ClientGrantType, DeviceAuthorization, DeviceState, IdKind, OauthClient,
    OauthErrorCode, RequestState,
};
use crate::store::{self, transact};

/// Letters of a code for people: no vowels, which make words, and none that looks like a digit
/// (RFC 8628 section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Letters of a code: 20^8 is 2^34, of which the brake lets nobody try enough.
const LETTERS_OF_CODE: usize = 8;

/// Longest text that is looked at as a code.
const TYPED_MAX: usize = 64;

/// How often a code is drawn anew because a device has it already.
const DRAWS: usize = 5;

/// What a device asks for.
#[derive(Clone, Debug, Default)]
pub struct NewDevice {
    /// Of the client's scopes; all of them when empty.
    pub scopes: Vec<String>,
    /// For which resources (RFC 8707).
    pub resources: Vec<String>,
}

/// A device's authorisation that was begun, with its codes: here and nowhere else.
#[derive(Clone)]
pub struct DeviceStarted {
    /// What the device asks with.
    pub device_code: SecretString,
    /// What the person types, such as `BCDF-GHJK`.
    pub user_code: SecretString,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it. Not to be logged.
    pub verification_uri_complete: String,
    /// How long both codes live.
    pub expires_in: Duration,
    /// How long the device waits between two questions.
    pub interval: Duration,
}

/// Shows no code.
impl fmt::Debug for DeviceStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceStarted")
            .field("verification_uri", &self.verification_uri)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// Begins the authorisation of a device.
    ///
    /// # Errors
    /// [`Error::Oauth`] with what the client did wrong; [`Error::ResourceExhausted`] when public clients
    /// began too much from that address; or the store's.
    pub async fn start_device(
        &self,
        credentials: &Credentials,
        new: NewDevice,
        origin: &Origin,
    ) -> Result<DeviceStarted, Error> {
        let client = self.authenticate(credentials, origin).await?;
        require_active(&client).map_err(Error::Oauth)?;
        self.slow_down_public(&client, origin)?;
        let grants = &client.settings.grant_types;
        if !grants.contains(&ClientGrantType::DeviceCode) {
            return Err(Error::oauth(
                OauthErrorCode::UnauthorizedClient,
                "the client is not registered for device codes",
            ));
        }
        let config = &self.parts.config;
        let asked = new.resources.iter().map(String::as_str);
        let resources = scopes::resources(&config.resources, asked).map_err(Error::Oauth)?;
        let scopes = scopes::asked(&client, &new.scopes).map_err(Error::Oauth)?;

        let device_code = BearerSecret::generate(Prefix::DeviceCode);
        let mut device = self.new_device(&client, &device_code, origin);
        device.scopes = scopes;
        device.resources = resources;
        let who = Who::client(&client.id, &client.tenant, origin);
        let entry = Entry::new(Action::DeviceStarted, who)
            .on("device", &device.id)
            .detail("client_id", &client.id)
            .detail("scopes", device.scopes.join(" "));
        let user_code = transact!(self.parts.store, |tx| {
            let mut device = device.clone();
            for _ in 0..DRAWS {
                let code = new_user_code();
                device.user_code_hash = hash_of(&code);
                let hash = &device.user_code_hash;
                if store::issuer::devices::any_tenant_find_by_user_code(&mut tx, hash)
                    .await?
                    .is_some()
                {
                    continue;
                }
                store::issuer::devices::insert(&mut tx, &device).await?;
                audit::record(&mut tx, &entry, device.created_at).await?;
                return Ok(code);
            }
            Err(Error::internal("no code for a device is free"))
        })?;
        let user_code = for_people(&user_code);
        let page = self.page("device")?;
        let mut complete = page.clone();
        complete
            .query_pairs_mut()
            .append_pair("user_code", &user_code);
        Ok(DeviceStarted {
            device_code: device_code.text().clone(),
            user_code: SecretString::from(user_code.as_str()),
            verification_uri: page.into(),
            verification_uri_complete: complete.into(),
            expires_in: config.device_code_lifetime,
            interval: config.device_interval,
        })
    }

    fn new_device(
        &self,
        client: &OauthClient,
        code: &BearerSecret,
        origin: &Origin,
    ) -> DeviceAuthorization {
        let now = self.parts.clock.now();
        let config = &self.parts.config;
        DeviceAuthorization {
            id: IdKind::Device.new_id(),
            tenant: client.tenant.clone(),
            client_id: client.id.clone(),
            device_code_hash: code.hash().to_vec(),
            user_code_hash: Vec::new(),
            scopes: Vec::new(),
            resources: Vec::new(),
            state: DeviceState::Pending,
            grant_id: None,
            interval_seconds: i64::try_from(config.device_interval.as_secs())
                .unwrap_or(i64::MAX)
                .max(1),
            polled_at: None,
            ip: origin.ip_text(),
            user_agent: Origin::clean_user_agent(&origin.user_agent),
            created_at: now,
            expires_at: now.plus(config.device_code_lifetime),
        }
    }

    /// Takes the code that a person typed, and begins a request for them to decide on.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a code that no device waits with; [`Error::ResourceExhausted`] when too
    /// many were typed from that address; `unauthorized_client` when the client was shut out; or the
    /// store's.
    pub async fn enter_user_code(&self, text: &str, origin: &Origin) -> Result<Begun, Error> {
        self.typed.charge(origin.ip)?;
        let code = normalised(text).ok_or_else(unknown)?;
        let mut conn = self.parts.store.read().await?;
        let hash = hash_of(&code);
        let now = self.parts.clock.now();
        let device = store::issuer::devices::any_tenant_find_by_user_code(&mut conn, &hash)
            .await?
            .filter(|device| device.state == DeviceState::Pending && device.expires_at > now)
            .ok_or_else(unknown)?;
        let client = store::clients::find(&mut conn, &device.tenant, &device.client_id)
            .await?
            .ok_or_else(unknown)?;
        drop(conn);
        require_active(&client).map_err(Error::Oauth)?;
        let lifetime = self.parts.config.request_lifetime;
        let lifetime = lifetime.min(device.expires_at.since(now));
        let mut request = AuthorizationRequest {
            device_id: Some(device.id),
            scopes: device.scopes,
            resources: device.resources,
            ..self.new_request(&client, RequestState::Pending, lifetime, origin)
        };
        let begun = self.tie(&mut request)?;
        transact!(self.parts.store, |tx| {
            Ok(store::issuer::requests::insert(&mut tx, &request).await?)
        })?;
        Ok(begun)
    }
}

fn unknown() -> Error {
    Error::NotFound(Resource::AuthorizationRequest, String::new())
}

/// Eight letters.
fn new_user_code() -> Zeroizing<String> {
    let mut code = Zeroizing::new(String::with_capacity(LETTERS_OF_CODE));
    while code.len() < LETTERS_OF_CODE {
        let draw = Zeroizing::new(random::random_bytes::<16>());
        // A byte has twelve times 20 values and 16 to spare, which would favour the first letters.
        let fair = draw.iter().filter(|byte| **byte < 240);
        let letters = fair.filter_map(|byte| LETTERS.get(usize::from(byte % 20)));
        let room = LETTERS_OF_CODE - code.len();
        code.extend(letters.take(room).map(|letter| char::from(*letter)));
    }
    code
}

/// With a dash in the middle.
fn for_people(code: &str) -> Zeroizing<String> {
    let (left, right) = code
        .split_at_checked(LETTERS_OF_CODE / 2)
        .unwrap_or((code, ""));
    Zeroizing::new(format!("{left}-{right}"))
}

/// A code as it was made, however it was typed: with or without dash and blanks, in any case. `None` for
/// what can be none.
fn normalised(text: &str) -> Option<Zeroizing<String>> {
    if text.len() > TYPED_MAX {
        return None;
    }
    let letters = text.chars().filter(char::is_ascii_alphanumeric);
    let code: Zeroizing<String> = Zeroizing::new(letters.map(|c| c.to_ascii_uppercase()).collect());
    let fine = code.len() == LETTERS_OF_CODE && code.bytes().all(|byte| LETTERS.contains(&byte));
    fine.then_some(code)
}

fn hash_of(code: &str) -> Vec<u8> {
    digest::sha256(code.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = new_user_code();
        let shown = for_people(&code);
        assert_eq!(shown.len(), 9);
        for typed in [
            shown.to_string(),
            code.to_lowercase(),
            format!(" {} ", shown.replace('-', " – ")),
        ] {
            assert_eq!(normalised(&typed).unwrap(), code, "{typed}");
        }
        for bad in [
            "",
            "BCDF-GHJ",
            "BCDF-GHJKL",
            "ABCD-EFGH",
            "BCDF-GHJ1",
            "ВСDF-GHJK",
        ] {
            assert!(normalised(bad).is_none(), "{bad}");
        }
        assert!(normalised(&format!("BCDF{}GHJK", "-".repeat(TYPED_MAX))).is_none());
    }

    #[test]
    fn codes_have_every_letter_at_every_place() {
        let codes: Vec<_> = (0..2_000).map(|_| new_user_code()).collect();
        for place in 0..LETTERS_OF_CODE {
            for letter in LETTERS {
                assert!(codes.iter().any(|code| code.as_bytes()[place] == *letter));
            }
        }
    }
}
