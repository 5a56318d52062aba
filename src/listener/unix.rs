//! The Unix socket: its file, its mode and its end.
//!
//! Refuses to take a socket from a process that answers on it, and to remove what is no socket.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::ListenError;

/// Who may connect: the owner and the group.
const MODE: u32 = 0o660;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A socket that is listened on; its file is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, to leave alone what another process has put in its place.
    file: (u64, u64),
}

impl Socket {
    pub(super) async fn bind(path: &Path) -> Result<Self, ListenError> {
        remove_stale(path).await?;
        let listen = || {
            let socket = UnixSocket::new_stream()?;
            socket.bind(path)?;
            // Before `listen`, so that nobody connects whom the mode keeps out.
            fs::set_permissions(path, Permissions::from_mode(MODE))?;
            let file = fs::symlink_metadata(path)?;
            Ok((socket.listen(BACKLOG)?, (file.dev(), file.ino())))
        };
        let (listener, file) =
            listen().map_err(|source| ListenError::Unix { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned(), file })
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the Unix socket");
        }
    }
}

/// Removes the socket that a process left behind when it was killed.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        // `WouldBlock`: it listens, and its backlog is full.
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(failed(error)),
        _ => Err(ListenError::Taken { path: path.to_owned() }),
    }
}
