//! Frames into a switch with all kinds of ports, the uplink to other nodes among them, services and policies that change:
//! nothing panics, and every frame has a fate.

mod program;

use std::sync::Arc;

use frame::{Burst, Checksum, Gso, GsoKind, Offload};
use vswitch::program::{NodeNo, PortNo};
use vswitch::{CacheSizes, Egress, Entrance, Now, Outputs, ProcessReport, Shared, Switch};

use crate::input::Input;
use program::{PROGRAMS, UPLINK};

/// Soon full, and made in no time, which is what each input begins with.
const SMALL: CacheSizes = CacheSizes { megaflows: 32, microflows: 32 };
const CONNECTIONS: u32 = 16;

/// Records of a port, an offload, a length, and as many bytes; some bursts a while later, or by another program.
pub(crate) fn run(bytes: &[u8]) {
    let mut world = World::new();
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        world.burst(&mut input);
    }
}

struct World {
    switch: Switch,
    shared: Arc<Shared>,
    burst: Burst,
    outputs: Outputs,
    now: Now,
}

impl World {
    fn new() -> Self {
        let shared = Shared::with_connections(CONNECTIONS);
        let switch = Switch::with_caches(SMALL, Arc::clone(&shared), Arc::clone(&PROGRAMS[0]), 7);
        Self { switch, shared, burst: Burst::new(), outputs: Outputs::default(), now: Now { ms: 1 } }
    }

    /// One burst of up to four frames, all from one port.
    fn burst(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        let port = PortNo(u16::from(choice & 7 | choice >> 3 & 8));
        if choice & 0x80 != 0 {
            let is_first = self.switch.program().version() == PROGRAMS[0].version();
            self.switch.set_program(Arc::clone(&PROGRAMS[usize::from(is_first)]));
        }
        for _ in 0..=(choice >> 3 & 3) {
            let offload = offload(input);
            let len = usize::from(input.u16() & 0x3ff);
            let frame = input.bytes(len).to_vec();
            // The explanation walks the same stages and must not panic either.
            let entrance = if port == UPLINK { Entrance::Uplink } else { Entrance::Port(port) };
            let explanation = self.switch.explain(entrance, &frame, self.now);
            assert!(explanation.drop.is_some() || !explanation.outputs.is_empty());
            let _ = self.burst.push_owned(frame, offload);
        }
        let frames = self.burst.len() as u64;
        let senders: Vec<_> =
            (0..self.burst.len()).map(|frame| Sender::of(self.burst.head(frame), port)).collect();
        let mut report = ProcessReport::default();
        self.outputs.clear();
        self.switch.process(&mut self.burst, port, self.now, &mut self.outputs, &mut report);
        let sent: usize = self.outputs.groups().iter().map(|group| group.frames().len()).sum();
        assert_eq!(frames + report.copies, sent as u64 + report.drops.total(), "frames without a fate");
        self.check_outputs(port, &senders);
        self.burst.clear();
        if choice & 0x20 != 0 {
            self.now.ms += 40_000;
            self.switch.sweep(self.now, 4096);
        }
        assert!(self.shared.stations(self.now).len() <= 64, "more stations than all limits allow");
    }

    /// Each frame takes its shape and comes back out of it, and none goes back to where it came from.
    fn check_outputs(&mut self, port: PortNo, senders: &[Sender]) {
        let Self { switch, burst, outputs, .. } = self;
        for group in outputs.groups() {
            for frame in group.frames().iter().map(|frame| usize::from(*frame)) {
                let head = burst.head(frame);
                // But for the gateway's answer to who sent it, which is in its place, and a service's client that serves it.
                let is_answer = match senders[frame] {
                    Sender::Station(mac) => {
                        mac_at(head, 0) == mac
                            || head.starts_with(&[0x33, 0x33])
                            || head.starts_with(&[0xff; 6])
                            || mac_at(head, 6) == Some(program::SERVICES_GATEWAY.0)
                    }
                    Sender::Node(node) => {
                        matches!(group.egress, Egress::Tunnel(tunnel) if tunnel.node == node)
                    }
                };
                assert!(group.port != port || is_answer, "a frame goes back to where it came from");
                let (bytes, offload) = (burst.gather(frame).to_vec(), burst.offload(frame));
                if let Ok(undo) = group.egress.apply(burst, frame, switch.program()) {
                    undo.undo(burst, frame);
                }
                assert_eq!((burst.gather(frame).to_vec(), burst.offload(frame)), (bytes, offload));
            }
        }
    }
}

/// Whom a frame is from.
enum Sender {
    Station(Option<[u8; 6]>),
    Node(NodeNo),
}

impl Sender {
    fn of(head: &[u8], port: PortNo) -> Self {
        match program::node_of(head).filter(|_| port == UPLINK) {
            Some(node) => Self::Node(node),
            None => Self::Station(mac_at(head, 6)),
        }
    }
}

fn mac_at(head: &[u8], at: usize) -> Option<[u8; 6]> {
    head.get(at..)?.first_chunk().copied()
}

fn offload(input: &mut Input<'_>) -> Offload {
    let choice = input.u8();
    if choice < 0x80 {
        return Offload::NONE;
    }
    let kinds = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpFragment, GsoKind::UdpSegment];
    let gso = Gso { kind: kinds[usize::from(choice & 3)], size: input.u16(), ecn: false, headers_bytes: 54 };
    Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso), ..Offload::NONE }
}
