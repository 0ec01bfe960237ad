//! Address and program of entries: the chain covers them by their hash alone, so that they can be
//! erased with their person, and with nobody else's.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::trail::Trail;
use super::super::{Action, SignIns, personal_hash, sign_ins};
use super::walk::PATIENCE;
use crate::error::Error;
use crate::model::{ActorKind, AuditEvent, Chained};
use crate::store::audit::reading;

/// Erasures that are remembered, so that those of many entries are looked up once.
const ERASURES_MAX: usize = 1_000;

/// Whom an entry in the chain says that it erased.
#[derive(Debug)]
struct Erasure {
    tenant: String,
    user: Option<String>,
    /// Whose authorisations and connections went with them.
    owner: Option<String>,
    /// The authorisations that they signed in with, which name no owner.
    sign_ins: BTreeSet<String>,
    /// What they gave to clients, and the devices that they gave it to.
    consents: BTreeSet<String>,
}

impl Erasure {
    /// `None` for an entry that tells of no erasure.
    fn of(mut event: AuditEvent) -> Option<Self> {
        let tells = event.action == Action::PersonErased.as_str() && event.success;
        tells.then(|| Self {
            tenant: event.tenant,
            user: Some(event.resource_id).filter(|_| event.resource_kind == "user"),
            owner: event.details.remove("owner"),
            sign_ins: BTreeSet::new(),
            consents: BTreeSet::new(),
        })
    }

    /// Whether address and program of an entry were the person's: they did it, or nobody known did it
    /// to them. What somebody else did to them keeps that one's address.
    fn covers(&self, event: &AuditEvent) -> bool {
        let user = self.user.as_deref().filter(|id| !id.is_empty());
        let is_user = |id: &str| user == Some(id);
        let named = |name: &str| event.details.get(name).map(String::as_str);
        let about_them = is_user(&event.resource_id)
            || self.consents.contains(&event.resource_id)
            || named("user_id").is_some_and(is_user)
            || (self.owner.is_some() && named("owner") == self.owner.as_deref())
            || authorization(event).is_some_and(|id| self.sign_ins.contains(id));
        let unknown = unknown(event).is_some();
        event.tenant == self.tenant && (is_user(&event.actor_id) || (unknown && about_them))
    }
}

/// The kind of an actor who is nobody known, or a program that acts for the person, maybe on a device
/// of theirs.
fn unknown(event: &AuditEvent) -> Option<ActorKind> {
    let kind = ActorKind::parse(&event.actor_kind)?;
    matches!(
        kind,
        ActorKind::Anonymous | ActorKind::Browser | ActorKind::Client
    )
    .then_some(kind)
}

/// The authorisation with which nobody known did something. A browser is called by it, whatever it did.
fn authorization(event: &AuditEvent) -> Option<&String> {
    match unknown(event)? {
        ActorKind::Browser => Some(&event.actor_id),
        _ => Some(&event.resource_id),
    }
}

/// The sign-in through a provider that somebody not known tried, by its authorisation.
fn sign_in(event: &AuditEvent) -> Option<&String> {
    let tried = match unknown(event)? {
        ActorKind::Browser => event
            .details
            .get("intent")
            .is_some_and(|it| it == "sign_in"),
        _ => {
            event.action == Action::SessionCreated.as_str()
                && event.resource_kind == "authorization"
        }
    };
    authorization(event).filter(|_| tried)
}

/// The erasures that entries name.
#[derive(Debug)]
pub(super) struct Erasures {
    /// By id; none where the entry tells of no erasure.
    by_id: HashMap<String, Option<Erasure>>,
    /// Retention removed the beginning of the trail, and maybe the entry that says whose a sign-in was.
    trimmed: bool,
    /// Of the batch that was looked up last, sign-ins of which an entry that is kept says whose they were.
    attributed: HashSet<String>,
}

impl Erasures {
    /// In a trail whose beginning retention removed, or not.
    pub(super) fn new(trimmed: bool) -> Self {
        Self {
            by_id: HashMap::new(),
            trimmed,
            attributed: HashSet::new(),
        }
    }

    /// Looks up those that these entries name.
    pub(super) async fn look_up(&mut self, trail: &Trail, batch: &[Chained]) -> Result<(), Error> {
        if self.by_id.len() > ERASURES_MAX {
            self.by_id.clear();
        }
        let unknown: HashSet<&String> = batch
            .iter()
            .filter_map(|entry| entry.event.erased_by.as_ref())
            .filter(|id| !self.by_id.contains_key(*id))
            .collect();
        let ids: Vec<String> = unknown.into_iter().cloned().collect();
        if !ids.is_empty() {
            self.load(trail, ids).await?;
        }
        self.attribute(trail, batch).await
    }

    async fn load(&mut self, trail: &Trail, ids: Vec<String>) -> Result<(), Error> {
        let mut conn = trail.store.read().await?;
        let found = reading::any_tenant_of(&mut conn, &ids).await?;
        let lately = trail.clock.now().minus(PATIENCE);
        self.by_id.extend(ids.into_iter().map(|id| (id, None)));
        for Chained {
            position, event, ..
        } in found
        {
            // One that was written just now gets its place in a moment.
            if position.is_some() || event.occurred_at >= lately {
                let id = event.id.clone();
                let mut erasure = Erasure::of(event);
                if let Some(erasure) = &mut erasure
                    && let Some(user) = &erasure.user
                {
                    let found = SignIns::of(&mut conn, &erasure.tenant, user).await?;
                    erasure.sign_ins = found.authorizations;
                    erasure.consents = found.consents;
                }
                self.by_id.insert(id, erasure);
            }
        }
        Ok(())
    }

    /// Looks up whose the sign-ins were that a user's erasure does not cover by what is kept.
    async fn attribute(&mut self, trail: &Trail, batch: &[Chained]) -> Result<(), Error> {
        self.attributed.clear();
        let mut asked: HashMap<&String, HashSet<String>> = HashMap::new();
        for event in batch.iter().map(|entry| &entry.event) {
            if let Some(erasure) = self.erasure(event)
                && !erasure.covers(event)
                && self.may_be_of(erasure, event)
                && let Some(id) = sign_in(event)
            {
                asked.entry(&event.tenant).or_default().insert(id.clone());
            }
        }
        for (tenant, ids) in asked {
            let mut conn = trail.store.read().await?;
            let found = sign_ins::attributed(&mut conn, tenant, &ids).await?;
            self.attributed.extend(found);
        }
        Ok(())
    }

    /// The erasure that an entry names.
    fn erasure(&self, event: &AuditEvent) -> Option<&Erasure> {
        let named = self.by_id.get(event.erased_by.as_ref()?)?;
        named.as_ref()
    }

    /// Whether an entry tells of a sign-in that was the erased user's for all that is kept.
    fn may_be_of(&self, erasure: &Erasure, event: &AuditEvent) -> bool {
        self.trimmed
            && erasure.user.is_some()
            && erasure.tenant == event.tenant
            && sign_in(event).is_some_and(|id| !self.attributed.contains(id))
    }

    /// What is wrong with address and program of an entry.
    pub(super) fn fault(&self, event: &AuditEvent) -> Option<&'static str> {
        match (&event.salt, &event.erased_by) {
            (Some(salt), None) => {
                let hash = personal_hash(salt, &event.ip, &event.user_agent);
                (hash.as_slice() != event.personal_hash)
                    .then_some("the address or the program of the entry was changed")
            }
            (Some(_), Some(_)) => {
                Some("the entry is marked as erased, and has an address or a program")
            }
            (None, _) if !event.ip.is_empty() || !event.user_agent.is_empty() => {
                Some("the address or the program of the entry was changed")
            }
            (None, None) => {
                Some("the address and the program of the entry were taken away without an erasure")
            }
            (None, Some(_)) => match self.erasure(event) {
                Some(erasure) if erasure.covers(event) || self.may_be_of(erasure, event) => None,
                Some(_) => Some(
                    "the address and the program of the entry are gone with the erasure of somebody \
                     else",
                ),
                None => Some(
                    "the address and the program of the entry are gone, and no entry in the chain \
                     tells of that erasure",
                ),
            },
        }
    }
}
