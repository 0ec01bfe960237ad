//! The wire's words for the model's, and back.

use secrecy::{ExposeSecret as _, SecretString};

use crate::error::Error;
use crate::model::{ConnectionKind, RefreshPolicy, Timestamp};
use crate::pb;

pub use crate::pb::json::{duration, from_structure, structure};

/// A time of the model on the wire.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.micros().div_euclid(1_000_000),
        nanos: i32::try_from(time.micros().rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

/// A time of the wire; what is finer than a microsecond is cut off. `None` for one that is out of
/// RFC 3339's range.
pub fn from_timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;
    let nanos = (0..1_000_000_000)
        .contains(&time.nanos)
        .then_some(time.nanos)?;
    (FIRST..=LAST)
        .contains(&time.seconds)
        .then(|| Timestamp::from_micros(time.seconds * 1_000_000 + i64::from(nanos / 1_000)))
}

/// A secret that an answer shows; empty where there is none.
pub fn shown<'a>(secret: impl Into<Option<&'a SecretString>>) -> String {
    let secret = secret.into();
    secret.map_or_else(String::new, |secret| secret.expose_secret().to_owned())
}

/// A kind on the wire.
pub const fn kind(kind: ConnectionKind) -> pb::ConnectionKind {
    match kind {
        ConnectionKind::Oauth2 => pb::ConnectionKind::Oauth2,
        ConnectionKind::Oauth1 => pb::ConnectionKind::Oauth1,
        ConnectionKind::ApiKey => pb::ConnectionKind::ApiKey,
    }
}

/// A refresh policy on the wire.
pub const fn policy(policy: RefreshPolicy) -> pb::RefreshPolicy {
    match policy {
        RefreshPolicy::Always => pb::RefreshPolicy::Always,
        RefreshPolicy::WhenUsed => pb::RefreshPolicy::WhenUsed,
        RefreshPolicy::OnDemand => pb::RefreshPolicy::OnDemand,
    }
}

/// A refresh policy of the wire.
///
/// # Errors
/// [`Error::InvalidArgument`] for a number that is none.
pub fn from_policy(field: &str, number: i32) -> Result<RefreshPolicy, Error> {
    match pb::RefreshPolicy::try_from(number) {
        Ok(pb::RefreshPolicy::Unspecified | pb::RefreshPolicy::Always) => Ok(RefreshPolicy::Always),
        Ok(pb::RefreshPolicy::WhenUsed) => Ok(RefreshPolicy::WhenUsed),
        Ok(pb::RefreshPolicy::OnDemand) => Ok(RefreshPolicy::OnDemand),
        Err(_) => Err(Error::invalid(field, "is no refresh policy")),
    }
}

/// A version as an etag.
pub fn etag(version: i64) -> String {
    format!("v{version}")
}

/// Refuses an etag that is not the version's; an empty one is not checked.
///
/// # Errors
/// [`Error::InvalidArgument`] when it is no etag at all.
pub fn from_etag(etag: &str) -> Result<Option<i64>, Error> {
    if etag.is_empty() {
        return Ok(None);
    }
    etag.strip_prefix('v')
        .and_then(|version| version.parse().ok())
        .map(Some)
        .ok_or_else(|| Error::invalid("etag", "is not an etag that this service gave"))
}
