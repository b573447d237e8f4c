//! vDPA devices in userspace: the whole interface of Linux's VDUSE, typed and safe.
//!
//! VDUSE (`CONFIG_VDPA_USER`, module `vduse`) lets a process *be* a virtio device: a network card, a disk, a shared folder.
//! The kernel keeps the control path and puts the device onto its vDPA bus; there the kernel's own driver takes it
//! (`virtio_vdpa`: an ordinary netdev or block device, of the host or of a container), or `vhost_vdpa` offers it to a virtual
//! machine or a DPDK program as `/dev/vhost-vdpa-N`. The process moves the data, through rings in shared memory.
//!
//! This crate is the interface to the kernel and no more: no rings, no netlink, no threads. The question it answers is: how
//! does a process talk to VDUSE without being able to get it wrong?
//!
//! # A device's life
//!
//! 1. [`Control::open`], [`Control::create_dev`]: the file `/dev/vduse/NAME` comes. Optional settings: [`sysfs`].
//! 2. [`Device::open`]; [`Device::vq_setup`] for every virtqueue.
//! 3. A thread that answers [`Device::read_request`] from now on, to the end.
//! 4. `vdpa dev add name NAME mgmtdev vduse` (iproute2, or the netlink message `VDPA_CMD_DEV_NEW`; in the initial network
//!    namespace). It returns when the driver has found the device, which takes the thread's answers.
//! 5. [`RequestKind::SetStatus`] with more and more bits. At [`Status::FEATURES_OK`]: [`Device::features`], and a refusal by
//!    [`Response::Failed`] if they will not do. At [`Status::DRIVER_OK`]: [`Device::vq_get_info`] where the rings are,
//!    [`Device::iotlb_get_fd`] and [`IotlbEntry::map`] to reach them, [`Device::vq_setup_kickfd`] to be woken; answer, and
//!    look into the rings. [`Device::inject_vq_irq`] wakes the driver.
//! 6. [`Status::empty`]: the driver resets the device. Stop, let go of rings and mappings, answer. What follows is 5 or 7.
//! 7. `vdpa dev del NAME`; drop the [`Device`]; [`Control::destroy_dev`].
//!
//! **A crash is survived.** The device belongs to the kernel, not to the process: after a kill, open it again, ask for
//! features and rings, map, give kick descriptors, look into the rings, and the driver has noticed no more than a pause. Two
//! things to know: [`VqInfo::state`] is where the ring *started*, and kicks of the meantime may be lost
//! ([`Device::vq_setup_kickfd`]).
//!
//! **Silence is not.** A request that is not answered within `msg_timeout` (30 s; [`sysfs::set_msg_timeout_s`]) makes the
//! device [broken](Error::Broken) for ever. Whoever caused the request waits for as long, with locks of the kernel held.
//!
//! # Limits
//!
//! - Linux 5.15 or newer, for net devices a newer one (6.12 has them). What a kernel lacks is
//!   [`Error::Unsupported`].
//! - The kernel reads the configuration space, the driver cannot write it; hence no feature that would need it, and for net no
//!   control queue: one pair of queues, and no commands.
//! - What the kernel or a driver says in numbers (regions, offsets, lengths, requests) is checked before it is used. What lies
//!   *in* the memory is the user's to check.
//!
//! Sources: `include/uapi/linux/vduse.h`, `drivers/vdpa/vdpa_user/vduse_dev.c` and `iova_domain.c`,
//! `Documentation/userspace-api/vduse.rst` of Linux 6.12 and 7.3, and runs on both.
//!
//! # Example: a network card that sends back what it is sent
//!
//! ```no_run
//! use vduse::*;
//!
//! /// The device's memory, mapped where it is first touched: most of it comes after the rings.
//! struct Memory<'a>(&'a Device, Vec<Mapping>);
//!
//! impl Memory<'_> {
//!     fn at(&mut self, addr: u64, len: u64) -> Option<&Mapping> {
//!         let holds = |mapping: &Mapping| mapping.range().offset_of(addr, len).is_some();
//!         if !self.1.iter().any(holds) {
//!             let range = IovaRange::with_len(addr, len)?;
//!             self.1.push(self.0.iotlb_get_fd(range, 0).ok()?.map().ok()?);
//!         }
//!         self.1.iter().find(|mapping| holds(mapping))
//!     }
//! }
//!
//! /// A split virtqueue (virtio 1.3 §2.7), and how many of its buffers are done.
//! struct Ring(VqInfo, u16);
//!
//! impl Ring {
//!     /// The next buffer: its number, address and length. A net device without offloads has no chains of them.
//!     fn next(&self, memory: &mut Memory) -> Option<(u16, u64, u64)> {
//!         let avail = self.0.driver_addr;
//!         if memory.at(avail + 2, 2)?.load_u16(avail + 2)? == self.1 {
//!             return None;
//!         }
//!         let entry = avail + 4 + u64::from(self.1).checked_rem(self.0.size.into())? * 2;
//!         let head = memory.at(entry, 2)?.load_u16(entry)?;
//!         let desc = self.0.desc_addr + u64::from(head) * 16;
//!         let mut raw = [0; 16];
//!         let desc = memory.at(desc, 16)?.read(desc, &mut raw).then_some(u128::from_le_bytes(raw))?;
//!         Some((head, desc as u64, u64::from((desc >> 64) as u32)))
//!     }
//!
//!     /// Gives the buffer back, `len` bytes of it written.
//!     fn done(&mut self, memory: &mut Memory, head: u16, len: u32) -> Option<()> {
//!         let used = self.0.device_addr;
//!         let entry = used + 4 + u64::from(self.1).checked_rem(self.0.size.into())? * 8;
//!         let bytes = (u64::from(len) << 32 | u64::from(head)).to_le_bytes();
//!         self.1 = self.1.wrapping_add(1);
//!         let ring = memory.at(entry, 8)?;
//!         ring.write(entry, &bytes).then(|| ring.store_u16(used + 2, self.1))?
//!     }
//! }
//!
//! /// Takes a frame that is to be sent, and puts it where one can be received.
//! fn echo(device: &Device, [rx, tx]: &mut [Ring; 2], memory: &mut Memory) -> Option<()> {
//!     let ((to, room, room_len), (from, data, len)) = (rx.next(memory)?, tx.next(memory)?);
//!     let mut frame = vec![0; len.min(room_len).min(2048) as usize];
//!     let copied = memory.at(data, len)?.read(data, &mut frame) && memory.at(room, room_len)?.write(room, &frame);
//!     rx.done(memory, to, if copied { frame.len() as u32 } else { 0 })?;
//!     tx.done(memory, from, 0)?;
//!     device.inject_vq_irq(0).and(device.inject_vq_irq(1)).ok()
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let name = DeviceName::new("mirror")?;
//!     let features = feature::VERSION_1 | feature::ACCESS_PLATFORM;
//!     Control::open()?.create_dev(&DeviceConfig {
//!         name: name.clone(), vendor_id: 0, device_id: DeviceId::NET, features, vq_num: 2, vq_align: 4096,
//!         groups: VqGroups::ONE, config: vec![0; 12],
//!     })?;
//!     let device = Device::open(&name)?;
//!     (0..2).try_for_each(|index| device.vq_setup(VqConfig::new(index, 256)))?;
//!     let mut work = None;
//!     loop { // Meanwhile: vdpa dev add name mirror mgmtdev vduse
//!         if let Some(request) = device.try_read_request()? {
//!             let response = match request.kind() {
//!                 RequestKind::SetStatus(status) if status.contains(Status::DRIVER_OK) => {
//!                     let rings = [Ring(device.vq_get_info(0)?, 0), Ring(device.vq_get_info(1)?, 0)];
//!                     work = Some((rings, Memory(&device, Vec::new())));
//!                     Response::Ok
//!                 }
//!                 RequestKind::SetStatus(status) => {
//!                     if status.is_empty() { work = None }
//!                     Response::Ok
//!                 }
//!                 _ => Response::Failed,
//!             };
//!             device.respond(request, response)?;
//!         }
//!         // A real device is woken by kicks, and by the poll of its descriptor; this one looks again and again.
//!         if let Some((rings, memory)) = &mut work { echo(&device, rings, memory); }
//!     }
//! }
//! ```
#![cfg(target_os = "linux")]

mod abi;
mod call;
mod config;
mod control;
mod device;
mod error;
mod iotlb;
mod mapping;
mod message;
mod name;
mod pages;
mod queue;
pub mod sysfs;
mod umem;

pub use config::{ConfigProblem, DeviceConfig, DeviceId, VqGroups, feature};
pub use control::{ApiVersion, Control, ProtocolFeatures};
pub use device::Device;
pub use error::Error;
pub use iotlb::{Access, IotlbEntry, IovaInfo, IovaRange, RegionProblem};
pub use mapping::Mapping;
pub use message::{Request, RequestKind, Response, Status};
pub use name::{DeviceName, MAX_NAME_BYTES, NameError};
pub use queue::{PackedState, QueueProblem, VqConfig, VqInfo, VqState};
pub use umem::{Umem, UmemProblem};
