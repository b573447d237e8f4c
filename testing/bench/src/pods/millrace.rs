//! Millrace between two pods: a `millrace switch` process that makes their TAP netdevs.

use std::path::Path;

use lab::Netns;
use local_api::switch_v1 as api;

use super::contender::{Contender, Link, Parts};
use crate::millrace_switch::SwitchProcess;
use crate::netns::{self, ADDRESSES, NETDEV};

/// Starts `program switch` with its worker on `worker_cpu`, and connects two new pods by it.
pub(crate) fn start(program: &Path, worker_cpu: usize, other_cpu: usize) -> anyhow::Result<Link> {
    let mut switch = SwitchProcess::start(program, worker_cpu, other_cpu)?;
    let pods = [netns::pod()?, netns::pod()?];
    switch.add_ports(pods.iter().enumerate().map(|(index, pod)| port(index, tap(pod))).collect())?;
    netns::configure(&pods)?;
    Ok(Link::new(Contender::MillraceTap, switch.version(), Parts::Millrace(switch), pods))
}

pub(super) fn tap(pod: &Netns) -> api::port::Device {
    api::port::Device::Tap(api::TapDevice {
        netns: pod.path().to_string_lossy().into_owned(),
        netdev: NETDEV.into(),
        queues: 1,
    })
}

/// The port of pod `index`, with `device` behind it.
pub(super) fn port(index: usize, device: api::port::Device) -> api::Port {
    api::Port {
        number: index as u32 + 1,
        name: format!("pod{index}"),
        network: 1,
        macs: vec![format!("02:00:00:00:4f:0{index}")],
        ips: vec![ADDRESSES[index].to_string()],
        port_security: true,
        mac_limit: 16,
        mtu_bytes: 1500,
        device: Some(device),
        ..Default::default()
    }
}
