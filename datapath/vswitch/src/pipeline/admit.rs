//! May the frame enter, and into which VLAN?

use frame::DropReason;

use super::Walk;
use crate::key::{Field, TAGGED};

/// An admitted frame's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Its VLAN; 0 for none.
    pub(crate) vlan: u16,
    /// Its outer tag says where it is and goes no further.
    pub(crate) strip: bool,
}

/// Admits frames of a station, in a VLAN that the port carries.
pub(crate) fn run(walk: &mut Walk<'_>) -> Result<Admitted, DropReason> {
    let source = walk.view.source_mac();
    if !source.is_unicast() {
        walk.say("admit", || format!("its source MAC {source} is no station's address"));
        return Err(DropReason::BadSourceMac);
    }
    if walk.scene.ingress.transparent {
        walk.say("admit", || "enters its network, which has no VLANs".to_owned());
        return Ok(Admitted { vlan: 0, strip: false });
    }
    let admitted = place(walk);
    let tag = walk.view.get(Field::TAG);
    walk.say("admit", || match (admitted, tag) {
        (Some(Admitted { vlan: 0, .. }), _) => "enters its network, in no VLAN".to_owned(),
        (Some(Admitted { vlan, strip: false }), _) => format!("has no tag: enters the port's VLAN {vlan}"),
        (Some(Admitted { vlan, strip: true }), _) => format!("enters VLAN {vlan}"),
        (None, 0) => "has no tag, and the port takes tagged frames only".to_owned(),
        (None, tag) => format!("is tagged with VLAN {}, which the port does not carry", tag & !TAGGED),
    });
    admitted.ok_or(DropReason::VlanNotAllowed)
}

/// The place of a frame by its tag, in a network with VLANs; `None` if the port does not take it.
fn place(walk: &mut Walk<'_>) -> Option<Admitted> {
    let port = walk.scene.ingress;
    let tag = walk.view.get(Field::TAG);
    match (tag & !TAGGED) as u16 {
        // No tag, or one that carries a priority only.
        0 => port.untagged_vlan().map(|vlan| Admitted { vlan, strip: tag != 0 }),
        // The port's own untagged VLAN may come in tagged where tags are expected, not at an access port.
        id => (port.is_trunk() && port.carries(id)).then_some(Admitted { vlan: id, strip: true }),
    }
}
