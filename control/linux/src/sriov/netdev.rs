//! How does the netdev of a virtual function come into a pod, and back to the node as it was?
//!
//! It is known by the function that it belongs to, which the kernel tells of every netdev in every namespace
//! (`IFLA_PARENT_DEV_NAME`, since Linux 5.14). No name is trusted: a pod may rename its own, and the kernel does where a
//! namespace ends, and its netdev's name is taken on the node (`dev7`).

use std::path::Path;
use std::time::Duration;

use reconcile::kernel::KernelError;
use rustix::io::Errno;
use wire::MacAddr;

use super::link::{self, Link};
use super::sysfs::Sysfs;
use super::vf::Vf;
use super::{driver, vfio};
use crate::netns::Netns;
use reconcile::cards::{NetdevPlace, NetdevState};

/// How often a netdev is looked for, and how many times: a driver makes it a moment after it took the function, and a
/// namespace gives it back a moment after its end.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
pub(super) const LOOKS: u32 = 200;
/// How many times a name is waited for, which another function's netdev may have for a moment only: until its driver has started,
/// which takes a busy machine seconds.
const NAME_LOOKS: u32 = 200;

/// The netdev of a function in a namespace.
fn find(netns: &Netns, vf: &Vf) -> Result<Option<Link>, KernelError> {
    let parent = vf.address.to_string();
    let links = link::list(netns)?.into_iter().filter(|link| link.parent.as_ref() == Some(&parent));
    Ok(links.min_by_key(|link| link.index))
}

/// The netdev on the node, which nobody uses; none: its driver makes none.
pub(super) fn free(vf: &Vf) -> Result<Option<Link>, KernelError> {
    let refuse =
        |reason: String| KernelError::Refused { doing: format!("{vf}: take it from the node"), reason };
    match find(&Netns::own()?, vf)? {
        Some(link) if link.controller.is_some() => {
            let name = &link.name;
            Err(refuse(format!("its netdev {name} is part of a bridge or bond: `ip link set {name} nomaster`")))
        }
        Some(link) => Ok(Some(link)),
        None if Sysfs::of_kernel().has_netdev(vf.address) => Err(refuse(
            "its netdev is in another network namespace: another pod has it; delete that one first, or choose another VF"
                .to_owned(),
        )),
        None => Ok(None),
    }
}

/// As [`free`], of a function that has been made a moment ago too: its driver may not have come to the netdev yet.
pub(super) fn settled(vf: &Vf) -> Result<Option<Link>, KernelError> {
    let mut looks = 0;
    loop {
        looks += 1;
        let link = free(vf)?;
        if link.is_some() || looks == LOOKS || vf.driver()?.as_deref().is_none_or(vfio::is_for_programs) {
            return Ok(link);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Moves it into the pod.
pub(super) fn give(vf: &Vf, place: &NetdevPlace) -> Result<(), KernelError> {
    let pod = Netns::open(&place.netns)?;
    let node = Netns::own()?;
    if let Some(link) = find(&pod, vf)? {
        rename(vf, &pod, &link, &place.name)?;
        set_mtu(vf, &pod, &link, place.mtu_bytes)?;
        return set_mac(vf, &pod, &link, place.mac);
    }
    refuse_taken(vf, &pod, &place.name)?;
    let link = settled(vf)?.ok_or_else(|| none(vf))?;
    let link = dress(vf, &node, link, place.mac)?;
    set_mtu(vf, &node, &link, place.mtu_bytes)?;
    let doing =
        || format!("{vf}: move its netdev {} into {} as {}", link.name, pod.path().display(), place.name);
    let change = link.change().down().setns_by_fd(pod.raw_fd()).name(place.name.clone());
    link::set(&node, change).map_err(|errno| link::refused(doing(), errno))
}

fn refuse_taken(vf: &Vf, pod: &Netns, name: &str) -> Result<(), KernelError> {
    if !is_taken(&link::list(pod)?, name) {
        return Ok(());
    }
    let reason = "the pod has a netdev of that name: choose another name for one of them".to_owned();
    Err(KernelError::Refused { doing: format!("{vf}: move its netdev into the pod as {name}"), reason })
}

/// The netdev with the address `mac`. A driver of a virtual function may take one from the card alone, and that only when it
/// starts: so it is started anew where it refuses.
fn dress(vf: &Vf, node: &Netns, link: Link, mac: Option<MacAddr>) -> Result<Link, KernelError> {
    let Some(mac) = mac.filter(|mac| *mac != link.mac) else { return Ok(link) };
    match try_mac(node, &link, mac) {
        Ok(()) => Ok(link),
        Err(Errno::ADDRNOTAVAIL | Errno::ACCESS | Errno::PERM | Errno::INVAL) => {
            driver::restart(vf)?;
            let link = wait(vf, node)?;
            set_mac(vf, node, &link, Some(mac))?;
            Ok(link)
        }
        Err(errno) => Err(refused_mac(vf, &link, mac, errno)),
    }
}

fn set_mac(vf: &Vf, netns: &Netns, link: &Link, mac: Option<MacAddr>) -> Result<(), KernelError> {
    let Some(mac) = mac.filter(|mac| *mac != link.mac) else { return Ok(()) };
    try_mac(netns, link, mac).map_err(|errno| refused_mac(vf, link, mac, errno))
}

fn try_mac(netns: &Netns, link: &Link, mac: MacAddr) -> Result<(), Errno> {
    link::set(netns, link.change().address(mac.0.to_vec()))
}

fn refused_mac(vf: &Vf, link: &Link, mac: MacAddr, errno: Errno) -> KernelError {
    let doing = format!("{vf}: give its netdev {} the address {mac}", link.name);
    match errno {
        Errno::ADDRNOTAVAIL | Errno::ACCESS | Errno::INVAL => {
            let said = std::io::Error::from(errno);
            let reason = format!(
                "{said}: the card does not let the function have it: give the same as mac of the configuration, or set trust on"
            );
            KernelError::Refused { doing, reason }
        }
        _ => link::refused(doing, errno),
    }
}

fn set_mtu(vf: &Vf, netns: &Netns, link: &Link, mtu_bytes: Option<u32>) -> Result<(), KernelError> {
    let Some(mtu_bytes) = mtu_bytes.filter(|mtu_bytes| *mtu_bytes != link.mtu_bytes) else { return Ok(()) };
    let (doing, name) = (format!("{vf}: set the MTU of its netdev to {mtu_bytes}"), &link.name);
    link::set(netns, link.change().mtu(mtu_bytes)).map_err(|errno| match errno {
        Errno::INVAL => {
            let reason = format!(
                "its driver does not take it: `ip -d link show {name}` names minmtu and maxmtu, and some cards want {} to \
                 have it first",
                vf.pf_netdev
            );
            KernelError::Refused { doing, reason }
        }
        _ => link::refused(doing, errno),
    })
}

fn rename(vf: &Vf, netns: &Netns, link: &Link, name: &str) -> Result<(), KernelError> {
    try_rename(netns, link, name).map_err(|errno| refused_name(vf, link, name, errno))
}

fn try_rename(netns: &Netns, link: &Link, name: &str) -> Result<(), Errno> {
    if link.name == name {
        return Ok(());
    }
    link::set(netns, link.change().down().name(name.to_owned()))
}

fn refused_name(vf: &Vf, link: &Link, name: &str, errno: Errno) -> KernelError {
    link::refused(format!("{vf}: call its netdev {} {name}", link.name), errno)
}

/// The netdev on the node, once it is there.
fn wait(vf: &Vf, node: &Netns) -> Result<Link, KernelError> {
    for _ in 0..LOOKS {
        if let Some(link) = find(node, vf)? {
            return Ok(link);
        }
        if vf.driver()?.as_deref().is_none_or(vfio::is_for_programs) {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(none(vf))
}

/// Why there is no netdev on the node.
fn none(vf: &Vf) -> KernelError {
    let driver = vf.driver().ok().flatten();
    let is_elsewhere = Sysfs::of_kernel().has_netdev(vf.address);
    let reason = match driver.as_deref() {
        None => "no driver has it: give it to its network driver".to_owned(),
        Some(driver) if vfio::is_for_programs(driver) => {
            format!("{driver} has it, which makes none: give it to its network driver")
        }
        Some(_) if is_elsewhere => {
            "it is in another network namespace: another pod has it; delete that one first, or choose another VF".to_owned()
        }
        Some(driver) => format!("its driver {driver} has made none: see the kernel's log"),
    };
    KernelError::Refused { doing: format!("{vf}: look for its netdev"), reason }
}

/// Takes it out of the pod, if it is there, and waits until it is on the node.
pub(super) fn take_out(vf: &Vf, netns: Option<&Path>, name: &str) -> Result<Link, KernelError> {
    let node = Netns::own()?;
    // With the namespace went its netdevs, or they are about to come back.
    if let Some(pod) = netns.and_then(|netns| Netns::open(netns).ok())
        && let Some(link) = find(&pod, vf)?
    {
        let name = free_name(vf, &link, name)?;
        let change = link.change().down().setns_by_fd(node.raw_fd()).name(name.clone());
        let doing = || format!("{vf}: take its netdev {} out of {}", link.name, pod.path().display());
        match link::set(&pod, change) {
            // It came back by itself at this moment, or was removed.
            Ok(()) | Err(Errno::NODEV) => {}
            Err(errno) => return Err(link::refused(doing(), errno)),
        }
    }
    match wait(vf, &node) {
        // Somebody moved it on from the pod. A new start of its driver makes a new one on the node.
        Err(_) if Sysfs::of_kernel().has_netdev(vf.address) => {
            driver::restart(vf)?;
            wait(vf, &node)
        }
        result => result,
    }
}

/// Makes the netdev, which is on the node, be as it was, but for its being up. What could not be is told, and where its
/// name is taken it gets another one.
pub(super) fn put_back(vf: &Vf, link: Link, before: &NetdevState) -> (Vec<KernelError>, Option<String>) {
    let node = match Netns::own() {
        Ok(node) => node,
        Err(error) => return (vec![error], None),
    };
    let mut errors = Vec::new();
    let link = match dress(vf, &node, link.clone(), Some(before.mac)) {
        Ok(link) => link,
        Err(error) => {
            errors.push(error);
            find(&node, vf).ok().flatten().unwrap_or(link)
        }
    };
    errors.extend(set_mtu(vf, &node, &link, Some(before.mtu_bytes)).err());
    match name_back(vf, &node, link, &before.name) {
        Ok(note) => (errors, note),
        Err(error) => {
            errors.push(error);
            (errors, None)
        }
    }
}

/// Its flags as they were.
pub(super) fn put_flags_back(vf: &Vf, before: &NetdevState) -> Result<(), KernelError> {
    let node = Netns::own()?;
    let link = wait(vf, &node)?;
    let now = link.state();
    if (now.up, now.promiscuous, now.all_multicast) == (before.up, before.promiscuous, before.all_multicast) {
        return Ok(());
    }
    let change = link.change().promiscuous(before.promiscuous).allmulticast(before.all_multicast);
    let change = if before.up { change.up() } else { change.down() };
    let doing = || format!("{vf}: put the flags of its netdev {} back", link.name);
    link::set(&node, change).map_err(|errno| link::refused(doing(), errno))
}

/// Gives it the name that it had on the node. As long as another has that, it has one that no other netdev has: a driver
/// that starts takes the first name that is free, and two that came back at a time would wait for each other's for ever.
fn name_back(vf: &Vf, node: &Netns, mut link: Link, wanted: &str) -> Result<Option<String>, KernelError> {
    for _ in 0..NAME_LOOKS {
        let name = free_name(vf, &link, wanted)?;
        match try_rename(node, &link, &name) {
            Ok(()) if name == wanted => return Ok(None),
            Ok(()) => link.name = name,
            // A driver that starts took it between the look and the change.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(refused_name(vf, &link, &name, errno)),
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let name = &link.name;
    Ok(Some(format!("{vf}: its netdev is called {name}, for another has the name {wanted} now")))
}

/// The name that is wanted for it, or else one that no other function's netdev has.
fn free_name(vf: &Vf, link: &Link, wanted: &str) -> Result<String, KernelError> {
    let links = link::list(&Netns::own()?)?;
    let others: Vec<_> = links.into_iter().filter(|other| !is_same(other, link, vf)).collect();
    if !is_taken(&others, wanted) && !link.other_names.iter().any(|name| name == wanted) {
        return Ok(wanted.to_owned());
    }
    // 15 characters at most: IFNAMSIZ.
    let digits: String = vf.address.to_string().chars().filter(char::is_ascii_hexdigit).collect();
    Ok(format!("vf{digits}"))
}

fn is_same(other: &Link, link: &Link, vf: &Vf) -> bool {
    other.index == link.index && other.parent.as_deref() == Some(vf.address.to_string().as_str())
}

fn is_taken(links: &[Link], name: &str) -> bool {
    links.iter().any(|link| link.name == name || link.other_names.iter().any(|other| other == name))
}
