//! What is measured: a switch between two vhost-user ports, whose sockets the guests create. Perhaps there is a third
//! port, for somebody who attacks.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::case::Case;
use crate::traffic::Moved;

/// The MAC addresses of the two guests, and of who attacks.
pub(crate) const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];

/// Which switch, forwarding by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Subject {
    /// Millrace with its whole pipeline on: learning L2, port security, flow cache.
    #[serde(rename = "millrace")]
    Millrace,
    /// OVS-DPDK as a learning switch (`actions=NORMAL`): the like of Millrace's pipeline.
    #[serde(rename = "ovs-dpdk")]
    OvsNormal,
    /// OVS-DPDK as a cross-connect (`in_port=1,actions=output:2`): its fastest path, which looks at no address.
    #[serde(rename = "ovs-dpdk-in-port")]
    OvsInPort,
    /// OVS-DPDK with one rule for each connection.
    #[serde(rename = "ovs-dpdk-rules")]
    OvsRules,
    /// OVS-DPDK with its connection tracker, translation included.
    #[serde(rename = "ovs-dpdk-ct")]
    OvsConntrack,
    /// Millrace's rings without its switch: whatever comes in by one port leaves by the other.
    #[serde(rename = "limit")]
    Limit,
    /// The same bytes copied from one place to another, and nothing else.
    #[serde(rename = "memcpy")]
    Copy,
}

impl Subject {
    /// True for each way in which OVS forwards.
    pub(crate) fn is_ovs(self) -> bool {
        matches!(self, Self::OvsNormal | Self::OvsInPort | Self::OvsRules | Self::OvsConntrack)
    }

    /// As people say it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Millrace => "Millrace",
            Self::OvsNormal => "OVS-DPDK",
            Self::OvsInPort => "OVS-DPDK in_port",
            Self::OvsRules => "OVS-DPDK rules",
            Self::OvsConntrack => "OVS-DPDK ct",
            Self::Limit => "no switch",
            Self::Copy => "memcpy",
        }
    }
}

/// What a worker thread has counted so far, in its own words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WorkerCounters {
    /// Frames received.
    pub(crate) frames: u64,
    /// Cycles of turns that moved something.
    pub(crate) busy_cycles: u64,
    /// All other cycles.
    pub(crate) idle_cycles: u64,
    /// Time that the thread was ready but not let run, nanoseconds.
    pub(crate) waited_ns: u64,
}

impl WorkerCounters {
    /// What was counted since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(earlier.frames),
            busy_cycles: self.busy_cycles.saturating_sub(earlier.busy_cycles),
            idle_cycles: self.idle_cycles.saturating_sub(earlier.idle_cycles),
            waited_ns: self.waited_ns.saturating_sub(earlier.waited_ns),
        }
    }
}

/// What a switch is started for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scene {
    /// There is a third port.
    pub(crate) attacked: bool,
    /// Stations behind each of the two ports. With more than one, ports are not bound to addresses.
    pub(crate) stations: u32,
    /// The two ports are a client's and a server's (see [`crate::services`]).
    pub(crate) has_services: bool,
}

/// A running switch.
pub(crate) trait Switch {
    /// Where the guests listen: two, and who attacks, if there is somebody.
    fn sockets(&self) -> [PathBuf; 3];
    /// Its version.
    fn version(&self) -> String;
    /// Makes it forward by what `subject` says, so many connections.
    fn forward(&mut self, subject: Subject, flows: u32) -> anyhow::Result<()>;
    /// Runs `case` without a load, for what has no ports.
    fn run_alone(&mut self, _case: Case, _time: Duration) -> Option<(Moved, WorkerCounters)> {
        None
    }
    /// Its worker's counters.
    fn counters(&mut self) -> anyhow::Result<WorkerCounters>;
    /// Its workers' thread ids.
    fn workers(&self) -> Vec<u32>;
    /// Takes the CPU away from it.
    fn pause(&self);
    /// Gives the CPU back.
    fn resume(&self);
    /// An error if it has died.
    fn check(&mut self) -> anyhow::Result<()>;
}

/// The threads of `process` whose names start with `name`.
pub(crate) fn threads(process: u32, name: &str) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let named = |thread: &u32| {
        let comm = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"));
        comm.is_ok_and(|comm| comm.starts_with(name))
    };
    threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok()).filter(named).collect()
}

/// Time that `threads` were ready but not let run: scheduler statistics, second field. Zero if the kernel keeps none.
pub(crate) fn waited_ns(threads: &[u32]) -> u64 {
    let waited = |thread: &u32| -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).ok()?;
        stat.split_whitespace().nth(1)?.parse().ok()
    };
    threads.iter().filter_map(waited).sum()
}
