//! Both engines have the same schema, the way down leads back, and the view that operators read
//! says what the API says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokenbroker::clock::Clock;
use tokenbroker::pb;
use tokenbroker::store::migrate;
use tonic::Code;

use crate::fixture::provider::{Account, FakeProvider};
use crate::fixture::*;
use crate::on_both_engines;

/// The schema of a SQLite file, a line a fact.
const SQLITE: &str = r#"
WITH tables AS (
    SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
)
SELECT 'table ' || name AS line FROM tables
UNION ALL
SELECT 'column ' || t.name || '.' || c.name || ' ' || lower(c.type)
    || CASE WHEN c."notnull" OR c.pk > 0 THEN ' not null' ELSE ' null' END
FROM tables t, pragma_table_xinfo(t.name) c
UNION ALL
SELECT 'primary key ' || t.name || ' (' || (
        SELECT group_concat(name, ', ')
        FROM (SELECT name FROM pragma_table_xinfo(t.name) WHERE pk > 0 ORDER BY pk)
    ) || ')'
FROM tables t
UNION ALL
SELECT 'foreign key ' || t.name || ' (' || group_concat(f."from", ', ') || ') to ' || f."table"
    || ' (' || group_concat(f."to", ', ') || ') on delete ' || lower(f.on_delete)
    || ' on update ' || lower(f.on_update)
FROM tables t, pragma_foreign_key_list(t.name) f
GROUP BY t.name, f.id, f."table", f.on_delete, f.on_update
UNION ALL
SELECT 'index ' || t.name || '.' || i.name || ' ('
    || (SELECT group_concat(name, ', ') FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno))
    || ')' || CASE WHEN i."unique" THEN ' unique' ELSE '' END
    || CASE WHEN i.partial THEN ' partial' ELSE '' END
FROM tables t, pragma_index_list(t.name) i
WHERE i.origin <> 'pk'
UNION ALL
SELECT 'view ' || v.name || ' ('
    || (SELECT group_concat(name, ', ') FROM (SELECT name FROM pragma_table_xinfo(v.name) ORDER BY cid))
    || ')'
FROM sqlite_master v WHERE v.type = 'view'"#;

/// The same of a PostgreSQL schema, in the words that SQLite has for its types.
const POSTGRES: &str = r#"
WITH tables AS (
    SELECT oid, relname::text AS name FROM pg_class
    WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
), actions (code, name) AS (
    VALUES ('a'::"char", 'no action'), ('r', 'restrict'), ('c', 'cascade'), ('n', 'set null'),
        ('d', 'set default')
)
SELECT 'table ' || name AS line FROM tables
UNION ALL
SELECT 'column ' || t.name || '.' || a.attname || ' '
    || CASE format_type(a.atttypid, a.atttypmod)
        WHEN 'text' THEN 'text' WHEN 'jsonb' THEN 'text' WHEN 'bytea' THEN 'blob'
        WHEN 'bigint' THEN 'integer' WHEN 'integer' THEN 'integer' WHEN 'boolean' THEN 'integer'
        WHEN 'timestamp with time zone' THEN 'integer'
        ELSE 'unexpected ' || format_type(a.atttypid, a.atttypmod)
    END
    || CASE WHEN a.attnotnull THEN ' not null' ELSE ' null' END
FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'primary key ' || t.name || ' (' || (
        SELECT string_agg(a.attname, ', ' ORDER BY k.place)
        FROM unnest(p.conkey) WITH ORDINALITY k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum
    ) || ')'
FROM tables t JOIN pg_constraint p ON p.conrelid = t.oid AND p.contype = 'p'
UNION ALL
SELECT 'foreign key ' || t.name || ' (' || (
        SELECT string_agg(a.attname, ', ' ORDER BY k.place)
        FROM unnest(f.conkey) WITH ORDINALITY k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum
    ) || ') to ' || r.name || ' (' || (
        SELECT string_agg(a.attname, ', ' ORDER BY k.place)
        FROM unnest(f.confkey) WITH ORDINALITY k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k.attnum
    ) || ') on delete ' || d.name || ' on update ' || u.name
FROM tables t
JOIN pg_constraint f ON f.conrelid = t.oid AND f.contype = 'f'
JOIN tables r ON r.oid = f.confrelid
JOIN actions d ON d.code = f.confdeltype
JOIN actions u ON u.code = f.confupdtype
UNION ALL
SELECT 'index ' || t.name || '.' || c.relname || ' (' || (
        SELECT string_agg(a.attname, ', ' ORDER BY k.place)
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum
    ) || ')' || CASE WHEN i.indisunique THEN ' unique' ELSE '' END
    || CASE WHEN i.indpred IS NOT NULL THEN ' partial' ELSE '' END
FROM tables t
JOIN pg_index i ON i.indrelid = t.oid AND NOT i.indisprimary
JOIN pg_class c ON c.oid = i.indexrelid
UNION ALL
SELECT 'view ' || v.relname || ' (' || (
        SELECT string_agg(a.attname, ', ' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attnum > 0
    ) || ')'
FROM pg_class v WHERE v.relkind = 'v' AND v.relnamespace = current_schema()::regnamespace"#;

async fn schema(ground: &Ground) -> BTreeSet<String> {
    let lines = ground.lines(ground.word(SQLITE, POSTGRES)).await;
    lines.into_iter().collect()
}

async fn migrated(engine: Engine) -> (Arc<Ground>, BTreeSet<String>) {
    let ground = Ground::new(engine).await;
    migrate::up(&ground.store().await).await.unwrap();
    let schema = schema(&ground).await;
    (ground, schema)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_have_the_same_schema() {
    let (_sqlite, sqlite) = migrated(Engine::Sqlite).await;
    let (_postgres, postgres) = migrated(Engine::Postgres).await;
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<String> {
        these.difference(those).cloned().collect()
    };
    let (only_sqlite, only_postgres) = (only(&sqlite, &postgres), only(&postgres, &sqlite));
    assert!(
        only_sqlite.is_empty() && only_postgres.is_empty(),
        "only in SQLite: {only_sqlite:#?}\nonly in PostgreSQL: {only_postgres:#?}"
    );
}

/// What the comparison rests on: every kind of fact is seen, on each engine.
fn assert_seen(schema: &BTreeSet<String>) {
    for fact in [
        "table schema_migrations",
        "column grants.attempt_retried integer not null",
        "column apps.client_secret blob null",
        "column apps.variables text not null",
        "primary key idempotent_requests (tenant, rpc, request_id)",
        "foreign key sync_records (connection_id) to connections (id) on delete cascade on update no action",
        "index apps.apps_external_key (tenant, external_key) unique",
        "index grants.grants_due (next_refresh_at) partial",
    ] {
        assert!(schema.contains(fact), "{fact:?} is not in {schema:#?}");
    }
    let view = "view oauth_connections (id, tenant, owner, provider, ";
    assert!(
        schema
            .iter()
            .any(|line| line.starts_with(view) && line.ends_with("token_status)"))
    );
}

/// The fixture's clock stands two hours back at first; the view knows the database's only.
async fn two_hours_ago(engine: Engine) -> Broker {
    let ground = Ground::new(engine).await;
    let config = ground.config("a");
    let clock = Clock::manual(now().minus(Duration::from_secs(2 * 3600)));
    let provider = FakeProvider::start().await;
    provider.use_clock(clock.clone());
    Broker::on(ground, config, clock, provider).await
}

/// Consents as an account that is the owner's own, refreshed on demand only.
async fn consented(
    b: &Broker,
    app: &pb::App,
    owner: &str,
) -> std::collections::HashMap<String, String> {
    b.provider.sign_in_as(Account::named(owner));
    let request = pb::StartAuthorizationRequest {
        app: app.id.clone(),
        owner: owner.to_owned(),
        return_url: RETURN_URL.to_owned(),
        refresh_policy: pb::RefreshPolicy::OnDemand.into(),
        ..Default::default()
    };
    let started = b.start_authorization(request).await.unwrap();
    b.consent(&started.connect_url).await
}

async fn connected(b: &Broker, app: &pb::App, owner: &str) -> pb::Connection {
    let returned = consented(b, app, owner).await;
    b.confirm(&returned, owner).await.unwrap()
}

async fn revoke(b: &Broker, id: &str) {
    let request = pb::RevokeConnectionRequest {
        connection_id: id.to_owned(),
        ..Default::default()
    };
    b.admin
        .broker
        .clone()
        .revoke_connection(request)
        .await
        .unwrap();
}

/// What the view says, and what the API says of the same connections, by owner.
async fn statuses(b: &Broker) -> [BTreeMap<String, String>; 2] {
    let mut view = BTreeMap::new();
    let mut api = BTreeMap::new();
    let sql = "SELECT id || ' ' || owner || ' ' || token_status AS line FROM oauth_connections";
    for line in b.ground.lines(sql).await {
        let [id, owner, status]: [&str; 3] =
            line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        view.insert(owner.to_owned(), status.to_owned());
        let told = b
            .connection(id)
            .await
            .token_status()
            .as_str_name()
            .to_lowercase();
        let told = told.strip_prefix("token_status_").unwrap();
        api.insert(owner.to_owned(), told.to_owned());
    }
    [view, api]
}

on_both_engines! {
    async fn the_way_down_leads_back_to_nothing_and_up_again_to_the_same(engine: Engine) {
        let (ground, before) = migrated(engine).await;
        assert_seen(&before);
        let store = ground.store().await;
        migrate::down(&store, usize::MAX).await.unwrap();
        let left = schema(&ground).await;
        let elsewhere: Vec<_> = left.iter().filter(|line| !line.contains(" schema_migrations")).collect();
        assert!(elsewhere.is_empty(), "{elsewhere:#?}");
        migrate::up(&store).await.unwrap();
        assert_eq!(schema(&ground).await, before);
    }

    async fn the_view_says_what_the_api_says(engine: Engine) {
        let b = two_hours_ago(engine).await;
        let app = b.app().await;
        connected(&b, &app, "refreshable").await;
        let dead = connected(&b, &app, "reauthorization_required").await;
        let gone = connected(&b, &app, "revoked").await;
        revoke(&b, &gone.id).await;
        b.provider.revoke_account("acct-reauthorization_required");
        b.provider.configure(|behaviour| behaviour.issues_refresh_tokens = false);
        connected(&b, &app, "expired").await;
        b.clock.advance(Duration::from_secs(2 * 3600));
        b.provider.set_access_lifetime(Some(Duration::from_secs(1800)));
        connected(&b, &app, "expiring").await;
        b.provider.set_access_lifetime(Some(Duration::from_secs(7200)));
        connected(&b, &app, "valid").await;
        consented(&b, &app, "pending").await;
        assert_refused(b.token(&dead.id).await, Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED");

        let [view, api] = statuses(&b).await;
        assert_eq!(view, api);
        // Each owner is named after what must be said of theirs.
        assert!(view.iter().all(|(owner, status)| owner == status), "{view:?}");
        assert_eq!(view.len(), 7, "{view:?}");
        b.finish().await;
    }
}
