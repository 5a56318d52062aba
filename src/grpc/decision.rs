//! `DecisionService`: parses, asks the PDP, converts. Refuses batches that are empty or too large.

use std::sync::Arc;

use http::HeaderMap;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span};

use crate::decision::{Pdp, Semantic};
use crate::domain::Clock;
use crate::proto::v1::decision_service_server::DecisionService;
use crate::proto::v1::{
    CheckBatchRequest, CheckBatchResponse, CheckRequest, CheckResponse, CheckStreamRequest,
    EvaluationSemantic, SettleRequest, SettleResponse,
};
use crate::telemetry::traces::{current_trace_id, request_span, trace_id_of};

use super::stream::{Answers, Streams};
use super::{convert, status};

/// The most questions in a batch.
const MAX_BATCH: usize = 1000;

/// The decisions of a PDP, over gRPC.
pub(super) struct Decisions {
    pub(super) pdp: Arc<Pdp>,
    pub(super) clock: Clock,
    /// The largest answer sent.
    pub(super) message_limit: usize,
    pub(super) streams: Streams,
}

#[tonic::async_trait]
impl DecisionService for Decisions {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let (metadata, _, question) = request.into_parts();
        let question = convert::question(question)?;
        let (span, trace_id) = traced("tollgate.v1.DecisionService/Check", metadata.as_ref());
        let decision = self
            .pdp
            .check(&question, trace_id.as_deref(), self.clock.now())
            .instrument(span.clone())
            .await
            .map_err(status::undecided)?;
        span.record("decision", decision.effect.as_str());
        Ok(Response::new(convert::answer(decision)))
    }

    async fn check_batch(
        &self,
        request: Request<CheckBatchRequest>,
    ) -> Result<Response<CheckBatchResponse>, Status> {
        let (metadata, _, batch) = request.into_parts();
        let (questions, semantic) = open(batch)?;
        let (span, trace_id) = traced("tollgate.v1.DecisionService/CheckBatch", metadata.as_ref());
        let decisions = self
            .pdp
            .check_batch(&questions, semantic, trace_id.as_deref(), &self.clock)
            .instrument(span)
            .await
            .map_err(status::undecided)?;
        let responses = decisions.into_iter().map(convert::answer).collect();
        let answer = CheckBatchResponse { responses };
        if answer.encoded_len() > self.message_limit {
            return Err(status::answer_too_large(self.message_limit));
        }
        Ok(Response::new(answer))
    }

    type CheckStreamStream = Answers;

    async fn check_stream(
        &self,
        request: Request<Streaming<CheckStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (metadata, _, said) = request.into_parts();
        let (_, trace_id) = traced("tollgate.v1.DecisionService/CheckStream", metadata.as_ref());
        Ok(Response::new(self.streams.serve(said, trace_id)))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        let SettleRequest { reservation_id, usage } = request.into_inner();
        let id = reservation_id
            .parse()
            .map_err(|_| status::invalid("reservation_id", "must be that of a check"))?;
        let quotas = self.pdp.settle(id, &usage.into_iter().collect()).await.map_err(status::unsettled)?;
        Ok(Response::new(SettleResponse { quotas: quotas.into_iter().map(convert::quota).collect() }))
    }
}

/// The span of a request, disabled where traces are off, and the id of the trace it is in: the
/// caller's, or else one begun here.
pub(super) fn traced(rpc: &'static str, headers: &HeaderMap) -> (Span, Option<String>) {
    let span = request_span(rpc, headers);
    let trace_id = trace_id_of(headers).or_else(|| span.in_scope(current_trace_id));
    (span, trace_id)
}

fn open(batch: CheckBatchRequest) -> Result<(Vec<crate::domain::CheckRequest>, Semantic), Status> {
    if batch.requests.is_empty() || batch.requests.len() > MAX_BATCH {
        return Err(status::invalid("requests", "must have from 1 to 1,000 questions"));
    }
    let semantic = match EvaluationSemantic::try_from(batch.semantic) {
        Ok(EvaluationSemantic::Unspecified | EvaluationSemantic::ExecuteAll) => Semantic::ExecuteAll,
        Ok(EvaluationSemantic::DenyOnFirstDeny) => Semantic::DenyOnFirstDeny,
        Ok(EvaluationSemantic::PermitOnFirstPermit) => Semantic::PermitOnFirstPermit,
        Err(_) => return Err(status::invalid("semantic", "must be one of EvaluationSemantic")),
    };
    let questions = batch.requests.into_iter().enumerate().map(|(index, question)| {
        convert::question(question).map_err(|refusal| refusal.within(&format!("requests[{index}]")))
    });
    Ok((questions.collect::<Result<_, _>>()?, semantic))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn batch(size: usize, semantic: i32) -> CheckBatchRequest {
        CheckBatchRequest { requests: vec![CheckRequest::default(); size], semantic }
    }

    #[test]
    fn opens_batches_of_one_to_a_thousand() {
        for size in [1, MAX_BATCH] {
            let (questions, semantic) = open(batch(size, 2)).unwrap();
            assert_eq!((questions.len(), semantic), (size, Semantic::DenyOnFirstDeny));
        }
        for (refused, field) in
            [(batch(0, 0), "requests"), (batch(MAX_BATCH + 1, 0), "requests"), (batch(1, 9), "semantic")]
        {
            let status = open(refused).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(field), "{status}");
        }
    }

    #[test]
    fn names_the_question_that_is_malformed() {
        let mut refused = batch(3, 0);
        let bad = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(f64::NAN)) };
        let context = prost_types::Struct { fields: [("age".to_owned(), bad)].into() };
        refused.requests[1].context = Some(context);
        let status = open(refused).unwrap_err();
        assert!(status.message().contains("`requests[1].context.age`"), "{status}");
    }
}
