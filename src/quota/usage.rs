//! What was used, added up in memory and handed to the store in numbered batches.
//!
//! A batch whose answer was lost is sent again under its number, so nothing is counted twice. Refuses to
//! drop usage: what the store does not take waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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
    /// What is on its way. Held while it is sent.
    sending: tokio::sync::Mutex<Sending>,
    /// How many rows are on their way.
    sent: AtomicUsize,
}

#[derive(Default)]
struct Sending {
    sequence: u64,
    /// The last batch, until the store has it.
    unanswered: Option<UsageBatch>,
    /// What goes after it.
    rest: Vec<UsageRow>,
}

impl Meter {
    pub(super) fn new(store: Arc<dyn StateStore>, gate: String, boot: Uuid) -> Self {
        let sending = tokio::sync::Mutex::default();
        Self { store, gate, boot, gathered: Mutex::default(), sending, sent: AtomicUsize::new(0) }
    }

    /// Counts what was used, or takes back what was counted too much.
    pub(super) fn add(&self, key: UsageKey, amount: Amount) {
        *self.gathered().entry(key).or_default() += amount;
    }

    /// How many rows wait.
    pub(super) fn waiting(&self) -> usize {
        self.gathered().len() + self.sent.load(Relaxed)
    }

    /// Hands what was counted before the call to the store. What is counted meanwhile is left to the next
    /// call: under load there would be no end.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let mut sending = self.sending.lock().await;
        self.send(&mut sending).await?;
        sending.rest = self.gathered().drain().map(|(key, amount)| UsageRow { key, amount }).collect();
        // What is taken back goes first, from the end: others may use it by now.
        sending.rest.sort_by_key(|row| !row.amount.is_positive());
        self.send(&mut sending).await
    }

    /// Sends batch after batch. Whatever becomes of the call, what the store may not have stays in `sending`.
    async fn send(&self, sending: &mut Sending) -> Result<(), StoreError> {
        loop {
            if sending.unanswered.is_none() && !sending.rest.is_empty() {
                let next = sending.rest.len().saturating_sub(BATCH);
                let rows = sending.rest.split_off(next);
                sending.sequence += 1;
                let (gate, boot, sequence) = (self.gate.clone(), self.boot, sending.sequence);
                sending.unanswered = Some(UsageBatch { gate, boot, sequence, rows });
            }
            let rows = sending.unanswered.as_ref().map_or(0, |batch| batch.rows.len());
            self.sent.store(rows + sending.rest.len(), Relaxed);
            let Some(batch) = &sending.unanswered else { return Ok(()) };
            self.store.add_usage(batch).await?;
            sending.unanswered = None;
        }
    }

    fn gathered(&self) -> MutexGuard<'_, HashMap<UsageKey, Amount>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
