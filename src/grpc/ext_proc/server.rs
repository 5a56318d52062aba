//! Serves `Process` with buffers that begin small: those of the generated server have 8 KiB each, for every response
//! that is under way.
//!
//! Refuses to know what is said; it only carries it.

use std::convert::Infallible;
use std::sync::Arc;

use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessor;
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::proto::Codec;

/// The largest message: Envoy sends what has gathered while it waited for an answer, more than 9 MB where it was seen.
const LARGEST: usize = 64 << 20;

/// The path of the only method.
pub(in crate::grpc) const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// Serves whatever watches over responses.
pub(in crate::grpc) struct Server<P>(Arc<P>);

impl<P: ExternalProcessor> Server<P> {
    pub(in crate::grpc) fn new(processor: P) -> Self {
        Self(Arc::new(processor))
    }

    /// Answers a call of [`PROCESS`].
    pub(in crate::grpc) fn call(
        &self,
        request: http::Request<Incoming>,
    ) -> BoxFuture<http::Response<Body>, Infallible> {
        let process = Process(Arc::clone(&self.0));
        Box::pin(async move {
            let codec = Codec::<ProcessingResponse, ProcessingRequest>::default();
            let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(LARGEST), None);
            Ok(grpc.streaming(process, request).await)
        })
    }
}

struct Process<P>(Arc<P>);

impl<P: ExternalProcessor> StreamingService<ProcessingRequest> for Process<P> {
    type Response = ProcessingResponse;
    type ResponseStream = P::ProcessStream;
    type Future = BoxFuture<Response<P::ProcessStream>, Status>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let processor = Arc::clone(&self.0);
        Box::pin(async move { processor.process(request).await })
    }
}
