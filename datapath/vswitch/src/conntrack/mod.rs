//! To which connection does a packet belong, does it fit it, and what was decided for it?
//!
//! Theory of operation. One [`Connections`] serves all workers of a datapath. A packet comes to it in one of three
//! ways:
//!
//! ```text
//! (1) its decision is cached, with a `Handle`   advance             one cache line, no lock, no hash
//! (2) nothing is cached                         find, then advance  a hash, one shard's lock
//! (3) there is no connection                    open                two hashes, two shards' locks
//! ```
//!
//! [`Connections::advance`] holds the packet to its protocol's rules (`tcp`, `sctp`, `exchange`) and returns the
//! connection's [`Mark`]: what policy and services decided when they opened it, and under which program.
//! [`Fault::Gone`] sends the packet from (1) to (2); nothing that a handle says is ever about another connection than
//! the one it was given for.
//!
//! A packet that has no connection may open one. Whoever calls decides first whether it may, and how it is translated
//! ([`nat::Translation`]); [`Connections::open`] then finds a free source port if one is needed, counts, and inserts.
//!
//! What leaves has the tuple that [`Connections::translated`] says: [`rewrite()`] edits the packet's head. An ICMP
//! error is no packet of the connection that it is about: [`Connections::related`] finds that, and
//! [`Connections::translate_error`] sets the error back to what its receiver sent.
//!
//! **Time.** Each entry holds when it was last used. It is forgotten when it has been idle for its state's timeout: by
//! [`Connections::sweep`], a clock hand that looks at a bounded number of entries, and by whoever meets it first.
//!
//! **Limits.** Of the table, of each zone and of each port that opens ([`census::Quota`]). When the table is nearly
//! full, an open removes a connection that has not been answered, or is over, if it meets one among
//! [`EVICTION_PROBES`]: a flood displaces itself and not those who talk. Where a zone or a port has as many as it may, an
//! open removes one of its own in the same way: who opens many short connections is not held up by those that are over. So it
//! is with source ports outside: where none is free, one of a connection that is over is taken, or of the port's own that
//! nobody answered.
//!
//! **Bounds.** No call allocates but for a [`table::SEGMENT`] of entries when the table grows, and those that list. The
//! work of each is bounded by its arguments and the constants here; nothing is rehashed, ever.
//!
//! Limits of what is tracked: fragments behind the first have no ports, and are of their first one's connection if that came
//! before them ([`fragments`]); helpers for protocols that announce other connections (FTP, SIP) do not exist.

mod answerers;
mod census;
mod entry;
mod exchange;
mod fragments;
mod nat;
mod observe;
mod progress;
mod related;
mod rewrite;
mod sctp;
mod state;
mod sweep;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod tuple;
mod vacancy;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

pub(crate) use census::{Quota, ZoneCounts};
pub(crate) use fragments::Datagram;
pub(crate) use nat::{DestinationNat, PortRange, SourceNat, Translation, has_source_port};
pub(crate) use observe::{Observed, Sight, Transport};
pub(crate) use progress::Pickup;
pub(crate) use related::IcmpError;
pub(crate) use rewrite::{Layout, rewrite};
pub(crate) use state::{State, Timeouts};
pub(crate) use sweep::{Chunk, ConnectionView};
pub(crate) use table::Handle;
pub(crate) use tuple::{Direction, Endpoint, Tuple, ZoneNo};
pub(crate) use vacancy::Vacancy;

use crate::program::{FrontendSpec, PortNo};
use crate::time::Now;
use answerers::Answerers;
use census::{Census, Event};
use entry::{Hot, Record};
use fragments::Fragments;
use frame::DropReason;
use progress::{Progress, Step};
use table::{Table, Taken};

/// Looks that two workers take at one connection that both change, before one leaves it to the other.
const MAX_RACES: usize = 8;
/// The table is nearly full when fewer than one in so many entries are free.
const NEARLY_FULL: u32 = 16;
/// Entries looked at for one that may go: a segment, of which the first are used first.
const EVICTION_PROBES: usize = table::SEGMENT;

/// The connections of a datapath.
#[derive(Debug)]
pub(crate) struct Connections {
    table: Table,
    census: Census,
    answerers: Answerers,
    fragments: Fragments,
    timeouts: Timeouts,
    /// The entry that the next sweep begins with.
    sweep_hand: AtomicUsize,
    /// The one that the next eviction begins with.
    eviction_hand: AtomicUsize,
}

/// What was decided for a connection. The tracker keeps it and asks nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// Whoever opened the connection knows what it means: its service and endpoint, say.
    pub(crate) cookie: u64,
    /// What policy said: the rule, say.
    pub(crate) verdict: u32,
    /// The program under which it was said.
    pub(crate) epoch: u32,
}

/// A connection that does not exist yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) tuple: &'a Tuple,
    pub(crate) transport: &'a Transport,
    /// Where its first packet came in.
    pub(crate) port: PortNo,
    pub(crate) quota: Quota,
    pub(crate) translation: Translation,
    pub(crate) mark: Mark,
    pub(crate) pickup: Pickup,
}

/// Why a packet was not taken for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is over: the packet is to be looked up, and may open another.
    Gone,
    /// The packet is none of the connection's. It is to be dropped.
    Invalid,
}

/// Why no connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Such a packet opens none.
    Invalid,
    /// Somebody else has just opened it: the packet is to be looked up.
    Exists,
    /// Every tuple that a reply could have is another connection's: no port is free.
    NoFreePort,
    /// The zone has as many connections as it may.
    ZoneFull,
    /// So has the port that the packet came in by.
    PortFull,
    /// So has the table, and none was found that may go.
    TableFull,
}

impl Refusal {
    /// What the packet is dropped for.
    pub(crate) fn reason(self) -> DropReason {
        match self {
            Self::Invalid | Self::Exists => DropReason::OutOfState,
            Self::NoFreePort => DropReason::NoNatPort,
            Self::ZoneFull | Self::PortFull | Self::TableFull => DropReason::ConnectionLimit,
        }
    }
}

impl Connections {
    /// No connections, and room for `total`.
    pub(crate) fn new(total: u32, timeouts: Timeouts) -> Arc<Self> {
        let total = total.min(table::MAX_ENTRIES as u32);
        Arc::new(Self {
            table: Table::new(total as usize),
            census: Census::new(total),
            answerers: Answerers::default(),
            fragments: Fragments::default(),
            timeouts,
            sweep_hand: AtomicUsize::new(0),
            eviction_hand: AtomicUsize::new(0),
        })
    }

    /// The connection that a packet of `tuple` belongs to, and in which direction it goes.
    pub(crate) fn find(&self, tuple: &Tuple, now: Now) -> Option<Handle> {
        let handle = self.table.find(tuple)?;
        let hot = self.table.get(handle)?.hot;
        let (progress, _) = hot.read(handle.generation())?;
        if self.is_expired(hot, &progress, now) {
            self.remove(handle);
            return None;
        }
        Some(handle)
    }

    /// That there is no connection of `tuple`, nor of one with another source port: for decisions that are made because of that.
    /// `None` if there may be one: [`Connections::find`] knows.
    pub(crate) fn vacancy(&self, tuple: &Tuple) -> Option<Vacancy> {
        self.table.vacancy(tuple)
    }

    /// False if such a connection may have begun since.
    #[inline]
    pub(crate) fn is_vacant(&self, vacancy: Vacancy) -> bool {
        self.table.is_vacant(vacancy)
    }

    /// A packet came that goes `handle`'s direction of its connection.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline]
    pub(crate) fn advance(&self, handle: Handle, transport: &Transport, now: Now) -> Result<Mark, Fault> {
        let hot = self.table.get(handle).ok_or(Fault::Gone)?.hot;
        let generation = handle.generation();
        let (mut before, mark) = hot.read(generation).ok_or(Fault::Gone)?;
        if self.is_expired(hot, &before, now) {
            self.remove(handle);
            return Err(Fault::Gone);
        }
        for _ in 0..MAX_RACES {
            match before.step(handle.direction(), transport, now) {
                Step::Accept(after) if hot.advance(generation, &before, &after) => break,
                Step::Accept(_) => (before, _) = hot.read(generation).ok_or(Fault::Gone)?,
                Step::Pass => return Ok(mark),
                Step::Invalid => return Err(Fault::Invalid),
                Step::Over => {
                    self.remove(handle);
                    return Err(Fault::Gone);
                }
            }
        }
        hot.touch(now);
        Ok(mark)
    }

    /// Opens a connection, whose first packet has been taken for it then; the handle is of the original direction.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn open(&self, opening: &Opening<'_>, now: Now) -> Result<Handle, Refusal> {
        let opened = self.try_open(opening, now);
        match opened {
            Ok(_) => self.census.count(opening.tuple.zone, Event::Opened),
            Err(Refusal::Exists | Refusal::Invalid) => {}
            Err(_) => self.census.count(opening.tuple.zone, Event::Refused),
        }
        opened
    }

    fn try_open(&self, opening: &Opening<'_>, now: Now) -> Result<Handle, Refusal> {
        let Opening { tuple, port, .. } = *opening;
        let progress = Progress::begin(opening.transport, opening.pickup, now).ok_or(Refusal::Invalid)?;
        if self.census.live() >= self.census.total() - self.census.total() / NEARLY_FULL {
            self.evict(now, |_| true);
        }
        self.enter(opening, now)?;
        let opened = self.insert(opening, progress, now);
        if opened.is_err() {
            self.census.leave(tuple.zone, port);
        }
        opened
    }

    /// Counts one more; where its port or zone is full, in the place of another of theirs.
    fn enter(&self, opening: &Opening<'_>, now: Now) -> Result<(), Refusal> {
        let Opening { tuple: Tuple { zone, .. }, port, quota, .. } = *opening;
        let refusal = match self.census.enter(*zone, port, quota) {
            Err(refusal) => refusal,
            Ok(()) => return Ok(()),
        };
        let is_evicted = match refusal {
            Refusal::PortFull => self.evict(now, |cold| cold.port() == port),
            Refusal::ZoneFull => self.evict(now, |cold| cold.zone() == *zone),
            _ => false,
        };
        if is_evicted { self.census.enter(*zone, port, quota) } else { Err(refusal) }
    }

    fn insert(&self, opening: &Opening<'_>, progress: Progress, now: Now) -> Result<Handle, Refusal> {
        let original = *opening.tuple;
        let Opening { port, mark, .. } = *opening;
        let record = |reply| Record { tuples: [original, reply], port, progress, mark };
        // All zones share what is outside: there, what is over is in the way of others.
        let is_shared = opening.translation.source.is_some_and(|nat| nat.is_outside);
        let mut yielding = None;
        for reply in opening.translation.replies(&original, self.table.hash(&original)) {
            // Both ends are one: no packet of it could be told from its answer.
            if reply == original {
                return Err(Refusal::Invalid);
            }
            let record = record(reply);
            match self.place(&record, now) {
                Ok(handle) => return Ok(handle),
                Err(Taken::Original) => return Err(Refusal::Exists),
                Err(Taken::Full) => return Err(Refusal::TableFull),
                // What has expired is in nobody's way.
                Err(Taken::Reply) if self.find(&reply, now).is_none() => {
                    if let Ok(handle) = self.place(&record, now) {
                        return Ok(handle);
                    }
                }
                Err(Taken::Reply) if is_shared => yielding = yielding.or_else(|| self.yields(&reply, port)),
                Err(Taken::Reply) => {}
            }
        }
        let (holder, reply) = yielding.ok_or(Refusal::NoFreePort)?;
        self.displace(holder);
        self.place(&record(reply), now).map_err(|_| Refusal::NoFreePort)
    }

    /// The connection that has `reply`, if it makes room for another: it is over, or is of the same `port` and was never answered.
    fn yields(&self, reply: &Tuple, port: PortNo) -> Option<(Handle, Tuple)> {
        let handle = self.table.find(reply)?;
        let entry = self.table.get(handle)?;
        let (progress, _) = entry.hot.read(handle.generation())?;
        let is_its = !progress.is_replied && entry.cold.port() == port;
        (progress.state.is_dispensable() || is_its).then_some((handle, *reply))
    }

    fn place(&self, record: &Record, now: Now) -> Result<Handle, Taken> {
        let handle = self.table.insert(record, now)?;
        self.answerers.enter(&record.tuples);
        Ok(handle)
    }

    /// What the packet that opens a connection of `original` would leave with; `None` if no source port is free.
    pub(crate) fn foresee(&self, original: &Tuple, translation: &Translation, now: Now) -> Option<Tuple> {
        let is_free = |reply: &Tuple| reply != original && self.find(reply, now).is_none();
        let mut replies = translation.replies(original, self.table.hash(original));
        replies.find(is_free).map(Tuple::turned)
    }

    /// What a packet of `handle`'s direction is to have when it leaves; `None` if the connection is gone. It is
    /// `handle`'s own tuple where nothing is translated.
    pub(crate) fn translated(&self, handle: Handle) -> Option<Tuple> {
        Some(self.tuple(handle.turned())?.turned())
    }

    /// What a packet of `handle`'s direction has when it comes in; `None` if the connection is gone.
    pub(crate) fn tuple(&self, handle: Handle) -> Option<Tuple> {
        let entry = self.table.get(handle)?;
        let tuple = entry.cold.tuple(handle.direction());
        entry.hot.is(handle.generation()).then_some(tuple)
    }

    /// The port that its first packet came in by; `None` if the connection is gone.
    pub(crate) fn opened_by(&self, handle: Handle) -> Option<PortNo> {
        let entry = self.table.get(handle)?;
        let port = entry.cold.port();
        entry.hot.is(handle.generation()).then_some(port)
    }

    /// What was decided for it; `None` if the connection is gone.
    pub(crate) fn mark(&self, handle: Handle) -> Option<Mark> {
        let (_, mark) = self.table.get(handle)?.hot.read(handle.generation())?;
        Some(mark)
    }

    /// The first fragment of `datagram` came, which is of `tuple`.
    pub(crate) fn begin_datagram(&self, datagram: &Datagram, tuple: &Tuple, now: Now) {
        self.fragments.enter(datagram, tuple, now);
    }

    /// The ports that the first fragment of `datagram` showed; `None` if it has not come, or long ago.
    pub(crate) fn ports_of(&self, datagram: &Datagram, now: Now) -> Option<(u16, u16)> {
        self.fragments.ports(datagram, now)
    }

    /// False if no connection was given to `address` that was meant for another.
    pub(crate) fn may_answer_for_another(&self, zone: ZoneNo, address: IpAddr) -> bool {
        self.answerers.may_have(zone, address)
    }

    /// The same of one of its ports.
    pub(crate) fn may_answer_for_another_at(&self, zone: ZoneNo, end: &FrontendSpec) -> bool {
        self.answerers.may_have_at(zone, end.protocol, &Endpoint::new(end.address, end.port))
    }

    /// True if any connection was given to another than it was meant for.
    pub(crate) fn has_answerers(&self) -> bool {
        !self.answerers.is_empty()
    }

    /// Policy has decided again. False if the connection is gone.
    pub(crate) fn set_mark(&self, handle: Handle, mark: Mark) -> bool {
        self.table.with(handle, |entry| entry.hot.set_mark(mark))
    }

    /// Ends a connection. False if it was gone.
    pub(crate) fn remove(&self, handle: Handle) -> bool {
        let Some(entry) = self.table.get(handle) else { return false };
        let (tuples, port) =
            (Direction::BOTH.map(|direction| entry.cold.tuple(direction)), entry.cold.port());
        let is_removed = self.table.remove(handle);
        if is_removed {
            self.census.leave(tuples[0].zone, port);
            self.answerers.leave(&tuples);
        }
        is_removed
    }

    /// Connections now.
    pub(crate) fn len(&self) -> u32 {
        self.census.live()
    }

    /// Bytes of memory that the connections take, and may take again.
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Connections that packets of `port` have opened.
    pub(crate) fn of_port(&self, port: PortNo) -> u32 {
        self.census.of_port(port)
    }

    /// What each zone has and had.
    pub(crate) fn zones(&self) -> Vec<(ZoneNo, ZoneCounts)> {
        self.census.zones()
    }

    /// Forgets the counts of zones that are gone, once they have no connection.
    pub(crate) fn forget_zones(&self, is_gone: impl Fn(ZoneNo) -> bool) {
        self.census.forget_zones(is_gone);
    }

    #[inline]
    fn is_expired(&self, hot: &Hot, progress: &Progress, now: Now) -> bool {
        hot.idle_ms(now) >= progress.timeout_ms(&self.timeouts)
    }
}
