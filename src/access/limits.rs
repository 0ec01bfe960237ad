//! How often a caller may call, and how many streams it may hold.

/// The limits of one caller.
#[derive(Debug)]
pub struct Limiter;

impl Limiter {
    /// No limit.
    pub const fn unlimited() -> Self {
        Self
    }
}
