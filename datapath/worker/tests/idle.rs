//! Does a worker rest when there is nothing to do, and is everything served all the same?

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ports::mem::MemSpec;
use worker::{Config, Datapath, Mode, WorkerView, allowed_cpus};

mod support;
use support::{PATIENCE, add, datapath, frame, mac, program, roomy, settled, wait_until};

fn only(datapath: &Datapath) -> WorkerView {
    datapath.workers().remove(0)
}

fn wait_for_sleep(datapath: &Datapath) {
    wait_until("the worker sleeps", || only(datapath).activity.mode == Mode::Sleeping);
}

#[test]
fn a_worker_with_nothing_to_do_uses_no_cpu_and_says_that_it_sleeps() {
    let datapath = datapath(1);
    datapath.set_program(program(1, &[1, 2], true));
    let peers = [1, 2].map(|number| add(&datapath, number, roomy()));
    // Flows that can age are the usual state of a node at rest.
    assert!(peers[0].inject(frame(1, mac(2), 60)));
    settled(&datapath, 1);
    wait_for_sleep(&datapath);
    let before = only(&datapath);
    thread::sleep(Duration::from_secs(1));
    let after = only(&datapath);
    let cpu_time = Duration::from_nanos(after.cpu_time_ns - before.cpu_time_ns);
    assert!(cpu_time < Duration::from_millis(5), "{cpu_time:?} of a second");
    let idle = after.activity.idle_cycles - before.activity.idle_cycles;
    let asleep = after.activity.sleep_cycles - before.activity.sleep_cycles;
    assert!(asleep > idle / 100 * 99, "asleep for {asleep} of {idle} cycles");
}

#[test]
fn requests_at_a_low_rate_burn_no_core() {
    let datapath = datapath(1);
    datapath.set_program(program(1, &[1, 2], true));
    let [client, server] = [1, 2].map(|number| add(&datapath, number, roomy()));
    wait_for_sleep(&datapath);
    let before = only(&datapath);
    for _ in 0..200 {
        assert!(client.inject(frame(1, mac(2), 60)));
        assert!(server.recv(PATIENCE).is_some());
        assert!(server.inject(frame(2, mac(1), 60)));
        assert!(client.recv(PATIENCE).is_some());
        thread::sleep(Duration::from_millis(2));
    }
    let after = only(&datapath);
    let cpu_time = Duration::from_nanos(after.cpu_time_ns - before.cpu_time_ns);
    assert!(after.activity.sleeps - before.activity.sleeps >= 200, "{after:?}");
    assert!(cpu_time < Duration::from_millis(100), "{cpu_time:?} of 400 ms and more");
}

#[test]
fn a_worker_without_patience_ends_when_it_is_asked_to() {
    let config = Config { spin: Duration::ZERO, ..Config::on([allowed_cpus()[0]]) };
    let (ended, has_ended) = mpsc::channel();
    for _ in 0..20 {
        let (datapath, ended) = (Datapath::start(&config).unwrap(), ended.clone());
        wait_for_sleep(&datapath);
        thread::spawn(move || {
            datapath.shutdown();
            ended.send(()).unwrap();
        });
        assert_eq!(has_ended.recv_timeout(PATIENCE), Ok(()));
    }
}

#[test]
fn every_queue_beside_a_busy_one_is_served() {
    let datapath = datapath(1);
    let numbers: Vec<u16> = (1..=40).collect();
    datapath.set_program(program(1, &numbers, true));
    let peers: Vec<_> = numbers.iter().map(|&number| add(&datapath, number, roomy())).collect();
    let mut injected = 0;
    for round in 0..3 {
        // A long queue of work for the worker, behind which the others were quiet, and each has one frame.
        for _ in 0..20_000 {
            injected += u64::from(peers[0].inject(frame(1, mac(2), 60)));
        }
        for number in 3..=40 {
            injected += u64::from(peers[usize::from(number) - 1].inject(frame(number, mac(2), 60)));
        }
        let served = |number: u16| peers[usize::from(number) - 1].waiting() == 0;
        wait_until("each quiet queue is served", || (3..=40).all(served));
        settled(&datapath, injected);
        assert_eq!(peers[1].collect().len(), 20_038, "round {round}");
    }
}

#[test]
fn a_port_without_frames_is_no_load_and_a_port_with_frames_is() {
    let datapath = datapath(1);
    datapath.set_program(program(1, &[1, 2], true));
    let source = add(&datapath, 1, MemSpec { queues: 2, ..roomy() });
    add(&datapath, 2, roomy());
    for _ in 0..1000 {
        assert!(source.inject_by(1, frame(1, mac(2), 60)));
    }
    settled(&datapath, 1000);
    wait_for_sleep(&datapath);
    let costs: Vec<u64> = datapath.queues().iter().map(|queue| queue.busy_cycles).collect();
    assert_eq!((costs[0], costs[2]), (0, 0));
    assert_eq!(costs[1], only(&datapath).activity.busy_cycles, "every busy cycle is some queue's");
}
