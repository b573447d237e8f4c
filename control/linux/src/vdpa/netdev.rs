//! How does the netdev of a vDPA device come into a pod?
//!
//! The driver makes it in the node's namespace, under a name that the kernel, and then perhaps udev, chooses. It is known by
//! the virtio device that it belongs to, which the kernel tells of every netdev in every namespace (`IFLA_PARENT_DEV_NAME`,
//! since Linux 5.14): no name is trusted.

use std::path::Path;
use std::time::Duration;

use reconcile::kernel::KernelError;

use super::bus::Buses;
use crate::device::Device;
use crate::netns::Netns;

/// How often it is looked for, and how long: udev loads virtio_net for the first device of a node.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS: u32 = 500;
/// A device that is broken gets no driver. One that gets a driver gets it while it is put onto the bus.
const LOOKS_WITHOUT_DRIVER: u32 = 50;

/// Moves the netdev of the vDPA device `name` into `netns`, as `interface`.
pub(crate) fn adopt(name: &str, netns: &Path, interface: &str) -> Result<(), KernelError> {
    let buses = Buses::of_kernel();
    let pod = Netns::open(netns)?;
    let node = Netns::own()?;
    let mut looks = 0;
    loop {
        let virtio = buses.virtio(name).map_err(|error| refused(name, error.to_string()))?;
        if let Some((virtio, true)) = &virtio
            && (name_in(&pod, virtio, interface)? || move_from(&node, virtio, &pod, interface)?)
        {
            return Ok(());
        }
        let has_module = buses.has_driver("virtio", "virtio_net");
        let is_driven = matches!(virtio, Some((_, true)));
        looks += 1;
        if looks == LOOKS || (looks == LOOKS_WITHOUT_DRIVER && has_module && !is_driven) {
            return Err(refused(name, why_none(has_module, is_driven)));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Names it `interface`, if it is in the pod; false if it is not.
fn name_in(pod: &Netns, virtio: &str, interface: &str) -> Result<bool, KernelError> {
    pod.netlink(async |handle| match Device::find_child(&handle, pod.path(), virtio).await? {
        Some(device) if device.own_name() == Some(interface) => Ok(true),
        Some(device) => device.rename(interface).await.map(|()| true),
        None => Ok(false),
    })
}

/// Moves it from the node to the pod; false if it is not on the node.
fn move_from(node: &Netns, virtio: &str, pod: &Netns, interface: &str) -> Result<bool, KernelError> {
    node.netlink(async |handle| match Device::find_child(&handle, node.path(), virtio).await? {
        Some(device) => device.move_to(pod, interface).await.map(|()| true),
        None => Ok(false),
    })
}

fn why_none(has_module: bool, is_driven: bool) -> String {
    match (has_module, is_driven) {
        (false, _) => "virtio_net is not loaded: modprobe virtio_net".to_owned(),
        (true, true) => "it is neither in the pod nor on the node: somebody moved it elsewhere".to_owned(),
        (true, false) => {
            "virtio_net does not take it: the switch did not answer the kernel in time, which breaks a \
                          device of VDUSE for good; the next ADD makes a new one (see the switch's log)"
                .to_owned()
        }
    }
}

fn refused(name: &str, reason: String) -> KernelError {
    KernelError::Refused { doing: format!("vDPA device {name}: move its netdev into the pod"), reason }
}
