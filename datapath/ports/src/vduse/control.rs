//! Who serves the messages of all VDUSE devices?

use std::io;
use std::sync::Arc;

use super::irq::Interrupter;
use super::port::Port;
use super::{VduseError, VduseSpec, spec};
use crate::Device;
use crate::control::Control;

/// The threads of all VDUSE ports of the process: one that answers the kernel, one that interrupts drivers. They end when
/// the last handle to them, those of the open devices included, is dropped.
#[derive(Debug)]
pub struct VduseControl {
    control: Arc<Control<Port>>,
    interrupter: Interrupter,
}

impl VduseControl {
    /// Starts the threads.
    ///
    /// # Errors
    /// The kernel has no thread or descriptor left.
    pub fn start() -> io::Result<Self> {
        Ok(Self { control: Control::start("vduse")?, interrupter: Interrupter::start()? })
    }

    /// Opens a port with one receive and one transmit queue: on the device of that name if there is one, else on a new one.
    /// They are idle until the device has a driver. Dropping the device's handle leaves the device.
    ///
    /// # Errors
    /// See [`VduseError`].
    pub fn open(&self, spec: &VduseSpec) -> Result<Device, VduseError> {
        let device = spec::device(spec)?;
        let (port, rx, tx) = Port::new(device, &self.interrupter)?;
        let handle = self.control.add(|id, reactor| port.watched(id, reactor))?;
        Ok(Device { rx: vec![Box::new(rx)], tx: vec![Arc::new(tx)], handle })
    }
}
