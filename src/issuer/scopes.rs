//! Scopes and resources: what a client may ask for.

use std::collections::BTreeMap;

use url::Url;

use crate::model::{OauthClient, OauthError, OauthErrorCode};

/// Most resources of a request.
const RESOURCES_MAX: usize = 5;

/// Longest scope; clients can't be registered with longer ones.
const SCOPE_MAX: usize = 256;

/// A scope, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeWords {
    /// The scope.
    pub scope: String,
    /// What it allows, for people; the scope itself where there are no words for it.
    pub description: String,
}

/// The scopes in a `scope` parameter (RFC 6749 section 3.3), each once.
///
/// # Errors
/// `invalid_scope` for what has another form.
pub(super) fn parse(text: &str) -> Result<Vec<String>, OauthError> {
    let mut scopes: Vec<String> = Vec::new();
    for scope in text.split(' ').filter(|scope| !scope.is_empty()) {
        if !is_scope(scope) {
            return Err(invalid_scope("a scope holds characters that none has"));
        }
        if !scopes.iter().any(|other| other == scope) {
            scopes.push(scope.to_owned());
        }
    }
    Ok(scopes)
}

/// What a client asks for: of what it may, or all of that where it names nothing.
///
/// # Errors
/// `invalid_scope` for what it may not ask for.
pub(super) fn asked(client: &OauthClient, scopes: &[String]) -> Result<Vec<String>, OauthError> {
    let allowed = &client.settings.allowed_scopes;
    if scopes.is_empty() {
        return Ok(allowed.clone());
    }
    within(scopes, allowed).ok_or_else(|| {
        invalid_scope("the client asks for a scope that it may not ask for; see its allowed scopes")
    })
}

/// Some scopes, each once, if all of them are among others.
pub(super) fn within(scopes: &[String], allowed: &[String]) -> Option<Vec<String>> {
    let mut kept: Vec<String> = Vec::new();
    for scope in scopes {
        if !allowed.contains(scope) {
            return None;
        }
        if !kept.contains(scope) {
            kept.push(scope.clone());
        }
    }
    Some(kept)
}

/// The resources that are asked for (RFC 8707), each once, of those that we know.
///
/// # Errors
/// `invalid_target` for others.
pub(super) fn resources<'a>(
    known: &[String],
    asked: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<String>, OauthError> {
    let mut resources: Vec<String> = Vec::new();
    for resource in asked {
        let invalid = |text: &str| OauthError::new(OauthErrorCode::InvalidTarget, text);
        if resource.contains('#') || Url::parse(resource).is_err() {
            return Err(invalid("a resource is an absolute URI without a fragment"));
        }
        if !known.iter().any(|known| known == resource) {
            return Err(invalid("the resource is not known"));
        }
        if !resources.iter().any(|other| other == resource) {
            resources.push(resource.to_owned());
        }
        if resources.len() > RESOURCES_MAX {
            return Err(invalid("at most 5 resources can be asked for"));
        }
    }
    Ok(resources)
}

/// Scopes for people.
pub(super) fn in_words(words: &BTreeMap<String, String>, scopes: &[String]) -> Vec<ScopeWords> {
    let of = |scope: &String| ScopeWords {
        scope: scope.clone(),
        description: match (words.get(scope), scope.as_str()) {
            (Some(words), _) => words.clone(),
            (None, "openid") => "Know who you are here".to_owned(),
            (None, "profile") => "See your name".to_owned(),
            (None, "email") => "See your e-mail address".to_owned(),
            (None, "offline_access") => "Keep its access while you are away".to_owned(),
            (None, scope) => scope.to_owned(),
        },
    };
    scopes.iter().map(of).collect()
}

/// Whether a text is a scope-token (RFC 6749 section 3.3).
fn is_scope(text: &str) -> bool {
    (1..=SCOPE_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')
}

fn invalid_scope(description: &str) -> OauthError {
    OauthError::new(OauthErrorCode::InvalidScope, description)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn scopes_are_taken_apart_at_blanks_alone() {
        assert_eq!(parse("read  write read").unwrap(), ["read", "write"]);
        assert_eq!(parse("").unwrap(), Vec::<String>::new());
        for bad in ["re\"ad", "re\\ad", "read\twrite", "lé", "a\u{7f}"] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.code, OauthErrorCode::InvalidScope, "{bad:?}");
        }
        parse(&"a".repeat(SCOPE_MAX + 1)).unwrap_err();
    }

    #[test]
    fn nothing_beyond_what_is_allowed_is_kept() {
        let allowed = texts(&["read", "write"]);
        let kept = within(&texts(&["write", "write"]), &allowed);
        assert_eq!(kept, Some(texts(&["write"])));
        assert_eq!(within(&texts(&["write", "Read"]), &allowed), None);
    }

    #[test]
    fn a_resource_is_one_of_ours_to_the_letter() {
        let known = texts(&["https://api.example/v1"]);
        let taken = resources(&known, ["https://api.example/v1", "https://api.example/v1"]);
        assert_eq!(taken.unwrap(), known);
        assert!(resources(&known, []).unwrap().is_empty());
        for bad in [
            "https://api.example/v1/",
            "https://api.example/v1#",
            "api",
            "",
        ] {
            let error = resources(&known, [bad]).unwrap_err();
            assert_eq!(error.code, OauthErrorCode::InvalidTarget, "{bad:?}");
        }
        let many: Vec<_> = (0..6).map(|n| format!("https://api.example/{n}")).collect();
        resources(&many, many.iter().map(String::as_str)).unwrap_err();
    }

    #[test]
    fn own_words_stand_before_the_built_in_ones() {
        let words = BTreeMap::from([("email".to_owned(), "Your address".to_owned())]);
        let shown = in_words(&words, &texts(&["email", "profile", "x"]));
        let shown: Vec<_> = shown.iter().map(|it| it.description.as_str()).collect();
        assert_eq!(shown, ["Your address", "See your name", "x"]);
    }
}
