//! Which station is the next hop to another node? What the kernel's own routes and neighbours say.
//!
//! The kernel resolves a neighbour when somebody asks it to (`NTF_USE`), and keeps asking while it is used. The switch's
//! packets are no use that it sees, so each look asks again about an entry that is not fresh.

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

/// The next hop of packets from `source` that leave by the netdev `uplink` to `to`.
pub(crate) fn find(uplink: &str, source: IpAddr, to: IpAddr) -> Result<NextHop, KernelError> {
    let netns = Netns::own()?;
    netns.netlink(async |handle| {
        let device = Device::get(&handle, netns.path(), uplink).await?;
        let source_mac = device.mac().filter(|mac| mac.is_unicast());
        let source_mac = source_mac.ok_or_else(|| refused(uplink, to, "it has no station address".into()))?;
        if !device.has_address(source).await? {
            return Err(refused(uplink, to, format!("it does not have this node's address {source}")));
        }
        let hop = route(&handle, (uplink, device.index()), to).await?;
        let mac = neighbour(&handle, (uplink, device.index()), hop).await?;
        let mtu_bytes = device.mtu_bytes().unwrap_or_default();
        Ok(NextHop { source_mac, mac, mtu_bytes })
    })
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

/// The station that has the address `hop` on the link; none while that is not known. Asks the kernel to find out.
async fn neighbour(
    handle: &Handle,
    (uplink, index): (&str, u32),
    hop: IpAddr,
) -> Result<Option<MacAddr>, KernelError> {
    let family = if hop.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut entries = Box::pin(handle.neighbours().get().set_address_family(family).execute());
    let mut found = None;
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(|error| refused(uplink, hop, error.to_string()))?;
        if entry.header.ifindex == index && address(&entry) == Some(hop) {
            found = Some((entry.header.state, station(&entry)));
        }
    }
    let is_lasting = |state: NeighbourState| {
        [NeighbourState::Reachable, NeighbourState::Permanent, NeighbourState::Noarp].contains(&state)
    };
    let knows = [NeighbourState::Stale, NeighbourState::Delay, NeighbourState::Probe];
    if !found.is_some_and(|(state, _)| is_lasting(state)) {
        let asked =
            handle.neighbours().add(index, hop).state(NeighbourState::None).flags(NeighbourFlags::Use);
        asked.replace().execute().await.map_err(|error| refused(uplink, hop, error.to_string()))?;
    }
    Ok(found.filter(|(state, _)| is_lasting(*state) || knows.contains(state)).and_then(|(_, mac)| mac))
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
