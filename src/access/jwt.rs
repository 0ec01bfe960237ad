//! JWTs of trusted issuers, mapped to roles by the configuration.
//!
//! A token is judged by the keys of the issuer that it names, if that is a trusted one, and by
//! nothing that it brings along. What was judged is remembered by the token's hash until it
//! ends or its key is withdrawn.

mod claims;
mod keys;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use self::keys::{Keys, Seen};
use super::Principal;
use super::known::{Known, KnownKeys};
use super::limits::Limits;
use super::principal::Credential;
use crate::clock::Clock;
use crate::config::JwtIssuer;
use crate::crypto::digest::sha256;
use crate::crypto::jwt::{self, Algorithm, JWT_MAX, Refusal, Unverified, Verified};
use crate::error::{Error, Unknown};
use crate::oauth::jwks;

/// What the ids of these callers begin with.
const ID_PREFIX: &str = "jwt:";

/// The issuers of the configuration.
pub struct Jwts {
    issuers: Vec<Issuer>,
    clock: Clock,
    limits: Arc<Limits>,
    known: KnownKeys,
}

struct Issuer {
    config: JwtIssuer,
    algorithms: Vec<Algorithm>,
    keys: Arc<Keys>,
}

impl Jwts {
    /// These issuers. Nothing is asked of them before the first token comes.
    ///
    /// # Errors
    /// [`Error::Internal`] when no TLS set-up is possible.
    pub fn new(configured: &[JwtIssuer], clock: Clock, limits: Arc<Limits>) -> Result<Self, Error> {
        let fetches = configured.iter().any(|issuer| issuer.ca_file.is_none());
        let http = if fetches {
            let http = jwks::client(None).map_err(Error::internal)?;
            Some(http.with_clock(clock.clone()))
        } else {
            None
        };
        let issuer = |config: &JwtIssuer| {
            let http = http.clone().filter(|_| config.ca_file.is_none());
            Issuer {
                algorithms: config
                    .algorithms
                    .iter()
                    .filter_map(|name| jwt::algorithm(name))
                    .collect(),
                keys: Arc::new(Keys::new(config.clone(), clock.clone(), http)),
                config: config.clone(),
            }
        };
        Ok(Self {
            issuers: configured.iter().map(issuer).collect(),
            clock: clock.clone(),
            limits,
            known: KnownKeys::default(),
        })
    }

    /// Whom a JWT stands for, if memory knows.
    pub fn recognise(&self, text: &str) -> Option<Arc<Principal>> {
        if self.issuers.is_empty() || text.len() > JWT_MAX {
            return None;
        }
        let hash = sha256(text.as_bytes());
        self.known.look(&hash, |known| {
            let principal = &known.principal;
            let seen = self.issuer_of(principal)?.keys.current()?;
            self.judge_again(principal, &seen).ok()?;
            Some(Arc::clone(principal))
        })
    }

    /// Whom a JWT stands for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or [`Error::Unavailable`] when the issuer's keys can't be had.
    pub async fn authenticate(&self, text: &str) -> Result<Arc<Principal>, Error> {
        if let Some(principal) = self.recognise(text) {
            return Ok(principal);
        }
        let token = jwt::read(text).map_err(|_| Error::Unauthenticated(Unknown::Invalid))?;
        let issuer = self
            .issuers
            .iter()
            .find(|issuer| issuer.config.issuer == token.issuer)
            .ok_or(Error::Unauthenticated(Unknown::Invalid))?;
        let refused = |(unknown, why): claims::Refused| {
            tracing::debug!(issuer = issuer.config.name, why, "a JWT was refused");
            Error::Unauthenticated(unknown)
        };
        if !issuer.algorithms.contains(&token.algorithm) {
            return Err(refused((Unknown::Invalid, "alg is not allowed")));
        }
        if !claims::is_taken(token.media_type.as_deref()) {
            return Err(refused((Unknown::Invalid, "typ is another")));
        }
        let Verified { claims, key } = issuer.verify(text, &token).await?;
        let judged = claims::judge(&issuer.config, &claims, self.clock.now()).map_err(refused)?;
        let Some(rule) = claims::rule(&issuer.config, judged.subject, &claims) else {
            return Err(refused((Unknown::Unmapped, "no rule matches")));
        };
        let granted = &rule.granted;
        let id = id_of(&issuer.config, judged.subject);
        let hash = sha256(text.as_bytes());
        let principal = Arc::new(Principal {
            limiter: self.limits.of(&id, granted.role, granted.rate_limit),
            name: judged.subject.to_owned(),
            tenant: granted.tenant.clone(),
            role: granted.role,
            constraints: granted.constraints.clone(),
            credential: Credential::Jwt { hash, key },
            expires_at: Some(judged.ends_at),
            id,
        });
        let known = Known {
            id: principal.id.clone(),
            principal: Arc::clone(&principal),
            used: AtomicI64::new(0),
            stored: AtomicI64::new(0),
        };
        self.known.insert(hash, known);
        Ok(principal)
    }

    /// Judges a caller again.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the JWT has ended, or the issuer has withdrawn its key.
    pub fn reauthenticate(&self, principal: &Principal) -> Result<(), Error> {
        let issuer = self
            .issuer_of(principal)
            .ok_or(Error::Unauthenticated(Unknown::Invalid))?;
        match issuer.keys.held() {
            Some(seen) => self.judge_again(principal, &seen),
            None => Err(issuer.keys.unavailable()),
        }
    }

    fn judge_again(&self, principal: &Principal, seen: &Seen) -> Result<(), Error> {
        let now = self.clock.now();
        if principal.expires_at.is_none_or(|end| end <= now) {
            return Err(Error::Unauthenticated(Unknown::Expired));
        }
        match &principal.credential {
            Credential::Jwt { key, .. } if seen.set.holds(key) => Ok(()),
            _ => Err(Error::Unauthenticated(Unknown::Revoked)),
        }
    }

    /// Who issued the JWT of a caller.
    fn issuer_of(&self, principal: &Principal) -> Option<&Issuer> {
        let (name, _) = principal.id.strip_prefix(ID_PREFIX)?.split_once(':')?;
        self.issuers
            .iter()
            .find(|issuer| issuer.config.name == name)
    }
}

impl Issuer {
    /// Verifies a signature, by newer keys if these don't have the one that is named.
    async fn verify(&self, text: &str, token: &Unverified) -> Result<Verified, Error> {
        let seen = self.keys.get().await?;
        let mut verified = seen.set.verify(text, token);
        if let Err(Refusal::UnknownKey) = verified
            && let Some(newer) = self.keys.newer_than(&seen).await?
        {
            verified = newer.verify(text, token);
        }
        verified.map_err(|refusal| {
            tracing::debug!(issuer = self.config.name, why = %refusal, "a JWT was refused");
            Error::Unauthenticated(Unknown::Invalid)
        })
    }
}

/// The id of a caller of this issuer. Names have no colon, so that no two issuers' callers can
/// have the same.
fn id_of(issuer: &JwtIssuer, subject: &str) -> String {
    format!("{ID_PREFIX}{}:{subject}", issuer.name)
}
