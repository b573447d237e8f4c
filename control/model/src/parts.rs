//! Which part of a network of several nodes is one node's?
//!
//! Part `n` of a subnet is that of node number `n`, so that no node has to ask another for it. In a network of topology
//! layer3 a part is a subnet of its own, whose first host is the gateway; in one of topology layer2 it is the range that
//! the node gives addresses from.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::network::{Invalid, NetworkSpec, RouteSpec, Topology};
use crate::node::part;
use crate::subnet::{SubnetSpec, usable};
use crate::{Node, Underlay};

/// The network as `node` has it.
pub(crate) fn of_node(spec: &NetworkSpec, node: &Node) -> Result<NetworkSpec, Invalid> {
    let mut own = spec.clone();
    if spec.topology.is_local() {
        return Ok(own);
    }
    for (index, subnet) in own.subnets.iter_mut().enumerate() {
        let net = part_of(index, subnet, node)?;
        check(index, subnet, spec.topology)?;
        match spec.topology {
            Topology::Layer3 => {
                subnet.gateway = Some(usable(net).first);
                subnet.subnet = net;
                subnet.exclude.retain(|text| concerns(text, net));
            }
            Topology::Layer2 | Topology::Localnet | Topology::Local => {
                let (all, part) = (usable(subnet.subnet), usable(net));
                let (first, last) = (part.first.max(all.first), part.last.min(all.last));
                subnet.ranges = vec![format!("{first}-{last}")];
            }
        }
        subnet.node_prefix = None;
    }
    if spec.topology == Topology::Layer3 {
        own.router.get_or_insert_with(|| spec.name.clone());
        let missing = spec.subnets.iter().map(|subnet| subnet.subnet);
        let missing = missing.filter(|dst| !spec.routes.iter().any(|route| route.dst == *dst));
        own.routes.extend(missing.map(|dst| RouteSpec { dst, gw: None }));
    }
    Ok(own)
}

/// The parts of all other nodes.
pub(crate) fn elsewhere(spec: &NetworkSpec, underlay: &Underlay) -> Result<Vec<(u16, IpNet)>, Invalid> {
    if spec.topology.is_local() {
        return Ok(Vec::new());
    }
    let subnets = || spec.subnets.iter().enumerate();
    let pairs = underlay.others().iter().flat_map(|node| subnets().map(move |subnet| (node, subnet)));
    pairs.map(|(node, (index, subnet))| Ok((node.number(), part_of(index, subnet, node)?))).collect()
}

fn part_of(index: usize, spec: &SubnetSpec, node: &Node) -> Result<IpNet, Invalid> {
    let subnet = spec.subnet;
    let prefix = spec.node_prefix.filter(|prefix| *prefix > subnet.prefix_len());
    let prefix = prefix.ok_or(Invalid::NoNodePrefix { index, subnet })?;
    part(subnet, prefix, node.number()).ok_or_else(|| Invalid::NoPart {
        index,
        subnet,
        prefix,
        node: node.name().to_string(),
        number: node.number(),
    })
}

/// False for an exclusion that is in another part; one that cannot be read is somebody else's to refuse.
fn concerns(exclusion: &str, part: IpNet) -> bool {
    let net = exclusion.parse::<IpNet>().or_else(|_| exclusion.parse::<IpAddr>().map(IpNet::from));
    net.map_or(true, |net| part.contains(&net) || net.contains(&part))
}

fn check(index: usize, spec: &SubnetSpec, topology: Topology) -> Result<(), Invalid> {
    if !spec.ranges.is_empty() {
        return Err(Invalid::OfNode { index, field: "ranges" });
    }
    if topology == Topology::Layer3 && spec.gateway.is_some() {
        return Err(Invalid::OfNode { index, field: "gateway" });
    }
    Ok(())
}
