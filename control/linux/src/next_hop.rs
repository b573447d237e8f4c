//! Which station is the next hop to another node? What the kernel's own routes and neighbours say.
//!
//! The kernel resolves a neighbour when somebody asks it to (`NTF_USE`), and keeps asking while it is used. The switch's
//! packets are no use that it sees, so each look asks again about an entry that is not fresh.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use reconcile::kernel::{KernelError, NextHop};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio_stream::StreamExt;
use wire::MacAddr;

use crate::device::Device;
use crate::netns::Netns;

/// The next hops of packets that leave by the netdev `uplink`, each from a source to a destination; in their order.
pub(crate) fn find(uplink: &str, ways: &[(IpAddr, IpAddr)]) -> Vec<Result<NextHop, KernelError>> {
    let looked = Netns::own().and_then(|netns| {
        netns.netlink(async |handle| {
            let mut link = Link::look(&handle, &netns, uplink).await?;
            let mut found = Vec::with_capacity(ways.len());
            for (source, to) in ways {
                found.push(link.next_hop(*source, *to).await);
            }
            Ok(found)
        })
    });
    looked.unwrap_or_else(|error| vec![Err(error); ways.len()])
}

/// The uplink, as it is: each look lists its addresses and neighbours once, however many nodes there are.
struct Link<'a> {
    handle: &'a Handle,
    uplink: &'a str,
    index: u32,
    mac: Option<MacAddr>,
    mtu_bytes: u32,
    addresses: HashSet<IpAddr>,
    neighbours: HashMap<IpAddr, (NeighbourState, Option<MacAddr>)>,
    /// Whom the kernel was asked to look for.
    asked: HashSet<IpAddr>,
}

impl<'a> Link<'a> {
    async fn look(handle: &'a Handle, netns: &Netns, uplink: &'a str) -> Result<Self, KernelError> {
        let device = Device::get(handle, netns.path(), uplink).await?;
        let addresses = device.addresses().await?.iter().map(ipnet::IpNet::addr).collect();
        Ok(Self {
            handle,
            uplink,
            index: device.index(),
            mac: device.mac().filter(|mac| mac.is_unicast()),
            mtu_bytes: device.mtu_bytes().unwrap_or_default(),
            addresses,
            neighbours: neighbours(handle, (uplink, device.index())).await?,
            asked: HashSet::new(),
        })
    }

    async fn next_hop(&mut self, source: IpAddr, to: IpAddr) -> Result<NextHop, KernelError> {
        let refused = |reason: String| refused(self.uplink, to, reason);
        let source_mac = self.mac.ok_or_else(|| refused("it has no station address".into()))?;
        if !self.addresses.contains(&source) {
            return Err(refused(format!("it does not have this node's address {source}")));
        }
        let hop = route(self.handle, (self.uplink, self.index), to).await?;
        let mac = self.station(hop).await?;
        Ok(NextHop { source_mac, mac, mtu_bytes: self.mtu_bytes })
    }

    /// The station that has the address `hop` on the link; none while that is not known. Asks the kernel to find out.
    async fn station(&mut self, hop: IpAddr) -> Result<Option<MacAddr>, KernelError> {
        let found = self.neighbours.get(&hop).copied();
        let is_lasting = |state: NeighbourState| {
            [NeighbourState::Reachable, NeighbourState::Permanent, NeighbourState::Noarp].contains(&state)
        };
        let knows = [NeighbourState::Stale, NeighbourState::Delay, NeighbourState::Probe];
        if !found.is_some_and(|(state, _)| is_lasting(state)) && self.asked.insert(hop) {
            let entries = self.handle.neighbours();
            let asked = entries.add(self.index, hop).state(NeighbourState::None).flags(NeighbourFlags::Use);
            let asked = asked.replace().execute().await;
            asked.map_err(|error| refused(self.uplink, hop, error.to_string()))?;
        }
        Ok(found.filter(|(state, _)| is_lasting(*state) || knows.contains(state)).and_then(|(_, mac)| mac))
    }
}

/// The stations on the link, by their addresses.
async fn neighbours(
    handle: &Handle,
    (uplink, index): (&str, u32),
) -> Result<HashMap<IpAddr, (NeighbourState, Option<MacAddr>)>, KernelError> {
    let mut found = HashMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut entries = Box::pin(handle.neighbours().get().set_address_family(family).execute());
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|error| KernelError::Refused {
                doing: format!("list the neighbours of {uplink}"),
                reason: error.to_string(),
            })?;
            if let Some(address) = address(&entry).filter(|_| entry.header.ifindex == index) {
                found.insert(address, (entry.header.state, station(&entry)));
            }
        }
    }
    Ok(found)
}

/// The address of the next hop.
async fn route(handle: &Handle, (uplink, index): (&str, u32), to: IpAddr) -> Result<IpAddr, KernelError> {
    let message = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to, if to.is_ipv4() { 32 } else { 128 })
        .map_err(|error| refused(uplink, to, error.to_string()))?
        .build();
    let mut answers = Box::pin(handle.route().get(message).execute());
    let answer =
        answers.next().await.ok_or_else(|| refused(uplink, to, "the kernel gives no route".into()))?;
    let answer = answer.map_err(|error| refused(uplink, to, error.to_string()))?;
    if !answer.attributes.contains(&RouteAttribute::Oif(index)) {
        let reason = "the kernel's route to it is by another interface: name that one as the node's uplink";
        return Err(refused(uplink, to, reason.to_owned()));
    }
    Ok(gateway(&answer).unwrap_or(to))
}

fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn address(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry.attributes.iter().find_map(|attribute| match (attribute, entry.header.family) {
        (NeighbourAttribute::Destination(NeighbourAddress::Inet(address)), AddressFamily::Inet) => {
            Some(IpAddr::V4(*address))
        }
        (NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)), AddressFamily::Inet6) => {
            Some(IpAddr::V6(*address))
        }
        _ => None,
    })
}

fn station(entry: &NeighbourMessage) -> Option<MacAddr> {
    let of = |bytes: &Vec<u8>| Some(MacAddr(bytes.as_slice().try_into().ok()?));
    let mac = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => of(bytes),
        _ => None,
    });
    mac.filter(|mac| mac.is_unicast())
}

fn refused(uplink: &str, to: IpAddr, reason: String) -> KernelError {
    KernelError::Refused { doing: format!("find the way to {to} by {uplink}"), reason }
}
