//! Keeps requests that belong together at one instance: by a signed cookie, or by hashing what they have in common.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use basalt_model::{HashOn, InstanceId, Name, Sticky, Traffic};
use http::HeaderMap;

/// Bytes of a key and of a signature (SHA-256).
const KEY: usize = 32;

/// Where a request belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Belongs {
    /// To this instance, as long as it is there and its release has weight.
    To(InstanceId),
    /// To whichever instance this number leads to.
    Hash(u64),
}

/// Signs cookies.
#[derive(Debug)]
pub(crate) struct Signer(hmac::Key);

impl Signer {
    /// Returns a signer with the key in `DATA/gateway/cookie.key`, which is made if it is not there.
    ///
    /// # Errors
    /// If the key can be neither read nor written.
    pub(crate) fn in_data(data: &Path) -> io::Result<Self> {
        let path = data.join("gateway/cookie.key");
        match fs::read(&path) {
            Ok(key) if key.len() == KEY => return Ok(Self::new(&key)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let key: [u8; KEY] = aws_lc_rs::rand::generate(&SystemRandom::new())
            .map_err(|_| io::Error::other("the system gives no random numbers"))?
            .expose();
        let temporary = path.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        Ok(Self::new(&key))
    }

    /// Returns a signer with a key.
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Returns the cookie that keeps a client at an instance.
    pub(crate) fn cookie(&self, sticky: &Sticky, instance: &InstanceId, secure: bool) -> String {
        let signature = hmac::sign(&self.0, instance.to_string().as_bytes());
        let mut cookie =
            format!("{}={instance}.{}; Path=/; HttpOnly; SameSite=Lax", sticky.cookie, hex(signature.as_ref()));
        if secure {
            cookie.push_str("; Secure");
        }
        if sticky.lasts.0 > 0 {
            cookie.push_str(&format!("; Max-Age={}", sticky.lasts.0.div_ceil(1000)));
        }
        cookie
    }

    /// Returns the instance of a service that a cookie's value names, if the gateway itself has signed it.
    fn instance(&self, service: &Name, value: &str) -> Option<InstanceId> {
        let (id, signature) = value.rsplit_once('.')?;
        hmac::verify(&self.0, id.as_bytes(), &unhex(signature)?).ok()?;
        id.parse().ok().filter(|id: &InstanceId| id.service() == service)
    }
}

/// Returns where a request belongs by the word of its service.
pub(crate) fn belongs(
    traffic: &Traffic,
    service: &Name,
    headers: &HeaderMap,
    client: Option<IpAddr>,
    signer: &Signer,
) -> Option<Belongs> {
    if let Some(sticky) = &traffic.sticky {
        // Others may have set one of the same name, for another path or host; each costs to be checked.
        return cookies(headers, &sticky.cookie)
            .take(8)
            .find_map(|value| signer.instance(service, value))
            .map(Belongs::To);
    }
    match traffic.hash_on.as_ref()? {
        HashOn::Client => client.map(|client| Belongs::Hash(hash(&client))),
        HashOn::Header(name) => headers.get(name).map(|value| Belongs::Hash(hash(value.as_bytes()))),
        HashOn::Cookie(name) => cookies(headers, name).next().map(|value| Belongs::Hash(hash(value))),
    }
}

/// Returns the values of cookies of a name (RFC 6265 §4.2). HTTP/2 may split the header (RFC 9113 §8.2.3).
fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(http::header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
}

/// Returns a number that stands for a value: the same in every gateway of this version.
pub(crate) fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use basalt_model::Millis;

    use super::*;

    fn sticky() -> Sticky {
        Sticky { cookie: "at".into(), lasts: Millis(1500) }
    }

    fn headers(cookies: &[&str]) -> HeaderMap {
        cookies.iter().map(|line| (http::header::COOKIE, line.parse().unwrap())).collect()
    }

    #[test]
    fn a_cookie_leads_back_and_nobody_else_can_make_one() {
        let signer = Signer::new(&[7; KEY]);
        let id: InstanceId = "web-3-2".parse().unwrap();
        let set = signer.cookie(&sticky(), &id, true);
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=2"), "{set}");
        let pair = set.split(';').next().unwrap();
        let traffic = Traffic { sticky: Some(sticky()), ..Traffic::default() };
        let check = |service: &str, cookies: &[&str], signer: &Signer, expected: bool| {
            let found = belongs(&traffic, &service.parse().unwrap(), &headers(cookies), None, signer);
            assert_eq!(found, expected.then(|| Belongs::To(id.clone())), "{service} {cookies:?}");
        };
        check("web", &[pair], &signer, true);
        check("web", &["a=b; c", &format!("x=y; {pair}")], &signer, true);
        check("web", &["at=web-1-1.00", pair], &signer, true);
        check("api", &[pair], &signer, false);
        check("web", &[pair], &Signer::new(&[8; KEY]), false);
        check("web", &[&pair.replace("web-3-2", "web-3-1")], &signer, false);
        for forged in ["at=", "at=web-3-2", "at=web-3-2.", "at=web-3-2.é0", "at=web-3-2.zz", "at=.."] {
            let headers: HeaderMap =
                [(http::header::COOKIE, http::HeaderValue::from_bytes(forged.as_bytes()).unwrap())]
                    .into_iter()
                    .collect();
            assert_eq!(belongs(&traffic, &"web".parse().unwrap(), &headers, None, &signer), None, "{forged}");
        }
    }

    #[test]
    fn the_key_stays() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("gateway")).unwrap();
        let cookie = || Signer::in_data(data.path()).unwrap().cookie(&sticky(), &"a-1-1".parse().unwrap(), false);
        assert_eq!(cookie(), cookie());
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(data.path().join("gateway/cookie.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn equal_requests_have_equal_numbers() {
        let signer = Signer::new(&[1; KEY]);
        let by = |hash_on: HashOn, headers: &HeaderMap, client: &str| {
            let traffic = Traffic { hash_on: Some(hash_on), ..Traffic::default() };
            belongs(&traffic, &"web".parse().unwrap(), headers, client.parse().ok(), &signer)
        };
        let (one, two) = (headers(&["u=1"]), headers(&["u=2"]));
        assert_eq!(by(HashOn::Cookie("u".into()), &one, "1.1.1.1"), by(HashOn::Cookie("u".into()), &one, "2.2.2.2"));
        assert_ne!(by(HashOn::Cookie("u".into()), &one, "1.1.1.1"), by(HashOn::Cookie("u".into()), &two, "1.1.1.1"));
        assert_ne!(by(HashOn::Client, &one, "1.1.1.1"), by(HashOn::Client, &one, "2.2.2.2"));
        assert_eq!(by(HashOn::Header("x-user".into()), &one, "1.1.1.1"), None);
    }
}
