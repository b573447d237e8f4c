//! Does the tracker answer as a list of connections would? Random packets, times and translations, held against a list
//! that is obviously right.

use proptest::prelude::*;

use super::*;
use crate::conntrack::{Chunk, DestinationNat, Direction, Fault, PortRange, SourceNat, State};

/// A connection as anybody would write it down.
#[derive(Debug, Clone)]
struct Known {
    tuples: [Tuple; 2],
    seen_ms: u64,
    since_ms: u64,
    state: State,
    mark: Mark,
}

#[derive(Debug, Default)]
struct Model {
    known: Vec<Known>,
}

impl Known {
    fn timeout_ms(&self) -> u64 {
        match (self.tuples[0].protocol, self.state) {
            (IpProtocol::UDP, State::Stream) => 120_000,
            (IpProtocol::UDP | IpProtocol::ICMP, _) => 30_000,
            _ => 600_000,
        }
    }
}

impl Model {
    fn expire(&mut self, now: u64) {
        self.known.retain(|known| now - known.seen_ms < known.timeout_ms());
    }

    fn find(&self, tuple: &Tuple) -> Option<(usize, Direction)> {
        let at = |direction: Direction| {
            self.known.iter().position(|known| known.tuples[direction as usize] == *tuple)
        };
        let original = at(Direction::Original).map(|at| (at, Direction::Original));
        original.or_else(|| at(Direction::Reply).map(|at| (at, Direction::Reply)))
    }

    fn advance(&mut self, (at, direction): (usize, Direction), now: u64) {
        let known = &mut self.known[at];
        known.seen_ms = now;
        known.state = match known.state {
            State::Unreplied if direction == Direction::Reply => State::Replied,
            State::Replied if now - known.since_ms >= 2000 => State::Stream,
            state => state,
        };
    }
}

/// What happens.
#[derive(Debug, Clone)]
enum Event {
    Packet(Tuple, Transport, Translation),
    Wait(u64),
    Sweep(usize),
    RemoveFrom(Endpoint),
}

fn endpoint(ports: bool) -> impl Strategy<Value = Endpoint> {
    (1u8..4, 0u16..3).prop_map(move |(host, port)| end([10, 0, 0, host], if ports { 1000 + port } else { 0 }))
}

fn packet() -> impl Strategy<Value = (Tuple, Transport)> {
    let tuple =
        |protocol, source, destination, zone| Tuple { zone: ZoneNo(zone), protocol, source, destination };
    prop_oneof![
        (endpoint(true), endpoint(true), 0u32..2)
            .prop_map(move |(a, b, zone)| (tuple(IpProtocol::UDP, a, b, zone), Transport::Udp)),
        (endpoint(false), endpoint(false), 0u32..2)
            .prop_map(move |(a, b, zone)| (tuple(IpProtocol(47), a, b, zone), Transport::Other)),
        (endpoint(true), endpoint(false), 0u32..2, any::<bool>()).prop_map(move |(a, b, zone, is_asked)| {
            let asked = tuple(IpProtocol::ICMP, a, b, zone);
            if is_asked { (asked, Transport::EchoRequest) } else { (asked.turned(), Transport::EchoReply) }
        }),
    ]
}

fn translation() -> impl Strategy<Value = Translation> {
    let source = prop::option::of((1u8..4, 1000u16..1003, 0u16..3)).prop_map(|nat| {
        nat.map(|(host, first, more)| {
            SourceNat::new(IpAddr::from([10, 0, 0, host]), PortRange::new(first, first + more).unwrap())
        })
    });
    let destination = prop::option::of((1u8..4, prop::option::of(1000u16..1003)))
        .prop_map(|nat| nat.map(|(host, port)| DestinationNat::new(IpAddr::from([10, 0, 0, host]), port)));
    (source, destination).prop_map(|(source, destination)| Translation { source, destination })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (packet(), translation()).prop_map(|((tuple, transport), translation)| {
            Event::Packet(tuple, transport, translation)
        }),
        4 => packet().prop_map(|(tuple, transport)| Event::Packet(tuple, transport, Translation::default())),
        2 => prop_oneof![0u64..3000, 0u64..40_000, Just(130_000)].prop_map(Event::Wait),
        1 => (0usize..20_000).prop_map(Event::Sweep),
        1 => endpoint(true).prop_map(Event::RemoveFrom),
    ]
}

/// Both, and the time.
struct Pair {
    connections: Arc<Connections>,
    model: Model,
    now: u64,
    count: u64,
    handles: Vec<(Handle, Tuple)>,
}

impl Pair {
    fn packet(&mut self, tuple: Tuple, transport: Transport, translation: Translation) {
        self.model.expire(self.now);
        let now = Now { ms: self.now };
        let found = self.connections.find(&tuple, now);
        let known = self.model.find(&tuple);
        assert_eq!(found.map(Handle::direction), known.map(|(_, direction)| direction), "{tuple:?}");
        let (Some(handle), Some((at, direction))) = (found, known) else {
            return self.open(tuple, transport, translation);
        };
        self.model.advance((at, direction), self.now);
        let known = &self.model.known[at];
        assert_eq!(self.connections.advance(handle, &transport, now), Ok(known.mark));
        assert_eq!(self.connections.tuple(handle), Some(tuple));
        assert_eq!(
            self.connections.translated(handle),
            Some(known.tuples[direction.other() as usize].turned())
        );
        let view = self.connections.view(handle, now).unwrap();
        assert_eq!((view.state, view.left_ms), (known.state, known.timeout_ms()));
    }

    fn open(&mut self, tuple: Tuple, transport: Transport, translation: Translation) {
        self.count += 1;
        let mark = Mark { cookie: self.count, verdict: 1, epoch: 2 };
        let opening = Opening { transport: &transport, translation, mark, ..opening(&tuple) };
        match self.connections.open(&opening, Now { ms: self.now }) {
            Ok(handle) => {
                let reply = self.connections.tuple(handle.turned()).unwrap();
                self.check_translation(&tuple, &reply, translation);
                assert_eq!(self.model.find(&reply), None, "a reply tuple is nobody else's");
                let (seen_ms, since_ms) = (self.now, self.now);
                let known =
                    Known { tuples: [tuple, reply], seen_ms, since_ms, state: State::Unreplied, mark };
                self.model.known.push(known);
                self.handles.push((handle, tuple));
            }
            Err(Refusal::NoFreePort) => {
                for reply in translation.replies(&tuple, 0) {
                    assert!(self.model.find(&reply).is_some(), "{reply:?} was free");
                }
            }
            Err(Refusal::Invalid) => {
                let is_loop = translation.replies(&tuple, 0).any(|reply| reply == tuple);
                assert!(is_loop || transport == Transport::EchoReply, "{tuple:?}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn check_translation(&self, tuple: &Tuple, reply: &Tuple, translation: Translation) {
        let has_ports = tuple.protocol == IpProtocol::UDP;
        let destination = match translation.destination {
            Some(nat) => Endpoint {
                ip: nat.ip,
                port: nat.port.filter(|_| has_ports).unwrap_or(tuple.destination.port),
            },
            None => tuple.destination,
        };
        assert_eq!(reply.source, destination);
        match translation.source {
            None => assert_eq!(reply.destination, tuple.source),
            Some(nat) => assert_eq!(reply.destination.ip, nat.ip),
        }
    }

    fn remove_from(&mut self, gone: Endpoint) {
        self.model.expire(self.now);
        let mut at = Some(0);
        while let Some(from) = at {
            let Chunk { next, .. } = self
                .connections
                .remove_if((from, 100), Now { ms: self.now }, |view| view.original.source == gone);
            at = next;
        }
        self.model.known.retain(|known| known.tuples[0].source != gone);
    }
}

proptest! {
    #[test]
    fn the_tracker_answers_as_a_list_would(events in prop::collection::vec(event(), 1..200)) {
        let connections = tracker(10_000);
        let mut pair = Pair { connections, model: Model::default(), now: 0, count: 0, handles: Vec::new() };
        for event in events {
            match event {
                Event::Packet(tuple, transport, translation) => pair.packet(tuple, transport, translation),
                Event::Wait(ms) => pair.now += ms,
                Event::Sweep(budget) => {
                    pair.connections.sweep(Now { ms: pair.now }, budget);
                }
                Event::RemoveFrom(end) => pair.remove_from(end),
            }
        }
        pair.model.expire(pair.now);
        pair.connections.sweep(Now { ms: pair.now }, usize::MAX);
        prop_assert_eq!(pair.connections.len() as usize, pair.model.known.len());
        // A handle is of the connection that it was given for, or void.
        for (handle, tuple) in &pair.handles {
            if let Some(now) = pair.connections.tuple(*handle) {
                prop_assert_eq!(now, *tuple);
            }
        }
        let transport = Transport::Udp;
        let gone = pair.handles.iter().filter(|(handle, _)| {
            pair.connections.advance(*handle, &transport, Now { ms: pair.now }) == Err(Fault::Gone)
        });
        prop_assert_eq!(gone.count(), pair.handles.len() - pair.model.known.len());
    }
}
