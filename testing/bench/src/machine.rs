//! On what machine was this measured?

use std::fs;
use std::time::{Duration, Instant};

use guest::cycles;
use serde::Serialize;

/// The machine, as the report names it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// Rate of the time stamp counter, in which all cycles here are counted.
    pub(crate) tsc_mhz: u64,
    pub(crate) kernel: String,
    pub(crate) worker_cpu: usize,
    pub(crate) load_cpu: usize,
}

impl Machine {
    /// Some machine, for tests of what is said of one.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            cpu: "a CPU".into(),
            cores: 2,
            tsc_mhz: 2000,
            kernel: "Linux".into(),
            worker_cpu: 0,
            load_cpu: 1,
        }
    }

    /// Looks at this machine.
    pub(crate) fn here(worker_cpu: usize, load_cpu: usize) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim());
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // Without what the distribution adds.
        let release = release.trim().split('-').next().unwrap_or_default();
        Self {
            cpu: cpu.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            tsc_mhz: tsc_mhz(),
            kernel: format!("Linux {release}"),
            worker_cpu,
            load_cpu,
        }
    }
}

fn tsc_mhz() -> u64 {
    let (clock, counter) = (Instant::now(), cycles::now());
    std::thread::sleep(Duration::from_millis(50));
    let cycles = cycles::now() - counter;
    (cycles as f64 / clock.elapsed().as_secs_f64() / 1e6).round() as u64
}
