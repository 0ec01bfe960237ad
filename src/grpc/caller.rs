//! Who calls: put on the request by the authentication layer.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use tonic::{Extensions, Request, Status};

use crate::access::{Caller, Origin, Peer, Principal};
use crate::error::{Error, Unknown};

/// The caller of a request, and where they call from.
///
/// # Errors
/// UNAUTHENTICATED when no layer put one there: a request never passes as nobody's.
pub fn principal<T>(request: &Request<T>) -> Result<Caller, Status> {
    let principal = Arc::clone(among(request.extensions())?);
    Ok(Caller::new(principal, origin(request)))
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

/// Where a request comes from.
pub fn origin<T>(request: &Request<T>) -> Origin {
    origin_of(request.metadata().as_ref(), request.extensions())
}

/// The address that a request comes from.
pub fn address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().and_then(|peer| peer.ip)
}

/// Where a request of these parts comes from.
pub fn origin_of(headers: &HeaderMap, extensions: &Extensions) -> Origin {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    Origin {
        ip: address(extensions),
        user_agent: Origin::clean_user_agent(text("user-agent")),
        trace_id: trace_id(text("traceparent")),
    }
}

/// The trace id of a `traceparent` (W3C Trace Context, version 00).
fn trace_id(traceparent: &str) -> String {
    let id = traceparent.split('-').nth(1).unwrap_or_default();
    let well_formed = id.len() == 32
        && id
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && id.bytes().any(|byte| byte != b'0');
    if well_formed {
        id.to_owned()
    } else {
        String::new()
    }
}
