//! What is a device to be, and which of it does the kernel refuse?
//!
//! The kernel is asked first: it may allow more in future. Only where it answers EINVAL is the cause looked for here.

use rustix::param::page_size;

use crate::abi::DevConfig;
use crate::control::ApiVersion;
use crate::name::DeviceName;

/// A virtio device type (virtio 1.3 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId(pub u32);

impl DeviceId {
    /// A network card.
    pub const NET: Self = Self(1);
    /// A disk.
    pub const BLOCK: Self = Self(2);
    /// A shared folder.
    pub const FS: Self = Self(26);
}

/// Virtio feature bits that VDUSE itself looks at, as masks (virtio 1.3 §5.1.3, §5.2.3, §6).
pub mod feature {
    /// `VIRTIO_F_VERSION_1`: a net device must offer it.
    pub const VERSION_1: u64 = 1 << 32;
    /// `VIRTIO_F_ACCESS_PLATFORM`: every device must offer it.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// `VIRTIO_F_RING_PACKED`: where it is negotiated, a virtqueue's state is the packed one.
    pub const RING_PACKED: u64 = 1 << 34;
    /// `VIRTIO_NET_F_CTRL_VQ`: refused, because the kernel would wait for userspace with locks held.
    pub const NET_CTRL_VQ: u64 = 1 << 17;
    /// `VIRTIO_BLK_F_CONFIG_WCE`: refused, because a driver cannot write the configuration space.
    pub const BLK_CONFIG_WCE: u64 = 1 << 11;
}

/// Groups of virtqueues and the address spaces they can be in: for isolating some queues' memory from others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VqGroups {
    /// Groups, at least 1. More than 1 needs [`ApiVersion::V1`].
    pub groups: u16,
    /// Address spaces, at least 1. More than 1 needs [`ApiVersion::V1`]; each gets an equal part of the bounce buffer.
    pub address_spaces: u16,
}

impl VqGroups {
    /// All queues in one group and one address space.
    pub const ONE: Self = Self { groups: 1, address_spaces: 1 };
}

impl Default for VqGroups {
    fn default() -> Self {
        Self::ONE
    }
}

/// What a device is to be (`struct vduse_dev_config`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Its name.
    pub name: DeviceName,
    /// Its vendor, as virtio drivers see it.
    pub vendor_id: u32,
    /// What it is.
    pub device_id: DeviceId,
    /// The virtio features that it offers; see [`feature`] for those that must and must not be among them.
    pub features: u64,
    /// Its virtqueues. Each must be set up before the device goes onto the vDPA bus.
    pub vq_num: u16,
    /// The alignment of the rings, in bytes: a power of two from 4 to the page size. (Older kernels
    /// take others too, and fail later.)
    pub vq_align: u32,
    /// Groups of virtqueues.
    pub groups: VqGroups,
    /// The initial configuration space, at most a page.
    pub config: Vec<u8>,
}

/// Why the kernel refuses a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// [`feature::ACCESS_PLATFORM`] is missing.
    #[error("every VDUSE device must offer VIRTIO_F_ACCESS_PLATFORM (bit 33)")]
    AccessPlatform,
    /// [`feature::VERSION_1`] is missing.
    #[error("a VDUSE net device must offer VIRTIO_F_VERSION_1 (bit 32)")]
    Version1,
    /// [`feature::NET_CTRL_VQ`] is offered.
    #[error(
        "the kernel allows no VDUSE net device with VIRTIO_NET_F_CTRL_VQ (bit 17): leave it out, and with it the features \
         that depend on it (VIRTIO_NET_F_MQ and the other CTRL ones)"
    )]
    CtrlVq,
    /// [`feature::BLK_CONFIG_WCE`] is offered.
    #[error("the kernel allows no VDUSE block device with VIRTIO_BLK_F_CONFIG_WCE (bit 11): leave it out")]
    ConfigWce,
    /// No such groups.
    #[error("there must be 1 or more groups and address spaces, not {} and {}", .0.groups, .0.address_spaces)]
    Groups(VqGroups),
    /// No such alignment.
    #[error("the alignment must be a power of two from 4 bytes to a page, not {0}")]
    VqAlign(u32),
    /// The configuration space is larger than a page.
    #[error("the configuration space has {0} bytes, more than a page")]
    ConfigSize(usize),
    /// All else is as it should be, so that it must be the device type.
    #[error(
        "this kernel's VDUSE takes no device of virtio type {}: the oldest take only block devices (2), newer ones also \
         net (1) and then fs (26)", .0.0
    )]
    DeviceId(DeviceId),
}

/// The smallest alignment of rings that the kernel takes (`VRING_USED_ALIGN_SIZE`).
const MIN_VQ_ALIGN: u32 = 4;

impl DeviceConfig {
    /// As the kernel takes it, without the configuration space that follows it.
    pub(crate) fn to_abi(&self, version: ApiVersion) -> DevConfig {
        // Version 0 has one of each, and zeroes in the fields.
        let in_version_1 = |number: u16| if version == ApiVersion::V0 { 0 } else { u32::from(number) };
        DevConfig {
            name: self.name.to_bytes(),
            vendor_id: self.vendor_id,
            device_id: self.device_id.0,
            features: self.features,
            vq_num: self.vq_num.into(),
            vq_align: self.vq_align,
            ngroups: in_version_1(self.groups.groups),
            nas: in_version_1(self.groups.address_spaces),
            reserved: [0; 11],
            config_size: self.config.len() as u32,
        }
    }

    /// The first thing that `vduse_validate_config` of vduse_dev.c refuses.
    pub(crate) fn problem(&self) -> ConfigProblem {
        let is_net = self.device_id == DeviceId::NET;
        let offers = |mask: u64| self.features & mask != 0;
        if self.groups.groups == 0 || self.groups.address_spaces == 0 {
            ConfigProblem::Groups(self.groups)
        } else if self.vq_align as usize > page_size() {
            ConfigProblem::VqAlign(self.vq_align)
        } else if self.config.len() > page_size() {
            ConfigProblem::ConfigSize(self.config.len())
        } else if !offers(feature::ACCESS_PLATFORM) {
            ConfigProblem::AccessPlatform
        } else if self.device_id == DeviceId::BLOCK && offers(feature::BLK_CONFIG_WCE) {
            ConfigProblem::ConfigWce
        } else if is_net && offers(feature::NET_CTRL_VQ) {
            ConfigProblem::CtrlVq
        } else if is_net && !offers(feature::VERSION_1) {
            ConfigProblem::Version1
        } else if !self.vq_align.is_power_of_two() || self.vq_align < MIN_VQ_ALIGN {
            // Refused by newer kernels only, so that all else is a likelier cause.
            ConfigProblem::VqAlign(self.vq_align)
        } else {
            ConfigProblem::DeviceId(self.device_id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net() -> DeviceConfig {
        DeviceConfig {
            name: DeviceName::new("test").unwrap(),
            vendor_id: 0x1af4,
            device_id: DeviceId::NET,
            features: feature::VERSION_1 | feature::ACCESS_PLATFORM,
            vq_num: 2,
            vq_align: 4096,
            groups: VqGroups { groups: 2, address_spaces: 3 },
            config: vec![7; 12],
        }
    }

    #[test]
    fn each_refusal_is_named() {
        let features = net().features;
        let cases = [
            (
                DeviceConfig { features: features ^ feature::ACCESS_PLATFORM, ..net() },
                ConfigProblem::AccessPlatform,
            ),
            (DeviceConfig { features: features ^ feature::VERSION_1, ..net() }, ConfigProblem::Version1),
            (DeviceConfig { features: features | feature::NET_CTRL_VQ, ..net() }, ConfigProblem::CtrlVq),
            (
                DeviceConfig {
                    features: features | feature::BLK_CONFIG_WCE,
                    device_id: DeviceId::BLOCK,
                    ..net()
                },
                ConfigProblem::ConfigWce,
            ),
            (DeviceConfig { vq_align: 0, ..net() }, ConfigProblem::VqAlign(0)),
            (DeviceConfig { vq_align: 3000, ..net() }, ConfigProblem::VqAlign(3000)),
            (DeviceConfig { vq_align: 1 << 20, ..net() }, ConfigProblem::VqAlign(1 << 20)),
            (DeviceConfig { config: vec![0; 1 << 20], ..net() }, ConfigProblem::ConfigSize(1 << 20)),
            (DeviceConfig { device_id: DeviceId(4), ..net() }, ConfigProblem::DeviceId(DeviceId(4))),
            (
                DeviceConfig { groups: VqGroups { groups: 1, address_spaces: 0 }, ..net() },
                ConfigProblem::Groups(VqGroups { groups: 1, address_spaces: 0 }),
            ),
        ];
        for (config, problem) in cases {
            assert_eq!(config.problem(), problem, "{config:?}");
        }
    }

    #[test]
    fn groups_are_sent_in_version_1_only() {
        let v0 = net().to_abi(ApiVersion::V0);
        assert_eq!((v0.ngroups, v0.nas, v0.config_size), (0, 0, 12));
        let v1 = net().to_abi(ApiVersion::V1);
        assert_eq!((v1.ngroups, v1.nas, v1.device_id), (2, 3, 1));
    }
}
