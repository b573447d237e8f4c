//! How does a port of the program become an open device?

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use local_api::switch_v1 as api;
use ports::Device;
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
        match port.device.as_ref().ok_or("it names no device: tap, vhost_user or vduse")? {
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
        (a, b) => a != b || before.mtu_bytes != after.mtu_bytes || before.macs.first() != after.macs.first(),
    }
}

/// Whether two ports are the same netdev or socket, however set up: then the new one takes the old one up again.
pub(super) fn is_same_object(before: &api::Port, after: &api::Port) -> bool {
    match (&before.device, &after.device) {
        (Some(Asked::Tap(a)), Some(Asked::Tap(b))) => (&a.netns, &a.netdev) == (&b.netns, &b.netdev),
        (Some(Asked::VhostUser(a)), Some(Asked::VhostUser(b))) => a.socket_path == b.socket_path,
        (Some(Asked::Vduse(a)), Some(Asked::Vduse(b))) => a == b,
        _ => false,
    }
}
