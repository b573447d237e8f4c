//! Does anything of a frontend stay behind, wherever it is killed? Alone in its process, because it counts descriptors
//! and mappings, which are the process's.
#![allow(missing_docs, reason = "tests")]

#[path = "vhost_user/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of vhost-user ports")]
mod support;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use frame::Burst;
use ports::Device;
use ports::vhost_user::{Role, VhostUserControl, VhostUserSpec};
use support::*;

/// Frontends killed when they connect: many times through all steps.
const CONNECTING: u32 = 300;
/// Frontends killed when they wait to be connected to, which the switch does after a pause each time.
const WAITING: u32 = 100;
const PAIRS: u32 = 2;
/// Descriptors that threads keep to ring eventfds with, one each.
const BELLS: usize = 2;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("vhost-user-test")).count()
}

/// One frontend's life and sudden end.
fn live_and_die(mut frontend: Frontend, cycle: u32) {
    let steps = Frontend::steps(PAIRS);
    let last = cycle % (steps + 4);
    for step in 0..last.min(steps) {
        frontend.step(step);
    }
    match last.checked_sub(steps) {
        // In the middle of bursts.
        Some(0) => {
            frontend.ask(GET_STATUS);
            for frame in 0..200u8 {
                frontend.transmit(u32::from(frame) % PAIRS, &[frame; 300]);
                frontend.post(u32::from(frame) % PAIRS);
            }
        }
        // With a descriptor on its way, and half of its message.
        Some(1) => {
            let bytes = message(SET_VRING_KICK, 0, &0u64.to_ne_bytes());
            frontend.raw(&bytes[..16], &[event().as_fd()]).unwrap();
        }
        // With descriptors that nobody asked for.
        Some(2) => frontend.request(GET_FEATURES, &[], &[event().as_fd(), event().as_fd()]),
        // With a table of memory that is refused when half of it is mapped.
        Some(_) => {
            let mut table = [2u32, 0].map(u32::to_ne_bytes).concat();
            table.extend(region());
            table.extend([u64::MAX; 4].map(u64::to_ne_bytes).concat());
            let fds = [frontend.memory.as_fd(), frontend.memory.as_fd()];
            frontend.request(SET_MEM_TABLE, &table, &fds);
        }
        None => {}
    }
}

/// Kills `cycles` frontends that come by `meet`, while a worker polls; what is left must never grow.
fn kill_frontends(device: Device, cycles: u32, mut meet: impl FnMut() -> Frontend) {
    let Device { mut rx, tx, handle } = device;
    let stop = AtomicBool::new(false);
    let before = descriptors();
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            let mut burst = Burst::new();
            while !stop.load(Ordering::Relaxed) {
                for (rx, tx) in rx.iter_mut().zip(&tx) {
                    forward(&mut **rx, &**tx, &mut burst);
                }
                std::thread::yield_now();
            }
        });
        for cycle in 0..cycles {
            live_and_die(meet(), cycle);
            // One more is the next connection, which the port may have made already; the others are of the bells that
            // worker and control have rung once.
            wait_for("all that the frontend gave to be released", || {
                mappings() == 0 && descriptors() <= before + 1 + BELLS
            });
        }
    });
    assert!(!handle.link().up);
}

/// Ends the worker also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn frontends_when_killed_at_any_step_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let before = descriptors();
    {
        let control = VhostUserControl::start().unwrap();
        let created = create_spec(&directory.path().join("created.sock"));
        let device = control.open(created.clone()).unwrap();
        kill_frontends(device, CONNECTING, || Frontend::connect(&created.socket_path));

        let path = directory.path().join("remote.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let spec = VhostUserSpec { role: Role::Connect, ..create_spec(&path) };
        let device = control.open(spec).unwrap();
        kill_frontends(device, WAITING, || Frontend::on(listener.accept().unwrap().0));
    }
    // A scoped thread lets its bell go only after its scope's end.
    wait_for("the ports and their threads to be gone without a trace", || descriptors() == before);
}
