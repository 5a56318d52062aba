//! The state of a gate: opened as it is configured, followed, and tended.
//!
//! The one place that names concrete stores. Refuses to start on a store that it cannot read.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::audit::HandIn;
use crate::config::{self, StoreKind};
use crate::decision::{Pdp, State};
use crate::domain::Clock;
use crate::revocation::News;
use crate::store::hub::HubStore;
use crate::store::postgres::PostgresStore;
use crate::store::redb::RedbStore;
use crate::store::{KEPT, StateStore, StoreError};
use crate::telemetry::instruments::{Instruments, StateFigures};
use crate::telemetry::readiness::Readiness;

/// How often usage is handed in and idle quota goes back.
const TEND: Duration = Duration::from_millis(250);

/// How often what has ended is forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// How often it is looked at whether what is known has grown stale.
const LOOK: Duration = Duration::from_millis(250);

/// The way to a hub, where the gate keeps its state in one.
pub(super) fn hub(config: &config::State) -> Result<Option<Arc<HubStore>>, StoreError> {
    match (config.store, &config.hub) {
        (StoreKind::Hub, Some(hubs)) => Ok(Some(Arc::new(HubStore::open(hubs)?))),
        (StoreKind::Hub, None) => Err(StoreError::Unusable("`state.hub` is missing".to_owned())),
        _ => Ok(None),
    }
}

/// Hands records in to the hub, from a thread that may wait.
pub(super) fn hand_in(hub: Arc<HubStore>) -> HandIn {
    let runtime = Handle::current();
    Box::new(move |lines| {
        let (reply, answer) = std::sync::mpsc::channel();
        let (hub, lines) = (Arc::clone(&hub), lines.to_vec());
        // Not waited for in the runtime itself: when that ends, so does this, and the thread goes on.
        runtime.spawn(async move { drop(reply.send(hub.hand_in(&lines).await)) });
        let ended = |_| StoreError::Closed;
        answer.recv().map_err(ended).flatten().map_err(|error| error.to_string())
    })
}

/// Opens the configured store; `hub` is what [`hub`] gave.
pub(super) async fn open(
    config: &config::State,
    hub: Option<Arc<HubStore>>,
) -> Result<Arc<dyn StateStore>, StoreError> {
    if let Some(hub) = hub {
        return Ok(hub);
    }
    match (config.store, &config.postgres) {
        (StoreKind::Embedded, _) => {
            let path = config.embedded.path.clone();
            let opened = tokio::task::spawn_blocking(move || RedbStore::open(&path)).await;
            let lost = |_| StoreError::Unusable("the state could not be opened".to_owned());
            Ok(Arc::new(opened.map_err(lost)??))
        }
        (StoreKind::Postgres, Some(postgres)) => Ok(Arc::new(PostgresStore::open(postgres).await?)),
        (StoreKind::Postgres, None) => Err(StoreError::Unusable("`state.postgres` is missing".to_owned())),
        (StoreKind::Hub, _) => Err(StoreError::Unusable("`state.hub` is missing".to_owned())),
    }
}

/// Reads the state for the first time. A gate that may start before its hub is not ready until it has read.
pub(super) async fn read_first(
    config: &config::State,
    state: &State,
    clock: &Clock,
) -> Result<(), StoreError> {
    match state.revocations.read(clock).await {
        Err(error) if config.store == StoreKind::Hub => {
            tracing::warn!(%error, "no hub answers yet; checks are denied until one does");
            Ok(())
        }
        read => read.map(drop),
    }
}

/// Reads what changes, for ever, and tells whether the gate can go by what it knows.
pub(super) fn follow(
    readiness: &Readiness,
    pdp: &Arc<Pdp>,
    clock: &Clock,
    instruments: &Instruments,
) -> JoinHandle<()> {
    let (readiness, pdp, clock) = (readiness.clone(), Arc::clone(pdp), clock.clone());
    let instruments = instruments.clone();
    register_figures(&instruments, &pdp, &clock);
    tokio::spawn(async move {
        let revocations = pdp.state().revocations.clone();
        let tell = |read: &Result<News, StoreError>| match read {
            Ok(News { restored: Some(alarm), .. }) => {
                tracing::error!("{alarm}");
                instruments.state_restored();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the state was not read");
                instruments.state_read_failed();
            }
        };
        tokio::join!(revocations.follow(&clock, tell), look_at_age(&readiness, &pdp, &clock));
    })
}

/// Tells when what is known grows too old to go by, and when it is fresh again.
async fn look_at_age(readiness: &Readiness, pdp: &Pdp, clock: &Clock) {
    let revocations = &pdp.state().revocations;
    let mut suspect = false;
    loop {
        let now_suspect = revocations.as_of(clock.now()).err().map(|reason| reason.reason_admin);
        match &now_suspect {
            None => {
                let count = revocations.len();
                readiness.ready("state", format!("standings that are not VALID: {count}"));
            }
            Some(words) => readiness.not_ready("state", words),
        }
        if suspect != now_suspect.is_some() {
            // Streams may not outlive what is known.
            pdp.ask_running_again();
        }
        suspect = now_suspect.is_some();
        tokio::time::sleep(LOOK).await;
    }
}

fn register_figures(instruments: &Instruments, pdp: &Arc<Pdp>, clock: &Clock) {
    let (pdp, clock) = (Arc::clone(pdp), clock.clone());
    let number = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    instruments.register_state(move || {
        let state = pdp.state();
        let age = state.revocations.read_at().map(|read| clock.now().duration_since(read));
        StateFigures {
            standings: number(state.revocations.len()),
            age: age.map(|age| age.as_secs_f64()),
            streams: number(pdp.running()),
            unreported: number(state.quotas.unreported()),
        }
    });
}

/// Hands in usage, gives idle quota back and has the store forget what has ended, for ever.
pub(super) fn tend(state: &State, store: &Arc<dyn StateStore>, clock: &Clock) -> JoinHandle<()> {
    let (state, store, clock) = (state.clone(), Arc::clone(store), clock.clone());
    tokio::spawn(async move {
        let mut tending = tokio::time::interval(TEND);
        // Not at the start, when there is enough to do: what has ended can wait.
        let mut sweeping = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
        loop {
            let done = tokio::select! {
                _ = tending.tick() => state.quotas.tend(clock.now()).await,
                _ = sweeping.tick() => store.sweep(clock.now().saturating_sub(KEPT).unwrap_or_default()).await,
            };
            if let Err(error) = done {
                tracing::warn!(%error, "usage and quotas wait for the state");
            }
        }
    })
}
