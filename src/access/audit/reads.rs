//! Access tokens that were handed out: counted in memory by caller, address, connection and minute,
//! and written when the minute is over; or each written before it is answered, where that is asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outbox::Outbox;
use super::{Action, Entry, Who};
use crate::access::{Caller, Origin, Principal};
use crate::clock::Clock;
use crate::config::TokenReads;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::{Store, transact};

/// Counts that may wait for the database before those of several minutes are put together.
const WAITING_MAX: usize = 100_000;

const MINUTE_MICROS: i64 = 60_000_000;

/// Minutes since 1970 began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minute(i64);

impl Minute {
    /// The one that a time is in.
    pub fn of(time: Timestamp) -> Self {
        Self(time.micros().div_euclid(MINUTE_MICROS))
    }

    /// When it began.
    pub fn start(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_mul(MINUTE_MICROS))
    }
}

/// The connection that tokens were handed out of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The tenant.
    pub tenant: String,
    /// The connection.
    pub connection_id: String,
    /// Its app.
    pub app_id: String,
    /// Its provider.
    pub provider: String,
    /// Its owner.
    pub owner: String,
}

/// What one caller at one address was handed within a minute.
#[derive(Clone, Debug)]
pub struct Read {
    caller: Arc<Principal>,
    ip: Option<IpAddr>,
    minute: Minute,
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Read {
    /// The first of a minute.
    pub fn first(caller: &Arc<Principal>, ip: Option<IpAddr>, now: Timestamp) -> Self {
        Self {
            caller: Arc::clone(caller),
            ip,
            minute: Minute::of(now),
            count: 1,
            first: now,
            last: now,
        }
    }

    /// Whether another of this caller belongs here, who is known by where they lie in memory.
    pub fn takes(&self, caller: &Arc<Principal>, ip: Option<IpAddr>, minute: Minute) -> bool {
        Arc::ptr_eq(&self.caller, caller) && self.ip == ip && self.minute == minute
    }

    /// The same, by their id: memory forgets callers and learns them anew.
    pub fn takes_again(&self, caller: &Principal, ip: Option<IpAddr>, minute: Minute) -> bool {
        self.ip == ip && self.minute == minute && is_same(&self.caller, caller)
    }

    /// One more, which belongs here.
    pub fn count(&mut self, caller: &Arc<Principal>, now: Timestamp) {
        if !Arc::ptr_eq(&self.caller, caller) {
            self.caller = Arc::clone(caller);
        }
        self.count += 1;
        self.first = self.first.min(now);
        self.last = self.last.max(now);
    }

    /// Whether no more can come: its minute is over.
    pub fn is_over(&self, now: Minute) -> bool {
        self.minute < now
    }
}

fn is_same(one: &Principal, other: &Principal) -> bool {
    one.id == other.id
        && one.tenant == other.tenant
        && std::mem::discriminant(&one.credential) == std::mem::discriminant(&other.credential)
}

/// Counts, and what they are of.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Of what.
    pub subject: Arc<Subject>,
    /// How often.
    pub read: Read,
}

impl Counted {
    fn entry(&self) -> Entry {
        let Self { subject, read } = self;
        let origin = Origin {
            ip: read.ip,
            ..Origin::default()
        };
        entry(Who::of(&read.caller, origin), subject)
            .detail("count", read.count)
            .detail("minute", read.minute.start())
            .detail("first", read.first)
            .detail("last", read.last)
    }
}

fn entry(who: impl Into<Who>, subject: &Subject) -> Entry {
    Entry::new(Action::TokenRead, who)
        .on("connection", &subject.connection_id)
        .provider(&subject.provider)
        .detail("app_id", &subject.app_id)
        .detail("owner", &subject.owner)
}

/// Writes down who was handed access tokens.
pub struct Reads {
    store: Store,
    clock: Clock,
    mode: TokenReads,
    waiting: Mutex<Vec<Counted>>,
    outbox: Outbox,
}

impl Reads {
    /// On a store; `mode` is `audit.token_reads`.
    pub fn new(store: Store, clock: Clock, mode: TokenReads) -> Self {
        Self {
            outbox: Outbox::new(store.clone()),
            store,
            clock,
            mode,
            waiting: Mutex::default(),
        }
    }

    /// Whether each is written before it is answered.
    pub fn each(&self) -> bool {
        self.mode == TokenReads::Each
    }

    /// Writes one down, before the token is handed out.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: then the token must not be handed out.
    pub async fn write(&self, caller: &Caller, subject: &Subject) -> Result<(), Error> {
        let now = self.clock.now();
        let entry = entry(caller, subject).detail("count", 1);
        let written: Result<(), Error> = transact!(self.store, |tx| {
            super::record(&mut tx, &entry, now).await.map(drop)
        });
        written.map_err(|cause| {
            Error::Unavailable(
                "the audit trail can't be written, so no token is handed out".to_owned(),
                Some(cause.into()),
            )
        })
    }

    /// Writes down what was counted. What can't be written waits for the next time.
    ///
    /// # Errors
    /// The store's.
    pub async fn flush(&self, counted: Vec<Counted>) -> Result<(), Error> {
        {
            let mut waiting = self.waiting();
            waiting.extend(counted);
            if waiting.len() > WAITING_MAX {
                *waiting = together(std::mem::take(&mut *waiting));
            }
        }
        let waiting = || {
            let waiting = std::mem::take(&mut *self.waiting());
            let rows = waiting.iter().map(|it| (it.entry(), it.read.last));
            rows.collect()
        };
        self.outbox.flush(waiting).await
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Counted>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counts of several minutes as one: exact, but less fine, and no more of them than there are
/// callers and connections.
fn together(counted: Vec<Counted>) -> Vec<Counted> {
    let mut all: HashMap<(String, String, Option<IpAddr>), Vec<Counted>> = HashMap::new();
    for one in counted {
        let key = (
            one.read.caller.id.clone(),
            one.subject.connection_id.clone(),
            one.read.ip,
        );
        let found = all.entry(key).or_default();
        match found
            .iter_mut()
            .find(|it| is_same(&it.read.caller, &one.read.caller))
        {
            Some(same) => {
                let read = &mut same.read;
                read.count += one.read.count;
                read.minute = read.minute.min(one.read.minute);
                read.first = read.first.min(one.read.first);
                read.last = read.last.max(one.read.last);
            }
            None => found.push(one),
        }
    }
    all.into_values().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Credential;
    use crate::access::limits::Limiter;
    use crate::model::{Constraints, Role};

    fn caller(id: &str) -> Arc<Principal> {
        Arc::new(Principal {
            id: id.to_owned(),
            name: String::new(),
            tenant: "t".to_owned(),
            role: Role::Consumer,
            constraints: Constraints::default(),
            credential: Credential::ApiKey { hash: [0; 32] },
            expires_at: None,
            limiter: Arc::new(Limiter::unlimited()),
        })
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_read_is_counted_to_its_caller_address_and_minute() {
        let (one, other) = (caller("key_1"), caller("key_2"));
        let mut read = Read::first(&one, None, at(5));
        let minute = Minute::of(at(9));
        assert!(read.takes(&one, None, minute));
        read.count(&one, at(9));
        for (who, ip, minute) in [
            (&other, None, minute),
            (&one, Some([127, 0, 0, 1].into()), minute),
            (&one, None, Minute::of(at(MINUTE_MICROS))),
        ] {
            assert!(!read.takes(who, ip, minute) && !read.takes_again(who, ip, minute));
        }
        // Forgotten and learnt anew, it is the same caller.
        let anew = caller("key_1");
        assert!(!read.takes(&anew, None, minute) && read.takes_again(&anew, None, minute));
        read.count(&anew, at(MINUTE_MICROS - 1));
        assert!(read.takes(&anew, None, minute));
        assert_eq!((read.count, read.first), (3, at(5)));
        assert!(!read.is_over(Minute::of(at(MINUTE_MICROS - 1))));
        assert!(read.is_over(Minute::of(at(MINUTE_MICROS))));
    }

    #[test]
    fn what_waits_too_long_is_put_together_and_stays_exact() {
        let subject = Arc::new(Subject {
            tenant: "t".to_owned(),
            connection_id: "conn_1".to_owned(),
            app_id: "app_1".to_owned(),
            provider: "p".to_owned(),
            owner: "o".to_owned(),
        });
        let counted = |id: &str, minute: i64| Counted {
            subject: Arc::clone(&subject),
            read: Read::first(&caller(id), None, at(minute * MINUTE_MICROS)),
        };
        let all = (0..10).flat_map(|minute| [counted("key_1", minute), counted("key_2", minute)]);
        let fewer = together(all.collect());
        let counts: Vec<u64> = fewer.iter().map(|it| it.read.count).collect();
        assert_eq!(counts, [10, 10]);
        assert!(fewer.iter().all(|it| it.read.first == at(0)));
    }
}
