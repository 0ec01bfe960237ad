//! Rows locked until the transaction ends. On SQLite nothing is to be locked: whoever is in a transaction
//! is the only writer.

/// Loads what a query finds, and locks its rows until the transaction ends, waiting for whoever holds
/// one. In PostgreSQL they come as they are then, not as they were.
macro_rules! lock {
    ($tx:expr, $query:expr) => {
        match $tx.as_conn() {
            $crate::store::pool::Conn::Sqlite(pooled) => $query.load(&mut **pooled).await,
            $crate::store::pool::Conn::Postgres(pooled) => {
                $query.for_no_key_update().load(&mut **pooled).await
            }
        }
    };
}
pub(super) use lock;

/// Loads what a query finds, and locks its rows until the transaction ends. Rows that others
/// have locked are passed by: replicas that do the same at the same time share the work, and nobody who
/// holds a row and wants another meets one that does so the other way round.
macro_rules! lock_unlocked {
    ($tx:expr, $query:expr) => {
        match $tx.as_conn() {
            $crate::store::pool::Conn::Sqlite(pooled) => $query.load(&mut **pooled).await,
            $crate::store::pool::Conn::Postgres(pooled) => {
                $query.for_update().skip_locked().load(&mut **pooled).await
            }
        }
    };
}
pub(super) use lock_unlocked;

/// Deletes up to a limit of the rows whose time, the named column, was before the one given, and that
/// are as `and` says.
macro_rules! delete_before {
    (
        $tx:expr, $table:ident, $key:ident as $kind:ty, $time:ident, $before:expr, $limit:expr
        $(, and $more:expr)?
    ) => {
        async {
            let query = $table::table
                .filter($table::$time.lt($before))
                $(.filter($more))?
                .order($table::$time)
                .limit($limit)
                .select($table::$key);
            let keys: Vec<$kind> = $crate::store::locks::lock_unlocked!($tx, query)?;
            if keys.is_empty() {
                return Ok::<usize, $crate::store::Error>(0);
            }
            let target = $table::table.filter($table::$key.eq_any(keys));
            let deleted =
                $crate::store::pool::on!($tx, |c| diesel::delete(target).execute(c).await)?;
            Ok(deleted)
        }
        .await
    };
}
pub(super) use delete_before;
