//! Does a packet fit its SCTP association, and how far does it take it?
//!
//! Theory of operation. Each end names, in its INIT or INIT ACK, the *verification tag* that packets to it must carry
//! from then on (RFC 9260 §8.5); whoever does not see the association cannot guess it. The first chunk that says
//! something about the association decides; data and the like only have to carry the tag.
//!
//! ```text
//! INIT -> CookieWait -> COOKIE ECHO -> CookieEchoed -> COOKIE ACK -> Established
//!      -> SHUTDOWN -> Shutdown -> SHUTDOWN ACK -> ShutdownAck -> SHUTDOWN COMPLETE -> Closed
//! ABORT -> Closed, from everywhere
//! ```
//!
//! Limits: an association that an end restarts (§5.2.2) is refused until the old one has timed out, and other paths of
//! one with several addresses are connections of their own, which [`Pickup::Accept`] takes up.

use wire::sctp;

use super::progress::{Pickup, Progress, Step};
use super::state::{Class, State};
use super::tuple::Direction;

/// Chunks looked at before the packet counts as data.
const MAX_CHUNKS: usize = 8;
/// In the flags of ABORT and SHUTDOWN COMPLETE: the tag is the sender's own (RFC 9260 §8.5.1).
const REFLECTED: u8 = 1;

/// What the tracker reads of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) tag: u32,
    pub(crate) chunk: Chunk,
}

/// The chunk that says most about the association (RFC 9260 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// With the tag that it asks for.
    Init(u32),
    InitAck(u32),
    CookieEcho,
    CookieAck,
    Shutdown,
    ShutdownAck,
    ShutdownComplete(TagOwner),
    Abort(TagOwner),
    /// DATA, SACK, HEARTBEAT and all others.
    Other,
}

/// Whose tag a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagOwner {
    Receiver,
    /// Of one who knows no association.
    Sender,
}

impl Packet {
    /// The packet at the front of `bytes`, which may be cut short behind its header.
    pub(super) fn read(bytes: Option<&[u8]>) -> Option<Self> {
        let view = sctp::View::new(bytes?).ok()?;
        Some(Self { tag: view.tag(), chunk: deciding(view.payload()) })
    }
}

/// The first chunk that is not [`Chunk::Other`].
fn deciding(mut chunks: &[u8]) -> Chunk {
    for _ in 0..MAX_CHUNKS {
        let &[kind, flags, high, low, ref value @ ..] = chunks else { break };
        let chunk = Chunk::of(kind, flags, value);
        if chunk != Chunk::Other {
            return chunk;
        }
        // Chunks are padded to words (§3.2).
        let bytes = usize::from(u16::from_be_bytes([high, low])).next_multiple_of(4).max(4);
        chunks = chunks.get(bytes..).unwrap_or_default();
    }
    Chunk::Other
}

impl Chunk {
    fn of(kind: u8, flags: u8, value: &[u8]) -> Self {
        let owner = if flags & REFLECTED != 0 { TagOwner::Sender } else { TagOwner::Receiver };
        let tag = value.first_chunk().copied().map_or(0, u32::from_be_bytes);
        match kind {
            1 => Self::Init(tag),
            2 => Self::InitAck(tag),
            6 => Self::Abort(owner),
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete(owner),
            _ => Self::Other,
        }
    }
}

/// An association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Association {
    state: State,
    /// By direction: what its packets must carry; 0 if that is not known.
    tags: [u32; 2],
}

impl Association {
    /// The association that `packet` begins.
    pub(super) fn begin(packet: &Packet, pickup: Pickup) -> Option<Self> {
        match packet.chunk {
            // RFC 9260 §8.5.1: INIT carries tag 0; §3.3.2: it asks for another than 0.
            Chunk::Init(wanted) if packet.tag == 0 && wanted != 0 => {
                Some(Self { state: State::CookieWait, tags: [0, wanted] })
            }
            Chunk::Other if pickup == Pickup::Accept && packet.tag != 0 => {
                Some(Self { state: State::Established, tags: [packet.tag, 0] })
            }
            _ => None,
        }
    }

    /// The association after `packet`, sent in direction `from`.
    pub(super) fn step(mut self, from: Direction, packet: &Packet) -> Step {
        if let Chunk::Init(wanted) = packet.chunk {
            return self.init(from, packet, wanted);
        }
        if !self.has_right_tag(from, packet) {
            return Step::Invalid;
        }
        let own = &mut self.tags[from.index()];
        if *own == 0 {
            *own = packet.tag;
        }
        self.state = match (packet.chunk, self.state) {
            (Chunk::InitAck(wanted), State::CookieWait) if from == Direction::Reply && wanted != 0 => {
                self.tags[0] = wanted;
                State::CookieWait
            }
            (Chunk::InitAck(_), _) => return Step::Pass,
            (Chunk::CookieEcho, State::CookieWait | State::CookieEchoed) => State::CookieEchoed,
            (Chunk::CookieAck, State::CookieEchoed) => State::Established,
            (Chunk::Shutdown, State::Established) => State::Shutdown,
            (Chunk::ShutdownAck, State::Established | State::Shutdown) => State::ShutdownAck,
            (Chunk::ShutdownComplete(_), State::ShutdownAck) | (Chunk::Abort(_), _) => State::Closed,
            (Chunk::Other, State::CookieWait) => return Step::Invalid,
            (_, state) => state,
        };
        Step::Accept(self.pack())
    }

    fn init(mut self, from: Direction, packet: &Packet, wanted: u32) -> Step {
        match (self.state, from) {
            _ if packet.tag != 0 || wanted == 0 => Step::Invalid,
            (State::Closed, _) => Step::Over,
            // Sent once more.
            (State::CookieWait, Direction::Original) => {
                self.tags = [0, wanted];
                Step::Accept(self.pack())
            }
            _ => Step::Pass,
        }
    }

    fn has_right_tag(&self, from: Direction, packet: &Packet) -> bool {
        let (own, others) = (self.tags[from.index()], self.tags[from.other().index()]);
        let expected = match packet.chunk {
            Chunk::Abort(TagOwner::Sender) | Chunk::ShutdownComplete(TagOwner::Sender) => others,
            _ => own,
        };
        match expected {
            // Taken up in the middle: the other end's first packet says.
            0 => self.state == State::Established && packet.tag != 0 && packet.chunk == Chunk::Other,
            tag => packet.tag == tag,
        }
    }

    pub(super) fn pack(self) -> Progress {
        let mut progress = Progress::none(Class::Sctp, self.state);
        progress.words[0] = u64::from(self.tags[0]) << 32 | u64::from(self.tags[1]);
        progress
    }

    pub(super) fn unpack(progress: &Progress) -> Self {
        let tags = progress.words[0];
        Self { state: progress.state, tags: [(tags >> 32) as u32, tags as u32] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    fn step(association: &mut Association, from: Direction, tag: u32, chunk: Chunk) -> Step {
        let step = Association::unpack(&association.pack()).step(from, &Packet { tag, chunk });
        if let Step::Accept(after) = step {
            *association = Association::unpack(&after);
        }
        step
    }

    #[track_caller]
    fn accept(association: &mut Association, from: Direction, (tag, chunk): (u32, Chunk), state: State) {
        let answer = step(association, from, tag, chunk);
        assert!(matches!(answer, Step::Accept(_)), "{answer:?}");
        assert_eq!(association.state, state);
    }

    /// The client wants tag 7, the server 9.
    fn established() -> Association {
        let init = Packet { tag: 0, chunk: Chunk::Init(7) };
        let mut association = Association::begin(&init, Pickup::Refuse).unwrap();
        assert_eq!(step(&mut association, Reply, 8, Chunk::InitAck(9)), Step::Invalid);
        accept(&mut association, Reply, (7, Chunk::InitAck(9)), State::CookieWait);
        assert_eq!(step(&mut association, Original, 9, Chunk::Other), Step::Invalid);
        accept(&mut association, Original, (9, Chunk::CookieEcho), State::CookieEchoed);
        accept(&mut association, Reply, (7, Chunk::CookieAck), State::Established);
        association
    }

    #[test]
    fn an_association_opens_and_shuts_down() {
        let mut association = established();
        accept(&mut association, Original, (9, Chunk::Other), State::Established);
        accept(&mut association, Reply, (7, Chunk::Shutdown), State::Shutdown);
        accept(&mut association, Original, (9, Chunk::ShutdownAck), State::ShutdownAck);
        accept(&mut association, Reply, (7, Chunk::ShutdownComplete(TagOwner::Receiver)), State::Closed);
        assert_eq!(step(&mut association, Original, 0, Chunk::Init(70)), Step::Over);
    }

    #[test]
    fn who_does_not_know_the_tag_gets_nothing_in() {
        for chunk in [Chunk::Other, Chunk::Abort(TagOwner::Receiver), Chunk::Shutdown, Chunk::InitAck(5)] {
            let mut association = established();
            assert_eq!(step(&mut association, Original, 8, chunk), Step::Invalid);
            assert_eq!(step(&mut association, Reply, 0, chunk), Step::Invalid);
            assert_eq!(association, established());
        }
        let mut association = established();
        accept(&mut association, Original, (7, Chunk::Abort(TagOwner::Sender)), State::Closed);
        let mut association = established();
        accept(&mut association, Reply, (7, Chunk::Abort(TagOwner::Receiver)), State::Closed);
    }

    #[test]
    fn an_association_is_picked_up_by_its_data() {
        let data = Packet { tag: 9, chunk: Chunk::Other };
        assert_eq!(Association::begin(&data, Pickup::Refuse), None);
        let mut association = Association::begin(&data, Pickup::Accept).unwrap();
        assert_eq!(step(&mut association, Reply, 7, Chunk::Abort(TagOwner::Receiver)), Step::Invalid);
        accept(&mut association, Reply, (7, Chunk::Other), State::Established);
        assert_eq!(step(&mut association, Reply, 8, Chunk::Other), Step::Invalid);
    }

    #[test]
    fn the_chunk_that_says_most_is_found_among_others() {
        let header = [0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0];
        let packet = |chunks: &[u8]| Packet::read(Some(&[&header[..], chunks].concat())).unwrap();
        assert_eq!(packet(&[1, 0, 0, 20, 1, 2, 3, 4]).chunk, Chunk::Init(0x0102_0304));
        // A SACK of 15 bytes, padded, and a SHUTDOWN.
        let mut sack = vec![3, 0, 0, 15];
        sack.extend([0; 12]);
        sack.extend([7, 0, 0, 8, 0, 0, 0, 0]);
        assert_eq!(packet(&sack), Packet { tag: 9, chunk: Chunk::Shutdown });
        assert_eq!(packet(&[6, 1, 0, 4]).chunk, Chunk::Abort(TagOwner::Sender));
        for endless in [&[0, 0, 0, 0, 0, 0, 0, 0][..], &[0, 0, 255, 255], &[1]] {
            assert_eq!(packet(endless).chunk, Chunk::Other);
        }
        assert_eq!(Packet::read(Some(&header[..11])), None);
    }
}
