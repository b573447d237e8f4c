//! How is one netdev of a pod changed and read, over rtnetlink?
//!
//! Every change is idempotent: it asks for a state, and finding that state already there is success.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use reconcile::kernel::{KernelError, LinkConfig, LinkState, Route};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteVia,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;
use tokio_stream::{Stream, StreamExt};
use wire::MacAddr;

use crate::netns::Netns;

/// A netdev, found by name in the namespace that `handle` speaks to.
pub(crate) struct Device<'a> {
    netns: &'a Path,
    name: &'a str,
    handle: &'a Handle,
    link: LinkMessage,
}

impl<'a> Device<'a> {
    /// The device called `name`, or `None`.
    pub(crate) async fn find(
        handle: &'a Handle,
        netns: &'a Path,
        name: &'a str,
    ) -> Result<Option<Self>, KernelError> {
        let found = Box::pin(handle.link().get().match_name(name).execute()).next().await;
        match found {
            Some(Ok(link)) => Ok(Some(Self { netns, name, handle, link })),
            None => Ok(None),
            Some(Err(error)) if errno(&error) == Some(Errno::NODEV) => Ok(None),
            Some(Err(error)) => Err(refused(netns, name, "look for it", &error)),
        }
    }

    /// The device called `name`.
    pub(crate) async fn get(handle: &'a Handle, netns: &'a Path, name: &'a str) -> Result<Self, KernelError> {
        let missing = || KernelError::NoLink { netns: netns.into(), name: name.into() };
        Self::find(handle, netns, name).await?.ok_or_else(missing)
    }

    /// The device that belongs to `parent` (a device of a bus), or `None`.
    pub(crate) async fn find_child(
        handle: &'a Handle,
        netns: &'a Path,
        parent: &'a str,
    ) -> Result<Option<Self>, KernelError> {
        let mut links = Box::pin(handle.link().get().execute());
        while let Some(link) = links.next().await {
            let link = link.map_err(|error| refused(netns, parent, "look for its netdev", &error))?;
            let child = Self { netns, name: parent, handle, link };
            if child.parent().as_deref() == Some(parent) {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }

    /// Its name.
    pub(crate) fn own_name(&self) -> Option<&str> {
        self.link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Gives it another name, for which it is taken down.
    pub(crate) async fn rename(&self, name: &str) -> Result<(), KernelError> {
        let change = LinkMessageBuilder::<LinkUnspec>::new().index(self.index()).down().name(name.to_owned());
        let result = self.handle.link().set(change.build()).execute().await;
        result.map_err(|error| self.refused(&format!("call it {name}"), &error))
    }

    /// Moves it into `netns` as `name`, in one change: the kernel takes that name already for the move if the old one is
    /// taken there (`IFLA_IFNAME` beside `IFLA_NET_NS_FD`, `do_setlink`). It is down then, and without addresses.
    pub(crate) async fn move_to(&self, netns: &Netns, name: &str) -> Result<(), KernelError> {
        let change = LinkMessageBuilder::<LinkUnspec>::new()
            .index(self.index())
            .setns_by_fd(netns.raw_fd())
            .name(name.to_owned());
        let result = self.handle.link().set(change.build()).execute().await;
        let action = || format!("move it to {} as {name}", netns.path().display());
        result.map_err(|error| self.refused(&action(), &error))
    }

    /// Whether it is a TAP or TUN: the only kind that the switch makes.
    pub(crate) fn is_tun(&self) -> bool {
        self.link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Tun)),
            _ => false,
        })
    }

    /// How it is.
    pub(crate) async fn state(&self) -> Result<LinkState, KernelError> {
        Ok(LinkState {
            mac: self.mac().unwrap_or_default(),
            mtu_bytes: self.mtu_bytes().unwrap_or_default(),
            up: self.link.header.flags.contains(LinkFlags::Up),
            addresses: self.addresses().await?,
            routes: self.routes().await?,
            parent: self.parent(),
        })
    }

    /// Makes it be as `config` says: the link first, because an address needs it up and a route needs the address.
    pub(crate) async fn configure(&self, config: &LinkConfig) -> Result<(), KernelError> {
        self.set_link(config.mac, config.mtu_bytes).await?;
        for address in &config.addresses {
            self.put_address(*address).await?;
        }
        for route in &config.routes {
            self.put_route(route, &config.addresses).await?;
        }
        Ok(())
    }

    /// Deletes it.
    pub(crate) async fn delete(self) -> Result<(), KernelError> {
        match self.handle.link().del(self.index()).execute().await {
            Err(error) if errno(&error) == Some(Errno::NODEV) => Ok(()),
            result => result.map_err(|error| self.refused("delete it", &error)),
        }
    }

    /// Its number in its namespace.
    pub(crate) fn index(&self) -> u32 {
        self.link.header.index
    }

    /// Its station address.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => Some(MacAddr(bytes.as_slice().try_into().ok()?)),
            _ => None,
        })
    }

    /// The largest IP packet it takes.
    pub(crate) fn mtu_bytes(&self) -> Option<u32> {
        self.link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
    }

    fn parent(&self) -> Option<String> {
        self.link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::ParentDevName(name) => Some(name.clone()),
            _ => None,
        })
    }

    async fn set_link(&self, mac: MacAddr, mtu_bytes: u32) -> Result<(), KernelError> {
        let mut change = LinkMessageBuilder::<LinkUnspec>::new().index(self.index());
        let mut action = String::from("bring it up");
        if self.mtu_bytes() != Some(mtu_bytes) {
            change = change.mtu(mtu_bytes);
            action += &format!(", set its MTU to {mtu_bytes}");
        }
        if self.mac() != Some(mac) {
            change = change.address(mac.0.to_vec());
            action += &format!(", set its address to {mac}");
        }
        let result = self.handle.link().set(change.up().build()).execute().await;
        result.map_err(|error| self.refused(&action, &error))
    }

    async fn put_address(&self, address: IpNet) -> Result<(), KernelError> {
        let mut request =
            self.handle.address().add(self.index(), address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            // Control gave the address out once only: no second of duplicate address detection for each pod.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        let result = request.execute().await;
        result.map_err(|error| self.refused(&format!("give it the address {address}"), &error))
    }

    async fn put_route(&self, route: &Route, subnets: &[IpNet]) -> Result<(), KernelError> {
        let result =
            self.handle.route().add(route_message(route, self.index(), subnets)).replace().execute().await;
        result.map_err(|error| {
            let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            self.refused(&format!("route {}{via} through it", route.destination), &error)
        })
    }

    /// Removes a route through it; none that is not there.
    pub(crate) async fn remove_route(&self, route: &Route) -> Result<(), KernelError> {
        match self.handle.route().del(route_message(route, self.index(), &[])).execute().await {
            Err(error) if errno(&error) == Some(Errno::SRCH) => Ok(()),
            result => result
                .map_err(|error| self.refused(&format!("remove its route to {}", route.destination), &error)),
        }
    }

    /// Its addresses.
    pub(crate) async fn addresses(&self) -> Result<Vec<IpNet>, KernelError> {
        let request = self.handle.address().get().set_link_index_filter(self.index());
        let messages = self.collect(request.execute(), "list its addresses").await?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    async fn routes(&self) -> Result<Vec<Route>, KernelError> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut routes = Vec::new();
        for family in [v4, v6] {
            let messages = self.collect(self.handle.route().get(family).execute(), "list its routes").await?;
            routes.extend(messages.iter().filter_map(|message| route_of(message, self.index())));
        }
        Ok(routes)
    }

    async fn collect<T>(
        &self,
        stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
        action: &str,
    ) -> Result<Vec<T>, KernelError> {
        let items: Result<Vec<T>, _> = stream.collect().await;
        items.map_err(|error| self.refused(action, &error))
    }

    fn refused(&self, action: &str, error: &rtnetlink::Error) -> KernelError {
        refused(self.netns, self.name, action, error)
    }
}

/// The request that routes through the device `index`. A gateway outside of `subnets` is reached directly.
fn route_message(route: &Route, index: u32, subnets: &[IpNet]) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<IpAddr>::new().output_interface(index);
    builder = match route.gateway {
        Some(gateway) if subnets.iter().any(|subnet| subnet.contains(&gateway)) => builder,
        Some(_) => builder.onlink(),
        None => builder.scope(RouteScope::Link),
    };
    let mut message = builder.build();
    message.header.address_family = match route.destination {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    match (route.destination, route.gateway) {
        // An IPv6 next hop of an IPv4 destination (RFC 8950) has an attribute of its own.
        (IpNet::V4(_), Some(IpAddr::V6(gateway))) => {
            message.attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)));
        }
        (_, Some(gateway)) => message.attributes.push(RouteAttribute::Gateway(gateway.into())),
        (_, None) => {}
    }
    message
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // IFA_LOCAL is the address itself where the device has a peer; IFA_ADDRESS is the peer's then.
            AddressAttribute::Local(address) => return IpNet::new(*address, message.header.prefix_len).ok(),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}

/// The route that `message` tells of, if it goes through the device `index`, is of the main table, and was not derived
/// from an address by the kernel.
fn route_of(message: &RouteMessage, index: u32) -> Option<Route> {
    let (mut to, mut gateway, mut through_it, mut main) = (None, None, false, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => through_it = *oif == index,
            RouteAttribute::Table(table) => main = *table == u32::from(RouteHeader::RT_TABLE_MAIN),
            RouteAttribute::Destination(address) => to = ip_of(address),
            RouteAttribute::Gateway(address) => gateway = ip_of(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            _ => {}
        }
    }
    if !through_it || !main || message.header.protocol == RouteProtocol::Kernel {
        return None;
    }
    let anywhere = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let destination = IpNet::new(to.unwrap_or(anywhere), message.header.destination_prefix_length).ok()?;
    Some(Route { destination, gateway })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(crate::errno_of(message.raw_code())),
        _ => None,
    }
}

fn refused(netns: &Path, device: &str, action: &str, error: &rtnetlink::Error) -> KernelError {
    let reason = match errno(error) {
        Some(Errno::PERM) => "not permitted: CAP_NET_ADMIN over the network namespace is needed".to_owned(),
        Some(errno) => std::io::Error::from(errno).to_string(),
        None => error.to_string(),
    };
    KernelError::Refused { doing: format!("device {device} in {}: {action}", netns.display()), reason }
}
