//! The peer that every node has: a veth pair for each pod, and a Linux bridge.

use std::fs;

use super::contender::{Contender, Link, Parts};
use crate::netns::{self, NETDEV};

/// Connects two new pods by a bridge in a namespace of its own.
pub(crate) fn start() -> anyhow::Result<Link> {
    let bridge = netns::pod()?;
    bridge.ip("link add br0 type bridge")?;
    bridge.ip("link set br0 up")?;
    let pods = [netns::pod()?, netns::pod()?];
    for (index, pod) in pods.iter().enumerate() {
        let there = pod.path();
        bridge.ip(&format!("link add pod{index} type veth peer name {NETDEV} netns {}", there.display()))?;
        bridge.ip(&format!("link set pod{index} master br0 up"))?;
    }
    netns::configure(&pods)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = format!("Linux {}", release.trim());
    Ok(Link::new(Contender::Veth, version, Parts::Bridge { _netns: bridge }, pods))
}
