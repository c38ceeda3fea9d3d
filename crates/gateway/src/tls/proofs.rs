//! What an authority is shown that proves a host by looking at it over TLS (tls-alpn-01, RFC 8737).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificates::builder;

/// What such an authority speaks (RFC 8737 §6.2).
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";

/// What is shown, by host, as long as proofs are under way.
#[derive(Debug, Default)]
pub(crate) struct Proofs(RwLock<HashMap<String, Arc<ServerConfig>>>);

impl Proofs {
    /// Returns what is spoken with an authority that asks for a host.
    pub(crate) fn config(&self, host: &str) -> Option<Arc<ServerConfig>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// Begins to show a certificate for a host that has the SHA-256 of its key authorization in it (§3).
    ///
    /// # Errors
    /// If none can be made.
    pub(crate) fn begin(&self, host: &str, digest: &[u8; 32]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = aws_lc_rs::sign::any_supported_type(&key.into())?;
        // Not checked by rustls, which knows nothing of the extension and so refuses it.
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.into()], key));
        let mut config = builder().with_no_client_auth().with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), Arc::new(config));
        Ok(())
    }

    /// Ends it.
    pub(crate) fn end(&self, host: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(host);
    }
}
