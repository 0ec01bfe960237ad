//! What a client asks: its form, how it proves who it is, and that it holds a key.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::answer::Refused;
use crate::error::Error;
use crate::issuer::{Credentials, Parameters, Proof, SecretMethod};
use crate::model::OauthErrorCode;
use crate::web::form::{self, Unread};

/// The only sort of assertion that we take (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A request of a client.
pub(super) struct Asked {
    /// The form.
    pub(super) parameters: Parameters,
    /// Who asks.
    pub(super) credentials: Credentials,
    /// Whether they said so by HTTP Basic.
    pub(super) basic: bool,
    /// That it holds a key.
    pub(super) proof: Option<Proof>,
}

impl Asked {
    /// Reads a form that was posted to `address`.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) async fn read(
        headers: &HeaderMap,
        body: Body,
        address: String,
    ) -> Result<Self, Refused> {
        let form = form::read(headers, body)
            .await
            .map_err(|unread| match unread {
                Unread::NotAForm => {
                    Refused::invalid("the body must be application/x-www-form-urlencoded")
                }
                Unread::TooLong => {
                    Refused::invalid("the body is too long").with(StatusCode::PAYLOAD_TOO_LARGE)
                }
                Unread::Broken => Refused::invalid("the body did not come to its end"),
            })?;
        let parameters = Parameters::parse(&form)?;
        let (credentials, basic) = credentials(headers, &parameters)?;
        let proof = proof(headers, "POST", address)?;
        Ok(Self {
            parameters,
            credentials,
            basic,
            proof,
        })
    }

    /// A parameter; empty when it is not there.
    pub(super) fn text(&self, name: &str) -> String {
        self.parameters.get(name).unwrap_or_default().to_owned()
    }

    /// A parameter that is a secret; empty when it is not there.
    pub(super) fn secret(&self, name: &str) -> SecretString {
        SecretString::from(self.parameters.get(name).unwrap_or_default())
    }

    /// A parameter that is a secret and must be there.
    ///
    /// # Errors
    /// `invalid_request`.
    pub(super) fn required(&self, name: &str) -> Result<SecretString, Refused> {
        match self.parameters.get(name) {
            Some(value) => Ok(SecretString::from(value)),
            None => Err(Refused::invalid(&format!(
                "the parameter {name} is missing"
            ))),
        }
    }

    /// The scopes that are asked for (RFC 6749 section 3.3); none for all.
    pub(super) fn scopes(&self) -> Vec<String> {
        let text = self.parameters.get("scope").unwrap_or_default();
        let scopes = text.split(' ').filter(|scope| !scope.is_empty());
        scopes.map(str::to_owned).collect()
    }

    /// The resources that are asked for (RFC 8707).
    pub(super) fn resources(&self) -> Vec<String> {
        self.parameters.all("resource").map(str::to_owned).collect()
    }
}

/// How a client proves who it is, and whether it does by HTTP Basic. More than one way is an error
/// (RFC 6749 section 2.3).
fn credentials(
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<(Credentials, bool), Refused> {
    let posted_id = parameters.get("client_id").map(str::to_owned);
    let posted = parameters.get("client_secret");
    let assertion = parameters.get("client_assertion");
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let basic = match (sent.next(), sent.next()) {
        (None, _) => None,
        (Some(value), None) => Some(basic(value).ok_or_else(|| {
            let why =
                "the Authorization header is not HTTP Basic with a form-encoded name and secret";
            Refused::new(Error::oauth(OauthErrorCode::InvalidClient, why), true)
        })?),
        (Some(_), Some(_)) => return Err(Refused::invalid("there are two Authorization headers")),
    };
    let ways = [basic.is_some(), posted.is_some(), assertion.is_some()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        let why = "the client proves who it is in more than one way";
        return Err(Refused::invalid(why));
    }
    let kind = parameters.get("client_assertion_type");
    if assertion.is_some() && kind != Some(ASSERTION_TYPE) {
        let why = format!("the client_assertion_type must be {ASSERTION_TYPE}");
        return Err(Refused::invalid(&why));
    }
    let Some((id, secret)) = basic else {
        let credentials = Credentials {
            client_id: posted_id,
            secret: posted.map(|secret| (SecretMethod::Post, SecretString::from(secret))),
            assertion: assertion.map(SecretString::from),
            within: None,
        };
        return Ok((credentials, false));
    };
    if posted_id.is_some_and(|posted| posted != id) {
        let why = "the client_id is not that of the Authorization header";
        return Err(Refused::invalid(why));
    }
    let credentials = Credentials {
        client_id: Some(id),
        secret: Some((SecretMethod::Basic, secret)),
        ..Credentials::default()
    };
    Ok((credentials, true))
}

/// Name and secret (RFC 7617), each form-encoded before (RFC 6749 section 2.3.1).
fn basic(value: &HeaderValue) -> Option<(String, SecretString)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let secret = Zeroizing::new(decode(secret)?);
    Some((decode(id)?, SecretString::from(secret.as_str())))
}

/// One form-encoded word.
fn decode(word: &str) -> Option<String> {
    // Encoded, it has neither; they would take the word apart.
    if word.contains(['&', '=']) {
        return None;
    }
    let first = form_urlencoded::parse(word.as_bytes()).next();
    Some(first.map_or_else(String::new, |(word, _)| word.into_owned()))
}

/// The proof of possession that came with a request to `address` (RFC 9449 section 4.3).
///
/// # Errors
/// `invalid_dpop_proof` for more than one.
pub(super) fn proof(
    headers: &HeaderMap,
    method: &str,
    address: String,
) -> Result<Option<Proof>, Refused> {
    let invalid = |why: &str| Refused::from(Error::oauth(OauthErrorCode::InvalidDpopProof, why));
    let mut sent = headers.get_all("dpop").iter();
    let jwt = match (sent.next(), sent.next()) {
        (None, _) => return Ok(None),
        (Some(jwt), None) => jwt.to_str().map_err(|_| invalid("the proof is no JWT"))?,
        (Some(_), Some(_)) => return Err(invalid("there are two DPoP headers")),
    };
    Ok(Some(Proof {
        jwt: SecretString::from(jwt),
        method: method.to_owned(),
        uri: address,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn with_basic(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(text));
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    fn of(headers: &HeaderMap, form: &str) -> Result<(Credentials, bool), Refused> {
        credentials(headers, &Parameters::parse(form.as_bytes()).unwrap())
    }

    #[test]
    fn basic_is_form_encoded_inside() {
        let headers = with_basic("client%5F1:a+b%3A%26c");
        let (credentials, basic) = of(&headers, "client_id=client_1").unwrap();
        assert_eq!(credentials.client_id.as_deref(), Some("client_1"));
        let (method, secret) = credentials.secret.unwrap();
        assert_eq!(
            (method, secret.expose_secret()),
            (SecretMethod::Basic, "a b:&c")
        );
        assert!(basic);
        of(&with_basic("no colon"), "").unwrap_err();
        of(&with_basic("a:b&c=d"), "").unwrap_err();
        of(&with_basic("a:b"), "client_id=c").unwrap_err();
    }

    #[test]
    fn one_way_is_enough() {
        of(&with_basic("a:b"), "client_secret=b").unwrap_err();
        let typed = format!("client_assertion=x&client_assertion_type={ASSERTION_TYPE}");
        of(&with_basic("a:b"), &typed).unwrap_err();
        of(&HeaderMap::new(), &format!("{typed}&client_secret=b")).unwrap_err();
        of(&HeaderMap::new(), "client_assertion=x").unwrap_err();
        let (credentials, basic) = of(&HeaderMap::new(), &typed).unwrap();
        assert!(credentials.assertion.is_some() && !basic);
        let (public, _) = of(&HeaderMap::new(), "client_id=a").unwrap();
        assert!(public.secret.is_none() && public.assertion.is_none());
    }

    #[test]
    fn one_proof_is_enough() {
        let mut headers = HeaderMap::new();
        let read = |headers: &HeaderMap| proof(headers, "POST", String::new());
        assert!(read(&headers).unwrap().is_none());
        headers.append("dpop", HeaderValue::from_static("a.b.c"));
        assert!(read(&headers).unwrap().is_some());
        headers.append("dpop", HeaderValue::from_static("a.b.c"));
        read(&headers).unwrap_err();
    }
}
