//! `envoy.service.ext_proc.v3.ExternalProcessor`: watches over responses, counts them, and cuts them.
//!
//! Refuses to trust that a response was allowed: whoever hands it over says what was asked, and that is asked again.
//! Ends no stream in a way that Envoy takes for leave to go on, except where the configuration says so.

mod answer;
mod meter;
mod opening;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessor;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Said;
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::decision::traced;
use super::status;
use crate::config::Envoy;
use crate::config::envoy::Unfinished;
use crate::decision::{DecideError, Opened, Pdp, Running};
use crate::domain::{Clock, Decision};
use crate::listener::turned;
use crate::quota::Denied;

use meter::{BYTES, Chunk, MESSAGES, Meter};
use opening::{First, Manner, Opening};

/// The largest message: Envoy sends what has gathered while it waited for an answer, more than 9 MB where it was seen.
pub(super) const LARGEST: usize = 64 << 20;

/// Given to the last bytes that a quota leaves, before the connection of HTTP/2 is reset behind them.
const LAST_BYTES: Duration = Duration::from_millis(50);

/// How often a smaller part of a chunk is tried, while others take from the same quota.
const ATTEMPTS: usize = 8;

/// What Envoy receives.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

/// Watches over responses, for Envoy.
#[derive(Clone)]
pub(super) struct ExtProc {
    pdp: Arc<Pdp>,
    clock: Clock,
    metering: bool,
    unfinished: Unfinished,
    /// Turns true when the gate can wait no longer.
    leaving: watch::Receiver<bool>,
}

impl ExtProc {
    pub(super) fn new(pdp: Arc<Pdp>, clock: Clock, envoy: &Envoy, leaving: watch::Receiver<bool>) -> Self {
        Self { pdp, clock, metering: envoy.metering, unfinished: envoy.unfinished, leaving }
    }

    fn serve(&self, mut said: Streaming<ProcessingRequest>, trace_id: Option<String>) -> Answers {
        let service = self.clone();
        Box::pin(try_stream! {
            let Some(first) = said.message().await? else { return };
            let opening = match opening::read(&first)? {
                First::Asked(opening) => opening,
                First::LocalReply => {
                    yield answer::go_on(&first);
                    while let Some(next) = said.message().await? {
                        yield answer::go_on(&next);
                    }
                    return;
                }
            };
            let Opening { question, manner } = *opening;
            let clock = service.clock.clone();
            // Boxed, so that what opening needs is not kept for as long as the stream is open.
            let opened = Box::pin(service.pdp.resume(question, trace_id, clock.now())).await;
            let mut going = match opened.map_err(status::undecided)? {
                Opened::Denied(decision) => {
                    yield answer::cut(&decision, &manner, clock.now())?;
                    return;
                }
                Opened::Unwatched(_) => {
                    yield answer::go_on(&first);
                    while let Some(next) = said.message().await? {
                        yield answer::go_on(&next);
                    }
                    return;
                }
                Opened::Running(_, running) => service.watch_over(running, manner, said)?,
            };
            let mut step = Box::pin(going.first(&first)).await?;
            drop(first);
            loop {
                match step {
                    Step::GoOn(answer) => yield answer,
                    Step::Nothing => {}
                    Step::LastBytes(part, decision) => {
                        yield part;
                        tokio::time::sleep(LAST_BYTES).await;
                        yield answer::cut(&decision, &going.manner, clock.now())?;
                        return;
                    }
                    Step::Cut(decision) => {
                        yield answer::cut(&decision, &going.manner, clock.now())?;
                        return;
                    }
                    Step::Over => return,
                }
                step = going.next().await?;
            }
        })
    }

    fn watch_over(
        self,
        running: Box<Running>,
        manner: Manner,
        said: Streaming<ProcessingRequest>,
    ) -> Result<Going, Status> {
        let is_limited = running.is_limited(BYTES) || (manner.is_grpc && running.is_limited(MESSAGES));
        let must_count = self.metering && is_limited;
        if must_count && !manner.can_count() {
            return Err(status::unusable(
                "the license limits how much there may be of this response, and Envoy does not hand it over: \
                 `processing_mode` must have `request_header_mode: SEND` or `response_body_mode: STREAMED`",
            ));
        }
        let meter = self.metering.then(|| Meter::new(manner.is_grpc));
        Ok(Going { service: self, running, manner, said, meter, must_count })
    }
}

#[tonic::async_trait]
impl ExternalProcessor for ExtProc {
    type ProcessStream = Answers;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (metadata, _, said) = request.into_parts();
        let (_, trace_id) = traced("envoy.service.ext_proc.v3.ExternalProcessor/Process", metadata.as_ref());
        Ok(Response::new(self.serve(said, trace_id)))
    }
}

/// A response that is under way.
struct Going {
    service: ExtProc,
    running: Box<Running>,
    manner: Manner,
    said: Streaming<ProcessingRequest>,
    /// Unless nothing is counted.
    meter: Option<Meter>,
    /// Whether no byte may pass that was not counted.
    must_count: bool,
}

/// What happens next.
enum Step {
    GoOn(ProcessingResponse),
    /// Envoy waits for no answer.
    Nothing,
    /// A part of a chunk passes, and nothing after it.
    LastBytes(ProcessingResponse, Decision),
    Cut(Decision),
    /// The response has ended, or is let go.
    Over,
}

impl Going {
    /// What is answered to the first message: where it must be counted, Envoy is asked to hand over the response.
    async fn first(&mut self, said: &ProcessingRequest) -> Result<Step, Status> {
        let step = self.arrived(said).await?;
        Ok(match step {
            Step::GoOn(answer) if self.must_count && !self.manner.is_streamed() => {
                Step::GoOn(answer::hand_over(answer, &self.manner))
            }
            step => step,
        })
    }

    /// Waits for the next thing that happens. What ends the response comes before what goes on with it.
    async fn next(&mut self) -> Result<Step, Status> {
        let leaving = pin!(turned(self.service.leaving.clone()));
        let said = tokio::select! {
            biased;
            // What follows is not raced: nothing must get past it.
            () = self.running.changed(&self.service.clock) => return self.changed().await,
            () = leaving => return self.leave(),
            said = self.said.message() => said,
        };
        match said {
            Ok(Some(said)) => Box::pin(self.arrived(&said)).await,
            // The response has ended, or its client is gone.
            Ok(None) | Err(_) => Ok(Step::Over),
        }
    }

    /// The gate stops. What is counted never goes on uncounted.
    fn leave(&self) -> Result<Step, Status> {
        match self.service.unfinished {
            Unfinished::Release if !self.must_count => Ok(Step::Over),
            _ => Err(status::undecided(DecideError::Closing)),
        }
    }

    async fn arrived(&mut self, said: &ProcessingRequest) -> Result<Step, Status> {
        let step = match (&said.request, &mut self.meter) {
            (Some(Said::ResponseBody(chunk)), Some(meter)) if !chunk.body.is_empty() => {
                let chunk = meter.chunk(&chunk.body);
                self.count(said, &chunk).await?
            }
            _ => Step::GoOn(answer::go_on(said)),
        };
        // Counting may have waited for the state: what was revoked meanwhile does not pass.
        let has_changed = tokio::select! {
            biased;
            () = self.running.changed(&self.service.clock) => true,
            () = std::future::ready(()) => false,
        };
        if has_changed && let cut @ Step::Cut(_) = self.changed().await? {
            return Ok(cut);
        }
        Ok(match step {
            Step::GoOn(_) if self.manner.is_observed => Step::Nothing,
            Step::LastBytes(_, decision) if self.manner.is_observed => Step::Cut(decision),
            step => step,
        })
    }

    async fn changed(&self) -> Result<Step, Status> {
        let ended = self.running.ask_again(&self.service.clock).await.map_err(status::undecided)?;
        Ok(ended.map_or(Step::Nothing, Step::Cut))
    }

    /// Takes what a chunk needs; where quotas do not leave so much, as much of it as they leave.
    async fn count(&self, said: &ProcessingRequest, chunk: &Chunk<'_>) -> Result<Step, Status> {
        let now = self.service.clock.now();
        let mut part = chunk.len();
        let mut refused: Option<Denied> = None;
        for _ in 0..ATTEMPTS {
            match self.running.take(&chunk.usage(part), now).await {
                Ok(_) => break,
                Err(denied) => {
                    part = chunk.fits(&denied).min(part.saturating_sub(1));
                    refused = Some(denied);
                }
            }
            if part == 0 {
                break;
            }
        }
        let Some(denied) = refused else { return Ok(Step::GoOn(answer::go_on(said))) };
        let Some(decision) = self.running.end(denied, now).await.map_err(status::undecided)? else {
            return Ok(Step::GoOn(answer::go_on(said)));
        };
        Ok(match chunk.first(part) {
            [] => Step::Cut(decision),
            first => Step::LastBytes(answer::only(first), decision),
        })
    }
}
