//! What does the bare copy of a frame cost on this machine? The floor below every switch that copies.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::cycles;

use crate::case::Case;
use crate::probe;
use crate::subject::{Subject, Switch, WorkerCounters};
use crate::traffic::Moved;

/// As many buffers as the load's rings have, as far apart as theirs are.
const BUFFERS: usize = 256;
const BUFFER_BYTES: usize = 2048;
/// Copies between two looks at the clock.
const BATCH: usize = 1 << 14;

/// Copies on a CPU of its choice.
#[derive(Debug)]
pub(crate) struct Copying {
    cpu: usize,
}

impl Copying {
    pub(crate) fn start(cpu: usize) -> Self {
        Self { cpu }
    }
}

impl Switch for Copying {
    fn sockets(&self) -> [PathBuf; 3] {
        [PathBuf::new(), PathBuf::new(), PathBuf::new()]
    }

    fn version(&self) -> String {
        String::new()
    }

    fn forward(&mut self, _subject: Subject, _flows: u32) -> anyhow::Result<()> {
        Ok(())
    }

    fn run_alone(&mut self, case: Case, time: Duration) -> Option<(Moved, WorkerCounters)> {
        let (cpu, bytes) = (self.cpu, case.frame.bytes().min(BUFFER_BYTES));
        let measured = std::thread::scope(|scope| {
            scope.spawn(move || probe::pin(cpu).map(|()| copy(bytes, time))).join()
        });
        measured.ok()?.ok()
    }

    fn counters(&mut self) -> anyhow::Result<WorkerCounters> {
        Ok(WorkerCounters::default())
    }

    fn workers(&self) -> Vec<u32> {
        Vec::new()
    }

    fn pause(&self) {}

    fn resume(&self) {}

    fn check(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

fn copy(bytes: usize, time: Duration) -> (Moved, WorkerCounters) {
    let from = vec![1u8; BUFFERS * BUFFER_BYTES];
    let mut to = vec![0u8; BUFFERS * BUFFER_BYTES];
    let start = Instant::now();
    let mut counters = WorkerCounters::default();
    while start.elapsed() < time {
        let before = cycles::now();
        for number in 0..BATCH {
            let at = number % BUFFERS * BUFFER_BYTES;
            let len = std::hint::black_box(bytes);
            to[at..at + len].copy_from_slice(&from[at..at + len]);
            std::hint::black_box(&mut to);
        }
        counters.busy_cycles += cycles::now() - before;
        counters.frames += BATCH as u64;
    }
    let moved = Moved { frames: Some(counters.frames), lost: 0, connections: 0, elapsed: start.elapsed() };
    (moved, counters)
}
