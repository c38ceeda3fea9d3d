//! What a registry asks to be shown (RFC 9110 §11.6.1, RFC 6750 §3; distribution spec, "Token Authentication").

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What a registry asks to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password.
    Basic,
    /// A token, to be had at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Returns the challenge to meet, a token before a password; `None` if none is known.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let all = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let found: Vec<Self> = all.flat_map(parse).collect();
        let bearer = found.iter().find(|challenge| matches!(challenge, Self::Bearer { .. }));
        bearer.or(found.first()).cloned()
    }

    /// Returns the challenge without the scope that it names.
    pub(crate) fn without_scope(self) -> Self {
        match self {
            Self::Basic => Self::Basic,
            Self::Bearer { realm, service, .. } => Self::Bearer { realm, service, scope: None },
        }
    }
}

/// Reads all challenges of a header that are known.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut scheme = String::new();
    let mut parameters: Vec<(String, String)> = Vec::new();
    let mut end = |scheme: &str, parameters: &mut Vec<(String, String)>| {
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match (scheme, get("realm")) {
            ("basic", _) => found.push(Challenge::Basic),
            ("bearer", Some(realm)) => {
                found.push(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
            _ => {}
        }
        parameters.clear();
    };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word_end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(word_end);
        if word.is_empty() && behind.is_empty() {
            end(&scheme, &mut parameters);
            return found;
        }
        match behind.trim_start_matches([' ', '\t']).strip_prefix('=') {
            // A scheme: nothing, or parameters, follow it.
            None => {
                end(&scheme, &mut parameters);
                scheme = word.to_ascii_lowercase();
                rest = behind;
            }
            Some(behind) => {
                let (value, behind) = value(behind.trim_start_matches([' ', '\t']));
                parameters.push((word.to_ascii_lowercase(), value));
                rest = behind;
            }
        }
    }
}

/// Reads a token or a quoted string, and returns what is behind it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, behind) = text.split_at(text.find([' ', '\t', ',']).unwrap_or(text.len()));
        return (word.to_owned(), behind);
    };
    let mut read = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return (read, &quoted[at + 1..]),
            c => {
                escaped = false;
                read.push(c);
            }
        }
    }
    (read, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            })
        };
        let check = |lines: &[&str], expected: Option<Challenge>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
            }
            assert_eq!(Challenge::of(&headers), expected, "{lines:?}");
        };
        check(&[], None);
        check(&["Basic realm=\"a, b\""], Some(Challenge::Basic));
        check(&["basic"], Some(Challenge::Basic));
        check(
            &[
                "Bearer realm=\"https://auth.example.com/token\",service=\"registry.example.com\",scope=\"repository:a/b:pull,push\"",
            ],
            bearer("https://auth.example.com/token", Some("registry.example.com"), Some("repository:a/b:pull,push")),
        );
        check(&["Basic realm=\"x\", Bearer realm=\"https://a/t\""], bearer("https://a/t", None, None));
        check(
            &["Basic realm=\"x\"", "BEARER Realm = \"https://a/t\" , service=s"],
            bearer("https://a/t", Some("s"), None),
        );
        check(&["Bearer service=\"s\""], None);
        check(&["Negotiate abc=="], None);
        check(&["Bearer realm=\"a\\\"b"], bearer("a\"b", None, None));
        check(&["===,,,=\""], None);
    }
}
