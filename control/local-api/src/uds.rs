//! Who may talk to a process of the node, and how is it reached?
//!
//! A socket of Millrace is for root and for the user its process runs as; the mode of the socket says so, and the peer's
//! credentials are checked again on each connection, because a mode can be changed and a directory can be shared.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process answers there.
    #[error("{0} is served by another process: stop it, or choose another path")]
    Busy(PathBuf),
    /// The path holds something else, which is left alone.
    #[error("{0} exists and is not a socket: remove it, or choose another path")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A listening socket that only root and the process's own user get a connection from. Removes its path when dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    // Set while accept is out of descriptors or memory: nothing but time helps.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// How long to wait when the system refuses to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listener {
    /// Listens on `path`, mode 0600. A socket left behind by a dead process is replaced. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// The path is in use, or the system refuses it.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let io = |source| ListenError::Io { path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(ListenError::Busy(path.to_owned())),
                Err(_) => std::fs::remove_file(path).map_err(io)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
        Ok(Self { listener, path: path.to_owned(), pause: None })
    }

    /// The next connection of a peer that may speak; others are closed without an answer. Waits out a system that is
    /// short of descriptors. Cancel safe.
    pub async fn accept(&mut self) -> UnixStream {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<UnixStream> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match std::task::ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) if may_speak(&stream) => return Poll::Ready(stream),
                Ok(_) => {}
                Err(_) => self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE))),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nobody is left to report to, and a stale socket is replaced by the next `bind`.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// For tonic's `serve_with_incoming`.
impl Stream for Listener {
    type Item = io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_accept(context).map(|stream| Some(Ok(stream)))
    }
}

/// True for root and for the user this process runs as.
fn may_speak(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

/// A channel to the service on `path`. Connects with the first call, and again after the service restarted; a call while
/// nobody answers fails with `Unavailable`. Must be called within a tokio runtime.
pub fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is never resolved: the connector knows the path.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}
