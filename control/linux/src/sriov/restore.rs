//! How does a virtual function become again what it was, whatever happened to it and to us meanwhile?
//!
//! 1. It is taken from its user: the netdev from the pod, or the function from vfio. As long as that fails, nothing else is
//!    done: the settings keep the user in its VLAN.
//! 2. The settings of the card.
//! 3. The driver, which takes its address from the card when it starts.
//! 4. The netdev: address, name, MTU.
//! 5. The settings once more: some cards tell of the address that the netdev uses as of one that was set.
//! 6. The flags, up among them.

use std::path::Path;

use reconcile::kernel::KernelError;

use super::driver::{self, Driving};
use super::sysfs::Sysfs;
use super::vf::Vf;
use super::{netdev, settings, vfio};
use model::PciAddress;
use reconcile::cards::{NetdevState, Restored, VfState};

/// Makes the function be as it was `before`, wherever between that and its use in the namespace `netns` it is now. A
/// function that is gone needs nothing.
pub fn restore(address: PciAddress, before: &VfState, netns: Option<&Path>) -> Restored {
    let mut done = Restored::default();
    match Vf::look(address) {
        Ok(Some(vf)) => all(&vf, before, netns, &mut done),
        Ok(None) => {}
        Err(error) => done.errors.push(error),
    }
    // Removed before, or under our hands.
    if matches!(Vf::look(address), Ok(None)) {
        done.errors.clear();
        done.notes =
            vec![format!("VF {address} is gone: somebody removed it, and with it all that was done to it")];
    }
    done
}

fn all(vf: &Vf, before: &VfState, netns: Option<&Path>, done: &mut Restored) {
    if let Err(error) = take_away(vf, before, netns) {
        done.errors.push(error);
        return;
    }
    done.add(settings::restore(vf, before));
    done.add(bind_back(vf, before).err());
    let found = before.netdev.as_ref().filter(|netdev| put_netdev_back(vf, netdev, netns, done));
    done.add(settings::restore(vf, before));
    done.add(found.and_then(|netdev| netdev::put_flags_back(vf, netdev).err()));
}

/// Takes it from its user.
fn take_away(vf: &Vf, before: &VfState, netns: Option<&Path>) -> Result<(), KernelError> {
    if vf.driver()? != before.driver {
        let nobody = Driving { driver: None, allowed: before.driver.as_deref() };
        return driver::change(&vf.to_string(), vf.address, nobody);
    }
    vfio::refuse_while_open(&Sysfs::of_kernel(), vf)?;
    match &before.netdev {
        Some(netdev) => netdev::take_out(vf, netns, &netdev.name).map(|_| ()),
        None => Ok(()),
    }
}

/// Gives it to the driver that it had.
fn bind_back(vf: &Vf, before: &VfState) -> Result<(), KernelError> {
    let driving = Driving { driver: before.driver.as_deref(), allowed: before.driver_override.as_deref() };
    driver::change(&vf.to_string(), vf.address, driving)
}

/// Takes its netdev out of the pod and gives it its address, name and MTU; false where there is none.
fn put_netdev_back(vf: &Vf, before: &NetdevState, netns: Option<&Path>, done: &mut Restored) -> bool {
    match netdev::take_out(vf, netns, &before.name) {
        Ok(link) => {
            let (errors, note) = netdev::put_back(vf, link, before);
            done.add(errors);
            done.notes.extend(note);
            true
        }
        Err(error) => {
            done.add([error]);
            false
        }
    }
}
