//! How does a vDPA device of a card, which was there before a pod had it, become again what it was?
//!
//! It is taken from its driver, and its netdev goes, wherever that is and whatever the pod made of it; then it is given to the
//! driver that it had, which makes a new one on the node. A netdev of it is known by the virtio device that it belongs to.

use reconcile::cards::{NetdevState, Restored, VdpaState};
use reconcile::kernel::KernelError;
use rustix::io::Errno;

use super::link::{self, Link};
use super::netdev::{LOOK_EVERY, LOOKS};
use crate::netns::Netns;
use crate::vdpa;

/// The device as it is: what belongs into the attachment's record before the first change.
pub(super) fn state(name: &str) -> Result<VdpaState, KernelError> {
    let refuse = |reason: String| KernelError::Refused {
        doing: format!("vDPA device {name}: take it from the node"),
        reason,
    };
    let found = vdpa::device(name)?.ok_or_else(|| refuse("it is gone from the bus".to_owned()))?;
    vdpa::refuse_while_open(&format!("vDPA device {name}: take it from the node"), found.path.as_deref())?;
    let netdev = match &found.virtio {
        None => None,
        Some(virtio) => {
            let elsewhere = "its netdev is in another network namespace: another pod has it; delete that one first, or \
                             choose another device";
            let link = on_node(virtio)?.ok_or_else(|| refuse(elsewhere.to_owned()))?;
            if link.controller.is_some() {
                let name = &link.name;
                return Err(refuse(format!(
                    "its netdev {name} is part of a bridge or bond: `ip link set {name} nomaster`"
                )));
            }
            Some(link.state())
        }
    };
    Ok(VdpaState { driver: found.driver, driver_override: vdpa::driver_override(name)?, netdev })
}

/// Makes the device be as it was.
pub(super) fn restore(name: &str, before: &VdpaState) -> Restored {
    let mut done = Restored::default();
    match vdpa::device(name) {
        Ok(Some(_)) if state(name).is_ok_and(|now| now == *before) => {}
        Ok(Some(_)) => {
            let result = all(name, before, &mut done);
            done.add(result.err());
        }
        Ok(None) => done.notes.push(format!("vDPA device {name} is gone: somebody removed it")),
        Err(error) => done.add([error]),
    }
    done
}

fn all(name: &str, before: &VdpaState, done: &mut Restored) -> Result<(), KernelError> {
    vdpa::rebind(name, before.driver, before.driver_override.as_deref())?;
    match &before.netdev {
        Some(netdev) => put_back(name, &wait(name)?, netdev, done),
        None => Ok(()),
    }
}

/// The netdev of a virtio device, if it is on the node.
fn on_node(virtio: &str) -> Result<Option<Link>, KernelError> {
    let links = link::list(&Netns::own()?)?;
    Ok(links.into_iter().find(|link| link.parent.as_deref() == Some(virtio)))
}

/// The netdev on the node, once its driver has made it.
fn wait(name: &str) -> Result<Link, KernelError> {
    for _ in 0..LOOKS {
        if let Some(virtio) = vdpa::device(name)?.and_then(|device| device.virtio)
            && let Some(link) = on_node(&virtio)?
        {
            return Ok(link);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(KernelError::Refused {
        doing: format!("vDPA device {name}: look for its netdev"),
        reason: "its driver has made none: modprobe virtio_net, or see the kernel's log".to_owned(),
    })
}

/// Name, address, MTU and flags, of a netdev that is new: down, and in nobody's use.
fn put_back(name: &str, link: &Link, before: &NetdevState, done: &mut Restored) -> Result<(), KernelError> {
    let node = Netns::own()?;
    let doing = || format!("vDPA device {name}: put its netdev {} back", link.name);
    if link.name != before.name {
        match link::set(&node, link.change().down().name(before.name.clone())) {
            Ok(()) => {}
            Err(Errno::EXIST) => done.notes.push(format!(
                "vDPA device {name}: its netdev is called {}, for another has the name {} now",
                link.name, before.name
            )),
            Err(errno) => return Err(link::refused(doing(), errno)),
        }
    }
    let mut change = link.change().promiscuous(before.promiscuous).allmulticast(before.all_multicast);
    if link.mac != before.mac {
        change = change.address(before.mac.0.to_vec());
    }
    if link.mtu_bytes != before.mtu_bytes {
        change = change.mtu(before.mtu_bytes);
    }
    let change = if before.up { change.up() } else { change.down() };
    link::set(&node, change).map_err(|errno| link::refused(doing(), errno))
}
