//! How does a TAP device come into the pod's namespace?

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::rx::TapRx;
use super::sys::{self, Attach};
use super::tx::TapTx;
use super::{Handle, MAX_MTU_BYTES, MAX_QUEUES, Queue, TapError, TapSpec};
use crate::ifreq::Name;
use crate::offload::Capabilities;
use crate::{Device, RxQueue, TxQueue};

/// The smallest MTU that IPv4 allows (RFC 791 §3.2), and the kernel.
const MIN_MTU_BYTES: u32 = 68;

/// Opens the TAP device that `spec` names: creates it, or takes up the persistent one of that name with its address,
/// routes and queues as they are. The netdev is not set up, nor given IP addresses.
///
/// # Errors
/// See [`TapError`].
pub fn open(spec: &TapSpec) -> Result<Device, TapError> {
    let name = Name::new(&spec.netdev).ok_or_else(|| TapError::Name(spec.netdev.clone()))?;
    if !(1..=MAX_QUEUES).contains(&spec.queues) {
        return Err(TapError::Queues(spec.queues));
    }
    if !(MIN_MTU_BYTES..=MAX_MTU_BYTES).contains(&spec.mtu_bytes) {
        return Err(TapError::Mtu(spec.mtu_bytes));
    }
    let attached = match &spec.netns {
        None => attach(spec, &name),
        Some(path) => inside(path, || attach(spec, &name)),
    }?;
    Ok(attached.into_device())
}

/// A device with all its queues attached.
struct Attached {
    queues: Vec<OwnedFd>,
    control: OwnedFd,
    capabilities: Capabilities,
}

/// Runs `work` inside the network namespace at `path`, on a thread of its own: a thread that fails to come back must
/// not be one of the process's others.
fn inside<T: Send>(path: &Path, work: impl FnOnce() -> Result<T, TapError> + Send) -> Result<T, TapError> {
    let refused = |source| TapError::Netns { path: path.to_owned(), source };
    let netns = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| refused(errno.into()))?;
    std::thread::scope(|scope| {
        let enter_and_work = || {
            use std::os::fd::AsFd;
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| refused(errno.into()))?;
            work()
        };
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, enter_and_work);
        match thread.map(|thread| thread.join()) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(refused(io::Error::other("the thread inside panicked"))),
            Err(source) => Err(refused(source)),
        }
    })
}

/// Creates or takes up the device in the calling thread's namespace. What is created is persistent only at the end: a
/// step that fails closes the descriptors, and the device with them.
fn attach(spec: &TapSpec, name: &Name) -> Result<Attached, TapError> {
    let failed =
        |step| move |source: io::Error| TapError::Kernel { netdev: spec.netdev.clone(), step, source };
    let control = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| failed("open a socket in its namespace")(errno.into()))?;
    let (first, created) = attach_first(spec, name)?;
    sys::set_header(&first).map_err(failed("set the header's layout"))?;
    if created {
        if let Some(mac) = spec.mac {
            sys::set_mac(&first, name, mac).map_err(failed("set its MAC address"))?;
        }
        sys::set_mtu(&control, name, spec.mtu_bytes).map_err(failed("set its MTU"))?;
    }
    let capabilities = sys::set_offload(&first, spec.capabilities).map_err(failed("set its offloads"))?;
    let mut queues = vec![first];
    for _ in 1..spec.queues {
        let next = open_tun()?;
        sys::attach(&next, name, Attach::Join).map_err(failed("attach another queue"))?;
        queues.push(next);
    }
    sys::set_persistent(&queues[0], true).map_err(failed("make it persistent"))?;
    Ok(Attached { queues, control, capabilities })
}

/// Attaches the first queue. True if that created the device.
fn attach_first(spec: &TapSpec, name: &Name) -> Result<(OwnedFd, bool), TapError> {
    let refused = |source: io::Error| match source.raw_os_error() {
        Some(libc::EINVAL | libc::EBUSY) => TapError::NameTaken(spec.netdev.clone()),
        Some(libc::EPERM) => TapError::Permission(spec.netdev.clone()),
        _ => TapError::Kernel { netdev: spec.netdev.clone(), step: "attach to it", source },
    };
    let tun = open_tun()?;
    match sys::attach(&tun, name, Attach::Create) {
        Ok(()) => Ok((tun, true)),
        Err(exists) if exists.raw_os_error() == Some(libc::EBUSY) => {
            sys::attach(&tun, name, Attach::Join).map_err(refused)?;
            Ok((tun, false))
        }
        Err(source) => Err(refused(source)),
    }
}

fn open_tun() -> Result<OwnedFd, TapError> {
    rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| TapError::NoTun(errno.into()))
}

impl Attached {
    fn into_device(self) -> Device {
        let queues: Vec<_> = self.queues.into_iter().map(|fd| Arc::new(Queue::new(fd))).collect();
        let rx = queues.iter().map(|queue| Box::new(TapRx::new(queue.clone())) as Box<dyn RxQueue>).collect();
        let sender = |queue: &Arc<Queue>| TapTx::new(queue.clone(), self.capabilities);
        let tx = queues.iter().map(|queue| Arc::new(sender(queue)) as Arc<dyn TxQueue>).collect();
        let handle = Handle { queues, control: self.control, capabilities: self.capabilities };
        Device { rx, tx, handle: Box::new(handle) }
    }
}
