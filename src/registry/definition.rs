//! Definitions of a tenant's own providers: what was sent becomes a [`Provider`], or a list of
//! faults by field.

use serde_json::{Map, Value};
use url::Url;

use super::reject;
use crate::error::{Error, FieldViolation};
use crate::model::Provider;
use crate::model::provider::expand_template;
use crate::oauth::AddressFilter;

/// Longest text of a fault that comes from the JSON reader.
const LONGEST_FAULT: usize = 200;

/// The definition of the provider `id`: the given fields in the place of the drafted ones, each as
/// a whole, and the defaults for the rest.
///
/// # Errors
/// [`Error::InvalidArgument`] with every fault as `definition.<field>`: first those of unknown
/// fields and of values that are not of their field's form, then what [`Provider::validate`] finds.
pub(super) fn read(
    id: &str,
    draft: Option<Provider>,
    given: &Map<String, Value>,
) -> Result<Provider, Error> {
    reject(misshapen(id, given))?;
    let mut merged = fields(&draft.unwrap_or_default())?;
    merged.extend(given.clone());
    merged.insert("id".to_owned(), Value::from(id));
    let provider: Provider = serde_json::from_value(Value::Object(merged))
        .map_err(|error| Error::invalid("definition", clip(&error)))?;
    let mut faults: Vec<_> = provider
        .validate()
        .into_iter()
        .map(|(field, fault)| violation(&field, fault))
        .collect();
    if !provider.aliases.is_empty() {
        faults.push(violation(
            "aliases",
            "only providers of the catalogue have aliases",
        ));
    }
    reject(faults)?;
    Ok(provider)
}

/// Each field is read on its own, so that all that are misshapen are found.
fn misshapen(id: &str, given: &Map<String, Value>) -> Vec<FieldViolation> {
    let known = fields(&Provider::default()).unwrap_or_default();
    let mut faults = Vec::new();
    for (name, value) in given {
        if !known.contains_key(name) {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            faults.push(violation(
                &shown,
                "is not a field of a definition; docs/providers.md lists them",
            ));
            continue;
        }
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<Provider>(Value::Object(alone)) {
            faults.push(violation(name, clip(&error)));
        }
    }
    if given.get("id").is_some_and(|given| given != id) {
        faults.push(violation("id", "is not the provider's; it can be left out"));
    }
    faults
}

/// What is wrong with the addresses of a provider's endpoints, as `<endpoint>` and text: literal
/// ones and loopback are judged by the filter, other names when they are resolved. Variables count
/// with their default.
pub(super) fn address_faults(
    provider: &Provider,
    filter: &AddressFilter,
) -> Vec<(&'static str, String)> {
    endpoints(provider)
        .into_iter()
        .filter(|(_, template)| !admits(provider, template, filter))
        .map(|(field, _)| {
            let fault = "is at an address that this server may not call (`providers` in the \
                         configuration)";
            (field, fault.to_owned())
        })
        .collect()
}

fn admits(provider: &Provider, template: &str, filter: &AddressFilter) -> bool {
    let sample = |name: &str| {
        let variable = provider.variables.get(name);
        let default = variable.and_then(|variable| variable.default.clone());
        Some(default.unwrap_or_else(|| "value".to_owned()))
    };
    let url = expand_template(template, sample)
        .ok()
        .and_then(|text| Url::parse(&text).ok());
    // What is no URL is a fault of its own.
    url.is_none_or(|url| filter.admits_url(&url))
}

fn endpoints(provider: &Provider) -> Vec<(&'static str, &str)> {
    let optional = [
        ("issuer", provider.issuer.as_deref()),
        (
            "request_token_endpoint",
            provider.request_token_endpoint.as_deref(),
        ),
        ("refresh_endpoint", provider.refresh_endpoint.as_deref()),
        (
            "revocation.endpoint",
            provider.revocation.as_ref().map(|it| it.endpoint.as_str()),
        ),
        (
            "userinfo.endpoint",
            provider.userinfo.as_ref().map(|it| it.endpoint.as_str()),
        ),
    ];
    let mut all = vec![
        (
            "authorization_endpoint",
            provider.authorization_endpoint.as_str(),
        ),
        ("token_endpoint", provider.token_endpoint.as_str()),
    ];
    all.extend(
        optional
            .into_iter()
            .filter_map(|(field, endpoint)| Some((field, endpoint?))),
    );
    all.retain(|(_, endpoint)| !endpoint.is_empty());
    all
}

/// The names of the fields that two definitions differ in, in order, between spaces.
///
/// # Errors
/// [`Error::Internal`] when one can't be written as JSON, which none does.
pub(super) fn differing(before: &Provider, after: &Provider) -> Result<String, Error> {
    let (before, after) = (fields(before)?, fields(after)?);
    let names: std::collections::BTreeSet<&String> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .collect();
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    Ok(names.join(" "))
}

/// A definition as its fields, by the names in docs/providers.md.
///
/// # Errors
/// [`Error::Internal`] when it can't be written as JSON, which none does.
pub(super) fn fields(provider: &Provider) -> Result<Map<String, Value>, Error> {
    match serde_json::to_value(provider).map_err(Error::internal)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::internal("a definition is not an object")),
    }
}

pub(super) fn violation(field: &str, description: impl Into<String>) -> FieldViolation {
    FieldViolation::new(format!("definition.{field}"), description)
}

fn clip(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_FAULT)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::provider::{
        AdditionalScopes, ErrorClass, ErrorRule, Pkce, RevocationEndpoint, Userinfo, Variable,
    };

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn plain() -> Map<String, Value> {
        object(json!({
            "display_name": "Acme",
            "authorization_endpoint": "https://acme.example/authorize",
            "token_endpoint": "https://acme.example/token",
        }))
    }

    fn faulty(given: &Map<String, Value>) -> Vec<String> {
        match read("acme", None, given) {
            Err(Error::InvalidArgument(faults)) => faults.into_iter().map(|it| it.field).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_definition_is_a_few_lines() {
        let provider = read("acme", None, &plain()).unwrap();
        assert_eq!(provider.id, "acme");
        assert_eq!(provider.pkce, Pkce::Use);
    }

    #[test]
    fn what_is_read_can_be_sent_back() {
        let provider = read("acme", None, &plain()).unwrap();
        let again = read("acme", None, &fields(&provider).unwrap()).unwrap();
        assert_eq!(provider, again);
    }

    #[test]
    fn given_fields_replace_drafted_ones_as_a_whole() {
        let draft = Provider {
            display_name: "id.acme.example".to_owned(),
            pkce: Pkce::Required,
            userinfo: Some(Userinfo {
                endpoint: "https://acme.example/me".to_owned(),
                ..Userinfo::default()
            }),
            ..read("acme", None, &plain()).unwrap()
        };
        let given = object(json!({ "display_name": "Acme", "userinfo": null }));
        let merged = read("acme", Some(draft), &given).unwrap();
        assert_eq!(merged.display_name, "Acme");
        assert_eq!(merged.pkce, Pkce::Required);
        assert_eq!(merged.userinfo, None);
        assert_eq!(merged.token_endpoint, "https://acme.example/token");
    }

    #[test]
    fn every_fault_is_named_with_its_field() {
        let mut misshapen = plain();
        misshapen.extend(object(json!({
            "unknown": 1,
            "pkce": "plain",
            "refresh_margin": "soon",
            "id": "other",
            "token_response": { "unknown": "x" },
        })));
        let mut found = faulty(&misshapen);
        found.sort();
        assert_eq!(
            found,
            [
                "definition.id",
                "definition.pkce",
                "definition.refresh_margin",
                "definition.token_response",
                "definition.unknown",
            ]
        );
        let mut unsound = plain();
        unsound.extend(object(json!({
            "display_name": "",
            "token_endpoint": "http://acme.example/token",
            "aliases": ["other"],
        })));
        assert_eq!(
            faulty(&unsound),
            [
                "definition.display_name",
                "definition.token_endpoint",
                "definition.aliases",
            ]
        );
    }

    #[test]
    fn addresses_are_judged_before_anything_is_kept() {
        let mut given = plain();
        given.extend(object(json!({
            "token_endpoint": "https://10.0.0.1/token",
            "refresh_endpoint": "https://localhost/token",
            "revocation": { "endpoint": "https://{host}/revoke" },
            "variables": { "host": { "default": "169.254.169.254", "pattern": "host" } },
        })));
        let provider = read("acme", None, &given).unwrap();
        let fields = |filter: &AddressFilter| -> Vec<_> {
            let faults = address_faults(&provider, filter);
            faults.into_iter().map(|(field, _)| field).collect()
        };
        assert_eq!(
            fields(&AddressFilter::default()),
            ["token_endpoint", "refresh_endpoint", "revocation.endpoint"]
        );
        let private = AddressFilter::new(true, Vec::new());
        assert_eq!(fields(&private), ["revocation.endpoint"]);
    }

    /// The reference names every field, those of nested objects included.
    #[test]
    fn the_reference_is_complete() {
        let reference = include_str!("../../docs/providers.md");
        let full = Provider {
            variables: [("name".to_owned(), Variable::default())].into(),
            additional_scopes: Some(AdditionalScopes::default()),
            revocation: Some(RevocationEndpoint::default()),
            userinfo: Some(Userinfo::default()),
            error_map: vec![ErrorRule {
                status: None,
                code: None,
                message_contains: None,
                class: ErrorClass::Transient,
            }],
            ..Provider::default()
        };
        let mut names = Vec::new();
        for (field, value) in fields(&full).unwrap() {
            let nested = match (&field[..], &value) {
                ("variables", value) => value.get("name"),
                (_, Value::Array(items)) => items.first(),
                (_, value) => Some(value),
            };
            if let Some(Value::Object(inner)) = nested {
                names.extend(inner.keys().map(|name| format!("{field}.{name}")));
            }
            names.push(field);
        }
        let missing: Vec<_> = names
            .iter()
            .filter(|name| !reference.contains(&format!("| `{name}` |")))
            .collect();
        assert!(missing.is_empty(), "docs/providers.md lacks {missing:?}");
        let written = reference
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .map(|(name, _)| name);
        let unknown: Vec<_> = written
            .filter(|name| !names.iter().any(|known| known == name))
            .collect();
        assert!(unknown.is_empty(), "docs/providers.md has {unknown:?}");
    }
}
