//! What the forms of our pages carry, so that no other site can send one in a person's name.

use secrecy::SecretString;
use url::Url;

use super::Issuer;
use crate::crypto::{digest, random};

/// Forms that are open in browsers while this changes are refused.
const LABEL: &[u8] = b"tokenbroker.issuer.form.v1";

impl Issuer {
    /// What the form of a page carries: `id` is the request's, or the page's where there is none yet.
    /// Who can't read the browser's cookie can't tell it, and it does not tell the cookie.
    pub fn csrf(&self, id: &str, cookie: &str) -> String {
        csrf(id, cookie)
    }

    /// Whether a form is of this page and for this browser.
    pub fn csrf_fits(&self, id: &str, cookie: &str, sent: &str) -> bool {
        digest::constant_time_eq(csrf(id, cookie).as_bytes(), sent.as_bytes())
    }

    /// A cookie for a page that is shown before there is a request.
    pub fn form_cookie(&self) -> SecretString {
        random::random_token(32)
    }

    /// The operator's own sign-in and consent application: our pages for that are off where there is
    /// one, or whoever has a password would go around it.
    pub fn interaction_url(&self) -> Option<&Url> {
        self.parts.config.interaction_url.as_ref()
    }
}

fn csrf(id: &str, cookie: &str) -> String {
    let mut bytes = Vec::from(LABEL);
    for part in [id, cookie] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    digest::hex(&digest::sha256(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_of_one_page_in_one_browser() {
        let mine = csrf("areq_1", "cookie");
        assert_eq!(mine.len(), 64);
        assert_ne!(mine, csrf("areq_2", "cookie"));
        assert_ne!(mine, csrf("areq_1", "another"));
        assert_ne!(csrf("a", "bc"), csrf("ab", "c"));
    }
}
