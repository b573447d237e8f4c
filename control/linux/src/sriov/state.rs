//! How was a virtual function before it was given to a pod? Everything that giving it changes, to be changed back.

use serde::{Deserialize, Serialize};
use wire::MacAddr;

use super::config::{VfLinkState, Vlan};

/// A virtual function as it was found. It belongs into the attachment's record before the first change, and is not read
/// anew as long as that exists: what is found then is what the attachment made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfState {
    /// What the card enforces.
    pub settings: VfSettings,
    /// The driver that had it; none: it was free.
    pub driver: Option<String>,
    /// The one driver that was allowed to have it; none: any.
    pub driver_override: Option<String>,
    /// Its netdev; none: its driver made none.
    pub netdev: Option<NetdevState>,
}

/// What the card enforces on a virtual function, as its physical function tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfSettings {
    /// The address; zero: the function has the choice.
    pub mac: MacAddr,
    /// The VLAN.
    pub vlan: Vlan,
    /// Frames from other addresses are dropped.
    pub spoof_check: bool,
    /// It may do what only the node may else.
    pub trust: bool,
    /// Its link.
    pub link_state: VfLinkState,
    /// What it may send at least, in Mbit/s; 0: nothing is kept for it.
    pub min_tx_rate_mbps: u32,
    /// What it may send at most, in Mbit/s; 0: no limit.
    pub max_tx_rate_mbps: u32,
}

/// The netdev of a virtual function, on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetdevState {
    /// Its name.
    pub name: String,
    /// The address it used.
    pub mac: MacAddr,
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// Administratively up.
    pub up: bool,
    /// It took frames to anybody.
    pub promiscuous: bool,
    /// It took frames to any group.
    pub all_multicast: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sriov::config::VlanProtocol;

    #[test]
    fn serde_when_written_and_read_forgets_nothing() {
        let state = VfState {
            settings: VfSettings {
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                vlan: Vlan::new(5, 3, VlanProtocol::Dot1ad).unwrap(),
                spoof_check: true,
                trust: false,
                link_state: VfLinkState::Disable,
                min_tx_rate_mbps: 1,
                max_tx_rate_mbps: 2,
            },
            driver: Some("igbvf".into()),
            driver_override: None,
            netdev: Some(NetdevState {
                name: "eth2".into(),
                mac: MacAddr([2, 0, 0, 0, 0, 2]),
                mtu_bytes: 1500,
                up: true,
                promiscuous: false,
                all_multicast: true,
            }),
        };
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<VfState>(&json).unwrap(), state);
    }
}
