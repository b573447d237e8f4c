//! Two devices connected with each other by a loop that sleeps when nothing moves.
#![allow(dead_code, unreachable_pub, reason = "shared by several tests")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use frame::Burst;
use ports::{Device, WaitSet};

/// What a cross-connect has seen.
#[derive(Default)]
pub struct Seen {
    pub frames: AtomicU64,
    pub drops: AtomicU64,
    pub longest: AtomicU64,
    pub copied: AtomicU64,
}

/// Runs `work` while everything that comes in by one device goes out by the other.
pub fn connected(pair: [Device; 2], work: impl FnOnce()) -> Seen {
    let seen = Seen::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| cross(pair, &seen, &stop));
        let _stop = StopOnDrop(&stop);
        work();
    });
    seen
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn cross(pair: [Device; 2], seen: &Seen, stop: &AtomicBool) {
    let [mut a, mut b] = pair;
    let mut burst = Burst::new();
    let mut waits = WaitSet::default();
    let mut pass = |from: &mut Device, to: &Device| {
        let mut moved = 0;
        for rx in &mut from.rx {
            let report = rx.poll(&mut burst, &mut |burst| {
                let frames: Vec<u8> = (0..burst.len() as u8).collect();
                let longest = frames.iter().map(|&f| burst.frame_len(f.into())).max().unwrap_or(0);
                seen.longest.fetch_max(longest as u64, Relaxed);
                let sent = to.tx[0].send(burst, &frames);
                seen.drops.fetch_add(sent.drops.total(), Relaxed);
                seen.copied.fetch_add(sent.copied_bytes, Relaxed);
            });
            seen.drops.fetch_add(report.drops.total(), Relaxed);
            seen.frames.fetch_add(report.frames, Relaxed);
            moved += report.frames;
        }
        moved
    };
    while !stop.load(Relaxed) {
        if pass(&mut a, &b) + pass(&mut b, &a) > 0 {
            continue;
        }
        waits.clear();
        let mut ready = false;
        for rx in a.rx.iter_mut().chain(&mut b.rx) {
            ready |= rx.arm();
            rx.fd().into_iter().for_each(|fd| waits.add(fd));
        }
        if !ready {
            waits.wait(Some(Duration::from_millis(20))).unwrap();
        }
    }
}
