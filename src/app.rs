//! The composition root: builds a gate from its configuration, and takes it down in order.
//!
//! Refuses to start on keys, policies or a decision log that cannot be used, and says
//! everything that is wrong with them at once.

mod background;
mod shutdown;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::Writer;
use crate::config::{self, Config};
use crate::decision::Pdp;
use crate::document::{Problem, Problems};
use crate::domain::Clock;
use crate::keyring::Keyring;
use crate::listener::{ListenError, Listener, tls::TlsError};
use crate::policy::Policies;
use crate::telemetry::instruments::{Instruments, Reloaded};
use crate::telemetry::readiness::Readiness;
use crate::telemetry::{Telemetry, TelemetryError};
use crate::watch::{Watch, WatchError};
use crate::{grpc, http, telemetry};
pub use shutdown::StopError;

/// A gate that is running.
pub struct App {
    readiness: Readiness,
    audit: Writer,
    telemetry: Telemetry,
    decisions: Option<SocketAddr>,
    http: Option<SocketAddr>,
    /// Turns true when listeners are to close.
    closing: watch::Sender<bool>,
    grpc_server: JoinHandle<Result<(), grpc::GrpcError>>,
    http_server: JoinHandle<()>,
    /// What follows files and the decision log; ends with the gate.
    followers: Vec<Watch>,
    log_follower: JoinHandle<()>,
    shutdown: config::Shutdown,
}

/// Why a gate did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Keys, policies, catalog or decision log are wrong.
    #[error(transparent)]
    Files(#[from] Problems),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Telemetry cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Files cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl App {
    /// Starts a gate: it is ready, and listens, when this returns.
    ///
    /// # Errors
    /// When anything that it needs is wrong or taken.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, StartError> {
        let (telemetry, instruments) = telemetry::start(&config.telemetry, &config.gate.name)?;
        let readiness = Readiness::new(&["keys", "policies", "decision log"]);
        let (keyring, policies, audit) = open_files(config)?;
        let pdp = Pdp::new(config, keyring.clone(), policies.clone(), audit.clone(), instruments.clone());
        let pdp = Arc::new(pdp);
        let reloads = background::Reloads {
            readiness: readiness.clone(),
            instruments: instruments.clone(),
            clock: clock.clone(),
        };
        let followers = vec![
            background::follow_keys(&reloads, keyring.clone())?,
            background::follow_policies(&reloads, policies.clone())?,
        ];
        background::register_gauges(&instruments, &pdp, &policies, &audit, config.audit.queue);
        let log_follower = background::follow_decision_log(readiness.clone(), &audit);

        let limits = &config.listeners.limits;
        let bind =
            |listener| Listener::bind(listener, limits.connections, certificates(&instruments, &clock));
        let (decisions, probes) =
            (bind(&config.listeners.decisions).await?, bind(&config.listeners.http).await?);
        let (closing, _) = watch::channel(false);
        let addresses = (decisions.local_addr(), probes.local_addr());
        let grpc = grpc::Server::new(pdp, readiness.clone(), clock, limits.clone(), instruments.clone());
        let grpc_server = tokio::spawn(grpc.serve(decisions, shutdown::turned(closing.subscribe())));
        let http = http::Server::new(readiness.clone(), instruments, keyring);
        let http_server = tokio::spawn(http.serve(probes, shutdown::turned(closing.subscribe())));
        let shown = |address: Option<SocketAddr>| address.map(tracing::field::display);
        tracing::info!(decisions = shown(addresses.0), http = shown(addresses.1), "the gate is listening");
        Ok(Self {
            readiness,
            audit,
            telemetry,
            decisions: addresses.0,
            http: addresses.1,
            closing,
            grpc_server,
            http_server,
            followers,
            log_follower,
            shutdown: config.shutdown.clone(),
        })
    }

    /// Where decisions are asked for over TCP.
    pub fn decisions_address(&self) -> Option<SocketAddr> {
        self.decisions
    }

    /// Where the HTTP listener is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }
}

/// Opens keys, policies and the decision log; says what is wrong with any of them.
fn open_files(config: &Config) -> Result<(Arc<Keyring>, Arc<Policies>, Writer), Problems> {
    let audit =
        Writer::open(&config.audit).map_err(|error| Problems::from(Problem::new("audit", error.to_string())));
    match (Keyring::open(&config.licenses.keys), Policies::open(&config.policies), audit) {
        (Ok(keyring), Ok(policies), Ok(audit)) => Ok((Arc::new(keyring), Arc::new(policies), audit)),
        (keyring, policies, audit) => {
            let wrong = keyring.err().into_iter().chain(policies.err()).chain(audit.err());
            Err(Problems::from(wrong.flatten().collect::<Vec<Problem>>()))
        }
    }
}

/// What is told of every attempt to take new certificates into force.
fn certificates(
    instruments: &Instruments,
    clock: &Clock,
) -> impl Fn(Result<(), &TlsError>) + Send + 'static + use<> {
    let (instruments, clock) = (instruments.clone(), clock.clone());
    move |outcome| instruments.reload(Reloaded::Certificates, outcome.is_ok(), clock.now())
}
