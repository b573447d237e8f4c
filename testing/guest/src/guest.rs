//! The guest as tests see it: connect, send a frame, receive a frame, go away, come back.

use std::path::Path;
use std::time::Duration;

use crate::{Features, GuestError, NetHeader};

/// How the guest learns of received frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Notify {
    /// It blocks until the switch signals.
    #[default]
    Interrupt,
    /// It looks at the rings again and again and asks for no signals.
    Poll,
}

/// How a sent frame lies in its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TxLayout {
    /// Header and frame in one descriptor, further ones only when a buffer is full.
    #[default]
    Together,
    /// The header in a descriptor of its own.
    HeaderApart,
    /// Pieces of at most this many bytes, header included.
    Scattered(usize),
}

/// What guest to make.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(crate) features: Features,
}

impl Builder {
    /// Features wanted; negotiated are those of them that the switch offers. Default: [`Features::RINGS`].
    pub fn features(mut self, features: Features) -> Self {
        self.features = features;
        self
    }
    /// Queue pairs (default 1).
    pub fn queue_pairs(self, _pairs: u16) -> Self {
        self
    }
    /// Descriptors of each ring, a power of two (default 256).
    pub fn ring_size(self, _descriptors: u16) -> Self {
        self
    }
    /// Bytes of one buffer (default 2048).
    pub fn buffer_bytes(self, _bytes: usize) -> Self {
        self
    }
    /// 2 MiB pages instead of small ones.
    pub fn huge_pages(self, _wanted: bool) -> Self {
        self
    }
    /// How received frames are noticed.
    pub fn notify(self, _notify: Notify) -> Self {
        self
    }
    /// How sent frames are laid out.
    pub fn tx_layout(self, _layout: TxLayout) -> Self {
        self
    }
    /// How long the switch may take to answer a protocol message (default 5 s).
    pub fn timeout(self, _timeout: Duration) -> Self {
        self
    }
    /// Connects to the socket that the switch created, and starts the rings.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn connect(self, _path: impl AsRef<Path>) -> Result<Guest, GuestError> {
        Err(GuestError::Disconnected)
    }
    /// Creates the socket that the switch connects to.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn listen(self, _path: impl AsRef<Path>) -> Result<Listener, GuestError> {
        Err(GuestError::Disconnected)
    }
}

/// A socket that waits for the switch.
#[derive(Debug)]
pub struct Listener {}

impl Listener {
    /// Waits for the switch to connect, and starts the rings.
    ///
    /// # Errors
    /// [`GuestError::Timeout`] and others.
    pub fn accept(self, _timeout: Duration) -> Result<Guest, GuestError> {
        Err(GuestError::Disconnected)
    }
}

/// A guest of one vhost-user port.
#[derive(Debug)]
pub struct Guest {
    features: Features,
}

impl Guest {
    /// Starts to describe a guest.
    pub fn builder() -> Builder {
        Builder { features: Features::RINGS }
    }
    /// The features negotiated.
    pub fn features(&self) -> Features {
        self.features
    }
    /// Sends one frame by queue pair 0.
    ///
    /// # Errors
    /// [`GuestError::RingFull`] and others.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), GuestError> {
        self.send_with(&NetHeader::default(), frame)
    }
    /// Sends one frame with a header by queue pair 0.
    ///
    /// # Errors
    /// [`GuestError::RingFull`] and others.
    pub fn send_with(&mut self, header: &NetHeader, frame: &[u8]) -> Result<(), GuestError> {
        self.send_on(0, header, frame)
    }
    /// Sends one frame with a header by queue pair `queue`.
    ///
    /// # Errors
    /// [`GuestError::RingFull`] and others.
    pub fn send_on(&mut self, _queue: usize, _header: &NetHeader, _frame: &[u8]) -> Result<(), GuestError> {
        Err(GuestError::Disconnected)
    }
    /// Waits until the switch has taken every frame sent. False: not in time.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`].
    pub fn flush(&mut self, _timeout: Duration) -> Result<bool, GuestError> {
        Err(GuestError::Disconnected)
    }
    /// The next frame received, by any queue. `None`: nothing came in time.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`].
    pub fn recv(&mut self, _timeout: Duration) -> Result<Option<(Vec<u8>, NetHeader)>, GuestError> {
        Err(GuestError::Disconnected)
    }
    /// True while the switch holds the connection.
    pub fn is_connected(&self) -> bool {
        false
    }
    /// Stops the rings (GET_VRING_BASE) and hangs up.
    pub fn disconnect(&mut self) {}
    /// Hangs up without a word, as a killed program does.
    pub fn abandon(&mut self) {}
    /// Connects again (or waits for the switch to), with the same memory and the rings where they were.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn reconnect(&mut self, _timeout: Duration) -> Result<(), GuestError> {
        Err(GuestError::Disconnected)
    }
}
