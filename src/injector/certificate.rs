//! The injector's own certificate, where nobody brings one: made, kept in a Secret, and made anew before it ends.
//!
//! One injector of several does that, under a lease, and has API servers trust it; all show what is in the Secret.
//! Refuses to show what API servers do not trust yet: while a certificate is replaced, pods are made as ever.

mod cluster;
mod pair;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube_lease_manager::{LeaseCreateMode, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;

use crate::domain::Clock;

use cluster::Cluster;
use pair::Pair;

/// How often it is looked after. An API server has that long to learn whom to trust before the certificate is shown.
const ROUND: Duration = Duration::from_secs(10);
/// The same until there is one.
const SOON: Duration = Duration::from_secs(1);
/// An API server that takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds for which the lease is held unless renewed, and how long before it is.
const LEASE: u64 = 30;
const RENEWED_BEFORE: u64 = 15;

/// What belongs to it in the cluster: the chart makes them, empty.
#[derive(Clone, Debug)]
pub struct Names {
    /// The Secret in which it is kept, and the Lease.
    pub secret: String,
    /// The MutatingWebhookConfiguration by which API servers know whom to trust.
    pub webhook: String,
    /// The DNS name by which they ask.
    pub dns_name: String,
}

/// Why there is no certificate, or no new one.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is not known where the API server is.
    #[error("cannot tell where the API server is: {0}")]
    Where(#[source] kube::Error),
    /// The API server does not do what it is asked.
    #[error("{kind} `{name}`: {source}")]
    Cluster {
        /// What was read or written.
        kind: &'static str,
        /// Which.
        name: String,
        /// What is wrong.
        source: kube::Error,
    },
    /// No lease can be had.
    #[error("Lease `{name}`: {source}")]
    Lease {
        /// Which.
        name: String,
        /// What is wrong.
        source: LeaseManagerError,
    },
    /// The API server does not answer.
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    Late,
    /// The Secret is for something else.
    #[error(
        "Secret `{0}`: holds what no injector put there, so it is left as it is; empty it, or name another"
    )]
    Foreign(String),
    /// None can be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Files cannot be written.
    #[error("cannot write `{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl CertificateError {
    fn at(kind: &'static str, name: &str) -> impl FnOnce(kube::Error) -> Self {
        let name = name.to_owned();
        move |source| Self::Cluster { kind, name, source }
    }
}

/// Looks after the certificate, and writes it where it is read.
pub struct Keeper {
    names: Names,
    certificate: PathBuf,
    key: PathBuf,
    clock: Clock,
    client: kube::Client,
    cluster: Cluster,
    /// Whether this one does what one of several does.
    leads: Option<watch::Receiver<bool>>,
    shown: Option<Pair>,
}

impl Keeper {
    /// Of the cluster in which this process runs, or that of the environment's `KUBECONFIG`.
    ///
    /// # Errors
    ///
    /// When there is neither.
    pub async fn new(
        names: Names,
        certificate: &Path,
        key: &Path,
        clock: Clock,
    ) -> Result<Self, CertificateError> {
        let client = kube::Client::try_default().await.map_err(CertificateError::Where)?;
        let cluster = Cluster::of(&client);
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Self { names, certificate, key, clock, client, cluster, leads: None, shown: None })
    }

    /// Until there is a certificate, that API servers trust.
    pub async fn first(&mut self) {
        self.look_after().await;
        while self.shown.is_none() {
            tokio::time::sleep(SOON).await;
            self.look_after().await;
        }
    }

    /// From then on, without end.
    pub async fn follow(mut self) {
        loop {
            tokio::time::sleep(ROUND).await;
            self.look_after().await;
        }
    }

    async fn look_after(&mut self) {
        let round = tokio::time::timeout(PATIENCE, self.round()).await.unwrap_or(Err(CertificateError::Late));
        if let Err(error) = round {
            tracing::warn!(%error, "the certificate is not looked after");
        }
    }

    async fn round(&mut self) -> Result<(), CertificateError> {
        // Read before it is changed: who shows a certificate waits a round after that.
        let trust = self.cluster.trust(&self.names).await?;
        let kept = self.cluster.kept(&self.names).await?;
        let mut pair = kept.pair.clone();
        if self.leads().await? {
            let now = self.clock.now();
            if pair.as_ref().is_none_or(|pair| pair.is_due(&self.names.dns_name, now)) {
                let new = Pair::make(&self.names.dns_name, pair.as_ref().or(self.shown.as_ref()), now)?;
                self.cluster.keep(&kept, &new).await?;
                tracing::info!(secret = self.names.secret, "a new certificate is made");
                pair = Some(new);
            }
            if let Some(bundle) = pair.as_ref().map(Pair::bundle).filter(|bundle| !trust.is(bundle)) {
                self.cluster.vouch(&self.names, &trust, &bundle).await?;
                tracing::info!(webhook = self.names.webhook, "API servers are told whom to trust");
            }
        }
        match pair {
            Some(pair) if trust.covers(&pair) && self.shown.as_ref() != Some(&pair) => self.show(pair),
            _ => Ok(()),
        }
    }

    async fn leads(&mut self) -> Result<bool, CertificateError> {
        if let Some(leads) = self.leads.as_ref().filter(|leads| leads.has_changed().is_ok()) {
            return Ok(*leads.borrow());
        }
        let name = &self.names.secret;
        let manager = LeaseManagerBuilder::new(self.client.clone(), name)
            .with_namespace(self.client.default_namespace())
            .with_create_mode(LeaseCreateMode::UseExistent)
            .with_duration(LEASE)
            .with_grace(RENEWED_BEFORE)
            .build()
            .await
            .map_err(|source| CertificateError::Lease { name: name.clone(), source })?;
        let (leads, _) = manager.watch().await;
        let at_once = *leads.borrow();
        self.leads = Some(leads);
        Ok(at_once)
    }

    /// Writes the files; the listener follows them.
    fn show(&mut self, pair: Pair) -> Result<(), CertificateError> {
        write(&self.key, &pair.key)?;
        write(&self.certificate, &pair.certificate)?;
        self.shown = Some(pair);
        Ok(())
    }
}

/// In one step, and for this user alone.
fn write(path: &Path, content: &str) -> Result<(), CertificateError> {
    let failed = |source| CertificateError::File { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
