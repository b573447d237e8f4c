//! Why can a vhost-user port not be opened?

use std::io;
use std::path::PathBuf;

use super::spec::{MAX_PATH_BYTES, MAX_QUEUE_PAIRS};

/// Why a port was not opened. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum VhostUserError {
    /// The kernel cannot hold the path in a socket address. Choose a shorter directory.
    #[error("socket path {path:?} has {bytes} bytes; 1 to {MAX_PATH_BYTES} are possible")]
    PathLength {
        /// As asked for.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Not a number of queue pairs that vhost-user can carry.
    #[error("{0} queue pairs; 1 to {MAX_QUEUE_PAIRS} are possible")]
    QueuePairs(u16),
    /// A live program listens on the path. Stop it or choose another path.
    #[error("socket {0:?} is in use by another program")]
    Busy(PathBuf),
    /// Something that is no socket lies at the path; it is never removed.
    #[error("{0:?} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The kernel refused a step of making the socket.
    #[error("{step} {path:?}: {source}")]
    Socket {
        /// What was done, as in "bind".
        step: &'static str,
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}
