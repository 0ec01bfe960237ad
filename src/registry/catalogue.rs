//! The providers known without set-up: `providers.toml`, embedded in the binary.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::model::Provider;

static EMBEDDED: LazyLock<Result<Catalogue, String>> =
    LazyLock::new(|| Catalogue::parse(include_str!("providers.toml")));

/// Provider definitions by id, and by alias.
#[derive(Debug)]
pub struct Catalogue {
    providers: BTreeMap<String, Provider>,
    aliases: BTreeMap<String, String>,
}

impl Catalogue {
    /// The catalogue of this binary, parsed at the first call. The error names every fault; a
    /// test sees to it that there is none.
    pub fn embedded() -> Result<&'static Self, String> {
        EMBEDDED.as_ref().map_err(Clone::clone)
    }

    /// Reads a catalogue: one TOML table a provider, whose name is the provider's id. All faults
    /// are reported together.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut providers: BTreeMap<String, Provider> =
            toml::from_str(text).map_err(|error| error.to_string())?;
        let mut aliases = BTreeMap::new();
        let mut faults = Vec::new();
        for (id, provider) in &mut providers {
            provider.id.clone_from(id);
            for (field, fault) in provider.validate() {
                faults.push(format!("{id}.{field} {fault}"));
            }
            for alias in &provider.aliases {
                if aliases.insert(alias.clone(), id.clone()).is_some() {
                    faults.push(format!("{id}.aliases {alias} is taken"));
                }
            }
        }
        for alias in aliases.keys().filter(|it| providers.contains_key(*it)) {
            faults.push(format!("{alias} is both an id and an alias"));
        }
        if faults.is_empty() {
            Ok(Self { providers, aliases })
        } else {
            Err(faults.join("; "))
        }
    }

    /// The provider of this id or alias.
    pub fn get(&self, id_or_alias: &str) -> Option<&Provider> {
        let id = self
            .aliases
            .get(id_or_alias)
            .map_or(id_or_alias, String::as_str);
        self.providers.get(id)
    }

    /// All providers, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.providers.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConnectionKind;

    #[test]
    fn the_embedded_catalogue_is_sound() {
        let catalogue = Catalogue::embedded().unwrap();
        for id in [
            "google",
            "gcp",
            "github",
            "github-app",
            "microsoft",
            "azure",
            "aws",
            "vercel",
            "netlify",
            "cloudflare",
            "zapier",
            "x",
            "twitter",
            "slack",
            "gitlab",
            "atlassian",
            "notion",
            "salesforce",
            "hubspot",
            "dropbox",
            "discord",
            "linkedin",
            "motion",
        ] {
            assert!(catalogue.get(id).is_some(), "{id}");
        }
        assert_eq!(catalogue.get("twitter"), catalogue.get("x"));
        let motion = catalogue.get("motion").unwrap();
        assert_eq!(motion.kind, ConnectionKind::ApiKey);
        assert_eq!(motion.token_header.name, "X-API-Key");
    }

    #[test]
    fn a_definition_survives_storage() {
        for provider in Catalogue::embedded().unwrap().iter() {
            let text = serde_json::to_string(provider).unwrap();
            let back: Provider = serde_json::from_str(&text).unwrap();
            assert_eq!(provider, &back);
        }
    }

    #[test]
    fn the_defaults_of_variables_are_usable() {
        for provider in Catalogue::embedded().unwrap().iter() {
            let required = provider
                .variables
                .iter()
                .filter(|it| it.1.default.is_none());
            let given = required.map(|(name, _)| (name.clone(), "sample".to_owned()));
            let values = provider.resolve_variables(&given.collect()).unwrap();
            assert_eq!(values.len(), provider.variables.len(), "{}", provider.id);
        }
    }

    #[test]
    fn faults_are_reported_together() {
        let text = "[one]\ndisplay_name = 'One'\n[two]\ndisplay_name = ''\naliases = ['one']";
        let faults = Catalogue::parse(text).unwrap_err();
        for part in [
            "one.token_endpoint",
            "two.display_name",
            "one is both an id and an alias",
        ] {
            assert!(faults.contains(part), "{faults}");
        }
        assert!(Catalogue::parse("[one]\nunknown = 1").is_err());
    }
}
