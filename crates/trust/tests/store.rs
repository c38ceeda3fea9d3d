//! The store as its users see it, and as someone with the disk would like to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use basalt_model::Name;
use basalt_seam::Secrets;
use basalt_trust::{Error, SecretStore};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn store() -> (tempfile::TempDir, SecretStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SecretStore::open(dir.path()).unwrap();
    (dir, store)
}

fn reveal(store: &SecretStore, secret: &str, version: u64) -> Result<Vec<u8>, String> {
    store.reveal(&name(secret), version).map(|bytes| bytes.expose().to_vec()).map_err(|e| e.what)
}

#[test]
fn versions_count_up_and_stay() {
    let (dir, store) = store();
    let db = name("db");
    assert_eq!(store.latest(&db).unwrap(), None);
    assert_eq!(store.set(&db, b"one").unwrap(), 1);
    assert_eq!(store.set(&db, b"one").unwrap(), 1);
    assert_eq!(store.set(&db, b"two").unwrap(), 2);
    assert_eq!(store.set(&db, b"one").unwrap(), 3);
    assert_eq!(store.set(&name("api"), b"").unwrap(), 1);
    let again = SecretStore::open(dir.path()).unwrap();
    assert_eq!(again.latest(&db).unwrap(), Some(3));
    assert_eq!(reveal(&again, "db", 1).unwrap(), b"one");
    assert_eq!(reveal(&again, "db", 2).unwrap(), b"two");
    assert_eq!(reveal(&again, "api", 1).unwrap(), b"");
    assert!(reveal(&again, "db", 4).unwrap_err().contains("no version 4"));
    assert!(reveal(&again, "db", 0).unwrap_err().contains("no version 0"));
    let all: Vec<_> = again.list().unwrap().into_iter().map(|s| (s.name.to_string(), s.version)).collect();
    assert_eq!(all, [("api".to_owned(), 1), ("db".to_owned(), 3)]);
}

#[test]
fn a_removed_version_never_comes_back_as_another() {
    let (_dir, store) = store();
    let db = name("db");
    store.set(&db, b"one").unwrap();
    store.set(&db, b"two").unwrap();
    assert!(store.remove(&db).unwrap());
    assert!(!store.remove(&db).unwrap());
    assert_eq!(store.latest(&db).unwrap(), None);
    assert!(store.list().unwrap().is_empty());
    assert!(reveal(&store, "db", 2).is_err());
    assert_eq!(store.set(&db, b"two").unwrap(), 3);
    assert!(store.remove(&db).unwrap());
    assert_eq!(store.set(&db, b"four").unwrap(), 4);
}

#[test]
fn content_is_nowhere_in_clear() {
    let (dir, store) = store();
    store.set(&name("db"), b"correct horse battery staple").unwrap();
    let bytes = fs::read(dir.path().join("secrets/db/1")).unwrap();
    assert!(!bytes.windows(7).any(|w| w == b"correct"));
    assert!(!format!("{store:?}").contains("correct"));
    for path in ["key", "secrets/db/1"] {
        assert_eq!(fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let (dir, store) = store();
    store.set(&name("db"), b"secret").unwrap();
    let path = dir.path().join("secrets/db/1");
    let good = fs::read(&path).unwrap();
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(reveal(&store, "db", 1).unwrap_err().contains("can't be decrypted"), "byte {i}");
    }
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert!(reveal(&store, "db", 1).is_err(), "{length} bytes");
    }
    // Setting it anew is the cure.
    assert_eq!(store.set(&name("db"), b"secret").unwrap(), 2);
    assert_eq!(reveal(&store, "db", 2).unwrap(), b"secret");
}

#[test]
fn swapped_files_are_noticed() {
    let (dir, store) = store();
    store.set(&name("a"), b"of a").unwrap();
    store.set(&name("a"), b"of a, newer").unwrap();
    store.set(&name("b"), b"of b").unwrap();
    let at = |path: &str| dir.path().join("secrets").join(path);
    fs::copy(at("a/1"), at("a/2")).unwrap();
    fs::copy(at("a/1"), at("b/1")).unwrap();
    assert!(reveal(&store, "a", 2).unwrap_err().contains("moved"));
    assert!(reveal(&store, "b", 1).unwrap_err().contains("moved"));
    assert_eq!(reveal(&store, "a", 1).unwrap(), b"of a");
    fs::remove_file(at("b/1")).unwrap();
    std::os::unix::fs::symlink("../a/1", at("b/1")).unwrap();
    assert!(reveal(&store, "b", 1).is_err());
}

#[test]
fn a_key_that_others_may_use_is_refused() {
    let check = |spoil: &dyn Fn(&Path), word: &str| {
        let (dir, store) = store();
        store.set(&name("db"), b"x").unwrap();
        drop(store);
        spoil(&dir.path().join("key"));
        let error = SecretStore::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    check(&|key| fs::set_permissions(key, PermissionsExt::from_mode(0o640)).unwrap(), "chmod 600");
    check(&|key| fs::set_permissions(key, PermissionsExt::from_mode(0o604)).unwrap(), "mode 604");
    check(&|key| fs::write(key, [0; 31]).unwrap(), "32 bytes");
    check(&|key| fs::write(key, [0; 33]).unwrap(), "32 bytes");
    check(&|key| fs::remove_file(key).unwrap(), "is missing, but");
    check(
        &|key| {
            fs::rename(key, key.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink("key.moved", key).unwrap();
        },
        "could not open",
    );
}

#[test]
fn another_key_opens_nothing() {
    let (dir, store) = store();
    store.set(&name("db"), b"x").unwrap();
    let (other, _) = self::store();
    fs::copy(other.path().join("key"), dir.path().join("key")).unwrap();
    let store = SecretStore::open(dir.path()).unwrap();
    assert!(reveal(&store, "db", 1).unwrap_err().contains("another key"));
}

#[test]
fn too_long_is_refused() {
    let (_dir, store) = store();
    assert!(matches!(store.set(&name("db"), &vec![0; (1 << 20) + 1]), Err(Error::TooLong { .. })));
    assert_eq!(store.set(&name("db"), &vec![0; 1 << 20]).unwrap(), 1);
    assert_eq!(reveal(&store, "db", 1).unwrap().len(), 1 << 20);
}

#[test]
fn concurrent_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let dir = dir.path();
                scope.spawn(move || {
                    // Each opens the store itself, as separate processes would; the first makes the key.
                    let store = SecretStore::open(dir).unwrap();
                    let set = |i| store.set(&name("db"), format!("{writer} {i}").as_bytes()).unwrap();
                    (0..5).map(set).collect::<Vec<u64>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<u64>>());
    let store = SecretStore::open(dir.path()).unwrap();
    let mut contents: Vec<_> = (1..=40).map(|version| reveal(&store, "db", version).unwrap()).collect();
    contents.sort();
    contents.dedup();
    assert_eq!(contents.len(), 40);
}
