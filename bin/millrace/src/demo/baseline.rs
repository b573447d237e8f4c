//! What would the kernel alone give? Two namespaces on a veth + Linux bridge, the everyday pod network.

use std::io;
use std::net::Ipv4Addr;

use lab::Netns;

/// Two pods' namespaces on a bridge of their own; gone when it is dropped.
pub(super) struct Baseline {
    /// The namespace of the bridge.
    _bridge: Netns,
    /// One pod.
    pub(super) left: Netns,
    /// The other.
    pub(super) right: Netns,
}

/// The right pod's address.
pub(super) const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 3);

impl Baseline {
    pub(super) fn new() -> io::Result<Baseline> {
        let bridge = Netns::new()?;
        bridge.ip("link add br0 type bridge")?;
        bridge.ip("link set br0 up")?;
        let left = pod(&bridge, "left", Ipv4Addr::new(10, 78, 0, 2))?;
        let right = pod(&bridge, "right", RIGHT)?;
        Ok(Baseline { _bridge: bridge, left, right })
    }
}

fn pod(bridge: &Netns, name: &str, address: Ipv4Addr) -> io::Result<Netns> {
    let pod = Netns::new()?;
    bridge.ip(&format!("link add {name} type veth peer name eth0 netns {}", pod.path().display()))?;
    bridge.ip(&format!("link set {name} master br0 up"))?;
    pod.ip(&format!("addr add {address}/24 dev eth0"))?;
    pod.ip("link set eth0 up")?;
    Ok(pod)
}
