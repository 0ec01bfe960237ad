//! Where the configuration comes from, and how the sources lie over each other.
//!
//! Every source is flattened to `section.key` before it is laid over the one below, so that a
//! file or a variable replaces single keys and never a whole section. Arrays of tables (`[[apps]]`)
//! are flattened by position (`apps.0.client_id`), which is how a variable reaches into them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::{Table, Value};

use super::fault::Fault;

/// The annotated defaults, the lowest source.
pub(super) const DEFAULTS: &str = include_str!("../../config.default.toml");

/// What the names of the variables that set keys begin with. `TOKENBROKER_CONFIG`, and what
/// Kubernetes adds for a service of this name (`TOKENBROKER_PORT`), have one underscore and are
/// not keys.
pub(super) const PREFIX: &str = "TOKENBROKER__";

/// The sources above the embedded defaults: an optional file, then the environment.
#[derive(Clone, Default)]
pub struct Sources {
    pub(super) file: Option<PathBuf>,
    pub(super) variables: BTreeMap<String, String>,
    /// Names of variables whose value is not UTF-8. Dropping them silently would start the
    /// server with a default that the operator meant to replace.
    pub(super) not_unicode: Vec<String>,
}

impl Sources {
    /// A file, if any, and the environment variables to look at.
    pub fn new(
        file: Option<PathBuf>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self {
            file,
            variables: variables.into_iter().collect(),
            not_unicode: Vec::new(),
        }
    }

    /// The environment of this process, and `file` or else the file that `TOKENBROKER_CONFIG`
    /// names.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let mut sources = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    sources.variables.insert(name, value);
                }
                Err(_) => sources.not_unicode.push(name),
            }
        }
        sources.file = file.or_else(|| {
            let named = sources.variables.get("TOKENBROKER_CONFIG")?;
            (!named.is_empty()).then(|| PathBuf::from(named))
        });
        sources
    }
}

/// Which source a value came from; a later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Default,
    File,
    Environment,
}

/// A value as its source gave it.
#[derive(Clone)]
pub(super) enum Raw {
    /// From TOML: it has a type.
    Typed(Value),
    /// From a variable: the reader knows what type to expect and parses it as that.
    Text(String),
}

/// A value and its source.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) layer: Layer,
}

/// All values by full key.
pub(super) type Entries = BTreeMap<String, Entry>;

/// Lays the sources over each other. What can't be read or parsed becomes a fault, and the
/// sources below it stay.
pub(super) fn merged(sources: &Sources, faults: &mut Vec<Fault>) -> Entries {
    let mut entries = defaults(faults);
    if let Some(path) = &sources.file {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => lay_text(&text, &name, Layer::File, &mut entries, faults),
            Err(error) => faults.push(Fault {
                key: name,
                problem: format!("this configuration file can't be read: {error}"),
            }),
        }
    }
    for (name, value) in &sources.variables {
        if let Some(key) = key_of_variable(name) {
            let entry = Entry {
                raw: Raw::Text(value.clone()),
                layer: Layer::Environment,
            };
            entries.insert(key, entry);
        }
    }
    for name in &sources.not_unicode {
        if let Some(key) = key_of_variable(name) {
            faults.push(Fault {
                key,
                problem: format!("the value of {name} is not UTF-8"),
            });
        }
    }
    entries
}

/// The embedded defaults alone.
pub(super) fn defaults(faults: &mut Vec<Fault>) -> Entries {
    let mut entries = Entries::new();
    lay_text(
        DEFAULTS,
        "config.default.toml",
        Layer::Default,
        &mut entries,
        faults,
    );
    entries
}

/// The variable that sets `key`.
pub(super) fn variable_of_key(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn key_of_variable(name: &str) -> Option<String> {
    let path = name.strip_prefix(PREFIX)?;
    Some(path.replace("__", ".").to_lowercase())
}

fn lay_text(text: &str, name: &str, layer: Layer, entries: &mut Entries, faults: &mut Vec<Fault>) {
    match text.parse::<Table>() {
        Ok(table) => flatten(Value::Table(table), String::new(), layer, entries),
        Err(error) => {
            let position = error.span().map(|span| line_of(text, span.start));
            // The error's own Display quotes the line, which may hold a secret.
            faults.push(Fault {
                key: name.to_owned(),
                problem: match position {
                    Some(line) => format!("line {line} is not TOML: {}", error.message()),
                    None => format!("this is not TOML: {}", error.message()),
                },
            });
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    1 + before.filter(|byte| *byte == b'\n').count()
}

fn flatten(value: Value, key: String, layer: Layer, entries: &mut Entries) {
    let under = |child: &str| match key.as_str() {
        "" => child.to_owned(),
        parent => format!("{parent}.{child}"),
    };
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                flatten(value, under(&name), layer, entries);
            }
        }
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
            for (index, item) in items.into_iter().enumerate() {
                flatten(item, under(&index.to_string()), layer, entries);
            }
        }
        value => {
            let raw = Raw::Typed(value);
            entries.insert(key, Entry { raw, layer });
        }
    }
}
