//! Connections: one client for each host, with the certificates that are for it.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use reqwest::{Client, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Result, io};
use crate::patience::Patience;
use crate::rules::is_loopback;

/// Makes clients and keeps them.
pub(crate) struct Http {
    certs: Vec<PathBuf>,
    patience: Patience,
    clients: Mutex<BTreeMap<(String, bool), Client>>,
    /// The certificates that the system trusts; read once, when first needed.
    system: OnceLock<Vec<CertificateDer<'static>>>,
}

impl Http {
    pub(crate) fn new(certs: Vec<PathBuf>, patience: Patience) -> Self {
        Self { certs, patience, clients: Mutex::default(), system: OnceLock::new() }
    }

    /// Returns the client for a URL. `insecure` takes any certificate.
    pub(crate) fn client(&self, url: &Url, insecure: bool) -> Result<Client> {
        let host = host(url);
        let tls = url.scheme() == "https";
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (format!("{}://{host}", url.scheme()), insecure);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("basalt/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.patience.connect)
            // Redirects are followed where the credentials are known, and retries where the wait is.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .tls_backend_preconfigured(self.tls(&host, tls, insecure)?);
        if is_loopback(&host) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| Error::Unreachable { host: host.clone(), why: cause(&e) })?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn tls(&self, host: &str, tls: bool, insecure: bool) -> Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Unreachable { host: host.to_owned(), why: e.to_string() })?;
        let mut roots = RootCertStore::empty();
        let mut identity = None;
        if tls {
            let system = self.system.get_or_init(|| rustls_native_certs::load_native_certs().certs);
            roots.add_parsable_certificates(system.iter().cloned());
            for dir in self.dirs(host) {
                for path in files(&dir, "crt")? {
                    for certificate in certificates(&path)? {
                        roots.add(certificate).map_err(|e| bad(&path, e))?;
                    }
                }
                for path in files(&dir, "cert")? {
                    let key = path.with_extension("key");
                    let private = PrivateKeyDer::from_pem_file(&key).map_err(|e| bad(&key, e))?;
                    identity.get_or_insert((path.clone(), certificates(&path)?, private));
                }
            }
        }
        let builder = if insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            builder.with_root_certificates(roots)
        };
        match identity {
            None => Ok(builder.with_no_client_auth()),
            Some((path, chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|e| bad(&path, e)),
        }
    }

    /// Returns the folders of certificates for a host: with and without its port.
    fn dirs(&self, host: &str) -> Vec<PathBuf> {
        let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let hub = (host == "registry-1.docker.io").then_some("docker.io");
        let names = [Some(host), Some(bare).filter(|bare| *bare != host), hub];
        let all = self.certs.iter().flat_map(|dir| names.into_iter().flatten().map(|name| dir.join(name)));
        all.filter(|dir| dir.is_dir()).collect()
    }
}

/// Returns the host of a URL as references write it: with its port unless that is the scheme's own.
pub(crate) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// Returns the innermost reason of a failed request: the outer ones repeat the URL.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.is_timeout() { "it does not answer".to_owned() } else { innermost.to_string() }
}

/// Returns whether a server was reached whose certificate is refused: then plain HTTP must not be tried instead.
pub(crate) fn is_bad_certificate(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(rustls::Error::InvalidCertificate(_)) = tls_error(error) {
            return true;
        }
        source = error.source();
    }
    false
}

/// TLS errors travel within I/O errors, some of these within others, and `source` skips what they wrap.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    tls_error(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

/// Returns the files of a folder with an extension, sorted.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("list", dir))? {
        let path = entry.map_err(io("list", dir))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all = all.map_err(|e| bad(path, e))?;
    if all.is_empty() { Err(bad(path, "it holds no certificate (PEM)")) } else { Ok(all) }
}

fn bad(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Settings { path: path.to_owned(), why: why.to_string() }
}

/// Takes any certificate, where a person has said `insecure = true`.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
