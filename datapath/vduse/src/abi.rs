//! What lies in the memory that crosses the boundary to the kernel, byte by byte?
//!
//! The structures and numbers of `include/uapi/linux/vduse.h` as of Linux 7.3, under their C names without the prefix.
//! Older kernels have the same sizes and ioctl numbers: what came later took the place of reserved fields, which must be
//! zero. The assertions hold sizes, offsets and numbers against what a C compiler printed for the headers of Linux
//! 6.1, 7.2 and 7.3 on x86-64 (`sizeof`, `offsetof`, and the macros themselves).

use std::mem::{offset_of, size_of};

use crate::call::{Plain, Reads, Takes, Updates, Writes};

/// The longest name of a device and the NUL after it (`VDUSE_NAME_MAX`).
pub(crate) const NAME_MAX: usize = 256;

pub(crate) const GET_API_VERSION: Reads<u64> = Reads::new(0x00);
pub(crate) const SET_API_VERSION: Writes<u64> = Writes::new(0x01);
pub(crate) const CREATE_DEV: Writes<DevConfig> = Writes::new(0x02);
pub(crate) const DESTROY_DEV: Writes<[u8; NAME_MAX]> = Writes::new(0x03);
/// `VDUSE_GET_FEATURES`, since Linux 7.3.
pub(crate) const GET_PROTOCOL_FEATURES: Reads<u64> = Reads::new(0x04);
/// `VDUSE_SET_FEATURES`, since Linux 7.3.
pub(crate) const SET_PROTOCOL_FEATURES: Writes<u64> = Writes::new(0x05);

pub(crate) const IOTLB_GET_FD: Updates<IotlbEntry> = Updates::new(0x10);
pub(crate) const DEV_GET_FEATURES: Reads<u64> = Reads::new(0x11);
pub(crate) const DEV_SET_CONFIG: Writes<ConfigData> = Writes::new(0x12);
pub(crate) const DEV_INJECT_CONFIG_IRQ: Takes = Takes::new(0x13);
pub(crate) const VQ_SETUP: Writes<VqConfig> = Writes::new(0x14);
pub(crate) const VQ_GET_INFO: Updates<VqInfo> = Updates::new(0x15);
pub(crate) const VQ_SETUP_KICKFD: Writes<VqEventfd> = Writes::new(0x16);
pub(crate) const VQ_INJECT_IRQ: Writes<u32> = Writes::new(0x17);
/// Of newer kernels (6.1 has it), as the next two.
pub(crate) const IOTLB_REG_UMEM: Writes<IovaUmem> = Writes::new(0x18);
pub(crate) const IOTLB_DEREG_UMEM: Writes<IovaUmem> = Writes::new(0x19);
pub(crate) const IOTLB_GET_INFO: Updates<IovaInfo> = Updates::new(0x1a);
/// For devices of API version 1.
pub(crate) const IOTLB_GET_FD2: Updates<IotlbEntryV2> = Updates::new(0x1b);

/// Types of requests (`enum vduse_req_type`).
pub(crate) mod request {
    pub(crate) const GET_VQ_STATE: u32 = 0;
    pub(crate) const SET_STATUS: u32 = 1;
    pub(crate) const UPDATE_IOTLB: u32 = 2;
    /// Since API version 1.
    pub(crate) const SET_VQ_GROUP_ASID: u32 = 3;
    /// If `VDUSE_F_QUEUE_READY` was set.
    pub(crate) const SET_VQ_READY: u32 = 4;
    /// If `VDUSE_F_SUSPEND` was set.
    pub(crate) const SUSPEND: u32 = 5;
}

pub(crate) const RESULT_OK: u32 = 0;
pub(crate) const RESULT_FAILED: u32 = 1;
/// In place of an eventfd: take the present one away.
pub(crate) const EVENTFD_DEASSIGN: i32 = -1;

/// `struct vduse_dev_config`; `config_size` bytes of configuration space follow it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct DevConfig {
    pub(crate) name: [u8; NAME_MAX],
    pub(crate) vendor_id: u32,
    pub(crate) device_id: u32,
    pub(crate) features: u64,
    pub(crate) vq_num: u32,
    pub(crate) vq_align: u32,
    pub(crate) ngroups: u32,
    pub(crate) nas: u32,
    pub(crate) reserved: [u32; 11],
    pub(crate) config_size: u32,
}

/// `struct vduse_iotlb_entry`. The tail is padding in C.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IotlbEntry {
    pub(crate) offset: u64,
    pub(crate) start: u64,
    pub(crate) last: u64,
    pub(crate) perm: u8,
    pub(crate) padding: [u8; 7],
}

/// `struct vduse_iotlb_entry_v2`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IotlbEntryV2 {
    pub(crate) v1: IotlbEntry,
    pub(crate) asid: u32,
    pub(crate) reserved: [u32; 11],
}

/// `struct vduse_config_data`; `length` bytes follow it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConfigData {
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// `struct vduse_vq_config`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VqConfig {
    pub(crate) index: u32,
    pub(crate) max_size: u16,
    pub(crate) reserved1: u16,
    pub(crate) group: u32,
    pub(crate) reserved2: [u16; 10],
}

/// `struct vduse_vq_info`. The state is a union of `split` (the first word) and `packed` (all four).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VqInfo {
    pub(crate) index: u32,
    pub(crate) num: u32,
    pub(crate) desc_addr: u64,
    pub(crate) driver_addr: u64,
    pub(crate) device_addr: u64,
    pub(crate) state: [u16; 4],
    pub(crate) ready: u8,
    pub(crate) padding: [u8; 7],
}

/// `struct vduse_vq_eventfd`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct VqEventfd {
    pub(crate) index: u32,
    pub(crate) fd: i32,
}

/// `struct vduse_iova_umem`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IovaUmem {
    pub(crate) uaddr: u64,
    pub(crate) iova: u64,
    pub(crate) size: u64,
    pub(crate) asid: u32,
    pub(crate) reserved: [u32; 5],
}

/// `struct vduse_iova_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IovaInfo {
    pub(crate) start: u64,
    pub(crate) last: u64,
    pub(crate) capability: u64,
    pub(crate) asid: u32,
    pub(crate) reserved: [u32; 5],
}

/// `VDUSE_IOVA_CAP_UMEM`: userspace may register memory of its own for the region.
pub(crate) const IOVA_CAP_UMEM: u64 = 1;

macro_rules! plain {
    ($($name:ty),*) => {$(
        // SAFETY: `repr(C)` of integers alone, with every byte of padding named: the sizes asserted below leave no other.
        unsafe impl Plain for $name {}
    )*};
}
plain!(DevConfig, IotlbEntry, IotlbEntryV2, ConfigData, VqConfig, VqInfo, VqEventfd, IovaUmem, IovaInfo);

/// Bytes of `struct vduse_dev_request` and of `struct vduse_dev_response`: what is read and written at once.
pub(crate) const MESSAGE_BYTES: usize = 152;
/// Where the union of either message begins.
pub(crate) const PAYLOAD: usize = 24;

const _: () = {
    assert!(size_of::<DevConfig>() == 336);
    assert!(offset_of!(DevConfig, vendor_id) == 256 && offset_of!(DevConfig, device_id) == 260);
    assert!(offset_of!(DevConfig, features) == 264 && offset_of!(DevConfig, vq_num) == 272);
    assert!(offset_of!(DevConfig, vq_align) == 276 && offset_of!(DevConfig, ngroups) == 280);
    assert!(offset_of!(DevConfig, nas) == 284 && offset_of!(DevConfig, reserved) == 288);
    assert!(offset_of!(DevConfig, config_size) == 332);

    assert!(size_of::<IotlbEntry>() == 32);
    assert!(offset_of!(IotlbEntry, start) == 8 && offset_of!(IotlbEntry, last) == 16);
    assert!(offset_of!(IotlbEntry, perm) == 24);
    assert!(size_of::<IotlbEntryV2>() == 80);
    assert!(offset_of!(IotlbEntryV2, asid) == 32 && offset_of!(IotlbEntryV2, reserved) == 36);

    assert!(size_of::<ConfigData>() == 8 && offset_of!(ConfigData, length) == 4);
    assert!(size_of::<VqConfig>() == 32 && offset_of!(VqConfig, max_size) == 4);
    assert!(offset_of!(VqConfig, group) == 8 && offset_of!(VqConfig, reserved2) == 12);

    assert!(size_of::<VqInfo>() == 48 && offset_of!(VqInfo, num) == 4);
    assert!(offset_of!(VqInfo, desc_addr) == 8 && offset_of!(VqInfo, driver_addr) == 16);
    assert!(offset_of!(VqInfo, device_addr) == 24 && offset_of!(VqInfo, state) == 32);
    assert!(offset_of!(VqInfo, ready) == 40);
    assert!(size_of::<VqEventfd>() == 8 && offset_of!(VqEventfd, fd) == 4);

    assert!(size_of::<IovaUmem>() == 48 && offset_of!(IovaUmem, iova) == 8);
    assert!(offset_of!(IovaUmem, size) == 16 && offset_of!(IovaUmem, asid) == 24);
    assert!(size_of::<IovaInfo>() == 48 && offset_of!(IovaInfo, last) == 8);
    assert!(offset_of!(IovaInfo, capability) == 16 && offset_of!(IovaInfo, asid) == 24);
};

/// The numbers as the C macros give them. Where ioctl numbers are made otherwise (PowerPC, MIPS, SPARC) `rustix` makes
/// them so.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const _: () = {
    assert!(GET_API_VERSION.code() == 0x8008_8100 && SET_API_VERSION.code() == 0x4008_8101);
    assert!(CREATE_DEV.code() == 0x4150_8102 && DESTROY_DEV.code() == 0x4100_8103);
    assert!(GET_PROTOCOL_FEATURES.code() == 0x8008_8104 && SET_PROTOCOL_FEATURES.code() == 0x4008_8105);
    assert!(IOTLB_GET_FD.code() == 0xc020_8110 && DEV_GET_FEATURES.code() == 0x8008_8111);
    assert!(DEV_SET_CONFIG.code() == 0x4008_8112 && DEV_INJECT_CONFIG_IRQ.code() == 0x8113);
    assert!(VQ_SETUP.code() == 0x4020_8114 && VQ_GET_INFO.code() == 0xc030_8115);
    assert!(VQ_SETUP_KICKFD.code() == 0x4008_8116 && VQ_INJECT_IRQ.code() == 0x4004_8117);
    assert!(IOTLB_REG_UMEM.code() == 0x4030_8118 && IOTLB_DEREG_UMEM.code() == 0x4030_8119);
    assert!(IOTLB_GET_INFO.code() == 0xc030_811a && IOTLB_GET_FD2.code() == 0xc050_811b);
};
