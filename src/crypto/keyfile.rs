//! Where keys come from: a file that the first start makes, or entries of the configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{
    STANDARD, STANDARD_NO_PAD_INDIFFERENT, URL_SAFE_NO_PAD_INDIFFERENT,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Error, KEY_BYTES, KeyFileFault, Keyring, is_key_id, private_file, random};
use crate::clock::Clock;

/// A key file of more bytes than this is not one.
const FILE_MAX: u64 = 64 * 1024;

const HEADING: &str = "\
# The sealing keys of tokenbroker. Whoever has this file can open every token in the database, and
# without it nobody can. Keep a copy, and keep it apart from the copies of the database.
";

/// The keys in use while a file or the configuration is read.
type Keys = BTreeMap<String, Zeroizing<[u8; KEY_BYTES]>>;

/// Makes a key file with one new random key, readable by its owner alone, and the folder where
/// it lies. Returns when the file is on the disk, so nothing is sealed with a key that a power
/// cut could take.
///
/// # Errors
/// [`Error::KeyFile`]: the file exists already, or can't be written.
pub fn create(path: &Path) -> Result<Keyring, Error> {
    if let Some(folder) = path.parent() {
        private_file::create_folder(folder)
            .map_err(|cause| at(path, io_fault("written", cause)))?;
    }
    let id = fresh_id(&Keys::new());
    let keys = Keys::from([(id.clone(), fresh_key())]);
    private_file::write_new(path, render(&id, &keys).as_bytes()).map_err(|cause| {
        at(
            path,
            match cause.kind() {
                io::ErrorKind::AlreadyExists => KeyFileFault::Exists,
                _ => io_fault("written", cause),
            },
        )
    })?;
    Keyring::new(&id, keys)
}

/// Reads a key file.
///
/// # Errors
/// [`Error::KeyFile`]: missing, usable by others than its owner (Unix), or not a key file.
pub fn load(path: &Path) -> Result<Keyring, Error> {
    let (active, keys) = read(path)?;
    Keyring::new(&active, keys).map_err(|error| at(path, KeyFileFault::Keys(Box::new(error))))
}

/// Adds a new random key to a key file and makes it the active one. The older keys stay, to open
/// what they sealed. The file is replaced as a whole: comments that were added to it are lost.
///
/// # Errors
/// As [`load`], or the file can't be written.
pub fn rotate(path: &Path) -> Result<Keyring, Error> {
    let (_, mut keys) = read(path)?;
    let id = fresh_id(&keys);
    keys.insert(id.clone(), fresh_key());
    private_file::replace(path, render(&id, &keys).as_bytes())
        .map_err(|cause| at(path, io_fault("written", cause)))?;
    Keyring::new(&id, keys).map_err(|error| at(path, KeyFileFault::Keys(Box::new(error))))
}

/// A keyring of `(id, key)` entries, each key 32 bytes in base64, standard or URL-safe, padded or
/// not. `active` may be left out when there is one entry.
///
/// # Errors
/// [`Error::NoKeys`], [`Error::ActiveUnset`], [`Error::ActiveMissing`], [`Error::KeyId`],
/// [`Error::KeyRepeated`] or [`Error::KeyText`].
pub fn from_entries(
    active: Option<&str>,
    entries: &[(String, SecretString)],
) -> Result<Keyring, Error> {
    let active = match (active, entries) {
        (_, []) => return Err(Error::NoKeys),
        (Some(active), _) => active,
        (None, [(only, _)]) => only,
        (None, _) => return Err(Error::ActiveUnset),
    };
    let keys = entries
        .iter()
        .map(|(id, text)| Ok((id.clone(), decode(id, text.expose_secret())?)))
        .collect::<Result<Vec<_>, Error>>()?;
    Keyring::new(active, keys)
}

/// The file as TOML has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    active: String,
    keys: BTreeMap<String, RawKey>,
}

/// The text of a key, wiped when dropped.
struct RawKey(SecretString);

impl<'de> Deserialize<'de> for RawKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::from(text)))
    }
}

fn read(path: &Path) -> Result<(String, Keys), Error> {
    let text = read_text(path).map_err(|fault| at(path, fault))?;
    if text.trim().is_empty() {
        return Err(at(path, KeyFileFault::Empty));
    }
    let raw: Raw = toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.bytes().take(start);
        let line = 1 + before.filter(|byte| *byte == b'\n').count();
        at(path, KeyFileFault::Syntax { line })
    })?;
    let keys = raw
        .keys
        .into_iter()
        .map(|(id, key)| {
            let key = decode(&id, key.0.expose_secret())?;
            Ok((id, key))
        })
        .collect::<Result<Keys, Error>>()
        .map_err(|error| at(path, KeyFileFault::Keys(Box::new(error))))?;
    Ok((raw.active, keys))
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, KeyFileFault> {
    let file = File::open(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => KeyFileFault::Missing,
        _ => io_fault("read", cause),
    })?;
    refuse_exposed(&file)?;
    let length = file
        .metadata()
        .map_err(|cause| io_fault("read", cause))?
        .len()
        .min(FILE_MAX);
    // The whole length from the start: growing would leave copies of the keys behind.
    let capacity = usize::try_from(length).unwrap_or_default() + 1;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(|cause| io_fault("read", cause))?;
    Ok(text)
}

/// Judges the file that was opened, not the path, which could name another one by now.
#[cfg(unix)]
fn refuse_exposed(file: &File) -> Result<(), KeyFileFault> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = file.metadata().map_err(|cause| io_fault("read", cause))?;
    let mode = metadata.permissions().mode() & 0o7777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(KeyFileFault::Exposed { mode }),
    }
}

/// Elsewhere access lists decide, and the folder's are inherited.
#[cfg(not(unix))]
fn refuse_exposed(_file: &File) -> Result<(), KeyFileFault> {
    Ok(())
}

fn decode(id: &str, text: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, Error> {
    if !is_key_id(id) {
        return Err(Error::KeyId);
    }
    let text = text.trim();
    let engine = if text.contains(['-', '_']) {
        URL_SAFE_NO_PAD_INDIFFERENT
    } else {
        STANDARD_NO_PAD_INDIFFERENT
    };
    let fault = || Error::KeyText { id: id.to_owned() };
    let bytes = Zeroizing::new(engine.decode(text).map_err(|_| fault())?);
    let key = <&[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| fault())?;
    Ok(Zeroizing::new(*key))
}

fn fresh_key() -> Zeroizing<[u8; KEY_BYTES]> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    random::fill(key.as_mut_slice());
    key
}

/// `k` and the time in seconds as eight hexadecimal digits, so that the ids made here sort by
/// age; the next free one where a key was made in the same second.
fn fresh_id(taken: &Keys) -> String {
    let mut seconds = Clock::system().now().micros() / 1_000_000;
    loop {
        let id = format!("k{seconds:08x}");
        if !taken.contains_key(&id) {
            return id;
        }
        seconds += 1;
    }
}

fn render(active: &str, keys: &Keys) -> Zeroizing<String> {
    let line = 64 + KEY_BYTES * 2;
    let mut text = Zeroizing::new(String::with_capacity(
        HEADING.len() + line * (2 + keys.len()),
    ));
    text.push_str(HEADING);
    // Ids have no character that TOML would want quoted, and writing to a string can't fail.
    let _ = writeln!(text, "active = \"{active}\"\n\n[keys]");
    for (id, key) in keys {
        let encoded = Zeroizing::new(STANDARD.encode(key.as_slice()));
        let _ = writeln!(text, "{id} = \"{}\"", encoded.as_str());
    }
    text
}

fn at(path: &Path, fault: KeyFileFault) -> Error {
    Error::KeyFile {
        path: path.to_owned(),
        fault,
    }
}

fn io_fault(action: &'static str, cause: io::Error) -> KeyFileFault {
    KeyFileFault::Io { action, cause }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::crypto::{Context, Purpose};

    const HERE: Context<'static> = Context {
        tenant: "acme",
        purpose: Purpose::GrantRefreshToken,
        row: "grnt_1",
    };

    /// 32 bytes of 0xfb in both alphabets.
    const STANDARD_TEXT: &str = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=";
    const URL_SAFE_TEXT: &str = "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s";

    fn fault(result: Result<Keyring, Error>) -> KeyFileFault {
        match result {
            Err(Error::KeyFile { fault, .. }) => fault,
            other => panic!("not a fault of the key file: {other:?}"),
        }
    }

    fn write(path: &Path, text: &str) {
        let _ = fs::remove_file(path);
        private_file::write_new(path, text.as_bytes()).unwrap();
    }

    #[test]
    fn a_made_file_is_loaded_and_rotated() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data").join("keys.toml");
        let made = create(&path).unwrap();
        let sealed = made.seal(&HERE, b"refresh token").unwrap();

        let loaded = load(&path).unwrap();
        assert_eq!(loaded.active_id(), made.active_id());
        assert_eq!(&**loaded.open(&HERE, &sealed).unwrap(), b"refresh token");

        let rotated = rotate(&path).unwrap();
        assert!(rotated.active_id() > made.active_id());
        for keys in [&rotated, &load(&path).unwrap()] {
            assert_eq!(keys.active_id(), rotated.active_id());
            assert_eq!(&**keys.open(&HERE, &sealed).unwrap(), b"refresh token");
            assert_eq!(keys.fingerprint("t", b"s"), made.fingerprint("t", b"s"));
        }
    }

    #[test]
    fn an_existing_file_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys.toml");
        let made = create(&path).unwrap();
        assert!(matches!(fault(create(&path)), KeyFileFault::Exists));
        assert_eq!(load(&path).unwrap().active_id(), made.active_id());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data").join("keys.toml");
        create(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        for exposed in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
            assert!(rotate(&path).is_err());
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        load(&path).unwrap();
    }

    #[test]
    fn faults_name_the_line_and_never_the_key() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys.toml");
        assert!(matches!(fault(load(&path)), KeyFileFault::Missing));
        write(&path, "");
        assert!(matches!(fault(load(&path)), KeyFileFault::Empty));

        let cases = [
            format!("active = \"k1\"\nkeys = \"{STANDARD_TEXT}\"\n"),
            format!("active = \"k1\"\n{STANDARD_TEXT}\n"),
            format!("active = \"k1\"\nmore = \"{STANDARD_TEXT}\"\n[keys]\n"),
            format!("active = \"k1\"\n[keys]\n\"{STANDARD_TEXT}\" = \"k1\"\n"),
            format!("active = \"k1\"\n[keys]\nk1 = \"{STANDARD_TEXT}AAAA\"\n"),
            format!("active = \"{STANDARD_TEXT}\"\n[keys]\nk1 = \"{STANDARD_TEXT}\"\n"),
        ];
        for text in cases {
            write(&path, &text);
            let error = load(&path).unwrap_err();
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(!shown.contains("v7+/v7"), "{shown}");
            }
        }
        write(&path, "active = \"k1\"\nmore = 1\n[keys]\n");
        assert!(matches!(
            fault(load(&path)),
            KeyFileFault::Syntax { line: 2 }
        ));
    }

    #[test]
    fn entries_may_be_in_either_alphabet() {
        let entry = |id: &str, text: &str| (id.to_owned(), SecretString::from(text));
        let one = from_entries(None, &[entry("k1", STANDARD_TEXT)]).unwrap();
        let other = from_entries(None, &[entry("k1", &format!(" {URL_SAFE_TEXT}\n"))]).unwrap();
        let sealed = one.seal(&HERE, b"refresh token").unwrap();
        assert_eq!(&**other.open(&HERE, &sealed).unwrap(), b"refresh token");

        let two = [entry("k1", STANDARD_TEXT), entry("k2", URL_SAFE_TEXT)];
        assert_eq!(from_entries(Some("k2"), &two).unwrap().active_id(), "k2");
        assert!(matches!(from_entries(None, &two), Err(Error::ActiveUnset)));
        assert!(matches!(from_entries(None, &[]), Err(Error::NoKeys)));
        let short = [entry("k1", "c2hvcnQ=")];
        assert!(matches!(
            from_entries(None, &short),
            Err(Error::KeyText { .. })
        ));
    }
}
