//! How does the intent reach the Linux kernel? Network namespaces, netdevs, addresses, routes, devices of the vDPA bus, bind
//! mounts and files.
//!
//! [`Linux`] implements [`reconcile::Kernel`]. It keeps no state: every call observes first, every change is idempotent,
//! every error names the object and, where one is known, the remedy.
//!
//! **Invariant:** no thread but a short-lived one of its own ever enters a pod's namespace.
#![forbid(unsafe_code)]
mod device;
mod files;
mod host;
mod mounts;
mod netns;
mod next_hop;
mod outside;
pub mod sriov;
mod sysfs;
pub mod vdpa;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reconcile::Kernel;
use reconcile::kernel::{
    HostRules, KernelError, LinkConfig, LinkState, NewVdpaDevice, NextHop, Ownership, Route, VdpaDevice,
    VdpaDriver,
};

use rustix::io::Errno;

use device::Device;
use netns::Netns;

/// The kernel that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linux;

impl Kernel for Linux {
    fn netns_exists(&self, netns: &Path) -> bool {
        Netns::open(netns).is_ok()
    }

    fn link(&self, netns: &Path, name: &str) -> Result<Option<LinkState>, KernelError> {
        Netns::open(netns)?.netlink(async |handle| match Device::find(&handle, netns, name).await? {
            Some(device) => device.state().await.map(Some),
            None => Ok(None),
        })
    }

    fn configure_link(&self, netns: &Path, config: &LinkConfig) -> Result<(), KernelError> {
        Netns::open(netns)?
            .netlink(async |handle| Device::get(&handle, netns, &config.name).await?.configure(config).await)
    }

    fn remove_routes(&self, netns: &Path, name: &str, routes: &[Route]) -> Result<(), KernelError> {
        Netns::open(netns)?.netlink(async |handle| {
            let device = Device::get(&handle, netns, name).await?;
            for route in routes {
                device.remove_route(route).await?;
            }
            Ok(())
        })
    }

    fn put_host_rules(&self, rules: Option<&HostRules>) -> Result<(), KernelError> {
        host::put(rules)
    }

    fn delete_link(&self, netns: &Path, name: &str) -> Result<(), KernelError> {
        // With the namespace went its devices.
        let Ok(open) = Netns::open(netns) else { return Ok(()) };
        open.netlink(async |handle| match Device::find(&handle, netns, name).await? {
            // A device of another kind was there before us: an ADD that failed for its sake must not delete it.
            Some(device) if device.is_tun() => device.delete().await,
            _ => Ok(()),
        })
    }

    fn next_hops(&self, uplink: &str, ways: &[(IpAddr, IpAddr)]) -> Vec<Result<NextHop, KernelError>> {
        next_hop::find(uplink, ways)
    }

    fn make_dir(&self, path: &Path, ownership: Ownership) -> Result<(), KernelError> {
        files::make_dir(path, ownership)
    }

    fn is_dir(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
    }

    fn remove_dir(&self, path: &Path) -> Result<(), KernelError> {
        files::remove_dir(path)
    }

    fn bind_mount(&self, source: &Path, target: &Path) -> Result<(), KernelError> {
        mounts::bind(source, target)
    }

    fn unmount(&self, target: &Path) -> Result<(), KernelError> {
        mounts::unbind(target)
    }

    fn write_file(&self, path: &Path, content: &[u8], ownership: Ownership) -> Result<(), KernelError> {
        files::write(path, content, ownership)
    }

    fn remove_file(&self, path: &Path) -> Result<(), KernelError> {
        files::remove(path)
    }

    fn can_vduse(&self, driver: VdpaDriver) -> Result<(), String> {
        vdpa::can_vduse(driver)
    }

    fn vdpa_device(&self, name: &str) -> Result<Option<VdpaDevice>, KernelError> {
        vdpa::device(name)
    }

    fn put_vdpa_device(&self, device: &NewVdpaDevice) -> Result<(), KernelError> {
        vdpa::put(device)
    }

    fn delete_vdpa_device(&self, name: &str) -> Result<(), KernelError> {
        vdpa::delete(name)
    }

    fn bind_vdpa_driver(&self, name: &str, driver: VdpaDriver) -> Result<(), KernelError> {
        vdpa::bind(name, driver)
    }

    fn adopt_vdpa_netdev(&self, name: &str, netns: &Path, interface: &str) -> Result<(), KernelError> {
        vdpa::netdev::adopt(name, netns, interface)
    }

    fn own_vhost_vdpa(&self, name: &str, ownership: Ownership) -> Result<PathBuf, KernelError> {
        vdpa::own(name, ownership)
    }

    fn is_vduse_broken(&self, name: &str) -> Result<bool, KernelError> {
        vdpa::is_vduse_broken(name)
    }

    fn destroy_vduse(&self, name: &str) -> Result<(), KernelError> {
        vdpa::destroy_vduse(name)
    }
}

/// The refusal to do `doing`, with a remedy where a person has one.
fn refused(doing: String, error: &std::io::Error) -> KernelError {
    use std::io::ErrorKind;
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => ": run the agent as root, or as the owner of the path",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ": make room on that file system",
        ErrorKind::ReadOnlyFilesystem => ": choose a directory on a writable file system",
        _ => "",
    };
    KernelError::Refused { doing, reason: format!("{error}{remedy}") }
}

/// The error that a netlink message's code stands for: 1 to 4095, negated (`MAX_ERRNO`).
fn errno_of(code: i32) -> Errno {
    match code.checked_neg() {
        Some(number @ 1..=4095) => Errno::from_raw_os_error(number),
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_of_when_the_code_is_none_is_an_io_error() {
        assert_eq!(errno_of(-19), Errno::NODEV);
        for code in [i32::MIN, -4096, 0, 7, i32::MAX] {
            assert_eq!(errno_of(code), Errno::IO, "{code}");
        }
    }
}
