//! What a router says of itself and its link (RFC 4861 §4.2), with the options for routes (RFC 4191) and name resolution
//! (RFC 8106).

use std::net::Ipv6Addr;

use crate::writer::Writer;
use crate::{MacAddr, icmpv6, nd};

/// Bytes of an advertisement in front of its options.
pub const FIXED_BYTES: usize = 16;
/// Flag: addresses are given by DHCPv6.
pub const MANAGED: u8 = 0x80;
/// Flag: all else is told by DHCPv6.
pub const OTHER: u8 = 0x40;
/// The flag of a prefix: its addresses are on the link. Without the flag 0x40 nobody makes addresses of it by themselves.
pub const ON_LINK: u8 = 0x80;
/// A lifetime, in seconds, that does not end.
pub const INFINITE_S: u32 = u32::MAX;

/// Options.
pub mod option {
    /// RFC 4861 §4.6.2.
    pub const PREFIX: u8 = 3;
    /// RFC 4861 §4.6.4.
    pub const MTU: u8 = 5;
    /// RFC 4191 §2.3.
    pub const ROUTE: u8 = 24;
    /// RFC 8106 §5.1.
    pub const DNS_SERVERS: u8 = 25;
    /// RFC 8106 §5.2.
    pub const DOMAIN_LIST: u8 = 31;
}

/// Appends an advertisement's front, with a checksum of 0. `lifetime_s`: of the router as one for all destinations.
pub fn put_advert(out: &mut Writer<'_>, hop_limit: u8, flags: u8, lifetime_s: u16) {
    let [high, low] = lifetime_s.to_be_bytes();
    let mut front = [0; FIXED_BYTES];
    let rest = [hop_limit, flags, high, low];
    icmpv6::Repr { kind: nd::ROUTER_ADVERT, code: 0, rest }.emit(&mut front);
    out.put(&front);
}

/// Appends whose station the router is.
pub fn put_link_layer(out: &mut Writer<'_>, mac: MacAddr) {
    out.put(&[nd::SOURCE_LINK_LAYER, 1]).put(&mac.0);
}

/// Appends the link's MTU.
pub fn put_mtu(out: &mut Writer<'_>, mtu_bytes: u32) {
    out.put(&[option::MTU, 1, 0, 0]).put(&mtu_bytes.to_be_bytes());
}

/// Appends a prefix that is on the link for good.
pub fn put_prefix(out: &mut Writer<'_>, prefix: Ipv6Addr, len: u8) {
    let lifetime = INFINITE_S.to_be_bytes();
    out.put(&[option::PREFIX, 4, len, ON_LINK]).put(&lifetime).put(&lifetime).put(&[0; 4]);
    out.put(&prefix.octets());
}

/// Appends a route through the router, for good.
pub fn put_route(out: &mut Writer<'_>, prefix: Ipv6Addr, len: u8) {
    let bytes = match len {
        0 => 0,
        1..=64 => 8,
        _ => 16,
    };
    out.put(&[option::ROUTE, 1 + bytes as u8 / 8, len, 0]).put(&INFINITE_S.to_be_bytes());
    out.put(&prefix.octets()[..bytes]);
}

/// Appends servers of names, for good.
pub fn put_dns_servers(out: &mut Writer<'_>, servers: &[u8]) {
    put_padded(out, option::DNS_SERVERS, servers);
}

/// Appends the domains to search, for good. `names`: in their binary form, one after another.
pub fn put_domain_list(out: &mut Writer<'_>, names: &[u8]) {
    put_padded(out, option::DOMAIN_LIST, names);
}

/// An option of two free bytes, a lifetime, and `data` with zeros up to eight bytes.
fn put_padded(out: &mut Writer<'_>, kind: u8, data: &[u8]) {
    let padding = &[0; 8][..data.len().next_multiple_of(8) - data.len()];
    out.put_measured(&[&[0; 2], &INFINITE_S.to_be_bytes(), data, padding], |len| {
        Some([kind, ((len + 2) / 8).try_into().ok()?])
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_is_written_byte_by_byte() {
        let mut out = [0xaa; 200];
        let mut writer = Writer::new(&mut out);
        put_advert(&mut writer, 64, MANAGED, 65_535);
        put_link_layer(&mut writer, MacAddr([2, 0, 0, 0, 0, 7]));
        put_mtu(&mut writer, 1400);
        put_prefix(&mut writer, "fd00:1::".parse().unwrap(), 64);
        put_route(&mut writer, Ipv6Addr::UNSPECIFIED, 0);
        put_route(&mut writer, "fd00:2::".parse().unwrap(), 48);
        put_route(&mut writer, "fd00:3::1".parse().unwrap(), 128);
        put_dns_servers(&mut writer, &"fd00:1::53".parse::<Ipv6Addr>().unwrap().octets());
        put_domain_list(&mut writer, b"\x07example\x03org\x00");
        let zeros = [0; 16];
        let expected = [
            &[134, 0, 0, 0, 64, 0x80, 0xff, 0xff][..],
            &zeros[..8],
            &[1, 1, 2, 0, 0, 0, 0, 7],
            &[5, 1, 0, 0, 0, 0, 0x05, 0x78],
            &[3, 4, 64, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            &[0xfd, 0, 0, 1],
            &zeros[..12],
            &[24, 1, 0, 0, 0xff, 0xff, 0xff, 0xff],
            &[24, 2, 48, 0, 0xff, 0xff, 0xff, 0xff, 0xfd, 0, 0, 2, 0, 0, 0, 0],
            &[24, 3, 128, 0, 0xff, 0xff, 0xff, 0xff, 0xfd, 0, 0, 3],
            &zeros[..11],
            &[1],
            &[25, 3, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xfd, 0, 0, 1],
            &zeros[..11],
            &[0x53],
            &[31, 3, 0, 0, 0xff, 0xff, 0xff, 0xff],
            b"\x07example\x03org\x00\0\0\0",
        ];
        assert_eq!(writer.written(), expected.concat());
    }

    #[test]
    fn options_that_are_too_long_do_not_fit() {
        let mut out = [0; 4096];
        let mut writer = Writer::new(&mut out);
        put_dns_servers(&mut writer, &[1; 2040]);
        assert_eq!(writer.finish(), None);
    }
}
