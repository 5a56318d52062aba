//! `envoy.service.ext_proc.v3.ExternalProcessor`: watches over responses, counts them, and cuts them.
//!
//! Refuses to trust that a response was allowed: whoever hands it over says what was asked, and that is asked again.
//! Ends no stream in a way that Envoy takes for leave to go on, except where the configuration says so.

mod answer;
mod meter;
mod opening;
pub(super) mod server;

use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessor;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Said;
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use futures_util::future::BoxFuture;
use futures_util::stream::try_unfold;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::decision::traced;
use super::status;
use crate::config::Envoy;
use crate::config::envoy::Unfinished;
use crate::decision::{DecideError, Drawn, Opened, Pdp, Running};
use crate::domain::{Clock, Decision};
use crate::listener::turned;

use meter::{BYTES, Chunk, MESSAGES, Meter};
use opening::{First, Manner, Opening};

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

    fn serve(&self, said: Streaming<ProcessingRequest>, trace_id: Option<String>) -> Answers {
        let begun = Begun { service: self.clone(), said, trace_id };
        Box::pin(try_unfold(Stage::Begun(Box::new(begun)), Stage::next))
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

/// An answer and what comes after it; nothing when the stream is over.
type Next = Result<Option<(ProcessingResponse, Stage)>, Status>;

/// Where a stream is. Each waits for its next answer in a future of its own, so that what another needed, opening
/// above all, is not kept for as long as the response is under way.
enum Stage {
    Begun(Box<Begun>),
    /// It goes on, whatever happens.
    Unwatched(Box<Streaming<ProcessingRequest>>),
    Running(Box<Going>),
    /// The last bytes are on their way.
    Cutting(Box<(Going, Decision)>),
    Over,
}

impl Stage {
    fn next(self) -> BoxFuture<'static, Next> {
        match self {
            Self::Begun(begun) => Box::pin(begun.next()),
            Self::Unwatched(said) => Box::pin(goes_on(said)),
            Self::Running(going) => Box::pin(going.go_on(Step::Nothing)),
            Self::Cutting(cutting) => Box::pin(async move {
                let (going, decision) = *cutting;
                tokio::time::sleep(LAST_BYTES).await;
                going.cut(&decision)
            }),
            Self::Over => Box::pin(ready(Ok(None))),
        }
    }
}

/// A stream on which nothing was answered yet.
struct Begun {
    service: ExtProc,
    said: Streaming<ProcessingRequest>,
    trace_id: Option<String>,
}

/// What opening a stream comes to.
enum Begins {
    Watched(Box<Going>, Step),
    Answered(ProcessingResponse, Stage),
    Over,
}

impl Begun {
    async fn next(self: Box<Self>) -> Next {
        // Boxed: Envoy may wait for no answer, and what opening needs is not kept until there is one.
        match Box::pin(self.open()).await? {
            Begins::Watched(going, step) => going.go_on(step).await,
            Begins::Answered(answer, stage) => Ok(Some((answer, stage))),
            Begins::Over => Ok(None),
        }
    }

    async fn open(self: Box<Self>) -> Result<Begins, Status> {
        let Self { service, mut said, trace_id } = *self;
        let Some(first) = said.message().await? else { return Ok(Begins::Over) };
        let unwatched = |said| Begins::Answered(answer::go_on(&first), Stage::Unwatched(Box::new(said)));
        let Opening { question, manner } = match opening::read(&first)? {
            First::Asked(opening) => *opening,
            First::LocalReply => return Ok(unwatched(said)),
        };
        let now = service.clock.now();
        match service.pdp.resume(question, trace_id, now).await.map_err(status::undecided)? {
            Opened::Denied(decision) => {
                Ok(Begins::Answered(answer::cut(&decision, &manner, now)?, Stage::Over))
            }
            Opened::Unwatched(_) => Ok(unwatched(said)),
            Opened::Running(_, running) => {
                let mut going = Box::new(service.watch_over(running, manner, said)?);
                let step = going.first(&first).await?;
                Ok(Begins::Watched(going, step))
            }
        }
    }
}

async fn goes_on(mut said: Box<Streaming<ProcessingRequest>>) -> Next {
    Ok(said.message().await?.map(|next| (answer::go_on(&next), Stage::Unwatched(said))))
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

    /// Goes on from a step to the next answer.
    async fn go_on(mut self: Box<Self>, mut step: Step) -> Next {
        loop {
            match step {
                Step::GoOn(answer) => return Ok(Some((answer, Stage::Running(self)))),
                Step::Nothing => step = self.step().await?,
                Step::LastBytes(part, decision) => {
                    return Ok(Some((part, Stage::Cutting(Box::new((*self, decision))))));
                }
                Step::Cut(decision) => return self.cut(&decision),
                Step::Over => return Ok(None),
            }
        }
    }

    fn cut(&self, decision: &Decision) -> Next {
        let now = self.service.clock.now();
        Ok(Some((answer::cut(decision, &self.manner, now)?, Stage::Over)))
    }

    /// Waits for the next thing that happens. What ends the response comes before what goes on with it.
    async fn step(&mut self) -> Result<Step, Status> {
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
        let (step, drawn) = match (&said.request, &mut self.meter) {
            (Some(Said::ResponseBody(chunk)), Some(meter)) if !chunk.body.is_empty() => {
                let chunk = meter.chunk(&chunk.body);
                self.count(said, &chunk).await?
            }
            _ => (Step::GoOn(answer::go_on(said)), None),
        };
        // Counting may have waited. What does not pass then goes back; what is only shown has passed.
        let cut = self.running.ask_if_changed(&self.service.clock).await.map_err(status::undecided)?;
        if let Some(drawn) = drawn.filter(|_| cut.is_none() || self.manner.is_observed) {
            self.running.consume(drawn, self.service.clock.now());
        }
        if let Some(decision) = cut {
            return Ok(Step::Cut(decision));
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
    async fn count(
        &self,
        said: &ProcessingRequest,
        chunk: &Chunk<'_>,
    ) -> Result<(Step, Option<Drawn>), Status> {
        let now = self.service.clock.now();
        let mut part = chunk.len();
        let (mut drawn, mut refused) = (None, None);
        for _ in 0..ATTEMPTS {
            match self.running.draw(chunk.usage(part), now).await {
                Ok(taken) => {
                    drawn = Some(taken);
                    break;
                }
                Err(denied) => {
                    part = chunk.fits(&denied).min(part.saturating_sub(1));
                    refused = Some(denied);
                }
            }
            if part == 0 {
                break;
            }
        }
        let Some(denied) = refused else { return Ok((Step::GoOn(answer::go_on(said)), drawn)) };
        let Some(decision) = self.running.end(denied, now).await.map_err(status::undecided)? else {
            return Ok((Step::GoOn(answer::go_on(said)), drawn));
        };
        let step = match chunk.first(part) {
            [] => Step::Cut(decision),
            first => Step::LastBytes(answer::only(first), decision),
        };
        Ok((step, drawn))
    }
}
