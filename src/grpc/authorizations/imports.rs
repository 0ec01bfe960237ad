//! Imports on the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use secrecy::SecretString;
use tonic::{Request, Response, Status};

use super::{fingerprinted, policy};
use crate::access::requests::Once;
use crate::broker::authorizations::{Imported, NewImport};
use crate::grpc::caller::principal;
use crate::grpc::connections::connection;
use crate::grpc::convert;
use crate::grpc::fields::{CLIENT_ID_MAX, Fields, NAME_MAX, SECRET_MAX, ordered};
use crate::grpc::token_broker::Context;
use crate::pb::{self, import_connection_request::Credentials};

/// Most labels of a connection, and the longest key and value, in characters.
const LABELS_MAX: (usize, usize, usize) = (64, 128, 1_024);
/// Longest token type, in characters.
const TOKEN_TYPE_MAX: usize = 64;

pub(in crate::grpc) async fn import(
    context: &Context,
    request: Request<pb::ImportConnectionRequest>,
) -> Result<Response<pb::ImportConnectionResponse>, Status> {
    let principal = principal(&request)?;
    let mut request = request.into_inner();
    let request_id = request.request_id.clone();
    let labels = ordered(std::mem::take(&mut request.labels));
    let message = fingerprinted(request.encode_to_vec(), &labels);
    let new = new_import(request, labels)?;
    let authorizations = Arc::clone(&context.authorizations);
    let imported = context
        .tasks
        .run(async move {
            let tenant = &principal.tenant;
            let once = Once::of(tenant, "ImportConnection", &request_id, &message);
            authorizations.import(&principal, new, once).await
        })
        .await?;
    Ok(Response::new(pb::ImportConnectionResponse {
        connection: Some(connection(&imported, context.clock.now())),
    }))
}

fn new_import(
    request: pb::ImportConnectionRequest,
    labels: BTreeMap<String, String>,
) -> Result<NewImport, crate::Error> {
    let mut fields = Fields::new();
    fields.required("app", &request.app, CLIENT_ID_MAX);
    fields.required("owner", &request.owner, NAME_MAX);
    fields.text("account_id", &request.account_id, NAME_MAX);
    fields.text("display_name", &request.display_name, NAME_MAX);
    let credentials = credentials(&mut fields, request.credentials);
    let refresh_policy = policy(&mut fields, request.refresh_policy);
    let (entries, key, value) = LABELS_MAX;
    fields.map("labels", labels.iter(), entries, key, value);
    fields.request_id(&request.request_id);
    fields.finish()?;
    let Some(credentials) = credentials else {
        return Err(crate::Error::invalid("credentials", "is required"));
    };
    Ok(NewImport {
        app: request.app,
        owner: request.owner,
        account_id: request.account_id,
        display_name: request.display_name,
        credentials,
        refresh_policy,
        labels,
    })
}

fn credentials(fields: &mut Fields, credentials: Option<Credentials>) -> Option<Imported> {
    let Some(credentials) = credentials else {
        fields.check(false, "credentials", "is required");
        return None;
    };
    Some(match credentials {
        Credentials::Oauth2(tokens) => oauth2(fields, tokens),
        Credentials::Oauth1(pb::ImportedOAuth1 {
            token,
            token_secret,
        }) => {
            fields.secret("oauth1.token", &token, SECRET_MAX);
            fields.secret("oauth1.token_secret", &token_secret, SECRET_MAX);
            Imported::OAuth1 {
                token: token.into(),
                token_secret: token_secret.into(),
            }
        }
        Credentials::ApiKey(pb::ImportedApiKey { api_key }) => {
            fields.secret("api_key.api_key", &api_key, SECRET_MAX);
            Imported::ApiKey {
                key: api_key.into(),
            }
        }
    })
}

fn oauth2(fields: &mut Fields, tokens: pb::ImportedOAuth2) -> Imported {
    let pb::ImportedOAuth2 {
        access_token,
        refresh_token,
        expire_time,
        scopes,
        token_type,
    } = tokens;
    fields.check(
        !access_token.is_empty() || !refresh_token.is_empty(),
        "oauth2",
        "an access token or a refresh token is required",
    );
    for (field, token) in [
        ("oauth2.access_token", &access_token),
        ("oauth2.refresh_token", &refresh_token),
    ] {
        if !token.is_empty() {
            fields.secret(field, token, SECRET_MAX);
        }
    }
    let expires_at = expire_time.as_ref().and_then(convert::from_timestamp);
    fields.check(
        expire_time.is_none() || expires_at.is_some(),
        "oauth2.expire_time",
        "is no time",
    );
    fields.scopes("oauth2.scopes", &scopes);
    fields.text("oauth2.token_type", &token_type, TOKEN_TYPE_MAX);
    let secret = |token: String| (!token.is_empty()).then(|| SecretString::from(token));
    Imported::OAuth2 {
        access_token: secret(access_token),
        refresh_token: secret(refresh_token),
        expires_at,
        scopes,
        token_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_needs_something_to_import() {
        let request = |credentials| pb::ImportConnectionRequest {
            app: "a".to_owned(),
            owner: "o".to_owned(),
            credentials,
            ..pb::ImportConnectionRequest::default()
        };
        assert!(new_import(request(None), BTreeMap::new()).is_err());
        let empty = Credentials::Oauth2(pb::ImportedOAuth2::default());
        assert!(new_import(request(Some(empty)), BTreeMap::new()).is_err());
        let key = Credentials::ApiKey(pb::ImportedApiKey {
            api_key: "k".to_owned(),
        });
        assert!(new_import(request(Some(key)), BTreeMap::new()).is_ok());
    }
}
