//! How SQLite means to find jobs, and what they name. It keeps no statistics here, and takes an index for
//! good that narrows by its predicate and the tenant alone, which in a queue is all of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::connection::InstrumentationEvent;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection as _, RunQueryDsl as _};

use super::{accounts, batches, claims, jobs, profiles};
use crate::model::{ExecutionMode, Timestamp};
use crate::store::pool::{Conn, Options, Store};
use crate::store::{Error, migrate};

#[derive(diesel::QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

#[tokio::test]
async fn sqlite_looks_for_jobs_by_what_tells_them_apart() -> Result<(), Error> {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::Sqlite {
        path: folder.path().join("plans.db"),
        busy_timeout: Duration::from_secs(5),
    };
    let store = Store::open(options, 1, Duration::from_secs(5)).await?;
    migrate::up(&store).await.unwrap();
    let mut tx = store.begin().await?;
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let said = Arc::clone(&asked);
    let Conn::Sqlite(sqlite) = &mut *tx else {
        unreachable!()
    };
    sqlite.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            let sql = text.split(" -- binds").next().unwrap_or_default();
            said.lock().unwrap().insert(sql.to_owned());
        }
    });
    let now = Timestamp::from_micros(0);
    let (tenant, lease) = ("t", Duration::from_secs(60));
    let ids: Vec<String> = (0..10).map(|id| format!("job_{id}")).collect();
    let kinds = ["kind".to_owned()];
    for kinds in [&[], &kinds[..]] {
        let query = claims::ClaimQuery {
            tenant,
            kinds,
            mode: ExecutionMode::Any,
            full: &[],
            busy: &BTreeSet::new(),
            now,
        };
        claims::candidates(&mut tx, &query, 10).await?;
    }
    claims::free_profiles(&mut tx, tenant, &ids).await?;
    let workers = ids.iter().map(|id| (id.clone(), "worker".to_owned()));
    claims::take(&mut tx, tenant, &workers.collect(), lease).await?;
    claims::put_back(&mut tx, tenant, &ids).await?;
    claims::renew(&mut tx, tenant, "job_0", 1, lease, now).await?;
    claims::promote(&mut tx, tenant, 0, &ids, 0).await?;
    jobs::append_events(&mut tx, tenant, &ids, now).await?;
    jobs::has_open_of_account(&mut tx, tenant, "account").await?;
    jobs::lock_dead(&mut tx, tenant, &ids, None).await?;
    jobs::purge(&mut tx, tenant, &ids, None).await?;
    batches::counts(&mut tx, tenant, &ids).await?;
    accounts::of_ids(&mut tx, tenant, &ids).await?;
    accounts::lock_all(&mut tx, tenant, &ids).await?;
    profiles::of_names(&mut tx, tenant, &ids).await?;
    profiles::of_accounts(&mut tx, tenant, &ids).await?;
    profiles::lock_all(&mut tx, tenant, &ids).await?;

    let asked = std::mem::take(&mut *asked.lock().unwrap());
    assert!(asked.len() >= 17, "{asked:#?}");
    for sql in asked {
        let Conn::Sqlite(sqlite) = &mut *tx else {
            unreachable!()
        };
        let explain = diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan: Vec<Step> = explain.load(&mut **sqlite).await?;
        for Step { detail } in plan {
            let of_ours = detail.contains("automation_") || detail.contains(" others");
            // In the order of the queue, up to a limit.
            let in_order =
                sql.contains("LIMIT") && detail.contains("automation_jobs_claim (tenant=?)");
            let all = detail.starts_with("SCAN") || detail.ends_with("(tenant=?)");
            let sorts = sql.contains("LIMIT") && detail.contains("TEMP B-TREE");
            assert!(!sorts && (!of_ours || in_order || !all), "{detail}\n{sql}");
        }
    }
    Ok(())
}
