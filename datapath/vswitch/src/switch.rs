//! The switch of one worker.

use std::sync::Arc;

use frame::{Burst, DropCounts, DropReason};

use crate::explain::Explanation;
use crate::outputs::Outputs;
use crate::program::{PortNo, Program};
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

/// A cached decision, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowView {
    /// The bits that were looked at, in words.
    pub matches: String,
    /// What happens to the frames, in words.
    pub actions: String,
    /// Frames so far.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Milliseconds since the last one.
    pub idle_ms: u64,
}

/// One worker's switch: its flow caches over the program and the shared stations.
pub struct Switch {
    #[expect(dead_code, reason = "signatures first")]
    shared: Arc<Shared>,
    program: Arc<Program>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").field("program", &self.program.version()).finish_non_exhaustive()
    }
}

impl Switch {
    /// A switch with empty caches. `seed` must be random: it keeps those who send frames from aiming at buckets.
    pub fn new(shared: Arc<Shared>, program: Arc<Program>, seed: u64) -> Self {
        let _ = seed;
        Self { shared, program }
    }

    /// Forwards by `program` from the next frame on. Nothing is flushed: entries of the old program are derived again
    /// when a frame asks for them.
    pub fn set_program(&mut self, program: Arc<Program>) {
        self.program = program;
    }

    /// Decides what happens to each frame of `burst`, which came in by `port`, and adds it to `out` (cleared by the
    /// caller) and `report`. Frames whose tag the program strips have it cut off their heads; [`crate::Egress::apply`]
    /// puts one on where it is wanted.
    pub fn process(
        &mut self,
        burst: &mut Burst,
        port: PortNo,
        now: Now,
        out: &mut Outputs,
        report: &mut ProcessReport,
    ) {
        let _ = (port, now, out);
        report.drops.add(DropReason::NoNetwork, burst.len() as u64);
    }

    /// Forgets what is idle or stale: looks at up to `budget` entries of each table, going on where the last call
    /// ended. To be called about every 100 ms with a few thousand.
    pub fn sweep(&mut self, now: Now, budget: usize) {
        let _ = (now, budget);
    }

    /// Up to `limit` cached decisions.
    pub fn flows(&self, now: Now, limit: usize) -> Vec<FlowView> {
        let _ = (now, limit);
        Vec::new()
    }

    /// Cached decisions held.
    pub fn flow_count(&self) -> usize {
        0
    }

    /// Says in words what would happen to the frame `bytes` if it came in by `port` now. Changes nothing.
    pub fn explain(&self, port: PortNo, bytes: &[u8], now: Now) -> Explanation {
        let _ = (port, bytes, now);
        Explanation::default()
    }
}
