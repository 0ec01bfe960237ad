//! Takes values out of the merged sources by key, and remembers everything that is wrong.
//!
//! An accessor that meets a fault records it and goes on with the embedded default, so that one
//! run reports every fault. The values of such a run are never used: [`Reader::finish`] then
//! answers the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;
use zeroize::Zeroizing;

use super::fault::{Fault, Faults};
use super::sources::{self, Entries, Entry, Layer, Raw, Sources};
use super::values;

/// What a secret's file may hold at most, in bytes: enough for a PEM key, too little to let a
/// wrong path (a device, a log) eat the memory.
const SECRET_FILE_LIMIT: u64 = 64 * 1024;

/// A reader over the merged sources.
pub(super) struct Reader {
    entries: Entries,
    defaults: Entries,
    variables: BTreeMap<String, String>,
    asked: BTreeSet<String>,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(sources: Sources) -> Self {
        let mut faults = Vec::new();
        let entries = sources::merged(&sources, &mut faults);
        Self {
            entries,
            defaults: sources::defaults(&mut Vec::new()),
            variables: sources.variables,
            asked: BTreeSet::new(),
            faults,
        }
    }

    /// Ends the reading: every key that nobody asked for is a fault too.
    pub(super) fn finish(mut self) -> Result<(), Faults> {
        let unknown: Vec<(String, Layer)> = self
            .entries
            .iter()
            .filter(|(key, _)| !self.asked.contains(*key))
            .map(|(key, entry)| (key.clone(), entry.layer))
            .collect();
        for (key, layer) in unknown {
            let problem = self.why_unknown(&key);
            self.push(&key, layer, problem);
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(Faults::new(self.faults))
    }

    /// The keys asked for so far, in order.
    #[cfg(test)]
    pub(super) fn asked(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().map(String::as_str)
    }

    fn why_unknown(&self, key: &str) -> String {
        let section = format!("{key}.");
        if self.asked.iter().any(|asked| asked.starts_with(&section)) {
            return "this is a section; it has keys, not a value".to_owned();
        }
        let parent = key.rsplit_once('.').map(|(parent, _)| parent);
        if parent.is_some_and(|parent| self.asked.contains(parent)) {
            return "unknown key: the key before the dot takes a value, not a table".to_owned();
        }
        "unknown key".to_owned()
    }

    // ---- faults ----

    /// Records a fault of `key`'s value.
    pub(super) fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let layer = self.layer(key);
        self.push(key, layer, problem.into());
    }

    fn push(&mut self, key: &str, layer: Layer, mut problem: String) {
        if layer == Layer::Environment {
            let variable = sources::variable_of_key(key);
            problem.push_str(&format!(" (set by {variable})"));
        }
        self.faults.push(Fault {
            key: key.to_owned(),
            problem,
        });
    }

    /// Whether none of these keys has a fault yet, so that comparing them makes sense.
    pub(super) fn sound(&self, keys: &[&str]) -> bool {
        !self
            .faults
            .iter()
            .any(|fault| keys.contains(&fault.key.as_str()))
    }

    /// Which source the value of `key` came from.
    pub(super) fn layer(&self, key: &str) -> Layer {
        self.entries
            .get(key)
            .map_or(Layer::Default, |entry| entry.layer)
    }

    /// Whether a source above the defaults gave `key` a value that is not empty.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| entry.layer > Layer::Default && !is_empty(entry))
    }

    // ---- taking values ----

    /// The value where there is one: absent keys are no fault.
    fn optional<T>(&mut self, key: &str, parse: impl Fn(&Raw) -> Result<T, String>) -> Option<T> {
        self.asked.insert(key.to_owned());
        let entry = self.entries.get(key)?;
        match parse(&entry.raw) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(key, problem);
                let default = self.defaults.get(key)?;
                parse(&default.raw).ok()
            }
        }
    }

    fn required<T>(&mut self, key: &str, parse: impl Fn(&Raw) -> Result<T, String>) -> Option<T> {
        if !self.entries.contains_key(key) {
            self.fault(key, "this key must be set");
        }
        self.optional(key, parse)
    }

    pub(super) fn boolean(&mut self, key: &str) -> bool {
        self.required(key, values::boolean).unwrap_or_default()
    }

    /// True or false; none is false.
    pub(super) fn optional_boolean(&mut self, key: &str) -> bool {
        self.optional(key, values::boolean).unwrap_or_default()
    }

    /// A whole number within `range`, or none.
    pub(super) fn optional_integer<T>(&mut self, key: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + PartialOrd + Display + TryFrom<i64>,
    {
        self.optional(key, |raw| integer_within(raw, &range))
    }

    /// A whole number within `range`.
    pub(super) fn integer<T>(&mut self, key: &str, range: RangeInclusive<T>) -> T
    where
        T: Copy + PartialOrd + Display + TryFrom<i64>,
    {
        let parsed = self.required(key, |raw| integer_within(raw, &range));
        parsed.unwrap_or(*range.start())
    }

    /// A number within `range`.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> f64 {
        let parsed = self.required(key, |raw| {
            let value = values::number(raw)?;
            if range.contains(&value) {
                return Ok(value);
            }
            Err(out_of_range(&value, range.start(), range.end()))
        });
        parsed.unwrap_or(*range.start())
    }

    /// A duration within `range`.
    pub(super) fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Duration {
        let parsed = self.required(key, |raw| {
            let value = values::duration(raw)?;
            if range.contains(&value) {
                return Ok(value);
            }
            Err(out_of_range(
                &humantime::format_duration(value),
                &humantime::format_duration(*range.start()),
                &humantime::format_duration(*range.end()),
            ))
        });
        parsed.unwrap_or(*range.start())
    }

    /// A size in bytes within `range`.
    pub(super) fn bytes(&mut self, key: &str, range: RangeInclusive<u64>) -> usize {
        let parsed = self.required(key, |raw| {
            let value = values::bytes(raw)?;
            if !range.contains(&value) {
                return Err(out_of_range(&value, range.start(), range.end()) + " bytes");
            }
            usize::try_from(value).map_err(|_| format!("{value} is out of range"))
        });
        parsed.unwrap_or_default()
    }

    /// One of the named choices.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.required(key, |raw| {
            let text = values::text(raw)?;
            let found = choices.iter().find(|(name, _)| *name == text);
            found.map(|(_, choice)| *choice).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                format!("{text:?} is none of {}", names.join(", "))
            })
        })
    }

    /// A string that is not empty.
    pub(super) fn text(&mut self, key: &str) -> String {
        let parsed = self.required(key, |raw| {
            let text = values::text(raw)?;
            if text.trim().is_empty() {
                return Err("this must not be empty".to_owned());
            }
            Ok(text)
        });
        parsed.unwrap_or_default()
    }

    /// A string; an empty one or none is `None`.
    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        self.optional(key, values::text)
            .filter(|text| !text.trim().is_empty())
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        self.optional(key, values::texts).unwrap_or_default()
    }

    /// A list whose items parse; each one that does not is a fault of its own.
    pub(super) fn list<T: FromStr>(&mut self, key: &str, what: &str) -> Vec<T> {
        let mut parsed = Vec::new();
        for text in self.texts(key) {
            match text.parse() {
                Ok(item) => parsed.push(item),
                Err(_) => self.fault(key, format!("{text:?} is not {what}")),
            }
        }
        parsed
    }

    /// A value that parses from a string, such as a socket address.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &str, what: &str) -> Option<T> {
        self.required(key, |raw| {
            let text = values::text(raw).map_err(|_| not(raw, what))?;
            text.trim().parse().map_err(|_| not(raw, what))
        })
    }

    pub(super) fn path(&mut self, key: &str) -> PathBuf {
        self.required(key, values::path).unwrap_or_default()
    }

    /// A path; an empty one or none is `None`.
    pub(super) fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        self.optional(key, |raw| match values::text(raw) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            _ => values::path(raw).map(Some),
        })
        .flatten()
    }

    pub(super) fn url(&mut self, key: &str) -> Option<Url> {
        self.required(key, values::url)
    }

    /// A URL; an empty one or none is `None`.
    pub(super) fn optional_url(&mut self, key: &str) -> Option<Url> {
        self.optional(key, |raw| match values::text(raw) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            _ => values::url(raw).map(Some),
        })
        .flatten()
    }

    // ---- secrets ----

    /// A secret, from `<key>` or from the file that `<key>_file` names; both empty is `None`.
    /// The one from the later source wins, so that a variable can replace a file's; two from one
    /// source are a fault.
    pub(super) fn secret(&mut self, key: &str) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        let inline = self
            .optional(key, |raw| secret_text(raw).map(Zeroizing::new))
            .filter(|text| !text.is_empty());
        let file = self.optional_path(&file_key);
        match (inline, file) {
            (Some(_), Some(_)) if self.layer(key) == self.layer(&file_key) => {
                self.fault(key, format!("set either this or {file_key}, not both"));
                None
            }
            (inline, Some(path)) if inline.is_none() || self.layer(&file_key) > self.layer(key) => {
                self.secret_file(&file_key, &path)
            }
            (inline, _) => inline.map(|text| SecretString::from(text.as_str())),
        }
    }

    /// The secret in the environment variable that `key` names.
    pub(super) fn secret_variable(&mut self, key: &str) -> Option<SecretString> {
        let name = self.optional_text(key)?;
        match self.variables.get(&name) {
            Some(value) if !value.is_empty() => Some(SecretString::from(value.as_str())),
            Some(_) => {
                self.fault(key, format!("the environment variable {name} is empty"));
                None
            }
            None => {
                self.fault(key, format!("the environment variable {name} is not set"));
                None
            }
        }
    }

    fn secret_file(&mut self, key: &str, path: &Path) -> Option<SecretString> {
        match read_secret(path) {
            Ok(secret) => Some(secret),
            Err(problem) => {
                self.fault(key, format!("{} {problem}", path.display()));
                None
            }
        }
    }

    /// A list of strings that hold secrets: no fault's text shows them.
    pub(super) fn secret_texts(&mut self, key: &str) -> Vec<Zeroizing<String>> {
        let parsed = self.optional(key, |raw| {
            values::texts(raw).map_err(|_| "this is not a list of strings".to_owned())
        });
        let texts = parsed.unwrap_or_default();
        texts.into_iter().map(Zeroizing::new).collect()
    }

    // ---- tables ----

    /// The positions in an array of tables: those that the file or a variable mentions.
    pub(super) fn positions(&mut self, key: &str) -> BTreeSet<usize> {
        let prefix = format!("{key}.");
        let empty = self.entries.get(key).is_some_and(is_empty);
        if empty {
            self.asked.insert(key.to_owned());
        }
        self.entries
            .keys()
            .filter_map(|full| full.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('.').next()?.parse().ok())
            .collect()
    }

    /// All strings under `key`, by the names that the table gives them.
    pub(super) fn text_map(&mut self, key: &str) -> BTreeMap<String, String> {
        let prefix = format!("{key}.");
        let names: Vec<String> = self
            .entries
            .keys()
            .filter_map(|full| full.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect();
        let mut map = BTreeMap::new();
        for name in names {
            if let Some(text) = self.optional(&format!("{prefix}{name}"), values::text) {
                map.insert(name, text);
            }
        }
        map
    }
}

fn is_empty(entry: &Entry) -> bool {
    match &entry.raw {
        Raw::Text(text) | Raw::Typed(toml::Value::String(text)) => text.trim().is_empty(),
        Raw::Typed(toml::Value::Array(items)) => items.is_empty(),
        Raw::Typed(_) => false,
    }
}

fn integer_within<T>(raw: &Raw, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: PartialOrd + Display + TryFrom<i64>,
{
    let value = values::integer(raw)?;
    T::try_from(value)
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| out_of_range(&value, range.start(), range.end()))
}

fn not(raw: &Raw, what: &str) -> String {
    format!("{} is not {what}", values::shown(raw))
}

fn out_of_range(value: &impl Display, least: &impl Display, most: &impl Display) -> String {
    format!("{value} is not within {least} to {most}")
}

/// A secret is taken as it stands, quotation marks and all.
fn secret_text(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) | Raw::Typed(toml::Value::String(text)) => Ok(text.clone()),
        Raw::Typed(_) => Err("a secret must be a string".to_owned()),
    }
}

/// Reads a secret from a file, without the line end that editors and `echo` leave.
fn read_secret(path: &Path) -> Result<SecretString, String> {
    let unreadable = |error: std::io::Error| format!("can't be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut content = Zeroizing::new(Vec::new());
    file.take(SECRET_FILE_LIMIT + 1)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > SECRET_FILE_LIMIT {
        return Err(format!("is longer than {SECRET_FILE_LIMIT} bytes"));
    }
    let text = std::str::from_utf8(&content).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(SecretString::from(text))
}
