//! Devices (RFC 8628): they ask again and again, and get their tokens once.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::{Redeemed, bound_to, invalid_grant};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::error::Error;
use crate::issuer::Issuer;
use crate::issuer::exchange::{Asked, Tokens};
use crate::issuer::issue::{Consent, Minted};
use crate::model::{ClientGrantType, DeviceAuthorization, DeviceState, OauthErrorCode, Timestamp};
use crate::store::{self, Tx, transact};

/// Why a grant ended whose device code was used twice.
const DEVICE_CODE_REPLAYED: &str = "device_code_replayed";

/// How much longer a device that asks too often has to wait (RFC 8628 section 3.5).
const SLOWER_BY: i64 = 5;

/// The longest that it ever has to.
const SLOWEST: i64 = 300;

impl Issuer {
    /// Gives a device its tokens, once its person has agreed (RFC 8628 section 3.4).
    pub(in crate::issuer) async fn redeem_device(
        &self,
        asked: &Asked<'_>,
        code: &SecretString,
    ) -> Result<Tokens, Error> {
        let secret = BearerSecret::parse(Prefix::DeviceCode, code.expose_secret())
            .map_err(|_| no_device())?;
        let hash = secret.hash();
        let found = {
            let mut conn = self.parts.store.read().await?;
            store::issuer::devices::any_tenant_find_by_device_code(&mut conn, &hash).await?
        };
        let device = found
            .filter(|device| device.client_id == asked.client.id)
            .ok_or_else(no_device)?;
        let over = device.expires_at <= self.parts.clock.now();
        match (device.state, &device.grant_id) {
            (DeviceState::Finished, Some(grant_id)) => {
                self.replayed(asked, grant_id, DEVICE_CODE_REPLAYED, no_device())
                    .await
            }
            (DeviceState::Pending | DeviceState::Rejected | DeviceState::Accepted, _) if over => {
                Err(Error::oauth(
                    OauthErrorCode::ExpiredToken,
                    "the device code has expired; begin again",
                ))
            }
            (DeviceState::Pending, _) => self.wait(&device.id).await,
            (DeviceState::Rejected, _) => Err(Error::oauth(
                OauthErrorCode::AccessDenied,
                "the person refused",
            )),
            (DeviceState::Accepted, Some(grant_id)) => self.let_in(asked, &device, grant_id).await,
            (DeviceState::Accepted | DeviceState::Finished, None) => Err(no_device()),
        }
    }

    async fn let_in(
        &self,
        asked: &Asked<'_>,
        device: &DeviceAuthorization,
        grant_id: &str,
    ) -> Result<Tokens, Error> {
        let (grant, user) = {
            let mut conn = self.parts.store.read().await?;
            self.consent(&mut conn, &device.tenant, grant_id).await?
        };
        self.hourly.charge(asked.client)?;
        let consent = Consent {
            grant: &grant,
            user: &user,
            nonce: "",
            refresh_jkt: bound_to(asked),
        };
        let now = self.parts.clock.now();
        let minted = self.mint(&self.wanted(asked, consent, now)?)?;
        let redeemed = transact!(self.parts.store, |tx| {
            self.finish_device(&mut tx, asked, device, grant_id, &minted)
                .await
        })?;
        self.outcome(redeemed, minted, no_device())
    }

    async fn finish_device(
        &self,
        tx: &mut Tx,
        asked: &Asked<'_>,
        device: &DeviceAuthorization,
        grant_id: &str,
        minted: &Minted,
    ) -> Result<Redeemed, Error> {
        let locked = store::issuer::grants::lock(tx, &device.tenant, grant_id).await?;
        let grant = locked.ok_or_else(no_device)?;
        let finished = DeviceAuthorization {
            state: DeviceState::Finished,
            ..device.clone()
        };
        if !store::issuer::devices::update(tx, &finished, DeviceState::Accepted).await? {
            self.revoke_family(tx, asked.who(), &grant, DEVICE_CODE_REPLAYED)
                .await?;
            return Ok(Redeemed::Replayed);
        }
        let kind = ClientGrantType::DeviceCode;
        self.keep_first(tx, asked, minted, &grant, kind).await?;
        Ok(Redeemed::Made)
    }

    /// The device's person has not decided.
    async fn wait(&self, id: &str) -> Result<Tokens, Error> {
        let code = transact!(self.parts.store, |tx| {
            let now = self.parts.clock.now();
            let device = store::issuer::devices::any_tenant_lock(&mut tx, id).await?;
            let (code, interval) = polled(&device.ok_or_else(no_device)?, now);
            store::issuer::devices::poll(&mut tx, id, now, interval).await?;
            Ok(code)
        })?;
        let description = if code == OauthErrorCode::SlowDown {
            "the device asks too often; it has to wait five seconds longer from now on"
        } else {
            "the person has not decided yet"
        };
        Err(Error::oauth(code, description))
    }
}

/// What a device that asks now is answered, and how long it has to wait from now on.
fn polled(device: &DeviceAuthorization, now: Timestamp) -> (OauthErrorCode, i64) {
    let interval = device.interval_seconds;
    let wait = Duration::from_secs(u64::try_from(interval).unwrap_or_default());
    if device.polled_at.is_some_and(|at| at.plus(wait) > now) {
        let slower = interval.saturating_add(SLOWER_BY).min(SLOWEST);
        (OauthErrorCode::SlowDown, slower.max(interval))
    } else {
        (OauthErrorCode::AuthorizationPending, interval)
    }
}

/// The one answer to a code that is nobody's, another client's or used.
fn no_device() -> Error {
    invalid_grant("the device code is not valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_asks_too_often_waits_longer() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let mut device = DeviceAuthorization {
            id: "dev_1".to_owned(),
            tenant: "default".to_owned(),
            client_id: "client_1".to_owned(),
            device_code_hash: Vec::new(),
            user_code_hash: Vec::new(),
            scopes: Vec::new(),
            resources: Vec::new(),
            state: DeviceState::Pending,
            grant_id: None,
            interval_seconds: 5,
            polled_at: None,
            ip: String::new(),
            user_agent: String::new(),
            created_at: at(0),
            expires_at: at(600),
        };
        let pending = OauthErrorCode::AuthorizationPending;
        assert_eq!(polled(&device, at(0)), (pending, 5));
        device.polled_at = Some(at(10));
        assert_eq!(polled(&device, at(15)), (pending, 5));
        assert_eq!(polled(&device, at(14)), (OauthErrorCode::SlowDown, 10));
        device.interval_seconds = SLOWEST;
        let slow = (OauthErrorCode::SlowDown, SLOWEST);
        assert_eq!(polled(&device, at(14)), slow);
    }
}
