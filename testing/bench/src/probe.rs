//! How far apart are two cores right now? A hypervisor moves virtual cores about; the time a cache line takes from one to
//! the other and back changes several-fold with it, and with it the cost of every switch.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Context;
use guest::cycles;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// Round trips that are timed together: too many for the counter's own cost to matter, few enough to fit between two
/// interruptions.
const TRIPS_PER_GROUP: u64 = 64;
/// Groups whose median is the answer.
const GROUPS: usize = 151;
/// Looks at the ball before the CPU is offered to others: ten times the way between the farthest CPUs.
const SPINS_BEFORE_YIELD: u32 = 1000;
/// Cycles of a round trip below which two cores are near each other.
pub const NEAR_CYCLES: u64 = 400;
/// Cycles of a round trip above which two cores are far from each other.
pub const FAR_CYCLES: u64 = 600;

/// Where the two cores were during a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// Near each other, before and after.
    Near,
    /// Neither, or it changed.
    Mix,
    /// Far from each other, before and after.
    Far,
}

impl Label {
    /// What the probes before and after a sample say of it.
    pub fn of(before_cycles: u64, after_cycles: u64) -> Self {
        let (low, high) = (before_cycles.min(after_cycles), before_cycles.max(after_cycles));
        if high < NEAR_CYCLES {
            Self::Near
        } else if low > FAR_CYCLES {
            Self::Far
        } else {
            Self::Mix
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Near => "near",
            Self::Mix => "mix",
            Self::Far => "far",
        })
    }
}

/// Runs this thread on `cpu` only.
///
/// # Errors
/// The CPU is not there, or not allowed.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    anyhow::ensure!(cpu < CpuSet::MAX_CPU, "there is no CPU {cpu}");
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// The median time of a cache line from CPU `here` to CPU `there` and back, in cycles of the time stamp counter.
///
/// # Errors
/// As [`pin`].
pub fn round_trip_cycles(here: usize, there: usize) -> anyhow::Result<u64> {
    let before = sched_getaffinity(None).context("cannot ask for this thread's CPUs")?;
    let ball = AtomicU64::new(0);
    let trips = TRIPS_PER_GROUP * GROUPS as u64;
    let median = thread::scope(|scope| {
        let partner = scope.spawn(|| -> anyhow::Result<()> {
            let pinned = pin(there);
            // The ball is returned even from the wrong place: the other side waits for it.
            for trip in 0..trips {
                await_ball(&ball, 2 * trip + 1);
                ball.store(2 * trip + 2, Ordering::Release);
            }
            pinned
        });
        let pinned = pin(here);
        let groups = play(&ball);
        partner.join().map_err(|_| anyhow::anyhow!("the probe's thread panicked"))??;
        pinned.map(|()| groups)
    })
    .map(|mut groups| {
        groups.sort_unstable();
        groups[GROUPS / 2]
    });
    sched_setaffinity(None, &before).context("cannot move this thread back")?;
    median
}

fn play(ball: &AtomicU64) -> Vec<u64> {
    let mut trip = 0;
    (0..GROUPS)
        .map(|_| {
            let start = cycles::now();
            for _ in 0..TRIPS_PER_GROUP {
                ball.store(2 * trip + 1, Ordering::Release);
                await_ball(ball, 2 * trip + 2);
                trip += 1;
            }
            (cycles::now() - start) / TRIPS_PER_GROUP
        })
        .collect()
}

/// Spins; where the partner needs this very CPU, or another program has its, lets it run.
fn await_ball(ball: &AtomicU64, value: u64) {
    let mut looks = 0u32;
    while ball.load(Ordering::Acquire) != value {
        looks += 1;
        if looks.is_multiple_of(SPINS_BEFORE_YIELD) {
            thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_when_the_distance_changed_is_mix() {
        assert_eq!(Label::of(200, 250), Label::Near);
        assert_eq!(Label::of(200, 850), Label::Mix);
        assert_eq!(Label::of(900, 850), Label::Far);
        assert_eq!(Label::of(500, 500), Label::Mix);
    }

    #[test]
    fn round_trip_when_one_cpu_is_both_still_ends() {
        assert!(round_trip_cycles(0, 0).is_ok_and(|cycles| cycles > 0));
        assert!(round_trip_cycles(0, 1_000_000).is_err());
    }
}
