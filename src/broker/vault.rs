//! Grants made from tokens, and tokens got back from grants: seals, deadlines, and when to look at
//! a grant next.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::token_set::TokenSet;
use crate::config;
use crate::crypto::{self, Context, Keyring, Purpose};
use crate::error::Error;
use crate::model::provider::Rotation;
use crate::model::{
    App, ConnectionKind, Grant, GrantState, IdKind, Provider, RefreshPolicy, Sealed, Timestamp,
};

/// Seals and opens tokens, and knows the schedule.
#[derive(Clone)]
pub struct Vault {
    keyring: Keyring,
    refresh: config::Refresh,
}

impl Vault {
    /// With the keys and the `[refresh]` section.
    pub fn new(keyring: Keyring, refresh: config::Refresh) -> Self {
        Self { keyring, refresh }
    }

    /// The keys, for what else the broker seals.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// A grant of generation 1 that holds these tokens.
    ///
    /// # Errors
    /// [`Error::Internal`] when sealing fails.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a different thing, and two places call it"
    )]
    pub fn new_grant(
        &self,
        app: &App,
        provider: &Provider,
        kind: ConnectionKind,
        tokens: &TokenSet,
        requested_scopes: &[String],
        policy: RefreshPolicy,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        let mut grant = Grant {
            id: IdKind::Grant.new_id(),
            tenant: app.tenant.clone(),
            app_id: app.id.clone(),
            kind,
            state: GrantState::Active,
            state_reason: String::new(),
            generation: 0,
            access_token: None,
            refresh_token: None,
            token_secret: None,
            token_type: String::new(),
            // RFC 6749 section 5.1: an answer without `scope` grants what was asked for.
            scopes: requested_scopes.to_vec(),
            metadata: serde_json::Map::new(),
            refresh_fingerprint: None,
            issued_at: tokens.sent_at,
            expires_at: None,
            refresh_expires_at: None,
            absolute_expires_at: provider
                .refresh_token_absolute_lifetime
                .map(|lifetime| tokens.sent_at.plus(lifetime)),
            refresh_policy: policy,
            last_refreshed_at: None,
            next_refresh_at: None,
            notice_at: None,
            not_before: None,
            failure_count: 0,
            last_error: String::new(),
            lease_holder: None,
            lease_until: None,
            attempt_generation: None,
            attempt_started_at: None,
            attempt_retried: false,
            created_at: now,
            updated_at: now,
        };
        self.take_over(&mut grant, provider, tokens, now)?;
        Ok(grant)
    }

    /// The same grant with tokens that a refresh brought: the next generation.
    ///
    /// # Errors
    /// [`Error::Internal`] when sealing fails.
    pub fn refreshed(
        &self,
        grant: &Grant,
        provider: &Provider,
        tokens: &TokenSet,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        let mut next = grant.clone();
        self.take_over(&mut next, provider, tokens, now)?;
        next.last_refreshed_at = Some(now);
        Ok(next)
    }

    /// The same grant with tokens of a new consent, whatever became of the old ones: the next
    /// generation, with deadlines that count anew.
    ///
    /// # Errors
    /// [`Error::Internal`] when sealing fails.
    pub fn reconnected(
        &self,
        grant: &Grant,
        provider: &Provider,
        tokens: &TokenSet,
        requested_scopes: &[String],
        policy: RefreshPolicy,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        let mut next = grant.clone();
        next.state = GrantState::Active;
        next.state_reason = String::new();
        next.refresh_policy = grant.refresh_policy.max(policy);
        next.scopes = requested_scopes.to_vec();
        next.absolute_expires_at = provider
            .refresh_token_absolute_lifetime
            .map(|lifetime| tokens.sent_at.plus(lifetime));
        // A consent that brings no refresh token must not revive one that may be dead.
        if tokens.refresh_token.is_none() {
            next.refresh_token = None;
            next.refresh_fingerprint = None;
            next.refresh_expires_at = None;
        }
        self.take_over(&mut next, provider, tokens, now)?;
        Ok(next)
    }

    fn take_over(
        &self,
        grant: &mut Grant,
        provider: &Provider,
        tokens: &TokenSet,
        now: Timestamp,
    ) -> Result<(), Error> {
        grant.generation += 1;
        grant.access_token =
            self.sealed(grant, access_purpose(grant.kind), &tokens.access_token)?;
        if tokens.token_secret.is_some() {
            grant.token_secret =
                self.sealed(grant, Purpose::GrantOauth1Secret, &tokens.token_secret)?;
        }
        if let Some(refresh_token) = &tokens.refresh_token {
            grant.refresh_token =
                self.sealed(grant, Purpose::GrantRefreshToken, &tokens.refresh_token)?;
            grant.refresh_fingerprint = Some(self.fingerprint(&grant.tenant, refresh_token));
        }
        grant.token_type.clone_from(&tokens.token_type);
        if let Some(scopes) = &tokens.scopes {
            grant.scopes.clone_from(scopes);
        }
        grant.metadata.extend(tokens.metadata.clone());
        grant.issued_at = tokens.sent_at;
        grant.expires_at = tokens.expires_at;
        if grant.refresh_token.is_some() {
            let idle = provider
                .refresh_token_idle_lifetime
                .map(|lifetime| tokens.sent_at.plus(lifetime));
            // A kept refresh token keeps the deadline it came with, unless use extends it.
            let told = tokens
                .refresh_expires_at
                .or(if tokens.refresh_token.is_none() {
                    grant.refresh_expires_at.filter(|_| idle.is_none())
                } else {
                    None
                });
            grant.refresh_expires_at = [told, idle, grant.absolute_expires_at]
                .into_iter()
                .flatten()
                .min();
        }
        grant.not_before = None;
        grant.failure_count = 0;
        grant.last_error = String::new();
        grant.lease_holder = None;
        grant.lease_until = None;
        grant.attempt_generation = None;
        grant.attempt_started_at = None;
        grant.attempt_retried = false;
        grant.updated_at = now;
        self.schedule(grant, provider);
        Ok(())
    }

    fn sealed(
        &self,
        grant: &Grant,
        purpose: Purpose,
        token: &Option<SecretString>,
    ) -> Result<Option<Sealed>, Error> {
        let Some(token) = token else { return Ok(None) };
        let context = context(grant, purpose);
        let sealed = self
            .keyring
            .seal(&context, token.expose_secret().as_bytes())?;
        Ok(Some(sealed))
    }

    /// The access token, API key or OAuth 1.0a token.
    ///
    /// # Errors
    /// [`crypto::Error`] when it does not open.
    pub fn access_token(&self, grant: &Grant) -> Result<Option<SecretString>, crypto::Error> {
        self.opened(
            grant,
            access_purpose(grant.kind),
            grant.access_token.as_ref(),
        )
    }

    /// The refresh token.
    ///
    /// # Errors
    /// [`crypto::Error`] when it does not open.
    pub fn refresh_token(&self, grant: &Grant) -> Result<Option<SecretString>, crypto::Error> {
        self.opened(
            grant,
            Purpose::GrantRefreshToken,
            grant.refresh_token.as_ref(),
        )
    }

    /// The OAuth 1.0a token's secret.
    ///
    /// # Errors
    /// [`crypto::Error`] when it does not open.
    pub fn token_secret(&self, grant: &Grant) -> Result<Option<SecretString>, crypto::Error> {
        self.opened(
            grant,
            Purpose::GrantOauth1Secret,
            grant.token_secret.as_ref(),
        )
    }

    fn opened(
        &self,
        grant: &Grant,
        purpose: Purpose,
        sealed: Option<&Sealed>,
    ) -> Result<Option<SecretString>, crypto::Error> {
        sealed
            .map(|sealed| self.keyring.open_text(&context(grant, purpose), sealed))
            .transpose()
    }

    /// The keyed fingerprint of a refresh token: tells whether two are the same, and nothing else.
    pub fn fingerprint(&self, tenant: &str, token: &SecretString) -> String {
        self.keyring
            .fingerprint(tenant, token.expose_secret().as_bytes())
    }

    /// How long before its end a grant's access token is refreshed: the provider's margin, at most
    /// a share of the token's lifetime, so that a short-lived token is not refreshed at once.
    pub fn margin(&self, grant: &Grant, provider: &Provider) -> Duration {
        let Some(expires_at) = grant.expires_at else {
            return Duration::ZERO;
        };
        let lifetime = expires_at.since(grant.issued_at);
        provider
            .refresh_margin
            .min(lifetime.mul_f64(self.refresh.margin_share))
    }

    /// Sets when the worker is to look at the grant next, and when to warn its owner.
    pub fn schedule(&self, grant: &mut Grant, provider: &Provider) {
        grant.next_refresh_at = None;
        grant.notice_at = None;
        if grant.state != GrantState::Active || grant.refresh_token.is_none() {
            return;
        }
        let ahead = grant
            .expires_at
            .filter(|_| grant.refresh_policy != RefreshPolicy::OnDemand)
            .map(|end| {
                let margin = self.margin(grant, provider);
                end.minus(margin + self.jitter(margin))
            });
        let keep_alive = self.keep_alive_at(grant, provider);
        grant.next_refresh_at = [ahead, keep_alive].into_iter().flatten().min();
        grant.notice_at = grant.refresh_expires_at.map(|end| {
            // Behind the keep-alive, so that nobody is warned of what is about to be mended.
            let lifetime = end.since(grant.issued_at);
            end.minus(self.refresh.expiring_notice)
                .max(grant.issued_at.plus(lifetime.mul_f64(0.9)))
        });
    }

    /// When an idle grant is refreshed only to keep its refresh token from lapsing; `None` where a
    /// refresh would not extend its life.
    pub fn keep_alive_at(&self, grant: &Grant, provider: &Provider) -> Option<Timestamp> {
        let end = grant.refresh_expires_at?;
        let extends =
            provider.refresh_token_idle_lifetime.is_some() || provider.rotation != Rotation::Never;
        let capped = grant.absolute_expires_at.is_some_and(|most| most <= end);
        if !extends || capped {
            return None;
        }
        let lifetime = end.since(grant.issued_at);
        let early = self.jitter(lifetime.mul_f64(1.0 - self.refresh.keep_alive_share));
        let at = lifetime.mul_f64(self.refresh.keep_alive_share);
        Some(grant.issued_at.plus(at).minus(early))
    }

    /// The wait after so many failures in a row: doubles, capped, with jitter.
    pub fn backoff(&self, failures: i32) -> Duration {
        let doublings = u32::try_from(failures.clamp(0, 20)).unwrap_or(0);
        let wait = self
            .refresh
            .backoff_initial
            .saturating_mul(1_u32 << doublings)
            .min(self.refresh.backoff_max);
        wait + self.jitter(wait)
    }

    /// A random part of a period, up to the configured share of it.
    fn jitter(&self, of: Duration) -> Duration {
        of.mul_f64(self.refresh.jitter * fastrand::f64())
    }
}

fn access_purpose(kind: ConnectionKind) -> Purpose {
    match kind {
        ConnectionKind::ApiKey => Purpose::GrantApiKey,
        ConnectionKind::Oauth2 | ConnectionKind::Oauth1 => Purpose::GrantAccessToken,
    }
}

fn context(grant: &Grant, purpose: Purpose) -> Context<'_> {
    Context {
        tenant: &grant.tenant,
        purpose,
        row: &grant.id,
    }
}
