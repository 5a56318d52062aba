//! What a gate must not forget: licenses that are registered, how they stand, what was granted of
//! quotas, what was used.
//!
//! [`StateStore`] is the only seam between gates and databases, and kept dumb: it compares, counts and
//! remembers. What a revocation, a quota or usage means is said by the modules to the right. Refuses
//! to acknowledge what is not durable, and to start on a store that it cannot read.

pub mod hub;
pub mod postgres;
pub mod redb;

use async_trait::async_trait;
use jiff::SignedDuration;
use uuid::Uuid;

use crate::domain::amount::Amount;
use crate::domain::standing::{Standing, Status};
use crate::domain::time::Timestamp;

/// For how long after its end a window is kept: a gate whose clock is behind must not begin it anew.
pub const KEPT: SignedDuration = SignedDuration::from_hours(1);

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened as it is configured, or as it is found; the words say what to do.
    #[error("{0}")]
    Unusable(String),
    /// It could not be reached, or did not answer in time. Whether a change took place is not known.
    #[error("the state cannot be reached: {0}")]
    Unavailable(String),
    /// What is stored is not what was written, or not of this version.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// It does not let this gate do what was asked.
    #[error("the state forbids it: {0}")]
    Forbidden(String),
    /// It was closed.
    #[error("the state is closed")]
    Closed,
}

/// A license that is registered: known by its id, without its token being sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its `jti`, unique among the registered.
    pub id: String,
    /// Its `iss`.
    pub issuer: String,
    /// Its `sub`.
    pub assignee: String,
    /// The key that signed it.
    pub kid: String,
    /// The first moment of its validity.
    pub not_before: Timestamp,
    /// The first moment after its validity.
    pub expires: Timestamp,
    /// The compact JWS.
    pub token: String,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// By whom.
    pub registered_by: String,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// It is registered now.
    Created,
    /// A license of this id is registered already, and stays as it is.
    Present(Registered),
}

/// Which registered licenses are listed; what is absent does not limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LicenseFilter {
    /// Of this issuer.
    pub issuer: Option<String>,
    /// Granted to this organization.
    pub assignee: Option<String>,
    /// Whose validity ends before this moment.
    pub expiring_before: Option<Timestamp>,
}

/// A change of a standing, to be made where the target stands in one of `from` (an unknown target is
/// [`Status::Valid`]), and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is to be in force; its revision is chosen by the store.
    pub standing: Standing,
    /// Where it may come from.
    pub from: &'static [Status],
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is in force, under this revision.
    Applied(u64),
    /// The target stands otherwise, and nothing changed.
    Refused(Standing),
    /// The target is unknown, hence valid, and `from` does not have that.
    Unknown,
}

/// The changes after a revision, and a proof that the store was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Tells one store from another, and from one that was made anew.
    pub epoch: Uuid,
    /// The revision of the last change, listed here or not.
    pub revision: u64,
    /// How many licenses and acceptances were ever recorded.
    pub records: u64,
    /// The time as the store knows it: its own, or the latest that it was told. What it was told in the last
    /// seconds before it was killed may be forgotten.
    pub time: Timestamp,
    /// How long before this answer the store was read; zero where it was read for it.
    pub age: SignedDuration,
    /// The changes, by revision.
    pub standings: Vec<Standing>,
}

/// Terms that a person accepted for a license.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The license's issuer.
    pub issuer: String,
    /// The license's id.
    pub license: String,
    /// The hash of the terms' text.
    pub terms_hash: String,
    /// Who accepted.
    pub accepted_by: String,
    /// When.
    pub at: Timestamp,
}

/// A part of a quota to be set aside for one gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// What is counted, in one text.
    pub counter: String,
    /// The beginning of the window that is counted in.
    pub window: Timestamp,
    /// When the window ends, and what is known of it may be forgotten.
    pub ends: Timestamp,
    /// The id under which what is left can be given back.
    pub lease: Uuid,
    /// Who takes it.
    pub gate: String,
    /// How much is wanted; with nothing, one only looks.
    pub want: Amount,
    /// The least that is of use: where less is left, nothing is set aside.
    pub least: Amount,
    /// The most that may ever be set aside in this window.
    pub limit: Amount,
}

/// What was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// As much of what was wanted as there was; nothing where that is less than what is of use.
    pub granted: Amount,
    /// What is left for others.
    pub remaining: Amount,
}

/// A request that consumes once, however often it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The request, in one text.
    pub request: String,
    /// A hash of what was asked.
    pub question: [u8; 32],
    /// When it may be forgotten.
    pub expires: Timestamp,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Nobody made it before.
    First,
    /// It was made before, with this hash.
    Before([u8; 32]),
}

/// What was used, of one metric, in one hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageRow {
    /// Under which license, and by whom.
    pub key: UsageKey,
    /// How much; in a batch, how much more or less.
    pub amount: Amount,
}

/// What usage is added up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageKey {
    /// The license's issuer.
    pub issuer: String,
    /// The license's id.
    pub license: String,
    /// The license's assignee.
    pub assignee: String,
    /// The user.
    pub user: String,
    /// The project; empty for none.
    pub project: String,
    /// The metric.
    pub metric: String,
    /// The beginning of the hour.
    pub hour: Timestamp,
}

/// Usage that is handed in once, however often it is sent: batches of one boot of a gate are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageBatch {
    /// The gate.
    pub gate: String,
    /// One run of it.
    pub boot: Uuid,
    /// The number of the batch, from 1; what is not above the last one accepted was accepted before.
    pub sequence: u64,
    /// What was used.
    pub rows: Vec<UsageRow>,
}

/// Which usage is read; what is absent does not limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Of licenses of this issuer.
    pub issuer: Option<String>,
    /// Under the license of this id.
    pub license: Option<String>,
    /// By this organization.
    pub assignee: Option<String>,
    /// By this user.
    pub user: Option<String>,
    /// For this project.
    pub project: Option<String>,
    /// Of this metric.
    pub metric: Option<String>,
    /// In hours that begin at this moment or later.
    pub from: Option<Timestamp>,
    /// In hours that begin before this moment.
    pub until: Option<Timestamp>,
}

/// A store of state. What a method acknowledges is durable. Every method may be called again after an
/// [`StoreError::Unavailable`]: a change that took place already is told as such, or does nothing twice;
/// only a repeated [`StateStore::take`] may set aside more than is used, never more than the limit.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// Registers a license, unless one of its id is registered.
    async fn register(&self, license: &Registered) -> Result<Registration, StoreError>;

    /// The registered license of this id.
    async fn license(&self, id: &str) -> Result<Option<Registered>, StoreError>;

    /// Registered licenses by the bytes of their ids, those after `after`, at most `limit`.
    async fn licenses(
        &self,
        filter: &LicenseFilter,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Registered>, StoreError>;

    /// Makes a change of a standing, and gives it the next revision. Revisions become visible in their order.
    async fn change(&self, change: &Change) -> Result<Changed, StoreError>;

    /// The standings that changed after revision `after`, the earliest first, at most `limit`. Tells the
    /// store the time at the gate.
    async fn feed(&self, after: u64, limit: u32, now: Timestamp) -> Result<Feed, StoreError>;

    /// Resolves when there may be something new, and otherwise never: a hint, not a promise.
    async fn news(&self);

    /// Records an acceptance, unless it is recorded; says whether it was new.
    async fn accept(&self, acceptance: &Acceptance) -> Result<bool, StoreError>;

    /// Whether these terms were accepted for this license, and by whom.
    async fn acceptance(
        &self,
        issuer: &str,
        license: &str,
        terms_hash: &str,
    ) -> Result<Option<Acceptance>, StoreError>;

    /// Sets a part of a quota aside. With nothing wanted, only looks. A lease that exists is answered again.
    async fn take(&self, take: &Take) -> Result<Taken, StoreError>;

    /// Gives back all but `kept` of a lease, which goes on with that. Nothing happens to a lease that has no more,
    /// or that ended.
    async fn keep(&self, lease: Uuid, kept: Amount) -> Result<(), StoreError>;

    /// Gives back what is left of a lease, which ends with that. Nothing happens to a lease that ended.
    async fn give_back(&self, lease: Uuid, amount: Amount) -> Result<(), StoreError>;

    /// What was claimed under this request.
    async fn claimed(&self, request: &str) -> Result<Option<[u8; 32]>, StoreError>;

    /// Claims a request, unless it is claimed.
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError>;

    /// Adds usage, once for each batch.
    async fn add_usage(&self, batch: &UsageBatch) -> Result<(), StoreError>;

    /// Usage by key, what comes after `after`, at most `limit` rows.
    async fn usage(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageKey>,
        limit: u32,
    ) -> Result<Vec<UsageRow>, StoreError>;

    /// Forgets windows, leases and claims that have ended at `now`, so many at once that nobody waits long. A
    /// store that many gates share, and that has a clock, keeps what did not end [`KEPT`] ago by that one too.
    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Finishes what is under way and lets go of the store.
    async fn close(&self);
}
