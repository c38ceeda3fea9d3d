//! Pulling, from a registry that misbehaves.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fake::{DOCKER_MANIFEST, Fake, Here, OCI_INDEX, OCI_MANIFEST, bytes, digest, quick, quiet};
use basalt_model::Digest;
use basalt_registry::{Error, Patience, Registry, Resolved};
use serde_json::json;

fn none(_: &Digest) -> bool {
    false
}

/// Resolves and pulls, and returns the content of a blob.
fn pull(
    registry: &Registry,
    fake: &Fake,
    name: &str,
) -> Result<(Resolved, impl Fn(&Digest) -> Vec<u8> + use<>), Error> {
    let resolved = registry.resolve(&fake.reference(name))?;
    let pulled = registry.pull(&resolved, &none, &quiet)?;
    let read = move |digest: &Digest| std::fs::read(pulled.dir().join("blobs/sha256").join(digest.to_hex())).unwrap();
    Ok((resolved, read))
}

#[test]
fn a_tag_becomes_a_digest_and_a_layout_with_the_same_bytes() {
    for kind in [OCI_MANIFEST, DOCKER_MANIFEST] {
        let (fake, here) = (Fake::start(), Here::new());
        let layers = [bytes(300_000, 1), bytes(10, 2), bytes(10, 2)];
        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let manifest = fake.put_image("team/web", "1.2", kind, &layers);
        let registry = here.registry();
        let total = AtomicU64::new(0);
        let resolved = registry.resolve(&fake.reference("team/web:1.2")).unwrap();
        assert_eq!(resolved.digest, manifest);
        let told = |_: &str, done: u64, of: Option<u64>| {
            assert!(done <= of.unwrap());
            total.store(done, Ordering::Relaxed);
        };
        let pulled = registry.pull(&resolved, &none, &told).unwrap();
        assert_eq!(total.load(Ordering::Relaxed), 300_010 + 37, "both layers and the configuration, once each");
        let read = |name: &str| std::fs::read(pulled.dir().join(name)).unwrap();
        assert_eq!(digest(&read(&format!("blobs/sha256/{}", manifest.to_hex()))), manifest);
        for layer in layers {
            assert_eq!(read(&format!("blobs/sha256/{}", digest(layer).to_hex())), layer);
        }
        let index: serde_json::Value = serde_json::from_slice(&read("index.json")).unwrap();
        assert_eq!(index["manifests"][0]["digest"], manifest.to_string());
        assert_eq!(index["manifests"][0]["mediaType"], kind);
        pulled.clear().unwrap();
        assert!(here.cached().is_empty(), "{:?}", here.cached());
    }
}

#[test]
fn what_the_caller_has_is_not_asked_for() {
    let (fake, here) = (Fake::start(), Here::new());
    let (old, new) = (bytes(1000, 1), bytes(1000, 2));
    fake.put_image("web", "1", OCI_MANIFEST, &[&old, &new]);
    let registry = here.registry();
    let resolved = registry.resolve(&fake.reference("web:1")).unwrap();
    let has = digest(&old);
    registry.pull(&resolved, &|digest| *digest == has, &quiet).unwrap();
    let asked = fake.requests("/blobs/");
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(!asked.iter().any(|line| line.contains(&has.to_string())), "{asked:?}");
}

#[test]
fn of_an_index_this_machines_image_is_taken() {
    let (fake, here) = (Fake::start(), Here::new());
    let mine = fake.put_image("web", "mine", OCI_MANIFEST, &[b"mine"]);
    let other = fake.put_image("web", "other", OCI_MANIFEST, &[b"other"]);
    let size = |digest: &Digest| fake.state().manifests[&("web".to_owned(), digest.to_string())].1.len();
    let entry = |digest: &Digest, os: &str, architecture: &str| {
        let size = size(digest);
        json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": size, "platform": { "os": os, "architecture": architecture } })
    };
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let put = |tag: &str, entries: &[serde_json::Value]| {
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        fake.put_manifest("web", tag, OCI_INDEX, index.to_string().as_bytes())
    };
    let index = put(
        "many",
        &[entry(&other, "linux", "s390x"), entry(&other, "windows", machine), entry(&mine, "linux", machine)],
    );
    put("none", &[entry(&other, "linux", "s390x")]);
    let registry = here.registry();
    assert_eq!(registry.resolve(&fake.reference("web:many")).unwrap().digest, mine);
    let error = registry.resolve(&fake.reference("web:none")).unwrap_err().to_string();
    assert!(error.contains("it has no image for linux/") && error.contains("linux/s390x"), "{error}");

    // A digest that was seen before needs nobody.
    fake.requests("");
    assert_eq!(here.registry().resolve(&fake.reference(&format!("web@{index}"))).unwrap().digest, mine);
    assert_eq!(here.registry().last(&fake.reference("web:many")), Some(mine));
    assert!(fake.requests("").is_empty());
}

#[test]
fn a_transfer_that_breaks_is_gone_on_with() {
    let (fake, here) = (Fake::start(), Here::new());
    let layer = bytes(500_000, 3);
    fake.put_image("web", "1", OCI_MANIFEST, &[&layer]);
    fake.state().cut = Some((100_000, 3));
    let (_, read) = pull(&here.registry(), &fake, "web:1").unwrap();
    assert_eq!(read(&digest(&layer)), layer);
    let ranges = fake.requests("bytes=");
    assert!(ranges.len() >= 2, "{ranges:?}");
    assert!(ranges.iter().any(|line| line.contains("bytes=200000-") || line.contains("bytes=100000-")), "{ranges:?}");
}

#[test]
fn a_pull_that_was_killed_is_gone_on_with_by_the_next() {
    let (fake, here) = (Fake::start(), Here::new());
    let layer = bytes(500_000, 4);
    fake.put_image("web", "1", OCI_MANIFEST, &[&layer]);
    fake.state().cut = Some((100_000, 99));
    let once = Patience { attempts: 1, ..quick() };
    let error = pull(&here.patient(once), &fake, "web:1").map(drop).unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    let part = format!("{}.part", digest(&layer).to_hex());
    assert!(here.cached().contains(&part) && !here.cached().contains(&digest(&layer).to_hex()), "{:?}", here.cached());

    fake.requests("");
    fake.state().cut = None;
    let (_, read) = pull(&here.registry(), &fake, "web:1").unwrap();
    assert_eq!(read(&digest(&layer)), layer);
    assert_eq!(fake.requests("bytes=100000-").len(), 1);
}

#[test]
fn what_was_left_is_hashed_again() {
    let (fake, here) = (Fake::start(), Here::new());
    let layer = bytes(50_000, 5);
    fake.put_image("web", "1", OCI_MANIFEST, &[&layer]);
    let registry = here.registry();
    let blobs = here.dir.path().join("cache/blobs/sha256");
    // Other bytes, too many bytes, and a whole file that was damaged since.
    for (name, left) in [(".part", bytes(10_000, 6)), (".part", bytes(60_000, 6)), ("", bytes(50_000, 6))] {
        std::fs::write(blobs.join(format!("{}{name}", digest(&layer).to_hex())), left).unwrap();
        let (_, read) = pull(&registry, &fake, "web:1").unwrap();
        assert_eq!(read(&digest(&layer)), layer, "{name}");
        std::fs::remove_file(blobs.join(digest(&layer).to_hex())).unwrap();
    }
}

#[test]
fn a_registry_without_ranges_is_asked_for_all_again() {
    let (fake, here) = (Fake::start(), Here::new());
    let layer = bytes(500_000, 7);
    fake.put_image("web", "1", OCI_MANIFEST, &[&layer]);
    {
        let mut state = fake.state();
        (state.cut, state.no_ranges) = (Some((100_000, 2)), true);
    }
    let (_, read) = pull(&here.registry(), &fake, "web:1").unwrap();
    assert_eq!(read(&digest(&layer)), layer);
}

#[test]
fn other_bytes_are_refused_and_nothing_of_them_stays() {
    let layer = bytes(5_000, 8);
    let check = |wrong: Vec<u8>, part: &str| {
        let (fake, here) = (Fake::start(), Here::new());
        fake.put_image("web", "1", OCI_MANIFEST, &[&layer]);
        fake.state().blobs.insert(("web".into(), digest(&layer)), wrong);
        let error = pull(&here.registry(), &fake, "web:1").map(drop).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        let name = digest(&layer).to_hex();
        assert!(!here.cached().iter().any(|file| file.starts_with(&name)), "{:?}", here.cached());
    };
    check(bytes(5_000, 9), "expected sha256:");
    check(bytes(5_001, 9), "expected 5000 bytes, found more");
}

#[test]
fn a_blob_that_is_shorter_than_promised_is_not_waited_for_forever() {
    let (fake, here) = (Fake::start(), Here::new());
    let layer = bytes(5_000, 8);
    fake.put_image("web", "1", OCI_MANIFEST, &[&layer]);
    fake.state().blobs.insert(("web".into(), digest(&layer)), layer[..4_000].to_vec());
    let error = pull(&here.registry(), &fake, "web:1").map(drop).unwrap_err().to_string();
    assert!(error.contains("4000 of 5000 bytes") || error.contains("416"), "{error}");
}

#[test]
fn manifests_are_what_their_digest_says() {
    let (fake, here) = (Fake::start(), Here::new());
    let manifest = fake.put_image("web", "1", OCI_MANIFEST, &[b"layer"]);
    let bytes = fake.state().manifests[&("web".to_owned(), manifest.to_string())].1.clone();
    let other = fake.put_image("web", "2", OCI_MANIFEST, &[b"other"]);
    fake.state().claims = Some(other);
    assert_eq!(
        here.registry().resolve(&fake.reference("web:1")).unwrap().digest,
        other,
        "what it claims, it has to give"
    );
    let mut wrong = bytes.clone();
    wrong.push(b'\n');
    fake.state().claims = None;
    fake.state().manifests.insert(("web".into(), manifest.to_string()), (OCI_MANIFEST.into(), wrong));
    let error = Here::new().registry().resolve(&fake.reference("web:1")).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");

    fake.put_manifest("web", "chart", OCI_INDEX, &bytes);
    let error = Here::new().registry().resolve(&fake.reference("web:chart")).unwrap_err().to_string();
    assert!(error.contains("it says it is"), "{error}");
    fake.put_manifest("web", "large", OCI_MANIFEST, &vec![b' '; (4 << 20) + 1]);
    let error = Here::new().registry().resolve(&fake.reference("web:large")).unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[test]
fn without_head_the_answer_is_hashed() {
    let (fake, here) = (Fake::start(), Here::new());
    let manifest = fake.put_image("web", "1", OCI_MANIFEST, &[b"layer"]);
    fake.state().no_head = true;
    assert_eq!(here.registry().resolve(&fake.reference("web:1")).unwrap().digest, manifest);
}

#[test]
fn a_busy_registry_is_asked_again_and_not_forever() {
    let (fake, here) = (Fake::start(), Here::new());
    fake.put_image("web", "1", OCI_MANIFEST, &[b"layer"]);
    {
        let mut state = fake.state();
        (state.busy, state.retry_after) = (2, Some("0"));
    }
    pull(&here.registry(), &fake, "web:1").map(drop).unwrap();
    fake.state().busy = 1000;
    let error = here.registry().resolve(&fake.reference("web:1")).unwrap_err().to_string();
    assert!(error.contains("429"), "{error}");
    let error = here.registry().resolve(&fake.reference("web:none")).unwrap_err().to_string();
    fake.state().busy = 0;
    assert!(error.contains("429"), "{error}");
    let error = here.registry().resolve(&fake.reference("web:none")).unwrap_err().to_string();
    assert!(error.contains("has no `web:none`"), "{error}");
}

#[test]
fn mirrors_come_first_and_the_registry_itself_last() {
    let (mirror, origin, here) = (Fake::start(), Fake::start(), Here::new());
    let layer = bytes(5_000, 10);
    let manifest = origin.put_image("web", "1", OCI_MANIFEST, &[&layer]);
    let conf = |mirror: &str| {
        format!("[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n", origin.address)
    };
    let pull = |name: &str| {
        let registry = here.registry();
        let resolved = registry.resolve(&origin.reference(name))?;
        let pulled = registry.pull(&resolved, &none, &quiet)?;
        pulled.clear()?;
        std::fs::remove_dir_all(here.dir.path().join("cache/known")).unwrap();
        Ok::<_, Error>(resolved.digest)
    };
    here.write("registries.conf", &conf(&format!("{}/hub", mirror.address)));
    // It has nothing, then the wrong bytes, then all.
    assert_eq!(pull("web:1").unwrap(), manifest);
    assert!(!mirror.requests("/v2/hub/web/").is_empty());
    mirror.put_image("hub/web", "1", OCI_MANIFEST, &[&layer]);
    mirror.state().blobs.insert(("hub/web".into(), digest(&layer)), bytes(5_000, 11));
    assert_eq!(pull("web:1").unwrap(), manifest);
    mirror.put_blob("hub/web", &layer);
    origin.requests("");
    assert_eq!(pull("web:1").unwrap(), manifest);
    assert!(origin.requests("/blobs/").is_empty());
    // It is not there at all.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    here.write("registries.conf", &conf(&nobody.to_string()));
    assert_eq!(pull("web:1").unwrap(), manifest);
}

#[test]
fn several_pulls_at_once_fetch_each_blob_once() {
    let (fake, here) = (Fake::start(), Here::new());
    let layers: Vec<Vec<u8>> = (0..6).map(|i| bytes(200_000, 20 + i)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    fake.put_image("web", "1", OCI_MANIFEST, &layers);
    let registries: Vec<Registry> = (0..4).map(|_| here.registry()).collect();
    std::thread::scope(|scope| {
        for registry in &registries {
            scope.spawn(|| {
                let (_, read) = pull(registry, &fake, "web:1").unwrap();
                for layer in &layers {
                    assert_eq!(read(&digest(layer)), *layer);
                }
            });
        }
    });
    let asked = fake.requests("GET /v2/web/blobs/");
    assert_eq!(asked.len(), 7, "{asked:?}");
}

#[test]
fn credentials_stay_with_the_registry_when_it_sends_elsewhere() {
    let (fake, store, here) = (Fake::start(), Fake::start(), Here::new());
    let layer = bytes(5_000, 12);
    fake.put_image("web", "1", OCI_MANIFEST, &[&layer]);
    store.state().blobs = fake.state().blobs.clone();
    {
        let mut state = fake.state();
        state.auth = crate::fake::Auth::Basic("me", "pw");
        state.elsewhere = Some(format!("http://{}", store.address));
    }
    here.write(
        "auth.json",
        &format!(r#"{{ "auths": {{ "{}": {{ "username": "me", "password": "pw" }} }} }}"#, fake.address),
    );
    pull(&here.registry(), &fake, "web:1").map(drop).unwrap();
    let asked = store.requests("");
    assert!(asked.len() == 2 && asked.iter().all(|line| !line.contains("authorized")), "{asked:?}");

    let (fake, here) = (Fake::start(), Here::new());
    fake.put_image("web", "1", OCI_MANIFEST, &[&layer]);
    fake.state().elsewhere = Some(String::new());
    let error = pull(&here.registry(), &fake, "web:1").map(drop).unwrap_err().to_string();
    assert!(error.contains("redirects more than"), "{error}");
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let here = Here::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = here.registry().resolve(&format!("{nobody}/web:1").parse().unwrap()).unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains(&nobody.to_string()), "{error}");
    assert!(error.help().is_some());
}
