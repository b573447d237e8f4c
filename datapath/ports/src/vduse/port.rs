//! What does one VDUSE port do when the kernel asks something of its device?

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use vduse::{Control, Device, DeviceName, Error, RequestKind, Response, Status, VqInfo, VqState};

use super::irq::{Interrupter, Irq};
use super::memory;
use super::spec::{RECEIVE, TRANSMIT};
use crate::control::Controlled;
use crate::reactor::{Reactor, Source};
use crate::virtio::{
    AddressSpace, Features, GuestMemory, QueueSetup, QueueSlot, RingAddresses, SlotState, VirtioRx, VirtioTx,
};
use crate::{Link, Waker};

/// Requests taken from one device before others have their turn.
const REQUESTS_PER_TURN: usize = 32;

/// One of the device's queues.
struct Queue {
    index: u32,
    slot: Arc<QueueSlot>,
    irq: Arc<Irq>,
}

/// One VDUSE port.
pub(super) struct Port {
    name: DeviceName,
    /// `None` only while it is dropped.
    device: Option<Arc<Device>>,
    /// The driver's receive queue, then its transmit queue.
    queues: [Queue; 2],
    features: Features,
    memory: Arc<GuestMemory>,
    /// The driver has set DRIVER_OK, and not reset the device since then.
    running: bool,
    /// Why the device does not work.
    fault: Option<String>,
    retired: bool,
    waker: Option<Waker>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("name", &self.name).field("link", &self.link()).finish_non_exhaustive()
    }
}

impl Port {
    /// A port on `device`, which is not watched yet, and its queues for the workers.
    pub(super) fn new(device: Device, interrupter: &Interrupter) -> io::Result<(Self, VirtioRx, VirtioTx)> {
        let device = Arc::new(device);
        let queue = |index, slot| Queue { index, slot, irq: interrupter.irq(&device, index) };
        let queues = [queue(RECEIVE, QueueSlot::for_transmit()), queue(TRANSMIT, QueueSlot::for_receive()?)];
        let (tx, rx) = (VirtioTx::new(queues[0].slot.clone()), VirtioRx::new(queues[1].slot.clone()));
        let port = Self {
            name: device.name().clone(),
            device: Some(device),
            queues,
            features: Features::default(),
            memory: Arc::default(),
            running: false,
            fault: None,
            retired: false,
            waker: None,
        };
        Ok((port, rx, tx))
    }

    /// The port, its device watched as port `id` from now on. A device that has a driver already runs at once: nobody will
    /// tell of that again.
    pub(super) fn watched(mut self, id: u64, reactor: &Reactor) -> io::Result<Self> {
        if let Some(device) = self.device.clone() {
            if self
                .queues
                .iter()
                .any(|queue| matches!(device.vq_get_info(queue.index), Ok(VqInfo { ready: true, .. })))
            {
                self.start(&device);
                self.interrupt();
            }
            reactor.watch(device.as_fd(), id, Source::Messages)?;
        }
        Ok(self)
    }

    /// Answers the requests that are there.
    ///
    /// # Errors
    /// The device is of no use any more.
    fn serve(&mut self, device: &Device) -> Result<(), Error> {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(request) = device.try_read_request()? else { break };
            let kind = request.kind();
            let response = self.answer(device, kind);
            match device.respond(request, response) {
                // Somebody else has answered it, or it was given up: it is no longer ours.
                Ok(()) | Err(Error::RequestGone(_)) => {}
                Err(error) => return Err(error),
            }
            if let RequestKind::SetStatus(_) = kind
                && self.running
            {
                // The kernel refuses interrupts until DRIVER_OK is answered; used chains may have been published before.
                self.interrupt();
            }
        }
        Ok(())
    }

    fn answer(&mut self, device: &Device, kind: RequestKind) -> Response {
        match kind {
            RequestKind::SetStatus(status) if status.is_empty() => {
                self.stop();
                Response::Ok
            }
            RequestKind::SetStatus(status) if status.contains(Status::DRIVER_OK) => {
                self.start(device);
                if self.running { Response::Ok } else { Response::Failed }
            }
            RequestKind::SetStatus(_) => Response::Ok,
            RequestKind::GetVqState { index } => match self.queue_state(device, index) {
                Some(avail_index) => Response::VqState(VqState::Split { avail_index }),
                None => Response::Failed,
            },
            RequestKind::UpdateIotlb { .. } => {
                self.remap(device);
                Response::Ok
            }
            // Nothing else was asked for when the device was created.
            _ => Response::Failed,
        }
    }

    /// Where a ring stands; one that does not run, where its driver said.
    fn queue_state(&self, device: &Device, index: u32) -> Option<u16> {
        let queue = self.queues.iter().find(|queue| queue.index == index)?;
        if let Some(position) = queue.slot.position() {
            return Some(position);
        }
        match device.vq_get_info(index).ok()?.state(0) {
            VqState::Split { avail_index } => Some(avail_index),
            VqState::Packed(_) => None,
        }
    }

    /// Lets the rings run where the driver has put them.
    fn start(&mut self, device: &Device) {
        self.stop();
        self.fault = self.try_start(device).err();
        if self.fault.is_some() {
            self.stop();
        }
    }

    fn try_start(&mut self, device: &Device) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let features = device.features().map_err(text)?;
        self.features = Features(features & Features::OFFERED.0);
        self.memory = Arc::new(memory::map(device).map_err(|error| error.to_string())?);
        for queue in &self.queues {
            let info = device.vq_get_info(queue.index).map_err(text)?;
            if info.ready {
                queue.start(device, &info, self.features, &self.memory)?;
            }
        }
        self.running = true;
        Ok(())
    }

    /// Stops the rings, and lets go of all memory.
    fn stop(&mut self) {
        self.running = false;
        for queue in &self.queues {
            queue.slot.reset();
        }
        self.memory = Arc::default();
    }

    /// Other memory is behind the device's addresses: what runs, runs on in that, or stops.
    fn remap(&mut self, device: &Device) {
        if !self.running {
            return;
        }
        match memory::map(device) {
            Ok(memory) => {
                self.memory = Arc::new(memory);
                for queue in &self.queues {
                    // A ring that lies in none of it is broken, which the link tells.
                    let _ = queue.slot.replace_memory(&self.memory);
                }
            }
            Err(error) => {
                self.stop();
                self.fault = Some(error.to_string());
            }
        }
    }

    fn interrupt(&self) {
        for queue in &self.queues {
            queue.irq.want();
        }
    }

    fn detail(&self) -> String {
        if let Some(fault) = &self.fault {
            return format!("VDUSE device {}: {fault}", self.name);
        }
        if !self.running {
            return format!("VDUSE device {} has no driver", self.name);
        }
        let names: Vec<_> = self.features.names().collect();
        let mut detail = format!("VDUSE device {}: {}", self.name, names.join(" "));
        for queue in &self.queues {
            if let SlotState::Broken(fault) = queue.slot.state() {
                detail += &format!("; ring {} stopped: {fault}", queue.index);
            }
        }
        detail
    }
}

impl Queue {
    fn start(
        &self,
        device: &Device,
        info: &VqInfo,
        features: Features,
        memory: &Arc<GuestMemory>,
    ) -> Result<(), String> {
        let size = u16::try_from(info.size).map_err(|_| format!("a ring of {} chains", info.size))?;
        let addresses = RingAddresses {
            space: AddressSpace::Guest,
            desc: info.desc_addr,
            avail: info.driver_addr,
            used: info.device_addr,
        };
        let memory = Arc::clone(memory);
        let setup = QueueSetup { size, addresses, features, memory, log: None };
        self.slot.install(setup).map_err(|fault| format!("ring {}: {fault}", self.index))?;
        if self.index == TRANSMIT {
            self.watch_kicks(device).map_err(|error| format!("ring {}: {error}", self.index))?;
        }
        self.slot.set_teller(self.irq.teller());
        self.slot.set_enabled(true);
        Ok(())
    }

    /// Each change of the slot makes its worker look into the ring once, so that no kick of the time before is missed.
    fn watch_kicks(&self, device: &Device) -> Result<(), String> {
        let kick =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| error.to_string())?;
        device.vq_setup_kickfd(self.index, Some(kick.as_fd())).map_err(|error| error.to_string())?;
        self.slot.set_kick(Some(kick)).map_err(|error| error.to_string())
    }
}

impl Controlled for Port {
    fn on_event(&mut self, _source: Source, reactor: &Reactor) {
        let Some(device) = self.device.clone() else { return };
        if let Err(error) = self.serve(&device) {
            reactor.forget(device.as_fd());
            self.stop();
            self.fault = Some(error.to_string());
        }
        if let Some(wake) = &self.waker {
            wake();
        }
    }

    fn set_waker(&mut self, wake: Waker) {
        self.waker = Some(wake);
    }

    fn link(&self) -> Link {
        Link { up: self.queues.iter().all(|queue| queue.slot.is_running()), detail: self.detail() }
    }

    fn retire(&mut self) {
        self.retired = true;
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop();
        for queue in &self.queues {
            queue.irq.close();
        }
        // Closed here, for nobody else has it now; while it is open it cannot be destroyed.
        self.device = None;
        if self.retired {
            // While it is on the vDPA bus the kernel refuses. Control has taken it off, or has to destroy it later.
            let _ = Control::open().and_then(|control| control.destroy_dev(&self.name));
        }
    }
}
