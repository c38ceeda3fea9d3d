//! A registry that can be made to misbehave, on a port of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use basalt_model::Digest;
use basalt_registry::{Patience, Registry, Settings};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What it asks to be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    #[default]
    None,
    /// User and password.
    Basic(&'static str, &'static str),
    /// A token, for anyone or for a user and password; it holds for so many requests.
    Bearer { user: Option<(&'static str, &'static str)>, requests: u32 },
}

/// What it has, and how it misbehaves.
#[derive(Default)]
pub struct State {
    /// By `repository` and tag or digest.
    pub manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// By repository and digest.
    pub blobs: BTreeMap<(String, Digest), Vec<u8>>,
    pub auth: Auth,
    /// So many requests are answered 429, with this `Retry-After`.
    pub busy: u32,
    pub retry_after: Option<&'static str>,
    /// Bodies of blobs break off after so many bytes, so many times.
    pub cut: Option<(usize, u32)>,
    pub no_ranges: bool,
    pub no_head: bool,
    /// Blobs are at this other place.
    pub elsewhere: Option<String>,
    /// The digest that it claims for a tag.
    pub claims: Option<Digest>,
    /// Bodies that are sent may have so many bytes.
    pub largest: Option<usize>,
    /// So many pieces are lost after they came.
    pub lose: u32,
    /// All requests, as `METHOD path [header]`.
    pub log: Vec<String>,
    uploads: BTreeMap<String, Vec<u8>>,
    token: Option<(String, u32)>,
    count: u32,
}

/// The registry.
#[derive(Clone)]
pub struct Fake {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Fake {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let fake = Self { address: listener.local_addr().unwrap(), state };
        let shared = fake.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let fake = shared.clone();
                    tokio::spawn(async move {
                        let service = service_fn(move |request| {
                            let fake = fake.clone();
                            async move { Ok::<_, Infallible>(fake.answer(request).await) }
                        });
                        let http = hyper::server::conn::http1::Builder::new();
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            });
        });
        fake
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns a reference to something here.
    pub fn reference(&self, name: &str) -> basalt_registry::Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    /// Puts a manifest.
    pub fn put_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) -> Digest {
        let digest = digest(bytes);
        for name in [tag.to_owned(), digest.to_string()] {
            self.state().manifests.insert((repository.to_owned(), name), (kind.to_owned(), bytes.to_vec()));
        }
        digest
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = digest(bytes);
        self.state().blobs.insert((repository.to_owned(), digest), bytes.to_vec());
        digest
    }

    /// Puts an image with these layers and returns its manifest's digest.
    pub fn put_image(&self, repository: &str, tag: &str, kind: &str, layers: &[&[u8]]) -> Digest {
        let config = br#"{"architecture":"amd64","os":"linux"}"#;
        let descriptor =
            |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        self.put_blob(repository, config);
        let described: Vec<_> = layers.iter().map(|layer| descriptor(LAYER, layer)).collect();
        for layer in layers {
            self.put_blob(repository, layer);
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": descriptor(OCI_CONFIG, config), "layers": described,
        });
        // Not canonical on purpose: bytes must come through as they are.
        let bytes = serde_json::to_vec_pretty(&manifest).unwrap();
        self.put_manifest(repository, tag, kind, &bytes)
    }

    /// Returns the requests whose line holds a text, and forgets all.
    pub fn requests(&self, text: &str) -> Vec<String> {
        std::mem::take(&mut self.state().log).into_iter().filter(|line| line.contains(text)).collect()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut state = self.state();
        let shown = header("authorization");
        let range = header("range").map(|range| format!(" {range}")).unwrap_or_default();
        let shows = if shown.is_some() { " authorized" } else { "" };
        state.log.push(format!("{} {}{range}{shows}", parts.method, parts.uri));
        if state.busy > 0 {
            state.busy -= 1;
            let mut answer = Response::builder().status(StatusCode::TOO_MANY_REQUESTS);
            if let Some(after) = state.retry_after {
                answer = answer.header("retry-after", after);
            }
            return answer.body(full("")).unwrap();
        }
        let path = parts.uri.path().to_owned();
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.replace("%3A", ":").replace("%2F", "/")))
            .collect();
        if path == "/token" {
            return state.give_token(shown.as_deref());
        }
        if let Some(refused) = state.refuses(self.address, shown.as_deref()) {
            return refused;
        }
        if path == "/v2/" {
            return status(StatusCode::OK);
        }
        let rest = path.strip_prefix("/v2/").unwrap_or_default();
        if let Some((repository, wanted)) = rest.split_once("/manifests/") {
            return state.manifest(&parts.method, repository, wanted, header("content-type"), &body);
        }
        if let Some((repository, rest)) = rest.split_once("/blobs/uploads/") {
            return state.upload(&parts.method, repository, rest, &query, &body, header("content-range"));
        }
        if let Some((repository, wanted)) = rest.split_once("/blobs/") {
            return state.blob(&parts.method, repository, wanted, header("range"));
        }
        status(StatusCode::NOT_FOUND)
    }
}

impl State {
    fn give_token(&mut self, shown: Option<&str>) -> Response<Body> {
        let Auth::Bearer { user, requests } = self.auth.clone() else { return status(StatusCode::NOT_FOUND) };
        if user.is_some_and(|(user, password)| shown != Some(basic(user, password).as_str())) {
            return status(StatusCode::UNAUTHORIZED);
        }
        self.count += 1;
        let token = format!("token-{}", self.count);
        self.token = Some((token.clone(), requests));
        Response::new(full(&json!({ "token": token, "expires_in": 300 }).to_string()))
    }

    fn refuses(&mut self, address: SocketAddr, shown: Option<&str>) -> Option<Response<Body>> {
        let challenge = match &self.auth {
            Auth::None => return None,
            Auth::Basic(user, password) if shown == Some(basic(user, password).as_str()) => return None,
            Auth::Basic(..) => "Basic realm=\"fake\"".to_owned(),
            Auth::Bearer { .. } => {
                if let Some((token, left)) = &mut self.token
                    && shown == Some(format!("Bearer {token}").as_str())
                    && *left > 0
                {
                    *left -= 1;
                    return None;
                }
                format!("Bearer realm=\"http://{address}/token\",service=\"fake\"")
            }
        };
        let body = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "authentication \u{1b}[31mrequired" }] });
        let answer = Response::builder().status(StatusCode::UNAUTHORIZED).header("www-authenticate", challenge);
        Some(answer.body(full(&body.to_string())).unwrap())
    }

    fn manifest(
        &mut self,
        method: &Method,
        repository: &str,
        wanted: &str,
        kind: Option<String>,
        body: &Bytes,
    ) -> Response<Body> {
        let key = (repository.to_owned(), wanted.to_owned());
        match *method {
            Method::PUT => {
                let digest = digest(body);
                let kind = kind.unwrap_or_default();
                self.manifests.insert((repository.to_owned(), digest.to_string()), (kind.clone(), body.to_vec()));
                self.manifests.insert(key, (kind, body.to_vec()));
                let answer =
                    Response::builder().status(StatusCode::CREATED).header("docker-content-digest", digest.to_string());
                answer.body(full("")).unwrap()
            }
            Method::HEAD if self.no_head => status(StatusCode::METHOD_NOT_ALLOWED),
            Method::GET | Method::HEAD => {
                let Some((kind, bytes)) = self.manifests.get(&key) else { return status(StatusCode::NOT_FOUND) };
                let mut answer = Response::builder().header("content-type", kind);
                if !self.no_head {
                    answer = answer.header("docker-content-digest", self.claims.unwrap_or(digest(bytes)).to_string());
                }
                let text = if *method == Method::HEAD { Vec::new() } else { bytes.clone() };
                answer.body(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()).unwrap()
            }
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn blob(&mut self, method: &Method, repository: &str, wanted: &str, range: Option<String>) -> Response<Body> {
        let Ok(digest) = wanted.parse::<Digest>() else { return status(StatusCode::BAD_REQUEST) };
        if let Some(elsewhere) = self.elsewhere.as_ref().filter(|_| *method == Method::GET) {
            let to = format!("{elsewhere}/v2/{repository}/blobs/{digest}");
            return Response::builder()
                .status(StatusCode::TEMPORARY_REDIRECT)
                .header("location", to)
                .body(full(""))
                .unwrap();
        }
        let Some(bytes) = self.blobs.get(&(repository.to_owned(), digest)).cloned() else {
            return status(StatusCode::NOT_FOUND);
        };
        let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let from = from.filter(|_| !self.no_ranges);
        let mut answer = Response::builder();
        if let Some(from) = from {
            answer = answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
        }
        let rest = bytes[from.unwrap_or(0)..].to_vec();
        let cut = match &mut self.cut {
            Some((at, times)) if *times > 0 => {
                *times -= 1;
                Some(*at)
            }
            _ => None,
        };
        let answer = answer.header("content-length", rest.len());
        if *method == Method::HEAD {
            return answer.body(full("")).unwrap();
        }
        let Some(at) = cut else {
            return answer.body(Full::new(Bytes::from(rest)).map_err(|never| match never {}).boxed_unsync()).unwrap();
        };
        let first = Bytes::from(rest[..at.min(rest.len())].to_vec());
        let broken = futures::stream::iter([Ok(Frame::data(first))]).chain(futures::stream::once(async {
            // What was given must be on its way before the connection breaks.
            tokio::time::sleep(Duration::from_millis(30)).await;
            Err(io::Error::other("cut"))
        }));
        answer.body(StreamBody::new(broken).boxed_unsync()).unwrap()
    }

    fn upload(
        &mut self,
        method: &Method,
        repository: &str,
        id: &str,
        query: &BTreeMap<String, String>,
        body: &Bytes,
        range: Option<String>,
    ) -> Response<Body> {
        let at = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}?state=1");
        let accepted = |id: &str, length: usize| {
            let answer = Response::builder().status(StatusCode::ACCEPTED).header("location", at(id));
            answer.header("range", format!("0-{}", length.saturating_sub(1))).body(full("")).unwrap()
        };
        if self.largest.is_some_and(|largest| body.len() > largest) {
            return status(StatusCode::PAYLOAD_TOO_LARGE);
        }
        match *method {
            Method::POST => {
                let mounted = query.get("mount").zip(query.get("from")).and_then(|(digest, from)| {
                    let digest: Digest = digest.parse().ok()?;
                    Some((digest, self.blobs.get(&(from.clone(), digest))?.clone()))
                });
                if let Some((digest, bytes)) = mounted {
                    self.blobs.insert((repository.to_owned(), digest), bytes);
                    return status(StatusCode::CREATED);
                }
                self.count += 1;
                let id = self.count.to_string();
                self.uploads.insert(id.clone(), Vec::new());
                accepted(&id, 0)
            }
            Method::GET => match self.uploads.get(id) {
                Some(bytes) => {
                    let mut answer = accepted(id, bytes.len());
                    *answer.status_mut() = StatusCode::NO_CONTENT;
                    answer
                }
                None => status(StatusCode::NOT_FOUND),
            },
            Method::PATCH => {
                let Some(bytes) = self.uploads.get_mut(id) else { return status(StatusCode::NOT_FOUND) };
                if range.and_then(|range| range.split_once('-')?.0.parse().ok()) != Some(bytes.len()) {
                    return status(StatusCode::RANGE_NOT_SATISFIABLE);
                }
                bytes.extend_from_slice(body);
                if self.lose > 0 {
                    self.lose -= 1;
                    return status(StatusCode::BAD_GATEWAY);
                }
                accepted(id, bytes.len())
            }
            Method::PUT => {
                let Some(mut bytes) = self.uploads.remove(id) else { return status(StatusCode::NOT_FOUND) };
                bytes.extend_from_slice(body);
                let promised = query.get("digest").and_then(|digest| digest.parse().ok());
                if promised != Some(digest(&bytes)) || !query.contains_key("state") {
                    return status(StatusCode::BAD_REQUEST);
                }
                self.blobs.insert((repository.to_owned(), digest(&bytes)), bytes);
                status(StatusCode::CREATED)
            }
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

fn full(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed_unsync()
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(full("")).unwrap()
}

pub fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// Bytes that no one part of which equals another.
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(next).collect()
}

/// Tries often and waits little.
pub fn quick() -> Patience {
    Patience {
        attempts: 3,
        first: Duration::from_millis(5),
        longest: Duration::from_millis(50),
        connect: Duration::from_secs(5),
        stall: Duration::from_secs(5),
    }
}

/// A folder with settings and a cache.
pub struct Here {
    pub dir: tempfile::TempDir,
}

impl Here {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Writes a file of settings.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    pub fn registry(&self) -> Registry {
        self.patient(quick())
    }

    pub fn patient(&self, patience: Patience) -> Registry {
        let settings = Settings::load(self.dir.path(), &|_| None).unwrap();
        Registry::new(settings, &self.dir.path().join("cache"), patience).unwrap()
    }

    /// Returns the files in the cache that hold content, by name.
    pub fn cached(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.dir.path().join("cache/blobs/sha256")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Tells nobody.
pub fn quiet(_: &str, _: u64, _: Option<u64>) {}
