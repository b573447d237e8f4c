//! How does a worker come to its CPU?

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

use crate::counters::WorkerCells;
use crate::forward::Forwarder;
use crate::mailbox::Inbox;
use crate::turn::Worker;

/// How a datapath is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// One worker is pinned to each of these CPUs ([`allowed_cpus`] lists the candidates).
    pub cpus: Vec<usize>,
    /// About the longest that a worker without frames polls on before it sleeps; how long it does follows the gaps
    /// between arrivals.
    pub spin: Duration,
}

impl Config {
    /// Workers on `cpus`, and the usual patience.
    pub fn on(cpus: impl Into<Vec<usize>>) -> Self {
        Self { cpus: cpus.into(), spin: Duration::from_micros(50) }
    }
}

/// Why a datapath did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names no CPU.
    #[error("no CPU was given to the workers: name at least one")]
    NoCpu,
    /// A worker cannot run where it should: the CPU does not exist, or this process may not use it.
    #[error("worker {worker} cannot be pinned to CPU {cpu}: {source}; this process may use {allowed:?}")]
    Cpu {
        /// The worker.
        worker: usize,
        /// The CPU.
        cpu: usize,
        /// The CPUs to choose from.
        allowed: Vec<usize>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No thread or descriptor is left.
    #[error("worker {worker} cannot be started: {source}")]
    Resources {
        /// The worker.
        worker: usize,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What a worker's thread starts with.
pub(crate) struct Seat {
    pub(crate) number: usize,
    pub(crate) cpu: usize,
    pub(crate) inbox: Inbox,
    pub(crate) cells: Arc<WorkerCells>,
    pub(crate) start: Instant,
    pub(crate) spin: Duration,
}

impl Seat {
    /// Starts the thread and waits until it runs where it should.
    pub(crate) fn start(self, forwarder: Forwarder) -> Result<(Pid, JoinHandle<()>), StartError> {
        let (worker, cpu) = (self.number, self.cpu);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let work = move || {
            let pinned = pin(self.cpu);
            let runs = pinned.is_ok();
            // The starter waits for this answer.
            let _ = ready.send(pinned.map(|()| gettid()));
            if runs {
                Worker::new(forwarder, self.inbox, self.cells, self.start, self.spin).run();
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(work)
            .map_err(|source| StartError::Resources { worker, source })?;
        match is_ready.recv() {
            Ok(Ok(tid)) => Ok((tid, thread)),
            Ok(Err(source)) => Err(StartError::Cpu { worker, cpu, allowed: allowed_cpus(), source }),
            Err(_) => {
                Err(StartError::Resources { worker, source: io::Error::other("its thread ended at once") })
            }
        }
    }
}

/// Pins the calling thread to `cpu`.
fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// The CPUs that this process may use, in order.
pub fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// CPU time of a thread of this process, 0 if it has ended. By /proc: a worker is not woken to be asked.
pub(crate) fn cpu_time_ns(tid: Pid) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0)
}
