//! Which interface of the kernel is it, and how is it now?

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::NetdevError;
use crate::Link;
use crate::ifreq::{self, Name};

/// An interface, by its number: it may be renamed under us, and a new one of the same name is another.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) index: u32,
    /// As it was asked for.
    pub(super) netdev: String,
    /// A socket of its network namespace, to ask the kernel by.
    pub(super) control: OwnedFd,
}

impl Interface {
    /// The interface of that name in the caller's network namespace.
    pub(super) fn find(netdev: &str) -> Result<Self, NetdevError> {
        let name = Name::new(netdev).ok_or_else(|| NetdevError::Name(netdev.to_owned()))?;
        let control = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(NetdevError::at(netdev, "open a socket"))?;
        let index = name_to_index(&control, netdev).map_err(|errno| match errno {
            Errno::NODEV => NetdevError::Missing(netdev.to_owned()),
            errno => NetdevError::at(netdev, "look it up")(errno),
        })?;
        let family = hardware_family(&control, &name).map_err(NetdevError::at(netdev, "ask for its kind"))?;
        if family != libc::ARPHRD_ETHER {
            return Err(NetdevError::NotEthernet(netdev.to_owned()));
        }
        Ok(Self { index, netdev: netdev.to_owned(), control })
    }

    /// Its name now; `None` once it is deleted or in another network namespace.
    pub(super) fn name(&self) -> Option<Name> {
        index_to_name(&self.control, self.index).ok().and_then(|name| Name::new(&name))
    }

    /// False once it is deleted or in another network namespace.
    pub(super) fn exists(&self) -> bool {
        !matches!(index_to_name(&self.control, self.index), Err(Errno::NODEV))
    }

    /// Its MTU as it is now.
    pub(super) fn mtu(&self) -> io::Result<u32> {
        let mut request = self.name().ok_or(io::ErrorKind::NotFound)?.request();
        // SAFETY: SIOCGIFMTU takes an `ifreq` and writes its MTU.
        unsafe { ifreq::ioctl(self.control.as_fd(), libc::SIOCGIFMTU, &mut request)? };
        // SAFETY: the kernel wrote this member; any bytes are one of its values.
        let mtu_bytes = unsafe { request.ifr_ifru.ifru_mtu };
        u32::try_from(mtu_bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// The link as it is now; `detail` says more about one that is up.
    pub(super) fn link(&self, detail: impl FnOnce() -> String) -> Link {
        let down = |detail: String| Link { up: false, detail };
        let Some(name) = self.name() else {
            return down(format!("{}: the interface was deleted", self.netdev));
        };
        let shown = name.to_string_lossy();
        match ifreq::flags_of(&self.control, &name) {
            Ok(flags) if flags & libc::IFF_UP == 0 => down(format!("{shown}: the interface is set down")),
            Ok(flags) if flags & libc::IFF_RUNNING == 0 => down(format!("{shown}: no carrier")),
            Ok(_) => Link { up: true, detail: format!("{shown}: {}", detail()) },
            Err(error) => down(format!("{shown}: {error}")),
        }
    }
}

/// What kind of hardware the interface claims to be (ARPHRD_*).
fn hardware_family(control: &OwnedFd, name: &Name) -> io::Result<u16> {
    let mut request = name.request();
    // SAFETY: SIOCGIFHWADDR takes an `ifreq` and writes its hardware address.
    unsafe { ifreq::ioctl(control.as_fd(), libc::SIOCGIFHWADDR, &mut request)? };
    // SAFETY: the kernel wrote this member; any bytes are one of its values.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    Ok(address.sa_family)
}
