//! Who interrupts the drivers of VDUSE devices? A thread: the ioctl takes microseconds, which no worker should wait for.
//!
//! A worker puts a queue on the thread's list, where it stands once however often it is wanted. That costs a system call only
//! while the thread sleeps; one that is busy takes the next queue from the list when it is done.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::virtio::Teller;

/// The list's length, above the number of queues of all ports that a node has. Beyond it workers interrupt by themselves.
const LIST: usize = 8192;

/// The thread. It ends with the last queue that can be put on its list.
#[derive(Debug)]
pub(super) struct Interrupter {
    list: SyncSender<Arc<Irq>>,
}

impl Interrupter {
    pub(super) fn start() -> io::Result<Self> {
        let (list, wanted) = sync_channel(LIST);
        std::thread::Builder::new().name("vduse-irq".to_owned()).spawn(move || serve(&wanted))?;
        Ok(Self { list })
    }

    /// The interrupt of a device's queue.
    pub(super) fn irq(&self, device: &Arc<vduse::Device>, index: u32) -> Arc<Irq> {
        Arc::new(Irq {
            index,
            wanted: AtomicBool::new(false),
            device: Mutex::new(Some(Arc::clone(device))),
            list: self.list.clone(),
        })
    }
}

fn serve(wanted: &Receiver<Arc<Irq>>) {
    for irq in wanted {
        irq.inject();
    }
}

/// The interrupt of one queue.
#[derive(Debug)]
pub(super) struct Irq {
    index: u32,
    /// It is on the list.
    wanted: AtomicBool,
    /// `None` once the port is closed.
    device: Mutex<Option<Arc<vduse::Device>>>,
    list: SyncSender<Arc<Irq>>,
}

impl Irq {
    /// Interrupts the driver soon.
    pub(super) fn want(self: &Arc<Self>) {
        // AcqRel: what was published before is seen by whoever takes it off the list.
        if !self.wanted.swap(true, Ordering::AcqRel) && self.list.try_send(Arc::clone(self)).is_err() {
            self.inject();
        }
    }

    /// What a queue's slot tells its driver by.
    pub(super) fn teller(self: &Arc<Self>) -> Teller {
        let irq = Arc::clone(self);
        Arc::new(move || irq.want())
    }

    fn inject(&self) {
        // Before the interrupt: a want that comes now is about chains that this one may be too early for.
        self.wanted.swap(false, Ordering::AcqRel);
        if let Some(device) = &*self.device.lock().unwrap_or_else(PoisonError::into_inner) {
            // A driver that is not there yet, or no longer, misses nothing: whoever starts a ring wants its interrupt.
            let _ = device.inject_vq_irq(self.index);
        }
    }

    /// Lets go of the device.
    pub(super) fn close(&self) {
        *self.device.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
