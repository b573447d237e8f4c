//! What does a packet do to the connection it belongs to? One step for every protocol, on values: no table, no atomics.

use super::exchange;
use super::observe::Transport;
use super::sctp::Association;
use super::state::{Class, State, Timeouts};
use super::tcp::Tcp;
use super::tuple::Direction;
use crate::time::Now;

/// Words that a protocol has for itself. The last is written after all else (see [`super::entry`]).
pub(super) const WORDS: usize = 4;

/// All that changes while a connection lives, but for the time. [`WORDS`] words and 16 bits are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) class: Class,
    pub(super) state: State,
    /// A packet of the other end was accepted.
    pub(super) is_replied: bool,
    pub(super) bits: u16,
    pub(super) words: [u64; WORDS],
}

/// What a packet means to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It fits, and this is the connection after it.
    Accept(Progress),
    /// It fits, and changes nothing.
    Pass,
    /// It does not fit.
    Invalid,
    /// The connection was over, and this packet begins another.
    Over,
}

/// Whether a connection may be taken up at a packet that does not begin one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Pickup {
    /// No: its packets are invalid.
    #[default]
    Refuse,
    /// Yes, and without holding it to windows that nobody saw agreed on. For a while after a start.
    Accept,
}

impl Progress {
    /// A connection before its first packet.
    pub(super) fn none(class: Class, state: State) -> Self {
        Self { class, state, is_replied: false, bits: 0, words: [0; WORDS] }
    }

    /// The connection that a packet begins; `None` if such a packet begins none.
    pub(super) fn begin(transport: &Transport, pickup: Pickup, now: Now) -> Option<Self> {
        match transport {
            Transport::Tcp(segment) => Tcp::begin(segment, pickup).map(Tcp::pack),
            Transport::Sctp(packet) => Association::begin(packet, pickup).map(Association::pack),
            Transport::Udp => Some(exchange::begin(Class::Udp, now)),
            Transport::EchoRequest => Some(exchange::begin(Class::Echo, now)),
            Transport::EchoReply | Transport::Fragment => None,
            Transport::Other => Some(exchange::begin(Class::Other, now)),
        }
    }

    /// The connection after a packet that goes `direction`.
    #[inline]
    pub(super) fn step(self, direction: Direction, transport: &Transport, now: Now) -> Step {
        let step = match (self.class, transport) {
            (Class::Tcp, Transport::Tcp(segment)) => Tcp::unpack(&self).step(direction, segment),
            (Class::Sctp, Transport::Sctp(packet)) => Association::unpack(&self).step(direction, packet),
            (Class::Udp, Transport::Udp)
            | (Class::Echo, Transport::EchoRequest | Transport::EchoReply)
            | (Class::Other, Transport::Other) => exchange::step(self, direction, now),
            // What its first fragment said, counted.
            (_, Transport::Fragment) => Step::Pass,
            _ => Step::Invalid,
        };
        match step {
            Step::Accept(after) => {
                Step::Accept(Self { is_replied: self.is_replied || direction == Direction::Reply, ..after })
            }
            other => other,
        }
    }

    /// How long it may be idle.
    #[inline]
    pub(super) fn timeout_ms(&self, timeouts: &Timeouts) -> u64 {
        timeouts.of(self.class, self.state, self.is_replied)
    }

    /// True if it may go where room is short.
    pub(super) fn is_dispensable(&self) -> bool {
        !self.is_replied || self.state.is_dispensable()
    }

    /// State, class and the protocol's bits in one number.
    #[inline]
    pub(super) fn control(&self) -> u32 {
        self.state as u32
            | (self.class as u32) << 4
            | u32::from(self.is_replied) << 7
            | u32::from(self.bits) << 8
    }

    #[inline]
    pub(super) fn from_control(control: u32, words: [u64; WORDS]) -> Self {
        Self {
            class: Class::from_bits(control >> 4 & 7),
            state: State::from_bits(control & 15),
            is_replied: control >> 7 & 1 != 0,
            bits: (control >> 8) as u16,
            words,
        }
    }
}
