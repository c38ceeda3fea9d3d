//! Pushing, to a registry that misbehaves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use crate::fake::{Auth, DOCKER_MANIFEST, Fake, Here, OCI_MANIFEST, bytes, digest, quiet};
use basalt_model::Digest;
use basalt_registry::{Error, Image, Reference, Registry};

/// An image in files.
struct Files {
    dir: tempfile::TempDir,
    manifest: Digest,
    layers: Vec<Digest>,
}

impl Files {
    fn new(kind: &str, layers: &[&[u8]]) -> Self {
        let fake = Fake::start();
        let manifest = fake.put_image("x", "1", kind, layers);
        let dir = tempfile::tempdir().unwrap();
        let write = |digest: &Digest, bytes: &[u8]| std::fs::write(dir.path().join(digest.to_hex()), bytes).unwrap();
        let state = fake.state();
        write(&manifest, &state.manifests[&("x".to_owned(), manifest.to_string())].1);
        state.blobs.iter().for_each(|((_, digest), bytes)| write(digest, bytes));
        drop(state);
        Self { dir, manifest, layers: layers.iter().map(|layer| digest(layer)).collect() }
    }

    fn push(&self, registry: &Registry, to: &Reference, near: &[Reference]) -> Result<Digest, Error> {
        let open = |digest: &Digest| -> io::Result<File> { File::open(self.dir.path().join(digest.to_hex())) };
        registry.push(&Image { manifest: self.manifest, open: &open }, to, near, &quiet)
    }
}

#[track_caller]
fn check_there(fake: &Fake, repository: &str, tag: &str, kind: &str, files: &Files) {
    let state = fake.state();
    let (found, bytes) = &state.manifests[&(repository.to_owned(), tag.to_owned())];
    assert_eq!((digest(bytes), found.as_str()), (files.manifest, kind));
    for layer in &files.layers {
        assert_eq!(digest(&state.blobs[&(repository.to_owned(), *layer)]), *layer);
    }
}

#[test]
fn the_same_bytes_arrive_and_are_not_sent_twice() {
    for kind in [OCI_MANIFEST, DOCKER_MANIFEST] {
        let (fake, here) = (Fake::start(), Here::new());
        let files = Files::new(kind, &[&bytes(700_000, 1), &bytes(10, 2)]);
        let to = fake.reference("team/web:1");
        assert_eq!(files.push(&here.registry(), &to, &[]).unwrap(), files.manifest);
        check_there(&fake, "team/web", "1", kind, &files);
        fake.requests("");
        files.push(&here.registry(), &fake.reference("team/web:2"), &[]).unwrap();
        assert!(fake.requests("uploads").is_empty());
        check_there(&fake, "team/web", "2", kind, &files);
    }
}

#[test]
fn what_another_repository_has_is_taken_over() {
    let (fake, here) = (Fake::start(), Here::new());
    let (shared, own) = (bytes(1000, 1), bytes(1000, 2));
    fake.put_blob("base", &shared);
    fake.state().auth = Auth::Bearer { user: None, requests: 1000 };
    let files = Files::new(OCI_MANIFEST, &[&shared, &own]);
    let near = ["elsewhere.example.com/x:1".parse().unwrap(), fake.reference("base:1")];
    files.push(&here.registry(), &fake.reference("web:1"), &near).unwrap();
    check_there(&fake, "web", "1", OCI_MANIFEST, &files);
    let log = fake.requests("");
    let sent: Vec<_> = log.iter().filter(|line| line.starts_with("PUT /v2/web/blobs")).collect();
    assert_eq!(sent.len(), 2, "its own layer and the configuration: {sent:?}");
    let token = log.iter().find(|line| line.starts_with("GET /token")).unwrap();
    assert!(token.contains("repository%3Aweb%3Apull%2Cpush") && token.contains("repository%3Abase%3Apull"), "{token}");
}

#[test]
fn what_is_too_large_in_one_go_is_sent_in_pieces() {
    let (fake, here) = (Fake::start(), Here::new());
    let files = Files::new(OCI_MANIFEST, &[&bytes(40 << 20, 1)]);
    {
        let mut state = fake.state();
        (state.largest, state.lose) = (Some(17 << 20), 1);
    }
    files.push(&here.registry(), &fake.reference("web:1"), &[]).unwrap();
    check_there(&fake, "web", "1", OCI_MANIFEST, &files);
    let pieces = fake.requests("PATCH");
    assert_eq!(pieces.len(), 3, "a piece that came before the connection broke is not sent again: {pieces:?}");
}

#[test]
fn a_registry_that_refuses_is_named() {
    let here = Here::new();
    let files = Files::new(OCI_MANIFEST, &[b"layer"]);
    let fake = Fake::start();
    fake.state().auth = Auth::Basic("me", "pw");
    let error = files.push(&here.registry(), &fake.reference("web:1"), &[]).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    let other = format!("{}/web@sha256:{}", fake.address, "ab".repeat(32)).parse().unwrap();
    let error = files.push(&here.registry(), &other, &[]).unwrap_err().to_string();
    assert!(error.contains("another image"), "{error}");
}

#[test]
fn what_is_not_whole_here_is_not_begun() {
    let (fake, here) = (Fake::start(), Here::new());
    let files = Files::new(OCI_MANIFEST, &[b"layer"]);
    std::fs::remove_file(files.dir.path().join(files.layers[0].to_hex())).unwrap();
    assert!(matches!(files.push(&here.registry(), &fake.reference("web:1"), &[]).unwrap_err(), Error::Io { .. }));
    assert!(fake.state().manifests.is_empty(), "the manifest comes last");
    let broken: BTreeMap<_, _> = [(files.manifest, b"{}".as_slice())].into();
    for (digest, bytes) in broken {
        std::fs::write(files.dir.path().join(digest.to_hex()), bytes).unwrap();
    }
    assert!(matches!(files.push(&here.registry(), &fake.reference("web:1"), &[]).unwrap_err(), Error::Document { .. }));
}
