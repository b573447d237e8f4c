//! What are hosts told that ask for their configuration, and which port's hosts have which addresses?
//!
//! What is the same for all ports of a network is written down in the protocols' own form here, once per program, so that
//! an answer to a packet is a few copies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::dhcpv4::{self, ClasslessRoute};
use wire::{MacAddr, Writer, dhcpv6, domain, router_advert};

use super::build::is_source;
use super::tables::link_local;
use super::{GatewaySpec, NetworkSpec, PortSpec, Prefix, ProgramError};

const MAX_V4_OPTIONS_BYTES: usize = dhcpv4::ROOM_FOR_NETWORK_BYTES;
const MAX_V6_OPTIONS_BYTES: usize = dhcpv6::ROOM_FOR_NETWORK_BYTES;
/// How long hosts without RFC 4191 keep the router as the one for all destinations: the longest time that there is
/// (RFC 8319). The others keep it for good, by the option for its route.
const ROUTER_LIFETIME_S: u16 = u16::MAX;
/// Hops of what hosts send (RFC 1700).
const HOP_LIMIT: u8 = 64;

/// What the switch tells hosts of a network that ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpSpec {
    /// The station that answers. It is the gateway's, where there is one.
    pub mac: MacAddr,
    /// The server's addresses, one of each IPv4 subnet.
    pub servers: Vec<Prefix>,
    /// The routes that hosts get: the destination, and the next hop.
    pub routes: Vec<(Prefix, IpAddr)>,
    /// Servers of names, in order.
    pub nameservers: Vec<IpAddr>,
    /// The domain that hosts are of.
    pub domain: Option<String>,
    /// The domains in which names are searched, in order.
    pub search: Vec<String>,
}

/// A [`DhcpSpec`], ready to be told.
#[derive(Debug, Clone)]
pub(crate) struct Dhcp {
    pub(crate) mac: MacAddr,
    /// The address of that station where none is given: messages of IPv6 come from it.
    pub(crate) link_local: Ipv6Addr,
    servers: Vec<Server>,
    /// Options of DHCPv6 without the server's identifier.
    pub(crate) v6_options: Box<[u8]>,
    /// A router advertisement without the link's MTU, where the gateway has an IPv6 address.
    pub(crate) advert: Option<Box<[u8]>>,
}

/// A subnet's server of DHCPv4.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    prefix: Prefix,
    pub(crate) address: Ipv4Addr,
    /// Its options, but for its own identifier and those about the lease.
    pub(crate) options: Box<[u8]>,
}

impl Dhcp {
    /// The server of the subnet that `ip` is of.
    pub(crate) fn server(&self, ip: Ipv4Addr) -> Option<&Server> {
        self.servers.iter().find(|server| server.prefix.contains(ip.into()))
    }
}

/// The addresses that a port's stations get: its first of each family.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) macs: Vec<MacAddr>,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

/// The lease of `port`, whose network is told what `dhcp` says. `None` if it lists no stations or no addresses.
pub(super) fn lease(port: &PortSpec, dhcp: &Dhcp) -> Option<Box<Lease>> {
    let v4 = port.ips.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    let v6 = port.ips.iter().find_map(|ip| match ip {
        IpAddr::V6(ip) => Some(*ip),
        IpAddr::V4(_) => None,
    });
    // An address of nobody's subnet has no mask and no server.
    let v4 = v4.filter(|ip| dhcp.server(*ip).is_some());
    let is_any = !port.macs.is_empty() && (v4.is_some() || v6.is_some());
    is_any.then(|| Box::new(Lease { macs: port.macs.clone(), v4, v6 }))
}

/// Checks what `network` tells and writes it down.
pub(super) fn build(network: &NetworkSpec) -> Result<Option<Dhcp>, ProgramError> {
    let Some(spec) = &network.dhcp else { return Ok(None) };
    let wrong = |what: String| ProgramError::Dhcp { network: network.name.clone(), what };
    check(spec, network.gateway.as_ref()).map_err(wrong)?;
    let search = search(spec).map_err(wrong)?;
    let server = |prefix: &Prefix| match prefix.address {
        IpAddr::V4(address) => {
            let options = v4_options(spec, prefix, &search)?;
            Some(Server { prefix: *prefix, address, options })
        }
        IpAddr::V6(_) => None,
    };
    let long = || wrong("more nameservers, domains and routes than its answers have room for".into());
    let servers: Option<Vec<Server>> = spec.servers.iter().map(server).collect();
    let routed = network.gateway.as_ref().filter(|it| it.addresses.iter().any(|own| own.address.is_ipv6()));
    let advert = routed.map(|gateway| advert(spec, gateway, &search).ok_or_else(long)).transpose()?;
    Ok(Some(Dhcp {
        mac: spec.mac,
        link_local: link_local(spec.mac),
        servers: servers.ok_or_else(long)?,
        v6_options: v6_options(spec, &search).ok_or_else(long)?,
        advert,
    }))
}

fn check(spec: &DhcpSpec, gateway: Option<&GatewaySpec>) -> Result<(), String> {
    if !spec.mac.is_unicast() {
        return Err(format!("the address {}, which is no station's", spec.mac));
    }
    if let Some(gateway) = gateway.filter(|gateway| gateway.mac != spec.mac) {
        return Err(format!("the station {}, which is not the gateway's, {}", spec.mac, gateway.mac));
    }
    let is_server = |prefix: &&Prefix| prefix.address.is_ipv4() && is_source(prefix.address);
    if let Some(server) = spec.servers.iter().find(|it| !is_server(it) || !it.is_sound()) {
        return Err(format!("the address {server}, which is no IPv4 station's"));
    }
    let is_route = |(to, via): &&(Prefix, IpAddr)| {
        to.is_sound() && to.address.is_ipv4() == via.is_ipv4() && is_source(*via)
    };
    match spec.routes.iter().find(|route| !is_route(route)) {
        Some((to, via)) => Err(format!("a route to {to} by {via}, which cannot be")),
        None => Ok(()),
    }
}

/// The domains to search, in their binary form: those listed, or the own one.
fn search(spec: &DhcpSpec) -> Result<Vec<u8>, String> {
    let own = spec.domain.as_ref().map(name).transpose()?;
    let mut names: Vec<domain::Name<'_>> = spec.search.iter().map(name).collect::<Result<_, _>>()?;
    if names.is_empty() {
        names.extend(own);
    }
    let mut bytes = vec![0; MAX_V6_OPTIONS_BYTES];
    let len = domain::list(&names, &mut bytes).map(<[u8]>::len);
    let len = len.ok_or_else(|| "more domains to search than its answers have room for".to_owned())?;
    bytes.truncate(len);
    Ok(bytes)
}

fn name(text: &String) -> Result<domain::Name<'_>, String> {
    domain::Name::new(text).map_err(|_| format!("the domain {text:?}, which is no name"))
}

/// What `write` writes, if it is no longer than `max` bytes.
fn written(max: usize, write: impl FnOnce(&mut Writer<'_>)) -> Option<Box<[u8]>> {
    let mut bytes = vec![0; max];
    let mut writer = Writer::new(&mut bytes);
    write(&mut writer);
    let len = writer.finish()?;
    bytes.truncate(len);
    Some(bytes.into())
}

fn v4_options(spec: &DhcpSpec, subnet: &Prefix, search: &[u8]) -> Option<Box<[u8]>> {
    use dhcpv4::{option, put_option};
    let mask = u32::MAX.checked_shl(32 - u32::from(subnet.len)).unwrap_or(0);
    let nameservers: Vec<u8> = spec.nameservers.iter().filter_map(v4).flat_map(|ip| ip.octets()).collect();
    let routes: Vec<ClasslessRoute> = spec.routes.iter().filter_map(classless_route).collect();
    let default = routes.iter().find(|route| route.prefix_len == 0);
    let routes = written(MAX_V4_OPTIONS_BYTES, |out| put_routes(&routes, subnet, out))?;
    written(MAX_V4_OPTIONS_BYTES, |out| {
        put_option(out, option::SUBNET_MASK, &[&mask.to_be_bytes()]);
        if let Some(default) = default {
            put_option(out, option::ROUTER, &[&default.via.octets()]);
        }
        let texts = [
            (option::DOMAIN_NAME_SERVER, &nameservers[..]),
            (option::DOMAIN_NAME, spec.domain.as_deref().unwrap_or_default().as_bytes()),
            (option::DOMAIN_SEARCH, search),
            (option::CLASSLESS_ROUTES, &routes),
        ];
        for (kind, data) in texts.into_iter().filter(|(_, data)| !data.is_empty()) {
            put_option(out, kind, &[data]);
        }
    })
}

/// All routes: who reads this option looks at no other one (RFC 3442). A next hop outside of the subnet is told to be on
/// the link first.
fn put_routes(routes: &[ClasslessRoute], subnet: &Prefix, out: &mut Writer<'_>) {
    let mut outside: Vec<Ipv4Addr> =
        routes.iter().map(|route| route.via).filter(|via| !subnet.contains((*via).into())).collect();
    outside.sort_unstable();
    outside.dedup();
    for via in outside {
        ClasslessRoute { to: via, prefix_len: 32, via: Ipv4Addr::UNSPECIFIED }.put(out);
    }
    routes.iter().for_each(|route| route.put(out));
}

fn classless_route((to, via): &(Prefix, IpAddr)) -> Option<ClasslessRoute> {
    Some(ClasslessRoute { to: v4(&to.network())?, prefix_len: to.len, via: v4(via)? })
}

fn v4(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

fn v6(ip: &IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V6(ip) => Some(*ip),
        IpAddr::V4(_) => None,
    }
}

fn nameservers_v6(spec: &DhcpSpec) -> Vec<u8> {
    spec.nameservers.iter().filter_map(v6).flat_map(|ip| ip.octets()).collect()
}

fn v6_options(spec: &DhcpSpec, search: &[u8]) -> Option<Box<[u8]>> {
    use dhcpv6::{option, put_option};
    let nameservers = nameservers_v6(spec);
    written(MAX_V6_OPTIONS_BYTES, |out| {
        let lists = [(option::DNS_SERVERS, &nameservers[..]), (option::DOMAIN_LIST, search)];
        for (code, data) in lists.into_iter().filter(|(_, data)| !data.is_empty()) {
            put_option(out, code, &[data]);
        }
    })
}

/// Only routes through the gateway: an advertisement tells of its sender.
fn advert(spec: &DhcpSpec, gateway: &GatewaySpec, search: &[u8]) -> Option<Box<[u8]>> {
    let is_gateway = |via: &IpAddr| gateway.addresses.iter().any(|own| own.address == *via);
    let routes = spec.routes.iter().filter(|(_, via)| is_gateway(via));
    let routes: Vec<_> = routes.filter_map(|(to, _)| Some((v6(&to.network())?, to.len))).collect();
    let is_default = routes.iter().any(|(_, len)| *len == 0);
    let nameservers = nameservers_v6(spec);
    written(MAX_V6_OPTIONS_BYTES, |out| {
        let lifetime_s = if is_default { ROUTER_LIFETIME_S } else { 0 };
        router_advert::put_advert(out, HOP_LIMIT, router_advert::MANAGED | router_advert::OTHER, lifetime_s);
        router_advert::put_link_layer(out, spec.mac);
        for own in &gateway.addresses {
            if let Some(prefix) = v6(&own.network()) {
                router_advert::put_prefix(out, prefix, own.len);
            }
        }
        routes.iter().for_each(|(to, len)| router_advert::put_route(out, *to, *len));
        if !nameservers.is_empty() {
            router_advert::put_dns_servers(out, &nameservers);
        }
        if !search.is_empty() {
            router_advert::put_domain_list(out, search);
        }
    })
}
