//! Where do the switches of a simulation live? In a world of queues, whose clock stands still unless it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use frame::{BURST_FRAMES, Burst, DropReason, Offload};
use vswitch::program::{NetworkNo, PortNo, ProgramError, ProgramSpec};
use vswitch::{Egress, Now, Outputs, ProcessReport, Program, Shared, Switch};
use wire::MacAddr;

use crate::reference::Drops;

/// What became of some frames.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Frames that came in.
    pub received: u64,
    /// The second and further ends of frames that had several.
    pub copies: u64,
    /// The frames that each port sent in each shape, in order. Across shapes there is none to keep: they differ in
    /// VLAN or priority (IEEE 802.1Q §8.6.6).
    pub sent: BTreeMap<(PortNo, Egress), Vec<Vec<u8>>>,
    /// The others.
    pub drops: Drops,
}

impl Outcome {
    /// Of one frame that ended.
    pub fn dropped(reason: DropReason) -> Self {
        let mut outcome = Self { received: 1, ..Self::default() };
        outcome.drop(reason);
        outcome
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Adds what became of later frames.
    pub fn add(&mut self, later: Outcome) {
        self.received += later.received;
        self.copies += later.copies;
        for (exit, frames) in later.sent {
            self.sent.entry(exit).or_default().extend(frames);
        }
        for (reason, frames) in later.drops {
            *self.drops.entry(reason).or_default() += frames;
        }
    }

    /// True if every frame and every copy has one end: rx + copies == tx + drops.
    pub fn is_balanced(&self) -> bool {
        let sent: usize = self.sent.values().map(Vec::len).sum();
        self.received + self.copies == sent as u64 + self.drops.values().sum::<u64>()
    }
}

/// Switches over one table of stations, and a clock.
#[derive(Debug)]
pub struct World {
    workers: Vec<Switch>,
    shared: Arc<Shared>,
    now: Now,
    burst: Burst,
    outputs: Outputs,
}

impl World {
    /// A world with this many workers and an empty program.
    pub fn new(workers: usize) -> Self {
        let shared = Shared::new();
        let program = Arc::new(Program::default());
        let switch = |seed| Switch::new(Arc::clone(&shared), Arc::clone(&program), seed);
        Self {
            workers: (0..workers as u64).map(switch).collect(),
            shared,
            now: Now::default(),
            burst: Burst::new(),
            outputs: Outputs::default(),
        }
    }

    /// All workers forward by `spec` from now on.
    ///
    /// # Errors
    /// As [`Program::build`]; nothing has changed then.
    pub fn set_program(&mut self, spec: &ProgramSpec) -> Result<(), ProgramError> {
        let program = Program::build(spec.clone())?;
        for worker in &mut self.workers {
            worker.set_program(Arc::clone(&program));
        }
        Ok(())
    }

    /// Lets time pass, and all workers sweep.
    pub fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        for worker in &mut self.workers {
            worker.sweep(self.now, usize::MAX);
        }
    }

    /// The learned stations: network, VLAN, address and port, sorted.
    pub fn stations(&self) -> Vec<(NetworkNo, Option<u16>, MacAddr, PortNo)> {
        let stations = self.shared.stations(self.now);
        let view = |it: vswitch::StationView| (it.network, it.vlan.map(|vlan| vlan.get()), it.mac, it.port);
        let mut stations: Vec<_> = stations.into_iter().map(view).collect();
        stations.sort_unstable();
        stations
    }

    /// What becomes of `frames`, which come in by `port` one behind the other. A port belongs to one worker.
    pub fn receive(&mut self, port: PortNo, frames: &[Vec<u8>]) -> Outcome {
        let mut outcome = Outcome::default();
        for frames in frames.chunks(BURST_FRAMES) {
            outcome.add(self.turn(port, frames));
        }
        outcome
    }

    fn turn(&mut self, port: PortNo, frames: &[Vec<u8>]) -> Outcome {
        let Self { workers, now, burst, outputs, .. } = self;
        let worker = usize::from(port.0) % workers.len();
        for frame in frames {
            burst.push_owned(frame.clone(), Offload::NONE).expect("a burst holds a burst's frames");
        }
        let mut report = ProcessReport::default();
        outputs.clear();
        workers[worker].process(burst, port, *now, outputs, &mut report);
        let mut outcome =
            Outcome { received: frames.len() as u64, copies: report.copies, ..Outcome::default() };
        outcome.drops.extend(report.drops.iter());
        for group in outputs.groups() {
            let queue = outcome.sent.entry((group.port, group.egress)).or_default();
            for frame in group.frames() {
                let frame = usize::from(*frame);
                match group.egress.apply(burst, frame, workers[worker].program()) {
                    Ok(undo) => {
                        queue.push(burst.gather(frame).to_vec());
                        undo.undo(burst, frame);
                    }
                    Err(reason) => *outcome.drops.entry(reason).or_default() += 1,
                }
            }
        }
        burst.clear();
        outcome
    }
}
