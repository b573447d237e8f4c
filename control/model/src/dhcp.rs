//! Can a network's pods be told by DHCP what it says?

use std::net::IpAddr;

use ipnet::IpNet;
use wire::domain::Name;
use wire::{dhcpv4, dhcpv6};

use crate::network::Invalid;
use crate::{Dns, Subnet};

/// Checks what a network with DHCP says.
pub(crate) fn check(dns: &Dns, subnets: &[Subnet], routes: &[(IpNet, IpAddr)]) -> Result<(), Invalid> {
    if subnets.is_empty() {
        return Err(Invalid::DhcpWithoutSubnet);
    }
    let is_silent = |subnet: &Subnet| subnet.net().addr().is_ipv4() && subnet.gateway().is_none();
    if let Some(index) = subnets.iter().position(is_silent) {
        return Err(Invalid::DhcpWithoutGateway { index, subnet: subnets[index].net() });
    }
    let domain = dns.domain.iter().map(|text| ("dns.domain".to_owned(), text));
    let search = dns.search.iter().enumerate().map(|(at, text)| (format!("dns.search[{at}]"), text));
    if let Some((field, text)) = domain.chain(search).find(|(_, text)| Name::new(text).is_err()) {
        return Err(Invalid::DhcpDomain { field, text: text.clone() });
    }
    let (max_v4, max_v6) = (dhcpv4::ROOM_FOR_NETWORK_BYTES, dhcpv6::ROOM_FOR_NETWORK_BYTES);
    let families = [
        ("DHCPv4", v4_bytes(dns, subnets, routes), max_v4),
        ("IPv6", v6_bytes(dns, subnets, routes), max_v6),
    ];
    match families.into_iter().find(|(_, bytes, max)| bytes > max) {
        Some((family, bytes, max)) => Err(Invalid::DhcpTooLong { family, bytes, max }),
        None => Ok(()),
    }
}

/// Bytes of the domains to search, in their binary form: a length in front of each label, and an end.
fn search_bytes(dns: &Dns) -> usize {
    let own = dns.domain.iter().filter(|_| dns.search.is_empty());
    dns.search.iter().chain(own).map(|name| name.len() + 2).sum()
}

fn nameservers(dns: &Dns, is_v4: bool) -> usize {
    dns.nameservers.iter().filter(|ip| ip.is_ipv4() == is_v4).count()
}

/// Bytes at most of all options of DHCPv4 (RFC 2132, 3397, 3442): mask and router; nameservers, domain, search list and routes,
/// each behind its kind and length. A next hop is told by itself to pods of a subnet that it is not in.
fn v4_bytes(dns: &Dns, subnets: &[Subnet], routes: &[(IpNet, IpAddr)]) -> usize {
    let is_outside =
        |via: &IpAddr| subnets.iter().map(Subnet::net).any(|net| net.addr().is_ipv4() && !net.contains(via));
    let routes = routes.iter().filter(|(to, _)| to.addr().is_ipv4());
    let routes = routes
        .map(|(to, via)| 5 + usize::from(to.prefix_len()).div_ceil(8) + usize::from(is_outside(via)) * 9);
    let domain = dns.domain.as_ref().map_or(0, String::len);
    6 + 6 + 2 + 4 * nameservers(dns, true) + 2 + domain + 2 + search_bytes(dns) + 2 + routes.sum::<usize>()
}

/// Bytes at most of a router advertisement without the MTU (RFC 4861, 4191, 8106), which says all that DHCPv6 does and more.
fn v6_bytes(dns: &Dns, subnets: &[Subnet], routes: &[(IpNet, IpAddr)]) -> usize {
    let prefixes = subnets.iter().filter(|subnet| subnet.net().addr().is_ipv6()).count();
    let routes = routes.iter().filter(|(to, _)| to.addr().is_ipv6());
    let routes = routes.map(|(to, _)| 8 + usize::from(to.prefix_len()).div_ceil(64) * 8);
    let search = search_bytes(dns).next_multiple_of(8);
    16 + 8 + 32 * prefixes + routes.sum::<usize>() + 8 + 16 * nameservers(dns, false) + 8 + search
}

#[cfg(test)]
mod tests {
    use crate::Networks;

    /// What is wrong with a network of these fields; nothing if it is none.
    fn wrong(fields: &str) -> String {
        let text = format!("networks: [{{name: pods, dhcp: true, {fields}}}]");
        match Networks::parse(&text) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_network_with_dhcp_says_what_can_be_told() {
        let subnets = "subnets: [{subnet: 10.0.0.0/24, gateway: 10.0.0.1}, {subnet: 'fd00::/64'}]";
        assert_eq!(wrong(subnets), "");
        assert_eq!(wrong(&format!("{subnets}, dns: {{domain: example.org., search: [a.b]}}")), "");
        assert!(wrong("queues: 1").contains("dhcp: the network has no subnets: add one"));
        let silent = wrong("subnets: [{subnet: 10.0.0.0/24}]");
        assert!(silent.contains("subnets[0].gateway: DHCP needs an address in 10.0.0.0/24"), "{silent}");
        let name = wrong(&format!("{subnets}, dns: {{search: [ok, 'not ok']}}"));
        assert!(name.contains("dns.search[1]: \"not ok\" is no domain name"), "{name}");
        let long = wrong(&format!("{subnets}, dns: {{nameservers: [{}]}}", ["10.0.0.1"; 60].join(", ")));
        assert!(long.contains("260 bytes of an answer of DHCPv4, which has room for 210"), "{long}");
        let long = wrong(&format!("{subnets}, dns: {{nameservers: [{}]}}", ["'fd00::1'"; 40].join(", ")));
        assert!(long.contains("of an answer of IPv6, which has room for 512: remove some"), "{long}");
    }

    #[test]
    fn dhcp_is_off_where_nobody_asks_for_it() {
        let networks = Networks::parse("networks: [{name: pods}]").unwrap();
        assert!(networks.iter().all(|network| !network.spec().dhcp));
    }
}
