//! A store that cannot be reached for a while: it does nothing, or does what was asked and loses the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::domain::Amount;
use crate::domain::time::Timestamp;
use crate::store::{
    Acceptance, Change, Changed, Claim, Claimed, Feed, LicenseFilter, Registered, Registration, StateStore,
    StoreError, Take, Taken, UsageBatch, UsageFilter, UsageKey, UsageRow,
};

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Nothing is done.
    Before,
    /// It is done, and nobody hears of it.
    After,
    /// Claims are not made.
    NoClaim,
    /// Claims wait for ever.
    StuckClaim,
    /// Claims are made, and nobody hears of it.
    LostClaim,
    /// It is done in as much time as a disk needs.
    Slow,
    /// What goes back does not, once.
    OneReturn,
}

pub(super) struct Flaky {
    inner: Arc<dyn StateStore>,
    fault: AtomicU8,
}

impl Flaky {
    pub(super) fn over(inner: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self { inner, fault: AtomicU8::new(0) })
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    async fn through<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let fault = self.fault.load(Ordering::Relaxed);
        let lost = || Err(StoreError::Unavailable("a test cut it off".to_owned()));
        if fault == Fault::Before as u8 {
            return lost();
        }
        if fault == Fault::Slow as u8 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let done = call.await;
        if fault == Fault::After as u8 { lost() } else { done }
    }
}

#[async_trait]
impl StateStore for Flaky {
    async fn register(&self, license: &Registered) -> Result<Registration, StoreError> {
        self.through(self.inner.register(license)).await
    }

    async fn license(&self, id: &str) -> Result<Option<Registered>, StoreError> {
        self.through(self.inner.license(id)).await
    }

    async fn licenses(
        &self,
        filter: &LicenseFilter,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Registered>, StoreError> {
        self.through(self.inner.licenses(filter, after, limit)).await
    }

    async fn change(&self, change: &Change) -> Result<Changed, StoreError> {
        self.through(self.inner.change(change)).await
    }

    async fn feed(&self, after: u64, limit: u32, now: Timestamp) -> Result<Feed, StoreError> {
        self.through(self.inner.feed(after, limit, now)).await
    }

    async fn news(&self) {
        self.inner.news().await;
    }

    async fn accept(&self, acceptance: &Acceptance) -> Result<bool, StoreError> {
        self.through(self.inner.accept(acceptance)).await
    }

    async fn acceptance(
        &self,
        issuer: &str,
        license: &str,
        terms_hash: &str,
    ) -> Result<Option<Acceptance>, StoreError> {
        self.through(self.inner.acceptance(issuer, license, terms_hash)).await
    }

    async fn take(&self, take: &Take) -> Result<Taken, StoreError> {
        self.through(self.inner.take(take)).await
    }

    async fn keep(&self, lease: Uuid, kept: Amount) -> Result<(), StoreError> {
        self.through(self.inner.keep(lease, kept)).await
    }

    async fn give_back(&self, lease: Uuid, amount: Amount) -> Result<(), StoreError> {
        let fails = Fault::OneReturn as u8;
        if self.fault.compare_exchange(fails, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Err(StoreError::Unavailable("a test cut it off".to_owned()));
        }
        self.through(self.inner.give_back(lease, amount)).await
    }

    async fn claimed(&self, request: &str) -> Result<Option<[u8; 32]>, StoreError> {
        self.through(self.inner.claimed(request)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let fault = self.fault.load(Ordering::Relaxed);
        let lost = Err(StoreError::Unavailable("a test cut it off".to_owned()));
        if fault == Fault::NoClaim as u8 {
            return lost;
        }
        if fault == Fault::StuckClaim as u8 {
            return std::future::pending().await;
        }
        let claimed = self.through(self.inner.claim(claim)).await;
        if fault == Fault::LostClaim as u8 { lost } else { claimed }
    }

    async fn add_usage(&self, batch: &UsageBatch) -> Result<(), StoreError> {
        self.through(self.inner.add_usage(batch)).await
    }

    async fn usage(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageKey>,
        limit: u32,
    ) -> Result<Vec<UsageRow>, StoreError> {
        self.through(self.inner.usage(filter, after, limit)).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        self.through(self.inner.sweep(now)).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
