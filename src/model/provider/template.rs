//! `{name}` in URLs, parameters and headers.

use std::collections::BTreeMap;

use super::{Provider, Variable, VariablePattern};

/// The pieces of a template.
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// Puts values in the place of `{name}`. Names that `lookup` does not know, and unpaired braces,
/// are errors; the text is fit for people.
pub fn expand_template(
    template: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(template.len());
    for piece in pieces(template)? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => match lookup(name) {
                Some(value) => out.push_str(&value),
                None => return Err(format!("{{{name}}} is not a variable of this provider")),
            },
        }
    }
    Ok(out)
}

fn pieces(template: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let Some((name, tail)) = after.split_once('}') else {
            return Err("an opening brace is never closed".to_owned());
        };
        if text.contains('}') || name.contains('{') {
            return Err("braces do not pair".to_owned());
        }
        pieces.push(Piece::Text(text));
        pieces.push(Piece::Name(name));
        rest = tail;
    }
    if rest.contains('}') {
        return Err("braces do not pair".to_owned());
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

impl VariablePattern {
    /// Whether a value has this form.
    pub fn admits(self, value: &str) -> bool {
        match self {
            Self::Label => is_label(value),
            Self::Host => is_host(value),
            Self::Segment => {
                (1..=128).contains(&value.len())
                    && value
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                    && value.bytes().any(|b| b != b'.')
            }
        }
    }

    /// A value of this form, to try a template with.
    pub(super) fn sample(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Host => "host.example",
            Self::Segment => "segment",
        }
    }
}

fn is_label(value: &str) -> bool {
    (1..=63).contains(&value.len())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !value.starts_with('-')
        && !value.ends_with('-')
}

fn is_host(value: &str) -> bool {
    let (name, port) = match value.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (value, None),
    };
    value.len() <= 253
        && name.split('.').all(is_label)
        && port.is_none_or(|port| {
            port.parse::<u16>().is_ok_and(|number| number > 0)
                && port.bytes().all(|b| b.is_ascii_digit())
        })
}

impl Variable {
    fn value(&self, given: Option<&String>) -> Result<String, String> {
        let Some(value) = given.or(self.default.as_ref()) else {
            return Err("is required by this provider".to_owned());
        };
        if self.pattern.admits(value) {
            Ok(value.clone())
        } else {
            Err(match self.pattern {
                VariablePattern::Label => "must be one DNS label: letters, digits and hyphens",
                VariablePattern::Host => "must be a host name, with a port at most",
                VariablePattern::Segment => "must be letters, digits, '-', '_' and '.'",
            }
            .to_owned())
        }
    }
}

impl Provider {
    /// Checks an app's values for the template variables and fills in the defaults. The faults
    /// are (variable, what is wrong with it), all of them.
    pub fn resolve_variables(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Vec<(String, String)>> {
        let mut values = BTreeMap::new();
        let mut faults = Vec::new();
        for (name, variable) in &self.variables {
            match variable.value(given.get(name)) {
                Ok(value) => {
                    values.insert(name.clone(), value);
                }
                Err(fault) => faults.push((name.clone(), fault)),
            }
        }
        for name in given.keys() {
            if !self.variables.contains_key(name) {
                faults.push((
                    name.clone(),
                    "is not a variable of this provider".to_owned(),
                ));
            }
        }
        if faults.is_empty() {
            Ok(values)
        } else {
            Err(faults)
        }
    }

    /// Rewrites every URL that this provider is called at, templates unexpanded.
    pub fn map_endpoints(&mut self, mut rewrite: impl FnMut(&str) -> String) {
        for endpoint in self.endpoints_mut() {
            if !endpoint.is_empty() {
                *endpoint = rewrite(endpoint);
            }
        }
    }

    fn endpoints_mut(&mut self) -> Vec<&mut String> {
        let mut all = vec![&mut self.authorization_endpoint, &mut self.token_endpoint];
        all.extend(self.issuer.as_mut());
        all.extend(self.request_token_endpoint.as_mut());
        all.extend(self.refresh_endpoint.as_mut());
        all.extend(self.revocation.as_mut().map(|it| &mut it.endpoint));
        all.extend(self.userinfo.as_mut().map(|it| &mut it.endpoint));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_takes_known_names_only() {
        let lookup = |name: &str| (name == "tenant").then(|| "acme".to_owned());
        assert_eq!(
            expand_template("https://x/{tenant}/token", lookup).as_deref(),
            Ok("https://x/acme/token")
        );
        assert!(expand_template("https://x/{other}", lookup).is_err());
        assert!(expand_template("https://x/{tenant", lookup).is_err());
        assert!(expand_template("https://x/tenant}", lookup).is_err());
        assert!(expand_template("https://x/{{tenant}}", lookup).is_err());
    }

    #[test]
    fn a_variable_cannot_leave_its_place() {
        assert!(VariablePattern::Host.admits("gitlab.example.com:8443"));
        for bad in [
            "", "a/b", "a@b", "a?b", "a#b", "a b", "a..b", "a:0", "a:+1", "[::1]",
        ] {
            assert!(!VariablePattern::Host.admits(bad), "{bad}");
        }
        for bad in ["", "a.b", "-a", "a-", "a/b"] {
            assert!(!VariablePattern::Label.admits(bad), "{bad}");
        }
        for bad in ["", ".", "..", "a/b", "a%2fb"] {
            assert!(!VariablePattern::Segment.admits(bad), "{bad}");
        }
    }
}
