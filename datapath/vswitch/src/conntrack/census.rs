//! How many connections are there, whose are they, and may there be one more?
//!
//! The counts are atomics that workers add to and, over a limit, take back: no lock but that of the list of zones,
//! which all share but who adds a zone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::sync::{PoisonError, RwLock};

use super::Refusal;
use super::tuple::ZoneNo;
use crate::program::PortNo;

/// Port numbers there are.
const PORTS: usize = u16::MAX as usize + 1;

/// What those may have at most who open a connection; the program says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Connections of the zone.
    pub(crate) zone: u32,
    /// Connections that packets of the port have opened.
    pub(crate) port: u32,
}

/// A zone's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ZoneCounts {
    /// Connections now.
    pub(crate) live: u32,
    /// Connections that there ever were.
    pub(crate) opened: u64,
    /// Packets that would have opened one, and were refused.
    pub(crate) refused: u64,
    /// Connections that made room for others.
    pub(crate) evicted: u64,
}

#[derive(Debug)]
pub(super) struct Census {
    total: u32,
    live: AtomicU32,
    /// By number.
    ports: Box<[AtomicU32]>,
    zones: RwLock<HashMap<ZoneNo, Zone>>,
}

#[derive(Debug, Default)]
struct Zone {
    live: AtomicU32,
    opened: AtomicU64,
    refused: AtomicU64,
    evicted: AtomicU64,
}

/// What is counted of a zone beside its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Opened,
    Refused,
    Evicted,
}

impl Census {
    pub(super) fn new(total: u32) -> Self {
        let ports = (0..PORTS).map(|_| AtomicU32::new(0)).collect();
        Self { total, live: AtomicU32::new(0), ports, zones: RwLock::default() }
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// Connections that there may be at all.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// Counts one more, or says who has too many. [`Census::leave`] takes it back.
    pub(super) fn enter(&self, zone: ZoneNo, port: PortNo, quota: Quota) -> Result<(), Refusal> {
        claim(&self.live, self.total, Refusal::TableFull)?;
        let of_port = claim(&self.ports[usize::from(port.0)], quota.port, Refusal::PortFull);
        if let Err(refusal) = of_port {
            release(&self.live);
            return Err(refusal);
        }
        let of_zone = self.in_zone(zone, |zone| claim(&zone.live, quota.zone, Refusal::ZoneFull));
        if of_zone.is_err() {
            release(&self.live);
            release(&self.ports[usize::from(port.0)]);
        }
        of_zone
    }

    /// Counts one less.
    pub(super) fn leave(&self, zone: ZoneNo, port: PortNo) {
        release(&self.live);
        release(&self.ports[usize::from(port.0)]);
        self.in_zone(zone, |zone| release(&zone.live));
    }

    pub(super) fn count(&self, zone: ZoneNo, event: Event) {
        self.in_zone(zone, |zone| {
            let count = match event {
                Event::Opened => &zone.opened,
                Event::Refused => &zone.refused,
                Event::Evicted => &zone.evicted,
            };
            count.fetch_add(1, Relaxed);
        });
    }

    /// Connections that packets of `port` have opened.
    pub(super) fn of_port(&self, port: PortNo) -> u32 {
        self.ports[usize::from(port.0)].load(Relaxed)
    }

    /// All zones that ever had a connection, unless they were forgotten.
    pub(super) fn zones(&self) -> Vec<(ZoneNo, ZoneCounts)> {
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        zones.iter().map(|(number, zone)| (*number, zone.counts())).collect()
    }

    /// Forgets the counts of zones for which `is_gone` is true, once they have no connection.
    pub(super) fn forget_zones(&self, is_gone: impl Fn(ZoneNo) -> bool) {
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        zones.retain(|number, zone| zone.live.load(Relaxed) > 0 || !is_gone(*number));
    }

    fn in_zone<R>(&self, number: ZoneNo, act: impl Fn(&Zone) -> R) -> R {
        // The lock is held while it counts, so that no zone with a connection is forgotten.
        if let Some(zone) = self.zones.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return act(zone);
        }
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        act(zones.entry(number).or_default())
    }
}

impl Zone {
    fn counts(&self) -> ZoneCounts {
        ZoneCounts {
            live: self.live.load(Relaxed),
            opened: self.opened.load(Relaxed),
            refused: self.refused.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
        }
    }
}

fn claim(count: &AtomicU32, limit: u32, refusal: Refusal) -> Result<(), Refusal> {
    if count.fetch_add(1, Relaxed) >= limit {
        release(count);
        return Err(refusal);
    }
    Ok(())
}

fn release(count: &AtomicU32) {
    count.fetch_sub(1, Relaxed);
}
