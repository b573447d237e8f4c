//! What is known of a virtqueue: how it is set up, where the driver put its rings, how far they are?

use crate::abi;

/// How a virtqueue is to be (`struct vduse_vq_config`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VqConfig {
    /// Which.
    pub index: u32,
    /// Entries that its rings may have, at least 1; the driver chooses fewer if it likes. Kernel drivers take a power of two
    /// for split rings.
    pub max_size: u16,
    /// Its group: 0, unless the device was created with API version 1 and more groups.
    pub group: u32,
}

impl VqConfig {
    /// The virtqueue `index` with at most `max_size` entries, in group 0.
    pub fn new(index: u32, max_size: u16) -> Self {
        Self { index, max_size, group: 0 }
    }

    pub(crate) fn to_abi(self) -> abi::VqConfig {
        abi::VqConfig {
            index: self.index,
            max_size: self.max_size,
            group: self.group,
            ..abi::VqConfig::default()
        }
    }
}

/// Where a packed virtqueue continues (virtio 1.3 §2.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackedState {
    /// The driver's wrap counter, as the device saw it last.
    pub last_avail_counter: bool,
    /// The descriptor that is next to be taken: 15 bits.
    pub last_avail_idx: u16,
    /// The device's wrap counter.
    pub last_used_counter: bool,
    /// The descriptor that is next to be given back: 15 bits.
    pub last_used_idx: u16,
}

/// Where a virtqueue continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VqState {
    /// A split virtqueue (virtio 1.3 §2.7).
    Split {
        /// The index in the available ring of the entry that is next to be taken; it wraps at 65 536.
        avail_index: u16,
    },
    /// A packed virtqueue.
    Packed(PackedState),
}

impl VqState {
    pub(crate) fn to_words(self) -> [u16; 4] {
        match self {
            Self::Split { avail_index } => [avail_index, 0, 0, 0],
            Self::Packed(state) => [
                state.last_avail_counter.into(),
                state.last_avail_idx & PACKED_IDX,
                state.last_used_counter.into(),
                state.last_used_idx & PACKED_IDX,
            ],
        }
    }
}

/// The bits of an index of a packed ring: the 16th is the wrap counter.
const PACKED_IDX: u16 = 0x7fff;

/// What the kernel knows of a virtqueue (`struct vduse_vq_info`).
///
/// The driver chose these numbers, and the driver may be a virtual machine: they are as hostile as what it writes into the
/// rings. Check the size against what was set up, and look the addresses up in the IOTLB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VqInfo {
    /// Which.
    pub index: u32,
    /// Entries of its rings; 0 before the driver has chosen. Not checked by the kernel.
    pub size: u32,
    /// Device address of the descriptor table (of the descriptor ring, if packed).
    pub desc_addr: u64,
    /// Device address of the driver area: the available ring, or the driver's event suppression.
    pub driver_addr: u64,
    /// Device address of the device area: the used ring, or the device's event suppression.
    pub device_addr: u64,
    /// The driver uses it: before that, the other fields mean nothing.
    pub ready: bool,
    state: [u16; 4],
}

impl VqInfo {
    pub(crate) fn from_abi(info: &abi::VqInfo) -> Self {
        Self {
            index: info.index,
            size: info.num,
            desc_addr: info.desc_addr,
            driver_addr: info.driver_addr,
            device_addr: info.device_addr,
            ready: info.ready != 0,
            state: info.state,
        }
    }

    /// Where the virtqueue was to *start*, as the driver said; its progress since then is not in it. Split or packed as
    /// the negotiated `features` say ([`crate::Device::features`]).
    ///
    /// A device that takes the virtqueue up again after a restart must know better: for a split ring whose buffers are
    /// given back in order, the used ring's index is where to continue.
    pub fn state(&self, features: u64) -> VqState {
        if features & crate::feature::RING_PACKED == 0 {
            return VqState::Split { avail_index: self.state[0] };
        }
        VqState::Packed(PackedState {
            last_avail_counter: self.state[0] & 1 != 0,
            last_avail_idx: self.state[1] & PACKED_IDX,
            last_used_counter: self.state[2] & 1 != 0,
            last_used_idx: self.state[3] & PACKED_IDX,
        })
    }
}

/// Why the kernel refuses what is asked of a virtqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueProblem {
    /// The device has fewer.
    #[error("the device has no such virtqueue")]
    NoSuchQueue,
    /// Set-up was refused.
    #[error("the device has no such virtqueue or group, or its driver runs already")]
    Setup,
    /// The kick descriptor was refused.
    #[error("the device has no such virtqueue, or the descriptor is no eventfd")]
    Kickfd,
    /// The interrupt was refused. Not an error for a device that is being reset just now.
    #[error("the device has no such virtqueue, its driver has not set DRIVER_OK, or it is suspended")]
    Interrupt,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature::RING_PACKED;

    #[test]
    fn a_state_is_read_as_it_was_written_whatever_else_the_bits_are() {
        let state = PackedState {
            last_avail_counter: true,
            last_avail_idx: 0x7abc,
            last_used_counter: false,
            last_used_idx: 5,
        };
        let info = VqInfo::from_abi(&abi::VqInfo {
            state: VqState::Packed(state).to_words().map(|word| word | 0x8000),
            ..abi::VqInfo::default()
        });
        assert_eq!(info.state(RING_PACKED), VqState::Packed(state));
        assert_eq!(info.state(0), VqState::Split { avail_index: 0x8001 });
        assert_eq!(VqState::Split { avail_index: 0xffff }.to_words(), [0xffff, 0, 0, 0]);
    }
}
