//! Who serves the sockets of all vhost-user ports?

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::endpoint::Endpoint;
use super::port::Port;
use super::queues::Queues;
use super::reactor::Reactor;
use super::session::Profile;
use super::{VhostUserError, VhostUserSpec};
use crate::{Device, DeviceHandle, Link, Waker};

/// The control thread of all vhost-user ports of the process. It ends when the last handle to it, those of the open
/// devices included, is dropped.
#[derive(Debug)]
pub struct VhostUserControl {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    next_id: AtomicU64,
}

impl VhostUserControl {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel has no thread or descriptor left.
    pub fn start() -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared { reactor: Reactor::new()?, ports: Mutex::default() });
        let served = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("vhost-user".to_owned()).spawn(move || served.serve())?;
        Ok(Arc::new(Self { shared, thread: Some(thread), next_id: AtomicU64::new(0) }))
    }

    /// Opens a port. It has one receive and one transmit queue per queue pair; they are idle until a frontend attaches
    /// and after it left. Dropping the device's handle closes the socket and removes the file that the port created.
    ///
    /// A frontend may use fewer queue pairs than the port has. A transmit queue whose own ring it does not use sends by
    /// that of the first pair, so that workers need not know.
    ///
    /// # Errors
    /// See [`VhostUserError`]; nothing is left behind.
    pub fn open(self: &Arc<Self>, spec: VhostUserSpec) -> Result<Device, VhostUserError> {
        spec.validate()?;
        let profile = Profile::new(&spec);
        let path = spec.socket_path;
        let endpoint = Endpoint::open(&path, spec.role)?;
        let unserved = |source| VhostUserError::Socket { step: "serve", path, source };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (queues, port) = Queues::new(spec.queue_pairs)
            .and_then(|queues| {
                let port = Port::new(id, endpoint, profile, Arc::clone(&queues), &self.shared.reactor)?;
                Ok((queues, port))
            })
            .map_err(unserved)?;
        self.shared.ports().insert(id, port);
        Ok(Device {
            rx: queues.rx(),
            tx: queues.tx(),
            handle: Box::new(Handle { id, control: Arc::clone(self) }),
        })
    }
}

impl Drop for VhostUserControl {
    fn drop(&mut self) {
        self.shared.reactor.stop();
        if let Some(thread) = self.thread.take() {
            // It ended by itself or panicked; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// What the thread and the handles share.
#[derive(Debug)]
struct Shared {
    reactor: Reactor,
    /// Locked for one event, or one question, at a time. The packet's road never takes it.
    ports: Mutex<BTreeMap<u64, Port>>,
}

impl Shared {
    fn ports(&self) -> MutexGuard<'_, BTreeMap<u64, Port>> {
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
struct Handle {
    id: u64,
    control: Arc<VhostUserControl>,
}

impl DeviceHandle for Handle {
    fn set_waker(&self, wake: Waker) {
        if let Some(port) = self.control.shared.ports().get_mut(&self.id) {
            port.set_waker(wake);
        }
    }

    fn link(&self) -> Link {
        self.control.shared.ports().get(&self.id).map(Port::link).unwrap_or_default()
    }

    /// A vhost-user port leaves nothing behind that a restart would need.
    fn retire(&self) {}
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The lock is gone before the port is: to unmap a guest's memory takes a while.
        let port = self.control.shared.ports().remove(&self.id);
        drop(port);
    }
}
