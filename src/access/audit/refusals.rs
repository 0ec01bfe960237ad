//! Who was turned away: counted in memory and written when the minute is over, so that nobody fills
//! the trail by being refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::outbox::Outbox;
use super::reads::Minute;
use super::{Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::access::limits::network;
use crate::access::{Origin, Principal};
use crate::clock::Clock;
use crate::crypto::Keyring;
use crate::error::{Error, Unknown};
use crate::model::Timestamp;
use crate::store::Store;

/// What is told apart at a time; what is more is counted together.
const DISTINCT_MAX: usize = 10_000;

/// Different credentials of one refusal that are named.
const NAMED_MAX: usize = 8;

/// Longest JWT that is given a name, in bytes.
const JWT_MAX: usize = 8 * 1_024;

/// What is counted as the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    /// Credentials from an address.
    Refused {
        reason: &'static str,
        ip: Option<IpAddr>,
        sort: &'static str,
    },
    /// A caller at an RPC.
    Denied {
        tenant: String,
        caller: String,
        ip: Option<IpAddr>,
        permission: String,
        rpc: String,
    },
    /// A browser that came back from a provider with a state that is nobody's, or not its own.
    Browser {
        reason: &'static str,
        ip: Option<IpAddr>,
    },
    /// Whatever there was no room for.
    Overflow { action: &'static str },
}

#[derive(Clone, Debug)]
struct Count {
    action: Action,
    who: Who,
    count: u64,
    first: Timestamp,
    last: Timestamp,
    /// Keyed hashes of the first different credentials.
    named: Vec<String>,
}

/// Counts who is turned away.
pub struct Refusals {
    clock: Clock,
    keyring: Keyring,
    counts: Mutex<HashMap<(What, Minute), Count>>,
    outbox: Outbox,
}

impl Refusals {
    /// On a store; the keys name what was sent without keeping it.
    pub fn new(store: Store, clock: Clock, keyring: Keyring) -> Self {
        Self {
            clock,
            keyring,
            counts: Mutex::default(),
            outbox: Outbox::new(store),
        }
    }

    /// Counts credentials that were refused. `sent` is the bearer token, where there was one, and
    /// `certificate` the fingerprint of the client's.
    pub fn refused(
        &self,
        unknown: Unknown,
        sent: Option<&str>,
        certificate: Option<&[u8; 32]>,
        origin: &Origin,
    ) {
        let (sort, well_formed) = match certificate {
            Some(_) if sent.is_none() => ("certificate", true),
            _ => sort_of(sent),
        };
        let origin = &counted_as(origin);
        let what = What::Refused {
            reason: unknown.reason(),
            ip: origin.ip,
            sort,
        };
        let who = || Who::anonymous("", origin);
        let named = || {
            let shown = sent.map(str::as_bytes);
            let shown = shown.or(certificate.map(<[u8; 32]>::as_slice));
            // Of no tenant: nobody knows whose it is.
            Some(self.keyring.fingerprint("", shown.filter(|_| well_formed)?))
        };
        self.count(Action::CallerRefused, what, who, named);
    }

    /// Counts a known caller who lacks a permission, or is held to other things; `permission` is
    /// empty where it is not known.
    pub fn denied(&self, principal: &Principal, permission: &str, rpc: &str, origin: &Origin) {
        let origin = counted_as(origin);
        let what = What::Denied {
            tenant: principal.tenant.clone(),
            caller: principal.id.clone(),
            ip: origin.ip,
            permission: permission.to_owned(),
            rpc: rpc.to_owned(),
        };
        let who = || Who::of(principal, origin);
        self.count(Action::CallerDenied, what, who, || None);
    }

    /// Counts a callback of a browser whose authorisation is not known, or not its own.
    pub fn browser(&self, reason: &'static str, origin: &Origin) {
        let origin = counted_as(origin);
        let ip = origin.ip;
        let who = || Who::anonymous("", &origin);
        let what = What::Browser { reason, ip };
        self.count(Action::AuthorizationCompleted, what, who, || None);
    }

    fn count(
        &self,
        action: Action,
        what: What,
        who: impl FnOnce() -> Who,
        named: impl FnOnce() -> Option<String>,
    ) {
        let now = self.clock.now();
        let minute = Minute::of(now);
        let mut counts = self.counts();
        let mut key = (what, minute);
        let overflows = counts.len() >= DISTINCT_MAX && !counts.contains_key(&key);
        if overflows {
            let action = action.as_str();
            // Of all minutes: they would be without bound too while nothing can be written.
            key = (What::Overflow { action }, Minute::of(Timestamp::default()));
        }
        let count = counts.entry(key).or_insert_with(|| Count {
            action,
            who: if overflows {
                Who::anonymous("", &Origin::default())
            } else {
                who()
            },
            count: 0,
            first: now,
            last: now,
            named: Vec::new(),
        });
        count.count += 1;
        count.first = count.first.min(now);
        count.last = count.last.max(now);
        if !overflows
            && count.named.len() < NAMED_MAX
            && let Some(name) = named()
            && !count.named.contains(&name)
        {
            count.named.push(name);
        }
    }

    /// Writes down the minutes that are over, or this one too where `all` says so. What can't be
    /// written waits for the next time; counting goes on meanwhile, within the same bounds.
    ///
    /// # Errors
    /// The store's.
    pub async fn flush(&self, all: bool) -> Result<(), Error> {
        let now = Minute::of(self.clock.now());
        let over = || {
            let mut counts = self.counts();
            let over = counts.extract_if(|_, count| all || Minute::of(count.first) < now);
            over.map(|((what, _), count)| (entry(&what, &count), count.last))
                .collect()
        };
        self.outbox.flush(over).await
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<(What, Minute), Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where it is counted as coming from: one customer has 2^64 addresses of IPv6 at least, and each would
/// be an entry.
fn counted_as(origin: &Origin) -> Origin {
    Origin {
        ip: origin.ip.map(network),
        ..origin.clone()
    }
}

fn entry(what: &What, count: &Count) -> Entry {
    let entry = Entry::new(count.action, &count.who)
        .detail("count", count.count)
        .detail("minute", Minute::of(count.first).start())
        .detail("first", count.first)
        .detail("last", count.last);
    let entry = match what {
        What::Refused { reason, sort, .. } => entry.failed(reason).detail("credentials", sort),
        What::Denied {
            permission, rpc, ..
        } => {
            let entry = entry.failed("PERMISSION_DENIED").detail("rpc", rpc);
            if permission.is_empty() {
                entry
            } else {
                entry.detail("permission", permission)
            }
        }
        What::Browser { reason, .. } => entry.failed(reason),
        What::Overflow { .. } => entry.failed("overflow"),
    };
    if count.named.is_empty() {
        entry
    } else {
        entry.detail("fingerprints", count.named.join(" "))
    }
}

/// What sort of credentials it is, and whether it is formed as such.
fn sort_of(sent: Option<&str>) -> (&'static str, bool) {
    let Some(sent) = sent else {
        return ("none", false);
    };
    for (prefix, sort) in [
        (Prefix::ApiKey, "api_key"),
        (Prefix::Session, "session"),
        (Prefix::SessionRefresh, "session_refresh"),
    ] {
        if sent.starts_with(prefix.text()) {
            return (sort, BearerSecret::parse(prefix, sent).is_ok());
        }
    }
    let is_jwt = sent.len() <= JWT_MAX
        && sent.split('.').count() == 3
        && sent
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_jwt {
        ("jwt", true)
    } else {
        ("unknown", false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn credentials_are_sorted_by_how_they_look() {
        let key = BearerSecret::generate(Prefix::ApiKey);
        let key = key.text().expose_secret();
        assert_eq!(sort_of(None), ("none", false));
        assert_eq!(sort_of(Some(key)), ("api_key", true));
        assert_eq!(sort_of(Some(&key[..40])), ("api_key", false));
        assert_eq!(sort_of(Some("a.b.c")), ("jwt", true));
        assert_eq!(sort_of(Some("hunter2")), ("unknown", false));
    }
}
