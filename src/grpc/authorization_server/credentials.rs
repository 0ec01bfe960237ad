//! How clients prove who they are, and where they are, on the wire.

use std::net::IpAddr;

use secrecy::SecretString;

use crate::access::caller::USER_AGENT_MAX;
use crate::access::{Caller, Origin};
use crate::grpc::fields::{Fields, NAME_MAX, URL_MAX};
use crate::issuer::{Credentials, Proof, SecretMethod};
use crate::pb;

/// Longest token, assertion and proof, in characters.
pub(super) const JWT_MAX: usize = 8_192;
/// Longest code, secret and refresh token taken, in characters; ours have 53.
pub(super) const SECRET_MAX: usize = 255;
/// Longest method of a request, in characters.
const METHOD_MAX: usize = 16;
/// Most resources of a request.
const RESOURCES_MAX: usize = 5;

/// Whoever asks as a client, through a caller of its tenant.
pub(super) fn credentials(
    fields: &mut Fields,
    caller: &Caller,
    wire: Option<pb::ClientCredentials>,
) -> Credentials {
    fields.check(wire.is_some(), "credentials", "is required");
    let pb::ClientCredentials {
        client_id,
        client_secret,
        client_assertion,
    } = wire.unwrap_or_default();
    fields.check(
        !client_id.is_empty() || !client_assertion.is_empty(),
        "credentials.client_id",
        "is required, unless client_assertion is set",
    );
    // Any text: one that is nobody's is `invalid_client`, whatever it looks like.
    fields.text("credentials.client_id", &client_id, NAME_MAX);
    optional(
        fields,
        "credentials.client_secret",
        &client_secret,
        SECRET_MAX,
    );
    optional(
        fields,
        "credentials.client_assertion",
        &client_assertion,
        JWT_MAX,
    );
    fields.check(
        client_secret.is_empty() || client_assertion.is_empty(),
        "credentials.client_assertion",
        "must not be set beside client_secret",
    );
    Credentials {
        client_id: Some(client_id).filter(|id| !id.is_empty()),
        secret: given(client_secret).map(|secret| (SecretMethod::Either, secret)),
        assertion: given(client_assertion),
        within: Some(caller.tenant.clone()),
    }
}

/// A proof of possession, if there is one.
pub(super) fn proof(fields: &mut Fields, wire: Option<pb::DpopProof>) -> Option<Proof> {
    let pb::DpopProof {
        proof,
        http_method,
        http_uri,
    } = wire?;
    fields.secret("dpop.proof", &proof, JWT_MAX);
    fields.required("dpop.http_method", &http_method, METHOD_MAX);
    fields.required("dpop.http_uri", &http_uri, URL_MAX);
    Some(Proof {
        jwt: SecretString::from(proof),
        method: http_method,
        uri: http_uri,
    })
}

/// The resources that a token is to be for. Which are known is the issuer's to say.
pub(super) fn resources(fields: &mut Fields, resources: &[String]) {
    fields.check(
        resources.len() <= RESOURCES_MAX,
        "resources",
        format!("at most {RESOURCES_MAX} are allowed"),
    );
    for (index, resource) in resources.iter().take(RESOURCES_MAX).enumerate() {
        fields.required(&format!("resources[{index}]"), resource, URL_MAX);
    }
}

/// Where a client is, where the caller is a gateway before it and says so; otherwise the caller's.
pub(super) fn client_origin(
    fields: &mut Fields,
    mut origin: Origin,
    client_ip: &str,
    client_user_agent: &str,
) -> Origin {
    if !client_ip.is_empty() {
        let ip: Option<IpAddr> = client_ip.parse().ok();
        fields.check(ip.is_some(), "client_ip", "is no IP address");
        origin.ip = ip;
    }
    if !client_user_agent.is_empty() {
        fields.text("client_user_agent", client_user_agent, USER_AGENT_MAX);
        origin.user_agent = Origin::clean_user_agent(client_user_agent);
    }
    origin
}

/// A secret that may be left out.
pub(super) fn optional(fields: &mut Fields, field: &str, secret: &str, max: usize) {
    if !secret.is_empty() {
        fields.secret(field, secret, max);
    }
}

fn given(secret: String) -> Option<SecretString> {
    (!secret.is_empty()).then(|| secret.into())
}
