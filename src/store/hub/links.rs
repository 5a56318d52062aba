//! Asking a hub: the one that is linked to, and where it fails another, within the time.
//!
//! Refuses to ask twice what may have been done, unless that does nothing twice.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::Mark;
use super::address::Address;
use super::keeper::Keeper;
use crate::proto::v1::hub_service_client::HubServiceClient;
use crate::store::StoreError;

/// A link that lasted so long is one that works.
pub(super) const STEADY: Duration = Duration::from_secs(5);

/// Speaks to a hub.
pub(super) type Client = HubServiceClient<Channel>;

/// A connection to a hub that answered.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Links are numbered from 1.
    pub(super) number: u64,
    /// The hub.
    pub(super) hub: Arc<str>,
    /// Speaks over it.
    pub(super) client: Client,
    /// Since when.
    pub(super) since: Instant,
    /// How often the hub was heard on it, unasked.
    pub(super) heard: Arc<AtomicU64>,
}

/// Whether there is a hub.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// It is being looked for.
    Looking,
    /// There is one.
    Up(Link),
    /// None answered; it is looked for further.
    Down(StoreError),
    /// It is not looked for any more.
    Closed,
}

/// What may be done where a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Ask again: that does nothing twice.
    Repeatable,
    /// The same, and wait for a hub although none answers now.
    Patient,
    /// Nothing: it may have been done.
    Once,
}

/// The way to hubs.
pub(super) struct Links {
    standing: Arc<watch::Sender<Standing>>,
    /// The number of the last link that was found not to work.
    left: Arc<watch::Sender<u64>>,
    hubs: usize,
    patience: Duration,
    keeper: AbortHandle,
}

impl Links {
    /// Begins to look for a hub. What hubs say of how far they know is heard on the receiver.
    pub(super) fn start(hubs: Vec<Address>, patience: Duration) -> (Self, watch::Receiver<Mark>) {
        let standing = Arc::new(watch::Sender::new(Standing::Looking));
        let (left, (marks, heard)) = (Arc::new(watch::Sender::new(0)), watch::channel(Mark::default()));
        let count = hubs.len().max(1);
        let share = patience / u32::try_from(count).unwrap_or(1);
        let keeper = Keeper::new(hubs, Arc::clone(&standing), left.subscribe(), marks, share);
        let keeper = tokio::spawn(keeper.keep()).abort_handle();
        (Self { standing, left, hubs: count, patience, keeper }, heard)
    }

    /// Asks, and gives the answer.
    pub(super) async fn ask<Q, A, F>(
        &self,
        manner: Manner,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<A, StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>> + Send,
    {
        Ok(self.attempt(manner, message, call).await?.1)
    }

    /// Asks what may be asked twice, and gives the answer and the link that it came over.
    pub(super) async fn ask_whom<Q, A, F>(
        &self,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<(u64, A), StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>> + Send,
    {
        self.attempt(Manner::Repeatable, message, call).await
    }

    async fn attempt<Q, A, F>(
        &self,
        manner: Manner,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<(u64, A), StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>> + Send,
    {
        let deadline = Instant::now() + self.patience;
        // One that froze says nothing, so the others get their share of the time.
        let share = self.patience / u32::try_from(self.hubs).unwrap_or(1);
        let (mut after, mut last) = (0, None);
        loop {
            let link = match self.link(after, manner, deadline).await {
                Ok(link) => link,
                // What went wrong first says more than that there is no other hub.
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let until = deadline.min(Instant::now() + share);
            let mut request = Request::new(message.clone());
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            let heard = link.heard.load(Relaxed);
            let fault = match timeout_at(until, call(link.client.clone(), request)).await {
                Ok(Ok(answer)) => return Ok((link.number, answer.into_inner())),
                // What the transport says where the time is over.
                Ok(Err(status)) if status.details().is_empty() && Instant::now() >= until => {
                    Fault::silent(&link, heard)
                }
                Ok(Err(status)) => Fault::of(&status, &link.hub),
                Err(_) => Fault::silent(&link, heard),
            };
            if fault.is_of_link {
                self.leave(link.number);
            }
            let moves_on = fault.is_of_link || (fault.may_pass && self.leave_for_another(link.number));
            if !moves_on || manner == Manner::Once {
                return Err(fault.error);
            }
            (after, last) = (link.number, Some(fault.error));
        }
    }

    /// A link of a higher number than this.
    async fn link(&self, after: u64, manner: Manner, deadline: Instant) -> Result<Link, StoreError> {
        let mut standing = self.standing.subscribe();
        let mut down = None;
        loop {
            match &*standing.borrow_and_update() {
                Standing::Closed => return Err(StoreError::Closed),
                Standing::Up(link) if link.number > after => return Ok(link.clone()),
                Standing::Down(error) if manner != Manner::Patient => return Err(error.clone()),
                Standing::Down(error) => down = Some(error.clone()),
                Standing::Up(_) | Standing::Looking => {}
            }
            match timeout_at(deadline, standing.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(StoreError::Closed),
                Err(_) => {
                    let late = || StoreError::Unavailable("no hub was found in time".to_owned());
                    return Err(down.unwrap_or_else(late));
                }
            }
        }
    }

    /// Has another link looked for.
    fn leave(&self, number: u64) {
        self.left.send_if_modified(|left| {
            let later = number > *left;
            *left = number.max(*left);
            later
        });
    }

    /// Has another hub looked for, where there is one, and this one was not found only now: if all of them have
    /// the same trouble, going round would not help. Says whether.
    pub(super) fn leave_for_another(&self, number: u64) -> bool {
        let is_steady = match &*self.standing.borrow() {
            Standing::Up(link) => link.number > number || link.since.elapsed() >= STEADY,
            _ => true,
        };
        let leaves = self.hubs > 1 && is_steady;
        if leaves {
            self.leave(number);
        }
        leaves
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Closed)
    }

    /// Lets go of the hub.
    pub(super) fn close(&self) {
        self.keeper.abort();
        self.standing.send_replace(Standing::Closed);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Why a call failed.
struct Fault {
    error: StoreError,
    /// The hub, or the way to it, does not work.
    is_of_link: bool,
    /// Another hub may do better.
    may_pass: bool,
}

impl Fault {
    fn of(status: &Status, hub: &str) -> Self {
        let words = format!("hub `{hub}`: {}", status.message());
        // What our hubs say has details; what the transport says has none.
        let is_of_hub = !status.details().is_empty();
        match status.code() {
            Code::PermissionDenied => Self::final_one(StoreError::Forbidden(words)),
            Code::DataLoss => Self::final_one(StoreError::Damaged(words)),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self { error: StoreError::Unavailable(words), is_of_link: !is_of_hub, may_pass: true }
            }
            Code::Internal if !is_of_hub => {
                Self { error: StoreError::Unavailable(words), is_of_link: true, may_pass: true }
            }
            _ => Self::final_one(StoreError::Unavailable(words)),
        }
    }

    /// No answer came in time. A hub that was heard meanwhile, after so many times, lives: its state is slow, and a
    /// new link would not help that.
    fn silent(link: &Link, heard: u64) -> Self {
        let (lives, hub) = (link.heard.load(Relaxed) > heard, &link.hub);
        let words = match lives {
            true => format!("hub `{hub}` lives, and did not answer this in time: its state is slow"),
            false => format!("hub `{hub}` did not answer in time"),
        };
        Self { error: StoreError::Unavailable(words), is_of_link: !lives, may_pass: true }
    }

    fn final_one(error: StoreError) -> Self {
        Self { error, is_of_link: false, may_pass: false }
    }
}

/// Why a hub does not let this gate listen.
pub(super) fn refusal(status: &Status, hub: &str) -> StoreError {
    Fault::of(status, hub).error
}
