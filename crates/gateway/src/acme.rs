//! Gets certificates from an authority by ACME (RFC 8555) and renews them in time. Hosts are proven by http-01 (§8.3) or by
//! tls-alpn-01 (RFC 8737): what has failed in one way is tried in the other next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use basalt_model::CertificateSource;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, OrderStatus,
    RetryPolicy,
};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::plane::Plane;
use crate::tls::{self, Certificates};

/// Where challenges are looked for (RFC 8555 §8.3).
pub(crate) const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// Let's Encrypt, which most people mean.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Time between two looks at what is wanted.
const LOOKING: Duration = Duration::from_secs(1);
/// The first pause after a failure, and the longest: authorities allow five failures an hour for a host.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// Which authority issues certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeOptions {
    /// The URL of its directory.
    pub directory: String,
    /// Whom it writes to, such as `mailto:ops@example.com`.
    pub contact: Option<String>,
    /// A file in PEM with the root that its own certificate is signed by, for authorities of one's own.
    pub root: Option<PathBuf>,
}

/// What the authority wants to see at a host, by token.
#[derive(Debug, Default)]
pub(crate) struct Challenges(RwLock<HashMap<String, String>>);

impl Challenges {
    /// Returns what answers a path, if it is a challenge that is under way.
    pub(crate) fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(CHALLENGES)?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    fn begin(&self, token: &str, answer: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), answer.to_owned());
    }

    fn end(&self, token: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(token);
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Keeps certificates for all hosts that want them from an authority, until the task is ended.
pub(crate) async fn tend(plane: Arc<Plane>, certificates: Arc<Certificates>, folder: PathBuf, options: AcmeOptions) {
    let mut account = None;
    // When each host that failed is tried again, and after which pause next.
    let mut failed: BTreeMap<String, (Instant, Duration)> = BTreeMap::new();
    // Hosts that are proven over TLS.
    let mut over_tls: BTreeSet<String> = BTreeSet::new();
    loop {
        sleep(LOOKING).await;
        let table = plane.table();
        let wanted =
            tls::wanted(&table).into_iter().filter(|(_, wanted)| wanted.tls.certificate == CertificateSource::Acme);
        for (host, _) in wanted {
            let patient = failed.get(&host).is_some_and(|(again, _)| Instant::now() < *again);
            if patient || !is_due(&certificates, &host) {
                continue;
            }
            let mut ways = [ChallengeType::Http01, ChallengeType::TlsAlpn01];
            if over_tls.contains(&host) {
                ways.reverse();
            }
            let problem = match get(&plane, &mut account, &certificates, &folder, &options, &host, ways).await {
                Ok(()) => {
                    failed.remove(&host);
                    tracing::info!("`{host}` has a new certificate");
                    // It is read before anybody looks again.
                    block_in_place(|| certificates.load(&plane));
                    None
                }
                Err(error) => {
                    // Which of its ports the authority can reach is not known here.
                    if !over_tls.remove(&host) {
                        over_tls.insert(host.clone());
                    }
                    let pause = failed.get(&host).map_or(FIRST_PAUSE, |(_, pause)| *pause);
                    failed.insert(host.clone(), (Instant::now() + pause, (pause * 2).min(LONGEST_PAUSE)));
                    Some(format!("no certificate for `{host}` from `{}`: {error}", options.directory))
                }
            };
            plane.set_problem(format!("acme {host}"), problem);
        }
    }
}

/// Whether a host has no certificate, or one that is to be renewed.
fn is_due(certificates: &Certificates, host: &str) -> bool {
    // Certificates are valid by the time of day.
    #[allow(clippy::disallowed_methods)]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let times = certificates.times().get(host).copied().flatten();
    times.is_none_or(|times| i64::try_from(now).unwrap_or(i64::MAX) >= times.renew_at())
}

/// Gets a certificate for a host and writes it. The host is proven in the first of `ways` that the authority offers.
async fn get(
    plane: &Plane,
    account: &mut Option<Account>,
    certificates: &Certificates,
    folder: &Path,
    options: &AcmeOptions,
    host: &str,
    ways: [ChallengeType; 2],
) -> Result<(), Failure> {
    let account = match account {
        Some(account) => account,
        None => account.insert(open(folder, options).await?),
    };
    let names = [Identifier::Dns(host.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut tokens = Vec::new();
    let mut way = None;
    let result = async {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(format!("the authority calls the proof of `{host}` {other:?}").into()),
            }
            let offered = |way: &&ChallengeType| authorization.challenges.iter().any(|offer| offer.r#type == **way);
            let chosen = ways.iter().find(offered).cloned();
            let challenge = chosen.clone().and_then(|chosen| authorization.challenge(chosen));
            let mut challenge = challenge.ok_or("the authority offers neither http-01 nor tls-alpn-01")?;
            let authorization = challenge.key_authorization();
            if chosen == Some(ChallengeType::TlsAlpn01) {
                let digest = authorization.digest();
                certificates.proofs.begin(host, digest.as_ref().try_into()?)?;
            } else {
                let token = challenge.token.clone();
                plane.edge.challenges.begin(&token, authorization.as_str());
                tokens.push(token);
            }
            way = chosen;
            challenge.set_ready().await?;
        }
        let status = order.poll_ready(&RetryPolicy::default()).await?;
        if status != OrderStatus::Ready {
            let port = if way == Some(ChallengeType::TlsAlpn01) { 443 } else { 80 };
            let problem =
                format!("the authority could not prove `{host}` at port {port} of it: the order is {status:?}");
            return Err(problem.into());
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&RetryPolicy::default()).await?;
        write(&certificates.issued(host), format!("{chain}\n{key}").as_bytes())?;
        Ok::<(), Failure>(())
    };
    let result = result.await;
    tokens.iter().for_each(|token| plane.edge.challenges.end(token));
    certificates.proofs.end(host);
    result
}

/// Returns the account at the authority: the one on disk, or a new one.
async fn open(folder: &Path, options: &AcmeOptions) -> Result<Account, Failure> {
    let builder = || match &options.root {
        Some(root) => Account::builder_with_root(root),
        None => Account::builder(),
    };
    // Another authority knows nothing of the account of the first.
    let path = folder.join(format!("account-{:016x}.json", crate::affinity::hash(&options.directory)));
    if let Ok(bytes) = fs::read(&path) {
        let credentials: AccountCredentials = serde_json::from_slice(&bytes)?;
        return Ok(builder()?.from_credentials(credentials).await?);
    }
    let contact: Vec<&str> = options.contact.iter().map(String::as_str).collect();
    let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder()?.create(&wanted, options.directory.clone(), None).await?;
    write(&path, &serde_json::to_vec(&credentials)?)?;
    Ok(account)
}

/// Replaces a file that only its owner may read.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
