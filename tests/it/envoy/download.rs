//! A client that reads a response as it comes, over any version of HTTP, and knows when the last byte came.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::gate::PATIENCE;

/// Over which version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Http1,
    Http2,
}

/// A response that is being read.
pub(crate) struct Download {
    pub(crate) response: Response<Incoming>,
    pub(crate) received: usize,
}

/// How a response ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether it was whole, as its protocol tells.
    pub(crate) whole: bool,
    /// Of all of it.
    pub(crate) received: usize,
    pub(crate) at: Instant,
    pub(crate) trailers: HeaderMap,
}

impl Download {
    pub(crate) async fn begin(address: SocketAddr, over: Over, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let host = match over {
            Over::Http1 => path.to_owned(),
            Over::Http2 => format!("http://data.example{path}"),
        };
        let method = if headers.contains(&("content-type", "application/grpc")) { "POST" } else { "GET" };
        let mut request = Request::builder().method(method).uri(host);
        if over == Over::Http1 {
            request = request.header("host", "data.example");
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = match over {
            Over::Http1 => {
                let (mut sender, connection) = http1::handshake(stream).await.unwrap();
                tokio::spawn(connection.with_upgrades());
                sender.send_request(request).await
            }
            Over::Http2 => {
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        };
        Self { response: response.unwrap(), received: 0 }
    }

    /// The next bytes; none at the end, however it came.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let frame =
            tokio::time::timeout(PATIENCE, self.response.body_mut().frame()).await.expect("in time")?;
        let data = frame.ok()?.into_data().ok()?;
        self.received += data.len();
        Some(data)
    }

    /// Reads to the end.
    pub(crate) async fn rest(mut self) -> Ended {
        let mut trailers = HeaderMap::new();
        loop {
            let body = self.response.body_mut();
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time");
            let whole = frame.is_none();
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.received += data.len(),
                    Err(frame) => trailers = frame.into_trailers().unwrap(),
                },
                Some(Err(_)) | None => {
                    return Ended { whole, received: self.received, at: Instant::now(), trailers };
                }
            }
        }
    }

    /// The whole body, as text.
    pub(crate) async fn text(self) -> String {
        String::from_utf8(self.response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }
}
