//! Forms: read within limits, and those of our pages only as we handed them out.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::Edge;

/// Longest form, in bytes.
pub(super) const BODY_MAX: usize = 16 * 1_024;

/// How long a form may take to come in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most fields of a page's form: ours have three.
const FIELDS_MAX: usize = 16;

/// Why a form was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It says that it is something else.
    NotAForm,
    /// It is longer than [`BODY_MAX`].
    TooLong,
    /// It did not come to its end in time.
    Broken,
}

/// The body of a form. It may hold secrets, so its memory is cleared.
///
/// # Errors
/// [`Unread`].
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Zeroizing<Vec<u8>>, Unread> {
    if !is_form(headers) {
        return Err(Unread::NotAForm);
    }
    let told = headers.get(header::CONTENT_LENGTH);
    let told = told.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > BODY_MAX) {
        return Err(Unread::TooLong);
    }
    // Never grown: what is moved leaves a copy behind.
    let mut form = Zeroizing::new(Vec::with_capacity(BODY_MAX));
    let mut chunks = body.into_data_stream();
    let reading = async {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Unread::Broken)?;
            if form.len() + chunk.len() > BODY_MAX {
                return Err(Unread::TooLong);
            }
            form.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    read.unwrap_or(Err(Unread::Broken))?;
    Ok(form)
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(first), None) = (types.next(), types.next()) else {
        return false;
    };
    let first = first.to_str().unwrap_or_default();
    let essence = first.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The fields of a form of ours.
pub(super) struct Fields(Vec<(String, Zeroizing<String>)>);

impl Fields {
    fn parse(form: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(form).take(FIELDS_MAX);
        let fields = pairs.map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into())));
        Self(fields.collect())
    }

    /// A field; empty when it is not there, or more than once.
    pub(super) fn get(&self, name: &str) -> &str {
        let mut named = self.0.iter().filter(|(other, _)| other == name);
        match (named.next(), named.next()) {
            (Some((_, value)), None) => value,
            _ => "",
        }
    }
}

/// A form that one of our pages sent, from the browser that the page was for.
pub(super) struct Sent {
    /// What ties the browser to the page's request.
    pub(super) cookie: String,
    /// What was filled in.
    pub(super) fields: Fields,
}

/// Why a form is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It could not be read.
    Unread(Unread),
    /// Another site sent it, or a page that was for another browser.
    Foreign,
    /// The browser brings no cookie.
    NoCookie,
}

/// The form of the page `key`, which is a request's id or a page's name.
///
/// # Errors
/// [`Unfit`].
pub(super) async fn sent(
    edge: &Edge,
    key: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Sent, Unfit> {
    if !is_from_us(headers, &edge.origin) {
        return Err(Unfit::Foreign);
    }
    let cookie = edge.cookies.find(headers, key).ok_or(Unfit::NoCookie)?;
    let form = read(headers, body).await.map_err(Unfit::Unread)?;
    let fields = Fields::parse(&form);
    if !edge.issuer.csrf_fits(key, cookie, fields.get("csrf")) {
        return Err(Unfit::Foreign);
    }
    Ok(Sent {
        cookie: cookie.to_owned(),
        fields,
    })
}

/// Whether the browser does not say that another site sent this. Beside the forms' own proof, which
/// older browsers depend on. Our pages send no referrer, so `Origin` may be `null` for our own forms.
fn is_from_us(headers: &HeaderMap, origin: &str) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let site_fits = matches!(site, None | Some(b"same-origin" | b"none"));
    let told = headers.get(header::ORIGIN).map(|value| value.as_bytes());
    let origin_fits = told.is_none_or(|told| told == b"null" || told == origin.as_bytes());
    site_fits && origin_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        });
        pairs.collect()
    }

    #[tokio::test]
    async fn only_forms_of_a_decent_size_are_read() {
        let form = headers(&[(
            "content-type",
            "application/x-www-form-urlencoded; charset=UTF-8",
        )]);
        let long = "a".repeat(BODY_MAX + 1);
        let whole = read(&form, Body::from("a=b")).await.unwrap();
        assert_eq!(*whole, b"a=b");
        let refused = read(&form, Body::from(long)).await;
        assert_eq!(refused.unwrap_err(), Unread::TooLong);
        for other in [
            headers(&[("content-type", "application/json")]),
            HeaderMap::new(),
        ] {
            let refused = read(&other, Body::from("a=b")).await;
            assert_eq!(refused.unwrap_err(), Unread::NotAForm);
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_not_there() {
        let fields = Fields::parse(b"a=1&b=2&a=3&c=%26+x");
        assert_eq!((fields.get("a"), fields.get("b")), ("", "2"));
        assert_eq!((fields.get("c"), fields.get("d")), ("& x", ""));
    }

    #[test]
    fn what_another_site_sends_is_told_apart() {
        let ours = |pairs: &[(&'static str, &'static str)]| {
            is_from_us(&headers(pairs), "https://b.example")
        };
        assert!(ours(&[]));
        assert!(ours(&[
            ("origin", "https://b.example"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(ours(&[
            ("origin", "null"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(!ours(&[("origin", "https://evil.example")]));
        assert!(!ours(&[
            ("origin", "null"),
            ("sec-fetch-site", "cross-site")
        ]));
        assert!(!ours(&[("sec-fetch-site", "same-site")]));
    }
}
