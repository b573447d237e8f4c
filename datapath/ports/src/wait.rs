//! How does a worker sleep until one of its queues has frames?
//!
//! `poll(2)` on plain numbers, not epoll: the descriptors of queues change while peers reconnect, and their numbers are
//! used again. An epoll set would silently keep watching the old file behind a number; here each sleep names its
//! descriptors afresh. A closed descriptor ends the sleep at once, which is a wasted wake-up and nothing worse.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// The descriptors of one sleep. Reused, so that a sleep allocates nothing after warm-up.
#[derive(Default)]
pub struct WaitSet {
    fds: Vec<libc::pollfd>,
}

impl std::fmt::Debug for WaitSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitSet").field("fds", &self.fds.len()).finish()
    }
}

impl WaitSet {
    /// Forgets all descriptors.
    pub fn clear(&mut self) {
        self.fds.clear();
    }

    /// Watches `fd` for readability.
    pub fn add(&mut self, fd: RawFd) {
        self.fds.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    }

    /// Blocks until a descriptor is readable or in error, a signal came, or `timeout` has passed (`None`: for ever).
    ///
    /// # Errors
    /// The kernel has no memory for the set (ENOMEM), or it is larger than the limit of open files (EINVAL).
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout_ms =
            timeout.map_or(-1, |limit| i32::try_from(limit.as_millis().max(1)).unwrap_or(i32::MAX));
        // SAFETY: the pointer and length are those of one live vector of `pollfd`, which the kernel writes `revents` of.
        let ready = unsafe { libc::poll(self.fds.as_mut_ptr(), self.fds.len() as libc::nfds_t, timeout_ms) };
        if ready >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        }
    }
}
