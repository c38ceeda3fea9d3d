//! Who we are: basic authentication and tokens.

use crate::fake::{Auth, Fake, Here, OCI_MANIFEST, bytes, quiet};

/// Pulls an image of four layers as `login` (user and password) and returns what goes wrong, and how many tokens were asked for.
fn check(auth: Auth, login: Option<(&str, &str)>) -> (Option<String>, usize) {
    let (fake, here) = (Fake::start(), Here::new());
    let layers: Vec<Vec<u8>> = (0..4).map(|i| bytes(100, i)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    fake.put_image("team/web", "1", OCI_MANIFEST, &layers);
    fake.state().auth = auth;
    if let Some((user, password)) = login {
        let entry =
            serde_json::json!({ "auths": { fake.address.to_string(): { "username": user, "password": password } } });
        here.write("auth.json", &entry.to_string());
    }
    let registry = here.registry();
    let done = registry
        .resolve(&fake.reference("team/web:1"))
        .and_then(|resolved| registry.pull(&resolved, &|_| false, &quiet).map(drop));
    let tokens = fake.requests("GET /token");
    (done.err().map(|error| error.to_string()), tokens.len())
}

#[test]
fn basic() {
    assert_eq!(check(Auth::Basic("me", "pw"), Some(("me", "pw"))), (None, 0));
    let (error, _) = check(Auth::Basic("me", "pw"), Some(("me", "hunter2")));
    let error = error.unwrap();
    assert!(error.contains("denies access") && error.contains("as user `me`"), "{error}");
    assert!(!error.contains("hunter2") && !error.contains('\u{1b}'), "{error}");
    let (error, _) = check(Auth::Basic("me", "pw"), None);
    assert!(error.unwrap().contains("without a login"));
}

#[test]
fn tokens() {
    let anyone = |requests| Auth::Bearer { user: None, requests };
    let mine = |requests| Auth::Bearer { user: Some(("me", "pw")), requests };
    assert_eq!(check(anyone(100), None), (None, 1), "one token is enough for all");
    assert_eq!(check(mine(100), Some(("me", "pw"))), (None, 1));
    let (error, tokens) = check(mine(6), Some(("me", "pw")));
    assert!(error.is_none() && tokens > 1, "a token that holds no longer is renewed: {error:?}, {tokens}");
    let (error, _) = check(mine(100), Some(("me", "wrong-one")));
    let error = error.unwrap();
    assert!(error.contains("denies access to `team/web`") && !error.contains("wrong-one"), "{error}");
    let (error, _) = check(mine(100), None);
    assert!(error.unwrap().contains("without a login"));
    let (error, tokens) = check(anyone(0), None);
    assert!(error.is_some() && tokens < 10, "a registry that takes no token is not asked forever: {tokens}");
}
