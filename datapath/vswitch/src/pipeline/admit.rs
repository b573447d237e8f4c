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
    let port = walk.scene.ingress;
    let tag = walk.view.get(Field::TAG);
    let id = (tag & !TAGGED) as u16;
    let admitted = if port.transparent {
        Some(Admitted { vlan: 0, strip: false })
    } else if id == 0 {
        // No tag, or one that carries a priority only.
        port.untagged_vlan().map(|vlan| Admitted { vlan, strip: tag != 0 })
    } else {
        // The port's own untagged VLAN may come in tagged where tags are expected, not at an access port.
        (port.is_trunk() && port.carries(id)).then_some(Admitted { vlan: id, strip: true })
    };
    walk.say("admit", || match (admitted, tag) {
        (Some(Admitted { vlan: 0, .. }), _) => "enters its network, which is in no VLAN here".to_owned(),
        (Some(Admitted { vlan, .. }), 0) => format!("enters VLAN {vlan}, that of the port's untagged frames"),
        (Some(Admitted { vlan, .. }), _) => format!("enters VLAN {vlan}"),
        (None, 0) => "has no tag, and the port takes tagged frames only".to_owned(),
        (None, _) => format!("is tagged with VLAN {id}, which the port does not carry"),
    });
    admitted.ok_or(DropReason::VlanNotAllowed)
}
