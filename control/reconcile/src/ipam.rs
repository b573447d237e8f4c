//! Which address does a pod get?
//!
//! Addresses are given out in a circle: the search starts behind the one given last, so that a freed address rests for as
//! long as others are left, and nobody's stale ARP entry or connection reaches the wrong pod.

use std::net::IpAddr;

use model::{Subnet, successor};

/// The next free address of a subnet's ranges, behind `last`; `None` if all are used.
pub fn next_free(subnet: &Subnet, last: Option<IpAddr>, used: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let free = |from: Option<IpAddr>, to: IpAddr| {
        let mut candidate = from?;
        while candidate <= to {
            match subnet.forbidden(candidate) {
                Some(end) => candidate = successor(end)?,
                None if used(candidate) => candidate = successor(candidate)?,
                None => return Some(candidate),
            }
        }
        None
    };
    let ranges = subnet.ranges();
    let place =
        last.and_then(|last| ranges.iter().position(|range| range.contains(last)).map(|at| (at, last)));
    let Some((at, last)) = place else {
        return ranges.iter().find_map(|range| free(Some(range.first), range.last));
    };
    let behind = free(successor(last), ranges[at].last);
    let later = || ranges[at + 1..].iter().find_map(|range| free(Some(range.first), range.last));
    let wrapped = || ranges[..=at].iter().find_map(|range| free(Some(range.first), range.last));
    behind.or_else(later).or_else(wrapped)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::SubnetSpec;
    use proptest::prelude::*;

    use super::*;

    fn subnet(net: &str, ranges: &[&str], gateway: Option<&str>, exclude: &[&str]) -> Subnet {
        let text = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        let spec = SubnetSpec {
            subnet: net.parse().unwrap(),
            ranges: text(ranges),
            gateway,
            exclude: text(exclude),
            node_prefix: None,
        };
        Subnet::new(&spec).unwrap()
    }

    #[test]
    fn next_free_when_an_address_was_just_freed_gives_another() {
        let subnet = subnet("10.1.0.0/29", &[], Some("10.1.0.1"), &[]);
        let first = next_free(&subnet, None, |_| false).unwrap();
        assert_eq!(first.to_string(), "10.1.0.2");
        assert_eq!(next_free(&subnet, Some(first), |_| false).unwrap().to_string(), "10.1.0.3");
        let last = "10.1.0.6".parse().unwrap();
        assert_eq!(
            next_free(&subnet, Some(last), |_| false).unwrap(),
            first,
            "after the last comes the first"
        );
    }

    #[test]
    fn next_free_when_all_are_used_gives_none() {
        for net in
            ["10.1.0.0/29", "10.1.0.4/31", "10.1.0.4/32", "255.255.255.252/30", "fd00::/126", "fd00::1/128"]
        {
            let subnet = subnet(net, &[], None, &[]);
            assert_eq!(next_free(&subnet, None, |_| true), None, "{net}");
            assert!(next_free(&subnet, None, |_| false).is_some(), "{net}");
        }
    }

    #[test]
    fn next_free_when_a_huge_block_is_excluded_skips_it_at_once() {
        let subnet = subnet("fd00::/64", &[], None, &["fd00::/65"]);
        assert_eq!(next_free(&subnet, None, |_| false).unwrap().to_string(), "fd00::8000:0:0:0");
    }

    proptest! {
        /// Against a set of all addresses that may be given out, walked by hand.
        #[test]
        fn next_free_is_the_next_of_the_circle(
            used in proptest::collection::btree_set(0u8..64, 0..64),
            last in proptest::option::of(0u8..64),
            excluded in proptest::collection::vec((0u8..64, 26u8..=32), 0..4),
            split in 10u8..30,
        ) {
            let address = |host: u8| IpAddr::from([10, 1, 0, host]);
            let ranges = [format!("10.1.0.{}-10.1.0.60", split + 5), format!("10.1.0.2-10.1.0.{split}")];
            let exclude: Vec<_> = excluded.iter().filter(|(_, bits)| *bits > 26)
                .map(|(host, bits)| ipnet::IpNet::new(address(*host), *bits).unwrap().trunc().to_string()).collect();
            let text = |items: &[String]| items.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>();
            let (ranges, exclude) = (text(&ranges), text(&exclude));
            let subnet = subnet(
                "10.1.0.0/26",
                &ranges.iter().map(String::as_str).collect::<Vec<_>>(),
                Some("10.1.0.7"),
                &exclude.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            let circle: Vec<IpAddr> = (split + 5..=60).chain(2..=split).map(address)
                .filter(|candidate| *candidate != address(7))
                .filter(|candidate| exclude.iter().all(|net| !net.parse::<ipnet::IpNet>().unwrap().contains(candidate)))
                .collect();
            let used: BTreeSet<IpAddr> = used.into_iter().map(address).collect();
            let last = last.map(address);
            // Where the walk begins: behind `last`, which need not itself be of the circle.
            let order = |ip: IpAddr| {
                let IpAddr::V4(ip) = ip else { unreachable!() };
                let host = ip.octets()[3];
                if host >= split + 5 { usize::from(host) } else { 100 + usize::from(host) }
            };
            let in_range = last.is_some_and(|last| subnet.ranges().iter().any(|range| range.contains(last)));
            let start = if in_range {
                circle.iter().position(|ip| order(*ip) > order(last.unwrap())).unwrap_or(0)
            } else {
                0
            };
            let expected = circle[start..].iter().chain(&circle[..start]).find(|ip| !used.contains(ip)).copied();
            prop_assert_eq!(next_free(&subnet, last, |ip| used.contains(&ip)), expected);
        }
    }
}
