//! What does a vhost-user port offer beyond what its rings can do?

use crate::virtio::Features;

/// The driver announces itself after a migration, so that nobody else has to.
pub(super) const NET_GUEST_ANNOUNCE: u64 = 1 << 21;
/// Guest pages that the device writes are to be marked in the log (VHOST_F_LOG_ALL).
pub(super) const LOG_ALL: u64 = 1 << 26;
/// Protocol features can be negotiated (VHOST_USER_F_PROTOCOL_FEATURES). With it, rings start disabled.
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;

/// What every port offers in GET_FEATURES, apart from what its configuration space shows.
pub(super) const OFFERED: u64 = Features::OFFERED.0 | NET_GUEST_ANNOUNCE | LOG_ALL | PROTOCOL_FEATURES;

/// The bits of GET_PROTOCOL_FEATURES (VHOST_USER_PROTOCOL_F_*).
pub(super) mod protocol {
    /// Several queue pairs.
    pub(in super::super) const MQ: u64 = 1 << 0;
    /// SET_LOG_BASE carries the log's memory.
    pub(in super::super) const LOG_SHMFD: u64 = 1 << 1;
    /// SEND_RARP.
    pub(in super::super) const RARP: u64 = 1 << 2;
    /// Requests can ask to be acknowledged.
    pub(in super::super) const REPLY_ACK: u64 = 1 << 3;
    /// NET_SET_MTU.
    pub(in super::super) const MTU: u64 = 1 << 4;
    /// GET_CONFIG: the only way for a program without a hypervisor to learn its MAC address. QEMU, which assigns addresses
    /// itself, warns at each connection that it makes no use of it.
    pub(in super::super) const CONFIG: u64 = 1 << 9;
    /// RESET_DEVICE.
    pub(in super::super) const RESET_DEVICE: u64 = 1 << 13;
    /// ADD_MEM_REG and REM_MEM_REG.
    pub(in super::super) const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// SET_STATUS and GET_STATUS.
    pub(in super::super) const STATUS: u64 = 1 << 16;

    /// What every port offers. BACKEND_REQ is not among them: the switch asks nothing of a frontend. Nor is INFLIGHT_SHMFD:
    /// chains are used in order, within the call that took them, so that the used index says all that an in-flight table
    /// could.
    pub(in super::super) const OFFERED: u64 =
        MQ | LOG_SHMFD | RARP | REPLY_ACK | MTU | CONFIG | RESET_DEVICE | CONFIGURE_MEM_SLOTS | STATUS;
}
