//! Does the tracker let two TCPs talk, whatever the network does to their segments, and nobody else?

use std::collections::VecDeque;

use proptest::prelude::*;
use wire::tcp::Flags;

use super::super::tcp::{Scale, Segment};
use super::*;
use crate::conntrack::{Direction, Fault, State};

/// A TCP that sends some bytes, acknowledges what it gets in order, sends again what is not acknowledged, and closes.
#[derive(Debug)]
struct Host {
    first: u32,
    /// Bytes, SYN and FIN included, that it has to send.
    total: u32,
    sent: u32,
    acknowledged: u32,
    peer_first: u32,
    got: u32,
    /// What it takes beyond what it has.
    window: u32,
    shift: u8,
    allowed: u32,
}

impl Host {
    fn new(first: u32, payload: u32, window: u32, shift: u8) -> Self {
        let total = payload + 2;
        Self { first, total, sent: 0, acknowledged: 0, peer_first: 0, got: 0, window, shift, allowed: 1 }
    }

    fn segment(&self, from: u32, flags: Flags, payload_bytes: u32) -> Segment {
        let is_syn = flags.contains(Flags::SYN);
        let window = if is_syn { self.window.min(65_535) } else { self.window >> self.shift };
        Segment {
            sequence: self.first.wrapping_add(from),
            acknowledgement: self.peer_first.wrapping_add(self.got),
            window: window.min(65_535) as u16,
            flags,
            payload_bytes,
            scale: if is_syn { Scale::Shift(self.shift) } else { Scale::Absent },
        }
    }

    /// The next segment of up to `bytes`, or again the first that is not acknowledged.
    fn send(&mut self, bytes: u32, is_again: bool) -> Segment {
        let from = if is_again { self.acknowledged } else { self.sent };
        let ack = if self.got > 0 { Flags::ACK } else { Flags(0) };
        if from == 0 {
            self.sent = self.sent.max(1);
            return self.segment(0, Flags::SYN.with(ack), 0);
        }
        let bytes =
            bytes.min(self.allowed.saturating_sub(from)).min(self.total - 1 - from.min(self.total - 1));
        let room = self.allowed.saturating_sub(from + bytes);
        let is_last = from + bytes == self.total - 1 && room > 0;
        self.sent = self.sent.max(from + bytes + u32::from(is_last));
        self.segment(from, if is_last { Flags::ACK.with(Flags::FIN) } else { Flags::ACK }, bytes)
    }

    fn receive(&mut self, segment: &Segment) {
        if segment.flags.contains(Flags::SYN) && self.got == 0 {
            (self.peer_first, self.got) = (segment.sequence, 1);
            self.allowed = self.allowed.max(1 + u32::from(segment.window));
        }
        let at = segment.sequence.wrapping_sub(self.peer_first);
        let end = at.wrapping_add(length(segment));
        if at <= self.got && end > self.got && end < 1 << 30 {
            self.got = end;
        }
        if segment.flags.contains(Flags::ACK) {
            let ack = segment.acknowledgement.wrapping_sub(self.first);
            if ack <= self.sent {
                self.acknowledged = self.acknowledged.max(ack);
            }
        }
    }

    fn allow(&mut self, peer_shift: u8, segment: &Segment) {
        if segment.flags.contains(Flags::ACK) && !segment.flags.contains(Flags::SYN) {
            let ack = segment.acknowledgement.wrapping_sub(self.first);
            self.allowed = self.allowed.max(ack + (u32::from(segment.window) << peer_shift));
        }
    }
}

fn length(segment: &Segment) -> u32 {
    let has = |flags| u32::from(segment.flags.contains(flags));
    segment.payload_bytes + has(Flags::SYN) + has(Flags::FIN)
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    Send {
        is_server: bool,
        bytes: u32,
        is_again: bool,
        is_lost_before: bool,
    },
    /// The oldest on the way, or one behind it, arrives or is lost.
    Deliver {
        is_server: bool,
        behind: usize,
        is_lost: bool,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<bool>(), 0u32..70_000, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(is_server, bytes, is_again, is_lost_before)| Event::Send {
                is_server,
                bytes,
                is_again,
                is_lost_before
            }
        ),
        (any::<bool>(), 0usize..3, prop::bool::weighted(0.1))
            .prop_map(|(is_server, behind, is_lost)| Event::Deliver { is_server, behind, is_lost }),
    ]
}

fn tuple() -> Tuple {
    Tuple { protocol: IpProtocol::TCP, ..udp(1) }
}

/// The tracker between them: it sees what is sent, and not what arrives.
struct Between {
    connections: Arc<Connections>,
    handle: Option<Handle>,
    hosts: [Host; 2],
    /// By direction.
    on_the_way: [VecDeque<Segment>; 2],
}

impl Between {
    fn new(hosts: [Host; 2]) -> Self {
        Self { connections: tracker(10), handle: None, hosts, on_the_way: [VecDeque::new(), VecDeque::new()] }
    }

    fn pass(&mut self, direction: Direction, segment: Segment) {
        let transport = Transport::Tcp(segment);
        let now = Now { ms: 0 };
        match self.handle {
            None => {
                let tuple = tuple();
                let opening = Opening { transport: &transport, ..opening(&tuple) };
                self.handle = Some(self.connections.open(&opening, now).unwrap());
            }
            Some(handle) => {
                let handle = if direction == Direction::Original { handle } else { handle.turned() };
                let answer = self.connections.advance(handle, &transport, now);
                assert!(answer.is_ok(), "{answer:?} {direction:?} {segment:x?} {:x?}", self.hosts);
            }
        }
        self.on_the_way[direction as usize].push_back(segment);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Send { is_server, bytes, is_again, is_lost_before } => {
                let host = &mut self.hosts[usize::from(is_server)];
                // A server waits for the SYN, and nobody sends data before the handshake.
                let is_waiting = is_server && host.got == 0;
                let is_first = host.sent == 0 || is_again && host.acknowledged == 0;
                if is_waiting || !is_first && host.acknowledged == 0 {
                    return;
                }
                let segment = host.send(bytes, is_again);
                if !is_lost_before {
                    self.pass(Direction::BOTH[usize::from(is_server)], segment);
                }
            }
            Event::Deliver { is_server, behind, is_lost } => {
                let queue = &mut self.on_the_way[usize::from(!is_server)];
                let Some(segment) = queue.remove(behind.min(queue.len().saturating_sub(1))) else { return };
                if !is_lost {
                    let [client, server] = &mut self.hosts;
                    let (to, from) = if is_server { (server, client) } else { (client, server) };
                    to.receive(&segment);
                    to.allow(from.shift, &segment);
                }
            }
        }
    }

    fn state(&self) -> State {
        self.connections.view(self.handle.unwrap(), Now { ms: 0 }).unwrap().state
    }
}

fn host() -> impl Strategy<Value = Host> {
    let first = prop_oneof![any::<u32>(), Just(u32::MAX), Just(u32::MAX - 70_000), Just(i32::MAX as u32)];
    (first, 0u32..200_000, 1u32..1_000_000, 0u8..=14)
        .prop_map(|(first, payload, window, shift)| Host::new(first, payload, window, shift))
}

proptest! {
    #[test]
    fn two_hosts_may_say_all_that_they_may(
        (client, server) in (host(), host()),
        events in prop::collection::vec(event(), 1..300),
    ) {
        let mut between = Between::new([client, server]);
        for event in events {
            between.happen(event);
        }
    }

    #[test]
    fn a_conversation_without_loss_ends_in_time_wait(
        (client, server) in (host(), host()),
        pieces in prop::collection::vec(1u32..70_000, 1..20),
    ) {
        let mut between = Between::new([client, server]);
        let mut round = 0;
        while between.hosts.iter().any(|host| host.acknowledged < host.total) {
            let bytes = pieces[round % pieces.len()];
            round += 1;
            prop_assert!(round < 1_000_000);
            for is_server in [false, true] {
                between.happen(Event::Send { is_server, bytes, is_again: false, is_lost_before: false });
                // Windows that were below a byte after scaling are probed.
                let host = &mut between.hosts[usize::from(is_server)];
                host.allowed = host.allowed.max(host.acknowledged + 1);
                while !between.on_the_way[usize::from(is_server)].is_empty() {
                    between.happen(Event::Deliver { is_server: !is_server, behind: 0, is_lost: false });
                }
            }
        }
        for is_server in [false, true] {
            between.happen(Event::Send { is_server, bytes: 0, is_again: false, is_lost_before: false });
        }
        prop_assert_eq!(between.state(), State::TimeWait);
    }

    #[test]
    fn who_does_not_see_the_segments_does_not_get_one_in(
        sequence: u32,
        acknowledgement: u32,
        flags in prop_oneof![Just(Flags::RST), Just(Flags::ACK), Just(Flags::ACK.with(Flags::FIN))],
        is_server: bool,
    ) {
        // 65 536 to each side, and one answer to the question: is the guess within the windows?
        let mut between = Between::new([Host::new(1 << 31, 100, 65_535, 0), Host::new(7, 100, 65_535, 0)]);
        for is_server in [false, true, false] {
            between.happen(Event::Send { is_server, bytes: 0, is_again: false, is_lost_before: false });
            between.happen(Event::Deliver { is_server: !is_server, behind: 0, is_lost: false });
        }
        prop_assert_eq!(between.state(), State::Established);
        let (own, other) = if is_server { (8, (1u32 << 31) + 1) } else { ((1 << 31) + 1, 8) };
        let segment =
            Segment { sequence, acknowledgement, window: 1000, flags, payload_bytes: 0, scale: Scale::Absent };
        let near = |value: u32, to: u32| (value.wrapping_sub(to) as i32).unsigned_abs() <= 66_000;
        let is_near = near(sequence, own) && (flags == Flags::RST || near(acknowledgement, other));
        let handle = between.handle.unwrap();
        let handle = if is_server { handle.turned() } else { handle };
        let answer = between.connections.advance(handle, &Transport::Tcp(segment), Now { ms: 0 });
        prop_assert!(is_near || answer == Err(Fault::Invalid));
    }

    #[test]
    fn any_segments_at_all_are_answered(
        segments in prop::collection::vec((any::<bool>(), any::<(u32, u32, u16, u8, u32)>(), prop_oneof![
            Just(Scale::Absent), Just(Scale::Unknown), (0u8..=14).prop_map(Scale::Shift)]), 1..50),
        is_picked_up: bool,
    ) {
        let connections = tracker(10);
        let mut handle: Option<Handle> = None;
        for (is_reply, (sequence, acknowledgement, window, flags, payload_bytes), scale) in segments {
            let flags = Flags(flags & 0x17);
            let segment = Segment { sequence, acknowledgement, window, flags, payload_bytes, scale };
            let transport = Transport::Tcp(segment);
            let now = Now { ms: 0 };
            let turned = |handle: Handle| if is_reply { handle.turned() } else { handle };
            let answer = handle.map(|handle| connections.advance(turned(handle), &transport, now));
            if matches!(answer, None | Some(Err(Fault::Gone))) {
                let pickup = if is_picked_up { Pickup::Accept } else { Pickup::Refuse };
                let tuple = tuple();
                handle = connections.open(&Opening { transport: &transport, pickup, ..opening(&tuple) }, now).ok();
            }
        }
    }
}
