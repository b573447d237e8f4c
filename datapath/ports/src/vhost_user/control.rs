//! Who serves the sockets of all vhost-user ports?

use std::io;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::port::Port;
use super::queues::Queues;
use super::session::Profile;
use super::{VhostUserError, VhostUserSpec};
use crate::Device;
use crate::control::Control;

/// The control thread of all vhost-user ports of the process. It ends when the last handle to it, those of the open
/// devices included, is dropped.
#[derive(Debug)]
pub struct VhostUserControl(Arc<Control<Port>>);

impl VhostUserControl {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel has no thread or descriptor left.
    pub fn start() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(Control::start("vhost-user")?)))
    }

    /// Opens a port. It has one receive and one transmit queue per queue pair; they are idle until a frontend attaches
    /// and after it left. Dropping the device's handle closes the socket and removes the file that the port created.
    ///
    /// A frontend may use fewer queue pairs than the port has. A transmit queue whose own ring it does not use sends by
    /// that of the first pair, so that workers need not know.
    ///
    /// # Errors
    /// See [`VhostUserError`]; nothing is left behind.
    pub fn open(&self, spec: VhostUserSpec) -> Result<Device, VhostUserError> {
        spec.validate()?;
        let profile = Profile::new(&spec);
        let path = spec.socket_path;
        let endpoint = Endpoint::open(&path, spec.role)?;
        let unserved = |source| VhostUserError::Socket { step: "serve", path, source };
        let open = || {
            let queues = Queues::new(spec.queue_pairs)?;
            let served = Arc::clone(&queues);
            let handle = self.0.add(|id, reactor| Port::new(id, endpoint, profile, served, reactor))?;
            Ok(Device { rx: queues.rx(), tx: queues.tx(), handle })
        };
        open().map_err(unserved)
    }
}
