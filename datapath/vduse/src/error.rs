//! What went wrong, and what can be done about it?
//!
//! The kernel answers with few error numbers, most of them EINVAL. What each means in its place was read from
//! `drivers/vdpa/vdpa_user/vduse_dev.c`; where one number has several causes, the error names all that remain.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::config::ConfigProblem;
use crate::iotlb::{IovaRange, RegionProblem};
use crate::name::DeviceName;
use crate::queue::QueueProblem;
use crate::umem::UmemProblem;

/// Why a call failed. Each variant says whether another try can help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no `/dev/vduse/control`. Retry once the module is loaded.
    #[error(
        "this kernel has no VDUSE here: load the module (`modprobe vduse`; Linux 5.15 or newer with CONFIG_VDPA_USER), \
         and give a container the folder /dev/vduse"
    )]
    NoModule,
    /// A file of VDUSE may not be opened or written.
    #[error("{} may not be used: run as root, or give this user rights to it", path.display())]
    NoAccess {
        /// The file.
        path: PathBuf,
    },
    /// A net device is created without CAP_NET_ADMIN in the initial user namespace.
    #[error(
        "creating a net device needs CAP_NET_ADMIN in the initial user namespace: a container with a user namespace of \
         its own cannot do it"
    )]
    NotNetAdmin,
    /// A device of that name exists already. It may be taken up with [`crate::Device::open`].
    #[error("VDUSE device {0} exists already: open it, destroy it, or choose another name")]
    Exists(DeviceName),
    /// No device has that name.
    #[error("there is no VDUSE device {0}")]
    NotFound(DeviceName),
    /// Somebody else has the device open; only one descriptor at a time may be. Retry when that process has ended.
    #[error("VDUSE device {0} is open elsewhere: another process serves it, or has inherited its descriptor")]
    InUse(DeviceName),
    /// The device cannot be destroyed yet. Retry after either is done.
    #[error(
        "VDUSE device {0} cannot be destroyed while it is on the vDPA bus or open: `vdpa dev del {0}`, then close it \
         everywhere"
    )]
    Busy(DeviceName),
    /// The device answered no message in time (`msg_timeout`) and is of no use any more, for ever.
    #[error(
        "VDUSE device {0} is broken: a message was not answered within its msg_timeout; `vdpa dev del {0}`, close it, \
         destroy it and create it anew"
    )]
    Broken(DeviceName),
    /// The kernel refuses what a device is to be. Not worth a retry with the same configuration.
    #[error("VDUSE device {name} cannot be created: {problem}")]
    Config {
        /// The device.
        name: DeviceName,
        /// What is wrong.
        problem: ConfigProblem,
    },
    /// The kernel refuses what is asked of a virtqueue.
    #[error("virtqueue {index}: {problem}")]
    Queue {
        /// The virtqueue.
        index: u32,
        /// What is wrong.
        problem: QueueProblem,
    },
    /// The new bytes do not lie within the configuration space, or are none.
    #[error("{bytes} bytes at {offset} do not lie within the device's configuration space")]
    ConfigSpace {
        /// Where they would begin.
        offset: u32,
        /// How many.
        bytes: usize,
    },
    /// The configuration interrupt was refused.
    #[error(
        "the driver cannot be told of a change before it has set DRIVER_OK, nor while the device is suspended"
    )]
    NotDriverOk,
    /// No memory is mapped there, the device is on no bus, or has no such address space.
    #[error("no memory at device addresses {0}, address space {1}: nothing is mapped there now")]
    NoRegion(IovaRange, u32),
    /// The kernel describes memory in numbers that make no sense.
    #[error("the memory that the kernel gave cannot be used: {0}")]
    Region(#[from] RegionProblem),
    /// Memory for the device's packets was refused.
    #[error("memory cannot be registered: {0}")]
    Umem(#[from] UmemProblem),
    /// Nobody waits for the response: the message timed out, or who caused it was killed. The device goes on, unless it is
    /// [`Error::Broken`].
    #[error("request {0} is waited for no more: it timed out, or the process that caused it was killed")]
    RequestGone(u32),
    /// The response is not of the request's kind; the kernel was told that the request failed.
    #[error("request {0} was answered with a response of another kind, and failed")]
    WrongResponse(u32),
    /// The kernel is too old, or the device was created with another API version.
    #[error("{what} needs {needs}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// What has it.
        needs: &'static str,
    },
    /// A setting was refused: a number out of its range.
    #[error("{knob} of VDUSE device {name} cannot be {value}: {allowed}")]
    Setting {
        /// The device.
        name: DeviceName,
        /// The setting.
        knob: &'static str,
        /// What it was to be.
        value: String,
        /// What it can be.
        allowed: &'static str,
    },
    /// The descriptor is no VDUSE device.
    #[error("the file descriptor is not that of a VDUSE device")]
    NotADevice,
    /// The kernel gave what its interface does not allow.
    #[error("the kernel does not keep to the VDUSE interface: {0}")]
    Protocol(&'static str),
    /// The kernel refused a step for a reason that is not VDUSE's.
    #[error("cannot {step}: {source}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
}

impl Error {
    pub(crate) fn kernel(step: &'static str, source: Errno) -> Self {
        Self::Kernel { step, source }
    }
}
