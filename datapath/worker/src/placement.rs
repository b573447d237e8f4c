//! Which worker should poll which receive queue?
//!
//! A queue's *load* is the cycles that its bursts cost; a worker's is the sum of its queues', by the cycles that it had.
//! [`plan`] says which queues to move, from the loads of one interval alone. [`Balancer`] measures, asks, and moves:
//!
//! - only when a worker was overloaded in [`STREAK`] intervals in a row: a move costs its flows a cold cache;
//! - only if the variance of the workers' loads falls clearly: a small gain may be gone in the next interval;
//! - each queue at most once in [`SETTLE`] intervals, so that loads which swing from side to side do not take the
//!   queues along.

use std::collections::BTreeMap;
use std::time::Duration;

use ports::cycles;

use crate::datapath::{Datapath, QueueView};
use crate::entry::QueueId;

/// How often [`Balancer::step`] is to be called.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Intervals in a row in which a worker must be overloaded before queues move.
pub const STREAK: u32 = 3;
/// Intervals for which a queue that was moved stays.
pub const SETTLE: u64 = 60;
/// The load from which a worker is overloaded. OVS waits for 95 %; bursts grow as a worker fills up, so that a worker
/// has more in reserve than its load says, but its queues already wait.
pub const OVERLOAD: f64 = 0.9;
/// The part of the variance that a plan must take away: OVS's `pmd-auto-lb-improvement-threshold`.
pub const MIN_GAIN: f64 = 0.25;
/// Queues moved at once, so that the caches of one worker are not all cold together.
pub const MAX_MOVES: usize = 8;

/// A receive queue in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLoad {
    /// Which it is.
    pub id: QueueId,
    /// The worker that polls it.
    pub worker: usize,
    /// The cycles that its bursts cost.
    pub cycles: u64,
    /// It stays where it is.
    pub pinned: bool,
}

/// One queue, and the worker that is to poll it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The queue.
    pub id: QueueId,
    /// The worker's number.
    pub to: usize,
}

/// The moves that relieve overloaded workers, at most [`MAX_MOVES`]; none if the gain is not clear. `capacities` are the
/// cycles that each worker had. No move makes its target as loaded as its source was, so the peak never rises, and the
/// same loads always give the same moves.
pub fn plan(capacities: &[u64], queues: &[QueueLoad]) -> Vec<Move> {
    let mut queues: Vec<QueueLoad> =
        queues.iter().filter(|queue| queue.worker < capacities.len()).copied().collect();
    queues.sort_by_key(|queue| queue.id);
    let mut loads = Loads::of(capacities, &queues);
    let before = loads.variance();
    let mut moves = Vec::new();
    if loads.highest() < OVERLOAD {
        return moves;
    }
    // On to the end, not only until nobody is overloaded: the gain is judged by how even the loads can become.
    while let Some((index, to)) = best_move(&loads, &queues) {
        let queue = &mut queues[index];
        loads.shift(queue, to);
        (queue.worker, queue.pinned) = (to, true);
        moves.push(Move { id: queue.id, to });
    }
    if loads.variance() > (1.0 - MIN_GAIN) * before {
        moves.clear();
    }
    moves.truncate(MAX_MOVES);
    moves
}

/// The workers' loads, exact in cycles.
struct Loads<'a> {
    capacities: &'a [u64],
    cycles: Vec<u64>,
}

impl<'a> Loads<'a> {
    fn of(capacities: &'a [u64], queues: &[QueueLoad]) -> Self {
        let mut cycles = vec![0; capacities.len()];
        for queue in queues {
            cycles[queue.worker] += queue.cycles;
        }
        Self { capacities, cycles }
    }

    fn shift(&mut self, queue: &QueueLoad, to: usize) {
        self.cycles[queue.worker] -= queue.cycles;
        self.cycles[to] += queue.cycles;
    }

    /// The load of `worker`; 1 is all that it can do.
    fn load(&self, worker: usize) -> f64 {
        self.share(worker, self.cycles[worker])
    }

    /// What `cycles` would be to `worker`.
    fn share(&self, worker: usize, cycles: u64) -> f64 {
        cycles as f64 / self.capacities[worker].max(1) as f64
    }

    fn all(&self) -> impl Iterator<Item = f64> {
        (0..self.cycles.len()).map(|worker| self.load(worker))
    }

    fn highest(&self) -> f64 {
        self.all().fold(0.0, f64::max)
    }

    /// The most loaded worker; of equals the first.
    fn peak(&self) -> Option<usize> {
        (0..self.cycles.len()).rev().max_by(|&a, &b| self.load(a).total_cmp(&self.load(b)))
    }

    fn variance(&self) -> f64 {
        let workers = self.cycles.len() as f64;
        let mean = self.all().sum::<f64>() / workers;
        self.all().map(|load| (load - mean).powi(2)).sum::<f64>() / workers
    }
}

/// The queue, by its index, that leaves the most loaded worker, and where to: such that the more loaded of the two is
/// then loaded least. `None` if nothing relieves it.
fn best_move(loads: &Loads<'_>, queues: &[QueueLoad]) -> Option<(usize, usize)> {
    let from = loads.peak()?;
    let movable = |queue: &QueueLoad| queue.worker == from && queue.cycles > 0 && !queue.pinned;
    let mut best = (loads.load(from), None);
    for (index, queue) in queues.iter().enumerate().filter(|(_, queue)| movable(queue)) {
        let rest = loads.share(from, loads.cycles[from] - queue.cycles);
        for to in (0..loads.cycles.len()).filter(|&to| to != from) {
            let after = rest.max(loads.share(to, loads.cycles[to] + queue.cycles));
            if after < best.0 {
                best = (after, Some((index, to)));
            }
        }
    }
    best.1
}

/// What the queues had cost at one moment.
#[derive(Debug, Clone, Default)]
struct Sample {
    /// By the counter of cycles.
    at: u64,
    busy_cycles: BTreeMap<QueueId, u64>,
}

/// Moves receive queues of a [`Datapath`] as their loads change.
#[derive(Debug, Default)]
pub struct Balancer {
    steps: u64,
    /// The last sample.
    last: Option<Sample>,
    /// Where the intervals in which a worker was overloaded began, and how many they are.
    streak: Option<(Sample, u32)>,
    /// When queues were moved, by steps.
    moved: BTreeMap<QueueId, u64>,
}

impl Balancer {
    /// Measures the interval since the last step, and moves what should move. Returns the moves that were made.
    pub fn step(&mut self, datapath: &Datapath) -> Vec<Move> {
        let (now, queues) = (cycles::now(), datapath.queues());
        let mut moves = self.decide(now, datapath.worker_count(), &queues);
        // A queue that has gone meanwhile needs no place.
        moves.retain(|to| datapath.move_queue(to.id, to.to).is_ok());
        moves
    }

    fn decide(&mut self, now: u64, workers: usize, queues: &[QueueView]) -> Vec<Move> {
        self.steps += 1;
        let steps = self.steps;
        self.moved.retain(|_, moved| steps - *moved < SETTLE);
        let busy_cycles = queues.iter().map(|queue| (queue.id, queue.busy_cycles)).collect();
        let Some(last) = self.last.replace(Sample { at: now, busy_cycles }) else { return Vec::new() };
        if !self.is_overloaded(&last, now, workers, queues) {
            self.streak = None;
            return Vec::new();
        }
        let (first, intervals) = self.streak.take().unwrap_or((last, 0));
        if intervals + 1 < STREAK {
            self.streak = Some((first, intervals + 1));
            return Vec::new();
        }
        let (capacities, loads) = self.loads(&first, now, workers, queues);
        let moves = plan(&capacities, &loads);
        self.moved.extend(moves.iter().map(|to| (to.id, steps)));
        moves
    }

    fn is_overloaded(&self, since: &Sample, now: u64, workers: usize, queues: &[QueueView]) -> bool {
        let (capacities, loads) = self.loads(since, now, workers, queues);
        Loads::of(&capacities, &loads).highest() >= OVERLOAD
    }

    /// What each worker had, and what each queue has cost, from `since` to `now`.
    fn loads(
        &self,
        since: &Sample,
        now: u64,
        workers: usize,
        queues: &[QueueView],
    ) -> (Vec<u64>, Vec<QueueLoad>) {
        let load = |queue: &QueueView| {
            // A queue that is new since then has cost all that within the interval.
            let before = since.busy_cycles.get(&queue.id).copied().unwrap_or(0);
            QueueLoad {
                id: queue.id,
                worker: queue.worker,
                cycles: queue.busy_cycles.saturating_sub(before),
                pinned: self.moved.contains_key(&queue.id),
            }
        };
        (vec![now.saturating_sub(since.at); workers], queues.iter().map(load).collect())
    }
}

#[cfg(test)]
mod tests;
