//! What of the outside does the kernel leave to the switch, which translates with ports of the node's addresses?
//!
//! ```text
//! from mp0, with one of the addresses  ->  forwarded as it is, never taken for the node's own, never tracked
//! to one of the ports, by the uplink   ->  mp0, before the kernel asks who listens: the switch knows whom it is for
//! ```
//!
//! The second is a chain at the uplink's ingress, in the table `netdev millrace`. Answers to echoes, errors, and fragments that show
//! no ports are copied: the kernel does nothing with those of others (but hold fragments for a while), and its own must not be
//! missed. Ports are kept from the node's programs, but for
//! one that asks for such a port by number.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use reconcile::kernel::{HostRules, KernelError, Outside};

use crate::host::{Words, nft, refused, words, write};

/// Ports that no program is given that asks for any.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// The table of what comes in.
const TABLE: &str = "netdev millrace";

/// Makes the kernel hand in, and take on, what is the switch's; none: nothing.
pub(crate) fn put(rules: Option<&HostRules>) -> Result<(), KernelError> {
    let of_switch = rules.and_then(|rules| Some((rules, rules.outside.as_ref()?)));
    let Some((rules, outside)) = of_switch else { return remove() };
    accept_own(&rules.interface)?;
    reserve(&outside.ports)?;
    nft(TABLE, &script(rules, outside))
}

/// Most nodes never have the table: a kernel without tables of devices is not asked to delete one.
fn remove() -> Result<(), KernelError> {
    let listed = std::process::Command::new("nft").args(["list", "tables", "netdev"]).output();
    let listed = listed.map_err(|error| refused("list the tables of nftables".to_owned(), &error))?;
    let is_there = String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.ends_with(TABLE));
    if is_there { nft(TABLE, &anew()) } else { Ok(()) }
}

fn anew() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// Packets that come by `interface` and have an address of the node are taken on.
fn accept_own(interface: &str) -> Result<(), KernelError> {
    let dir = "/proc/sys/net/ipv4/conf";
    write(format!("{dir}/{interface}/accept_local"), "1")?;
    // The larger of the two counts: 1 refuses what would go back by another interface, 2 what has no way back at all.
    let filters = |name: &str| {
        let text = std::fs::read_to_string(format!("{dir}/{name}/rp_filter"));
        text.ok().and_then(|text| text.trim().parse::<u8>().ok()).unwrap_or(0)
    };
    match filters("all").max(filters(interface)) {
        1 => write(format!("{dir}/{interface}/rp_filter"), "2"),
        _ => Ok(()),
    }
}

fn reserve(ports: &RangeInclusive<u16>) -> Result<(), KernelError> {
    let before =
        std::fs::read_to_string(RESERVED).map_err(|error| refused(format!("read {RESERVED}"), &error))?;
    match with_reserved(&before, ports) {
        Some(after) => write(RESERVED, &after),
        None => Ok(()),
    }
}

/// The list `before` with these ports, too; `None` if it has them.
fn with_reserved(before: &str, ports: &RangeInclusive<u16>) -> Option<String> {
    let before = before.trim();
    let has = before.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let ends = first.trim().parse::<u16>().ok().zip(last.trim().parse::<u16>().ok());
        ends.is_some_and(|(first, last)| first <= *ports.start() && last >= *ports.end())
    });
    let own = format!("{}-{}", ports.start(), ports.end());
    match before {
        _ if has => None,
        "" => Some(own),
        _ => Some(format!("{before},{own}")),
    }
}

/// The chain, in the table `inet millrace`, of what the switch sends out.
pub(crate) fn leaving(rules: &HostRules, out: &mut String) -> std::fmt::Result {
    let Some(outside) = &rules.outside else { return Ok(()) };
    writeln!(out, "  chain leaving {{\n    type filter hook prerouting priority raw")?;
    for is_v4 in [true, false] {
        let Words { ip, .. } = words(is_v4);
        let Some(addresses) = addresses(outside, is_v4) else { continue };
        let leaves = format!("iifname \"{}\" {ip} saddr {addresses}", rules.interface);
        // To the node itself nothing comes that says it was from the node.
        writeln!(out, "    {leaves} fib daddr type local drop")?;
        writeln!(out, "    {leaves} notrack")?;
    }
    writeln!(out, "  }}")
}

/// The addresses of a family, as a set; `None` if there is none.
fn addresses(outside: &Outside, is_v4: bool) -> Option<String> {
    let of_family = outside.addresses.iter().filter(|address| address.is_ipv4() == is_v4);
    let texts: Vec<String> = of_family.map(IpAddr::to_string).collect();
    (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
}

fn script(rules: &HostRules, outside: &Outside) -> String {
    let mut script = anew();
    // Writing to a string does not fail.
    let _ = answers(rules, outside, &mut script);
    script
}

/// What is matched of a family: words of nftables, and where the quote of an ICMP error says its protocol and ports, in bits.
struct Matched {
    icmp: &'static str,
    number: u8,
    types: &'static str,
    /// What is true of fragments behind the first.
    fragment: &'static str,
    protocol_at: usize,
    port_at: usize,
}

/// A quote begins behind 8 bytes; its own header has 20 bytes, or 40.
const MATCHED_V4: Matched = Matched {
    icmp: "icmp",
    number: 1,
    types: "destination-unreachable, time-exceeded, parameter-problem",
    fragment: "ip frag-off & 0x1fff != 0",
    protocol_at: 8 * (8 + 9),
    port_at: 8 * (8 + 20),
};
const MATCHED_V6: Matched = Matched {
    icmp: "icmpv6",
    number: 58,
    types: "destination-unreachable, packet-too-big, time-exceeded, parameter-problem",
    fragment: "frag frag-off != 0",
    protocol_at: 8 * (8 + 6),
    port_at: 8 * (8 + 40),
};

fn answers(rules: &HostRules, outside: &Outside, out: &mut String) -> std::fmt::Result {
    let Outside { uplink, ports, gateway, mac, .. } = outside;
    let ports = format!("{}-{}", ports.start(), ports.end());
    writeln!(out, "table {TABLE} {{")?;
    for (chain, verb) in [("taken", "fwd"), ("copied", "dup")] {
        writeln!(out, "  chain {chain} {{")?;
        writeln!(
            out,
            "    ether daddr set {gateway} ether saddr set {mac} {verb} to \"{}\"",
            rules.interface
        )?;
        writeln!(out, "  }}")?;
    }
    writeln!(out, "  chain answers {{\n    type filter hook ingress device \"{uplink}\" priority -500")?;
    for (is_v4, matched) in [(true, MATCHED_V4), (false, MATCHED_V6)] {
        let Words { ip, .. } = words(is_v4);
        let Some(addresses) = addresses(outside, is_v4) else { continue };
        let Matched { icmp, number, types, fragment, protocol_at, port_at } = matched;
        let to = format!("{ip} daddr {addresses}");
        writeln!(out, "    {to} meta l4proto {{ tcp, udp, sctp }} th dport {ports} goto taken")?;
        writeln!(out, "    {to} {fragment} goto copied")?;
        writeln!(out, "    {to} {icmp} type echo-reply {icmp} id {ports} goto copied")?;
        let error = format!("{to} {icmp} type {{ {types} }} @th,{protocol_at},8");
        writeln!(out, "    {error} {{ 6, 17, 132 }} @th,{port_at},16 {ports} goto copied")?;
        // An echo's identifier is four bytes further on.
        writeln!(out, "    {error} {number} @th,{},16 {ports} goto copied", port_at + 32)?;
    }
    writeln!(out, "  }}\n}}")
}

#[cfg(test)]
mod tests {
    use model::MacAddr;
    use reconcile::kernel::Translated;

    use super::*;

    #[test]
    fn answers_to_the_ports_are_handed_in_and_all_else_is_the_kernels() {
        let outside = Outside {
            uplink: "eth0".to_owned(),
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            ports: 61_000..=65_535,
            gateway: MacAddr([2, 0, 0, 0, 0, 1]),
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
        };
        let rules = HostRules {
            interface: "mp0".to_owned(),
            own: Vec::new(),
            cluster: Vec::new(),
            translated: None,
            forwards: Vec::new(),
            outside: Some(outside.clone()),
        };
        let script = script(&rules, &outside);
        for line in [
            "type filter hook ingress device \"eth0\" priority -500",
            "ether daddr set 02:00:00:00:00:01 ether saddr set 02:00:00:00:00:02 fwd to \"mp0\"",
            "ip daddr { 192.0.2.1 } meta l4proto { tcp, udp, sctp } th dport 61000-65535 goto taken",
            "ip6 daddr { 2001:db8::1 } icmpv6 type echo-reply icmpv6 id 61000-65535 goto copied",
        ] {
            assert_eq!(script.matches(line).count(), 1, "{line} in {script}");
        }
        let mut chain = String::new();
        leaving(&rules, &mut chain).unwrap();
        assert!(chain.contains("iifname \"mp0\" ip saddr { 192.0.2.1 } fib daddr type local drop"));
        // What the kernel translates, for other routers, has other ports.
        let translated = |to: &str| Some(Translated { to: vec![to.parse().unwrap()] });
        let others =
            crate::host::script(Some(&HostRules { translated: translated("192.0.2.50"), ..rules.clone() }));
        assert!(others.contains("th sport 1024-65535 snat ip to 192.0.2.50:1024-60999"), "{others}");
        assert!(others.contains("th sport 1024-65535 masquerade to :1024-60999"), "{others}");
        let others = crate::host::script(Some(&HostRules { translated: translated("2001:db8::5"), ..rules }));
        assert!(others.contains("snat ip6 to [2001:db8::5]:1024-60999"), "{others}");
    }

    #[test]
    fn ports_are_reserved_beside_those_that_are() {
        let ports = 61_000..=65_535;
        for (before, after) in [
            ("\n", Some("61000-65535")),
            ("8080\n", Some("8080,61000-65535")),
            ("8080,61000-65535\n", None),
            ("60000-65535\n", None),
            ("61000-62000\n", Some("61000-62000,61000-65535")),
        ] {
            assert_eq!(with_reserved(before, &ports).as_deref(), after, "{before}");
        }
    }
}
