//! Address and program of entries: the chain covers them by their hash alone, so that they can be
//! erased with their person, and with nobody else's.

use std::collections::{HashMap, HashSet};

use super::super::trail::Trail;
use super::super::{Action, personal_hash};
use super::walk::PATIENCE;
use crate::error::Error;
use crate::model::{ActorKind, AuditEvent, Chained};
use crate::store::Conn;
use crate::store::audit::Filter;
use crate::store::audit::reading::{self, Stretch};

/// Erasures that are remembered, so that those of many entries are looked up once.
const ERASURES_MAX: usize = 1_000;

/// Entries of one query.
const PAGE: i64 = 500;

/// Whom an entry in the chain says that it erased.
#[derive(Debug)]
struct Erasure {
    tenant: String,
    user: Option<String>,
    /// Whose authorisations and connections went with them.
    owner: Option<String>,
    /// The authorisations that they signed in with, which name no owner.
    sign_ins: HashSet<String>,
}

impl Erasure {
    /// `None` for an entry that tells of no erasure.
    fn of(mut event: AuditEvent) -> Option<Self> {
        let tells = event.action == Action::PersonErased.as_str() && event.success;
        tells.then(|| Self {
            tenant: event.tenant,
            user: Some(event.resource_id).filter(|_| event.resource_kind == "user"),
            owner: event.details.remove("owner"),
            sign_ins: HashSet::new(),
        })
    }

    /// Looks up where the user signed in: the entry of each session names its authorisation.
    async fn look_up_sign_ins(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let Some(user) = &self.user else {
            return Ok(());
        };
        let created = Filter {
            action: Action::SessionCreated.as_str().to_owned(),
            ..Filter::default()
        };
        let by = Filter {
            actor_id: user.clone(),
            ..created.clone()
        };
        let on = Filter {
            resource_id: user.clone(),
            ..created
        };
        for filter in [by, on] {
            let (mut after, until) = (0, i64::MAX);
            loop {
                let stretch = Stretch { after, until };
                let page = reading::list(conn, &self.tenant, &filter, stretch, PAGE).await?;
                let Some(last) = page.last().and_then(|last| last.position) else {
                    break;
                };
                after = last;
                let named = page.into_iter().filter_map(|mut told| {
                    let details = &mut told.event.details;
                    details.remove("authorization_id")
                });
                self.sign_ins.extend(named);
            }
        }
        Ok(())
    }

    /// Whether address and program of an entry were the person's: they did it, or nobody known did it
    /// to them. What somebody else did to them keeps that one's address.
    fn covers(&self, event: &AuditEvent) -> bool {
        let user = self.user.as_deref().filter(|id| !id.is_empty());
        let is_user = |id: &str| user == Some(id);
        let named = |name: &str| event.details.get(name).map(String::as_str);
        let kind = ActorKind::parse(&event.actor_kind);
        // A browser is called by its authorisation, whatever it did.
        let authorization = match kind {
            Some(ActorKind::Browser) => &event.actor_id,
            _ => &event.resource_id,
        };
        let about_them = is_user(&event.resource_id)
            || named("user_id").is_some_and(is_user)
            || (self.owner.is_some() && named("owner") == self.owner.as_deref())
            || self.sign_ins.contains(authorization);
        let unknown = matches!(kind, Some(ActorKind::Anonymous | ActorKind::Browser));
        event.tenant == self.tenant && (is_user(&event.actor_id) || (unknown && about_them))
    }
}

/// The erasures that entries name, by id; none where the entry tells of no erasure.
#[derive(Debug, Default)]
pub(super) struct Erasures(HashMap<String, Option<Erasure>>);

impl Erasures {
    /// Looks up those that these entries name.
    pub(super) async fn look_up(&mut self, trail: &Trail, batch: &[Chained]) -> Result<(), Error> {
        if self.0.len() > ERASURES_MAX {
            self.0.clear();
        }
        let unknown: HashSet<&String> = batch
            .iter()
            .filter_map(|entry| entry.event.erased_by.as_ref())
            .filter(|id| !self.0.contains_key(*id))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = unknown.into_iter().cloned().collect();
        let mut conn = trail.store.read().await?;
        let found = reading::any_tenant_of(&mut conn, &ids).await?;
        let lately = trail.clock.now().minus(PATIENCE);
        self.0.extend(ids.into_iter().map(|id| (id, None)));
        for Chained {
            position, event, ..
        } in found
        {
            // One that was written just now gets its place in a moment.
            if position.is_some() || event.occurred_at >= lately {
                let id = event.id.clone();
                let mut erasure = Erasure::of(event);
                if let Some(erasure) = &mut erasure {
                    erasure.look_up_sign_ins(&mut conn).await?;
                }
                self.0.insert(id, erasure);
            }
        }
        Ok(())
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
            (None, Some(erasure)) => match self.0.get(erasure) {
                Some(Some(erasure)) if erasure.covers(event) => None,
                Some(Some(_)) => Some(
                    "the address and the program of the entry are gone with the erasure of somebody \
                     else",
                ),
                _ => Some(
                    "the address and the program of the entry are gone, and no entry in the chain \
                     tells of that erasure",
                ),
            },
        }
    }
}
