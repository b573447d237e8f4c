//! Who sends which frames of the burst?

use frame::{BURST_FRAMES, Burst, DropReason, Offload};
use wire::vlan::Tci;
use wire::{EtherType, ethernet, vlan};

use crate::program::{PortNo, Program, Tunnel};

/// What happens to a frame's head between the switch and one port. Applied just before the send and undone after it, so
/// that one frame can leave several ports in several shapes without a copy of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Egress {
    /// As it is.
    #[default]
    Plain,
    /// With an 802.1Q tag pushed: the 16-bit TCI (priority, DEI, VLAN id).
    Tag(u16),
    /// With an 802.1ad service tag pushed, because the frame came in with one.
    ServiceTag(u16),
    /// Through a tunnel to another node.
    Tunnel(Tunnel),
}

/// How a frame comes back into the shape it had before [`Egress::apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Undo {
    /// It was left as it was.
    #[default]
    Nothing,
    /// Without the tag.
    Tag,
    /// Without the headers of the tunnel.
    Tunnel {
        /// Their bytes.
        bytes: usize,
        /// What the frame left to the next hop.
        offload: Offload,
    },
}

impl Egress {
    /// Puts frame `frame` into this shape, just before the send; the answer's [`Undo::undo`] must follow. `program` is the
    /// one that the shape was decided by.
    ///
    /// # Errors
    /// The frame cannot have this shape and is as it was: why it is not to be sent.
    #[inline]
    pub fn apply(self, burst: &mut Burst, frame: usize, program: &Program) -> Result<Undo, DropReason> {
        let (tpid, tci) = match self {
            Self::Plain => return Ok(Undo::Nothing),
            Self::Tag(tci) => (EtherType::VLAN, tci),
            Self::ServiceTag(tci) => (EtherType::SERVICE_VLAN, tci),
            Self::Tunnel(tunnel) => return wrap(tunnel, burst, frame, program),
        };
        push_tag(burst, frame, tpid, Tci(tci));
        Ok(Undo::Tag)
    }
}

impl Undo {
    /// Takes frame `frame` back to the shape it had.
    #[inline]
    pub fn undo(self, burst: &mut Burst, frame: usize) {
        match self {
            Self::Nothing => {}
            Self::Tag => pop_tag(burst, frame),
            Self::Tunnel { bytes, offload } => {
                burst.shrink_front(frame, bytes);
                burst.set_offload(frame, offload);
            }
        }
    }
}

fn wrap(tunnel: Tunnel, burst: &mut Burst, frame: usize, program: &Program) -> Result<Undo, DropReason> {
    let node = program.underlay().and_then(|underlay| underlay.node(tunnel.node));
    let outer = node.and_then(|node| node.outer.as_ref()).ok_or(DropReason::NoNeighbor)?;
    let (before, offload) = (burst.frame_len(frame), burst.offload(frame));
    outer.wrap(burst, frame, tunnel.vni)?;
    Ok(Undo::Tunnel { bytes: burst.frame_len(frame) - before, offload })
}

/// Puts a tag behind the addresses. The headroom always holds it: a frame has one tag of ours at most.
#[inline]
fn push_tag(burst: &mut Burst, frame: usize, tpid: EtherType, tci: Tci) {
    if let Some(head) = burst.grow_front(frame, vlan::TAG_BYTES)
        && head.len() >= vlan::TAG_BYTES + ethernet::HEADER_BYTES
    {
        vlan::push_front(head, tpid, tci);
    }
}

/// Removes the tag behind the addresses.
#[inline]
pub(crate) fn pop_tag(burst: &mut Burst, frame: usize) {
    let head = burst.head_mut(frame);
    if head.len() >= vlan::TAG_BYTES + ethernet::HEADER_BYTES {
        vlan::pop_front(head);
        burst.shrink_front(frame, vlan::TAG_BYTES);
    }
}

/// Frames of the burst that leave by one port in one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The port that sends.
    pub port: PortNo,
    /// The shape in which they leave.
    pub egress: Egress,
    frames: [u8; BURST_FRAMES],
    len: u8,
}

impl Group {
    /// All frames of a burst, in order.
    const ALL: [u8; BURST_FRAMES] = {
        let mut all = [0; BURST_FRAMES];
        let mut at = 0;
        while at < BURST_FRAMES {
            all[at] = at as u8;
            at += 1;
        }
        all
    };

    fn fill(&mut self, count: usize) {
        self.frames = Self::ALL;
        self.len = count as u8;
    }

    /// The frames' indices in the burst, in order of arrival.
    pub fn frames(&self) -> &[u8] {
        &self.frames[..self.len as usize]
    }

    #[inline(always)]
    fn push(&mut self, frame: usize) {
        self.frames[self.len as usize] = frame as u8;
        self.len += 1;
    }
}

/// The groups of one burst. Reused; allocates only until it has seen the largest flood.
#[derive(Debug, Default)]
pub struct Outputs {
    groups: Vec<Group>,
    len: usize,
}

impl Outputs {
    /// Forgets all groups.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The groups, in order of first use.
    pub fn groups(&self) -> &[Group] {
        &self.groups[..self.len]
    }

    /// Sends frame `frame` by `port` in the shape `egress`.
    #[inline]
    pub fn push(&mut self, port: PortNo, egress: Egress, frame: usize) {
        let live = &mut self.groups[..self.len];
        // Bursts name few ports: the last group is nearly always the one, and a search backwards finds the others.
        match live.iter_mut().rev().find(|group| group.port == port && group.egress == egress) {
            Some(group) => group.push(frame),
            None => self.open(port, egress, frame),
        }
    }

    /// Sends the first `count` frames, all that there are, by `port` in the shape `egress`. There must be no group yet.
    pub(crate) fn push_all(&mut self, port: PortNo, egress: Egress, count: usize) {
        debug_assert_eq!(self.len, 0, "no group is open");
        self.open(port, egress, 0);
        self.groups[0].fill(count);
    }

    #[inline(never)]
    fn open(&mut self, port: PortNo, egress: Egress, frame: usize) {
        let mut group = Group { port, egress, frames: [0; BURST_FRAMES], len: 0 };
        group.push(frame);
        match self.groups.get_mut(self.len) {
            Some(slot) => *slot = group,
            None => self.groups.push(group),
        }
        self.len += 1;
    }
}
