//! What is done with a frame, once it is known?

use frame::{Burst, DropReason};
use wire::ethernet;

use crate::conntrack::{Handle, Vacancy};
use crate::gateway::Answer;
use crate::outputs::{Egress, Outputs, pop_tag};
use crate::parse::Packet;
use crate::program::{DomainNo, HopNo, Member, PortNo, Program, Tunnel};
use crate::switch::ProcessReport;

/// The pipeline's decision on a key; what caches hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Actions {
    /// The outer tag is cut off.
    pub(crate) strip: bool,
    /// The VLAN that the frame is in, 0 for none: the tag of ports that want one.
    pub(crate) vlan: u16,
    pub(crate) output: Output,
    /// The connection that the frame is of, which is asked about each frame.
    pub(crate) connection: Option<Handle>,
    /// It gets the addresses and ports that its connection's packets have when they leave.
    pub(crate) translate: bool,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Drop(DropReason),
    /// Dropped by a policy, as long as no connection that it is of begins.
    Deny(Vacancy),
    Port {
        port: PortNo,
        tagged: bool,
        mtu_bytes: u32,
    },
    /// To a station on another node.
    Tunnel(Tunnel),
    Flood {
        domain: DomainNo,
        sender_isolated: bool,
    },
    /// Through the gateway to a station of any network of its router.
    Route(HopNo),
    /// Back, changed into what the gateway says.
    Answer(Answer),
}

impl Actions {
    pub(crate) fn drop(reason: DropReason) -> Self {
        Self::to(Output::Drop(reason))
    }

    /// Of a frame in no VLAN, as it is.
    pub(crate) fn to(output: Output) -> Self {
        Self { strip: false, vlan: 0, output, connection: None, translate: false }
    }

    /// True if it holds only as long as something about the packet's connection does: whoever has it cached asks.
    #[inline(always)]
    pub(crate) fn asks_connections(&self) -> bool {
        self.connection.is_some() || matches!(self.output, Output::Deny(_))
    }

    /// Why the frame goes nowhere.
    pub(crate) fn drop_reason(&self) -> Option<DropReason> {
        match self.output {
            Output::Drop(reason) => Some(reason),
            Output::Deny(_) => Some(DropReason::PolicyDenied),
            _ => None,
        }
    }

    /// The shape in which `packet` leaves by a port that wants frames tagged, or does not, and has this MTU.
    #[inline(always)]
    pub(crate) fn offer(&self, packet: &Packet, tagged: bool, mtu_bytes: u32) -> Result<Egress, DropReason> {
        if packet.network_bytes > mtu_bytes {
            return Err(DropReason::TooBig);
        }
        // A tag that was cut off leaves its priority and its type to the one put on.
        let tci = packet.tci & 0xf000 | self.vlan;
        Ok(match (tagged, packet.service_tag) {
            (false, _) => Egress::Plain,
            (true, false) => Egress::Tag(tci),
            (true, true) => Egress::ServiceTag(tci),
        })
    }

    /// Every port that is to send `packet`, which came from `origin`: with the shape, or why it cannot.
    pub(crate) fn for_each_output(
        &self,
        (packet, origin): (&Packet, Origin),
        program: &Program,
        mut each: impl FnMut(PortNo, Result<Egress, DropReason>),
    ) {
        let mut offer = |actions: &Self, port, tunnel: Option<Tunnel>, (tagged, mtu_bytes)| match tunnel {
            None => each(port, actions.offer(packet, tagged, mtu_bytes)),
            Some(tunnel) => each(program.uplink(), offer_tunnel(packet, tunnel, mtu_bytes)),
        };
        match self.output {
            Output::Drop(_) | Output::Deny(_) => {}
            Output::Answer(_) => {
                let (port, egress) = origin.back(program);
                each(port, Ok(egress));
            }
            Output::Route(hop) => {
                if let Some(hop) = program.hop(hop) {
                    offer(self, hop.port, hop.tunnel, (false, hop.mtu_bytes));
                }
            }
            Output::Port { port, tagged, mtu_bytes } => offer(self, port, None, (tagged, mtu_bytes)),
            Output::Tunnel(tunnel) => {
                offer(self, origin.port, Some(tunnel), (false, program.tunnel_mtu_bytes(tunnel.node)));
            }
            Output::Flood { domain, sender_isolated } => {
                for member in program.domain(domain).receivers(sender_isolated) {
                    let &Member { port, tunnel, tagged, mtu_bytes, uplink_vlan, .. } = member;
                    match uplink_vlan {
                        _ if port == origin.port => {}
                        None => offer(self, port, tunnel, (tagged, mtu_bytes)),
                        Some(vlan) => {
                            let tagged = Self { vlan: vlan.get(), ..*self };
                            offer(&tagged, program.uplink(), None, (true, mtu_bytes));
                        }
                    }
                }
            }
        }
    }

    /// Carries the decision out on frame `frame` of `burst`, which came from `origin`, if it is not the gateway's matter.
    #[inline(always)]
    pub(crate) fn perform(
        &self,
        (burst, frame): (&mut Burst, usize),
        (packet, origin): (&Packet, Origin),
        program: &Program,
        (out, report): (&mut Outputs, &mut ProcessReport),
    ) {
        if self.strip {
            pop_tag(burst, frame);
        }
        match self.output {
            // The common case, without the loop that the others have.
            Output::Port { port, tagged, mtu_bytes } => match self.offer(packet, tagged, mtu_bytes) {
                Ok(egress) => out.push(port, egress, frame),
                Err(reason) => report.drops.add(reason, 1),
            },
            Output::Drop(reason) => report.drops.add(reason, 1),
            Output::Deny(_) => report.drops.add(DropReason::PolicyDenied, 1),
            Output::Flood { .. } | Output::Tunnel(_) => {
                self.send_each(frame, (packet, origin), program, (out, report));
            }
            Output::Route(_) | Output::Answer(_) => unreachable!("the gateway takes care of it"),
        }
    }

    #[inline(never)]
    fn send_each(
        &self,
        frame: usize,
        packet: (&Packet, Origin),
        program: &Program,
        (out, report): (&mut Outputs, &mut ProcessReport),
    ) {
        let mut ends = 0;
        self.for_each_output(packet, program, |port, egress| {
            ends += 1;
            match egress {
                Ok(egress) => out.push(port, egress, frame),
                Err(reason) => report.drops.add(reason, 1),
            }
        });
        // The pipeline decides on a flood only where there is somebody to receive it.
        report.copies += u64::max(ends, 1) - 1;
    }
}

/// Where a frame came from: a port, and the tunnel if it came out of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) port: PortNo,
    pub(crate) tunnel: Option<Tunnel>,
}

impl Origin {
    /// The port and the shape by which an answer leaves.
    pub(crate) fn back(self, program: &Program) -> (PortNo, Egress) {
        let uplink_vlan = program.port(self.port).and_then(|port| port.uplink_vlan);
        match (self.tunnel, uplink_vlan) {
            (Some(tunnel), _) => (program.uplink(), Egress::Tunnel(tunnel)),
            (None, Some(vlan)) => (program.uplink(), Egress::Tag(vlan.get())),
            (None, None) => (self.port, Egress::Plain),
        }
    }
}

/// The shape in which `packet` leaves through `tunnel`, which takes IP packets of `mtu_bytes` in untagged frames.
pub(crate) fn offer_tunnel(packet: &Packet, tunnel: Tunnel, mtu_bytes: u32) -> Result<Egress, DropReason> {
    let tag_bytes = u32::from(packet.link_bytes).saturating_sub(ethernet::HEADER_BYTES as u32);
    let fits = packet.network_bytes.saturating_add(tag_bytes) <= mtu_bytes;
    if fits { Ok(Egress::Tunnel(tunnel)) } else { Err(DropReason::TooBig) }
}
