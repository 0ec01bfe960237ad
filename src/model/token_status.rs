//! How a connection and its token stand, told from the rows: what the view `oauth_connections`
//! (migration `0005_views`) says in SQL. Change both together.

use std::time::Duration;

use super::{Connection, ConnectionState, Grant, GrantState, Timestamp};

/// A token without a refresh token is called expiring this long before its end.
const EXPIRING: Duration = Duration::from_secs(60 * 60);

/// Whether a connection can be used: its own state and its grant's in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its owner has not confirmed it yet.
    Pending,
    /// It serves tokens.
    Active,
    /// The provider no longer accepts its grant.
    ReauthorizationRequired,
    /// It was revoked.
    Revoked,
}

impl Standing {
    /// From the states of the two rows.
    pub const fn of(connection: ConnectionState, grant: GrantState) -> Self {
        match (connection, grant) {
            (ConnectionState::Revoked, _) | (_, GrantState::Revoked) => Self::Revoked,
            (ConnectionState::Pending, _) => Self::Pending,
            (_, GrantState::ReauthorizationRequired) => Self::ReauthorizationRequired,
            (ConnectionState::Active, GrantState::Active) => Self::Active,
        }
    }
}

/// How the token of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// The connection waits for its owner's confirmation.
    Pending,
    /// The access token is good.
    Valid,
    /// It ends within the hour and can't be refreshed.
    Expiring,
    /// It has ended; the next request refreshes it.
    Refreshable,
    /// It has ended and there is nothing to refresh it with.
    Expired,
    /// The owner must consent again.
    ReauthorizationRequired,
    /// The tokens were revoked.
    Revoked,
}

impl TokenStatus {
    /// How the token stands now.
    pub fn of(connection: &Connection, grant: &Grant, now: Timestamp) -> Self {
        match Standing::of(connection.state, grant.state) {
            Standing::Revoked => Self::Revoked,
            Standing::Pending => Self::Pending,
            Standing::ReauthorizationRequired => Self::ReauthorizationRequired,
            Standing::Active => {
                Self::of_deadline(grant.expires_at, grant.refresh_token.is_some(), now)
            }
        }
    }

    fn of_deadline(expires_at: Option<Timestamp>, refreshable: bool, now: Timestamp) -> Self {
        match expires_at {
            // Not known: good until somebody reports it as rejected.
            None => Self::Valid,
            Some(end) if end > now.plus(EXPIRING) => Self::Valid,
            Some(end) if refreshable && end > now => Self::Valid,
            Some(_) if refreshable => Self::Refreshable,
            Some(end) if end > now => Self::Expiring,
            Some(_) => Self::Expired,
        }
    }
}

/// The scopes asked for that were not granted, in the order in which they were asked for.
pub fn missing_scopes(requested: &[String], granted: &[String]) -> Vec<String> {
    requested
        .iter()
        .filter(|scope| !granted.contains(scope))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    #[test]
    fn the_connection_and_its_grant_stand_as_one() {
        use ConnectionState as C;
        use GrantState as G;
        for (connection, grant, expected) in [
            (C::Active, G::Active, Standing::Active),
            (
                C::Active,
                G::ReauthorizationRequired,
                Standing::ReauthorizationRequired,
            ),
            (C::Active, G::Revoked, Standing::Revoked),
            (C::Pending, G::Active, Standing::Pending),
            (C::Pending, G::ReauthorizationRequired, Standing::Pending),
            (C::Pending, G::Revoked, Standing::Revoked),
            (C::Revoked, G::Active, Standing::Revoked),
            (C::Revoked, G::ReauthorizationRequired, Standing::Revoked),
            (C::Revoked, G::Revoked, Standing::Revoked),
        ] {
            assert_eq!(
                Standing::of(connection, grant),
                expected,
                "{connection:?} {grant:?}"
            );
        }
    }

    #[test]
    fn a_deadline_is_judged_to_the_microsecond() {
        let tick = Duration::from_micros(1);
        let hour = NOW.plus(EXPIRING);
        for (end, refreshable, expected) in [
            (None, false, TokenStatus::Valid),
            (None, true, TokenStatus::Valid),
            (Some(hour.plus(tick)), false, TokenStatus::Valid),
            (Some(hour), false, TokenStatus::Expiring),
            (Some(hour), true, TokenStatus::Valid),
            (Some(NOW.plus(tick)), false, TokenStatus::Expiring),
            (Some(NOW.plus(tick)), true, TokenStatus::Valid),
            (Some(NOW), false, TokenStatus::Expired),
            (Some(NOW), true, TokenStatus::Refreshable),
        ] {
            assert_eq!(
                TokenStatus::of_deadline(end, refreshable, NOW),
                expected,
                "{end:?} {refreshable}"
            );
        }
    }

    #[test]
    fn missing_scopes_are_those_asked_for_and_not_granted() {
        let scopes = |text: &str| -> Vec<String> {
            text.split_whitespace().map(ToOwned::to_owned).collect()
        };
        assert_eq!(
            missing_scopes(&scopes("mail.read files openid"), &scopes("openid extra")),
            scopes("mail.read files")
        );
        assert!(missing_scopes(&[], &scopes("openid")).is_empty());
        assert!(missing_scopes(&scopes("openid"), &scopes("openid")).is_empty());
    }
}
