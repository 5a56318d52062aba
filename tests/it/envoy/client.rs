//! A client that sends any bytes, also those that no library would.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gate::PATIENCE;

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// With names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.all(name)[..] {
            [] => "",
            [one] => one,
            ref several => panic!("`{name}`: {several:?}"),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The codes of a denial.
    pub(crate) fn codes(&self) -> Vec<String> {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let codes = self.json()["codes"].as_array().unwrap().clone();
        codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect()
    }

    /// The values of a header as the upstream got it.
    pub(crate) fn passed(&self, name: &str) -> Vec<String> {
        assert_eq!(self.status, 200, "{self:?}");
        let headers = self.json()["headers"].as_array().unwrap().clone();
        let values = headers.iter().filter(|header| header[0] == name);
        values.map(|header| header[1].as_str().unwrap().to_owned()).collect()
    }
}

/// The text of a request, with these lines as its headers.
pub(crate) fn request(method: &str, path: &str, lines: &[&str]) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nhost: data.example\r\nconnection: close\r\n{lines}\r\n").into_bytes()
}

/// Sends bytes, and reads the response.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> Answer {
    over(TcpStream::connect(address).await.unwrap(), bytes).await
}

/// The same over a connection that is open.
pub(crate) async fn over(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Answer {
    let exchange = async {
        stream.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
        String::from_utf8_lossy(&said).into_owned()
    };
    let said = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time");
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {said:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(':').unwrap());
    let headers = headers.map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let answer = Answer { status, headers, body: body.to_owned() };
    match answer.header("transfer-encoding") {
        "chunked" => Answer { body: joined(body), ..answer },
        _ => answer,
    }
}

/// The text of chunks.
fn joined(mut chunks: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&rest[..size]);
        chunks = rest[size..].trim_start_matches("\r\n");
    }
    text
}

/// A page of an administration.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    match TcpStream::connect(address).await {
        Ok(stream) => over(stream, &request("GET", path, &[])).await,
        Err(error) => Answer { status: 0, headers: Vec::new(), body: error.to_string() },
    }
}
