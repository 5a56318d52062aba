//! `CheckStream`: a use that goes on, between its caller and what may end it.
//!
//! What the caller receives drives the use, so an open stream is no task and has no queue of its own. Refuses
//! to let a use outlive its stream, or a stream its use.

use std::pin::{Pin, pin};
use std::sync::Arc;

use async_stream::try_stream;
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
    pub(super) fn serve(&self, mut said: Streaming<CheckStreamRequest>, trace_id: Option<String>) -> Answers {
        let Self { pdp, clock, closing } = self.clone();
        Box::pin(try_stream! {
            if let Some(first) = said.message().await? {
                let question = opening(first)?;
                // Boxed, so that what opening needs is not kept for as long as the stream is open.
                let opened = Box::pin(pdp.open(question, trace_id, clock.now())).await;
                match opened.map_err(status::undecided)? {
                    Opened::Denied(decision) => yield message(Answer::Opened(convert::answer(decision))),
                    Opened::Unwatched(decision) => {
                        yield message(Answer::Opened(convert::answer(decision)));
                        while said.message().await?.is_some() {
                            yield message(taken(Vec::new()));
                        }
                    }
                    Opened::Running(decision, running) => {
                        yield message(Answer::Opened(convert::answer(decision)));
                        let mut going = Going { running, clock, said, closing };
                        let mut goes_on = true;
                        while goes_on {
                            let answers = going.next().await?;
                            goes_on = answers.goes_on;
                            for answer in answers.messages {
                                yield message(answer);
                            }
                        }
                    }
                }
            }
        })
    }
}

fn message(message: Answer) -> CheckStreamResponse {
    CheckStreamResponse { message: Some(message) }
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

/// What is to be answered, and whether the use goes on.
struct Next {
    messages: Vec<Answer>,
    goes_on: bool,
}

impl Next {
    fn nothing() -> Self {
        Self { messages: Vec::new(), goes_on: true }
    }

    fn over(messages: Vec<Answer>) -> Self {
        Self { messages, goes_on: false }
    }

    fn ended(decision: Decision) -> Self {
        Self::over(vec![Answer::Ended(convert::ended(decision))])
    }
}

impl Going {
    /// Waits for the next thing that happens.
    async fn next(&mut self) -> Result<Next, Status> {
        let closing = pin!(turned(self.closing.clone()));
        tokio::select! {
            biased;
            // What follows is not raced: a report must not get past it.
            () = self.running.changed(&self.clock) => {
                let ended = self.running.ask_again(&self.clock).await.map_err(status::undecided)?;
                Ok(ended.map_or_else(Next::nothing, Next::ended))
            }
            () = closing => Err(status::undecided(DecideError::Closing)),
            said = self.said.message() => match said {
                Ok(Some(said)) => Box::pin(self.report(said)).await,
                // The caller is done, or gone.
                Ok(None) | Err(_) => Ok(Next::over(Vec::new())),
            },
        }
    }

    /// Takes a report.
    async fn report(&self, said: CheckStreamRequest) -> Result<Next, Status> {
        let Some(Said::Report(UsageReport { usage })) = said.message else {
            return Err(status::invalid("report", "must be every message but the first of a stream"));
        };
        let usage = usage.into_iter().collect();
        let now = self.clock.now();
        let states = match self.running.report(&usage, now).await.map_err(status::undecided)? {
            Err(ended) => return Ok(Next::ended(ended)),
            Ok(states) => states,
        };
        let ended = self.running.end_if_empty(&usage, &states, now).await.map_err(status::undecided)?;
        let messages = std::iter::once(taken(states));
        let goes_on = ended.is_none();
        let ended = ended.map(|ended| Answer::Ended(convert::ended(ended)));
        Ok(Next { messages: messages.chain(ended).collect(), goes_on })
    }
}

fn taken(states: Vec<QuotaState>) -> Answer {
    Answer::Taken(ReportTaken { quotas: states.into_iter().map(convert::quota).collect() })
}
