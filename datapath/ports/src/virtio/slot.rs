//! How does a transport change a queue while a worker polls it? Through its slot: one lock, taken once per burst.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};

use super::log::DirtyLog;
use super::memory::GuestMemory;
use super::ring::{QueueSetup, Ring, RingError};

/// Where a ring marks what it writes.
#[derive(Debug, Clone)]
pub struct QueueLog {
    /// The bitmap.
    pub log: Arc<DirtyLog>,
    /// The guest address under which writes to the used ring are marked (VHOST_VRING_F_LOG); `None` marks the payload
    /// only.
    pub used_guest_addr: Option<u64>,
}

/// Where a removed ring stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingPosition {
    /// The next available index: what GET_VRING_BASE answers.
    pub next_avail: u16,
    /// Why it had stopped by itself, if it had.
    pub fault: Option<RingError>,
}

/// What a slot does at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// No ring is installed.
    Empty,
    /// A ring is installed but not enabled: the guest's frames are taken and discarded, none are sent to it.
    Disabled,
    /// Frames pass.
    Running,
    /// The ring stopped itself and waits to be removed.
    Broken(RingError),
}

/// One virtqueue's place in the datapath.
#[derive(Debug)]
pub struct QueueSlot {
    state: Mutex<State>,
    /// A copy of "installed, enabled and sound" for [`QueueSlot::is_running`].
    running: AtomicBool,
    /// Only for queues that a worker sleeps on.
    doorbell: Option<Doorbell>,
}

/// What the lock protects.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) ring: Option<Ring>,
    pub(crate) enabled: bool,
    fault: Option<RingError>,
    armed: bool,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    err: Option<OwnedFd>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("position", &self.ring.as_ref().map(Ring::position))
            .field("enabled", &self.enabled)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl QueueSlot {
    /// An empty, disabled slot for a queue that a worker receives from and sleeps on.
    ///
    /// # Errors
    /// No file descriptors are left for its doorbell.
    pub fn for_receive() -> io::Result<Arc<QueueSlot>> {
        Ok(Arc::new(Self::with(Some(Doorbell::new()?))))
    }

    /// An empty, disabled slot for a queue that workers send by.
    pub fn for_transmit() -> Arc<QueueSlot> {
        Arc::new(Self::with(None))
    }

    fn with(doorbell: Option<Doorbell>) -> Self {
        Self { state: Mutex::default(), running: AtomicBool::new(false), doorbell }
    }

    /// Starts the ring that `setup` describes in place of any other, at the position that its used index tells.
    ///
    /// # Errors
    /// The setup makes no sense; the slot is empty then.
    pub fn install(&self, setup: QueueSetup) -> Result<(), RingError> {
        let mut state = self.lock();
        state.ring = None;
        state.fault = None;
        let result = Ring::new(setup).map(|mut ring| {
            // A worker that sleeps since before this ring existed counts on being woken by it.
            if state.armed {
                ring.want_kicks();
            } else {
                ring.refuse_kicks();
            }
            state.ring = Some(ring);
        });
        self.changed(&state);
        result
    }

    /// Stops the ring. Once this returns, none of its memory is in use and no frame of it is on its way.
    pub fn remove(&self) -> Option<RingPosition> {
        let mut state = self.lock();
        let ring = state.ring.take();
        let fault = state.fault.take();
        self.changed(&state);
        ring.map(|ring| RingPosition { next_avail: ring.position(), fault })
    }

    /// Stops the ring and forgets everything that its peer gave: the slot is as new.
    pub fn reset(&self) {
        let mut state = self.lock();
        let armed = state.armed;
        if let (Some(doorbell), Some(kick)) = (&self.doorbell, &state.kick) {
            doorbell.unwatch(kick.as_fd());
        }
        *state = State { armed, ..State::default() };
        self.changed(&state);
    }

    /// Lets frames pass, or not.
    pub fn set_enabled(&self, enabled: bool) {
        let mut state = self.lock();
        state.enabled = enabled;
        self.changed(&state);
    }

    /// The eventfd by which the driver says that it made chains available; `None` for a driver that wants to be polled.
    ///
    /// # Errors
    /// The descriptor cannot be waited for; the slot has no kick then.
    pub fn set_kick(&self, kick: Option<OwnedFd>) -> io::Result<()> {
        let mut state = self.lock();
        let old = std::mem::replace(&mut state.kick, None);
        let Some(doorbell) = &self.doorbell else { return Ok(()) };
        if let Some(old) = &old {
            doorbell.unwatch(old.as_fd());
        }
        if let Some(kick) = kick {
            doorbell.watch(kick.as_fd())?;
            state.kick = Some(kick);
        }
        self.changed(&state);
        Ok(())
    }

    /// The eventfd by which the driver is told of used chains; `None` for a driver that polls.
    ///
    /// # Errors
    /// The descriptor cannot be made non-blocking; the slot has no call then.
    pub fn set_call(&self, call: Option<OwnedFd>) -> io::Result<()> {
        let mut state = self.lock();
        state.call = None;
        state.call = call.map(non_blocking).transpose()?;
        // Whatever was published while nobody could be told.
        state.notify();
        Ok(())
    }

    /// The eventfd by which the peer is told that the ring broke.
    ///
    /// # Errors
    /// The descriptor cannot be made non-blocking; the slot has no err then.
    pub fn set_err(&self, err: Option<OwnedFd>) -> io::Result<()> {
        let mut state = self.lock();
        state.err = None;
        state.err = err.map(non_blocking).transpose()?;
        Ok(())
    }

    /// Marks what the ring writes in `log` from now on, or no longer. An empty slot is left as it is.
    pub fn set_log(&self, log: Option<QueueLog>) {
        if let Some(ring) = &mut self.lock().ring {
            ring.set_log(log);
        }
    }

    /// Lets the ring run on with another table of memory, in which it is looked up anew. Once this returns, the old
    /// table is not in use. An empty slot is left as it is.
    ///
    /// # Errors
    /// The ring does not lie in the new memory; it is stopped then, and [`QueueSlot::remove`] still tells its position.
    pub fn replace_memory(&self, memory: &Arc<GuestMemory>) -> Result<(), RingError> {
        let state = self.lock();
        let Some(ring) = &state.ring else { return Ok(()) };
        let setup = QueueSetup { memory: Arc::clone(memory), ..ring.setup().clone() };
        drop(state);
        self.install(setup)
    }

    /// What the slot does at the moment.
    pub fn state(&self) -> SlotState {
        let state = self.lock();
        match (&state.ring, &state.fault) {
            (None, _) => SlotState::Empty,
            (_, Some(fault)) => SlotState::Broken(fault.clone()),
            _ if state.enabled => SlotState::Running,
            _ => SlotState::Disabled,
        }
    }

    /// True if frames pass. Takes no lock: a hint that may be old by one change.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock can only leave a burst unpublished, which the next one repeats.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After every change: tells those who do not hold the lock.
    fn changed(&self, state: &State) {
        let running = state.ring.is_some() && state.enabled && state.fault.is_none();
        self.running.store(running, Ordering::Relaxed);
        if let Some(doorbell) = &self.doorbell
            && state.armed
        {
            doorbell.ring();
        }
    }

    /// Stops the ring because of `fault`, and tells the peer.
    #[cold]
    pub(crate) fn break_ring(&self, state: &mut State, fault: RingError) {
        state.fault = Some(fault);
        if let Some(err) = &state.err {
            signal(err.as_fd());
        }
        self.changed(state);
    }

    pub(crate) fn arm(&self) -> bool {
        let mut state = self.lock();
        state.armed = true;
        let polled = state.kick.is_none();
        state.sound_ring().is_some_and(|ring| ring.want_kicks() || polled)
    }

    pub(crate) fn disarm(&self) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.armed) {
            return;
        }
        if let Some(ring) = state.sound_ring() {
            ring.refuse_kicks();
        }
        if let Some(doorbell) = &self.doorbell {
            doorbell.silence();
        }
    }

    pub(crate) fn fd(&self) -> Option<RawFd> {
        self.doorbell.as_ref().map(|doorbell| doorbell.set.as_raw_fd())
    }
}

impl State {
    /// The ring, unless it broke.
    #[inline]
    pub(crate) fn sound_ring(&mut self) -> Option<&mut Ring> {
        if self.fault.is_some() { None } else { self.ring.as_mut() }
    }

    /// Tells the driver that chains were used.
    pub(crate) fn notify(&self) {
        if let Some(call) = &self.call {
            signal(call.as_fd());
        }
    }
}

/// What a sleeping worker waits on: one descriptor for the slot's whole life, whichever kick is installed. The kick is
/// watched edge-triggered and never read, because a peer could empty it first and block the reader.
#[derive(Debug)]
struct Doorbell {
    set: OwnedFd,
    /// Rung by the transport when the slot changes.
    own: OwnedFd,
}

impl Doorbell {
    fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let own = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let doorbell = Self { set, own };
        doorbell.watch(doorbell.own.as_fd())?;
        Ok(doorbell)
    }

    fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.set, fd, epoll::EventData::new_u64(0), flags)?)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) {
        // Fails only for a descriptor that is not watched, which is what is wanted.
        let _ = epoll::delete(&self.set, fd);
    }

    fn ring(&self) {
        signal(self.own.as_fd());
    }

    /// Takes the events that have happened, so that the next sleep waits for new ones.
    fn silence(&self) {
        let mut events = [const {
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }
        }; 2];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        // At worst the next sleep ends at once.
        let _ = epoll::wait(&self.set, &mut events[..], Some(&now));
    }
}

/// Adds one to an eventfd. A full counter or a dead peer loses nothing: it is readable already, or nobody reads.
fn signal(fd: BorrowedFd<'_>) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

/// A worker writes to this descriptor of a peer and must not wait for it.
fn non_blocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(fd)
}
