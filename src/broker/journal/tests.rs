use secrecy::SecretString;
use zeroize::Zeroizing;

use super::*;
use crate::broker::token_set::TokenSet;
use crate::model::Timestamp;

fn keyring(active: &str, fills: &[u8]) -> Keyring {
    let keys = fills
        .iter()
        .map(|fill| (format!("k{fill}"), Zeroizing::new([*fill; 32])));
    Keyring::new(active, keys).unwrap()
}

fn entry(grant_id: &str, generation: i64) -> Entry {
    let metadata = serde_json::json!({ "team": "T1", "count": 2 });
    Entry {
        tenant: "acme \"quoted\"\n".to_owned(),
        grant_id: grant_id.to_owned(),
        generation,
        tokens: TokenSet {
            sent_at: Timestamp::from_micros(1_000_000 * generation),
            access_token: Some(SecretString::from("access-token-in-plaintext")),
            refresh_token: Some(SecretString::from("refresh \"token\" \n in plaintext")),
            id_token: None,
            token_secret: None,
            token_type: "Bearer".to_owned(),
            expires_at: Some(Timestamp::from_micros(3_600_000_000)),
            refresh_expires_at: None,
            scopes: Some(vec!["read".to_owned(), "write".to_owned()]),
            metadata: metadata.as_object().unwrap().clone(),
        },
    }
}

fn file_names(folder: &Path) -> Vec<String> {
    let mut found = names(folder).unwrap();
    found.sort();
    found
}

#[tokio::test]
async fn an_entry_survives_a_restart_until_it_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("journal");
    let journal = Journal::open(&folder, keyring("k1", &[1])).unwrap();
    let written = journal.write(&entry("grnt_1", 7)).await.unwrap();
    drop(journal);

    let journal = Journal::open(&folder, keyring("k2", &[1, 2])).unwrap();
    let entries = journal.entries().await.unwrap();
    let [(found, read)] = entries.as_slice() else {
        panic!("one entry, not {}", entries.len());
    };
    assert_eq!(*found, written);
    let meant = entry("grnt_1", 7);
    assert_eq!(read.tenant, meant.tenant);
    assert_eq!(read.grant_id, meant.grant_id);
    assert_eq!(read.generation, meant.generation);
    assert_eq!(
        read.tokens.to_json().unwrap(),
        meant.tokens.to_json().unwrap()
    );

    journal.remove(found).await.unwrap();
    journal.remove(found).await.unwrap();
    assert!(journal.entries().await.unwrap().is_empty());
    assert!(file_names(&folder).is_empty());
}

#[tokio::test]
async fn entries_come_in_the_order_they_were_sent() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), keyring("k1", &[1])).unwrap();
    for generation in [3, 11, 2] {
        journal.write(&entry("grnt_1", generation)).await.unwrap();
    }
    let entries = journal.entries().await.unwrap();
    let order: Vec<_> = entries.iter().map(|(_, read)| read.generation).collect();
    assert_eq!(order, [2, 3, 11]);
}

#[tokio::test]
async fn files_and_debug_show_no_token() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), keyring("k1", &[1])).unwrap();
    let written = journal.write(&entry("grnt_1", 1)).await.unwrap();
    let bytes = fs::read(home.path().join(&written.name)).unwrap();
    let shown = format!(
        "{}{:?}{written:?}{journal:?}",
        String::from_utf8_lossy(&bytes),
        entry("grnt_1", 1)
    );
    assert!(!shown.contains("plaintext"), "{shown}");
    assert!(!shown.contains("T1"), "{shown}");
}

#[tokio::test]
async fn a_damaged_or_moved_entry_is_kept_aside() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), keyring("k1", &[1])).unwrap();
    let damaged = journal.write(&entry("grnt_1", 1)).await.unwrap();
    let moved = journal.write(&entry("grnt_2", 1)).await.unwrap();
    let sound = journal.write(&entry("grnt_3", 1)).await.unwrap();

    let path = home.path().join(&damaged.name);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();

    // As if the answer for one grant were to be replayed into another.
    let path = home.path().join(&moved.name);
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(6).position(|part| part == b"grnt_2").unwrap();
    bytes[place + 5] = b'3';
    fs::write(&path, bytes).unwrap();

    fs::write(home.path().join("grnt_4.1.00.sealed"), b"").unwrap();

    for _ in 0..2 {
        let entries = journal.entries().await.unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].0, sound);
        let names = file_names(home.path());
        assert_eq!(names.len(), 4);
        let aside = names.iter().filter(|name| name.ends_with(UNREADABLE));
        assert_eq!(aside.count(), 3);
    }
}

#[tokio::test]
async fn an_entry_is_found_again_once_its_key_is_back() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), keyring("k1", &[1])).unwrap();
    journal.write(&entry("grnt_1", 1)).await.unwrap();

    let without = Journal::open(home.path(), keyring("k2", &[2])).unwrap();
    assert!(without.entries().await.unwrap().is_empty());
    let with = Journal::open(home.path(), keyring("k2", &[1, 2])).unwrap();
    let entries = with.entries().await.unwrap();
    assert_eq!(entries.len(), 1);
    with.remove(&entries[0].0).await.unwrap();
    assert!(file_names(home.path()).is_empty());
}

#[tokio::test]
async fn half_written_files_are_ignored_and_swept_when_old() {
    let home = tempfile::tempdir().unwrap();
    let (old, young) = (".0a.unfinished", ".0b.unfinished");
    for name in [old, young] {
        fs::write(home.path().join(name), b"{\"v\":1,\"ten").unwrap();
    }
    let file = fs::File::options()
        .write(true)
        .open(home.path().join(old))
        .unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified - UNFINISHED_AGE).unwrap();

    let journal = Journal::open(home.path(), keyring("k1", &[1])).unwrap();
    assert!(journal.entries().await.unwrap().is_empty());
    assert_eq!(file_names(home.path()), [young]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Journal::open(&file, keyring("k1", &[1])).unwrap_err();
    assert!(matches!(error, JournalError::NotWritable { .. }));

    let folder = home.path().join("journal");
    let journal = Journal::open(&folder, keyring("k1", &[1])).unwrap();
    journal.probe().await.unwrap();
    assert!(file_names(&folder).is_empty());
    fs::remove_dir(&folder).unwrap();
    let error = journal.probe().await.unwrap_err();
    assert!(error.to_string().contains("cannot be written"), "{error}");
    let error = journal.write(&entry("grnt_1", 1)).await.unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
}

#[tokio::test]
async fn a_grant_id_never_leaves_the_folder() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), keyring("k1", &[1])).unwrap();
    for id in ["", "../up", "a.b", "a/b", "a:b"] {
        let error = journal.write(&entry(id, 1)).await.unwrap_err();
        assert!(matches!(error, JournalError::GrantId));
    }
    assert!(file_names(home.path()).is_empty());
}
