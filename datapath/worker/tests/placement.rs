//! Do receive queues move between workers, under traffic, without a frame lost, doubled or overtaken?

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use frame::{Burst, Offload};
use ports::mem::{MemPeer, MemSpec};
use ports::{Device, DeviceHandle, Link, PollReport, RxQueue, SendReport, TxQueue, Waker};
use vswitch::program::PortNo;
use worker::placement::Balancer;
use worker::{Datapath, Mode, MoveError, QueueId, Removal};

mod support;
use support::{PATIENCE, add, datapath, frame, mac, program, roomy, settled, wait_until};

fn queue(port: u16, queue: usize) -> QueueId {
    QueueId { port: PortNo(port), queue }
}

fn worker_of(datapath: &Datapath, id: QueueId) -> Option<usize> {
    datapath.queues().into_iter().find(|queue| queue.id == id).map(|queue| queue.worker)
}

/// A frame for the station of port `to`, with its number in it.
fn numbered(from: u16, to: u16, number: u32) -> Vec<u8> {
    let mut bytes = frame(from, mac(to), 60);
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[14..18].try_into().unwrap())
}

/// Injects `frames` numbered frames of port 1's station by receive queue `by`, never far ahead of the switch.
fn send_stream(peer: &MemPeer, by: usize, frames: u32) {
    for sent in 0..frames {
        assert!(peer.inject_by(by, numbered(1, 2, sent)));
        while peer.waiting() > 200 {
            thread::yield_now();
        }
    }
}

#[test]
fn a_queue_that_moves_to_and_fro_under_traffic_loses_doubles_and_reorders_nothing() {
    const FRAMES: u32 = 100_000;
    const MOVES: usize = 3000;
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    let [source, sink] = [1, 2].map(|number| add(&datapath, number, roomy()));
    let mut moves = 0;
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_stream(&source, 0, FRAMES));
        while moves < MOVES || !sender.is_finished() {
            moves += 1;
            datapath.move_queue(queue(1, 0), moves % 2).unwrap();
            assert_eq!(worker_of(&datapath, queue(1, 0)), Some(moves % 2));
        }
    });
    let total = settled(&datapath, FRAMES.into());
    assert_eq!((total.tx_frames, total.drops.total()), (FRAMES.into(), 0));
    let numbers: Vec<u32> = sink.collect().iter().map(|frame| number(&frame.bytes)).collect();
    assert_eq!(numbers, Vec::from_iter(0..FRAMES));
    let served: Vec<u64> = datapath.workers().iter().map(|worker| worker.activity.frames).collect();
    assert_eq!(served.iter().sum::<u64>(), u64::from(FRAMES));
    assert!(served.iter().all(|&frames| frames > 0), "both workers took part: {served:?}");
}

#[test]
fn a_queue_moves_between_workers_that_sleep_and_is_served_where_it_went() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    let [source, sink] = [1, 2].map(|number| add(&datapath, number, roomy()));
    for round in 0..200 {
        wait_until("both workers sleep", || {
            datapath.workers().iter().all(|worker| worker.activity.mode == Mode::Sleeping)
        });
        let to = (round as usize + 1) % 2;
        let before = datapath.workers()[to].activity.frames;
        // A frame that comes before, during or after the move.
        if round % 3 == 0 {
            assert!(source.inject(numbered(1, 2, round)));
            datapath.move_queue(queue(1, 0), to).unwrap();
        } else {
            datapath.move_queue(queue(1, 0), to).unwrap();
            assert!(source.inject(numbered(1, 2, round)));
        }
        assert_eq!(number(&sink.recv(PATIENCE).expect("the frame").bytes), round);
        if round % 3 != 0 {
            wait_until("it is counted", || datapath.workers()[to].activity.frames == before + 1);
        }
    }
    settled(&datapath, 200);
}

#[test]
fn a_port_that_is_removed_while_its_queues_move_leaves_nothing_behind() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    let sink = add(&datapath, 2, roomy());
    let (done, moves) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut injected = 0;
    thread::scope(|scope| {
        for id in [queue(1, 0), queue(1, 1)] {
            let (datapath, done, moves) = (&datapath, &done, &moves);
            scope.spawn(move || {
                for to in [0, 1].into_iter().cycle().take_while(|_| !done.load(SeqCst)) {
                    match datapath.move_queue(id, to) {
                        Ok(()) => moves.fetch_add(1, SeqCst),
                        Err(error) => {
                            assert_eq!(error, MoveError::NoQueue(id));
                            thread::yield_now();
                            0
                        }
                    };
                }
            });
        }
        for _ in 0..200 {
            let peer = add(&datapath, 1, MemSpec { queues: 2, ..roomy() });
            for number in 0..50 {
                injected += u64::from(peer.inject_by(number as usize % 2, numbered(1, 2, number)));
            }
            thread::yield_now();
            assert!(datapath.remove_port(PortNo(1), Removal::Keep));
            // What the port had not handed out when it was removed never came in.
            injected -= peer.waiting() as u64;
        }
        done.store(true, SeqCst);
    });
    assert!(moves.load(SeqCst) > 0);
    let total = settled(&datapath, injected);
    assert_eq!(sink.collect().len() as u64, total.tx_frames);
    assert_eq!(datapath.queues().len(), 1);
}

#[test]
fn a_datapath_that_is_shut_down_during_moves_ends_them() {
    for _ in 0..50 {
        let datapath = datapath(2);
        let _peer = add(&datapath, 1, roomy());
        thread::scope(|scope| {
            let mover = scope.spawn(|| {
                (0..).map(|to: usize| datapath.move_queue(queue(1, 0), to % 2)).find_map(Result::err).unwrap()
            });
            datapath.shutdown();
            let error = mover.join().unwrap();
            assert!(matches!(error, MoveError::Ended | MoveError::NoQueue(_)), "{error}");
        });
    }
}

#[test]
fn a_move_of_what_is_not_there_says_so() {
    let datapath = datapath(2);
    let _peer = add(&datapath, 1, roomy());
    assert_eq!(datapath.move_queue(queue(9, 0), 0), Err(MoveError::NoQueue(queue(9, 0))));
    assert_eq!(datapath.move_queue(queue(1, 1), 0), Err(MoveError::NoQueue(queue(1, 1))));
    assert_eq!(datapath.move_queue(queue(1, 0), 2), Err(MoveError::NoWorker(2)));
    datapath.move_queue(queue(1, 0), 0).unwrap();
    assert_eq!(datapath.queues()[0].moves, 0, "it was there already");
}

/// A device whose receive queues always have a frame for port 2's station, and that notes by which of its two transmit
/// queues each sender's frames left. Its descriptor changes; it says so by its waker.
#[derive(Default)]
struct Spring {
    sent: AtomicUsize,
    /// Frames that wait while it does not flow; endless while it does.
    waiting: AtomicUsize,
    flows: AtomicBool,
    left_by: Mutex<Vec<usize>>,
    waker: Mutex<Option<Waker>>,
}

struct SpringQueue(Arc<Spring>, usize);

impl Spring {
    fn device(self: &Arc<Self>, queues: usize) -> Device {
        Device {
            rx: (0..queues).map(|number| Box::new(SpringQueue(self.clone(), number)) as _).collect(),
            tx: (0..2).map(|number| Arc::new(SpringQueue(self.clone(), number)) as _).collect(),
            handle: Box::new(SpringQueue(self.clone(), 0)),
        }
    }

    fn take(&self) -> bool {
        let less = |waiting: usize| waiting.checked_sub(1);
        self.flows.load(SeqCst) || self.waiting.fetch_update(SeqCst, SeqCst, less).is_ok()
    }

    fn wake(&self) {
        self.waker.lock().unwrap().as_ref().unwrap()();
    }
}

impl RxQueue for SpringQueue {
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        let mut report = PollReport::default();
        while !burst.is_full() && self.0.take() {
            self.0.sent.fetch_add(1, SeqCst);
            burst.push_owned(frame(1, mac(2), 60), Offload::NONE).unwrap();
            report.frames += 1;
            report.bytes += 60;
        }
        if report.frames > 0 {
            turn(burst);
            burst.clear();
        }
        report
    }

    fn arm(&mut self) -> bool {
        self.0.flows.load(SeqCst)
    }

    fn disarm(&mut self) {}

    fn fd(&self) -> Option<RawFd> {
        None
    }
}

impl TxQueue for SpringQueue {
    fn send(&self, _: &Burst, frames: &[u8]) -> SendReport {
        self.0.left_by.lock().unwrap().push(self.1);
        SendReport { frames: frames.len() as u64, ..SendReport::default() }
    }
}

impl DeviceHandle for SpringQueue {
    fn set_waker(&self, wake: Waker) {
        *self.0.waker.lock().unwrap() = Some(wake);
    }

    fn link(&self) -> Link {
        Link::default()
    }

    fn retire(&self) {}
}

#[test]
fn frames_of_a_moved_queue_leave_by_the_same_transmit_queue() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    let [first, second] = [1, 2].map(|number| add(&datapath, number, roomy()));
    assert!(datapath.remove_port(PortNo(2), Removal::Keep));
    drop(second);
    let drain = Arc::new(Spring::default());
    datapath.add_port(PortNo(2), drain.device(0)).unwrap();
    for to in [0, 1, 0, 1, 1] {
        datapath.move_queue(queue(1, 0), to).unwrap();
        let injected = datapath.counters().total.rx_frames + 1;
        assert!(first.inject(numbered(1, 2, 0)));
        settled(&datapath, injected);
    }
    assert_eq!(*drain.left_by.lock().unwrap(), [0; 5]);
}

#[test]
fn a_device_wakes_the_worker_that_its_queue_moved_to() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    let spring = Arc::new(Spring::default());
    datapath.add_port(PortNo(1), spring.device(1)).unwrap();
    let sink = add(&datapath, 2, roomy());
    for to in [1, 0, 1, 0] {
        datapath.move_queue(queue(1, 0), to).unwrap();
        wait_until("both workers sleep", || {
            datapath.workers().iter().all(|worker| worker.activity.mode == Mode::Sleeping)
        });
        spring.waiting.store(1, SeqCst);
        spring.wake();
        assert!(sink.recv(PATIENCE).is_some());
    }
    settled(&datapath, 4);
}

#[test]
fn two_busy_queues_that_begin_on_one_worker_end_on_two() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    let spring = Arc::new(Spring::default());
    datapath.add_port(PortNo(1), spring.device(2)).unwrap();
    let drain = Arc::new(Spring::default());
    datapath.add_port(PortNo(2), drain.device(1)).unwrap();
    for id in [queue(1, 0), queue(1, 1), queue(2, 0)] {
        datapath.move_queue(id, 0).unwrap();
    }
    spring.flows.store(true, SeqCst);
    spring.wake();
    let mut balancer = Balancer::default();
    let mut made = Vec::new();
    wait_until("the queues are apart", || {
        thread::sleep(Duration::from_millis(20));
        made.extend(balancer.step(&datapath));
        worker_of(&datapath, queue(1, 0)) != worker_of(&datapath, queue(1, 1))
    });
    assert_eq!(made.len(), 1, "{made:?}");
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(20));
        assert_eq!(balancer.step(&datapath), [], "both workers are full, and stay so");
    }
    spring.flows.store(false, SeqCst);
    wait_until("the books close", || datapath.counters().total.rx_frames == spring.sent.load(SeqCst) as u64);
    settled(&datapath, spring.sent.load(SeqCst) as u64);
}
