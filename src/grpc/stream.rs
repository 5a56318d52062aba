//! `CheckStream`: a use that goes on, between its caller and what may end it.
//!
//! What the caller receives drives the use, so an open stream is no task and has no queue of its own. Refuses
//! to let a use outlive its stream, or a stream its use.

use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::try_unfold;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{convert, status};
use crate::decision::{DecideError, Opened, Pdp, Running};
use crate::domain::outcome::QuotaState;
use crate::domain::{CheckRequest, Clock, Decision};
use crate::listener::turned;
use crate::proto::v1::check_stream_request::Message as Said;
use crate::proto::v1::check_stream_response::Message as Answer;
use crate::proto::v1::{CheckStreamRequest, CheckStreamResponse, ReportTaken, UsageReport};

/// What a caller receives.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<CheckStreamResponse, Status>> + Send>>;

/// What a stream needs of the gate.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) pdp: Arc<Pdp>,
    pub(super) clock: Clock,
    /// Turns true when the gate stops.
    pub(super) closing: watch::Receiver<bool>,
}

impl Streams {
    /// What is answered on one stream, in its order.
    pub(super) fn serve(&self, said: Streaming<CheckStreamRequest>, trace_id: Option<String>) -> Answers {
        let begun = Begun { streams: self.clone(), said, trace_id };
        Box::pin(try_unfold(Stage::Begun(Box::new(begun)), Stage::next))
    }
}

/// An answer and what comes after it; nothing when the stream is over.
type Next = Result<Option<(CheckStreamResponse, Stage)>, Status>;

/// Where a stream is. Each waits for its next answer in a future of its own, so that what another needed, opening
/// above all, is not kept for as long as the stream is open.
enum Stage {
    Begun(Box<Begun>),
    /// Nothing is enforced, and it goes on whatever happens.
    Unwatched(Box<Streaming<CheckStreamRequest>>),
    Running(Box<Going>),
    Over,
}

impl Stage {
    fn next(self) -> BoxFuture<'static, Next> {
        match self {
            Self::Begun(begun) => Box::pin(begun.open()),
            Self::Unwatched(said) => Box::pin(goes_on(said)),
            Self::Running(going) => Box::pin(going.next()),
            Self::Over => Box::pin(ready(Ok(None))),
        }
    }
}

fn message(message: Answer) -> CheckStreamResponse {
    CheckStreamResponse { message: Some(message) }
}

fn ended(decision: Decision) -> (CheckStreamResponse, Stage) {
    (message(Answer::Ended(convert::ended(decision))), Stage::Over)
}

/// A stream on which nothing was answered yet.
struct Begun {
    streams: Streams,
    said: Streaming<CheckStreamRequest>,
    trace_id: Option<String>,
}

impl Begun {
    async fn open(self: Box<Self>) -> Next {
        let Self { streams: Streams { pdp, clock, closing }, mut said, trace_id } = *self;
        let Some(first) = said.message().await? else { return Ok(None) };
        let opened = pdp.open(opening(first)?, trace_id, clock.now()).await.map_err(status::undecided)?;
        let (decision, stage) = match opened {
            Opened::Denied(decision) => (decision, Stage::Over),
            Opened::Unwatched(decision) => (decision, Stage::Unwatched(Box::new(said))),
            Opened::Running(decision, running) => {
                (decision, Stage::Running(Box::new(Going { running, clock, said, closing })))
            }
        };
        Ok(Some((message(Answer::Opened(convert::answer(decision))), stage)))
    }
}

async fn goes_on(mut said: Box<Streaming<CheckStreamRequest>>) -> Next {
    Ok(said.message().await?.map(|_| (message(taken(Vec::new())), Stage::Unwatched(said))))
}

fn opening(first: CheckStreamRequest) -> Result<CheckRequest, Status> {
    let Some(Said::Open(question)) = first.message else {
        return Err(status::invalid("open", "must be the first message of a stream"));
    };
    Ok(convert::question(question).map_err(|refusal| refusal.within("open"))?)
}

/// A use that goes on.
struct Going {
    running: Box<Running>,
    clock: Clock,
    said: Streaming<CheckStreamRequest>,
    closing: watch::Receiver<bool>,
}

/// What a use that goes on waits for.
enum Heard {
    /// Something changed that it hangs on.
    Change,
    /// Nothing is left of what it reported to, in this place.
    Emptied(usize),
    Said(Result<Option<Box<CheckStreamRequest>>, Status>),
}

impl Going {
    /// Waits for the next thing that is to be answered.
    async fn next(mut self: Box<Self>) -> Next {
        loop {
            let closing = pin!(turned(self.closing.clone()));
            let emptied = self.running.emptied();
            let heard = tokio::select! {
                biased;
                // What follows is not raced: a report must not get past it.
                () = self.running.changed(&self.clock) => Heard::Change,
                () = closing => return Err(status::undecided(DecideError::Closing)),
                said = self.said.message() => Heard::Said(said.map(|said| said.map(Box::new))),
                place = emptied => Heard::Emptied(place),
            };
            let end = match heard {
                Heard::Change => self.running.ask_again(&self.clock).await,
                Heard::Emptied(place) => self.running.end_emptied(place, self.clock.now()).await,
                Heard::Said(Ok(Some(said))) => return Box::pin(self.report(*said)).await,
                // The caller is done, or gone.
                Heard::Said(Ok(None) | Err(_)) => return Ok(None),
            };
            if let Some(decision) = end.map_err(status::undecided)? {
                return Ok(Some(ended(decision)));
            }
        }
    }

    /// Takes a report.
    async fn report(mut self: Box<Self>, said: CheckStreamRequest) -> Next {
        let Some(Said::Report(UsageReport { usage })) = said.message else {
            return Err(status::invalid("report", "must be every message but the first of a stream"));
        };
        let usage = usage.into_iter().collect();
        let states = match self.running.report(usage, &self.clock).await.map_err(status::undecided)? {
            Err(decision) => return Ok(Some(ended(decision))),
            Ok(states) => states,
        };
        Ok(Some((message(taken(states)), Stage::Running(self))))
    }
}

fn taken(states: Vec<QuotaState>) -> Answer {
    Answer::Taken(ReportTaken { quotas: states.into_iter().map(convert::quota).collect() })
}
