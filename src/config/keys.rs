//! `[keys]`: the keys that seal secrets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::database::Engine;
use super::reader::Reader;

/// The length of a key, in bytes.
const KEY_LENGTH: usize = 32;

/// The keys that seal secrets. With neither a file nor inline keys nothing can be sealed or
/// opened, and `serve` does not start.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The key file; on SQLite `keys.toml` under the data folder where nothing else is given.
    pub file: Option<PathBuf>,
    /// Keys given in the configuration: an id, and 32 bytes in standard base64 with padding.
    pub inline: Vec<(String, SecretString)>,
    /// The id of the key that seals; `None` takes the file's choice, or the first inline key.
    pub active: Option<String>,
}

impl Keys {
    pub(super) fn read(reader: &mut Reader, engine: &Engine, data_dir: &Path) -> Self {
        let given = reader.optional_path("keys.file");
        let inline = entries(reader);
        let active = reader.optional_text("keys.active");
        if given.is_some() && !inline.is_empty() {
            reader.fault("keys.file", "set either this or keys.entries, not both");
        }
        if let Some(active) = &active
            && !inline.is_empty()
            && !inline.iter().any(|(id, _)| id == active)
        {
            let problem = format!("keys.entries has no key {active:?}");
            reader.fault("keys.active", problem);
        }
        let file = match engine {
            Engine::Sqlite { .. } if inline.is_empty() => {
                Some(given.unwrap_or_else(|| data_dir.join("keys.toml")))
            }
            _ => given,
        };
        Self {
            file,
            inline,
            active,
        }
    }
}

/// Parses `id:base64` entries. Faults name them by position: an entry without a colon may be a
/// bare key.
fn entries(reader: &mut Reader) -> Vec<(String, SecretString)> {
    const KEY: &str = "keys.entries";
    let mut ids = BTreeSet::new();
    let mut keys = Vec::new();
    for (index, entry) in reader.secret_texts(KEY).iter().enumerate() {
        let position = index + 1;
        let Some((id, key)) = entry.split_once(':') else {
            reader.fault(
                KEY,
                format!("entry {position} is not of the form id:base64"),
            );
            continue;
        };
        if !is_key_id(id) {
            let problem =
                format!("the id of entry {position} is not 1 to 32 letters, digits, - or _");
            reader.fault(KEY, problem);
            continue;
        }
        let decoded = STANDARD.decode(key.trim()).map(Zeroizing::new);
        if !decoded.is_ok_and(|bytes| bytes.len() == KEY_LENGTH) {
            let problem = format!("the key {id:?} is not {KEY_LENGTH} bytes in base64");
            reader.fault(KEY, problem);
            continue;
        }
        if !ids.insert(id.to_owned()) {
            reader.fault(KEY, format!("the id {id:?} is given twice"));
        }
        keys.push((id.to_owned(), SecretString::from(key.trim())));
    }
    keys
}

fn is_key_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=32).contains(&id.len()) && id.chars().all(plain)
}
