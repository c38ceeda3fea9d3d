//! Certificates for tests, and clients that check them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::Got;

/// An authority of the test's own.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns a certificate and its key in PEM.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a certificate and its key as `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str, names: &[&str]) -> (String, String) {
        let (certificate, key) = self.issue(names);
        let paths = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate).unwrap();
        std::fs::write(&paths.1, key).unwrap();
        (paths.0.display().to_string(), paths.1.display().to_string())
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

/// What a client over TLS wants.
#[derive(Clone)]
pub(crate) struct Wants<'a> {
    pub(crate) host: &'a str,
    /// The name in the handshake, if it is another.
    pub(crate) server_name: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) certificate: Option<(String, String)>,
    pub(crate) http2: bool,
    pub(crate) version: &'static rustls::SupportedProtocolVersion,
}

impl<'a> Wants<'a> {
    pub(crate) fn get(host: &'a str, path: &'a str) -> Self {
        Self { host, server_name: None, path, certificate: None, http2: false, version: &rustls::version::TLS13 }
    }

    /// Asks, and returns the answer with the certificate that was shown.
    pub(crate) async fn from(
        self,
        to: SocketAddr,
        roots: RootCertStore,
    ) -> Result<(Got, CertificateDer<'static>), Box<dyn std::error::Error + Send + Sync>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])?
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?,
        };
        config.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let name = ServerName::try_from(self.server_name.unwrap_or(self.host).to_owned())?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(to).await?).await?;
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(self.version.version));
        // What is recorded today is safe from the quantum computers of tomorrow, where both sides can do that.
        let group = session.negotiated_key_exchange_group().map(|group| group.name());
        let hybrid = self.version.version == rustls::ProtocolVersion::TLSv1_3;
        assert_eq!(group, Some(if hybrid { NamedGroup::X25519MLKEM768 } else { NamedGroup::X25519 }));
        let shown = session.peer_certificates().unwrap()[0].clone().into_owned();
        let request = Request::builder().uri(if self.http2 {
            format!("https://{}{}", self.host, self.path)
        } else {
            self.path.to_owned()
        });
        let stream = TokioIo::new(stream);
        let response = if self.http2 {
            let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            client.send_request(request.body(Full::<Bytes>::default())?).await?
        } else {
            let (mut client, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            client.send_request(request.header("host", self.host).body(Full::<Bytes>::default())?).await?
        };
        let (parts, body) = response.into_parts();
        let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        Ok((Got { status: parts.status.as_u16(), headers: parts.headers, body, trailers: Default::default() }, shown))
    }
}
