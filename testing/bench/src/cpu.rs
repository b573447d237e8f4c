//! How much CPU time was used? By a program, by some of its threads, by the whole machine; in nanoseconds.

use std::fs;

/// What all threads of process `process` have used so far.
pub(crate) fn process_ns(process: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let ids: Vec<u32> =
        threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok()).collect();
    threads_ns(&ids)
}

/// What `threads` have used so far: scheduler statistics, first field.
pub(crate) fn threads_ns(threads: &[u32]) -> u64 {
    let used = |thread: &u32| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{thread}/schedstat")).ok()?;
        stat.split_whitespace().next()?.parse().ok()
    };
    threads.iter().filter_map(used).sum()
}

/// What everything on all CPUs has used so far, interrupts included: the only measure that sees work which the kernel
/// does in nobody's name.
pub(crate) fn machine_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    busy_ticks(&stat).unwrap_or(0) * (1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// The first line, proc(5): user, nice, system, idle, iowait, irq, softirq.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else { return None };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_ticks_when_read_leave_out_idleness() {
        let stat = "cpu  1 20 300 4000 50000 600000 7000000 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_ticks(stat), Some(7_600_321));
        assert_eq!(busy_ticks("intr 1"), None);
        assert_eq!(busy_ticks("cpu  1 2"), None);
    }
}
