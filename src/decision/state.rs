//! What decisions ask of the state: how licenses stand, what is left of quotas, what is registered.

use std::sync::Arc;

use uuid::Uuid;

use crate::config::Config;
use crate::license::Registry;
use crate::quota::Quotas;
use crate::revocation::Revocations;
use crate::store::StateStore;

/// The state of one gate. Clones share it.
#[derive(Clone, Debug)]
pub struct State {
    /// How licenses stand.
    pub revocations: Revocations,
    /// What is left of quotas, and what was used.
    pub quotas: Quotas,
    /// Registered licenses and accepted terms.
    pub registry: Arc<Registry>,
}

impl State {
    /// State that is kept in `store`. Nothing is read yet, so everything is stale.
    pub fn over(store: &Arc<dyn StateStore>, config: &Config) -> Self {
        Self {
            revocations: Revocations::new(Arc::clone(store), &config.state),
            quotas: Quotas::new(Arc::clone(store), &config.gate.name, Uuid::new_v4()),
            registry: Arc::new(Registry::new(Arc::clone(store), &config.licenses)),
        }
    }
}
