//! `CheckStream`: one task for each use that goes on, between its caller and what may end it.
//!
//! Refuses to let a use outlive its stream, or a stream its use.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{convert, status};
use crate::decision::{DecideError, Opened, Pdp, Running};
use crate::domain::Clock;
use crate::listener::turned;
use crate::proto::v1::check_stream_request::Message as Said;
use crate::proto::v1::check_stream_response::Message as Answer;
use crate::proto::v1::{CheckStreamRequest, CheckStreamResponse, ReportTaken, UsageReport};

/// Answers that may wait for a caller who does not read.
const WAITING: usize = 4;

/// What a caller receives.
pub(super) type Answers = ReceiverStream<Result<CheckStreamResponse, Status>>;

/// What a stream needs of the gate.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) pdp: Arc<Pdp>,
    pub(super) clock: Clock,
    /// Turns true when the gate stops.
    pub(super) closing: watch::Receiver<bool>,
}

impl Streams {
    /// Serves one stream, beside its caller.
    pub(super) fn serve(&self, said: Streaming<CheckStreamRequest>, trace_id: Option<String>) -> Answers {
        let (answers, received) = mpsc::channel(WAITING);
        let stream = Stream { of: self.clone(), said, answers };
        tokio::spawn(async move {
            let mut stream = stream;
            if let Err(status) = Box::pin(stream.run(trace_id)).await {
                // Whoever went away is not told.
                let _ = stream.answers.send(Err(status)).await;
            }
        });
        ReceiverStream::new(received)
    }
}

struct Stream {
    of: Streams,
    said: Streaming<CheckStreamRequest>,
    answers: mpsc::Sender<Result<CheckStreamResponse, Status>>,
}

impl Stream {
    async fn run(&mut self, trace_id: Option<String>) -> Result<(), Status> {
        let Some(first) = self.said.message().await? else { return Ok(()) };
        let Some(Said::Open(question)) = first.message else {
            return Err(status::invalid("open", "must be the first message of a stream"));
        };
        let question = convert::question(question).map_err(|refusal| refusal.within("open"))?;
        let opened = self.of.pdp.open(question, trace_id, self.of.clock.now()).await;
        match opened.map_err(status::undecided)? {
            Opened::Denied(decision) => self.answer(Answer::Opened(convert::answer(decision))).await,
            Opened::Running(decision, running) => {
                self.answer(Answer::Opened(convert::answer(decision))).await?;
                self.go_on(running).await
            }
        }
    }

    /// Until either side ends it.
    async fn go_on(&mut self, mut running: Box<Running>) -> Result<(), Status> {
        let clock = self.of.clock.clone();
        let mut closing = pin!(turned(self.of.closing.clone()));
        loop {
            tokio::select! {
                biased;
                ended = running.must_end(&clock) => {
                    let ended = ended.map_err(status::undecided)?;
                    return self.answer(Answer::Ended(convert::ended(ended))).await;
                }
                () = &mut closing => {
                    return Err(status::undecided(DecideError::Closing));
                }
                () = self.answers.closed() => return Ok(()),
                said = self.said.message() => match said {
                    Ok(Some(said)) => {
                        if self.report(&running, said).await? {
                            return Ok(());
                        }
                    }
                    // The caller is done, or gone.
                    Ok(None) | Err(_) => return Ok(()),
                },
            }
        }
    }

    /// Takes a report; says whether it ended the use.
    async fn report(&mut self, running: &Running, said: CheckStreamRequest) -> Result<bool, Status> {
        let Some(Said::Report(UsageReport { usage })) = said.message else {
            return Err(status::invalid("report", "must be every message but the first of a stream"));
        };
        let usage = usage.into_iter().collect();
        let now = self.of.clock.now();
        let ended = match running.report(&usage, now).await.map_err(status::undecided)? {
            Err(ended) => Some(ended),
            Ok(states) => {
                let ended = running.end_if_empty(&usage, &states, now).await.map_err(status::undecided)?;
                let quotas = states.into_iter().map(convert::quota).collect();
                self.answer(Answer::Taken(ReportTaken { quotas })).await?;
                ended
            }
        };
        match ended {
            None => Ok(false),
            Some(ended) => self.answer(Answer::Ended(convert::ended(ended))).await.map(|()| true),
        }
    }

    async fn answer(&self, message: Answer) -> Result<(), Status> {
        let answer = CheckStreamResponse { message: Some(message) };
        self.answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the caller went away"))
    }
}
