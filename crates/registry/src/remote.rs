//! One repository at one registry: asked with the right credentials, again after a wait, and elsewhere if it says so.

use std::sync::Arc;
use std::time::Duration;

use basalt_model::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::{Body, Response, Url};
use tokio::sync::Mutex;

use crate::challenge::Challenge;
use crate::credentials::{Credential, Credentials};
use crate::error::{Error, Result};
use crate::http::{Http, cause, host, is_bad_certificate};
use crate::patience::{Patience, retry_after};
use crate::rules::Endpoint;
use crate::token::{self, Token};

/// Registries send one to where the content lies; more than a few are a loop.
const MOST_REDIRECTS: u32 = 5;

/// What a registry says about an error, or a token server answers, is far shorter.
const LONGEST_ANSWER: u64 = 256 << 10;

/// One repository at one registry.
pub(crate) struct Remote {
    http: Arc<Http>,
    patience: Patience,
    endpoint: Endpoint,
    /// `SCHEME://HOST/v2/`.
    base: Url,
    /// What is to be done, as token servers write it.
    scopes: Vec<String>,
    credential: Option<Credential>,
    access: Mutex<Access>,
}

/// What the registry asks to be shown, and what we have to show.
#[derive(Default)]
struct Access {
    challenge: Option<Challenge>,
    token: Option<Token>,
}

/// What is sent along.
pub(crate) enum Payload {
    /// Nothing.
    Empty,
    /// Bytes.
    Bytes(Vec<u8>),
    /// A stream of so many bytes.
    Stream(Body, u64),
}

/// A request.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Makes the body, anew for each attempt.
    pub(crate) body: &'a (dyn Fn() -> Result<Payload> + Send + Sync),
    /// What is asked for, for people.
    pub(crate) what: &'a str,
    /// How often it is tried.
    pub(crate) attempts: u32,
}

impl Remote {
    /// Finds out how the registry is reached and what it asks to be shown.
    ///
    /// # Errors
    /// If it can't be reached, or a credential can't be had.
    pub(crate) async fn connect(
        http: Arc<Http>,
        patience: Patience,
        credentials: &Credentials,
        endpoint: Endpoint,
        scopes: Vec<String>,
    ) -> Result<Self> {
        let credential = credentials.find(&endpoint.host, &endpoint.repository).await?;
        // Docker Hub's images are not where its name says.
        let at = if endpoint.host == "docker.io" { "registry-1.docker.io" } else { &endpoint.host };
        let base = |scheme: &str| {
            format!("{scheme}://{at}/v2/")
                .parse::<Url>()
                .map_err(|e| Error::Unreachable { host: endpoint.host.clone(), why: format!("`{at}` is no host: {e}") })
        };
        let mut this = Self {
            http,
            patience,
            base: base("https")?,
            endpoint: endpoint.clone(),
            scopes,
            credential,
            access: Mutex::default(),
        };
        if endpoint.may_be_plain() && !this.speaks_tls().await? {
            this.base = base("http")?;
        }
        this.ping().await?;
        Ok(this)
    }

    pub(crate) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Returns the URL of something of the repository: `manifests/1.2`, `blobs/sha256:…`.
    pub(crate) fn url(&self, path: &str) -> Result<Url> {
        self.base.join(&format!("{}/{path}", self.endpoint.repository)).map_err(|e| self.answer(path, e.to_string()))
    }

    /// Returns the headers of a request for a manifest or index.
    pub(crate) fn accepts() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for kind in [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST] {
            headers.append(ACCEPT, HeaderValue::from_static(kind));
        }
        headers
    }

    /// Returns whether a server speaks TLS; one whose certificate is bad does.
    async fn speaks_tls(&self) -> Result<bool> {
        let client = self.http.client(&self.base, self.endpoint.insecure)?;
        let answer = tokio::time::timeout(self.patience.stall, client.get(self.base.clone()).send()).await;
        Ok(match answer {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => is_bad_certificate(&error),
            Err(_) => false,
        })
    }

    /// Asks whether it is there, and notes what it asks to be shown.
    async fn ping(&self) -> Result<()> {
        let mut n = 1;
        let answer = loop {
            let answer = self.once(&Method::GET, &self.base, &HeaderMap::new(), None, Payload::Empty).await;
            if !self.again(&answer, &mut n, self.patience.attempts).await {
                break answer?;
            }
        };
        if answer.status() == StatusCode::UNAUTHORIZED {
            // Some name a scope here, which is of no repository.
            self.access.lock().await.challenge = Challenge::of(answer.headers()).map(Challenge::without_scope);
        }
        Ok(())
    }

    /// Sends a request until it is answered well, or is not to be.
    ///
    /// # Errors
    /// If it is denied, not there, or not answered as it must be.
    pub(crate) async fn send(&self, ask: &Ask<'_>) -> Result<Response> {
        let mut n = 1;
        let answer = loop {
            let answer = self.authorized(ask).await;
            if !self.again(&answer, &mut n, ask.attempts).await {
                break answer?;
            }
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = self.said(answer).await;
        let (host, what) = (self.host().to_owned(), ask.what.to_owned());
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { host, what, why: self.denied(&said) },
            StatusCode::NOT_FOUND => Error::NotFound { host, what },
            status => {
                Error::Answer { host, what, why: format!("it answers {status}{said}"), status: Some(status.as_u16()) }
            }
        })
    }

    /// Waits and returns true if attempt `n` is to be followed by another: the registry is busy or can't be reached.
    async fn again(&self, answer: &Result<Response>, n: &mut u32, attempts: u32) -> bool {
        let asked = match answer {
            Ok(answer) if is_passing(answer.status()) => retry_after(answer.headers()),
            Err(error) if error.is_unreachable() => None,
            _ => return false,
        };
        let patience = Patience { attempts, ..self.patience };
        let Some(wait) = patience.wait(*n, asked) else { return false };
        match answer {
            Ok(answer) => tracing::debug!(host = self.host(), status = %answer.status(), ?wait, "asked again"),
            Err(error) => tracing::debug!(host = self.host(), %error, ?wait, "asked again"),
        }
        tokio::time::sleep(wait).await;
        *n += 1;
        true
    }

    /// Sends a request with what the registry asks to be shown, and once more if it asks for more.
    async fn authorized(&self, ask: &Ask<'_>) -> Result<Response> {
        let shown = self.authorization().await?;
        let answer = self.followed(ask, shown.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::of(answer.headers()) else { return Ok(answer) };
        {
            let mut access = self.access.lock().await;
            // Another transfer may have got a new one meanwhile.
            access.token = access.token.take().filter(|token| Some(&token.header) != shown.as_ref());
            access.challenge = Some(challenge);
        }
        let shown = self.authorization().await?;
        if shown.is_none() { Ok(answer) } else { self.followed(ask, shown).await }
    }

    /// Returns the `Authorization` header for now, if there is one to show.
    async fn authorization(&self) -> Result<Option<String>> {
        // Held while a token is had, so that parallel transfers share one.
        let mut access = self.access.lock().await;
        match (&access.challenge, &self.credential) {
            (None, _) => Ok(None),
            (Some(Challenge::Basic), Some(Credential::Basic { user, password })) => {
                Ok(Some(Credential::basic(user, password)))
            }
            (Some(Challenge::Basic), _) => Ok(None),
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                if let Some(token) = access.token.as_ref().filter(|token| token.is_fresh()) {
                    return Ok(Some(token.header.clone()));
                }
                let token = self.token(realm, service.as_deref(), scope.as_deref()).await?;
                let header = token.header.clone();
                access.token = Some(token);
                Ok(Some(header))
            }
        }
    }

    /// Gets a token.
    async fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<Token> {
        let what = "a token";
        let realm: Url = self.base.join(realm).map_err(|e| self.answer(what, format!("its realm is no URL: {e}")))?;
        if self.base.scheme() == "https" && realm.scheme() != "https" {
            return Err(self.answer(what, format!("credentials are not sent in clear to `{}`", host(&realm))));
        }
        let mut scopes = self.scopes.clone();
        if let Some(scope) = scope {
            let asked = scope.split_whitespace().map(str::to_owned);
            scopes.extend(asked.filter(|asked| !self.scopes.iter().any(|scope| covers(scope, asked))));
        }
        let request = token::request(&realm, service, &scopes, self.credential.as_ref());
        let mut headers = HeaderMap::new();
        let (method, body) = match request.form {
            None => (Method::GET, None),
            Some(form) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
                (Method::POST, Some(form.into_bytes()))
            }
        };
        let mut n = 1;
        let answer = loop {
            let body = body.clone().map_or(Payload::Empty, Payload::Bytes);
            let answer = self.once(&method, &request.url, &headers, request.authorization.as_deref(), body).await;
            if !self.again(&answer, &mut n, self.patience.attempts).await {
                break answer?;
            }
        };
        let status = answer.status();
        if !status.is_success() {
            let said = self.said(answer).await;
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied {
                    host: self.host().to_owned(),
                    what: format!("`{}`", self.endpoint.repository),
                    why: self.denied(&said),
                },
                status => self.answer(what, format!("`{}` answers {status}{said}", host(&realm))),
            });
        }
        let bytes = self.read(answer, LONGEST_ANSWER, what).await?;
        Token::parse(&bytes)
            .ok_or_else(|| self.answer(what, format!("there is none in what `{}` answers", host(&realm))))
    }

    /// Sends a request, and again to where the answer says. Credentials go to the registry itself alone.
    async fn followed(&self, ask: &Ask<'_>, shown: Option<String>) -> Result<Response> {
        let mut url = ask.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let shown = shown.as_deref().filter(|_| same_origin(&url, &self.base));
            let answer = self.once(&ask.method, &url, &ask.headers, shown, (ask.body)()?).await?;
            let follows = match answer.status() {
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
                StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
                    ask.method == Method::GET || ask.method == Method::HEAD
                }
                _ => false,
            };
            if !follows {
                return Ok(answer);
            }
            url = self.location(&answer, &url, ask.what)?;
        }
        Err(self.answer(ask.what, format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    /// Returns where an answer points to.
    pub(crate) fn location(&self, answer: &Response, asked: &Url, what: &str) -> Result<Url> {
        let to = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let to = to.ok_or_else(|| self.answer(what, "it does not say where to go on".to_owned()))?;
        let to = asked.join(to).map_err(|e| self.answer(what, format!("it goes on at what is no URL: {e}")))?;
        match to.scheme() {
            "https" => Ok(to),
            "http" if asked.scheme() == "http" || self.endpoint.insecure => Ok(to),
            scheme => Err(self.answer(
                what,
                format!("it goes on at `{}` over `{scheme}`, which is not as safe as it began", host(&to)),
            )),
        }
    }

    /// Sends a request once.
    async fn once(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        shown: Option<&str>,
        body: Payload,
    ) -> Result<Response> {
        let insecure = self.endpoint.insecure && same_origin(url, &self.base);
        let mut request =
            self.http.client(url, insecure)?.request(method.clone(), url.clone()).headers(headers.clone());
        if let Some(shown) = shown {
            let mut value = HeaderValue::from_str(shown)
                .map_err(|_| self.answer("a token", "it has characters that no header may have".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let streams = matches!(body, Payload::Stream(..));
        request = match body {
            Payload::Empty if *method == Method::GET || *method == Method::HEAD => request,
            Payload::Empty => request.header(CONTENT_LENGTH, 0),
            Payload::Bytes(bytes) => request.body(bytes),
            Payload::Stream(body, length) => request.header(CONTENT_LENGTH, length).body(body),
        };
        let unreachable = |why: String| Error::Unreachable { host: host(url), why };
        let answer = if streams {
            // Whether it moves is watched by who makes the stream.
            request.send().await
        } else {
            let answer = tokio::time::timeout(self.patience.stall, request.send()).await;
            answer.map_err(|_| unreachable(format!("it does not answer within {}", seconds(self.patience.stall))))?
        };
        answer.map_err(|error| unreachable(cause(&error)))
    }

    /// Reads the next piece of an answer; `None` at its end.
    pub(crate) async fn chunk(&self, answer: &mut Response) -> Result<Option<bytes::Bytes>> {
        let unreachable = |why: String| Error::Unreachable { host: self.host().to_owned(), why };
        let next = tokio::time::timeout(self.patience.stall, answer.chunk()).await;
        let next = next.map_err(|_| unreachable(format!("nothing came for {}", seconds(self.patience.stall))))?;
        next.map_err(|error| unreachable(cause(&error)))
    }

    /// Reads a short answer whole.
    pub(crate) async fn read(&self, mut answer: Response, longest: u64, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(&mut answer).await? {
            if (bytes.len() + chunk.len()) as u64 > longest {
                return Err(self.answer(what, format!("it has more than {longest} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Returns what a registry says about an error (distribution spec, "Error Codes"), with `: ` before it.
    async fn said(&self, answer: Response) -> String {
        let bytes = self.read(answer, LONGEST_ANSWER, "error").await.unwrap_or_default();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let one = |error: &serde_json::Value| {
            let text = error["message"].as_str().filter(|text| !text.is_empty()).or(error["code"].as_str())?;
            Some(text.to_owned())
        };
        let all: Vec<String> = json["errors"].as_array().into_iter().flatten().filter_map(one).collect();
        let text =
            if all.is_empty() { json["details"].as_str().unwrap_or_default().to_owned() } else { all.join("; ") };
        // What comes from elsewhere must not write to a terminal what it likes.
        let text: String = text.escape_debug().take(500).collect();
        if text.is_empty() { text } else { format!(": {text}") }
    }

    fn denied(&self, said: &str) -> String {
        match &self.credential {
            Some(credential) => format!("as {credential:?}{said}"),
            None => format!("without a login{said}"),
        }
    }

    pub(crate) fn answer(&self, what: &str, why: String) -> Error {
        Error::Answer { host: self.host().to_owned(), what: what.to_owned(), why, status: None }
    }
}

/// Returns whether a status says that it may be otherwise soon.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

/// Returns whether the scope `held` allows all that `asked` does: `repository:a:pull,push` covers `repository:a:pull`.
fn covers(held: &str, asked: &str) -> bool {
    let (Some((held_on, held)), Some((asked_on, asked))) = (held.rsplit_once(':'), asked.rsplit_once(':')) else {
        return held == asked;
    };
    held_on == asked_on && asked.split(',').all(|action| held.split(',').any(|held| held == action))
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

fn seconds(span: Duration) -> String {
    format!("{} s", span.as_secs_f64())
}

/// Makes a body of nothing.
pub(crate) fn nothing() -> Result<Payload> {
    Ok(Payload::Empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let check =
            |held: &str, asked: &str, expected: bool| assert_eq!(covers(held, asked), expected, "{held} {asked}");
        check("repository:a:pull", "repository:a:pull", true);
        check("repository:a:pull,push", "repository:a:pull", true);
        check("repository:a:pull", "repository:a:pull,push", false);
        check("repository:a:pull", "repository:b:pull", false);
        check("x", "x", true);
    }

    #[test]
    fn statuses() {
        let check = |status: u16, expected: bool| {
            assert_eq!(is_passing(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        };
        check(429, true);
        check(500, true);
        check(503, true);
        check(408, true);
        check(501, false);
        check(404, false);
        check(401, false);
        check(200, false);
    }
}
