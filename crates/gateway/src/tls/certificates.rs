//! The certificates in use, by host. Files are read again when they change; what can't be read leaves the last that could.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use basalt_model::{CertificateSource, ClientCertificates, RouteTable, Tls};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, version};
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::Times;
use super::proofs::Proofs;
use crate::gently::gently;
use crate::plane::Plane;

/// Time between two looks at the files.
const LOOKING: Duration = Duration::from_secs(2);

/// The certificates in use.
#[derive(Debug)]
pub(crate) struct Certificates {
    hosts: ArcSwap<HashMap<String, Host>>,
    /// For names that nobody has a certificate for.
    nobody: Host,
    loaded: Mutex<BTreeMap<String, Loaded>>,
    pub(crate) proofs: Proofs,
    /// Where those of ACME are.
    folder: PathBuf,
}

/// What is spoken with clients of a host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) config: Arc<ServerConfig>,
    /// Whose clients are let in: the file with their authorities.
    pub(crate) authorities: Option<Arc<str>>,
    /// When its certificate is valid.
    times: Option<Times>,
}

/// What a table wants of a host.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) tls: Tls,
    /// Whether its routes do not agree on that.
    contested: bool,
}

/// What was read for a host.
#[derive(Debug)]
struct Loaded {
    tls: Tls,
    stamps: Vec<Option<Stamp>>,
    config: Option<Arc<ServerConfig>>,
    times: Option<Times>,
}

/// Which file it was: device, inode, size and time of change.
type Stamp = (u64, u64, u64, i64, i64);

/// Knows no certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl Certificates {
    /// Returns a store without certificates. Those of ACME are in `DATA/gateway/acme`.
    pub(crate) fn in_data(data: &Path) -> Self {
        Self {
            hosts: ArcSwap::default(),
            nobody: Host {
                config: Arc::new(builder().with_no_client_auth().with_cert_resolver(Arc::new(Nobody))),
                authorities: None,
                times: None,
            },
            loaded: Mutex::default(),
            proofs: Proofs::default(),
            folder: data.join("gateway/acme"),
        }
    }

    /// Returns where the certificate and key of a host are that an authority has issued.
    pub(crate) fn issued(&self, host: &str) -> PathBuf {
        // Hosts are checked by the stack and the table; a slash would leave the folder.
        self.folder.join(format!("{}.pem", host.replace('/', "_")))
    }

    /// Returns what is spoken with a client that wants a host.
    pub(crate) fn host(&self, host: Option<&str>) -> Host {
        let hosts = self.hosts.load();
        let Some(host) = host else { return self.nobody.clone() };
        let wildcard = || {
            let suffixes = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
            suffixes.filter_map(|suffix| hosts.get(&suffix)).next()
        };
        hosts.get(host).or_else(wildcard).unwrap_or(&self.nobody).clone()
    }

    /// Returns when the certificate of each host that has one is valid.
    pub(crate) fn times(&self) -> BTreeMap<String, Option<Times>> {
        self.hosts.load().iter().map(|(name, host)| (name.clone(), host.times)).collect()
    }

    /// Reads what is new for a table that is about to be in force, so that its hosts have certificates once it is. Hosts that have
    /// none by its word keep theirs until it is [loaded](Self::load), which waits until what is returned is dropped.
    #[must_use]
    pub(crate) fn prepare(&self, table: &RouteTable) -> impl Sized + use<'_> {
        let mut loaded = self.loaded();
        self.read_for(table, &mut loaded, |loaded, others| loaded.extend(others));
        loaded
    }

    /// Reads what is new or has changed for the hosts of the table in force, and forgets others. Returns problems by host.
    pub(crate) fn load(&self, plane: &Plane) -> BTreeMap<String, String> {
        let mut loaded = self.loaded();
        // Asked only now: an older table would take away what a newer one was prepared with.
        self.read_for(&plane.table(), &mut loaded, |_, _| {})
    }

    /// Reads what is new or has changed for the hosts of a table; `others` says what becomes of other hosts.
    fn read_for(
        &self,
        table: &RouteTable,
        loaded: &mut BTreeMap<String, Loaded>,
        others: impl FnOnce(&mut BTreeMap<String, Loaded>, BTreeMap<String, Loaded>),
    ) -> BTreeMap<String, String> {
        let mut problems: BTreeMap<String, String> = BTreeMap::new();
        let mut before = std::mem::take(loaded);
        for (host, Wanted { tls, contested }) in wanted(table) {
            if contested {
                let problem = format!(
                    "routes of `{host}` name different certificates, or different authorities of clients; what the first of them says holds"
                );
                problems.insert(host.clone(), problem);
            }
            let stamps = self.files(&host, &tls).iter().map(|path| stamp(path)).collect();
            // Who is let in by other authorities than before is not let in by what was read for those.
            let authorities = |tls: &Tls| tls.clients.as_ref().map(|clients| clients.authorities.clone());
            let old = before.remove(&host).filter(|old| authorities(&old.tls) == authorities(&tls));
            let is_same = |old: &&Loaded| {
                let same = old.tls.certificate == tls.certificate && old.tls.clients == tls.clients;
                same && old.stamps == stamps && old.config.is_some()
            };
            if let Some(old) = old.as_ref().filter(is_same) {
                let kept = Loaded { tls, stamps, config: old.config.clone(), times: old.times };
                loaded.insert(host, kept);
                continue;
            }
            let entry = match self.read(&host, &tls) {
                Ok((config, times)) => Loaded { tls, stamps, config: Some(Arc::new(config)), times },
                Err(problem) => {
                    let waiting = tls.certificate == CertificateSource::Acme && stamps.first() == Some(&None);
                    if !waiting {
                        let problem = format!("no TLS for `{host}`: {problem}");
                        problems
                            .entry(host.clone())
                            .and_modify(|told| *told += &format!("; {problem}"))
                            .or_insert(problem);
                    }
                    // The last that could be read goes on; without its stamps it is looked at again.
                    let (config, times) = old.map_or((None, None), |old| {
                        // An authority that is to issue one is not to wait until another's time is over.
                        let same = old.tls.certificate == tls.certificate;
                        (old.config, old.times.filter(|_| same))
                    });
                    Loaded { tls, stamps: Vec::new(), config, times }
                }
            };
            loaded.insert(host, entry);
        }
        others(loaded, before);
        let ready = loaded.iter().filter_map(|(host, loaded)| {
            let authorities = loaded.tls.clients.as_ref().map(|clients| clients.authorities.as_str().into());
            Some((host.clone(), Host { config: loaded.config.clone()?, authorities, times: loaded.times }))
        });
        self.hosts.store(Arc::new(ready.collect()));
        problems
    }

    /// Returns whether a file that is in use has changed, or one could not be read.
    fn changed(&self) -> bool {
        let loaded = self.loaded();
        loaded.iter().any(|(host, loaded)| {
            let now: Vec<_> = self.files(host, &loaded.tls).iter().map(|path| stamp(path)).collect();
            loaded.stamps != now
        })
    }

    fn files(&self, host: &str, tls: &Tls) -> Vec<PathBuf> {
        let mut files = match &tls.certificate {
            CertificateSource::Files { certificate, key } => vec![certificate.into(), key.into()],
            CertificateSource::Acme => vec![self.issued(host)],
        };
        files.extend(tls.clients.iter().map(|clients| PathBuf::from(&clients.authorities)));
        files
    }

    fn read(&self, host: &str, tls: &Tls) -> Result<(ServerConfig, Option<Times>), String> {
        let issued = self.issued(host).display().to_string();
        let (certificate, key) = match &tls.certificate {
            CertificateSource::Files { certificate, key } => (certificate, key),
            CertificateSource::Acme => (&issued, &issued),
        };
        let chain = certificates(certificate)?;
        let times = chain.first().and_then(Times::of);
        let key = PrivateKeyDer::from_pem_slice(&bytes(key)?)
            .map_err(|error| format!("no private key in `{key}`: {error}"))?;
        let builder = match &tls.clients {
            None => builder().with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(&clients.authorities)? {
                    roots.add(authority).map_err(|error| format!("`{}`: {error}", clients.authorities))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::new(aws_lc_rs::default_provider()));
                let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| format!("`{}`: {error}", clients.authorities))?;
                builder().with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("certificate `{certificate}` and its key can't be used: {error}"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are resumed by tickets that the clients keep, so that nothing is kept for them here.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok((config, times))
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the certificates up to the table and the files until the task is ended.
pub(crate) async fn tend(plane: Arc<Plane>, certificates: Arc<Certificates>) {
    let mut changes = plane.changes.any();
    let mut told = BTreeSet::new();
    let mut version = None;
    loop {
        let now = plane.table().version;
        // Disks may be slow, and others wait for this thread.
        let problems =
            block_in_place(|| (version != Some(now) || certificates.changed()).then(|| certificates.load(&plane)));
        if let Some(problems) = problems {
            version = Some(now);
            for (host, problem) in &problems {
                plane.set_problem(format!("tls {host}"), Some(problem.clone()));
            }
            let now: BTreeSet<String> = problems.into_keys().collect();
            told.difference(&now).for_each(|host: &String| plane.set_problem(format!("tls {host}"), None));
            told = now;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(LOOKING) => {}
        }
    }
}

/// Returns the hosts of a table that TLS is wanted for. There is one handshake for all routes of a host: the first says which certificate
/// is shown, and clients are asked for theirs if any route wants them, but need one there only if all do.
pub(crate) fn wanted(table: &RouteTable) -> BTreeMap<String, Wanted> {
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    for route in gently(table.services.values()).flat_map(|service| &service.routes) {
        let Some((host, tls)) = route.host.as_ref().zip(route.rules.tls.as_ref()) else { continue };
        let Some(before) = wanted.get_mut(host) else {
            wanted.insert(host.clone(), Wanted { tls: tls.clone(), contested: false });
            continue;
        };
        before.contested |= before.tls.certificate != tls.certificate;
        match (&mut before.tls.clients, &tls.clients) {
            (Some(before_them), Some(them)) => {
                before.contested |= before_them.authorities != them.authorities;
                before_them.required &= them.required;
            }
            (Some(clients), None) => clients.required = false,
            (none, Some(clients)) => *none = Some(ClientCertificates { required: false, ..clients.clone() }),
            (None, None) => {}
        }
    }
    wanted
}

/// TLS 1.2 and 1.3 with the suites that rustls has: forward secrecy and authenticated encryption alone.
pub(super) fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .expect("the provider has suites for both versions")
}

fn bytes(path: &str) -> Result<Vec<u8>, String> {
    let meta = fs::metadata(path).map_err(|error| format!("can't read `{path}`: {error}"))?;
    if !meta.is_file() {
        // A pipe might never say anything.
        return Err(format!("`{path}` is no file"));
    }
    fs::read(path).map_err(|error| format!("can't read `{path}`: {error}"))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(path)?).collect();
    let chain = chain.map_err(|error| format!("`{path}` is no PEM: {error}"))?;
    if chain.is_empty() { Err(format!("no certificate in `{path}`")) } else { Ok(chain) }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}
