//! What stands behind Envoy: it says what it was sent, or sends as much as it is asked for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::gate::PATIENCE;

/// The header of a request that is not answered for long.
pub(crate) const LATE: &str = "x-late";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server that answers with what it was sent, or with a [`Course`] if the query asks for one.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicU32>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<AtomicU32>::default());
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    count.fetch_add(1, Ordering::Relaxed);
                    async move {
                        if request.headers().contains_key(LATE) {
                            tokio::time::sleep(PATIENCE).await;
                        }
                        Ok::<_, Infallible>(answer(request))
                    }
                });
                tokio::spawn(async move {
                    let http = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away is no concern.
                    let _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, asked }
    }

    /// How many requests have come.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// How a response runs: so many chunks of so many bytes, with so many milliseconds between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    pub(crate) chunks: usize,
    pub(crate) bytes: usize,
    pub(crate) pause: u64,
}

impl Course {
    /// As a query.
    pub(crate) fn query(self) -> String {
        format!("chunks={}&bytes={}&pause={}", self.chunks, self.bytes, self.pause)
    }

    fn of(query: &str) -> Option<Self> {
        let value = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
        };
        Some(Self { chunks: value("chunks")?, bytes: value("bytes")?, pause: value("pause")? as u64 })
    }

    async fn wait(self) {
        if self.pause > 0 {
            tokio::time::sleep(Duration::from_millis(self.pause)).await;
        }
    }
}

fn answer(request: Request<Incoming>) -> Response<Body> {
    let Some(course) = request.uri().query().and_then(Course::of) else { return echo(&request) };
    let is_grpc = request.headers().get("content-type").is_some_and(|value| value == "application/grpc");
    if request.headers().contains_key("upgrade") {
        return upgraded(request, course);
    }
    let body = stream! {
        for _ in 0..course.chunks {
            let chunk = if is_grpc { message(course.bytes) } else { vec![b'x'; course.bytes] };
            yield Ok::<_, Infallible>(Frame::data(Bytes::from(chunk)));
            course.wait().await;
        }
        if is_grpc {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            yield Ok(Frame::trailers(trailers));
        }
    };
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
    if is_grpc {
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    }
    response
}

/// A message of gRPC.
fn message(bytes: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(u32::try_from(bytes).unwrap().to_be_bytes());
    message.resize(5 + bytes, b'x');
    message
}

/// The connection becomes another protocol, in which the chunks are sent as they are.
fn upgraded(request: Request<Incoming>, course: Course) -> Response<Body> {
    tokio::spawn(async move {
        let mut connection = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        for _ in 0..course.chunks {
            if connection.write_all(&vec![b'x'; course.bytes]).await.is_err() {
                break;
            }
            course.wait().await;
        }
    });
    let mut response = Response::new(Full::from("").boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    response
}

fn echo(request: &Request<Incoming>) -> Response<Body> {
    let headers: Vec<_> = request.headers().iter().collect();
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let said = json!({ "path": request.uri().to_string(), "headers": headers });
    Response::new(Full::from(said.to_string()).boxed_unsync())
}
