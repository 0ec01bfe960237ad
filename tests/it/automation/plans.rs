//! How the databases mean to find jobs while they know nothing of how many there are. SQLite keeps no statistics
//! here, PostgreSQL has none of a queue that was empty, and keeps plans: either takes an index gladly that narrows
//! by its predicate and the tenant alone, which in a queue is all of it.

use std::sync::{Arc, Mutex};

use diesel::connection::InstrumentationEvent;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection as _, SimpleAsyncConnection as _};
use tokenbroker::model::{ExecutionMode, Timestamp};
use tokenbroker::store::automation::{accounts, batches, claims, jobs, profiles};
use tokenbroker::store::{Conn, Tx, migrate};

use super::*;

#[derive(diesel::QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

#[derive(diesel::QueryableByName)]
struct Line {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    text: String,
}

/// Every statement that the transaction asks for from now on.
fn record(tx: &mut Tx) -> Arc<Mutex<BTreeSet<String>>> {
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let said = Arc::clone(&asked);
    let heed = move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            let sql = text.split(" -- binds").next().unwrap_or_default();
            said.lock().unwrap().insert(sql.to_owned());
        }
    };
    match &mut **tx {
        Conn::Sqlite(sqlite) => sqlite.set_instrumentation(heed),
        Conn::Postgres(postgres) => postgres.set_instrumentation(heed),
    }
    asked
}

/// Everything that finds jobs by their ids, or in their order.
async fn find_jobs(tx: &mut Tx) -> Result<(), tokenbroker::store::Error> {
    let now = Timestamp::from_micros(0);
    let (tenant, lease) = ("t", MINUTE);
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
        claims::candidates(tx, &query, 10).await?;
    }
    let workers = ids.iter().map(|id| (id.clone(), "worker".to_owned()));
    claims::take(tx, tenant, &workers.collect(), lease).await?;
    claims::put_back(tx, tenant, &ids).await?;
    claims::renew(tx, tenant, "job_0", 1, lease, now).await?;
    claims::holds(tx, tenant, "job_0", 1).await?;
    claims::promote(tx, tenant, 0, &ids, 0).await?;
    let job = jobs::lock(tx, tenant, "job_0").await?.unwrap();
    assert!(jobs::update(tx, &job, (job.state, job.lease_token)).await?);
    jobs::append_events(tx, tenant, &ids, now).await?;
    jobs::lock_dead(tx, tenant, &ids, None).await?;
    jobs::purge(tx, tenant, &ids, None).await?;
    Ok(())
}

/// Everything else that finds jobs by what they name, or what they name.
async fn find_what_they_name(tx: &mut Tx) -> Result<(), tokenbroker::store::Error> {
    let tenant = "t";
    let ids: Vec<String> = (0..10).map(|id| format!("id_{id}")).collect();
    claims::free_profiles(tx, tenant, &ids).await?;
    jobs::has_open_of_account(tx, tenant, "account").await?;
    batches::counts(tx, tenant, &ids).await?;
    accounts::of_ids(tx, tenant, &ids).await?;
    accounts::lock_all(tx, tenant, &ids).await?;
    profiles::of_names(tx, tenant, &ids).await?;
    profiles::of_accounts(tx, tenant, &ids).await?;
    profiles::lock_all(tx, tenant, &ids).await?;
    Ok(())
}

/// Fails if SQLite goes through all of a tenant for this.
async fn explain_on_sqlite(tx: &mut Tx, sql: &str) {
    let Conn::Sqlite(sqlite) = &mut **tx else {
        unreachable!()
    };
    let explain = diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}"));
    let plan: Vec<Step> = diesel_async::RunQueryDsl::load(explain, &mut **sqlite)
        .await
        .unwrap();
    for Step { detail } in plan {
        let of_ours = detail.contains("automation_") || detail.contains(" others");
        // In the order of the queue, up to a limit.
        let in_order = sql.contains("LIMIT") && detail.contains("automation_jobs_claim (tenant=?)");
        let all = detail.starts_with("SCAN") || detail.ends_with("(tenant=?)");
        let sorts = sql.contains("LIMIT") && detail.contains("TEMP B-TREE");
        assert!(!sorts && (!of_ours || in_order || !all), "{detail}\n{sql}");
    }
}

/// Fails if a plan that PostgreSQL keeps, made while nothing was there, goes through all jobs of a tenant, or all
/// that run.
async fn explain_on_postgres(tx: &mut Tx, sql: &str) {
    let Conn::Postgres(postgres) = &mut **tx else {
        unreachable!()
    };
    let prepare = format!("SET LOCAL plan_cache_mode = force_generic_plan; PREPARE asked AS {sql}");
    postgres.batch_execute(&prepare).await.unwrap();
    let binds = (1..).take_while(|n| sql.contains(&format!("${n}"))).count();
    let nulls = vec!["NULL"; binds].join(", ");
    let explain = diesel::sql_query(format!("EXPLAIN EXECUTE asked({nulls})"));
    let said: Vec<Line> = diesel_async::RunQueryDsl::load(explain, &mut **postgres)
        .await
        .unwrap();
    postgres.batch_execute("DEALLOCATE asked").await.unwrap();
    let plan: Vec<&str> = said.iter().map(|line| line.text.as_str()).collect();
    let shown = format!("{sql}\n{}", plan.join("\n"));
    assert!(!shown.contains("Seq Scan on automation_jobs"), "{shown}");
    assert!(
        !sql.contains("LIMIT") || !shown.contains("Sort Key"),
        "{shown}"
    );
    for (line, next) in plan.iter().zip(plan.iter().skip(1)) {
        let of_jobs = line.contains("Index") && line.contains("automation_jobs");
        if !of_jobs || line.contains("Cond") {
            continue;
        }
        let in_order = sql.contains("LIMIT") && line.contains("automation_jobs_claim");
        let told_apart =
            next.contains("Index Cond") && (next.contains(" AND ") || !next.contains("tenant"));
        assert!(in_order || told_apart, "{shown}");
    }
}

on_both_engines! {
    async fn jobs_are_found_by_what_tells_them_apart(engine: Engine) {
        let ground = Ground::new(engine).await;
        let store = ground.store().await;
        migrate::up(&store).await.unwrap();
        let now = ground.word("0", "now()");
        let job = format!(
            "INSERT INTO automation_jobs (id, tenant, kind, execution_mode, provider, state, priority, turn, run_at, \
             max_attempts, attempt, lease_token, worker, unique_states, payload, progress, failure_reason, \
             failure_message, created_by, created_at) VALUES ('job_0', 't', 'kind', 'any', '', 'running', 0, 0, {now}, \
             3, 1, 1, '', 0, '{{}}', '{{}}', '', '', '', {now})"
        );
        ground.execute(&job).await;
        let mut tx = store.begin().await.unwrap();
        let asked = record(&mut tx);
        find_jobs(&mut tx).await.unwrap();
        if engine == Engine::Sqlite {
            // PostgreSQL analyses them before they are many.
            find_what_they_name(&mut tx).await.unwrap();
        }
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert!(asked.len() >= 12, "{asked:#?}");
        for sql in asked {
            match engine {
                Engine::Sqlite => explain_on_sqlite(&mut tx, &sql).await,
                Engine::Postgres => explain_on_postgres(&mut tx, &sql).await,
            }
        }
    }
}
