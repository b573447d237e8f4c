//! Who serves what happens to the ports of a kind, apart from packets? One thread for all of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::reactor::{Reactor, Source};
use crate::{DeviceHandle, Link, Waker};

/// A port, as its control thread sees it. Nothing here may block: other ports wait meanwhile.
pub(crate) trait Controlled: Send + 'static {
    /// Something happened at `source`, or seemed to: an event may be older than what it is about.
    fn on_event(&mut self, source: Source, reactor: &Reactor);

    /// See [`DeviceHandle::set_waker`].
    fn set_waker(&mut self, wake: Waker);

    /// See [`DeviceHandle::link`].
    fn link(&self) -> Link;

    /// See [`DeviceHandle::retire`].
    fn retire(&mut self);
}

/// The control thread of all ports of a kind. It ends when the last handle to it, those of the open devices included, is
/// dropped.
#[derive(Debug)]
pub(crate) struct Control<P: Controlled> {
    shared: Arc<Shared<P>>,
    thread: Option<JoinHandle<()>>,
    next_id: AtomicU64,
}

impl<P: Controlled> Control<P> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel has no thread or descriptor left.
    pub(crate) fn start(name: &str) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared { reactor: Reactor::new()?, ports: Mutex::default() });
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || served.serve())?;
        Ok(Arc::new(Self { shared, thread: Some(thread), next_id: AtomicU64::new(0) }))
    }

    /// Makes a port with `make`, which is given its number and what to have its descriptors watched by. It is served until
    /// the handle is dropped.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn add<E>(
        self: &Arc<Self>,
        make: impl FnOnce(u64, &Reactor) -> Result<P, E>,
    ) -> Result<Box<dyn DeviceHandle>, E> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Watched descriptors may have events at once: the thread waits until the port is there to be told.
        let mut ports = self.shared.ports();
        ports.insert(id, make(id, &self.shared.reactor)?);
        Ok(Box::new(Handle { id, control: Arc::clone(self) }))
    }
}

impl<P: Controlled> Drop for Control<P> {
    fn drop(&mut self) {
        self.shared.reactor.stop();
        if let Some(thread) = self.thread.take() {
            // It ended by itself or panicked; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// What the thread and the handles share.
struct Shared<P> {
    reactor: Reactor,
    /// Locked for one event, or one question, at a time. The packet's road never takes it.
    ports: Mutex<BTreeMap<u64, P>>,
}

impl<P> std::fmt::Debug for Shared<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}

impl<P: Controlled> Shared<P> {
    fn ports(&self) -> MutexGuard<'_, BTreeMap<u64, P>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        // Waiting fails only on a set that does not exist.
        while let Ok(true) = self.reactor.wait(|id, source| {
            if let Some(port) = self.ports().get_mut(&id) {
                port.on_event(source, &self.reactor);
            }
        }) {}
    }
}

/// Keeps one port open.
struct Handle<P: Controlled> {
    id: u64,
    control: Arc<Control<P>>,
}

impl<P: Controlled> DeviceHandle for Handle<P> {
    fn set_waker(&self, wake: Waker) {
        if let Some(port) = self.control.shared.ports().get_mut(&self.id) {
            port.set_waker(wake);
        }
    }

    fn link(&self) -> Link {
        self.control.shared.ports().get(&self.id).map(P::link).unwrap_or_default()
    }

    fn retire(&self) {
        if let Some(port) = self.control.shared.ports().get_mut(&self.id) {
            port.retire();
        }
    }
}

impl<P: Controlled> Drop for Handle<P> {
    fn drop(&mut self) {
        // The lock is gone before the port is: to unmap a guest's memory takes a while.
        let port = self.control.shared.ports().remove(&self.id);
        drop(port);
    }
}
