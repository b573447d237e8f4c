//! What is done with a frame, once it is known?

use frame::{Burst, DropReason};

use crate::gateway::Answer;
use crate::outputs::{Egress, Outputs, pop_tag};
use crate::parse::Packet;
use crate::program::{DomainNo, HostNo, PortNo, Program};
use crate::switch::ProcessReport;

/// The pipeline's decision on a key; what caches hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Actions {
    /// The outer tag is cut off.
    pub(crate) strip: bool,
    /// The VLAN that the frame is in, 0 for none: the tag of ports that want one.
    pub(crate) vlan: u16,
    pub(crate) output: Output,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Drop(DropReason),
    Port {
        port: PortNo,
        tagged: bool,
        mtu_bytes: u32,
    },
    Flood {
        domain: DomainNo,
        sender_isolated: bool,
    },
    /// Through the gateway to a station of any network of its router.
    Route(HostNo),
    /// Back, changed into what the gateway says.
    Answer(Answer),
}

impl Actions {
    pub(crate) fn drop(reason: DropReason) -> Self {
        Self { strip: false, vlan: 0, output: Output::Drop(reason) }
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

    /// Every port that is to send `packet`, which came in by `from`: with the shape, or why it cannot.
    pub(crate) fn for_each_output(
        &self,
        (packet, from): (&Packet, PortNo),
        program: &Program,
        mut each: impl FnMut(PortNo, Result<Egress, DropReason>),
    ) {
        match self.output {
            Output::Drop(_) => {}
            Output::Answer(_) => each(from, Ok(Egress::Plain)),
            Output::Route(host) => {
                if let Some(host) = program.host(host) {
                    each(host.port, self.offer(packet, false, host.mtu_bytes));
                }
            }
            Output::Port { port, tagged, mtu_bytes } => each(port, self.offer(packet, tagged, mtu_bytes)),
            Output::Flood { domain, sender_isolated } => {
                for member in program.domain(domain).receivers(sender_isolated) {
                    if member.port != from {
                        each(member.port, self.offer(packet, member.tagged, member.mtu_bytes));
                    }
                }
            }
        }
    }

    /// Carries the decision out on frame `frame` of `burst`, which came in by `from`, if it is not the gateway's matter.
    #[inline(always)]
    pub(crate) fn perform(
        &self,
        (burst, frame): (&mut Burst, usize),
        (packet, from): (&Packet, PortNo),
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
            Output::Flood { .. } => self.flood(frame, (packet, from), program, (out, report)),
            Output::Route(_) | Output::Answer(_) => unreachable!("the gateway takes care of it"),
        }
    }

    #[inline(never)]
    fn flood(
        &self,
        frame: usize,
        from: (&Packet, PortNo),
        program: &Program,
        (out, report): (&mut Outputs, &mut ProcessReport),
    ) {
        let mut ends = 0;
        self.for_each_output(from, program, |port, egress| {
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
