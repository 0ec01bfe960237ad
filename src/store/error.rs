//! What can go wrong below the domain.

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// A failure of the store. Causes are kept for the log; they never reach a caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another writer was in the way; the same transaction may succeed when tried again.
    #[error("the database was busy")]
    Busy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No connection could be had in time, or it broke.
    #[error("the database can't be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A defect: a statement that the schema refuses, a row that can't be read.
    #[error("the database refused a statement")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether running the whole transaction once more may help.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// A row that the model can't express.
    pub fn unreadable(what: impl std::fmt::Display) -> Self {
        Self::Internal(what.to_string().into())
    }
}

impl From<Diesel> for Error {
    fn from(error: Diesel) -> Self {
        match &error {
            Diesel::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => {
                Self::Busy(error.into())
            }
            Diesel::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
            | Diesel::BrokenTransactionManager => Self::Unavailable(error.into()),
            // What this row refers to went, or what refers to this row came, since the look: run
            // again, the look tells.
            Diesel::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => {
                Self::Busy(error.into())
            }
            // diesel has no kind for a deadlock, nor for SQLITE_BUSY: only the message tells.
            Diesel::DatabaseError(_, info)
                if info.message().contains("database is locked")
                    || info.message().contains("database table is locked")
                    || info.message().contains("deadlock detected") =>
            {
                Self::Busy(error.into())
            }
            Diesel::DatabaseError(_, info)
                if info.message().contains("connection closed")
                    || info.message().contains("error communicating with the server")
                    || info.message().contains("terminating connection")
                    // A statement timeout, a lock timeout.
                    || info.message().contains("canceling statement due to") =>
            {
                Self::Unavailable(error.into())
            }
            _ => Self::Internal(error.into()),
        }
    }
}

impl From<bb8::RunError<diesel_async::pooled_connection::PoolError>> for Error {
    fn from(error: bb8::RunError<diesel_async::pooled_connection::PoolError>) -> Self {
        Self::Unavailable(error.into())
    }
}
