//! A server that speaks RFC 8555 as far as http-01 and tls-alpn-01 need: signatures, nonces and challenges are checked as an authority would.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::CertificateSigningRequestParams;
use rustls::ServerConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::client::{Client, Kind};
use super::secure::Authority;

/// How hosts are proven: at these addresses instead of their ports 80 and 443.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof {
    Http(SocketAddr),
    Tls(SocketAddr),
}

impl Proof {
    fn name(self) -> &'static str {
        match self {
            Self::Http(_) => "http-01",
            Self::Tls(_) => "tls-alpn-01",
        }
    }

    /// Looks at a host for what a key authorization should have put there.
    async fn look(self, host: &str, token: &str, authorization: &str) -> Result<(), String> {
        match self {
            Self::Http(http) => {
                let request =
                    Request::builder().uri(format!("/.well-known/acme-challenge/{token}")).header("host", host);
                let got = Client::new(http, Kind::Close).request(request, "".into()).await;
                let got = got.map_err(|error| error.to_string())?;
                let proven = (got.status, got.body.trim_end()) == (200, authorization);
                if proven { Ok(()) } else { Err(format!("`{host}` is not proven: {got:?}")) }
            }
            Self::Tls(https) => {
                let shown = shown(https, host).await.map_err(|error| error.to_string())?;
                let (_, certificate) =
                    x509_parser::parse_x509_certificate(&shown).map_err(|error| error.to_string())?;
                let identifier =
                    certificate.extensions().iter().find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
                let identifier = identifier.filter(|one| one.critical).map(|one| one.value).unwrap_or_default();
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, authorization.as_bytes());
                let names = certificate.subject_alternative_name().unwrap().map(|names| format!("{:?}", names.value));
                let named = names == Some(format!("SubjectAlternativeName {{ general_names: [DNSName({host:?})] }}"));
                let proven = named && identifier.strip_prefix(&[4, 32]) == Some(digest.as_ref());
                if proven { Ok(()) } else { Err(format!("`{host}` is not proven: {certificate:?}")) }
            }
        }
    }
}

/// Returns the certificate that a host shows to authorities.
async fn shown(https: SocketAddr, host: &str) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())?;
    let stream = tokio::net::TcpStream::connect(https).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("acme-tls/1 was not agreed on".into());
    }
    Ok(session.peer_certificates().and_then(|chain| chain.first()).ok_or("no certificate")?.to_vec())
}

/// Believes any certificate: what is in it is looked at later.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The server. It ends with the test's runtime.
pub(crate) struct AcmeServer {
    pub(crate) authority: Arc<Authority>,
    base: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    nonces: BTreeSet<String>,
    given: u64,
    /// Account keys by their URL.
    accounts: BTreeMap<String, Value>,
    /// Orders by number: host, status, certificate.
    orders: BTreeMap<u64, (String, &'static str, Option<String>)>,
    problems: Vec<String>,
}

impl AcmeServer {
    /// Starts.
    pub(crate) async fn start(proof: Proof) -> Self {
        let authority = Arc::new(Authority::new());
        let (certificate, key) = authority.issue(&["localhost"]);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State::default()));
        let server = Self { authority, base, state };
        let (authority, base, state) = (server.authority.clone(), server.base.clone(), server.state.clone());
        tokio::spawn(async move {
            let tls = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, authority, base, state) = (tls.clone(), authority.clone(), base.clone(), state.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let answer = service_fn(move |request| {
                        let (authority, base, state) = (authority.clone(), base.clone(), state.clone());
                        async move { Ok::<_, Infallible>(answer(request, &authority, &base, &state, proof).await) }
                    });
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        server
    }

    pub(crate) fn directory(&self) -> String {
        format!("{}/directory", self.base)
    }

    pub(crate) fn issued(&self) -> usize {
        self.state.lock().unwrap().orders.values().filter(|order| order.2.is_some()).count()
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.state.lock().unwrap().problems.clone()
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(
    request: Request<Incoming>,
    authority: &Authority,
    base: &str,
    state: &Mutex<State>,
    proof: Proof,
) -> Answer {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let result = match path.as_str() {
        "/directory" => Ok((200, None, json!({
            "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"), "newOrder": format!("{base}/order"),
        }).to_string())),
        "/nonce" => Ok((200, None, String::new())),
        _ => match open(&body, &format!("{base}{path}"), state) {
            Ok((key, account, payload)) => act(&path, key, account, payload, authority, base, state, proof).await,
            Err(problem) => Err(problem),
        },
    };
    let (status, location, text) = result.unwrap_or_else(|problem: String| {
        state.lock().unwrap().problems.push(problem.clone());
        let problem = json!({ "type": "urn:ietf:params:acme:error:malformed", "detail": problem });
        (400, None, problem.to_string())
    });
    let nonce = {
        let mut state = state.lock().unwrap();
        state.given += 1;
        let nonce = format!("nonce{}", state.given);
        state.nonces.insert(nonce.clone());
        nonce
    };
    let mut answer = Response::builder().status(status).header("replay-nonce", nonce);
    if let Some(location) = location {
        answer = answer.header("location", location);
    }
    answer.body(Full::from(text)).unwrap()
}

/// Opens a signed request (§6.2): returns its key, its account's URL, and what it says.
fn open(body: &[u8], url: &str, state: &Mutex<State>) -> Result<(Value, Option<String>, Value), String> {
    let jws: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let part = |name: &str| jws[name].as_str().ok_or(format!("no {name}"));
    let decode = |text: &str| BASE64.decode(text).map_err(|error| error.to_string());
    let header: Value = serde_json::from_slice(&decode(part("protected")?)?).map_err(|error| error.to_string())?;
    let mut state = state.lock().unwrap();
    if header["alg"] != "ES256" || header["url"] != url {
        return Err(format!("wrong header {header}"));
    }
    if !state.nonces.remove(header["nonce"].as_str().unwrap_or_default()) {
        return Err(format!("nonce {} was not given, or twice", header["nonce"]));
    }
    let account = header["kid"].as_str().map(str::to_owned);
    let key = match &account {
        Some(account) => state.accounts.get(account).cloned().ok_or("no such account")?,
        None => header["jwk"].clone(),
    };
    let mut point = vec![4];
    for axis in ["x", "y"] {
        point.extend(decode(key[axis].as_str().ok_or("no key")?)?);
    }
    let signed = format!("{}.{}", part("protected")?, part("payload")?);
    let signature = decode(part("signature")?)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| "the signature does not fit".to_owned())?;
    let payload = decode(part("payload")?)?;
    let payload = if payload.is_empty() { Value::Null } else { serde_json::from_slice(&payload).unwrap() };
    Ok((key, account, payload))
}

#[allow(clippy::too_many_arguments)]
async fn act(
    path: &str,
    key: Value,
    account: Option<String>,
    payload: Value,
    authority: &Authority,
    base: &str,
    state: &Mutex<State>,
    proof: Proof,
) -> Result<(u16, Option<String>, String), String> {
    if path == "/account" {
        if payload["termsOfServiceAgreed"] != true || payload["contact"] != json!(["mailto:ops@example.com"]) {
            return Err(format!("{payload}"));
        }
        let mut state = state.lock().unwrap();
        let url = format!("{base}/account/{}", state.accounts.len() + 1);
        state.accounts.insert(url.clone(), key);
        return Ok((201, Some(url), json!({ "status": "valid" }).to_string()));
    }
    account.ok_or("signed by nobody's account")?;
    if path == "/order" {
        let mut state = state.lock().unwrap();
        let number = state.orders.len() as u64 + 1;
        let host = payload["identifiers"][0]["value"].as_str().ok_or("no host")?.to_owned();
        state.orders.insert(number, (host, "pending", None));
        let order = order(&state, number, base);
        return Ok((201, Some(format!("{base}/order/{number}")), order));
    }
    let (kind, number) = path[1..].split_once('/').ok_or("no such thing")?;
    let number: u64 = number.parse().map_err(|_| "no such thing")?;
    let (host, status, certificate) = state.lock().unwrap().orders.get(&number).cloned().ok_or("no such order")?;
    let token = format!("token-{number}");
    let challenge = |status: &str| json!({ "type": proof.name(), "url": format!("{base}/challenge/{number}"), "token": token, "status": status });
    match kind {
        "authorization" => {
            let proven = if status == "pending" { "pending" } else { "valid" };
            Ok((
                200,
                None,
                json!({
                    "identifier": { "type": "dns", "value": host }, "status": proven, "challenges": [challenge(proven)],
                })
                .to_string(),
            ))
        }
        "challenge" => {
            let text = |name: &str| key[name].as_str().unwrap_or_default();
            let thumb = format!(
                r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#,
                text("crv"),
                text("kty"),
                text("x"),
                text("y")
            );
            let thumb = BASE64.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, thumb.as_bytes()));
            proof.look(&host, &token, &format!("{token}.{thumb}")).await?;
            state.lock().unwrap().orders.get_mut(&number).unwrap().1 = "ready";
            Ok((200, None, challenge("valid").to_string()))
        }
        "finalize" => {
            if status != "ready" {
                return Err("not proven yet".into());
            }
            let csr = BASE64.decode(payload["csr"].as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
            let mut csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
                .map_err(|error| error.to_string())?;
            let names: Vec<String> = csr.params.subject_alt_names.iter().map(|name| format!("{name:?}")).collect();
            if names.len() != 1 || !names[0].contains(&host) {
                return Err(format!("the request is for {names:?}"));
            }
            // The first is past two thirds of its life, others are not.
            let life = if number == 1 { (1970, 2045) } else { (2020, 2200) };
            csr.params.not_before = rcgen::date_time_ymd(life.0, 1, 1);
            csr.params.not_after = rcgen::date_time_ymd(life.1, 1, 1);
            let certificate = csr.signed_by(&authority.0).map_err(|error| error.to_string())?;
            let mut state = state.lock().unwrap();
            *state.orders.get_mut(&number).unwrap() = (host, "valid", Some(certificate.pem()));
            Ok((200, None, order(&state, number, base)))
        }
        "order" => Ok((200, None, order(&state.lock().unwrap(), number, base))),
        "certificate" => Ok((200, None, certificate.ok_or("not issued yet")?)),
        _ => Err(format!("there is no {kind}")),
    }
}

fn order(state: &State, number: u64, base: &str) -> String {
    let (host, status, certificate) = &state.orders[&number];
    let mut order = json!({
        "status": status,
        "identifiers": [{ "type": "dns", "value": host }],
        "authorizations": [format!("{base}/authorization/{number}")],
        "finalize": format!("{base}/finalize/{number}"),
    });
    if certificate.is_some() {
        order["certificate"] = format!("{base}/certificate/{number}").into();
    }
    order.to_string()
}
