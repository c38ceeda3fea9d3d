//! What the gateway has beside its table: counts of what it refused, the key for cookies, and what is known of a connection.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;

use crate::access_log::AccessLog;
use crate::acme::Challenges;
use crate::affinity::Signer;
use crate::refusals::Refusals;
use crate::stats::Reasons;
use crate::tls::Certificates;
use crate::trace::Spans;

/// What the gateway has beside its table.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    /// What the gateway refused by the word of a route or service.
    pub(crate) refusals: Reasons,
    signer: OnceLock<Signer>,
    /// What broken and hostile peers were refused for.
    pub(crate) peers: OnceLock<Arc<Refusals>>,
    pub(crate) challenges: Challenges,
    pub(crate) certificates: OnceLock<Arc<Certificates>>,
    pub(crate) log: OnceLock<AccessLog>,
    pub(crate) spans: OnceLock<Spans>,
    /// The port that clients reach TLS at.
    pub(crate) https_port: OnceLock<u16>,
}

impl Edge {
    /// Takes the key for cookies. Does nothing if there is one.
    pub(crate) fn sign_with(&self, signer: Signer) {
        // Whoever comes second has nothing to add.
        let _ = self.signer.set(signer);
    }

    /// Returns what signs cookies; without a key they are worth nothing beyond this process.
    pub(crate) fn signer(&self) -> &Signer {
        self.signer.get_or_init(|| {
            let random = aws_lc_rs::rand::generate::<[u8; 32]>(&aws_lc_rs::rand::SystemRandom::new());
            Signer::new(&random.map(|random| random.expose()).unwrap_or_default())
        })
    }

    /// Returns whether each request is written down one by one.
    pub(crate) fn watches(&self) -> bool {
        self.log.get().is_some() || self.spans.get().is_some()
    }

    /// Returns the authority of a host at the port for TLS.
    pub(crate) fn https(&self, host: &str) -> String {
        match self.https_port.get() {
            None | Some(443) => host.to_owned(),
            Some(port) => format!("{host}:{port}"),
        }
    }
}

/// What is known of a connection over TLS.
#[derive(Debug, Clone)]
pub(crate) struct Secured {
    /// The host that the client named first (SNI, RFC 6066 §3), lowercase.
    pub(crate) server_name: Option<String>,
    /// The client's certificate, verified, as RFC 9440 §2.2 writes it.
    pub(crate) client: Option<HeaderValue>,
    /// By which authorities: the file with them.
    pub(crate) authorities: Option<Arc<str>>,
}

impl Secured {
    /// Returns the client's certificate if these authorities have verified it.
    pub(crate) fn client_of(&self, authorities: &str) -> Option<&HeaderValue> {
        self.client.as_ref().filter(|_| self.authorities.as_deref() == Some(authorities))
    }
}
