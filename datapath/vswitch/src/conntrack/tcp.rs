//! Does a segment fit its TCP connection, and how far does it take it?
//!
//! Theory of operation. The tracker sees what both ends send, but not when it arrives. It follows the model of Guido
//! van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001), on which other trackers are built, too. Of each
//! end it knows ([`Side`]): the *end* of what it has sent, the *limit* that the other end has allowed it, and the
//! largest *window* it has advertised itself. A segment fits if
//!
//! 1. it begins within what the receiver has allowed,
//! 2. it ends no more than the receiver's window before the end of what was sent: it may be sent once more,
//! 3. it acknowledges nothing that the other end has not sent,
//! 4. and nothing that was acknowledged long ago.
//!
//! All of these only grow, modulo 2^32. What a segment adds is never taken back, so two workers that follow the two
//! directions of one connection do not have to agree on an order: an end answers what it has got, and that has passed
//! here. A step that is done once more changes nothing (see `entry`).
//!
//! **States** follow from SYN, SYN-ACK and the ACK of it (RFC 9293 §3.5, with the simultaneous open), and then from
//! which end has sent a FIN and whether the other has acknowledged it. A RST that fits ends all.
//!
//! **Restarts.** A SYN in the middle of a connection is passed on: the server, if it still knows the connection,
//! answers with an acknowledgement that lets the client reset it (RFC 5961 §4); if it does not, its SYN-ACK begins the
//! connection anew. A SYN after the end ([`State::TimeWait`], [`State::Closed`]) is another connection's.
//!
//! **Liberal.** Where a window is unknown (picked up in the middle, options that were not seen) segments that do not
//! fit are passed on, except that they do not close anything.

use wire::tcp::{self, Flags};

use super::progress::{Pickup, Progress, Step};
use super::state::{Class, State};
use super::tuple::Direction;

/// How far acknowledgements may lag behind where the window is smaller: some send before they have heard of the window.
const MIN_LAG: u32 = 66_000;
/// The largest shift of a window (RFC 7323 §2.3).
const MAX_SHIFT: u8 = 14;
/// The option that says it.
const WINDOW_SCALE: u8 = 3;

/// What the tracker reads of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) window: u16,
    pub(crate) flags: Flags,
    pub(crate) payload_bytes: u32,
    /// Of a SYN.
    pub(crate) scale: Scale,
}

/// Whether an end scales its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// It does not offer to.
    Absent,
    /// By so many bits.
    Shift(u8),
    /// The options were not all to be seen.
    Unknown,
}

/// What a segment is for. Other combinations of flags are nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Syn,
    SynAck,
    Ack,
    Fin,
    Rst,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Side {
    /// One past the last byte that it has sent.
    end: u32,
    /// One past the last byte that it may send.
    limit: u32,
    /// The largest window that it has advertised. 0: nothing was seen of it.
    window: u32,
}

/// The original direction's latest SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Syn {
    sequence: u32,
    window: u16,
    scale: Scale,
    /// It came in the middle of the connection, and is another than the first.
    is_restart: bool,
}

/// What is so or not, as it is kept in a [`Progress`]: six bits of each side, by direction, and one of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Bits(u16);

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tcp {
    state: State,
    bits: Bits,
    syn: Syn,
    /// By direction of what they send.
    sides: [Side; 2],
}

impl Segment {
    /// The header at the front of `bytes`, which may be cut short behind its fixed part.
    pub(super) fn read(bytes: Option<&[u8]>, payload_bytes: usize) -> Option<Self> {
        let bytes = bytes?;
        let header: &[u8; tcp::MIN_HEADER_BYTES] = bytes.first_chunk()?;
        let be32 =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let flags = Flags(header[tcp::field::FLAGS]);
        let header_bytes = usize::from(header[tcp::field::DATA_OFFSET] >> 4) * 4;
        let scale = match bytes.get(tcp::MIN_HEADER_BYTES..header_bytes) {
            _ if !flags.contains(Flags::SYN) => Scale::Absent,
            Some(options) => scale_of(options),
            None => Scale::Unknown,
        };
        Some(Self {
            sequence: be32(tcp::field::SEQUENCE.start),
            acknowledgement: be32(tcp::field::ACKNOWLEDGEMENT.start),
            window: u16::from_be_bytes([
                header[tcp::field::WINDOW.start],
                header[tcp::field::WINDOW.start + 1],
            ]),
            flags,
            payload_bytes: payload_bytes as u32,
            scale,
        })
    }

    /// One past the last sequence number that it takes.
    #[inline]
    fn end(&self) -> u32 {
        let flags = u32::from(self.flags.contains(Flags::SYN)) + u32::from(self.flags.contains(Flags::FIN));
        self.sequence.wrapping_add(self.payload_bytes).wrapping_add(flags)
    }

    #[inline]
    fn has_ack(&self) -> bool {
        self.flags.contains(Flags::ACK)
    }

    #[inline]
    fn kind(&self) -> Option<Kind> {
        let has = |flags| self.flags.contains(flags);
        match (has(Flags::SYN), has(Flags::FIN), has(Flags::RST), has(Flags::ACK)) {
            (true, false, false, false) => Some(Kind::Syn),
            (true, false, false, true) => Some(Kind::SynAck),
            (false, true, false, true) => Some(Kind::Fin),
            (false, false, true, _) => Some(Kind::Rst),
            (false, false, false, true) => Some(Kind::Ack),
            _ => None,
        }
    }
}

/// The window scale among a SYN's options (RFC 9293 §3.2, RFC 7323 §2.2).
fn scale_of(mut options: &[u8]) -> Scale {
    loop {
        options = match options {
            // The end, or what is not an option.
            [] | [0, ..] | [_] => return Scale::Absent,
            [1, rest @ ..] => rest,
            [WINDOW_SCALE, 3, shift, ..] => return Scale::Shift((*shift).min(MAX_SHIFT)),
            [_, len, ..] => match options.get(usize::from(*len).max(2)..) {
                Some(rest) => rest,
                None => return Scale::Absent,
            },
        }
    }
}

/// True if `a` comes behind `b` in the sequence (RFC 9293 §3.4).
fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

impl Side {
    const UNSEEN: Self = Self { end: 0, limit: 0, window: 0 };

    /// That of whoever sent this SYN or SYN-ACK.
    fn of_syn(segment: &Segment) -> Self {
        let end = segment.end();
        // A window of 0 would mean that nothing was seen.
        Self { end, limit: end, window: u32::from(segment.window).max(1) }
    }

    fn is_seen(&self) -> bool {
        self.window > 0
    }

    /// The other end allows it to send up to here.
    #[inline]
    fn allow(&mut self, limit: u32) {
        if is_after(limit, self.limit) {
            self.limit = limit;
        }
    }
}

impl Bits {
    const SIDE: u32 = 6;
    /// The shift of its windows; this for none.
    const NO_SHIFT: u16 = 15;
    /// It has sent a FIN.
    const FIN: u16 = 1 << 4;
    /// The other end has got it.
    const FIN_ACKNOWLEDGED: u16 = 1 << 5;
    /// Segments that do not fit are passed on.
    const LIBERAL: u16 = 1 << 12;

    #[inline]
    fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    #[inline]
    fn of(self, side: Direction, bits: u16) -> bool {
        self.has(bits << (Self::SIDE * side as u32))
    }

    #[inline]
    fn set(&mut self, side: Direction, bits: u16) {
        self.0 |= bits << (Self::SIDE * side as u32);
    }

    #[inline]
    fn shift(self, side: Direction) -> u16 {
        self.0 >> (Self::SIDE * side as u32) & Self::NO_SHIFT
    }

    fn set_shift(&mut self, side: Direction, shift: u16) {
        let at = Self::SIDE * side as u32;
        self.0 = self.0 & !(Self::NO_SHIFT << at) | shift << at;
    }

    /// What a SYN says of its sender's windows.
    fn set_scale(&mut self, side: Direction, scale: Scale) {
        self.set_shift(side, scale.nibble());
        if scale == Scale::Unknown {
            self.0 |= Self::LIBERAL;
        }
    }
}

impl Scale {
    /// In four bits: shifts go to 14.
    fn nibble(self) -> u16 {
        match self {
            Self::Shift(shift) => shift.min(MAX_SHIFT).into(),
            Self::Absent | Self::Unknown => Bits::NO_SHIFT,
        }
    }

    fn from_nibble(nibble: u16) -> Self {
        match nibble & Bits::NO_SHIFT {
            Bits::NO_SHIFT => Self::Absent,
            shift => Self::Shift(shift as u8),
        }
    }
}

impl Tcp {
    /// The connection that `segment` begins.
    pub(super) fn begin(segment: &Segment, pickup: Pickup) -> Option<Self> {
        let Segment { sequence, window, scale, .. } = *segment;
        let syn = Syn { sequence, window, scale, is_restart: false };
        match segment.kind()? {
            Kind::Syn => {
                let sides = [Side::of_syn(segment), Side::UNSEEN];
                let mut tcp = Self { state: State::SynSent, bits: Bits::default(), syn, sides };
                tcp.bits.set_scale(Direction::Original, scale);
                Some(tcp)
            }
            Kind::Ack | Kind::Fin if pickup == Pickup::Accept => {
                let at = |end| Side { end, limit: end, window: 0 };
                let sides = [at(segment.end()), at(segment.acknowledgement)];
                let mut tcp = Self { state: State::Established, bits: Bits(Bits::LIBERAL), syn, sides };
                Direction::BOTH.into_iter().for_each(|side| tcp.bits.set_shift(side, Bits::NO_SHIFT));
                tcp.take(Direction::Original, segment);
                tcp.close();
                Some(tcp)
            }
            _ => None,
        }
    }

    /// The connection after `segment`, sent in direction `from`.
    #[inline]
    pub(super) fn step(mut self, from: Direction, segment: &Segment) -> Step {
        let fit = match segment.kind() {
            Some(Kind::Ack | Kind::Fin) => self.data(from, segment),
            Some(kind) => self.control(from, segment, kind),
            None => Fit::Invalid,
        };
        match fit {
            Fit::Accept => Step::Accept(self.pack()),
            Fit::Pass => Step::Pass,
            Fit::Invalid => Step::Invalid,
            Fit::Over => Step::Over,
        }
    }

    #[inline(never)]
    fn control(&mut self, from: Direction, segment: &Segment, kind: Kind) -> Fit {
        match kind {
            Kind::Syn => self.syn(from, segment),
            Kind::SynAck => self.syn_ack(from, segment),
            Kind::Rst => self.reset(from, segment),
            Kind::Ack | Kind::Fin => self.data(from, segment),
        }
    }

    fn syn(&mut self, from: Direction, segment: &Segment) -> Fit {
        match (self.state, from) {
            (State::TimeWait | State::Closed, _) => Fit::Over,
            (State::SynSent | State::SimultaneousOpen, _) => {
                if from == Direction::Original {
                    self.remember(segment);
                } else {
                    self.state = State::SimultaneousOpen;
                }
                self.sides[from.index()] = Side::of_syn(segment);
                self.bits.set_scale(from, segment.scale);
                self.agree();
                Fit::Accept
            }
            // The first one, once more; or one that says too little to begin with.
            (_, Direction::Original)
                if segment.sequence == self.syn.sequence || segment.scale == Scale::Unknown =>
            {
                Fit::Pass
            }
            (_, Direction::Original) => {
                self.remember(segment);
                self.syn.is_restart = true;
                Fit::Accept
            }
            (_, Direction::Reply) => Fit::Invalid,
        }
    }

    fn remember(&mut self, segment: &Segment) {
        let Segment { sequence, window, scale, .. } = *segment;
        self.syn = Syn { sequence, window, scale, is_restart: false };
    }

    fn syn_ack(&mut self, from: Direction, segment: &Segment) -> Fit {
        let first = self.syn.sequence.wrapping_add(1);
        let is_restart = self.syn.is_restart;
        match (self.state, from) {
            (State::SynSent, Direction::Reply) if self.acknowledges_syn(segment) => self.answer(segment),
            // The server has forgotten its first answer.
            (State::SynReceived, Direction::Reply)
                if !is_restart && self.acknowledges_syn(segment) && !self.fits(from, segment) =>
            {
                self.answer(segment)
            }
            (State::SynSent, _) => Fit::Invalid,
            (_, Direction::Reply) if is_restart && segment.acknowledgement == first => {
                self.syn.is_restart = false;
                self.bits = Bits::default();
                self.bits.set_scale(Direction::Original, self.syn.scale);
                let window = u32::from(self.syn.window).max(1);
                self.sides[0] = Side { end: first, limit: first, window };
                self.answer(segment)
            }
            (State::SimultaneousOpen, _) => self.take_if_it_fits(from, segment, State::SynReceived),
            (State::SynReceived, _) | (_, Direction::Reply) => {
                self.take_if_it_fits(from, segment, self.state)
            }
            _ => Fit::Invalid,
        }
    }

    /// The server answers: from here on both sides are known.
    fn answer(&mut self, segment: &Segment) -> Fit {
        self.sides[1] = Side::of_syn(segment);
        self.bits.set_scale(Direction::Reply, segment.scale);
        self.agree();
        self.state = State::SynReceived;
        Fit::Accept
    }

    /// Both SYNs are known: each says how much the other end may send, and windows are scaled if both offer to (RFC
    /// 7323 §2.2).
    fn agree(&mut self) {
        let [client, server] = &mut self.sides;
        if !server.is_seen() {
            return;
        }
        client.allow(client.end.wrapping_add(server.window));
        server.allow(server.end.wrapping_add(client.window));
        if Direction::BOTH.iter().any(|side| self.bits.shift(*side) == Bits::NO_SHIFT) {
            Direction::BOTH.into_iter().for_each(|side| self.bits.set_shift(side, Bits::NO_SHIFT));
        }
    }

    /// True if `segment` answers the SYN, or as much of the data that came with it as the server took (RFC 7413).
    fn acknowledges_syn(&self, segment: &Segment) -> bool {
        let ack = segment.acknowledgement;
        segment.has_ack() && is_after(ack, self.syn.sequence) && !is_after(ack, self.sides[0].end)
    }

    #[inline]
    fn data(&mut self, from: Direction, segment: &Segment) -> Fit {
        match (self.state, from) {
            // The server remembers another connection, and says so: the client will reset that (RFC 9293 §3.5.1).
            (State::SynSent, Direction::Reply) if segment.kind() == Some(Kind::Ack) => Fit::Pass,
            (State::SynSent, _) => Fit::Invalid,
            (State::SynReceived, Direction::Original) => {
                self.take_if_it_fits(from, segment, State::Established)
            }
            _ => self.take_if_it_fits(from, segment, self.state),
        }
    }

    #[inline]
    fn take_if_it_fits(&mut self, from: Direction, segment: &Segment, state: State) -> Fit {
        if !self.fits(from, segment) && !self.bits.has(Bits::LIBERAL) {
            return Fit::Invalid;
        }
        self.state = state;
        self.take(from, segment);
        self.close();
        Fit::Accept
    }

    /// The four conditions at the head of this file.
    #[inline]
    fn fits(&self, from: Direction, segment: &Segment) -> bool {
        let (sender, receiver) = (&self.sides[from.index()], &self.sides[from.other().index()]);
        // A RST with an acknowledgement of 0 is some old stacks'.
        let is_ack_meant =
            segment.has_ack() && !(segment.flags.contains(Flags::RST) && segment.acknowledgement == 0);
        let ack = if is_ack_meant { segment.acknowledgement } else { receiver.end };
        let lag = sender.window.max(MIN_LAG);
        !is_after(segment.sequence, sender.limit)
            && !is_after(sender.end.wrapping_sub(receiver.window), segment.end())
            && !is_after(ack, receiver.end)
            && !is_after(receiver.end.wrapping_sub(lag), ack)
    }

    /// Notes what `segment` says of both sides.
    #[inline]
    fn take(&mut self, from: Direction, segment: &Segment) {
        let advertised = self.advertised(from, segment);
        let [sender, receiver] = self.ends(from);
        let (end, ack) = (segment.end(), segment.acknowledgement);
        sender.window = sender.window.max(advertised).max(1);
        if is_after(end, sender.end) {
            sender.end = end;
        }
        if segment.has_ack() {
            // A window of 0 may be probed with one byte (RFC 9293 §3.8.6.1).
            receiver.allow(ack.wrapping_add(advertised.max(1)));
            let is_all = !is_after(receiver.end, ack);
            if is_all && self.bits.of(from.other(), Bits::FIN) {
                self.bits.set(from.other(), Bits::FIN_ACKNOWLEDGED);
            }
        }
        if segment.flags.contains(Flags::FIN) {
            self.bits.set(from, Bits::FIN);
        }
    }

    /// The window that `segment` advertises: those of SYNs are never scaled (RFC 7323 §2.2).
    #[inline]
    fn advertised(&self, from: Direction, segment: &Segment) -> u32 {
        match self.bits.shift(from) {
            shift if shift < Bits::NO_SHIFT && !segment.flags.contains(Flags::SYN) => {
                u32::from(segment.window) << shift
            }
            _ => segment.window.into(),
        }
    }

    /// Who sends, and who receives.
    #[inline]
    fn ends(&mut self, from: Direction) -> [&mut Side; 2] {
        let [client, server] = &mut self.sides;
        match from {
            Direction::Original => [client, server],
            Direction::Reply => [server, client],
        }
    }

    /// The state that the FINs so far make.
    #[inline]
    fn close(&mut self) {
        let count = |bits| Direction::BOTH.into_iter().filter(|side| self.bits.of(*side, bits)).count();
        self.state = match (count(Bits::FIN), count(Bits::FIN_ACKNOWLEDGED)) {
            _ if self.state == State::Closed => State::Closed,
            (0, _) => self.state,
            (1, 0) => State::FinWait,
            (1, _) => State::CloseWait,
            (_, 2) => State::TimeWait,
            _ => State::LastAck,
        };
    }

    fn reset(&mut self, from: Direction, segment: &Segment) -> Fit {
        let is_meant = match (self.state, from) {
            // RFC 9293 §3.10.7.3: it must answer the SYN.
            (State::SynSent, Direction::Reply) => self.acknowledges_syn(segment),
            (State::SynSent, Direction::Original) => {
                !is_after(self.syn.sequence, segment.sequence)
                    && !is_after(segment.sequence, self.sides[0].end)
            }
            _ => self.fits(from, segment),
        };
        let is_aside = (self.state, from) == (State::SynSent, Direction::Original);
        match is_meant {
            true => {
                self.state = State::Closed;
                Fit::Accept
            }
            // Perhaps it ends a connection that only the server remembers.
            false if is_aside || self.bits.has(Bits::LIBERAL) => Fit::Pass,
            false => Fit::Invalid,
        }
    }
}

/// What a segment is to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Accept,
    Pass,
    Invalid,
    Over,
}

impl Tcp {
    #[inline]
    pub(super) fn pack(self) -> Progress {
        let [client, server] = &self.sides;
        let word = |side: &Side| u64::from(side.end) << 32 | u64::from(side.limit);
        let syn = u64::from(self.syn.sequence) << 32
            | u64::from(self.syn.window) << 16
            | u64::from(self.syn.is_restart) << 4
            | u64::from(self.syn.scale.nibble());
        let windows = u64::from(client.window) << 32 | u64::from(server.window);
        let words = [word(client), word(server), windows, syn];
        Progress { bits: self.bits.0, words, ..Progress::none(Class::Tcp, self.state) }
    }

    #[inline]
    pub(super) fn unpack(progress: &Progress) -> Self {
        let [client, server, windows, syn] = progress.words;
        let side = |word: u64, window: u64| Side {
            end: (word >> 32) as u32,
            limit: word as u32,
            window: window as u32,
        };
        Self {
            state: progress.state,
            bits: Bits(progress.bits),
            syn: Syn {
                sequence: (syn >> 32) as u32,
                window: (syn >> 16) as u16,
                scale: Scale::from_nibble(syn as u16),
                is_restart: syn >> 4 & 1 == 1,
            },
            sides: [side(client, windows >> 32), side(server, windows)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    const SYN: Flags = Flags::SYN;
    const SYN_ACK: Flags = Flags::SYN.with(Flags::ACK);
    const ACK: Flags = Flags::ACK;
    const FIN: Flags = Flags::FIN.with(Flags::ACK);
    const RST: Flags = Flags::RST;

    fn segment(flags: Flags, sequence: u32, acknowledgement: u32, payload_bytes: u32) -> Segment {
        Segment { sequence, acknowledgement, window: 1000, flags, payload_bytes, scale: Scale::Absent }
    }

    /// Through the bits in which it is kept.
    fn step(tcp: &mut Tcp, from: Direction, segment: Segment) -> Step {
        let step = Tcp::unpack(&tcp.pack()).step(from, &segment);
        if let Step::Accept(after) = step {
            *tcp = Tcp::unpack(&after);
        }
        step
    }

    #[track_caller]
    fn accept(tcp: &mut Tcp, from: Direction, segment: Segment, state: State) {
        let answer = step(tcp, from, segment);
        assert!(matches!(answer, Step::Accept(_)), "{answer:?}");
        assert_eq!(tcp.state, state);
    }

    /// The client begins at 100, the server at 5000.
    fn established() -> Tcp {
        let mut tcp = Tcp::begin(&segment(SYN, 100, 0, 0), Pickup::Refuse).unwrap();
        assert_eq!(tcp.state, State::SynSent);
        accept(&mut tcp, Reply, segment(SYN_ACK, 5000, 101, 0), State::SynReceived);
        accept(&mut tcp, Original, segment(ACK, 101, 5001, 0), State::Established);
        tcp
    }

    #[test]
    fn a_connection_closes_end_by_end() {
        let mut tcp = established();
        accept(&mut tcp, Original, segment(FIN, 101, 5001, 10), State::FinWait);
        accept(&mut tcp, Reply, segment(ACK, 5001, 111, 0), State::FinWait);
        accept(&mut tcp, Reply, segment(ACK, 5001, 112, 500), State::CloseWait);
        accept(&mut tcp, Reply, segment(FIN, 5501, 112, 0), State::LastAck);
        accept(&mut tcp, Original, segment(ACK, 112, 5502, 0), State::TimeWait);
        accept(&mut tcp, Reply, segment(FIN, 5501, 112, 0), State::TimeWait);
        for from in [Original, Reply] {
            assert_eq!(step(&mut tcp, from, segment(SYN, 9, 0, 0)), Step::Over);
        }
    }

    #[test]
    fn a_reset_ends_it_only_within_the_window() {
        for (sequence, fits) in [(101, true), (1101, true), (1102, false), (100u32.wrapping_sub(1000), false)]
        {
            let mut tcp = established();
            let answer = step(&mut tcp, Original, segment(RST, sequence, 0, 0));
            assert_eq!(matches!(answer, Step::Accept(_)), fits, "{sequence}");
            assert_eq!(tcp.state == State::Closed, fits);
        }
        let mut tcp = established();
        step(&mut tcp, Reply, segment(RST, 5001, 0, 0));
        assert_eq!(step(&mut tcp, Original, segment(SYN, 200, 0, 0)), Step::Over);
    }

    #[test]
    fn a_refused_syn_is_over_only_if_the_reset_answers_it() {
        let mut tcp = Tcp::begin(&segment(SYN, 100, 0, 0), Pickup::Refuse).unwrap();
        assert_eq!(step(&mut tcp, Reply, segment(RST, 0, 0, 0)), Step::Invalid);
        assert_eq!(step(&mut tcp, Reply, segment(RST.with(ACK), 0, 100, 0)), Step::Invalid);
        accept(&mut tcp, Reply, segment(RST.with(ACK), 0, 101, 0), State::Closed);
    }

    #[test]
    fn what_does_not_fit_is_invalid_and_changes_nothing() {
        let cases = [
            (Original, segment(ACK, 1102, 5001, 1), "beyond what the server takes"),
            (Original, segment(ACK, 101u32.wrapping_sub(1001), 5001, 0), "long received"),
            (Original, segment(ACK, 101, 5002, 0), "acknowledges what was not sent"),
            (Original, segment(ACK, 101, 5001u32.wrapping_sub(66_001), 0), "acknowledges what is long past"),
            (Original, segment(SYN_ACK, 101, 5001, 0), "a client's SYN-ACK"),
            (Reply, segment(SYN, 5001, 0, 0), "a server's SYN"),
            (Reply, segment(SYN_ACK, 90_000, 101, 0), "an answer to no SYN"),
            (Original, segment(Flags(0), 101, 5001, 0), "no flags"),
            (Original, segment(SYN.with(FIN), 101, 5001, 0), "SYN and FIN"),
            (Original, segment(SYN.with(RST), 101, 5001, 0), "SYN and RST"),
            (Original, segment(Flags::FIN, 101, 5001, 0), "FIN without ACK"),
        ];
        for (from, segment, what) in cases {
            let mut tcp = established();
            assert_eq!(step(&mut tcp, from, segment), Step::Invalid, "{what}");
            assert_eq!(tcp, established(), "{what}");
        }
    }

    #[test]
    fn sequence_numbers_go_round() {
        let mut tcp = Tcp::begin(&segment(SYN, u32::MAX, 0, 0), Pickup::Refuse).unwrap();
        accept(&mut tcp, Reply, segment(SYN_ACK, u32::MAX - 1, 0, 0), State::SynReceived);
        accept(&mut tcp, Original, segment(ACK, 0, u32::MAX, 900), State::Established);
        accept(&mut tcp, Reply, segment(ACK, u32::MAX, 900, 900), State::Established);
        accept(&mut tcp, Original, segment(ACK, 900, 899, 0), State::Established);
        assert_eq!(step(&mut tcp, Original, segment(ACK, 2000, 899, 0)), Step::Invalid);
    }

    #[test]
    fn windows_are_scaled_if_both_ends_offer_it() {
        let syn = |scale| Segment { scale, ..segment(SYN, 100, 0, 0) };
        let syn_ack = |scale| Segment { scale, ..segment(SYN_ACK, 5000, 101, 0) };
        let both = [(Scale::Shift(7), Scale::Shift(2), true), (Scale::Shift(7), Scale::Absent, false)];
        for (client, server, is_scaled) in both {
            let mut tcp = Tcp::begin(&syn(client), Pickup::Refuse).unwrap();
            accept(&mut tcp, Reply, syn_ack(server), State::SynReceived);
            accept(&mut tcp, Original, segment(ACK, 101, 5001, 0), State::Established);
            // The window of the client's ACK: 1000 << 7, or 1000.
            let far = step(&mut tcp, Reply, segment(ACK, 5001 + 100_000, 101, 0));
            assert_eq!(matches!(far, Step::Accept(_)), is_scaled);
        }
        let mut tcp = Tcp::begin(&syn(Scale::Unknown), Pickup::Refuse).unwrap();
        accept(&mut tcp, Reply, syn_ack(Scale::Shift(3)), State::SynReceived);
        accept(&mut tcp, Original, segment(ACK, 101, 5001, 0), State::Established);
        accept(&mut tcp, Reply, segment(ACK, 50_000_000, 101, 0), State::Established);
        assert_eq!(step(&mut tcp, Reply, segment(RST, 100_000_000, 0, 0)), Step::Pass, "not seen options");
        assert_eq!(tcp.state, State::Established);
    }

    #[test]
    fn both_ends_may_open_at_once() {
        let mut tcp = Tcp::begin(&segment(SYN, 100, 0, 0), Pickup::Refuse).unwrap();
        accept(&mut tcp, Reply, segment(SYN, 5000, 0, 0), State::SimultaneousOpen);
        accept(&mut tcp, Original, segment(SYN_ACK, 100, 5001, 0), State::SynReceived);
        accept(&mut tcp, Reply, segment(SYN_ACK, 5000, 101, 0), State::SynReceived);
        accept(&mut tcp, Original, segment(ACK, 101, 5001, 10), State::Established);
    }

    #[test]
    fn a_client_that_forgot_its_connection_may_begin_anew() {
        // The server knows it still: it acknowledges, the client resets, and then begins.
        let mut tcp = established();
        accept(&mut tcp, Original, segment(SYN, 700_000, 0, 0), State::Established);
        accept(&mut tcp, Reply, segment(ACK, 5001, 101, 0), State::Established);
        accept(&mut tcp, Original, segment(RST, 101, 0, 0), State::Closed);
        assert_eq!(step(&mut tcp, Original, segment(SYN, 700_000, 0, 0)), Step::Over);
        // The server has forgotten it, too: it answers the SYN.
        let mut tcp = established();
        accept(&mut tcp, Original, segment(SYN, 700_000, 0, 0), State::Established);
        accept(&mut tcp, Reply, segment(SYN_ACK, 90_000, 700_001, 0), State::SynReceived);
        accept(&mut tcp, Original, segment(ACK, 700_001, 90_001, 10), State::Established);
        // The first SYN once more says nothing.
        assert_eq!(step(&mut tcp, Original, segment(SYN, 700_000, 0, 0)), Step::Pass);
    }

    #[test]
    fn a_half_open_connection_can_be_reset_before_it_is_opened() {
        let mut tcp = Tcp::begin(&segment(SYN, 100, 0, 0), Pickup::Refuse).unwrap();
        assert_eq!(step(&mut tcp, Reply, segment(ACK, 77, 4_000_000, 0)), Step::Pass);
        assert_eq!(step(&mut tcp, Original, segment(RST, 4_000_000, 0, 0)), Step::Pass);
        accept(&mut tcp, Original, segment(SYN, 100, 0, 0), State::SynSent);
        accept(&mut tcp, Reply, segment(SYN_ACK, 5000, 101, 0), State::SynReceived);
    }

    #[test]
    fn a_connection_is_picked_up_only_where_that_is_wanted() {
        let middle = segment(ACK, 1000, 2000, 100);
        assert_eq!(Tcp::begin(&middle, Pickup::Refuse), None);
        assert_eq!(Tcp::begin(&segment(SYN_ACK, 1, 2, 0), Pickup::Accept), None);
        let mut tcp = Tcp::begin(&middle, Pickup::Accept).unwrap();
        assert_eq!(tcp.state, State::Established);
        // Windows may be scaled: nobody knows.
        accept(&mut tcp, Reply, segment(ACK, 2_000_000, 1100, 0), State::Established);
        assert_eq!(step(&mut tcp, Reply, segment(RST, 900_000_000, 0, 0)), Step::Pass);
        accept(&mut tcp, Original, segment(RST, 1100, 0, 0), State::Closed);
    }

    #[test]
    fn options_are_read_as_far_as_they_go() {
        assert_eq!(scale_of(&[2, 4, 5, 180, 1, 3, 3, 7]), Scale::Shift(7));
        assert_eq!(scale_of(&[3, 3, 200]), Scale::Shift(14));
        for none in [&[][..], &[0, 3, 3, 7], &[2, 0, 0, 0], &[3], &[3, 3], &[8, 255, 1]] {
            assert_eq!(scale_of(none), Scale::Absent, "{none:?}");
        }
    }
}
