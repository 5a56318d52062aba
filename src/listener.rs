//! Where connections come in: TCP, with TLS where configured, and a Unix socket.
//!
//! Refuses to let one connection harm another: handshakes run beside each other and have a time
//! limit, a failed accept is survived, and no more connections are open than the limit says.

mod connection;
pub mod sessions;
pub mod tls;
mod unix;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::watch::{Watch, WatchError};

pub use connection::{Connection, Peer};
use tls::{Certificates, TlsError};
use unix::Socket;

/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long nothing is accepted after an accept failed for want of something, such as descriptors.
const PAUSE: Duration = Duration::from_millis(250);

/// Accepts connections until it is dropped; then the Unix socket's file is removed.
#[derive(Debug)]
pub struct Listener {
    tcp: Option<TcpListener>,
    unix: Option<Socket>,
    tls: Option<(Arc<Certificates>, Watch)>,
    slots: Arc<Semaphore>,
    handshakes: JoinSet<Option<Connection>>,
}

/// A listener cannot be had as configured.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The TCP address cannot be bound.
    #[error("cannot listen on `{address}`: {source}")]
    Tcp {
        /// The configured address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The Unix socket cannot be made.
    #[error("cannot listen on the Unix socket `{path}`: {source}")]
    Unix {
        /// The configured path.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Another process answers on the Unix socket.
    #[error("cannot listen on the Unix socket `{path}`: another process is listening on it")]
    Taken {
        /// The configured path.
        path: PathBuf,
    },
    /// Something that is not a socket is in the way. It is not removed.
    #[error("cannot listen on the Unix socket `{path}`: a file that is not a socket is in its place")]
    NotASocket {
        /// The configured path.
        path: PathBuf,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificates cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Resolves when the value turns true, or when nobody can turn it any more: so listeners and streams
/// learn that they are to end.
pub async fn turned(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

enum Incoming {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens on the configured addresses; on none, nothing ever comes in. At most `connections`
    /// are open at once; more wait. `on_reload` is told of every attempt to take new certificates
    /// into force; after a failed one the old stay.
    ///
    /// # Errors
    ///
    /// When an address is taken or unusable, or the certificates are unusable.
    pub async fn bind(
        config: &config::Listener,
        connections: u32,
        on_reload: impl Fn(Result<(), &TlsError>) + Send + 'static,
    ) -> Result<Self, ListenError> {
        let tls = config.tls.as_ref().map(|files| serve_certificates(files, on_reload)).transpose()?;
        let tcp = match config.tcp {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| ListenError::Tcp { address, source })?)
            }
        };
        let unix = match &config.unix {
            None => None,
            Some(path) => Some(Socket::bind(path).await?),
        };
        let slots = Semaphore::MAX_PERMITS.min(usize::try_from(connections).unwrap_or(usize::MAX));
        Ok(Self { tcp, unix, tls, slots: Arc::new(Semaphore::new(slots)), handshakes: JoinSet::new() })
    }

    /// The TCP address listened on: tells the port where the configuration says 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// The next connection that is ready to be served. Never fails and never ends. Dropping the
    /// future loses no connection.
    pub async fn accept(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                (incoming, slot) = next(self.tcp.as_ref(), self.unix.as_ref(), &self.slots) => {
                    match (incoming, &self.tls) {
                        (Incoming::Unix(stream), _) => return Connection::unix(stream, slot),
                        (Incoming::Tcp(stream), None) => return Connection::tcp(stream, slot),
                        (Incoming::Tcp(stream), Some((certificates, _))) => {
                            let acceptor = TlsAcceptor::from(certificates.in_force());
                            self.handshakes.spawn(shake_hands(acceptor, stream, slot));
                        }
                    }
                }
            }
        }
    }
}

/// Loads the certificates, and loads them again whenever their files change.
fn serve_certificates(
    files: &config::Tls,
    on_reload: impl Fn(Result<(), &TlsError>) + Send + 'static,
) -> Result<(Arc<Certificates>, Watch), ListenError> {
    let certificates = Arc::new(Certificates::load(files)?);
    let reloaded = Arc::clone(&certificates);
    let mut paths = vec![files.certificate.clone(), files.key.clone()];
    paths.extend(files.client_ca.clone());
    let watch = Watch::start(&paths, move || match reloaded.reload() {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!("new certificates are in force");
            on_reload(Ok(()));
        }
        Err(error) => {
            tracing::error!(%error, "new certificates are unusable, the old stay in force");
            on_reload(Err(&error));
        }
    })?;
    Ok((certificates, watch))
}

/// Waits for a free slot, then for a client.
async fn next(
    tcp: Option<&TcpListener>,
    unix: Option<&Socket>,
    slots: &Arc<Semaphore>,
) -> (Incoming, OwnedSemaphorePermit) {
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            // The semaphore is never closed.
            return pending().await;
        };
        match accept(tcp, unix).await {
            Ok(incoming) => return (incoming, slot),
            Err(error) if concerns_one_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections, will try again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accept(tcp: Option<&TcpListener>, unix: Option<&Socket>) -> io::Result<Incoming> {
    let tcp = async {
        match tcp {
            Some(listener) => listener.accept().await.map(|(stream, _)| Incoming::Tcp(stream)),
            None => pending().await,
        }
    };
    let unix = async {
        match unix {
            Some(socket) => socket.accept().await.map(Incoming::Unix),
            None => pending().await,
        }
    };
    tokio::select! {
        accepted = tcp => accepted,
        accepted = unix => accepted,
    }
}

/// The client went away before it was accepted.
fn concerns_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
) -> Option<Connection> {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Connection::tls(stream, slot)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

#[cfg(test)]
mod tests;
