//! State in a hub: another gate, asked over gRPC, for gates without a disk or a database.
//!
//! One hub of several is used until it fails; then another, and what may be asked twice is asked there.
//! Refuses to take what a hub remembers for fresher than the hub says, and to wait longer than the
//! configured time.

mod address;
mod keeper;
mod links;
pub mod messages;

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio::sync::watch;
use tonic::{Response, Status};
use uuid::Uuid;

use self::address::Address;
use self::links::{Client, Links, Manner};
use self::messages::{MAX_LINES, MAX_ROWS, Malformed};
use super::{
    Acceptance, Change, Changed, Claim, Claimed, Feed, LicenseFilter, Registered, Registration, StateStore,
    StoreError, Take, Taken, UsageBatch, UsageFilter, UsageKey, UsageRow,
};
use crate::config::Hubs;
use crate::domain::amount::Amount;
use crate::domain::time::Timestamp;
use crate::proto::v1 as wire;

/// A hub that has not read its own state for so long is left for another, where there is one.
const OLD: SignedDuration = SignedDuration::from_secs(5);

/// State in a hub.
pub struct HubStore {
    links: Links,
    /// How far the hub said that it knows.
    heard: watch::Receiver<Mark>,
    /// How far of that was told to whoever reads.
    told: Mutex<Mark>,
}

/// How far a hub knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    epoch: Uuid,
    revision: u64,
    records: u64,
}

impl Mark {
    /// Whether it tells of something that another does not.
    fn is_news_after(&self, other: &Self) -> bool {
        self.epoch != other.epoch || self.revision > other.revision || self.records > other.records
    }
}

impl fmt::Debug for HubStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubStore")
    }
}

impl HubStore {
    /// Begins to look for a hub, and waits for none. To be called in a runtime.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when an address or a certificate cannot be used as it is configured.
    pub fn open(config: &Hubs) -> Result<Self, StoreError> {
        let hubs = config.addresses.iter().map(|address| Address::read(address, config));
        let hubs = hubs.collect::<Result<Vec<_>, _>>()?;
        let (links, heard) = Links::start(hubs, config.timeout.get());
        Ok(Self { links, heard, told: Mutex::default() })
    }

    /// Hands lines in to the decision log of the hub, so many of the whole `lines` as fit into one message. Returns
    /// how many bytes of them the hub has. Waits for a hub as long as a call may take.
    ///
    /// # Errors
    /// When no hub took them; it may have them all the same.
    pub async fn hand_in(&self, lines: &[u8]) -> Result<usize, StoreError> {
        let part = lines.get(..fitting(lines)).unwrap_or(lines);
        let message = wire::HandInRequest { lines: part.to_vec() };
        let call = |mut hub: Client, request| async move { hub.hand_in(request).await };
        self.links.ask(Manner::Patient, message, call).await?;
        Ok(part.len())
    }

    /// Asks what may be asked twice.
    async fn ask<Q, A, F>(
        &self,
        message: Q,
        call: impl Fn(Client, tonic::Request<Q>) -> F,
    ) -> Result<A, StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>> + Send,
    {
        self.links.ask(Manner::Repeatable, message, call).await
    }

    /// Asks what may not.
    async fn ask_once<Q, A, F>(
        &self,
        message: Q,
        call: impl Fn(Client, tonic::Request<Q>) -> F,
    ) -> Result<A, StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>> + Send,
    {
        self.links.ask(Manner::Once, message, call).await
    }

    fn tell(&self, mark: Mark) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = mark;
    }

    fn told(&self) -> Mark {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many bytes go into one message: whole lines, and one line at least.
fn fitting(lines: &[u8]) -> usize {
    let newline = |part: &[u8]| part.iter().rposition(|byte| *byte == b'\n');
    if lines.len() <= MAX_LINES {
        return lines.len();
    }
    let most = lines.get(..MAX_LINES).and_then(newline);
    let first = || lines.iter().position(|byte| *byte == b'\n');
    most.or_else(first).map_or(lines.len(), |end| end + 1)
}

/// A hub that answers what makes no sense has not answered.
fn senseless(problem: Malformed) -> StoreError {
    StoreError::Unavailable(format!("the hub's answer makes no sense: {problem}"))
}

macro_rules! call {
    ($method:ident) => {
        |mut hub: Client, request| async move { hub.$method(request).await }
    };
}

#[async_trait]
impl StateStore for HubStore {
    async fn register(&self, license: &Registered) -> Result<Registration, StoreError> {
        let message = wire::RegisterRequest { license: Some(messages::registered(license)) };
        let answer = self.ask_once(message, call!(register)).await?;
        Ok(match answer.present {
            None => Registration::Created,
            present => Registration::Present(messages::read_registered(present).map_err(senseless)?),
        })
    }

    async fn license(&self, id: &str) -> Result<Option<Registered>, StoreError> {
        let message = wire::LicenseRequest { license_id: id.to_owned() };
        let answer = self.ask(message, call!(license)).await?;
        let license = answer.license.map(|license| messages::read_registered(Some(license)));
        license.transpose().map_err(senseless)
    }

    async fn licenses(
        &self,
        filter: &LicenseFilter,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Registered>, StoreError> {
        let (mut found, mut after, mut lacking) = (Vec::new(), after.to_owned(), limit);
        while lacking > 0 {
            let wanted = lacking.min(MAX_ROWS);
            let page = self.ask(messages::licenses(filter, &after, wanted), call!(licenses)).await?.licenses;
            let page = page.into_iter().map(|license| messages::read_registered(Some(license)));
            let page: Vec<Registered> = page.collect::<Result<_, _>>().map_err(senseless)?;
            let count = u32::try_from(page.len()).unwrap_or(u32::MAX);
            if let Some(last) = page.last() {
                after.clone_from(&last.id);
            }
            found.extend(page);
            lacking = if count < wanted { 0 } else { lacking.saturating_sub(count) };
        }
        Ok(found)
    }

    /// The hub says for itself from where the status may be reached.
    async fn change(&self, change: &Change) -> Result<Changed, StoreError> {
        use wire::change_response::Outcome;
        let message = wire::ChangeRequest { standing: Some(messages::standing(&change.standing)) };
        match self.ask_once(message, call!(change)).await?.outcome {
            Some(Outcome::Applied(revision)) => Ok(Changed::Applied(revision)),
            Some(Outcome::Refused(standing)) => {
                messages::read_standing(Some(standing)).map(Changed::Refused).map_err(senseless)
            }
            Some(Outcome::Unknown(_)) => Ok(Changed::Unknown),
            None => Err(StoreError::Unavailable("the hub did not say what became of the change".to_owned())),
        }
    }

    /// The time at this gate is not told: one clock that is ahead would make all others suspect.
    async fn feed(&self, after: u64, limit: u32, _now: Timestamp) -> Result<Feed, StoreError> {
        let (link, answer) = self.links.ask_whom(wire::FeedRequest { after, limit }, call!(feed)).await?;
        let feed = messages::read_feed(answer).map_err(senseless)?;
        if feed.age > OLD {
            self.links.leave_for_another(link);
        }
        self.tell(Mark { epoch: feed.epoch, revision: feed.revision, records: feed.records });
        Ok(feed)
    }

    async fn news(&self) {
        let mut heard = self.heard.clone();
        loop {
            let mark = *heard.borrow_and_update();
            if mark.is_news_after(&self.told()) {
                // Once: whoever cannot read it now looks again by itself.
                self.tell(mark);
                return;
            }
            if heard.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn accept(&self, acceptance: &Acceptance) -> Result<bool, StoreError> {
        let message = wire::AcceptRequest { acceptance: Some(messages::acceptance(acceptance)) };
        Ok(self.ask_once(message, call!(accept)).await?.created)
    }

    async fn acceptance(
        &self,
        issuer: &str,
        license: &str,
        terms_hash: &str,
    ) -> Result<Option<Acceptance>, StoreError> {
        let message = wire::AcceptanceRequest {
            issuer: issuer.to_owned(),
            license_id: license.to_owned(),
            terms_hash: terms_hash.to_owned(),
        };
        let answer = self.ask(message, call!(acceptance)).await?;
        let acceptance = answer.acceptance.map(|acceptance| messages::read_acceptance(Some(acceptance)));
        acceptance.transpose().map_err(senseless)
    }

    async fn take(&self, take: &Take) -> Result<Taken, StoreError> {
        let answer = self.ask(messages::take(take), call!(take)).await?;
        messages::read_taken(&answer).map_err(senseless)
    }

    async fn keep(&self, lease: Uuid, kept: Amount) -> Result<(), StoreError> {
        self.ask(messages::keep(lease, kept), call!(keep)).await.map(drop)
    }

    async fn give_back(&self, lease: Uuid, amount: Amount) -> Result<(), StoreError> {
        self.ask(messages::give_back(lease, amount), call!(give_back)).await.map(drop)
    }

    async fn claimed(&self, request: &str) -> Result<Option<[u8; 32]>, StoreError> {
        let message = wire::ClaimedRequest { request: request.to_owned() };
        let question = self.ask(message, call!(claimed)).await?.question;
        question.as_deref().map(messages::read_question).transpose().map_err(senseless)
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let before = self.ask_once(messages::claim(claim), call!(claim)).await?.before;
        Ok(match before {
            None => Claimed::First,
            Some(question) => Claimed::Before(messages::read_question(&question).map_err(senseless)?),
        })
    }

    async fn add_usage(&self, batch: &UsageBatch) -> Result<(), StoreError> {
        self.ask(messages::add_usage(batch), call!(add_usage)).await.map(drop)
    }

    async fn usage(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageKey>,
        limit: u32,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let (mut found, mut after, mut lacking) = (Vec::new(), after.cloned(), limit);
        while lacking > 0 {
            let wanted = lacking.min(MAX_ROWS);
            let page = self.ask(messages::usage(filter, after.as_ref(), wanted), call!(usage)).await?.rows;
            let page = messages::read_usage_rows(page).map_err(senseless)?;
            let count = u32::try_from(page.len()).unwrap_or(u32::MAX);
            after = page.last().map(|row| row.key.clone());
            found.extend(page);
            lacking = if count < wanted { 0 } else { lacking.saturating_sub(count) };
        }
        Ok(found)
    }

    /// A hub sweeps its own store.
    async fn sweep(&self, _now: Timestamp) -> Result<(), StoreError> {
        if self.links.is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    }

    async fn close(&self) {
        self.links.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_whole_lines() {
        assert_eq!(fitting(b"a\nb\n"), 4);
        let half = [vec![b'x'; MAX_LINES / 2 + 1], vec![b'\n']].concat();
        assert_eq!(fitting(&half.repeat(3)), half.len());
        let long = [vec![b'x'; MAX_LINES + 9], b"\nb\n".to_vec()].concat();
        assert_eq!(fitting(&long), MAX_LINES + 10);
    }

    #[test]
    fn what_was_told_is_no_news() {
        let mark = |epoch, revision, records| Mark { epoch: Uuid::from_u128(epoch), revision, records };
        let told = mark(1, 5, 5);
        assert!(!told.is_news_after(&told));
        for news in [mark(2, 0, 0), mark(1, 6, 5), mark(1, 5, 6)] {
            assert!(news.is_news_after(&told));
        }
        assert!(!mark(1, 4, 5).is_news_after(&told), "a message that was overtaken by a read");
    }
}
