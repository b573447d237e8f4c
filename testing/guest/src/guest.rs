//! The guest as tests see it: connect, send a frame, receive a frame, go away, come back.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Endpoint, wait_readable};
use crate::memory::Memory;
use crate::ring::Ring;
use crate::rx::{Rx, RxShape};
use crate::tx::{Refusal, Tx};
use crate::{Features, GuestError, NetHeader, TxLayout};

/// How the guest learns of received frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Notify {
    /// It blocks until the switch signals.
    #[default]
    Interrupt,
    /// It looks at the rings again and again and asks for no signals.
    Poll,
}

/// What guest to make.
#[derive(Debug, Clone)]
pub struct Builder {
    features: Features,
    queue_pairs: u16,
    ring_size: u16,
    buffer_bytes: usize,
    huge_pages: bool,
    region_per_queue_pair: bool,
    notify: Notify,
    tx_layout: TxLayout,
    timeout: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            features: Features::RINGS,
            queue_pairs: 1,
            ring_size: 256,
            buffer_bytes: 2048,
            huge_pages: false,
            region_per_queue_pair: false,
            notify: Notify::Interrupt,
            tx_layout: TxLayout::Together,
            timeout: Duration::from_secs(5),
        }
    }
}

impl Builder {
    /// Features wanted; negotiated are those of them that the switch offers. Default: [`Features::RINGS`].
    pub fn features(mut self, features: Features) -> Self {
        self.features = features;
        self
    }

    /// Queue pairs, all of them used (default 1). More than one need [`Features::MQ`].
    pub fn queue_pairs(mut self, pairs: u16) -> Self {
        self.queue_pairs = pairs;
        self
    }

    /// Descriptors of each ring, a power of two up to 32768 (default 256).
    pub fn ring_size(mut self, descriptors: u16) -> Self {
        self.ring_size = descriptors;
        self
    }

    /// Bytes of one buffer, header included (default 2048).
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// 2 MiB pages instead of small ones. The kernel must have some free.
    pub fn huge_pages(mut self, wanted: bool) -> Self {
        self.huge_pages = wanted;
        self
    }

    /// Guest memory in one region per queue pair (at most 32) instead of one region in all.
    pub fn region_per_queue_pair(mut self, wanted: bool) -> Self {
        self.region_per_queue_pair = wanted;
        self
    }

    /// How received frames are noticed.
    pub fn notify(mut self, notify: Notify) -> Self {
        self.notify = notify;
        self
    }

    /// How sent frames are laid out.
    pub fn tx_layout(mut self, layout: TxLayout) -> Self {
        self.tx_layout = layout;
        self
    }

    /// How long the switch may take to appear, and to answer a conversation (default 5 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects to the socket that the switch created, as soon as it is there, and starts the rings.
    ///
    /// # Errors
    /// [`GuestError::Timeout`] if nobody is there in time; see [`GuestError`] for the others.
    pub fn connect(self, path: impl AsRef<Path>) -> Result<Guest, GuestError> {
        let timeout = self.timeout;
        Guest::start(self, Endpoint::Connect(path.as_ref().to_owned()), timeout)
    }

    /// Creates the socket that the switch connects to. It is removed with the guest.
    ///
    /// # Errors
    /// [`GuestError::Socket`], for example when another guest listens there.
    pub fn listen(self, path: impl AsRef<Path>) -> Result<Listener, GuestError> {
        Ok(Listener { endpoint: Endpoint::listen(path.as_ref())?, builder: self })
    }

    fn check(&self) -> Result<(), GuestError> {
        if !self.ring_size.is_power_of_two() || self.ring_size > 1 << 15 {
            return Err(GuestError::Config("ring_size must be a power of two up to 32768"));
        }
        if self.queue_pairs == 0 || self.queue_pairs > 128 {
            return Err(GuestError::Config("queue_pairs must be 1 to 128"));
        }
        if self.region_per_queue_pair && self.queue_pairs > 32 {
            return Err(GuestError::Config("region_per_queue_pair allows 32 queue pairs"));
        }
        if self.buffer_bytes < 64 || !self.buffer_bytes.is_multiple_of(64) {
            return Err(GuestError::Config("buffer_bytes must be a multiple of 64"));
        }
        Ok(())
    }

    fn memory(&self) -> Result<Arc<Memory>, GuestError> {
        let pair =
            Rx::bytes(self.ring_size, self.buffer_bytes) + Tx::bytes(self.ring_size, self.buffer_bytes);
        let pairs = self.queue_pairs as usize;
        let (regions, bytes) = if self.region_per_queue_pair { (pairs, pair) } else { (1, pair * pairs) };
        Memory::new(regions, bytes, self.huge_pages)
    }

    fn pairs(&self, memory: &Arc<Memory>, features: Features) -> std::io::Result<Vec<Pair>> {
        let event_idx = features.contains(Features::EVENT_IDX);
        let indirect = features.contains(Features::INDIRECT_DESC);
        let shape = RxShape {
            buffer_bytes: self.buffer_bytes,
            header_bytes: features.header_bytes(),
            mergeable: features.contains(Features::MRG_RXBUF),
            large_frames: features.receives_large_frames(),
            indirect,
        };
        let mut arena = memory.arena(0);
        let mut pairs = Vec::new();
        for index in 0..self.queue_pairs as usize {
            if self.region_per_queue_pair && index > 0 {
                arena = memory.arena(index);
            }
            let ring = Ring::new(&mut arena, self.ring_size, event_idx)?;
            let rx = Rx::new(&mut arena, ring, shape);
            let ring = Ring::new(&mut arena, self.ring_size, event_idx)?;
            let mut tx = Tx::new(&mut arena, ring, self.buffer_bytes, self.tx_layout, indirect);
            tx.ring.disarm();
            pairs.push(Pair { rx, tx });
        }
        Ok(pairs)
    }
}

/// A socket that waits for the switch.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    builder: Builder,
}

impl Listener {
    /// Waits for the switch to connect, and starts the rings.
    ///
    /// # Errors
    /// [`GuestError::Timeout`] if it does not in time; see [`GuestError`] for the others.
    pub fn accept(self, timeout: Duration) -> Result<Guest, GuestError> {
        Guest::start(self.builder, self.endpoint, timeout)
    }
}

/// One receive and one transmit queue.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) rx: Rx,
    pub(crate) tx: Tx,
}

/// A guest of one vhost-user port. Dropped, it vanishes as a killed program does.
#[derive(Debug)]
pub struct Guest {
    // Before the memory: the switch is told first.
    connection: Option<Connection>,
    endpoint: Endpoint,
    builder: Builder,
    features: Features,
    pub(crate) pairs: Vec<Pair>,
    memory: Arc<Memory>,
}

impl Guest {
    /// Starts to describe a guest.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn start(builder: Builder, endpoint: Endpoint, timeout: Duration) -> Result<Self, GuestError> {
        builder.check()?;
        let rings = 2 * u64::from(builder.queue_pairs);
        let mut connection = Connection::open(&endpoint, rings, timeout, builder.timeout)?;
        let features = builder.features & connection.offered();
        let memory = builder.memory()?;
        let pairs = builder.pairs(&memory, features).map_err(GuestError::Wait)?;
        let rings: Vec<&Ring> = pairs.iter().flat_map(|pair| [&pair.rx.ring, &pair.tx.ring]).collect();
        connection.start(features, &memory, &rings)?;
        let mut guest = Self { connection: Some(connection), endpoint, builder, features, pairs, memory };
        guest.kick_off();
        Ok(guest)
    }

    /// Publishes the receive buffers and wakes the switch, which may have work from before it was connected.
    fn kick_off(&mut self) {
        for pair in &mut self.pairs {
            for ring in [&mut pair.rx.ring, &mut pair.tx.ring] {
                if self.builder.notify == Notify::Poll {
                    ring.disarm();
                }
                ring.expose();
                ring.notify();
            }
        }
    }

    /// The features negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    /// What the switch offers; empty when not connected.
    pub fn offered(&self) -> Features {
        self.connection.as_ref().map_or(Features::empty(), Connection::offered)
    }

    /// Sends one frame by queue pair 0.
    ///
    /// # Errors
    /// [`GuestError::RingFull`] when the switch has not taken enough frames yet; see [`GuestError`] for the others.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), GuestError> {
        self.send_with(&NetHeader::default(), frame)
    }

    /// Sends one frame with a header by queue pair 0.
    ///
    /// # Errors
    /// As [`Guest::send`].
    pub fn send_with(&mut self, header: &NetHeader, frame: &[u8]) -> Result<(), GuestError> {
        self.send_on(0, header, frame)
    }

    /// Sends one frame with a header by queue pair `queue`.
    ///
    /// # Errors
    /// As [`Guest::send`].
    ///
    /// # Panics
    /// If there is no such queue pair.
    pub fn send_on(&mut self, queue: usize, header: &NetHeader, frame: &[u8]) -> Result<(), GuestError> {
        let header = &header.encode()[..self.features.header_bytes()];
        let tx = &mut self.pairs[queue].tx;
        tx.push(header, frame).map_err(|refusal| match refusal {
            Refusal::Full => GuestError::RingFull { queue },
            Refusal::TooLong => GuestError::FrameTooLong { bytes: frame.len() },
            Refusal::Broken(what) => GuestError::BrokenRing { ring: "transmit", queue, what },
        })?;
        tx.ring.publish();
        Ok(())
    }

    /// Waits until the switch has taken every frame sent. False: not in time.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`], [`GuestError::Disconnected`].
    pub fn flush(&mut self, timeout: Duration) -> Result<bool, GuestError> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut outstanding = 0;
            for (queue, pair) in self.pairs.iter_mut().enumerate() {
                pair.tx.reclaim().map_err(|what| GuestError::BrokenRing { ring: "transmit", queue, what })?;
                outstanding += pair.tx.ring.outstanding();
            }
            if outstanding == 0 {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            if !self.is_connected() {
                return Err(GuestError::Disconnected);
            }
            // No interrupts are asked of a transmit ring, as in Linux; a moment is enough.
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// The next frame received, by any queue. `None`: nothing came in time.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`] if the switch wrote nonsense; [`GuestError::Disconnected`] if it is gone and nothing is
    /// left to read.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<(Vec<u8>, NetHeader)>, GuestError> {
        let deadline = Instant::now() + timeout;
        loop {
            for queue in 0..self.pairs.len() {
                if let Some(received) = self.recv_on(queue)? {
                    return Ok(Some(received));
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            if !self.is_connected() {
                return Err(GuestError::Disconnected);
            }
            match self.builder.notify {
                Notify::Poll => std::thread::yield_now(),
                Notify::Interrupt => self.sleep(deadline - now)?,
            }
        }
    }

    /// The next frame received by queue pair `queue`, if one is there. Never waits.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`] if the switch wrote nonsense.
    ///
    /// # Panics
    /// If there is no such queue pair.
    pub fn recv_on(&mut self, queue: usize) -> Result<Option<(Vec<u8>, NetHeader)>, GuestError> {
        let pair = &mut self.pairs[queue];
        pair.rx.pop().map_err(|what| GuestError::BrokenRing { ring: "receive", queue, what })
    }

    /// Blocks until a receive ring signals, the switch hangs up, or the time is over.
    fn sleep(&mut self, timeout: Duration) -> Result<(), GuestError> {
        let mut ready = false;
        for pair in &mut self.pairs {
            ready |= pair.rx.ring.arm();
        }
        if !ready {
            let mut fds: Vec<BorrowedFd<'_>> = self.pairs.iter().map(|pair| call(&pair.rx.ring)).collect();
            fds.extend(self.connection.as_ref().map(Connection::as_fd));
            wait_readable(&fds, timeout).map_err(GuestError::Wait)?;
        }
        for pair in &mut self.pairs {
            // Nothing to read is the usual case for all but one.
            let _nothing = pair.rx.ring.call.read();
            pair.rx.ring.disarm();
        }
        Ok(())
    }

    /// True while the switch holds the connection.
    pub fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_alive)
    }

    /// Stops the rings (GET_VRING_BASE) and hangs up, as a program that ends well does.
    ///
    /// # Errors
    /// [`GuestError::Protocol`] if the switch does not follow; the guest is disconnected nevertheless.
    pub fn disconnect(&mut self) -> Result<(), GuestError> {
        let rings = 2 * self.pairs.len();
        self.connection.take().map_or(Ok(()), |mut connection| connection.stop(rings))
    }

    /// Hangs up without a word, as a killed program does.
    pub fn abandon(&mut self) {
        self.connection = None;
    }

    /// Connects again (or waits for the switch to), with the same memory and the rings where they were. Frames that were
    /// available and not used are processed by the new switch.
    ///
    /// # Errors
    /// [`GuestError::Timeout`]; [`GuestError::FeaturesGone`] if the switch offers less than before; others.
    pub fn reconnect(&mut self, timeout: Duration) -> Result<(), GuestError> {
        self.connection = None;
        let rings = 2 * self.pairs.len() as u64;
        let mut connection = Connection::open(&self.endpoint, rings, timeout, self.builder.timeout)?;
        let missing = self.features - connection.offered();
        if !missing.is_empty() {
            return Err(GuestError::FeaturesGone { missing });
        }
        let rings: Vec<&Ring> = self.pairs.iter().flat_map(|pair| [&pair.rx.ring, &pair.tx.ring]).collect();
        connection.start(self.features, &self.memory, &rings)?;
        self.connection = Some(connection);
        self.kick_off();
        Ok(())
    }
}

fn call(ring: &Ring) -> BorrowedFd<'_> {
    // SAFETY: the eventfd is open as long as the ring that is borrowed.
    unsafe { BorrowedFd::borrow_raw(ring.call.as_raw_fd()) }
}
