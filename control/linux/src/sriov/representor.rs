//! Which port of a card's switch is a virtual function behind, and does it pass anything?
//!
//! In switchdev mode a card is a switch. Each of its ports has a netdev on the node, its representor: what the function
//! sends and no rule in the card takes comes out there. The kernel names the port (`IFLA_PHYS_PORT_NAME`; devlink's
//! `pfNvfM`, behind `cK` where the function is another host's) and the switch that it belongs to (`IFLA_PHYS_SWITCH_ID`).

use reconcile::cards::Representor;
use reconcile::kernel::KernelError;
use rustix::io::Errno;

use super::link::{self, Link};
use crate::netns::Netns;
use model::PciAddress;

/// A port of a virtual function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    /// The host, where it is not this one.
    host: Option<u32>,
    pf: u32,
    vf: u32,
}

impl Port {
    fn parse(name: &str) -> Option<Self> {
        let (host, rest) = match name.strip_prefix('c') {
            Some(rest) => number(rest).map(|(host, rest)| (Some(host), rest))?,
            None => (None, name),
        };
        let (pf, rest) = number(rest.strip_prefix("pf")?)?;
        let (vf, rest) = number(rest.strip_prefix("vf")?)?;
        rest.is_empty().then_some(Self { host, pf, vf })
    }
}

/// A number, and what stands behind it.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The representor of a virtual function, by the netdev of its physical one. None where the card is no switch,
/// or has no such function.
///
/// # Errors
/// There is no such netdev, or the kernel refuses to tell.
pub fn of(pf_netdev: &str, index: u32) -> Result<Option<Representor>, KernelError> {
    let links = link::list(&Netns::own()?)?;
    let missing = || KernelError::Refused {
        doing: format!("look for the representor of VF {index} of {pf_netdev}"),
        reason: "the node has no such netdev".to_owned(),
    };
    let uplink = links.iter().find(|link| link.name == pf_netdev).ok_or_else(missing)?;
    Ok(among(&links, uplink, index).map(view))
}

fn view(link: &Link) -> Representor {
    let Link { index, mtu_bytes, .. } = *link;
    Representor { index, name: link.name.clone(), mtu_bytes, up: link.is_up() }
}

/// Makes it have the MTU and be up, or not, as `wanted` says.
///
/// # Errors
/// It is gone, or its driver does not take the MTU.
pub fn set(wanted: &Representor) -> Result<(), KernelError> {
    let Representor { index, name, mtu_bytes, up } = wanted;
    let node = Netns::own()?;
    let change = || link::Change::new().index(*index);
    link::set(&node, change().mtu(*mtu_bytes)).map_err(|errno| {
        let doing = format!("set the MTU of the representor {name} to {mtu_bytes}");
        match errno {
            Errno::INVAL => KernelError::Refused {
                doing,
                reason: format!(
                    "its driver does not take it: `ip -d link show {name}` names minmtu and maxmtu"
                ),
            },
            errno => link::refused(doing, errno),
        }
    })?;
    let (change, way) = if *up { (change().up(), "up") } else { (change().down(), "down") };
    link::set(&node, change)
        .map_err(|errno| link::refused(format!("set the representor {name} {way}"), errno))
}

/// Whether the name of a port is that of a function behind the switch, and not of the card's own socket.
pub(super) fn is_representor(port: Option<&str>) -> bool {
    port.is_some_and(|port| {
        port.trim_start_matches(|c: char| c == 'c' || c.is_ascii_digit()).starts_with("pf")
    })
}

fn among<'a>(links: &'a [Link], uplink: &Link, index: u32) -> Option<&'a Link> {
    let switch = uplink.switch.as_ref()?;
    // Ports count physical functions as PCI does. Where the card is none of PCI's, it has one.
    let address: Option<PciAddress> = uplink.parent.as_ref().and_then(|parent| parent.parse().ok());
    let is_ours = |port: &Port| {
        port.vf == index && address.is_none_or(|address| port.pf == u32::from(address.function()))
    };
    let ours = links.iter().filter(|link| link.switch.as_ref() == Some(switch)).filter_map(|link| {
        let port = link.port.as_deref().and_then(Port::parse).filter(is_ours)?;
        Some((port, link))
    });
    // This host's function before that of another with the same number.
    ours.min_by_key(|(port, link)| (*port, link.index)).map(|(_, link)| link)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::LinkFlags;
    use wire::MacAddr;

    use super::*;

    fn link(name: &str, parent: &str, switch: &[u8], port: &str) -> Link {
        Link {
            index: 1,
            name: name.to_owned(),
            other_names: Vec::new(),
            mac: MacAddr::default(),
            mtu_bytes: 1500,
            flags: LinkFlags::empty(),
            controller: None,
            parent: Some(parent.to_owned()),
            switch: (!switch.is_empty()).then(|| switch.to_vec()),
            port: (!port.is_empty()).then(|| port.to_owned()),
        }
    }

    #[test]
    fn port_when_the_name_is_a_functions_has_its_numbers() {
        assert_eq!(Port::parse("pf0vf12"), Some(Port { host: None, pf: 0, vf: 12 }));
        assert_eq!(Port::parse("c1pf1vf0"), Some(Port { host: Some(1), pf: 1, vf: 0 }));
        for name in
            ["", "p0", "pf0", "pf0sf1", "pf0vf", "pfvf1", "cpf0vf1", "pf0vf1x", "pf0vf99999999999", "c1", "x"]
        {
            assert_eq!(Port::parse(name), None, "{name}");
        }
        assert!(["pf0vf1", "pf0hpf", "c1pf0sf3", "pf1"].iter().all(|name| is_representor(Some(name))));
        assert!(["p0", "", "p1s2"].iter().all(|name| !is_representor(Some(name))) && !is_representor(None));
    }

    #[test]
    fn representor_when_two_cards_have_the_number_is_that_of_the_same_switch() {
        let links = [
            link("ens1f0", "0000:05:00.0", &[1], "p0"),
            link("ens1f1", "0000:05:00.1", &[1], "p1"),
            link("other", "0000:06:00.0", &[2], "pf1vf3"),
            link("first", "0000:05:00.0", &[1], "pf0vf3"),
            link("remote", "0000:05:00.1", &[1], "c1pf1vf3"),
            link("second", "0000:05:00.1", &[1], "pf1vf3"),
        ];
        let name = |uplink: usize, index| among(&links, &links[uplink], index).map(|link| link.name.as_str());
        assert_eq!(name(0, 3), Some("first"));
        assert_eq!(name(1, 3), Some("second"));
        assert_eq!(name(0, 4), None);
    }

    #[test]
    fn representor_when_the_card_is_no_switch_is_none() {
        let links = [link("eth0", "0000:05:00.0", &[], ""), link("x", "0000:05:00.0", &[], "pf0vf0")];
        assert_eq!(among(&links, &links[0], 0), None);
    }

    #[test]
    fn representor_when_only_another_host_has_it_is_that_one() {
        let links = [link("p0", "0000:03:00.0", &[1], "p0"), link("rep", "0000:03:00.0", &[1], "c1pf0vf0")];
        assert_eq!(among(&links, &links[0], 0).map(|link| link.name.as_str()), Some("rep"));
    }
}
