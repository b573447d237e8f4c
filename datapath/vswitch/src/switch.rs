//! How does one worker's switch take a burst through parse, cache, pipeline and actions?
//!
//! | path | cost, relative | takes |
//! |---|---|---|
//! | (1) a cached decision holds | 1 | no lock, no shared write but a time stamp per flow and millisecond |
//! | (2) miss: the pipeline, and an insert | 10 | the lock of the learned stations, twice |

use std::collections::HashSet;
use std::sync::Arc;

use frame::{BURST_FRAMES, Burst, DropCounts, DropReason};

use crate::actions::Actions;
use crate::cache::{Cache, Level};
use crate::outputs::Outputs;
use crate::parse::{Packet, Raw, parse};
use crate::pipeline::{self, Scene, Walk};
use crate::program::{PortNo, PortSpec, Program};
use crate::stations::Shared;
use crate::time::Now;

/// What [`Switch::process`] did with a burst; the caller adds it up. It is only added to, never cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessReport {
    /// Frames that ended in the switch.
    pub drops: DropCounts,
    /// The second and further times that a frame is in the outputs or the drops: frames in + copies == outputs + drops.
    pub copies: u64,
    /// Frames answered by the microflow cache.
    pub microflow_hits: u64,
    /// Frames answered by the megaflow cache.
    pub megaflow_hits: u64,
    /// Frames that went through the pipeline.
    pub misses: u64,
}

/// One worker's switch: its flow caches over the program and the shared stations.
pub struct Switch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) program: Arc<Program>,
    pub(crate) cache: Cache,
    /// What the frames of the burst say, one each.
    packets: Box<[Packet; BURST_FRAMES]>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").field("program", &self.program.version()).finish_non_exhaustive()
    }
}

impl Switch {
    /// A switch with empty caches. `seed` must be random: it keeps those who send frames from aiming at buckets.
    pub fn new(shared: Arc<Shared>, program: Arc<Program>, seed: u64) -> Self {
        let mut cache = Cache::new(seed);
        cache.next_epoch(program.ports_end());
        Self { shared, program, cache, packets: Box::new([Packet::default(); BURST_FRAMES]) }
    }

    /// Forwards by `program` from the next frame on. Cached decisions are not flushed: those of the old program are
    /// derived again when a frame asks for them. Stations learned behind a port that is gone, or has become another's,
    /// are forgotten.
    pub fn set_program(&mut self, program: Arc<Program>) {
        let old = std::mem::replace(&mut self.program, program);
        self.cache.next_epoch(self.program.ports_end());
        let new = &self.program.spec().ports;
        let is_gone = |port: &PortSpec| {
            new.get(&port.number).is_none_or(|it| (it.network, &it.name) != (port.network, &port.name))
        };
        let gone: HashSet<PortNo> =
            old.spec().ports.values().filter(|port| is_gone(port)).map(|port| port.number).collect();
        if !gone.is_empty() {
            self.shared.forget_ports(|port| gone.contains(&port));
        }
    }

    /// Decides what happens to each frame of `burst`, which came in by `port`, and adds it to `out` (cleared by the
    /// caller) and `report`. Frames whose tag the program strips have it cut off their heads; [`crate::Egress::apply`]
    /// puts one on where it is wanted.
    #[allow(
        clippy::too_many_arguments,
        reason = "the datapath's one call; every argument is the caller's own"
    )]
    pub fn process(
        &mut self,
        burst: &mut Burst,
        port: PortNo,
        now: Now,
        out: &mut Outputs,
        report: &mut ProcessReport,
    ) {
        let program = &*self.program;
        let Some(scene) = Scene::of(program, port, &self.shared, now) else {
            return report.drops.add(DropReason::NoNetwork, burst.len() as u64);
        };
        let mut parsed = parse_burst(burst, port, &mut self.packets, report);
        let mut hits = [0; 2];
        self.cache.begin();
        while parsed != 0 {
            let frame = parsed.trailing_zeros() as usize;
            parsed &= parsed - 1;
            let packet = &self.packets[frame];
            let bytes = burst.frame_len(frame);
            match self.cache.lookup(&packet.key, bytes, &self.shared, now) {
                Some((actions, level)) => {
                    hits[level as usize] += 1;
                    actions.perform((burst, frame), (packet, port), program, (out, report));
                }
                None => {
                    report.misses += 1;
                    let walk = Walk::new(scene, packet, burst.head(frame));
                    let actions = derive(walk, packet, &mut self.cache, bytes);
                    actions.perform((burst, frame), (packet, port), program, (out, report));
                }
            }
        }
        report.microflow_hits += hits[Level::Microflow as usize];
        report.megaflow_hits += hits[Level::Megaflow as usize];
    }

    /// Forgets what is idle or stale, cached decisions and stations: looks at up to `budget` entries of each table,
    /// going on where the last call ended. To be called about every 100 ms with a few thousand.
    pub fn sweep(&mut self, now: Now, budget: usize) {
        self.cache.sweep(now, budget);
        self.shared.sweep(&self.program, now, budget);
    }
}

/// Fills `packets` from the burst and returns the set of the frames that could be read; the others are dropped.
#[inline]
fn parse_burst(
    burst: &Burst,
    port: PortNo,
    packets: &mut [Packet; BURST_FRAMES],
    report: &mut ProcessReport,
) -> u32 {
    let mut parsed = 0;
    for (frame, packet) in packets.iter_mut().enumerate().take(burst.len()) {
        let gso = burst.offload(frame).gso;
        let raw = Raw { head: burst.head(frame), frame_bytes: burst.frame_len(frame), gso, port };
        match parse(raw, packet) {
            Ok(()) => parsed |= 1 << frame,
            Err(reason) => report.drops.add(reason, 1),
        }
    }
    parsed
}

/// The slow path: the pipeline decides, and the cache keeps the decision if it is not the frame's alone.
#[cold]
#[inline(never)]
fn derive(mut walk: Walk<'_>, packet: &Packet, cache: &mut Cache, bytes: usize) -> Actions {
    let actions = pipeline::run(&mut walk);
    cache.begin();
    if let Some(derived) = walk.derived(actions) {
        cache.insert(&packet.key, &derived, bytes, walk.scene.now);
    }
    actions
}
