//! How does one thread act inside a pod's network namespace without moving the others?
//!
//! A namespace is a property of a thread, so each visit is a thread of its own that enters, works and ends: nothing can be
//! left behind in the wrong namespace, whatever fails. A netlink socket keeps the namespace in which it was made.

use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rtnetlink::Handle;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use reconcile::kernel::KernelError;

/// The file system type of namespace files (`linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// An open network namespace. It lives at least as long as this does.
#[derive(Debug)]
pub(crate) struct Netns {
    path: PathBuf,
    file: OwnedFd,
}

impl Netns {
    /// Opens the namespace mounted at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, KernelError> {
        // O_NONBLOCK: a FIFO in place of a namespace must not hang the agent.
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
            .map_err(|_| KernelError::NoNetns(path.into()))?;
        let on_nsfs = rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type as u64 == NSFS_MAGIC);
        if !on_nsfs {
            return Err(KernelError::NoNetns(path.into()));
        }
        Ok(Self { path: path.into(), file })
    }

    /// The namespace that this process is in.
    pub(crate) fn own() -> Result<Self, KernelError> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    /// Runs `work` with a netlink handle of this namespace, on a thread of its own, and waits for its answer.
    pub(crate) fn netlink<T, W, F>(&self, work: W) -> Result<T, KernelError>
    where
        T: Send,
        W: FnOnce(Handle) -> F + Send,
        F: Future<Output = Result<T, KernelError>>,
    {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || self.visit(work))
                .map_err(|error| self.cannot_enter(&error))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The body of the visiting thread: enter, open a netlink socket, work.
    fn visit<T, W, F>(&self, work: W) -> Result<T, KernelError>
    where
        W: FnOnce(Handle) -> F,
        F: Future<Output = Result<T, KernelError>>,
    {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| self.cannot_enter(&errno.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| self.cannot_enter(&error))?;
        runtime.block_on(async {
            let (connection, handle, _unsolicited) =
                rtnetlink::new_connection().map_err(|error| self.cannot_enter(&error))?;
            let connection = tokio::spawn(connection);
            let answer = work(handle).await;
            connection.abort();
            answer
        })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor's number, valid while this lives.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn cannot_enter(&self, error: &std::io::Error) -> KernelError {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ": CAP_SYS_ADMIN is needed, here and over the namespace",
            _ => "",
        };
        KernelError::Refused {
            doing: format!("enter the network namespace {}", self.path.display()),
            reason: format!("{error}{remedy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_when_nothing_is_there_says_missing() {
        let error = Netns::open(Path::new("/nonexistent/netns")).unwrap_err();
        assert!(matches!(error, KernelError::NoNetns(_)), "{error}");
    }

    #[test]
    fn open_when_it_is_a_plain_file_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Netns::open(file.path()).unwrap_err();
        assert!(matches!(error, KernelError::NoNetns(_)), "{error}");
    }
}
