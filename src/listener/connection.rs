//! One accepted connection, whatever it runs over. Refuses to know what is said on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::tls;

/// A client that has not begun to speak by then is dropped: it would hold its place, and hold up the
/// end, for ever.
const SILENCE: Duration = Duration::from_secs(10);

/// What counts as having begun, in bytes: the preface of HTTP/2 (RFC 9113, section 3.4), which no
/// request of HTTP/1.1 is shorter than. From then on the server has time limits of its own.
const BEGINNING: usize = 24;

/// Who is at the other end, as far as the transport tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody over TCP.
    Unknown,
    /// Somebody whose client certificate was verified, by its DNS names and URIs.
    Certificate(Vec<String>),
    /// A user of this machine.
    User(u32),
}

/// An open connection. It holds its place among the connections of its listener until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Until the beginning has come.
    silence: Option<Pin<Box<Sleep>>>,
    /// The bytes that have come, up to then.
    heard: usize,
    peer: Peer,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    // Boxed because it is a kilobyte larger than the others.
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Connection {
    pub(super) fn tcp(stream: TcpStream, slot: OwnedSemaphorePermit) -> Self {
        send_at_once(&stream);
        Self::new(Stream::Tcp(stream), Peer::Unknown, slot, SILENCE)
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, slot: OwnedSemaphorePermit) -> Self {
        send_at_once(stream.get_ref().0);
        let peer = match stream.get_ref().1.peer_certificates() {
            Some([leaf, ..]) => Peer::Certificate(tls::names(leaf)),
            _ => Peer::Unknown,
        };
        Self::new(Stream::Tls(Box::new(stream)), peer, slot, SILENCE)
    }

    pub(super) fn unix(stream: UnixStream, slot: OwnedSemaphorePermit) -> Self {
        let peer = stream.peer_cred().map_or(Peer::Unknown, |user| Peer::User(user.uid()));
        Self::new(Stream::Unix(stream), peer, slot, SILENCE)
    }

    fn new(stream: Stream, peer: Peer, slot: OwnedSemaphorePermit, silence: Duration) -> Self {
        Self { stream, silence: Some(Box::pin(tokio::time::sleep(silence))), heard: 0, peer, _slot: slot }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// Answers are small: they are not held back to be joined with the next.
fn send_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}

macro_rules! delegate {
    ($connection:expr, $stream:ident => $call:expr) => {
        match &mut $connection.stream {
            Stream::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Stream::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = delegate!(self, stream => stream.poll_read(cx, buffer));
        let Some(silence) = &mut self.silence else {
            return read;
        };
        if read.is_pending() {
            ready!(silence.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.heard += buffer.filled().len() - before;
        if self.heard >= BEGINNING {
            self.silence = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn drops_a_client_that_never_says_anything_but_not_one_that_pauses() {
        let slots = Arc::new(Semaphore::new(1));
        let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
        let (served, mut client) = UnixStream::pair().unwrap();
        let patience = Duration::from_millis(100);
        let mut connection = Connection::new(Stream::Unix(served), Peer::Unknown, slot, patience);
        client.write_all(&[b'a'; BEGINNING]).await.unwrap();
        connection.read_exact(&mut [0; BEGINNING]).await.unwrap();
        tokio::time::timeout(3 * patience, connection.read_u8()).await.expect_err("it was only a pause");
        assert_eq!(slots.available_permits(), 0);
        drop(connection);

        for said in 0..BEGINNING {
            let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
            let (served, mut client) = UnixStream::pair().unwrap();
            let mut connection =
                Connection::new(Stream::Unix(served), Peer::Unknown, slot, Duration::from_millis(20));
            client.write_all(&vec![b'P'; said]).await.unwrap();
            let error = connection.read_exact(&mut [0; BEGINNING]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "after {said} bytes");
        }
    }
}
