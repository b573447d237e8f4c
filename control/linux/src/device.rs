//! How is one netdev of a pod changed and read, over rtnetlink?
//!
//! Every change is idempotent: it asks for a state, and finding that state already there is success.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;
use tokio_stream::{Stream, StreamExt};
use wire::MacAddr;

use crate::LinuxError;

/// One route of a pod's main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRoute {
    /// Where to.
    pub(crate) to: IpNet,
    /// By whom; `None`: directly, on the link.
    pub(crate) gateway: Option<IpAddr>,
    /// Among routes to one destination, the lowest is used. `None`: the kernel's default.
    pub(crate) priority: Option<u32>,
    /// The MTU towards there, in bytes.
    pub(crate) mtu_bytes: Option<u32>,
}

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
    ) -> Result<Option<Self>, LinuxError> {
        let found = Box::pin(handle.link().get().match_name(name).execute()).next().await;
        match found {
            Some(Ok(link)) => Ok(Some(Self { netns, name, handle, link })),
            None => Ok(None),
            Some(Err(error)) if errno(&error) == Some(Errno::NODEV) => Ok(None),
            Some(Err(error)) => Err(refused(netns, name, "look for it", &error)),
        }
    }

    /// The device called `name`.
    pub(crate) async fn get(handle: &'a Handle, netns: &'a Path, name: &'a str) -> Result<Self, LinuxError> {
        let missing = || LinuxError::NoDevice { netns: netns.into(), device: name.into() };
        Self::find(handle, netns, name).await?.ok_or_else(missing)
    }

    /// Its Ethernet address.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => Some(MacAddr(bytes.as_slice().try_into().ok()?)),
            _ => None,
        })
    }

    /// Its MTU in bytes.
    pub(crate) fn mtu_bytes(&self) -> Option<u32> {
        self.link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
    }

    /// Whether it is administratively up.
    pub(crate) fn up(&self) -> bool {
        self.link.header.flags.contains(LinkFlags::Up)
    }

    /// Whether it is a TAP or TUN.
    pub(crate) fn is_tun(&self) -> bool {
        self.link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Tun)),
            _ => false,
        })
    }

    /// Sets MTU and Ethernet address, then brings it up.
    pub(crate) async fn set_link(&self, mac: Option<MacAddr>, mtu_bytes: u32) -> Result<(), LinuxError> {
        let mut change = LinkMessageBuilder::<LinkUnspec>::new().index(self.link.header.index);
        let mut action = String::from("bring it up");
        if self.mtu_bytes() != Some(mtu_bytes) {
            change = change.mtu(mtu_bytes);
            action += &format!(", set its MTU to {mtu_bytes}");
        }
        if let Some(mac) = mac.filter(|mac| self.mac() != Some(*mac)) {
            change = change.address(mac.0.to_vec());
            action += &format!(", set its address to {mac}");
        }
        self.handle.link().set(change.up().build()).execute().await.map_err(|e| self.refused(&action, &e))
    }

    /// Gives it `address`, whose prefix length is that of the subnet.
    pub(crate) async fn put_address(&self, address: IpNet) -> Result<(), LinuxError> {
        let mut request =
            self.handle.address().add(self.link.header.index, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            // The agent assigned the address, so nobody else has it: no second of duplicate address detection per pod.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        let result = request.execute().await;
        result.map_err(|error| self.refused(&format!("give it the address {address}"), &error))
    }

    /// Its addresses, the kernel's own link-local ones left out.
    pub(crate) async fn addresses(&self) -> Result<Vec<IpNet>, LinuxError> {
        let request = self.handle.address().get().set_link_index_filter(self.link.header.index);
        let messages = self.collect(request.execute(), "list its addresses").await?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    /// Routes through it. A gateway outside of its subnets is reached directly (`onlink`).
    pub(crate) async fn put_route(&self, route: &DeviceRoute, subnets: &[IpNet]) -> Result<(), LinuxError> {
        let message = self.route_message(route, subnets);
        let result = self.handle.route().add(message).replace().execute().await;
        result.map_err(|error| {
            let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            self.refused(&format!("route {}{via}", route.to), &error)
        })
    }

    /// The routes through it, of the main table.
    pub(crate) async fn routes(&self) -> Result<Vec<DeviceRoute>, LinuxError> {
        let mut routes = Vec::new();
        let (v4, v6) = (
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        );
        for family in [v4, v6] {
            let messages = self.collect(self.handle.route().get(family).execute(), "list its routes").await?;
            routes.extend(messages.iter().filter_map(|message| route_of(message, self.link.header.index)));
        }
        Ok(routes)
    }

    /// Deletes it.
    pub(crate) async fn delete(self) -> Result<(), LinuxError> {
        match self.handle.link().del(self.link.header.index).execute().await {
            Err(error) if errno(&error) == Some(Errno::NODEV) => Ok(()),
            result => result.map_err(|error| self.refused("delete it", &error)),
        }
    }

    fn route_message(&self, route: &DeviceRoute, subnets: &[IpNet]) -> RouteMessage {
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .table_id(RouteHeader::RT_TABLE_MAIN.into())
            .output_interface(self.link.header.index);
        if let Some(priority) = route.priority {
            builder = builder.priority(priority);
        }
        if let Some(gateway) = route.gateway {
            if !subnets.iter().any(|subnet| subnet.contains(&gateway)) {
                builder = builder.onlink();
            }
        } else {
            builder = builder.scope(RouteScope::Link);
        }
        let mut message = builder.build();
        message.header.address_family = match route.to {
            IpNet::V4(_) => rtnetlink::packet_route::AddressFamily::Inet,
            IpNet::V6(_) => rtnetlink::packet_route::AddressFamily::Inet6,
        };
        message.header.destination_prefix_length = route.to.prefix_len();
        message.attributes.push(RouteAttribute::Destination(route.to.network().into()));
        if let Some(gateway) = route.gateway {
            message.attributes.push(gateway_attribute(&route.to, gateway));
        }
        if let Some(mtu) = route.mtu_bytes {
            use rtnetlink::packet_route::route::RouteMetric;
            message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        message
    }

    async fn collect<T>(
        &self,
        stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
        action: &str,
    ) -> Result<Vec<T>, LinuxError> {
        let items: Result<Vec<T>, _> = stream.collect().await;
        items.map_err(|error| self.refused(action, &error))
    }

    fn refused(&self, action: &str, error: &rtnetlink::Error) -> LinuxError {
        refused(self.netns, self.name, action, error)
    }
}

/// An IPv4 destination may have an IPv6 next hop (RFC 8950), which has an attribute of its own.
fn gateway_attribute(to: &IpNet, gateway: IpAddr) -> RouteAttribute {
    use rtnetlink::packet_route::route::RouteVia;
    match (to, gateway) {
        (IpNet::V4(_), IpAddr::V6(gateway)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        (_, gateway) => RouteAttribute::Gateway(gateway.into()),
    }
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    // IFA_LOCAL is the address itself where a device has peers; without it IFA_ADDRESS is.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    if link_local {
        return None;
    }
    IpNet::new(address, message.header.prefix_len).ok()
}

fn route_of(message: &RouteMessage, index: u32) -> Option<DeviceRoute> {
    let mut to = None;
    let (mut gateway, mut priority, mut mtu_bytes, mut through_us, mut main) =
        (None, None, None, false, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => through_us = *oif == index,
            RouteAttribute::Table(table) => main = *table == u32::from(RouteHeader::RT_TABLE_MAIN),
            RouteAttribute::Destination(address) => to = ip_of(address),
            RouteAttribute::Gateway(address) => gateway = ip_of(address),
            RouteAttribute::Via(rtnetlink::packet_route::route::RouteVia::Inet6(address)) => {
                gateway = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Priority(value) => priority = Some(*value),
            RouteAttribute::Metrics(metrics) => mtu_bytes = metrics.iter().find_map(mtu_metric),
            _ => {}
        }
    }
    if !(through_us && main) {
        return None;
    }
    let unspecified: IpAddr = match message.header.address_family {
        rtnetlink::packet_route::AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let to = IpNet::new(to.unwrap_or(unspecified), message.header.destination_prefix_length).ok()?;
    Some(DeviceRoute { to, gateway, priority, mtu_bytes })
}

fn mtu_metric(metric: &rtnetlink::packet_route::route::RouteMetric) -> Option<u32> {
    match metric {
        rtnetlink::packet_route::route::RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
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
        rtnetlink::Error::NetlinkError(message) => Some(Errno::from_raw_os_error(-message.raw_code())),
        _ => None,
    }
}

fn refused(netns: &Path, device: &str, action: &str, error: &rtnetlink::Error) -> LinuxError {
    let reason = match errno(error) {
        Some(Errno::PERM) => "not permitted: CAP_NET_ADMIN in the pod's user namespace is needed".to_owned(),
        Some(errno) => std::io::Error::from(errno).to_string(),
        None => error.to_string(),
    };
    LinuxError::Refused { netns: netns.into(), device: device.into(), action: action.into(), reason }
}
