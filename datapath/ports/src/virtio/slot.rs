//! How does a transport change a queue while a worker polls it? Through its slot: one lock, taken once per burst.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll;
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::bell;
use super::log::DirtyLog;
use super::memory::GuestMemory;
use super::ring::{QueueSetup, Ring, RingError};
use super::tx::WriteScratch;

/// Where a ring marks what it writes.
#[derive(Debug, Clone)]
pub struct QueueLog {
    /// The bitmap.
    pub log: Arc<DirtyLog>,
    /// The guest address under which writes to the used ring are marked (VHOST_VRING_F_LOG); `None` marks the payload
    /// only.
    pub used_guest_addr: Option<u64>,
}

/// Tells a driver of used chains on a worker's behalf. It must return at once, and may be called from any thread.
pub(crate) type Teller = Arc<dyn Fn() + Send + Sync>;

/// How a driver is told of used chains.
pub(crate) enum Call {
    /// By its eventfd.
    Eventfd(OwnedFd),
    /// By somebody of ours.
    Teller(Teller),
}

impl Call {
    #[inline]
    pub(crate) fn ring(&self) {
        match self {
            Self::Eventfd(fd) => signal(Some(fd)),
            Self::Teller(tell) => tell(),
        }
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Eventfd(_)) { "Eventfd" } else { "Teller" })
    }
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
    /// Transports that wait for the lock. A worker that polls without pause would not let them have it otherwise.
    changes: AtomicU32,
    /// Only for queues that a worker sleeps on.
    doorbell: Option<Doorbell>,
}

/// What the lock protects.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) stage: Stage,
    pub(crate) enabled: bool,
    pub(crate) call: Option<Call>,
    /// For the one that sends.
    pub(crate) scratch: WriteScratch,
    armed: bool,
    kick: Option<OwnedFd>,
    err: Option<OwnedFd>,
}

/// The ring's life.
#[derive(Debug, Default)]
pub(crate) enum Stage {
    #[default]
    Empty,
    /// Boxed, so that moving the stage moves no heads.
    Sound(Box<Ring>),
    /// It has let go of the guest's memory already.
    Broken { fault: RingError, position: u16 },
}

impl Stage {
    /// The ring, if it works.
    #[inline]
    pub(crate) fn ring(&mut self) -> Option<&mut Ring> {
        match self {
            Stage::Sound(ring) => Some(ring),
            Stage::Empty | Stage::Broken { .. } => None,
        }
    }

    fn stop(&mut self, fault: RingError) {
        if let Some(ring) = self.ring() {
            // Zero pages instead of a ring look like many faults.
            let fault = if ring.setup().memory.is_lost() { RingError::MemoryLost } else { fault };
            *self = Stage::Broken { position: ring.position(), fault };
        }
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
        Self {
            state: Mutex::default(),
            running: AtomicBool::new(false),
            changes: AtomicU32::new(0),
            doorbell,
        }
    }

    /// Starts the ring that `setup` describes in place of any other, at the position that its used index tells: with
    /// chains given back in order and a burst at a time, that is where any device side stopped, even one that was killed.
    ///
    /// # Errors
    /// The setup makes no sense; the slot is empty then.
    pub fn install(&self, setup: QueueSetup) -> Result<(), RingError> {
        let mut state = self.change();
        state.stage = Stage::Empty;
        let result = Ring::new(setup).map(|ring| state.start(ring));
        self.changed(&state);
        result
    }

    /// Stops the ring. Once this returns, none of its memory is in use and no frame of it is on its way.
    pub fn remove(&self) -> Option<RingPosition> {
        let mut state = self.change();
        let stage = std::mem::take(&mut state.stage);
        self.changed(&state);
        match stage {
            Stage::Empty => None,
            Stage::Sound(ring) => Some(RingPosition { next_avail: ring.position(), fault: None }),
            Stage::Broken { fault, position } => {
                Some(RingPosition { next_avail: position, fault: Some(fault) })
            }
        }
    }

    /// Stops the ring and forgets everything that its peer gave: the slot is as new.
    pub fn reset(&self) {
        let mut state = self.change();
        if let (Some(doorbell), Some(kick)) = (&self.doorbell, &state.kick) {
            doorbell.unwatch(kick.as_fd());
        }
        *state = State { armed: state.armed, ..State::default() };
        self.changed(&state);
    }

    /// Lets frames pass, or not.
    pub fn set_enabled(&self, enabled: bool) {
        let mut state = self.change();
        state.enabled = enabled;
        self.changed(&state);
    }

    /// The eventfd by which the driver says that it made chains available; `None` for a driver that wants to be polled.
    ///
    /// # Errors
    /// The descriptor is no eventfd; the slot has no kick then.
    pub fn set_kick(&self, kick: Option<OwnedFd>) -> io::Result<()> {
        let mut state = self.change();
        let old = state.kick.take();
        let Some(doorbell) = &self.doorbell else { return Ok(()) };
        if let Some(old) = &old {
            doorbell.unwatch(old.as_fd());
        }
        if let Some(kick) = kick.map(event_only).transpose()? {
            doorbell.watch(kick.as_fd())?;
            state.kick = Some(kick);
        }
        self.changed(&state);
        Ok(())
    }

    /// The eventfd by which the driver is told of used chains; `None` for a driver that polls.
    ///
    /// # Errors
    /// The descriptor is no eventfd; the slot has no call then.
    pub fn set_call(&self, call: Option<OwnedFd>) -> io::Result<()> {
        let mut state = self.change();
        state.call = None;
        if let Some(call) = call.map(to_ring).transpose()? {
            // Whatever was published while nobody could be told. And now it is certain that it is an eventfd.
            bell::ring(&call)?;
            state.call = Some(Call::Eventfd(call));
        }
        Ok(())
    }

    /// The same by `teller`, which is told at once: something may have been published while nobody could be.
    pub(crate) fn set_teller(&self, teller: Teller) {
        let mut state = self.change();
        teller();
        state.call = Some(Call::Teller(teller));
    }

    /// Where the ring stands: what GET_VRING_BASE answers of one that runs on.
    pub(crate) fn position(&self) -> Option<u16> {
        match &self.change().stage {
            Stage::Empty => None,
            Stage::Sound(ring) => Some(ring.position()),
            Stage::Broken { position, .. } => Some(*position),
        }
    }

    /// The eventfd by which the peer is told that the ring broke.
    ///
    /// # Errors
    /// The descriptor is no eventfd; the slot has no err then.
    pub fn set_err(&self, err: Option<OwnedFd>) -> io::Result<()> {
        let mut state = self.change();
        state.err = None;
        state.err = err.map(to_ring).transpose()?;
        Ok(())
    }

    /// Marks what the ring writes in `log` from now on, or no longer. A slot without a ring is left as it is.
    pub fn set_log(&self, log: Option<QueueLog>) {
        if let Some(ring) = self.change().stage.ring() {
            ring.set_log(log);
        }
    }

    /// Lets the ring run on with another table of memory, in which it is looked up anew. Once this returns, the old
    /// table is not in use. A slot without a sound ring is left as it is.
    ///
    /// # Errors
    /// The ring does not lie in the new memory; it is broken then, and [`QueueSlot::remove`] still tells its position.
    pub fn replace_memory(&self, memory: &Arc<GuestMemory>) -> Result<(), RingError> {
        let mut state = self.change();
        let Some(ring) = state.stage.ring() else { return Ok(()) };
        let setup = QueueSetup { memory: Arc::clone(memory), ..ring.setup().clone() };
        match Ring::new(setup) {
            Ok(ring) => {
                state.start(ring);
                Ok(())
            }
            Err(fault) => {
                self.break_ring(&mut state, fault.clone());
                Err(fault)
            }
        }
    }

    /// What the slot does at the moment.
    pub fn state(&self) -> SlotState {
        let state = self.change();
        match &state.stage {
            Stage::Empty => SlotState::Empty,
            Stage::Broken { fault, .. } => SlotState::Broken(fault.clone()),
            Stage::Sound(_) if state.enabled => SlotState::Running,
            Stage::Sound(_) => SlotState::Disabled,
        }
    }

    /// True if frames pass. Takes no lock: a hint that may be old by one change.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// The lock, for a worker.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock can only leave a burst unpublished, which the next one repeats.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, for a worker that polls and can as well come back later; `None` while a transport wants it.
    #[inline]
    pub(crate) fn lock_unless_changing(&self) -> Option<MutexGuard<'_, State>> {
        (self.changes.load(Ordering::Relaxed) == 0).then(|| self.lock())
    }

    /// The lock, for a transport.
    fn change(&self) -> MutexGuard<'_, State> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        let state = self.lock();
        self.changes.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// After every change: tells those who do not hold the lock.
    fn changed(&self, state: &State) {
        let running = state.enabled && matches!(state.stage, Stage::Sound(_));
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
        state.stage.stop(fault);
        signal(state.err.as_ref());
        self.changed(state);
    }

    pub(crate) fn arm(&self) -> bool {
        let mut state = self.lock();
        state.armed = true;
        let polled = state.kick.is_none();
        state.stage.ring().is_some_and(|ring| ring.want_kicks() || polled)
    }

    pub(crate) fn disarm(&self) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.armed) {
            return;
        }
        if let Some(ring) = state.stage.ring() {
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
    fn start(&mut self, mut ring: Ring) {
        // A worker that sleeps since before this ring existed counts on being woken by it.
        if self.armed {
            ring.want_kicks();
        } else {
            ring.refuse_kicks();
        }
        self.stage = Stage::Sound(Box::new(ring));
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
        signal(Some(&self.own));
    }

    /// Takes the events that have happened, so that the next sleep waits for new ones.
    fn silence(&self) {
        let mut events = [const { MaybeUninit::uninit() }; 2];
        // At worst the next sleep ends at once.
        let _ = epoll::wait(&self.set, &mut events, Some(&Timespec::default()));
    }
}

/// Tells a peer, if it wants to be told.
pub(crate) fn signal(fd: Option<&OwnedFd>) {
    if let Some(fd) = fd {
        // Only what is no eventfd fails, and that would be the peer's loss.
        let _ = bell::ring(fd);
    }
}

/// A descriptor by which a peer is told something. It is made non-blocking only for what stands in for the bell.
fn to_ring(fd: OwnedFd) -> io::Result<OwnedFd> {
    let fd = event_only(fd)?;
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(fd)
}

/// Refuses what is certainly no eventfd: polling or writing to a file of the peer's own file system (FUSE) would wait for
/// the peer.
fn event_only(fd: OwnedFd) -> io::Result<OwnedFd> {
    const ANON_INODE_FS: u64 = 0x0904_1934;
    let kind = rustix::fs::fstatfs(&fd)?.f_type as u64;
    if kind == ANON_INODE_FS { Ok(fd) } else { Err(io::Error::other("the descriptor is no eventfd")) }
}
