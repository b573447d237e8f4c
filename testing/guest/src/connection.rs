//! How does the guest meet its switch? The frontend side of the vhost-user protocol, in both socket roles, on top of
//! rust-vmm's `vhost::Frontend`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VringConfigData};

use crate::memory::Memory;
use crate::ring::Ring;
use crate::{Features, GuestError};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(10);

/// Who creates the socket.
#[derive(Debug)]
pub(crate) enum Endpoint {
    /// The switch does; the guest connects.
    Connect(PathBuf),
    /// The guest does; the switch connects.
    Listen(PathBuf, UnixListener),
}

impl Endpoint {
    /// Creates the guest's socket. A stale one is replaced.
    pub(crate) fn listen(path: &Path) -> Result<Self, GuestError> {
        let failed = |source| GuestError::Socket { path: path.to_owned(), source };
        if path.exists() && UnixStream::connect(path).is_err() {
            std::fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        Ok(Self::Listen(path.to_owned(), listener))
    }

    /// Where.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Connect(path) | Self::Listen(path, _) => path,
        }
    }

    /// A connection, as soon as there is one.
    pub(crate) fn open(&self, timeout: Duration) -> Result<UnixStream, GuestError> {
        let deadline = Instant::now() + timeout;
        match self {
            Self::Connect(path) => loop {
                match UnixStream::connect(path) {
                    Ok(stream) => return Ok(stream),
                    Err(source) if !is_transient(&source) => {
                        return Err(GuestError::Socket { path: path.clone(), source });
                    }
                    Err(_) if Instant::now() >= deadline => {
                        return Err(GuestError::Timeout { path: path.clone() });
                    }
                    Err(_) => thread::sleep(RETRY),
                }
            },
            Self::Listen(path, listener) => {
                let failed = |source| GuestError::Socket { path: path.clone(), source };
                if !wait_readable(&[listener.as_fd()], timeout).map_err(failed)? {
                    return Err(GuestError::Timeout { path: path.clone() });
                }
                Ok(listener.accept().map_err(failed)?.0)
            }
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Self::Listen(path, _) = self {
            let _gone_already = std::fs::remove_file(path);
        }
    }
}

/// The switch is not there yet, or busy.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
    )
}

/// Waits until one of `fds` is readable or hung up. False: nothing happened in time.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<bool> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Hangs up if its owner has not finished in time: `vhost::Frontend` waits for answers without end.
struct Watchdog {
    /// Dropped with the watchdog, which ends its thread.
    _finished: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(stream: &UnixStream, timeout: Duration) -> io::Result<Self> {
        let stream = stream.try_clone()?;
        let (_finished, wait) = mpsc::channel();
        thread::Builder::new().name("guest-watchdog".into()).spawn(move || {
            if wait.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _gone_already = stream.shutdown(std::net::Shutdown::Both);
            }
        })?;
        Ok(Self { _finished })
    }
}

/// A vhost-user connection.
pub(crate) struct Connection {
    frontend: Frontend,
    /// To see that the switch hung up.
    stream: UnixStream,
    /// What the switch offers.
    offered: Features,
    timeout: Duration,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Not only closed: a child process that is just being started, or the watchdog, may still have the socket, and
        // the switch would take the program for alive.
        let _gone_already = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("offered", &self.offered).finish_non_exhaustive()
    }
}

fn refused(request: &'static str) -> impl Fn(vhost::Error) -> GuestError {
    move |source| GuestError::Protocol { request, source }
}

impl Connection {
    /// Opens the connection and asks what the switch offers.
    pub(crate) fn open(
        endpoint: &Endpoint,
        rings: u64,
        open_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self, GuestError> {
        let failed = |source| GuestError::Socket { path: endpoint.path().to_owned(), source };
        let stream = endpoint.open(open_timeout)?;
        let frontend = Frontend::from_stream(stream.try_clone().map_err(failed)?, rings);
        let mut connection = Self { frontend, stream, offered: Features::empty(), timeout };
        connection.watched(|this| {
            let offered = this.frontend.get_features().map_err(refused("GET_FEATURES"))?;
            this.offered = Features::from_bits_truncate(offered);
            Ok(())
        })?;
        Ok(connection)
    }

    /// What the switch offers.
    pub(crate) fn offered(&self) -> Features {
        self.offered
    }

    /// Runs a conversation that must end in time.
    fn watched<T>(
        &mut self,
        conversation: impl FnOnce(&mut Self) -> Result<T, GuestError>,
    ) -> Result<T, GuestError> {
        let watchdog = Watchdog::start(&self.stream, self.timeout).map_err(GuestError::Wait)?;
        let result = conversation(self);
        drop(watchdog);
        result
    }

    /// Tells the switch everything, in QEMU's order, and starts the rings. `rings` are receive and transmit, queue pair by
    /// queue pair.
    pub(crate) fn start(
        &mut self,
        features: Features,
        memory: &Memory,
        rings: &[&Ring],
    ) -> Result<(), GuestError> {
        self.watched(|this| {
            this.agree_on_protocol(features, rings.len() as u64)?;
            let frontend = &mut this.frontend;
            frontend.set_owner().map_err(refused("SET_OWNER"))?;
            frontend.set_features(features.bits()).map_err(refused("SET_FEATURES"))?;
            frontend.set_mem_table(&memory.table()).map_err(refused("SET_MEM_TABLE"))?;
            for (index, ring) in rings.iter().enumerate() {
                this.start_ring(index, ring)?;
            }
            if features.contains(Features::PROTOCOL_FEATURES) {
                for index in 0..rings.len() {
                    this.frontend.set_vring_enable(index, true).map_err(refused("SET_VRING_ENABLE"))?;
                }
            }
            Ok(())
        })
    }

    fn agree_on_protocol(&mut self, features: Features, rings: u64) -> Result<(), GuestError> {
        let pairs = (rings / 2) as u16;
        if pairs > 1 {
            let offered = self.queue_pairs(features, rings)?;
            if offered < u64::from(pairs) {
                return Err(GuestError::QueuePairs { offered, wanted: pairs });
            }
        }
        if !features.contains(Features::PROTOCOL_FEATURES) {
            return Ok(());
        }
        let frontend = &mut self.frontend;
        let offered = frontend.get_protocol_features().map_err(refused("GET_PROTOCOL_FEATURES"))?;
        let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        frontend.set_protocol_features(offered & wanted).map_err(refused("SET_PROTOCOL_FEATURES"))?;
        if offered.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        Ok(())
    }

    /// Asks for the number of queue pairs. A frontend of its own does so, because `vhost::Frontend` takes the answer for
    /// the number of rings from then on, and for a network device it is the number of pairs.
    fn queue_pairs(&self, features: Features, rings: u64) -> Result<u64, GuestError> {
        if !features.contains(Features::PROTOCOL_FEATURES | Features::MQ) {
            return Ok(1);
        }
        let stream = self.stream.try_clone().map_err(GuestError::Wait)?;
        let mut asker = Frontend::from_stream(stream, rings);
        asker.get_features().map_err(refused("GET_FEATURES"))?;
        let offered = asker.get_protocol_features().map_err(refused("GET_PROTOCOL_FEATURES"))?;
        if !offered.contains(VhostUserProtocolFeatures::MQ) {
            return Ok(1);
        }
        let mq = VhostUserProtocolFeatures::MQ;
        asker.set_protocol_features(mq).map_err(refused("SET_PROTOCOL_FEATURES"))?;
        asker.get_queue_num().map_err(refused("GET_QUEUE_NUM"))
    }

    fn start_ring(&mut self, index: usize, ring: &Ring) -> Result<(), GuestError> {
        let [desc_table_addr, avail_ring_addr, used_ring_addr] = ring.user_addresses();
        let config = VringConfigData {
            queue_max_size: ring.size(),
            queue_size: ring.size(),
            flags: 0,
            desc_table_addr,
            used_ring_addr,
            avail_ring_addr,
            log_addr: None,
        };
        let frontend = &self.frontend;
        frontend.set_vring_num(index, ring.size()).map_err(refused("SET_VRING_NUM"))?;
        frontend.set_vring_base(index, ring.restart_base()).map_err(refused("SET_VRING_BASE"))?;
        frontend.set_vring_addr(index, &config).map_err(refused("SET_VRING_ADDR"))?;
        frontend.set_vring_call(index, &ring.call).map_err(refused("SET_VRING_CALL"))?;
        frontend.set_vring_kick(index, &ring.kick).map_err(refused("SET_VRING_KICK"))
    }

    /// Stops the rings (GET_VRING_BASE): after this the switch touches them no more.
    pub(crate) fn stop(&mut self, rings: usize) -> Result<(), GuestError> {
        self.watched(|this| {
            for index in 0..rings {
                this.frontend.get_vring_base(index).map_err(refused("GET_VRING_BASE"))?;
            }
            Ok(())
        })
    }

    /// True while the switch holds its end.
    pub(crate) fn is_alive(&self) -> bool {
        // The switch says nothing unasked: readable means that it hung up.
        matches!(wait_readable(&[self.stream.as_fd()], Duration::ZERO), Ok(false))
    }

    /// Becomes readable when the switch hangs up.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
