//! The composition root: builds a gate from its configuration, and takes it down in order.
//!
//! Refuses to start on keys, policies, state or a decision log that cannot be used, and says
//! everything that is wrong with them at once.

mod background;
mod shutdown;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::administration::{Administration, Operators};
use crate::audit::Writer;
use crate::config::{self, Config};
use crate::decision::{Pdp, State};
use crate::document::{Problem, Problems};
use crate::domain::Clock;
use crate::hub::{Hub, Members};
use crate::keyring::Keyring;
use crate::listener::{ListenError, Listener, tls::TlsError, turned};
use crate::policy::Policies;
use crate::store::hub::HubStore;
use crate::store::{StateStore, StoreError};
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
    state: State,
    store: Arc<dyn StateStore>,
    clock: Clock,
    decisions: Option<SocketAddr>,
    administration: Option<SocketAddr>,
    hub: Option<SocketAddr>,
    http: Option<SocketAddr>,
    /// Turns true when listeners are to close.
    closing: watch::Sender<bool>,
    /// Turns true when what is still under way can be waited for no longer.
    leaving: watch::Sender<bool>,
    grpc_server: JoinHandle<Result<(), grpc::GrpcError>>,
    http_server: JoinHandle<()>,
    admin_server: JoinHandle<Result<(), grpc::GrpcError>>,
    /// Where this gate is a hub.
    hub_server: Option<JoinHandle<Result<(), grpc::GrpcError>>>,
    /// What follows files and the decision log; ends with the gate.
    followers: Vec<Watch>,
    /// What goes on until the gate stops.
    tasks: Vec<JoinHandle<()>>,
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
    /// The state cannot be opened or read.
    #[error("state: {0}")]
    State(#[from] StoreError),
}

impl App {
    /// Starts a gate: it is ready, and listens, when this returns.
    ///
    /// # Errors
    /// When anything that it needs is wrong or taken.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, StartError> {
        let (telemetry, instruments) = telemetry::start(&config.telemetry, &config.gate.name)?;
        let readiness = Readiness::new(&["keys", "policies", "state", "decision log", "enforcement"]);
        announce(config.gate.dry_run_all, &readiness, &instruments);
        let to_hub = state::hub(&config.state)?;
        let (keyring, policies, audit, operators) = open_files(config, to_hub.as_ref())?;
        let store = state::open(&config.state, to_hub).await?;
        let state = State::over(&store, config);
        let hub = config
            .listeners
            .hub
            .is_on()
            .then(|| Arc::new(Hub::new(store.clone(), state.clone(), audit.clone(), clock.clone())));
        state::read_first(&config.state, &state, &clock).await?;
        let pdp = Pdp::new(
            config,
            keyring.clone(),
            policies.clone(),
            state.clone(),
            audit.clone(),
            instruments.clone(),
        );
        let pdp = Arc::new(pdp);
        let reloads = background::Reloads {
            readiness: readiness.clone(),
            instruments: instruments.clone(),
            clock: clock.clone(),
            pdp: pdp.clone(),
        };
        let mut followers = vec![
            background::follow_keys(&reloads, keyring.clone())?,
            background::follow_policies(&reloads, policies.clone())?,
            background::follow_certificates(config, &instruments)?,
        ];
        followers.extend(background::follow_tokens(&reloads, operators.clone())?);
        background::register_gauges(&instruments, &pdp, &policies, &audit, config.audit.queue);
        hub.iter().for_each(|hub| background::register_members(&instruments, hub));
        let tasks = vec![
            background::follow_decision_log(readiness.clone(), &audit),
            state::follow(&readiness, &pdp, &clock, &instruments),
            state::tend(&state, &store, &clock),
        ];

        let limits = &config.listeners.limits;
        let bind =
            |listener| Listener::bind(listener, limits.connections, certificates(&instruments, &clock));
        let own = config.listeners.administration.listener();
        let (decisions, own, members, probes) = (
            bind(&config.listeners.decisions).await?,
            bind(&own).await?,
            bind(&config.listeners.hub.listener()).await?,
            bind(&config.listeners.http).await?,
        );
        let (closing, leaving) = (watch::Sender::new(false), watch::Sender::new(false));
        let addresses = (decisions.local_addr(), own.local_addr(), members.local_addr(), probes.local_addr());
        let administration = Administration::new(
            &config.gate.name,
            store.clone(),
            state.clone(),
            keyring.clone(),
            policies,
            audit.clone(),
            clock.clone(),
        );
        let admin =
            grpc::AdminServer::new(Arc::new(administration), operators, limits.clone(), closing.subscribe());
        let admin_server = tokio::spawn(admin.serve(own, turned(closing.subscribe())));
        let hub_server = hub.map(|hub| {
            let known = Members::new(&config.listeners.hub);
            let hub = grpc::HubServer::new(hub, known, limits.clone(), closing.subscribe());
            tokio::spawn(hub.serve(members, turned(closing.subscribe())))
        });
        let authzen = config.listeners.answers_authzen().then(|| {
            http::authzen::Authzen::new(pdp.clone(), clock.clone(), limits.clone(), instruments.clone())
        });
        let grpc = grpc::Server::new(
            pdp,
            readiness.clone(),
            clock.clone(),
            limits.clone(),
            instruments.clone(),
            config.envoy.clone(),
            grpc::Ends { streams: closing.subscribe(), responses: leaving.subscribe() },
        );
        let grpc_server = tokio::spawn(grpc.serve(decisions, turned(closing.subscribe())));
        let http = http::Server::new(readiness.clone(), instruments, keyring, authzen, &config.listeners);
        let http_server = tokio::spawn(http.serve(probes, turned(closing.subscribe())));
        let shown = |address: Option<SocketAddr>| address.map(tracing::field::display);
        tracing::info!(
            decisions = shown(addresses.0),
            administration = shown(addresses.1),
            hub = shown(addresses.2),
            http = shown(addresses.3),
            "the gate is listening"
        );
        Ok(Self {
            readiness,
            audit,
            telemetry,
            state,
            store,
            clock,
            decisions: addresses.0,
            administration: addresses.1,
            hub: addresses.2,
            http: addresses.3,
            closing,
            leaving,
            grpc_server,
            http_server,
            admin_server,
            hub_server,
            followers,
            tasks,
            shutdown: config.shutdown.clone(),
        })
    }

    /// Where decisions are asked for over TCP.
    pub fn decisions_address(&self) -> Option<SocketAddr> {
        self.decisions
    }

    /// Where the gate is administered over TCP.
    pub fn administration_address(&self) -> Option<SocketAddr> {
        self.administration
    }

    /// Where other gates reach this one as their hub over TCP.
    pub fn hub_address(&self) -> Option<SocketAddr> {
        self.hub
    }

    /// Where the HTTP listener is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }
}

/// Says loudly, wherever somebody looks, when nothing is enforced.
fn announce(dry_run_all: bool, readiness: &Readiness, instruments: &Instruments) {
    if dry_run_all {
        tracing::warn!("DRY RUN: everything is allowed; the decision log tells what would be denied");
        readiness.degraded("enforcement", "DRY RUN: everything is allowed, whatever is wrong");
        instruments.dry_run_all();
    } else {
        readiness.ready("enforcement", "denials hold");
    }
}

type Opened = (Arc<Keyring>, Arc<Policies>, Writer, Arc<Operators>);

/// Opens keys, policies, tokens and the decision log; says what is wrong with any of them.
fn open_files(config: &Config, hub: Option<&Arc<HubStore>>) -> Result<Opened, Problems> {
    let hand_in = hub.filter(|_| config.audit.hub).map(|hub| state::hand_in(Arc::clone(hub)));
    let audit = Writer::open_with(&config.audit, hand_in)
        .map_err(|error| Problems::from(Problem::new("audit", error.to_string())));
    let operators = Operators::open(&config.listeners.administration);
    match (Keyring::open(&config.licenses.keys), Policies::open(&config.policies), audit, operators) {
        (Ok(keyring), Ok(policies), Ok(audit), Ok(operators)) => {
            Ok((Arc::new(keyring), Arc::new(policies), audit, Arc::new(operators)))
        }
        (keyring, policies, audit, operators) => {
            let wrong =
                keyring.err().into_iter().chain(policies.err()).chain(audit.err()).chain(operators.err());
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
