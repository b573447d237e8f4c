//! How do devices come and go? Through `/dev/vduse/control`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bitflags::bitflags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::config::{DeviceConfig, VqGroups};
use crate::error::Error;
use crate::name::{DeviceName, FOLDER};
use crate::{abi, call};

/// A version of the interface. A device keeps for life the version of the [`Control`] that created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiVersion {
    /// Since Linux 5.15: one address space for all virtqueues. Every kernel takes it.
    V0,
    /// Of newer kernels (7.2 has it, 6.18 has not): virtqueues in groups, and groups in address spaces of their own.
    V1,
}

impl ApiVersion {
    fn number(self) -> u64 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }
}

bitflags! {
    /// Messages that a device wants beside the usual ones (since Linux 7.3): the kernel sends them to devices that are
    /// created after [`Control::set_protocol_features`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct ProtocolFeatures: u64 {
        /// `VDUSE_F_QUEUE_READY`: [`RequestKind::SetVqReady`](crate::RequestKind::SetVqReady).
        const QUEUE_READY = 1 << 0;
        /// `VDUSE_F_SUSPEND`: [`RequestKind::Suspend`](crate::RequestKind::Suspend).
        const SUSPEND = 1 << 1;
        /// Bits of kernels newer than this crate.
        const _ = !0;
    }
}

/// `/dev/vduse/control`, with its API version agreed.
///
/// Devices do not belong to it: they stay when it is closed, and any other `Control` can destroy them.
#[derive(Debug)]
pub struct Control {
    fd: OwnedFd,
    version: ApiVersion,
}

impl Control {
    /// Opens it for devices of [`ApiVersion::V0`], which every kernel has.
    ///
    /// # Errors
    /// [`Error::NoModule`], [`Error::NoAccess`].
    pub fn open() -> Result<Self, Error> {
        Self::open_with(ApiVersion::V0)
    }

    /// Opens it for devices of `version`.
    ///
    /// # Errors
    /// [`Error::NoModule`], [`Error::NoAccess`]; [`Error::Unsupported`] if the kernel is too old for `version`.
    pub fn open_with(version: ApiVersion) -> Result<Self, Error> {
        let fd = open_file(&Path::new(FOLDER).join("control"))?;
        // Always, and before all else: a kernel that knows version 1 takes a mere question for the version
        // (VDUSE_GET_API_VERSION) as the wish for it.
        call::write(fd.as_fd(), abi::SET_API_VERSION, &version.number()).map_err(|errno| match errno {
            Errno::INVAL => {
                Error::Unsupported { what: "VDUSE API version 1", needs: "a newer kernel (7.2 has it)" }
            }
            errno => Error::kernel("set the VDUSE API version", errno),
        })?;
        Ok(Self { fd, version })
    }

    /// The version that was agreed.
    pub fn api_version(&self) -> ApiVersion {
        self.version
    }

    /// The messages that this kernel can send beside the usual ones (`VDUSE_GET_FEATURES`).
    ///
    /// # Errors
    /// [`Error::Unsupported`] before Linux 7.3.
    pub fn protocol_features(&self) -> Result<ProtocolFeatures, Error> {
        let bits = call::read(self.fd.as_fd(), abi::GET_PROTOCOL_FEATURES).map_err(no_protocol_features)?;
        Ok(ProtocolFeatures::from_bits_retain(bits))
    }

    /// Chooses the additional messages for devices that this `Control` creates from now on (`VDUSE_SET_FEATURES`).
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel does not know all of `features`.
    pub fn set_protocol_features(&self, features: ProtocolFeatures) -> Result<(), Error> {
        call::write(self.fd.as_fd(), abi::SET_PROTOCOL_FEATURES, &features.bits())
            .map_err(no_protocol_features)
    }

    /// Creates a device (`VDUSE_CREATE_DEV`). It lives until it is destroyed, whatever happens to this process.
    ///
    /// Its file `/dev/vduse/NAME` can be opened at once, where `/dev` is a devtmpfs.
    ///
    /// # Errors
    /// [`Error::NotNetAdmin`], [`Error::Exists`], [`Error::Config`]; [`Error::Unsupported`] for groups in version 0.
    pub fn create_dev(&self, config: &DeviceConfig) -> Result<(), Error> {
        if self.version == ApiVersion::V0 && config.groups != VqGroups::ONE {
            return Err(Error::Unsupported { what: "a group of virtqueues", needs: "VDUSE API version 1" });
        }
        let name = || config.name.clone();
        // The kernel's answer would be the same; `config_size` could not hold the number.
        if u32::try_from(config.config.len()).is_err() {
            return Err(Error::Config { name: name(), problem: config.problem() });
        }
        let head = config.to_abi(self.version);
        // SAFETY: the kernel copies `config_size` bytes, which `to_abi` takes from the same vector's length.
        let result =
            unsafe { call::write_with_tail(self.fd.as_fd(), abi::CREATE_DEV, &head, &config.config) };
        result.map_err(|errno| match errno {
            Errno::PERM => Error::NotNetAdmin,
            Errno::EXIST => Error::Exists(name()),
            Errno::INVAL => Error::Config { name: name(), problem: config.problem() },
            errno => Error::kernel("create the VDUSE device", errno),
        })
    }

    /// Destroys the device of that name (`VDUSE_DESTROY_DEV`). It must be off the vDPA bus, and open nowhere.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Busy`].
    pub fn destroy_dev(&self, name: &DeviceName) -> Result<(), Error> {
        let result = call::write(self.fd.as_fd(), abi::DESTROY_DEV, &name.to_bytes());
        result.map_err(|errno| match errno {
            Errno::INVAL => Error::NotFound(name.clone()),
            Errno::BUSY => Error::Busy(name.clone()),
            errno => Error::kernel("destroy the VDUSE device", errno),
        })
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_file(path: &Path) -> Result<OwnedFd, Error> {
    let refused = |errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV => Error::NoModule,
        Errno::ACCESS | Errno::PERM => Error::NoAccess { path: PathBuf::from(path) },
        errno => Error::kernel("open /dev/vduse/control", errno),
    };
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(refused)
}

fn no_protocol_features(errno: Errno) -> Error {
    match errno {
        // What VDUSE answers to a number that it does not know, and to a feature likewise.
        Errno::INVAL | Errno::NOTTY => {
            Error::Unsupported { what: "choosing VDUSE's additional messages", needs: "Linux 7.3 or newer" }
        }
        errno => Error::kernel("agree on VDUSE's messages", errno),
    }
}
