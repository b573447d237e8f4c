//! Which netdevs are there, whose are they, and how is one changed? What SR-IOV needs of rtnetlink.

use std::time::Duration;

use reconcile::kernel::KernelError;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, LinkVfInfo, Prop,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};
use rustix::io::Errno;
use tokio_stream::StreamExt;
use wire::MacAddr;

use crate::netns::Netns;
use reconcile::cards::NetdevState;

/// How often, and how many times in all, a driver is asked that is busy with a reset of its own.
const RETRY_EVERY: Duration = Duration::from_millis(100);
const TRIES: u32 = 50;

/// A netdev, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    /// Its name, and as the kernel tells it only.
    pub(super) name: String,
    /// Further names of it.
    pub(super) other_names: Vec<String>,
    pub(super) mac: MacAddr,
    pub(super) mtu_bytes: u32,
    pub(super) flags: LinkFlags,
    /// The bridge or bond that it is a port of.
    pub(super) controller: Option<u32>,
    /// The device of a bus that it belongs to.
    pub(super) parent: Option<String>,
    /// The switch in the card that it is a port of, and the name of the port.
    pub(super) switch: Option<Vec<u8>>,
    pub(super) port: Option<String>,
}

/// A change of a netdev.
pub(super) type Change = LinkMessageBuilder<LinkUnspec>;

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            other_names: Vec::new(),
            mac: MacAddr::default(),
            mtu_bytes: 0,
            flags: message.header.flags,
            controller: None,
            parent: None,
            switch: None,
            port: None,
        };
        for attribute in &message.attributes {
            link.take(attribute);
        }
        link
    }

    fn take(&mut self, attribute: &LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name.clone_from(name),
            LinkAttribute::PropList(properties) => {
                self.other_names = properties.iter().filter_map(other_name).collect();
            }
            LinkAttribute::Address(bytes) => {
                self.mac = bytes.as_slice().try_into().map(MacAddr).unwrap_or_default();
            }
            LinkAttribute::Mtu(mtu_bytes) => self.mtu_bytes = *mtu_bytes,
            LinkAttribute::Controller(index) => self.controller = Some(*index),
            LinkAttribute::ParentDevName(parent) => self.parent = Some(parent.clone()),
            LinkAttribute::PhysSwitchId(id) => self.switch = id.id.get(..id.len).map(<[u8]>::to_vec),
            LinkAttribute::PhysPortName(port) => self.port = Some(port.clone()),
            _ => {}
        }
    }

    /// A change of this netdev.
    pub(super) fn change(&self) -> Change {
        Change::new().index(self.index)
    }

    pub(super) fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }

    pub(super) fn state(&self) -> NetdevState {
        NetdevState {
            name: self.name.clone(),
            mac: self.mac,
            mtu_bytes: self.mtu_bytes,
            up: self.is_up(),
            promiscuous: self.flags.contains(LinkFlags::Promisc),
            all_multicast: self.flags.contains(LinkFlags::Allmulti),
        }
    }
}

fn other_name(property: &Prop) -> Option<String> {
    match property {
        Prop::AltIfName(name) => Some(name.clone()),
        _ => None,
    }
}

/// All netdevs of a namespace.
pub(super) fn list(netns: &Netns) -> Result<Vec<Link>, KernelError> {
    netns.netlink(async |handle| {
        let links: Result<Vec<_>, _> = Box::pin(handle.link().get().execute()).collect().await;
        let links = links.map_err(|error| refused("list the netdevs".to_owned(), errno(&error)))?;
        Ok(links.iter().map(Link::of).collect())
    })
}

/// What the card enforces on the virtual functions of a physical one, by its netdev.
pub(super) fn functions(netns: &Netns, pf: u32) -> Result<Vec<LinkVfInfo>, Errno> {
    let answer = netns.netlink(async |handle| {
        // Without their counters: the kernel's answer has place for the settings of 256 functions, but not for both.
        let mask = vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats];
        let request = handle.link().get().set_filter_mask(AddressFamily::Unspec, mask).match_index(pf);
        Ok(match Box::pin(request.execute()).next().await {
            Some(Ok(message)) => Ok(functions_of(message)),
            Some(Err(error)) => Err(errno(&error)),
            None => Err(Errno::NODEV),
        })
    });
    answer.unwrap_or(Err(Errno::PERM))
}

fn functions_of(message: LinkMessage) -> Vec<LinkVfInfo> {
    let mut attributes = message.attributes.into_iter();
    let found = attributes.find_map(|attribute| match attribute {
        LinkAttribute::VfInfoList(functions) => Some(functions),
        _ => None,
    });
    found.unwrap_or_default()
}

/// Changes a netdev; asks again for a while where its driver is busy.
pub(super) fn set(netns: &Netns, change: Change) -> Result<(), Errno> {
    let message = change.build();
    let answer = netns.netlink(async |handle| Ok(set_patiently(&handle, &message).await));
    // The one thing that this netlink refuses is to enter the namespace.
    answer.unwrap_or(Err(Errno::PERM))
}

async fn set_patiently(handle: &Handle, message: &LinkMessage) -> Result<(), Errno> {
    let mut tries = 0;
    loop {
        tries += 1;
        match handle.link().set(message.clone()).execute().await.map_err(|error| errno(&error)) {
            Err(Errno::AGAIN | Errno::BUSY) if tries < TRIES => std::thread::sleep(RETRY_EVERY),
            result => return result,
        }
    }
}

fn errno(error: &rtnetlink::Error) -> Errno {
    match error {
        rtnetlink::Error::NetlinkError(message) => crate::errno_of(message.raw_code()),
        _ => Errno::IO,
    }
}

/// The refusal to do `doing`, with the remedies that are the same everywhere.
pub(super) fn refused(doing: String, errno: Errno) -> KernelError {
    let remedy = match errno {
        Errno::PERM | Errno::ACCESS => ": CAP_NET_ADMIN is needed, here and over the network namespace",
        Errno::NODEV => ": it is gone",
        Errno::AGAIN | Errno::BUSY => ": its driver has been busy for seconds, with a reset maybe; try again",
        _ => "",
    };
    KernelError::Refused { doing, reason: format!("{}{remedy}", std::io::Error::from(errno)) }
}
