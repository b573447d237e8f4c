//! How does a port of the program become an open device?

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use local_api::switch_v1 as api;
use ports::Device;
use ports::netdev::{self, Mode, NetdevSpec, Take};
use ports::tap::{self, TapSpec};
use ports::vduse::{VduseControl, VduseSpec};
use ports::vhost_user::{Role, VhostUserControl, VhostUserSpec};
use wire::MacAddr;

use api::port::Device as Asked;

/// Opens devices. A trait, so that the switchboard is tested without a kernel.
pub(super) trait Devices: Send + Sync {
    /// Opens what `port` asks for.
    ///
    /// # Errors
    /// Why not, in a sentence for people.
    fn open(&self, port: &api::Port) -> Result<Device, String>;
}

/// Devices of the machine. The threads of a kind are started with its first port: a node without one has none for it.
#[derive(Default)]
pub(super) struct Machine {
    vhost_user: Mutex<Option<Arc<VhostUserControl>>>,
    vduse: Mutex<Option<Arc<VduseControl>>>,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self::default()
    }
}

/// What is there, or else what `start` makes.
fn started<T>(
    kind: &str,
    there: &Mutex<Option<Arc<T>>>,
    start: impl FnOnce() -> io::Result<Arc<T>>,
) -> Result<Arc<T>, String> {
    let mut there = there.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(control) = &*there {
        return Ok(Arc::clone(control));
    }
    let control = start().map_err(|error| format!("{kind} control thread: {error}"))?;
    Ok(Arc::clone(there.insert(control)))
}

impl Devices for Machine {
    fn open(&self, port: &api::Port) -> Result<Device, String> {
        let mac = first_mac(port)?;
        match port.device.as_ref().ok_or("it names no device: tap, vhost_user, vduse or netdev")? {
            Asked::Tap(device) => {
                tap::open(&tap_spec(device, mac, port.mtu_bytes)?).map_err(|error| error.to_string())
            }
            Asked::VhostUser(device) => {
                let control = started("vhost-user", &self.vhost_user, VhostUserControl::start)?;
                let spec = vhost_user_spec(device, mac, port.mtu_bytes)?;
                control.open(spec).map_err(|error| error.to_string())
            }
            Asked::Vduse(device) => {
                let control = started("VDUSE", &self.vduse, || VduseControl::start().map(Arc::new))?;
                let mtu_bytes = u16::try_from(port.mtu_bytes).unwrap_or(u16::MAX);
                let spec = VduseSpec { name: device.name.clone(), mac, mtu_bytes };
                control.open(&spec).map_err(|error| error.to_string())
            }
            Asked::Netdev(device) => netdev::open(&netdev_spec(device)?).map_err(|error| error.to_string()),
        }
    }
}

fn first_mac(port: &api::Port) -> Result<Option<MacAddr>, String> {
    let parse = |text: &String| text.parse().map_err(|error| format!("MAC {text:?}: {error}"));
    port.macs.first().map(parse).transpose()
}

fn tap_spec(device: &api::TapDevice, mac: Option<MacAddr>, mtu_bytes: u32) -> Result<TapSpec, String> {
    Ok(TapSpec {
        netns: (!device.netns.is_empty()).then(|| PathBuf::from(&device.netns)),
        queues: queues(device.queues)?,
        mac,
        mtu_bytes,
        ..TapSpec::named(&device.netdev)
    })
}

fn vhost_user_spec(
    device: &api::VhostUserDevice,
    mac: Option<MacAddr>,
    mtu_bytes: u32,
) -> Result<VhostUserSpec, String> {
    let role = match device.connect {
        true => Role::Connect,
        false => Role::Create { uid: device.uid, gid: device.gid, mode: device.mode },
    };
    Ok(VhostUserSpec {
        socket_path: PathBuf::from(&device.socket_path),
        role,
        queue_pairs: queues(device.queues)?,
        mac,
        mtu_bytes: u16::try_from(mtu_bytes).unwrap_or(u16::MAX),
    })
}

fn netdev_spec(device: &api::NetdevDevice) -> Result<NetdevSpec, String> {
    let take = match device.all {
        true if device.udp_ports.is_empty() && device.vlans.is_empty() => Take::All,
        true => return Err("it takes every frame, and names some: one of the two".into()),
        false => Take::Only {
            udp_ports: numbers("UDP port", &device.udp_ports)?,
            vlans: numbers("VLAN", &device.vlans)?,
        },
    };
    let mode = match api::NetdevMode::try_from(device.mode) {
        Ok(api::NetdevMode::Auto) => Mode::Auto,
        Ok(api::NetdevMode::Xdp) => Mode::Xdp,
        Ok(api::NetdevMode::Packet) => Mode::Packet,
        Err(_) => return Err(format!("{} is no mode of an interface that this switch knows", device.mode)),
    };
    Ok(NetdevSpec { netdev: device.netdev.clone(), take, mode })
}

fn numbers(what: &str, asked: &[u32]) -> Result<Vec<u16>, String> {
    let number = |asked: &u32| u16::try_from(*asked).map_err(|_| format!("{asked} is no {what}"));
    asked.iter().map(number).collect()
}

/// 0 stands for the usual: one.
fn queues(asked: u32) -> Result<u16, String> {
    u16::try_from(asked.max(1)).map_err(|_| format!("{asked} queues are more than a device can have"))
}

/// Whether `after` is another device than `before`, so that the port must be opened anew. What a netdev can change while
/// it is open (its MTU and address) is the agent's to change; a vhost-user program learns it only when it connects.
pub(super) fn differs(before: &api::Port, after: &api::Port) -> bool {
    match (&before.device, &after.device) {
        (Some(Asked::Tap(a)), Some(Asked::Tap(b))) => a != b,
        (Some(Asked::Vduse(a)), Some(Asked::Vduse(b))) => a != b,
        (Some(Asked::Netdev(a)), Some(Asked::Netdev(b))) => a != b,
        (a, b) => a != b || before.mtu_bytes != after.mtu_bytes || before.macs.first() != after.macs.first(),
    }
}

/// Whether two ports are the same netdev or socket, however set up: then the new one takes the old one up again.
pub(super) fn is_same_object(before: &api::Port, after: &api::Port) -> bool {
    match (&before.device, &after.device) {
        (Some(Asked::Tap(a)), Some(Asked::Tap(b))) => (&a.netns, &a.netdev) == (&b.netns, &b.netdev),
        (Some(Asked::VhostUser(a)), Some(Asked::VhostUser(b))) => a.socket_path == b.socket_path,
        (Some(Asked::Vduse(a)), Some(Asked::Vduse(b))) => a == b,
        (Some(Asked::Netdev(a)), Some(Asked::Netdev(b))) => a.netdev == b.netdev,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_gives_is_all_or_named() {
        let asked = api::NetdevDevice { netdev: "eth0".into(), udp_ports: vec![6081], ..Default::default() };
        let spec = netdev_spec(&asked).unwrap();
        assert_eq!(spec.take, Take::Only { udp_ports: vec![6081], vlans: vec![] });
        let all = api::NetdevDevice { all: true, udp_ports: vec![], ..asked.clone() };
        assert_eq!(netdev_spec(&all).unwrap().take, Take::All);
        assert!(netdev_spec(&api::NetdevDevice { all: true, ..asked.clone() }).is_err());
        assert!(netdev_spec(&api::NetdevDevice { vlans: vec![65_536], ..asked.clone() }).is_err());
        assert!(netdev_spec(&api::NetdevDevice { mode: 9, ..asked }).is_err());
    }
}
