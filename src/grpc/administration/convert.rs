//! What several of these services say on the wire.

use crate::access::Credential;
use crate::grpc::convert::timestamp;
use crate::grpc::fields::Fields;
use crate::model::{ApiKey, Constraints, IdKind, RateLimit, Role, Timestamp};
use crate::pb;

/// Most entries of one list of constraints.
const CONSTRAINTS_MAX: usize = 100;
/// Longest entry, in characters.
const CONSTRAINT_MAX: usize = 255;

/// A role on the wire.
pub(super) const fn role(role: Role) -> pb::Role {
    match role {
        Role::Admin => pb::Role::Admin,
        Role::Operator => pb::Role::Operator,
        Role::Auditor => pb::Role::Auditor,
        Role::Consumer => pb::Role::Consumer,
        Role::Worker => pb::Role::Worker,
        Role::IssuerUi => pb::Role::IssuerUi,
        Role::User => pb::Role::User,
    }
}

/// A role of the wire; none where it is not set. A number that is no role is a fault.
pub(super) fn from_role(fields: &mut Fields, field: &str, number: i32) -> Option<Role> {
    match pb::Role::try_from(number) {
        Ok(pb::Role::Unspecified) => None,
        Ok(pb::Role::Admin) => Some(Role::Admin),
        Ok(pb::Role::Operator) => Some(Role::Operator),
        Ok(pb::Role::Auditor) => Some(Role::Auditor),
        Ok(pb::Role::Consumer) => Some(Role::Consumer),
        Ok(pb::Role::Worker) => Some(Role::Worker),
        Ok(pb::Role::IssuerUi) => Some(Role::IssuerUi),
        Ok(pb::Role::User) => Some(Role::User),
        Err(_) => {
            fields.check(false, field, "is no role");
            None
        }
    }
}

/// Constraints on the wire.
pub(super) fn constraints(constraints: &Constraints) -> pb::Constraints {
    pb::Constraints {
        apps: constraints.apps.clone(),
        owners: constraints.owners.clone(),
        providers: constraints.providers.clone(),
        link_only: constraints.link_only,
    }
}

/// Constraints of the wire, judged.
pub(super) fn from_constraints(
    fields: &mut Fields,
    field: &str,
    wire: Option<pb::Constraints>,
) -> Constraints {
    let pb::Constraints {
        apps,
        owners,
        providers,
        link_only,
    } = wire.unwrap_or_default();
    for (name, list) in [
        ("apps", &apps),
        ("owners", &owners),
        ("providers", &providers),
    ] {
        let most = format!("at most {CONSTRAINTS_MAX} entries are allowed");
        fields.check(
            list.len() <= CONSTRAINTS_MAX,
            format!("{field}.{name}"),
            most,
        );
    }
    for (index, app) in apps.iter().take(CONSTRAINTS_MAX).enumerate() {
        fields.id(&format!("{field}.apps[{index}]"), app, IdKind::App);
    }
    for (index, owner) in owners.iter().take(CONSTRAINTS_MAX).enumerate() {
        let path = format!("{field}.owners[{index}]");
        fields.required(&path, owner, CONSTRAINT_MAX);
        let plain = owner.strip_suffix('*').unwrap_or(owner);
        fields.check(
            !plain.contains('*'),
            path,
            "a `*` may stand at the end only",
        );
    }
    for (index, provider) in providers.iter().take(CONSTRAINTS_MAX).enumerate() {
        fields.required(&format!("{field}.providers[{index}]"), provider, 63);
    }
    Constraints {
        apps,
        owners,
        providers,
        link_only,
    }
}

/// A limit on the wire.
pub(super) fn rate_limit(limit: RateLimit) -> pb::RateLimit {
    pb::RateLimit {
        requests_per_second: i32::try_from(limit.requests_per_second).unwrap_or(i32::MAX),
        burst: i32::try_from(limit.burst).unwrap_or(i32::MAX),
    }
}

/// Highest rate and burst of a key's own limit.
const RATE_MAX: i32 = 1_000_000;

/// A limit of the wire, judged; twice the rate is the burst where none is set.
pub(super) fn from_rate_limit(
    fields: &mut Fields,
    field: &str,
    wire: Option<pb::RateLimit>,
) -> Option<RateLimit> {
    let pb::RateLimit {
        requests_per_second,
        burst,
    } = wire?;
    fields.check(
        (1..=RATE_MAX).contains(&requests_per_second),
        format!("{field}.requests_per_second"),
        format!("1 to {RATE_MAX} is needed"),
    );
    fields.check(
        (0..=RATE_MAX).contains(&burst),
        format!("{field}.burst"),
        format!("1 to {RATE_MAX} is needed, or 0 for twice the rate"),
    );
    let rate = u32::try_from(requests_per_second).unwrap_or(1);
    let burst = u32::try_from(burst).ok().filter(|burst| *burst > 0);
    Some(RateLimit {
        requests_per_second: rate,
        burst: burst.unwrap_or_else(|| rate.saturating_mul(2)),
    })
}

/// How a caller proved who they are, on the wire.
pub(super) const fn credential_kind(credential: &Credential) -> pb::CredentialKind {
    match credential {
        Credential::ApiKey { .. } => pb::CredentialKind::ApiKey,
        Credential::Session { .. } => pb::CredentialKind::Session,
        Credential::Certificate { .. } => pb::CredentialKind::Certificate,
        Credential::Jwt { .. } => pb::CredentialKind::Jwt,
        // It does not call over the network.
        Credential::CommandLine => pb::CredentialKind::Unspecified,
    }
}

/// An API key on the wire, as it is at `now`.
pub(super) fn api_key(key: &ApiKey, now: Timestamp) -> pb::ApiKey {
    let state = if key.revoked_at.is_some() {
        pb::ApiKeyState::Revoked
    } else if key.expires_at.is_some_and(|end| end <= now) {
        pb::ApiKeyState::Expired
    } else {
        pb::ApiKeyState::Active
    };
    pb::ApiKey {
        id: key.id.clone(),
        name: key.name.clone(),
        prefix: key.prefix.clone(),
        role: role(key.role).into(),
        constraints: Some(constraints(&key.constraints)),
        rate_limit: key.rate_limit.map(rate_limit),
        state: state.into(),
        created_by: key.created_by.clone(),
        create_time: Some(timestamp(key.created_at)),
        expire_time: key.expires_at.map(timestamp),
        revoke_time: key.revoked_at.map(timestamp),
        last_use_time: key.last_used_at.map(timestamp),
        replaced_by: key.replaced_by.clone().unwrap_or_default(),
    }
}
