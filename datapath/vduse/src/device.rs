//! What can be done with one device? Everything through `/dev/vduse/NAME`, which one process at a time has open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, FdFlags, retry_on_intr};

use crate::error::Error;
use crate::iotlb::{IotlbEntry, IovaInfo, IovaRange};
use crate::message::{Request, Response};
use crate::name::DeviceName;
use crate::queue::{QueueProblem, VqConfig, VqInfo};
use crate::umem::{Umem, UmemProblem};
use crate::{abi, call};

/// A device of ours, open.
///
/// Closing it (or the end of the process, however it comes) leaves the device as it is: the next process to open it finds
/// the negotiated features and the rings, and is asked again what was left unanswered. As long as nobody has it open, whoever
/// sends it a message waits for up to `msg_timeout`.
///
/// It can be polled: readable when a request waits ([`Device::try_read_request`]), an error once the device is
/// [broken](Error::Broken).
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    name: DeviceName,
}

impl Device {
    /// Opens the device of that name.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InUse`], [`Error::NoAccess`].
    pub fn open(name: &DeviceName) -> Result<Self, Error> {
        let path = name.path();
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO => Error::NotFound(name.clone()),
            Errno::BUSY => Error::InUse(name.clone()),
            Errno::ACCESS | Errno::PERM => Error::NoAccess { path: path.clone() },
            errno => Error::kernel("open the VDUSE device", errno),
        })?;
        Ok(Self { fd, name: name.clone() })
    }

    /// Takes a device that another process has opened and handed over, so that this one needs no rights of its own. The
    /// descriptor becomes non-blocking, in both processes.
    ///
    /// # Errors
    /// [`Error::NotADevice`] if it is anything else, as far as `/sys` tells.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let name = name_of(fd.as_fd()).ok_or(Error::NotADevice)?;
        let flags =
            rustix::fs::fcntl_getfl(&fd).map_err(|errno| Error::kernel("look at the descriptor", errno))?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
            .map_err(|errno| Error::kernel("make the descriptor non-blocking", errno))?;
        Ok(Self { fd, name })
    }

    /// Its name.
    pub fn name(&self) -> &DeviceName {
        &self.name
    }

    /// The virtio features that the driver has chosen (`VDUSE_DEV_GET_FEATURES`). They are final when
    /// [`Status::FEATURES_OK`](crate::Status::FEATURES_OK) is asked for, which is when to look at them, and to refuse.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn features(&self) -> Result<u64, Error> {
        call::read(self.fd.as_fd(), abi::DEV_GET_FEATURES)
            .map_err(|errno| self.refused("ask for the features", errno))
    }

    /// Changes the configuration space from `offset` on (`VDUSE_DEV_SET_CONFIG`). The driver learns of it by
    /// [`Device::inject_config_irq`].
    ///
    /// # Errors
    /// [`Error::ConfigSpace`], [`Error::Broken`].
    pub fn set_config(&self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let outside = Error::ConfigSpace { offset, bytes: bytes.len() };
        let Ok(length) = u32::try_from(bytes.len()) else { return Err(outside) };
        let head = abi::ConfigData { offset, length };
        // SAFETY: the kernel copies `length` bytes, which is the slice's length.
        unsafe { call::write_with_tail(self.fd.as_fd(), abi::DEV_SET_CONFIG, &head, bytes) }.map_err(
            |errno| {
                if errno == Errno::INVAL { outside } else { self.refused("change the configuration", errno) }
            },
        )
    }

    /// Tells the driver that the configuration space changed (`VDUSE_DEV_INJECT_CONFIG_IRQ`).
    ///
    /// # Errors
    /// [`Error::NotDriverOk`], [`Error::Broken`].
    pub fn inject_config_irq(&self) -> Result<(), Error> {
        call::take(self.fd.as_fd(), abi::DEV_INJECT_CONFIG_IRQ).map_err(|errno| match errno {
            Errno::INVAL => Error::NotDriverOk,
            errno => self.refused("inject the configuration interrupt", errno),
        })
    }

    /// Sets a virtqueue up (`VDUSE_VQ_SETUP`). Every one must be, before the device goes onto the vDPA bus.
    ///
    /// # Errors
    /// [`Error::Queue`], [`Error::Broken`].
    pub fn vq_setup(&self, queue: VqConfig) -> Result<(), Error> {
        let result = call::write(self.fd.as_fd(), abi::VQ_SETUP, &queue.to_abi());
        result.map_err(|errno| self.queue_refused(queue.index, QueueProblem::Setup, errno))
    }

    /// What the driver made of a virtqueue (`VDUSE_VQ_GET_INFO`).
    ///
    /// # Errors
    /// [`Error::Queue`], [`Error::Broken`].
    pub fn vq_get_info(&self, index: u32) -> Result<VqInfo, Error> {
        let mut info = abi::VqInfo { index, ..abi::VqInfo::default() };
        call::update(self.fd.as_fd(), abi::VQ_GET_INFO, &mut info)
            .map_err(|errno| self.queue_refused(index, QueueProblem::NoSuchQueue, errno))?;
        Ok(VqInfo::from_abi(&info))
    }

    /// Gives the eventfd that the driver's kicks of a virtqueue signal, or takes it away (`VDUSE_VQ_SETUP_KICKFD`). The
    /// kernel keeps a reference of its own, until another is given or the driver resets the device: give it anew after each
    /// `DRIVER_OK`.
    ///
    /// A kick that came while there was *no* eventfd is made good at once. One that came while there was the eventfd of a
    /// process that has ended is lost: look into the ring once after this call.
    ///
    /// # Errors
    /// [`Error::Queue`], [`Error::Broken`].
    pub fn vq_setup_kickfd(&self, index: u32, eventfd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let fd = eventfd.map_or(abi::EVENTFD_DEASSIGN, |fd| fd.as_raw_fd());
        let result = call::write(self.fd.as_fd(), abi::VQ_SETUP_KICKFD, &abi::VqEventfd { index, fd });
        result.map_err(|errno| self.queue_refused(index, QueueProblem::Kickfd, errno))
    }

    /// Tells the driver that buffers of a virtqueue are used (`VDUSE_VQ_INJECT_IRQ`).
    ///
    /// Refused until the kernel has taken the answer to `DRIVER_OK`, a moment after [`Device::respond`] returns; and after a
    /// reset. Neither is a fault: what was used before is found by the driver when it first looks.
    ///
    /// # Errors
    /// [`Error::Queue`], [`Error::Broken`].
    pub fn inject_vq_irq(&self, index: u32) -> Result<(), Error> {
        let result = call::write(self.fd.as_fd(), abi::VQ_INJECT_IRQ, &index);
        result.map_err(|errno| self.queue_refused(index, QueueProblem::Interrupt, errno))
    }

    /// The first region that overlaps `range`, and its file (`VDUSE_IOTLB_GET_FD`; for address spaces other than 0
    /// `VDUSE_IOTLB_GET_FD2`).
    ///
    /// What is returned is true until the next [`RequestKind::UpdateIotlb`](crate::RequestKind::UpdateIotlb), or the reset
    /// of the device.
    ///
    /// # Errors
    /// [`Error::NoRegion`], [`Error::Region`], [`Error::Broken`]; [`Error::Unsupported`] for an address space other than 0
    /// of a device of API version 0.
    pub fn iotlb_get_fd(&self, range: IovaRange, asid: u32) -> Result<IotlbEntry, Error> {
        let mut entry = abi::IotlbEntryV2 { asid, ..abi::IotlbEntryV2::default() };
        (entry.v1.start, entry.v1.last) = (range.start(), range.last());
        let fd = if asid == 0 {
            // SAFETY: VDUSE_IOTLB_GET_FD returns a descriptor that it made.
            unsafe { call::update_for_fd(self.fd.as_fd(), abi::IOTLB_GET_FD, &mut entry.v1) }
        } else {
            // SAFETY: VDUSE_IOTLB_GET_FD2 returns a descriptor that it made.
            unsafe { call::update_for_fd(self.fd.as_fd(), abi::IOTLB_GET_FD2, &mut entry) }
        };
        let fd = fd.map_err(|errno| match errno {
            Errno::INVAL => Error::NoRegion(range, asid),
            Errno::NOTTY => {
                Error::Unsupported { what: "another address space", needs: "a device of VDUSE API version 1" }
            }
            errno => self.refused("look up the IOTLB", errno),
        })?;
        // The kernel leaves it open across exec.
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)
            .map_err(|errno| Error::kernel("close the region's descriptor on exec", errno))?;
        Ok(IotlbEntry::new(&entry.v1, range, fd)?)
    }

    /// The first region that overlaps `range`, without its file (`VDUSE_IOTLB_GET_INFO`).
    ///
    /// # Errors
    /// [`Error::NoRegion`], [`Error::Region`], [`Error::Broken`]; [`Error::Unsupported`] on old kernels (6.1 has it).
    pub fn iotlb_get_info(&self, range: IovaRange, asid: u32) -> Result<IovaInfo, Error> {
        let mut info =
            abi::IovaInfo { start: range.start(), last: range.last(), asid, ..abi::IovaInfo::default() };
        call::update(self.fd.as_fd(), abi::IOTLB_GET_INFO, &mut info).map_err(|errno| match errno {
            // EFAULT: what Linux 7.3 answers to an address space that the device has not.
            Errno::INVAL | Errno::FAULT => Error::NoRegion(range, asid),
            errno => self.refused("look at the IOTLB", errno),
        })?;
        Ok(IovaInfo::new(&info, range)?)
    }

    /// Puts memory of ours in the place of the kernel's bounce buffer (`VDUSE_IOTLB_REG_UMEM`): `iova` is 0, and the
    /// memory as large as the region that [`Device::iotlb_get_info`] finds there. What was mapped of the region before must
    /// not be touched any more.
    ///
    /// # Errors
    /// [`Error::Umem`], [`Error::Broken`]; [`Error::Unsupported`] on old kernels (6.1 has it).
    pub fn reg_umem(&self, umem: &Umem, iova: u64, asid: u32) -> Result<(), Error> {
        let request = abi::IovaUmem {
            uaddr: umem.as_ptr() as u64,
            iova,
            size: umem.len() as u64,
            asid,
            ..abi::IovaUmem::default()
        };
        // Sound although the kernel writes there from now on: the pages are those of `umem`, which gives out raw pointers
        // only, and are unmapped from this process no later than with it.
        call::write(self.fd.as_fd(), abi::IOTLB_REG_UMEM, &request)
            .map_err(|errno| self.umem_refused("register memory", errno))
    }

    /// Gives the bounce buffer back to the kernel (`VDUSE_IOTLB_DEREG_UMEM`), with what was given to [`Device::reg_umem`].
    /// Closing the device does it too.
    ///
    /// # Errors
    /// [`Error::Umem`], [`Error::Broken`]; [`Error::Unsupported`] on old kernels (6.1 has it).
    pub fn dereg_umem(&self, iova: u64, bytes: usize, asid: u32) -> Result<(), Error> {
        let request = abi::IovaUmem { iova, size: bytes as u64, asid, ..abi::IovaUmem::default() };
        call::write(self.fd.as_fd(), abi::IOTLB_DEREG_UMEM, &request)
            .map_err(|errno| self.umem_refused("deregister memory", errno))
    }

    /// Waits for the kernel's next request. Answer it before long, and on another thread than one that waits for the vDPA
    /// bus itself: `vdpa dev add` and `vdpa dev del` cause requests and wait for the answers.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Protocol`].
    pub fn read_request(&self) -> Result<Request, Error> {
        loop {
            if let Some(request) = self.try_read_request()? {
                return Ok(request);
            }
            // Not a blocking read: that one does not end when the device breaks.
            self.poll(None)?;
        }
    }

    /// The kernel's next request, if one waits.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Protocol`].
    pub fn try_read_request(&self) -> Result<Option<Request>, Error> {
        let mut bytes = [0; abi::MESSAGE_BYTES];
        match retry_on_intr(|| rustix::io::read(&self.fd, &mut bytes)) {
            Ok(abi::MESSAGE_BYTES) => Ok(Some(Request::decode(&bytes))),
            Ok(_) => Err(Error::Protocol("a request of another size")),
            // Broken devices have no requests either.
            Err(Errno::AGAIN) if self.is_broken()? => Err(Error::Broken(self.name.clone())),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(Error::kernel("read a request", errno)),
        }
    }

    /// Answers a request. A response of another kind than the request's becomes [`Response::Failed`], so that the kernel
    /// does not wait, and an error.
    ///
    /// # Errors
    /// [`Error::RequestGone`], [`Error::Broken`], [`Error::WrongResponse`].
    #[expect(clippy::needless_pass_by_value, reason = "a request is answered once")]
    pub fn respond(&self, request: Request, response: Response) -> Result<(), Error> {
        let fits = request.takes(&response);
        let bytes = request.encode(if fits { response } else { Response::Failed });
        match retry_on_intr(|| rustix::io::write(&self.fd, &bytes)) {
            Ok(abi::MESSAGE_BYTES) if fits => Ok(()),
            Ok(abi::MESSAGE_BYTES) => Err(Error::WrongResponse(request.id())),
            Ok(_) => Err(Error::Protocol("a response was taken in part")),
            Err(Errno::NOENT) if self.is_broken()? => Err(Error::Broken(self.name.clone())),
            Err(Errno::NOENT) => Err(Error::RequestGone(request.id())),
            Err(errno) => Err(Error::kernel("answer a request", errno)),
        }
    }

    /// True once the device has failed to answer in time. It does not recover.
    ///
    /// # Errors
    /// [`Error::Kernel`] if poll(2) fails.
    pub fn is_broken(&self) -> Result<bool, Error> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(self.poll(Some(&now))?.contains(PollFlags::ERR))
    }

    /// Waits until a request waits or the device is broken.
    fn poll(&self, timeout: Option<&Timespec>) -> Result<PollFlags, Error> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, timeout))
            .map_err(|errno| Error::kernel("wait for a request", errno))?;
        Ok(fds[0].revents())
    }

    fn refused(&self, step: &'static str, errno: Errno) -> Error {
        match errno {
            Errno::PERM => Error::Broken(self.name.clone()),
            Errno::NOTTY => Error::Unsupported { what: step, needs: "a newer kernel" },
            errno => Error::kernel(step, errno),
        }
    }

    fn queue_refused(&self, index: u32, problem: QueueProblem, errno: Errno) -> Error {
        match errno {
            Errno::INVAL => Error::Queue { index, problem },
            errno => self.refused("use a virtqueue", errno),
        }
    }

    fn umem_refused(&self, step: &'static str, errno: Errno) -> Error {
        match errno {
            Errno::INVAL => UmemProblem::Invalid.into(),
            Errno::EXIST => UmemProblem::Exists.into(),
            Errno::NOENT => UmemProblem::NotRegistered.into(),
            Errno::NOMEM => UmemProblem::Locked.into(),
            errno => self.refused(step, errno),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Device> for OwnedFd {
    fn from(device: Device) -> Self {
        device.fd
    }
}

/// The name of the VDUSE device that `fd` is, as the kernel tells it by the device's number.
fn name_of(fd: BorrowedFd<'_>) -> Option<DeviceName> {
    let stat = rustix::fs::fstat(fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
        return None;
    }
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let link = Path::new("/sys/dev/char").join(format!("{major}:{minor}"));
    let class = std::fs::read_link(link.join("subsystem")).ok()?;
    let device = std::fs::read_link(&link).ok()?;
    // Not the file that creates devices, either: its name is reserved.
    DeviceName::new(device.file_name()?.to_str()?)
        .ok()
        .filter(|_| class.file_name().is_some_and(|it| it == "vduse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that is none: its ioctls are answered with ENOTTY.
    fn fake(path: &str) -> Device {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        Device { fd: file.into(), name: DeviceName::new("fake").unwrap() }
    }

    #[test]
    fn what_the_kernel_does_not_know_is_unsupported() {
        let device = fake("/dev/null");
        let umem = Umem::anonymous(4096).unwrap();
        let results = [
            device.features().map(drop),
            device.set_config(0, &[1]),
            device.inject_config_irq(),
            device.vq_setup(VqConfig::new(0, 256)),
            device.vq_get_info(0).map(drop),
            device.vq_setup_kickfd(0, None),
            device.inject_vq_irq(0),
            device.iotlb_get_fd(IovaRange::ALL, 0).map(drop),
            device.iotlb_get_fd(IovaRange::ALL, 1).map(drop),
            device.iotlb_get_info(IovaRange::ALL, 0).map(drop),
            device.reg_umem(&umem, 0, 0),
            device.dereg_umem(0, 4096, 0),
        ];
        for result in results {
            assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
        }
    }

    #[test]
    fn a_request_of_another_size_is_an_error() {
        // Reads nothing at all.
        assert!(matches!(fake("/dev/null").try_read_request(), Err(Error::Protocol(_))));
        // Reads zeroes for ever.
        let request = fake("/dev/zero").read_request().unwrap();
        assert_eq!(request.kind(), crate::RequestKind::GetVqState { index: 0 });
    }

    #[test]
    fn a_descriptor_of_something_else_is_no_device() {
        for path in ["/dev/null", "/proc/self/exe", "/dev"] {
            let fd = std::fs::File::open(path).unwrap().into();
            assert!(matches!(Device::from_fd(fd), Err(Error::NotADevice)), "{path}");
        }
    }

    #[test]
    fn a_name_without_a_device_is_not_found() {
        let name = DeviceName::new("there-is-no-such-device").unwrap();
        assert!(matches!(Device::open(&name), Err(Error::NotFound(_))));
    }
}
