//! Tokens: had from where the registry says, for what is to be done, until they expire (distribution spec, "Token
//! Authentication"; RFC 6749 §6 for identity tokens).

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use tokio::time::Instant;

use crate::credentials::Credential;

/// The life of a token that does not say (distribution spec: 60 seconds).
const DEFAULT_LIFE: u64 = 60;

/// A token is renewed so long before it ends that a request sent with it still arrives in time.
const MARGIN: Duration = Duration::from_secs(10);

/// What OAuth 2 wants to know of a client.
const CLIENT: &str = "basalt";

/// A token.
#[derive(Clone)]
pub(crate) struct Token {
    /// The value of the `Authorization` header.
    pub(crate) header: String,
    until: Instant,
}

impl Token {
    /// Returns whether it can still be used.
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }

    /// Reads what a token server answered; `None` if there is no token in it.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(bytes).ok()?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty())?;
        let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).clamp(1, 86_400));
        let until = Instant::now() + life.saturating_sub(MARGIN).max(life / 2);
        Some(Self { header: format!("Bearer {token}"), until })
    }
}

/// How a token is asked for.
pub(crate) struct TokenRequest {
    /// Where, with what is asked in the query.
    pub(crate) url: Url,
    /// The `Authorization` header.
    pub(crate) authorization: Option<String>,
    /// A form to post, for identity tokens.
    pub(crate) form: Option<String>,
}

/// Returns how to ask `realm` for a token for `scopes`.
pub(crate) fn request(
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    credential: Option<&Credential>,
) -> TokenRequest {
    let mut url = realm.clone();
    if let Some(Credential::Identity(token)) = credential {
        let mut form = Url::clone(realm);
        form.set_query(None);
        {
            let mut pairs = form.query_pairs_mut();
            pairs.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT);
            pairs.append_pair("service", service.unwrap_or_default()).append_pair("scope", &scopes.join(" "));
            pairs.append_pair("refresh_token", token);
        }
        return TokenRequest { url, authorization: None, form: form.query().map(str::to_owned) };
    }
    {
        let mut pairs = url.query_pairs_mut();
        if let Some(service) = service {
            pairs.append_pair("service", service);
        }
        for scope in scopes {
            pairs.append_pair("scope", scope);
        }
        if let Some(Credential::Basic { user, .. }) = credential {
            pairs.append_pair("account", user);
        }
    }
    let authorization = credential.and_then(|credential| match credential {
        Credential::Basic { user, password } => Some(Credential::basic(user, password)),
        Credential::Identity(_) => None,
    });
    TokenRequest { url, authorization, form: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Token::parse(text.as_bytes()).map(|token| token.header).as_deref(), expected, "{text}");
        };
        check(r#"{"token":"a"}"#, Some("Bearer a"));
        check(r#"{"access_token":"b","expires_in":300}"#, Some("Bearer b"));
        check(r#"{"token":"a","access_token":"b","issued_at":"x"}"#, Some("Bearer a"));
        check(r#"{"token":""}"#, None);
        check("{}", None);
        check("", None);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_expire() {
        let token = Token::parse(br#"{"token":"a","expires_in":60}"#).unwrap();
        assert!(token.is_fresh());
        tokio::time::advance(Duration::from_secs(49)).await;
        assert!(token.is_fresh());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!token.is_fresh());
    }

    #[test]
    fn requests() {
        let realm: Url = "https://auth.io/token?x=1".parse().unwrap();
        let scopes = ["repository:a:pull".to_owned(), "repository:b:pull".to_owned()];
        let anonymous = request(&realm, Some("s"), &scopes, None);
        assert_eq!(
            anonymous.url.as_str(),
            "https://auth.io/token?x=1&service=s&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull"
        );
        assert!(anonymous.authorization.is_none() && anonymous.form.is_none());
        let basic = request(&realm, None, &scopes[..1], Some(&Credential::new("u".into(), "p".into())));
        assert_eq!(basic.authorization.as_deref(), Some("Basic dTpw"));
        assert!(!basic.url.as_str().contains("p="), "{}", basic.url);
        let identity = request(&realm, Some("s"), &scopes, Some(&Credential::Identity("t&t".into())));
        let form = identity.form.unwrap();
        assert!(
            form.contains("refresh_token=t%26t") && form.contains("scope=repository%3Aa%3Apull+repository"),
            "{form}"
        );
        assert_eq!(identity.url, realm);
    }
}
