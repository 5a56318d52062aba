//! A client of the HTTP listener that stays connected, and shows what was answered to the last header.
//!
//! Refuses to make requests well: a test may send whatever bytes it likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::gate::{Gate, PATIENCE};

/// A connection.
pub(crate) struct Web<S = TcpStream>(BufReader<S>);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Web {
    pub(crate) fn to(gate: &Gate) -> Self {
        let stream = TcpStream::connect(gate.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> Web<S> {
    /// Over a connection that is there.
    pub(crate) fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends a request with these lines of its head, and this body.
    pub(crate) fn send(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = format!("{line} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request.push_str("host: gate\r\n");
        }
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        let mut request = request.into_bytes();
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        // The gate may answer, and close, before it has read everything.
        let _ = self.0.get_mut().write_all(&request);
        self.read()
    }

    /// Posts JSON.
    pub(crate) fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.send(&format!("POST {path}"), &headers, body.to_string().as_bytes())
    }

    pub(crate) fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(&format!("GET {path}"), headers, b"")
    }

    fn read(&mut self) -> Reply {
        let mut line = String::new();
        let mut next = |reader: &mut BufReader<S>| {
            line.clear();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = next(&mut self.0).split(' ').nth(1).expect("an answer").parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = next(&mut self.0);
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut reply = Reply { status, headers, body: String::new() };
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        reply.body = String::from_utf8(body).unwrap();
        reply
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The media type, without parameters.
    pub(crate) fn media(&self) -> &str {
        self.header("content-type").unwrap_or_default().split(';').next().unwrap()
    }
}
