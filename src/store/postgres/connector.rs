//! Connections: to the server that takes writes, with the password of the moment, over TLS.
//!
//! Refuses to wait without end for a server that does not answer, and to pool a connection whose
//! last question was not heard out.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use deadpool_postgres::tokio_postgres::config::SslMode;
use deadpool_postgres::tokio_postgres::tls::MakeTlsConnect;
use deadpool_postgres::tokio_postgres::{Client, Connection, Socket};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{self, Target};
use super::faults::{is_final, words};
use crate::config::Postgres;
use crate::store::StoreError;

/// What drives a connection.
pub(super) type Wire = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Connects to the database.
pub(super) struct Connector {
    targets: Vec<Target>,
    /// The database and the user, in words.
    pub(super) database: String,
    authorities: Authorities,
    password: Password,
    /// The most time given to one statement.
    pub(super) patience: Duration,
    /// The server to try first: the one that was reached last.
    favourite: AtomicUsize,
}

/// Where the password is.
enum Password {
    File(PathBuf),
    Known(Vec<u8>),
    None,
}

/// Who may vouch for the database's certificate.
enum Authorities {
    /// Read for each connection: they may be replaced while the gate runs.
    File(PathBuf),
    Known(MakeRustlsConnect),
}

impl Authorities {
    fn tls(&self) -> Result<MakeRustlsConnect, StoreError> {
        match self {
            Self::File(file) => tls(authorities(file)?),
            Self::Known(tls) => Ok(tls.clone()),
        }
    }
}

/// One server was not reached.
struct Failure {
    words: String,
    is_final: bool,
}

impl Connector {
    /// Reads the configuration; connects to nothing yet.
    pub(super) fn new(config: &Postgres) -> Result<Self, StoreError> {
        let address = address::read(config)?;
        let secure = address.targets.iter().any(|target| target.config.get_ssl_mode() == SslMode::Require);
        let authorities = match (&config.ca, secure) {
            (Some(file), true) => Authorities::File(file.clone()),
            (None, true) => Authorities::Known(tls(system_authorities()?)?),
            (_, false) => Authorities::Known(tls(RootCertStore::empty())?),
        };
        // Before anything else is tried: a file that is wrong is no matter of the database.
        authorities.tls()?;
        let password = match (&config.password_file, std::env::var_os("PGPASSWORD")) {
            (Some(file), _) => Password::File(file.clone()),
            (None, Some(password)) => Password::Known(password.into_encoded_bytes()),
            (None, None) => Password::None,
        };
        Ok(Self {
            targets: address.targets,
            database: address.database,
            authorities,
            password,
            // A server takes 0 for no limit at all.
            patience: config.statement_timeout.get().max(Duration::from_millis(1)),
            favourite: AtomicUsize::new(0),
        })
    }

    /// Connects to the first server that takes writes. What drives the connection has to be polled.
    pub(super) async fn connect(&self) -> Result<(Client, Wire), StoreError> {
        let (password, tls) = (self.password.read().await?, self.authorities.tls()?);
        let count = self.targets.len();
        let first = self.favourite.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for (index, target) in self.targets.iter().enumerate().cycle().skip(first).take(count) {
            // Whoever gives up waiting here leaves the next server to the next one.
            self.favourite.store((index + 1) % count, Ordering::Relaxed);
            match self.reach(target, password.as_deref(), &tls).await {
                Ok(reached) => {
                    self.favourite.store(index, Ordering::Relaxed);
                    return Ok(reached);
                }
                Err(failure) => failures.push(failure),
            }
        }
        let reasons: Vec<&str> = failures.iter().map(|failure| failure.words.as_str()).collect();
        let words = format!("cannot connect to {}: {}", self.database, reasons.join("; "));
        // Of several servers, one that is away may be the one that would have worked.
        match failures.iter().all(|failure| failure.is_final) {
            true => Err(StoreError::Unusable(words)),
            false => Err(StoreError::Unavailable(words)),
        }
    }

    /// Connects to one server. A frozen one accepts connections and says nothing, so the others get
    /// their share of the time.
    async fn reach(
        &self,
        target: &Target,
        password: Option<&[u8]>,
        tls: &MakeRustlsConnect,
    ) -> Result<(Client, Wire), Failure> {
        let mut config = target.config.clone();
        password.map(|password| config.password(password));
        let share = self.patience / u32::try_from(self.targets.len()).unwrap_or(1);
        let failure =
            |words: &str, is_final| Failure { words: format!("{}: {words}", target.name), is_final };
        match timeout(share, config.connect(tls.clone())).await {
            Ok(Ok(reached)) => Ok(reached),
            Ok(Err(error)) if error.to_string() == "invalid configuration" && password.is_none() => {
                let right = "set `password_file` or `PGPASSWORD`";
                Err(failure(&format!("{}; {right}", words(&error)), true))
            }
            Ok(Err(error)) => Err(failure(&words(&error), is_final(&error))),
            Err(_) => Err(failure(&format!("no answer within {share:?}"), false)),
        }
    }

    /// What is said first on each connection. Durability is asked for where the server's default is
    /// to acknowledge what could be lost, and a gate that froze does not hold rows that others wait for.
    fn introduction(&self) -> String {
        let patience = self.patience.as_millis();
        format!(
            "SET statement_timeout = {patience}; \
             SET idle_in_transaction_session_timeout = {patience}; \
             SET default_transaction_isolation = 'read committed'; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit', true) IN ('off', 'local')"
        )
    }
}

impl Manager for Connector {
    type Type = Session;
    type Error = StoreError;

    async fn create(&self) -> Result<Session, StoreError> {
        let (client, wire) = self.connect().await?;
        let driven = tokio::spawn(async move {
            if let Err(error) = wire.await {
                tracing::debug!(cause = words(&error), "a connection to the state ended");
            }
        });
        // Ends the task when it is dropped.
        let client = ClientWrapper::new(client, driven);
        client.batch_execute(&self.introduction()).await.map_err(|error| {
            StoreError::Unavailable(format!("cannot use {}: {}", self.database, words(&error)))
        })?;
        Ok(Session { client, heard_out: true })
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<StoreError> {
        if session.client.is_closed() || !session.heard_out {
            return Err(RecycleError::message("the connection is of no more use"));
        }
        Ok(())
    }
}

/// One connection.
pub(super) struct Session {
    client: ClientWrapper,
    /// Whether the last question was answered. Where it was not, its answer may still come, and a
    /// next one would wait behind it.
    pub(super) heard_out: bool,
}

impl Deref for Session {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}

impl Password {
    async fn read(&self) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::None => Ok(None),
            Self::Known(password) => Ok(Some(password.clone())),
            Self::File(file) => {
                let text =
                    tokio::fs::read(file).await.map_err(|error| unreadable("password_file", file, &error))?;
                let end = text.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
                Ok(Some(text.into_iter().take(end).collect()))
            }
        }
    }
}

fn tls(roots: RootCertStore) -> Result<MakeRustlsConnect, StoreError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| StoreError::Unusable(format!("TLS cannot be used: {error}")))?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    // Servers that speak TLS from the first byte (`sslnegotiation=direct`) insist on it.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

fn authorities(file: &Path) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable("ca", file, &error))? {
        let certificate = certificate.map_err(|error| unreadable("ca", file, &error))?;
        roots.add(certificate).map_err(|error| unreadable("ca", file, &error))?;
    }
    match roots.is_empty() {
        true => Err(unreadable("ca", file, &"it holds no certificate")),
        false => Ok(roots),
    }
}

fn system_authorities() -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err(StoreError::Unusable(
            "the system has no authorities that may vouch for the database's certificate; \
             name some in `state.postgres.ca`"
                .to_owned(),
        )),
        false => Ok(roots),
    }
}

fn unreadable(setting: &str, file: &Path, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!("`state.postgres.{setting}`: cannot use {}: {problem}", file.display()))
}
