//! Behind which port is a station?
//!
//! Theory of operation. One table of learned stations serves all workers of a datapath (those that the program lists are
//! in the program, and never here). Workers come to it only on a cache miss, so one lock is enough; what each packet needs
//! is beside it in two arrays of atomics:
//!
//! - **generations.** Each station and each network's room is hashed to a cell that counts its changes. A decision that
//!   was derived from the table remembers the cells it depends on and their values; it holds as long as they stand.
//!   A station that is learned, moves or is forgotten so invalidates what depended on it (a flood included: it depends on
//!   the destination being unknown) and next to nothing else. Two things that share a cell cost a derivation, no more.
//! - **last seen.** A cache hit notes the time at its station's slot, once per millisecond and entry.
//!
//! Stations are forgotten by [`Shared::sweep`] and nowhere else, and a change is made and counted under the lock: who
//! reads table and cell under the lock has a pair that belongs together.
//!
//! Limits: [`MAX_STATIONS`] in all, and those of the program's networks and ports. A station over a limit is served, but
//! not remembered; that answer depends on its network's *room*, which changes whenever a station leaves or moves.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wire::MacAddr;

use crate::conntrack::{Connections, Timeouts};
use crate::program::{Network, NetworkNo, NodeNo, Port, PortNo, Program, VlanId};
use crate::service::Affinities;
use crate::time::Now;

/// Learned stations that a datapath holds at most.
pub const MAX_STATIONS: usize = 65_536;
/// Connections that a datapath holds at most. Memory is taken as they come.
const MAX_CONNECTIONS: u32 = 4 << 20;
/// Generation cells. All of them stay in the first-level cache.
const CELLS: usize = 4096;
/// The cell that never changes: for answers that depend on no station.
const STEADY: u32 = 0;
/// The cell of the room in the whole table.
const ROOM: u32 = 1;
/// Stations handed out under one lock.
const DUMP_STEP: usize = 256;

/// The forwarding database, shared by all workers of a datapath.
#[derive(Debug)]
pub struct Shared {
    cells: Box<[AtomicU32]>,
    /// By slot.
    seen_ms: Box<[AtomicU64]>,
    hasher: RandomState,
    table: Mutex<Table>,
    /// The connections that policies are asked about.
    connections: Arc<Connections>,
    /// Where clients go that services keep at one endpoint.
    affinities: Affinities,
}

/// A station that a port lists or that was learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StationView {
    /// The network.
    pub network: NetworkNo,
    /// The VLAN in it, if the station is in one.
    pub vlan: Option<VlanId>,
    /// Its address.
    pub mac: MacAddr,
    /// The port that it is behind.
    pub port: PortNo,
    /// The node that it is on, if that is another one.
    pub node: Option<NodeNo>,
    /// True if the program names it; false if it was learned.
    pub configured: bool,
    /// Milliseconds since its last frame; 0 for a configured one.
    pub idle_ms: u64,
}

/// Who a station is: an address in a VLAN (0: none) of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Station {
    pub(crate) network: NetworkNo,
    pub(crate) vlan: u16,
    pub(crate) mac: MacAddr,
}

/// Where a station is: behind a port, which may stand for other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) port: PortNo,
    pub(crate) node: Option<NodeNo>,
}

/// A cell and the value it had: what an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dependence {
    cell: u32,
    value: u32,
}

impl Dependence {
    /// On nothing that changes.
    pub(crate) const NONE: Self = Self { cell: STEADY, value: 0 };
}

/// Two of them, in less room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depends {
    values: [u32; 2],
    /// Below [`CELLS`].
    cells: [u16; 2],
}

impl Depends {
    pub(crate) fn new(both: [Dependence; 2]) -> Self {
        Self { values: both.map(|it| it.value), cells: both.map(|it| it.cell as u16) }
    }

    #[inline(always)]
    pub(crate) fn both(self) -> [Dependence; 2] {
        [0, 1].map(|at| Dependence { cell: self.cells[at].into(), value: self.values[at] })
    }
}

/// The place of a learned station, for [`Shared::touch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    /// Of no station.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// What learning a frame's source came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It was known here.
    Known,
    /// It was unknown.
    New,
    /// It was known somewhere else.
    Moved(Place),
    /// It is not remembered here: the port, the network or the table is full.
    Full(Limit),
}

/// Which limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Port,
    Network,
    Table,
}

/// Whether a look changes the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A frame is there.
    Commit,
    /// Somebody asks what would happen.
    DryRun,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    station: Station,
    place: Place,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<Station, u32>,
    /// By slot.
    entries: Vec<Option<Entry>>,
    /// Slots to use again.
    free: Vec<u32>,
    per_network: HashMap<NetworkNo, u32>,
    per_port: HashMap<PortNo, u32>,
    /// The slot that the next sweep begins with.
    cursor: usize,
}

impl Shared {
    /// An empty database.
    pub fn new() -> Arc<Shared> {
        Self::with_connections(MAX_CONNECTIONS)
    }

    /// The same with room for another number of connections.
    pub fn with_connections(connections: u32) -> Arc<Shared> {
        Arc::new(Self {
            cells: (0..CELLS).map(|_| AtomicU32::new(0)).collect(),
            seen_ms: (0..MAX_STATIONS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            table: Mutex::default(),
            connections: Connections::new(connections, Timeouts::default()),
            affinities: Affinities::default(),
        })
    }

    /// The connections that policies are asked about.
    #[inline(always)]
    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Where clients go that services keep at one endpoint.
    pub(crate) fn affinities(&self) -> &Affinities {
        &self.affinities
    }

    /// Every learned station. Locks in short steps: a dump delays no worker for long, and may miss what changes
    /// meanwhile. The configured ones are in the program ([`Program::stations`]).
    pub fn stations(&self, now: Now) -> Vec<StationView> {
        let mut views = Vec::new();
        let mut at = 0;
        loop {
            let table = self.lock();
            let end = table.entries.len().min(at + DUMP_STEP);
            if at >= end {
                return views;
            }
            for (slot, entry) in (at..end).zip(&table.entries[at..end]) {
                let Some(Entry { station, place }) = *entry else { continue };
                views.push(StationView {
                    network: station.network,
                    vlan: VlanId::new(station.vlan),
                    mac: station.mac,
                    port: place.port,
                    node: place.node,
                    configured: false,
                    idle_ms: now.since(self.seen(slot as u32)),
                });
            }
            at = end;
        }
    }

    /// True if nothing that `dependence` stands for has changed.
    #[inline]
    pub(crate) fn holds(&self, dependence: Dependence) -> bool {
        // `cell` is below CELLS; the remainder tells the compiler so.
        self.cells[dependence.cell as usize % CELLS].load(Ordering::Acquire) == dependence.value
    }

    /// A frame of the station in `slot` came in.
    #[inline]
    pub(crate) fn touch(&self, slot: Slot, now: Now) {
        if let Some(seen) = self.seen_ms.get(slot.0 as usize) {
            seen.store(now.ms, Ordering::Relaxed);
        }
    }

    /// Where `station` was learned to be.
    pub(crate) fn find(&self, station: &Station) -> (Option<Place>, Dependence) {
        let table = self.lock();
        (table.get(station).map(|(_, place)| place), self.depend(self.cell(station)))
    }

    /// A frame of `station` came in by `port`, from `node`: remembers it, within the limits of `network` and `port`.
    pub(crate) fn learn(
        &self,
        station: &Station,
        (network, port, node): (&Network, &Port, Option<NodeNo>),
        now: Now,
        effect: Effect,
    ) -> (Learned, Slot, Dependence) {
        let place = Place { port: port.number, node };
        let mut table = self.lock();
        let learned = table.judge(station, place, (network, port));
        if effect == Effect::Commit {
            match learned {
                Learned::New => table.insert(*station, place),
                Learned::Moved(_) => table.relocate(station, place),
                Learned::Known | Learned::Full(_) => {}
            }
            if matches!(learned, Learned::New | Learned::Moved(_)) {
                self.bump(self.cell(station));
            }
            if matches!(learned, Learned::Moved(_)) {
                self.bump(self.room(station.network));
            }
        }
        let cell = match learned {
            Learned::Full(Limit::Table) => ROOM,
            Learned::Full(_) => self.room(station.network),
            _ => self.cell(station),
        };
        let slot = match (learned, table.get(station)) {
            (Learned::Full(_), _) | (_, None) => Slot::NONE,
            (_, Some((slot, _))) => Slot(slot),
        };
        if effect == Effect::Commit {
            self.touch(slot, now);
        }
        (learned, slot, self.depend(cell))
    }

    /// Forgets what `program` gives no reason to remember: stations whose network or port is gone, and those without a
    /// frame for their network's ageing time. Looks at up to `budget` slots, going on where the last call ended.
    pub(crate) fn sweep(&self, program: &Program, now: Now, budget: usize) {
        let mut table = self.lock();
        let slots = table.entries.len();
        for _ in 0..budget.min(slots) {
            let slot = table.cursor % slots;
            table.cursor = slot + 1;
            let Some(Entry { station, place }) = table.entries[slot] else { continue };
            let idle_ms = now.since(self.seen(slot as u32));
            let aged = program.network(station.network).is_none_or(|network| idle_ms >= network.mac_age_ms);
            if aged || !program.reaches(place, station.network, station.vlan) {
                self.forget(&mut table, slot);
            }
        }
    }

    /// Forgets the stations behind ports for which `gone` is true, at once: their numbers may be given to others.
    pub(crate) fn forget_ports(&self, gone: impl Fn(PortNo) -> bool) {
        let mut table = self.lock();
        for slot in 0..table.entries.len() {
            if table.entries[slot].is_some_and(|entry| gone(entry.place.port)) {
                self.forget(&mut table, slot);
            }
        }
    }

    fn forget(&self, table: &mut Table, slot: usize) {
        let was_full = table.is_full();
        if let Some(entry) = table.remove(slot) {
            self.bump(self.cell(&entry.station));
            self.bump(self.room(entry.station.network));
            if was_full {
                self.bump(ROOM);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No step under the lock panics half-way; a poisoned table is as good as any.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self, slot: u32) -> Now {
        Now { ms: self.seen_ms[slot as usize].load(Ordering::Relaxed) }
    }

    /// The cell that counts the changes of `station`.
    pub(crate) fn cell(&self, station: &Station) -> u32 {
        self.cell_of(self.hasher.hash_one(station))
    }

    fn room(&self, network: NetworkNo) -> u32 {
        self.cell_of(self.hasher.hash_one(network))
    }

    fn cell_of(&self, hash: u64) -> u32 {
        let reserved = ROOM as u64 + 1;
        (reserved + hash % (CELLS as u64 - reserved)) as u32
    }

    fn depend(&self, cell: u32) -> Dependence {
        Dependence { cell, value: self.cells[cell as usize].load(Ordering::Acquire) }
    }

    fn bump(&self, cell: u32) {
        self.cells[cell as usize].fetch_add(1, Ordering::Release);
    }
}

impl Table {
    fn get(&self, station: &Station) -> Option<(u32, Place)> {
        let slot = *self.slots.get(station)?;
        self.entries[slot as usize].map(|entry| (slot, entry.place))
    }

    fn is_full(&self) -> bool {
        self.slots.len() >= MAX_STATIONS
    }

    /// What a frame of `station` from `place` means.
    fn judge(&self, station: &Station, place: Place, (network, port): (&Network, &Port)) -> Learned {
        let held = |count: Option<&u32>| count.copied().unwrap_or(0);
        let port_is_full = held(self.per_port.get(&port.number)) >= port.mac_limit;
        match self.get(station) {
            Some((_, known)) if known == place => Learned::Known,
            Some((_, known)) if known.port == place.port => Learned::Moved(known),
            _ if port_is_full => Learned::Full(Limit::Port),
            Some((_, known)) => Learned::Moved(known),
            None if held(self.per_network.get(&network.number)) >= network.mac_limit => {
                Learned::Full(Limit::Network)
            }
            None if self.is_full() => Learned::Full(Limit::Table),
            None => Learned::New,
        }
    }

    fn insert(&mut self, station: Station, place: Place) {
        let entry = Some(Entry { station, place });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.slots.insert(station, slot);
        *self.per_network.entry(station.network).or_default() += 1;
        *self.per_port.entry(place.port).or_default() += 1;
    }

    fn relocate(&mut self, station: &Station, place: Place) {
        let Some(slot) = self.slots.get(station) else { return };
        if let Some(entry) = &mut self.entries[*slot as usize] {
            let from = std::mem::replace(&mut entry.place, place);
            decrement(&mut self.per_port, &from.port);
            *self.per_port.entry(place.port).or_default() += 1;
        }
    }

    fn remove(&mut self, slot: usize) -> Option<Entry> {
        let entry = self.entries[slot].take()?;
        self.slots.remove(&entry.station);
        self.free.push(slot as u32);
        decrement(&mut self.per_network, &entry.station.network);
        decrement(&mut self.per_port, &entry.place.port);
        Some(entry)
    }
}

/// Counts one less, and keeps no zero: numbers of networks and ports come and go.
fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}
