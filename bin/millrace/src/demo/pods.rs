//! The demo's pods: two with a kernel netdev, one with two vhost-user sockets.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guest::load::{LightLoad, Load};
use guest::{Features, Guest, NetHeader, Notify};
use lab::Netns;
use serde_json::Value;
use wire::MacAddr;
use wire::build;

use super::node::Node;
use super::report::PacketRate;
use super::screen::detail;

/// Payload of a UDP datagram in a 64-byte frame: 64 less Ethernet, IPv4 and UDP headers.
const SMALL_PAYLOAD_BYTES: usize = 64 - 14 - 20 - 8;
const VHOST_CONTAINER: &str = "green";

/// A pod with a plain kernel netdev.
pub(super) struct KernelPod {
    pub(super) name: &'static str,
    /// What the runtime says of it (CNI_ARGS).
    arguments: String,
    /// Its network namespace.
    pub(super) netns: Netns,
    /// Its address in the demo's network.
    pub(super) address: Ipv4Addr,
}

/// What the CNI result says of one interface.
struct Attached {
    mac: String,
    address: Ipv4Addr,
    socket: Option<String>,
}

impl KernelPod {
    /// Makes the pod's namespace and attaches its eth0.
    pub(super) fn attach(node: &Node, name: &'static str) -> Result<KernelPod> {
        KernelPod::attach_with(node, name, String::new())
    }

    /// The same for a pod of a namespace, which policies and services know by its name.
    pub(super) fn attach_to(node: &Node, (namespace, name): (&str, &'static str)) -> Result<KernelPod> {
        KernelPod::attach_with(node, name, format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"))
    }

    fn attach_with(node: &Node, name: &'static str, arguments: String) -> Result<KernelPod> {
        let netns = Netns::new().context("a network namespace for a pod")?;
        let sandbox = Sandbox { container: name, netns: &netns.path(), arguments: &arguments };
        let (attached, took) = add(node, &sandbox, ("eth0", "tap"))?;
        say((node, name), "eth0", &attached, "kernel netdev (TAP)", took);
        Ok(KernelPod { name, arguments, netns, address: attached.address })
    }

    /// Detaches it.
    pub(super) fn detach(&self, node: &Node) -> Result<()> {
        let sandbox = Sandbox { container: self.name, netns: &self.netns.path(), arguments: &self.arguments };
        call(node, "DEL", &sandbox, ("eth0", "tap")).map(|_| ())
    }
}

/// What a runtime says of a pod with each call.
struct Sandbox<'a> {
    container: &'a str,
    netns: &'a Path,
    arguments: &'a str,
}

/// A pod with two vhost-user sockets, such as a packet processor has, driven by a virtio driver in this process.
pub(super) struct Green {
    netns: Netns,
    from: Attached,
    to: Attached,
}

impl Green {
    /// Attaches its eth0 and net1.
    pub(super) fn attach(node: &Node) -> Result<Green> {
        let netns = Netns::new().context("a network namespace for a pod")?;
        let sandbox = Sandbox { container: VHOST_CONTAINER, netns: &netns.path(), arguments: "" };
        let (from, first) = add(node, &sandbox, ("eth0", "vhost-user"))?;
        say((node, VHOST_CONTAINER), "eth0", &from, "vhost-user socket", first);
        let (to, second) = add(node, &sandbox, ("net1", "vhost-user"))?;
        say((node, VHOST_CONTAINER), "net1", &to, "vhost-user socket", second);
        Ok(Green { netns, from, to })
    }

    /// Sends 64-byte frames from eth0 to net1 for `duration`.
    pub(super) fn run(&self, node: &Node, duration: Duration) -> Result<PacketRate> {
        let mut sender = driver(&self.from)?;
        let mut receiver = driver(&self.to)?;
        let path = build::Path {
            source_mac: mac(&self.from)?,
            destination_mac: mac(&self.to)?,
            source: self.from.address.into(),
            destination: self.to.address.into(),
        };
        let frame = build::udp(path, (4000, 4000), &[0; SMALL_PAYLOAD_BYTES]);
        let mut load = LightLoad::new(&mut sender, &mut receiver, &NetHeader::default(), &frame)?;
        load.run(duration / 10).context("warming up")?;
        let before = node.worker_cycles()?;
        let moved = load.run(duration).context("64-byte packets")?;
        let after = node.worker_cycles()?;
        let frames = (after.frames - before.frames).max(1);
        Ok(PacketRate {
            mpps: moved.frames as f64 / moved.elapsed.as_secs_f64().max(1e-9) / 1e6,
            busy_cycles_per_packet: (after.busy - before.busy) as f64 / frames as f64,
        })
    }

    /// Detaches both interfaces.
    pub(super) fn detach(&self, node: &Node) -> Result<()> {
        for interface in ["net1", "eth0"] {
            let sandbox = Sandbox { container: VHOST_CONTAINER, netns: &self.netns.path(), arguments: "" };
            call(node, "DEL", &sandbox, (interface, "vhost-user"))?;
        }
        Ok(())
    }
}

fn driver(attached: &Attached) -> Result<Guest> {
    let socket = attached.socket.as_deref().context("the CNI result names no socket")?;
    let builder = Guest::builder().features(Features::RINGS).notify(Notify::Poll);
    builder.connect(socket).with_context(|| format!("the virtio driver on {socket}"))
}

fn mac(attached: &Attached) -> Result<MacAddr> {
    attached.mac.parse().context("the MAC address in the CNI result")
}

/// Attaches an interface of a kind.
fn add(node: &Node, sandbox: &Sandbox<'_>, interface: (&str, &str)) -> Result<(Attached, Duration)> {
    #[allow(clippy::disallowed_methods, reason = "the time of a call is shown")]
    let start = Instant::now();
    let result = call(node, "ADD", sandbox, interface)?;
    let took = start.elapsed();
    let text = |pointer: &str| result.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let address = text("/ips/0/address").context("the CNI result has no address")?;
    let address =
        address.split('/').next().unwrap_or_default().parse().context("the CNI result's address")?;
    let mac = text("/interfaces/0/mac").context("the CNI result has no MAC address")?;
    Ok((Attached { mac, address, socket: text("/interfaces/0/socketPath") }, took))
}

fn call(node: &Node, command: &str, sandbox: &Sandbox<'_>, (interface, kind): (&str, &str)) -> Result<Value> {
    let &Sandbox { container, netns, arguments } = sandbox;
    let netns = netns.to_string_lossy();
    let environment = [
        ("CNI_CONTAINERID", container),
        ("CNI_IFNAME", interface),
        ("CNI_NETNS", &netns),
        ("CNI_ARGS", arguments),
    ];
    node.cni(command, &environment, &node.network_config(kind))
        .with_context(|| format!("CNI {command} of {container}'s {interface}"))
}

fn say((node, pod): (&Node, &str), interface: &str, attached: &Attached, kind: &str, took: Duration) {
    let ms = took.as_secs_f64() * 1e3;
    detail(&format!(
        "{pod:<10}{interface:<6}{:<12}{}  {kind:<20}{ms:>6.1} ms   {}",
        attached.address.to_string(),
        attached.mac,
        node.own_name().unwrap_or_default(),
    ));
}
