//! What was used, added up in memory and handed to the store in numbered batches.
//!
//! A batch whose answer was lost is sent again under its number, so nothing is counted twice. Refuses to
//! drop usage: what the store does not take waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::domain::Amount;
use crate::store::{StateStore, StoreError, UsageBatch, UsageKey, UsageRow};

/// The most rows of one batch.
const BATCH: usize = 1_000;

/// Usage that the store does not have yet.
pub(super) struct Meter {
    store: Arc<dyn StateStore>,
    gate: String,
    boot: Uuid,
    gathered: Mutex<HashMap<UsageKey, Amount>>,
    /// The last batch, until the store has it. Held while it is sent.
    sending: tokio::sync::Mutex<Sending>,
}

#[derive(Default)]
struct Sending {
    sequence: u64,
    unanswered: Option<UsageBatch>,
}

impl Meter {
    pub(super) fn new(store: Arc<dyn StateStore>, gate: String, boot: Uuid) -> Self {
        Self { store, gate, boot, gathered: Mutex::default(), sending: tokio::sync::Mutex::default() }
    }

    /// Counts what was used, or takes back what was counted too much.
    pub(super) fn add(&self, key: UsageKey, amount: Amount) {
        *self.gathered().entry(key).or_default() += amount;
    }

    /// How many rows wait.
    pub(super) fn waiting(&self) -> usize {
        self.gathered().len()
    }

    /// Hands everything to the store.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let mut sending = self.sending.lock().await;
        loop {
            if sending.unanswered.is_none() {
                let rows = self.gather();
                if rows.is_empty() {
                    return Ok(());
                }
                sending.sequence += 1;
                let (gate, boot, sequence) = (self.gate.clone(), self.boot, sending.sequence);
                sending.unanswered = Some(UsageBatch { gate, boot, sequence, rows });
            }
            if let Some(batch) = &sending.unanswered {
                self.store.add_usage(batch).await?;
            }
            sending.unanswered = None;
        }
    }

    fn gather(&self) -> Vec<UsageRow> {
        let mut gathered = self.gathered();
        if gathered.len() <= BATCH {
            return gathered.drain().map(|(key, amount)| UsageRow { key, amount }).collect();
        }
        let keys: Vec<UsageKey> = gathered.keys().take(BATCH).cloned().collect();
        let taken = keys.into_iter().filter_map(|key| gathered.remove_entry(&key));
        taken.map(|(key, amount)| UsageRow { key, amount }).collect()
    }

    fn gathered(&self) -> MutexGuard<'_, HashMap<UsageKey, Amount>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
