//! Who calls: put on the request by the authentication layer.

use std::sync::Arc;

use tonic::{Extensions, Request, Status};

use crate::access::Principal;
use crate::error::{Error, Unknown};

/// The caller of a request.
///
/// # Errors
/// UNAUTHENTICATED when no layer put one there: a request never passes as nobody's.
pub fn principal<T>(request: &Request<T>) -> Result<Arc<Principal>, Status> {
    among(request.extensions()).map(Arc::clone)
}

/// The caller among a request's extensions.
///
/// # Errors
/// As [`principal`].
pub fn among(extensions: &Extensions) -> Result<&Arc<Principal>, Status> {
    extensions
        .get::<Arc<Principal>>()
        .ok_or_else(|| Error::Unauthenticated(Unknown::Missing).into())
}
