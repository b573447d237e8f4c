//! Is the source's place remembered?

use super::Walk;
use super::admit::Admitted;
use crate::key::Field;
use crate::stations::{Learned, Limit, Place, Station};

/// Learns where the source is. A station that a port lists stays there, whoever sends as it.
pub(crate) fn run(walk: &mut Walk<'_>, admitted: Admitted) {
    let mac = walk.view.source_mac();
    // The gateway is everywhere.
    if walk.scene.network.gateway.as_ref().is_some_and(|gateway| gateway.mac == mac) {
        return;
    }
    let node = walk.scene.tunnel.map(|tunnel| {
        walk.view.get(Field::NODE);
        tunnel.node
    });
    if walk.scene.program.configured_station(walk.scene.network, admitted.vlan, mac).is_some() {
        return walk.say("learn", || format!("{mac} is configured: there is nothing to learn"));
    }
    let station = Station { network: walk.scene.network.number, vlan: admitted.vlan, mac };
    let (learned, slot, depends) = walk.scene.shared.learn(
        &station,
        (walk.scene.network, walk.scene.ingress, node),
        walk.scene.now,
        walk.scene.effect,
    );
    walk.source = slot;
    walk.source_is_here = !matches!(learned, Learned::Full(_));
    walk.depends[0] = depends;
    walk.say("learn", || match learned {
        Learned::Known => format!("{mac} is known here"),
        Learned::New => format!("{mac} is new: it is here from now on"),
        Learned::Moved(Place { node: Some(_), .. }) => {
            format!("{mac} was on another node: it is here from now on")
        }
        Learned::Moved(from) => format!("{mac} was behind port {}: it is here from now on", from.port.0),
        Learned::Full(Limit::Port) => format!("{mac} is not learned: the port holds as many as it may"),
        Learned::Full(Limit::Network) => format!("{mac} is not learned: the network holds as many as it may"),
        Learned::Full(Limit::Table) => format!("{mac} is not learned: the switch holds as many as it can"),
    });
}
