//! How does control reach a worker that polls, or sleeps, without slowing the one that polls?
//!
//! Commands wait in a channel; a flag says that there are some, so that a turn pays one relaxed load; an eventfd ends
//! a sleep.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use rustix::event::{EventfdFlags, eventfd};

use crate::turn::Worker;

/// What a worker is to do between two turns.
pub(crate) type Command = Box<dyn FnOnce(&mut Worker) + Send>;

/// What wakes a worker.
#[derive(Debug)]
pub(crate) struct Signal {
    raised: AtomicBool,
    event: OwnedFd,
}

impl Signal {
    /// Ends the worker's sleep, or the next one at once. Commands or not: it polls its queues and asks them for their
    /// descriptors again.
    pub(crate) fn wake(&self) {
        // EAGAIN would mean that 2^64 - 1 wakes are pending: it is awake then.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// The descriptor that is readable from [`Signal::wake`] to [`Signal::settle`].
    pub(crate) fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Forgets the wakes so far.
    pub(crate) fn settle(&self) {
        let mut count = [0; 8];
        // EAGAIN: nobody woke us, a queue did.
        let _ = rustix::io::read(&self.event, &mut count);
    }
}

/// The worker's end.
pub(crate) struct Inbox {
    pub(crate) signal: Arc<Signal>,
    commands: Receiver<Command>,
}

impl Inbox {
    /// True if commands may have come since it was last asked. One relaxed load where none have.
    #[inline]
    pub(crate) fn is_called(&self) -> bool {
        // Lowered before the commands are taken: one that comes later raises it anew.
        self.signal.raised.load(Ordering::Relaxed) && self.signal.raised.swap(false, Ordering::SeqCst)
    }

    /// The next command, if there is one.
    pub(crate) fn next(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }
}

/// The end of control, or of a worker that hands something over.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    pub(crate) signal: Arc<Signal>,
    commands: Sender<Command>,
}

impl Outbox {
    /// Leaves `question` for the worker. The answer comes by the returned channel, which closes without one if the
    /// worker has ended.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (answer, receiver) = mpsc::channel();
        let command: Command = Box::new(move |worker| {
            // Nobody waits for the answer any more: nothing is lost.
            let _ = answer.send(question(worker));
        });
        if self.commands.send(command).is_ok() {
            self.signal.raised.store(true, Ordering::SeqCst);
            self.signal.wake();
        }
        receiver
    }
}

/// The two ends of a worker's mailbox.
///
/// # Errors
/// No descriptor is left for the event.
pub(crate) fn mailbox() -> io::Result<(Outbox, Inbox)> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let signal = Arc::new(Signal { raised: AtomicBool::new(false), event });
    let (sender, receiver) = mpsc::channel();
    Ok((Outbox { signal: signal.clone(), commands: sender }, Inbox { signal, commands: receiver }))
}
