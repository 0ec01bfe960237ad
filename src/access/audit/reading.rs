//! Reading the trail. That somebody reads it is recorded before they are answered.

use super::trail::Trail;
use super::{Action, Entry, Who};
use crate::error::Error;
use crate::model::{ChainHead, Chained};
use crate::store::{self, audit::Filter};

pub use crate::store::audit::reading::Stretch;

/// A tenant's entries that are looked through in one query.
const STRETCH: i64 = 20_000;

/// Queries for one page: what a filter that lets nearly nothing through may cost.
const QUERIES_MAX: usize = 50;

/// One page of the trail.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The entries, oldest first.
    pub events: Vec<Chained>,
    /// What is left to look through; none on the last page.
    pub rest: Option<Stretch>,
}

impl Trail {
    /// One page of a tenant's entries. The first page fixes how far the last one goes, so that reading
    /// comes to an end although it is recorded; `stretch` is the rest of the page before. A page may
    /// be short, and even empty, before the last when the filter lets little through.
    ///
    /// # Errors
    /// The store's; also when the reading can't be recorded.
    pub async fn list(
        &self,
        who: &Who,
        filter: &Filter,
        stretch: Option<Stretch>,
        limit: usize,
    ) -> Result<Listed, Error> {
        let stretch = match stretch {
            Some(stretch) => stretch,
            None => Stretch {
                after: 0,
                until: self.grow().await?.position,
            },
        };
        self.record(&reading(who, "list", filter)).await?;
        let Stretch { mut after, until } = stretch;
        let mut events = Vec::new();
        let mut conn = self.store.read().await?;
        for _ in 0..QUERIES_MAX {
            let mut end = until;
            let left = Stretch { after, until };
            if *filter != Filter::default() {
                let found =
                    store::audit::reading::end_of(&mut conn, who.tenant(), left, STRETCH).await?;
                end = found.unwrap_or(until);
            }
            let wanted = limit.saturating_sub(events.len()).saturating_add(1);
            let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
            let through = Stretch { after, until: end };
            let page =
                store::audit::reading::list(&mut conn, who.tenant(), filter, through, wanted)
                    .await?;
            events.extend(page);
            if events.len() > limit {
                events.truncate(limit);
                after = events.last().and_then(|last| last.position).unwrap_or(end);
                return Ok(Listed {
                    events,
                    rest: Some(Stretch { after, until }),
                });
            }
            if end >= until {
                return Ok(Listed { events, rest: None });
            }
            after = end;
        }
        Ok(Listed {
            events,
            rest: Some(Stretch { after, until }),
        })
    }

    /// Entries behind a place, of every tenant, in order; for the command line, which records once that
    /// it reads.
    ///
    /// # Errors
    /// The store's.
    pub async fn any_tenant_after(&self, after: i64, limit: i64) -> Result<Vec<Chained>, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::audit::reading::any_tenant_after(&mut conn, after, limit).await?)
    }

    /// Records that somebody reads the trail: `how` is `list`, `watch`, `export` or `checkpoints`.
    ///
    /// # Errors
    /// The store's.
    pub async fn read_by(&self, who: &Who, how: &str) -> Result<(), Error> {
        let entry = reading(who, how, &Filter::default());
        self.record(&entry).await.map(drop)
    }

    /// Gives entries that wait their places, and says how far the chain goes. One that can't grow can
    /// still be read.
    pub(super) async fn grow(&self) -> Result<ChainHead, Error> {
        if let Err(error) = self.chain().await {
            crate::error::log(&error);
        }
        let mut conn = self.store.read().await?;
        store::audit::chain::head(&mut conn)
            .await?
            .ok_or_else(|| Error::internal("the row of audit_head is gone"))
    }
}

/// The entry that tells of a reading.
pub(super) fn reading(who: &Who, how: &str, filter: &Filter) -> Entry {
    let mut entry = Entry::new(Action::AuditRead, who)
        .on("audit", "")
        .detail("how", how);
    for (name, value) in [
        ("action", &filter.action),
        ("actor_id", &filter.actor_id),
        ("resource_id", &filter.resource_id),
        ("provider", &filter.provider),
    ] {
        if !value.is_empty() {
            entry = entry.detail(name, value);
        }
    }
    entry
}
