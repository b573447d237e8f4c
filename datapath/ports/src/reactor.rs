//! How does one thread wait for the sockets, devices and timers of all ports of a kind?

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// Events taken per wait.
const EVENTS: usize = 64;
/// The token of the thread's own wake-up; no port has it.
const STOP: u64 = u64::MAX;

/// Which part of a port an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A socket that peers connect to.
    Listener,
    /// What a peer's messages come by.
    Messages,
    Timer,
}

/// What a port waits for at its messages' descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Messages.
    Read,
    /// Room for replies.
    Write,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Interest::Read => epoll::EventFlags::IN,
            Interest::Write => epoll::EventFlags::OUT,
        }
    }
}

/// An epoll set whose events name a port and a part of it. Level triggered: what is not finished comes again.
#[derive(Debug)]
pub(crate) struct Reactor {
    epoll: OwnedFd,
    stop: OwnedFd,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        Ok(Self { epoll, stop })
    }

    pub(crate) fn watch(&self, fd: impl AsFd, port: u64, source: Source) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token(port, source), Interest::Read.flags())?)
    }

    pub(crate) fn change(
        &self,
        fd: impl AsFd,
        port: u64,
        source: Source,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, token(port, source), interest.flags())?)
    }

    /// Forgets `fd`; nothing happens if it is not watched.
    pub(crate) fn forget(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Blocks for events and hands them to `each`. False when [`Reactor::stop`] was called.
    pub(crate) fn wait(&self, mut each: impl FnMut(u64, Source)) -> io::Result<bool> {
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events {
            match split(event.data.u64()) {
                Some((port, source)) => each(port, source),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Ends the thread's waits.
    pub(crate) fn stop(&self) {
        // A full counter wakes as well.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}

fn token(port: u64, source: Source) -> epoll::EventData {
    let source = match source {
        Source::Listener => 0,
        Source::Messages => 1,
        Source::Timer => 2,
    };
    epoll::EventData::new_u64(port << 2 | source)
}

fn split(token: u64) -> Option<(u64, Source)> {
    let source = match token & 3 {
        0 => Source::Listener,
        1 => Source::Messages,
        2 => Source::Timer,
        _ => return None,
    };
    Some((token >> 2, source))
}

/// A one-shot timer of the kernel, so that nobody here reads a clock.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Fires once after `delay`, which is not zero.
    pub(crate) fn arm(&self, delay: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos()) };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        let result = rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec);
        debug_assert!(result.is_ok(), "a valid time on a timer of our own: {result:?}");
    }

    /// Takes note that it fired.
    pub(crate) fn clear(&self) {
        // Nothing to read is a stale event.
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
