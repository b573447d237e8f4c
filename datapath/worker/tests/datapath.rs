//! Does the datapath keep its promises while everything changes under traffic?

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use frame::{Burst, DropReason, Offload};
use ports::fault::{self, Faults};
use ports::mem::{self, MemSpec};
use ports::{Device, DeviceHandle, Link, PollReport, RxQueue, SendReport, TxQueue, Waker};
use vswitch::Entrance;
use vswitch::program::PortNo;
use wire::MacAddr;
use worker::{AddPortError, Config, Datapath, Mode, QueueId, Removal, StartError, allowed_cpus};

mod support;
use support::{PATIENCE, add, datapath, frame, mac, program, roomy, settled, wait_until};

#[test]
fn every_frame_of_a_mixed_traffic_has_its_end() {
    let datapath = datapath(1);
    datapath.set_program(program(1, &[1, 2, 3, 9], true));
    let peers = [1, 2, 3].map(|number| add(&datapath, number, roomy()));
    let strange = MacAddr([2, 9, 9, 9, 9, 9]);
    let mut injected = 0;
    for round in 0..50 {
        for to in [mac(2), mac(3), MacAddr::BROADCAST, strange, mac(1), mac(9)] {
            injected += u64::from(peers[0].inject(frame(1, to, 60 + round)));
        }
        injected += u64::from(peers[1].inject(frame(1, mac(3), 60)));
        injected += u64::from(peers[1].inject(vec![0xff; 9]));
        injected += u64::from(peers[2].inject(frame(3, mac(2), 9000)));
    }
    let total = settled(&datapath, injected);
    let drops = |reason| total.drops.get(reason);
    assert_eq!(drops(DropReason::SpoofedMac), 50);
    assert_eq!(drops(DropReason::SamePort), 50);
    // Port 9 is in the program and nowhere else: its own station's frames, and a copy of both kinds of flood.
    assert_eq!(drops(DropReason::PortGone), 150);
    assert_eq!(total.copies, 50 * 2 * 2);
    assert_eq!(total.copied_bytes, 50 * (9000 - 128), "one copy of the one long frame");
    assert_eq!(peers[1].collect().len(), 50 * 4);
}

#[test]
fn frames_that_wait_while_the_switch_starts_are_forwarded_and_not_dropped() {
    let datapath = datapath(2);
    let opened = [1, 2].map(|number| (number, mem::open(roomy()).unwrap()));
    for (_, (_, peer)) in &opened {
        (0..100).for_each(|_| assert!(peer.inject(frame(1, mac(2), 60))));
    }
    let peers = opened.map(|(number, (device, peer))| {
        datapath.add_port(PortNo(number), device).unwrap();
        // Time enough for a worker that would poll it already.
        thread::sleep(Duration::from_millis(20));
        peer
    });
    assert_eq!(datapath.counters().total.rx_frames, 0);
    datapath.move_queue(QueueId { port: PortNo(1), queue: 0 }, 1).unwrap();
    datapath.set_program(program(1, &[1, 2], false));
    settled(&datapath, 200);
    assert_eq!(peers[1].collect().len(), 100);
    assert_eq!(datapath.counters().total.drops.get(DropReason::SamePort), 100);
}

#[test]
fn faults_of_a_port_have_their_place_in_the_ledger() {
    let datapath = datapath(1);
    datapath.set_program(program(1, &[1, 2], true));
    let sender = add(&datapath, 1, roomy());
    let (device, receiver) = mem::open(roomy()).unwrap();
    let faults = Faults { drop_per_mille: 200, corrupt_per_mille: 100, delay_per_mille: 0 };
    datapath.add_port(PortNo(2), fault::wrap(device, faults, 42)).unwrap();
    for _ in 0..1000 {
        assert!(sender.inject(frame(1, mac(2), 200)));
    }
    let total = settled(&datapath, 1000);
    let lost = total.drops.get(DropReason::Fault);
    assert!((100..300).contains(&lost), "{lost}");
    let received = receiver.collect();
    assert_eq!(received.len() as u64, 1000 - lost);
    assert!(received.iter().any(|got| got.bytes != frame(1, mac(2), 200)));
}

#[test]
fn a_program_swapped_under_traffic_leaves_no_frame_without_an_end() {
    let datapath = datapath(2);
    let peers = [1, 2].map(|number| add(&datapath, number, roomy()));
    let injected = AtomicU64::new(0);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for number in 0..20_000 {
                let (from, to) = if number % 2 == 0 { (1, 2) } else { (2, 1) };
                let taken = peers[usize::from(from) - 1].inject(frame(from, mac(to), 60));
                injected.fetch_add(u64::from(taken), SeqCst);
            }
        });
        let mut version = 0;
        while !sender.is_finished() {
            version += 1;
            let ports: &[u16] = if version % 3 == 0 { &[1] } else { &[1, 2] };
            datapath.set_program(program(version, ports, true));
            assert_eq!(datapath.program().version(), version);
        }
    });
    datapath.set_program(program(1 << 32, &[1, 2], true));
    settled(&datapath, injected.load(SeqCst));
    peers[0].collect();
    assert!(peers[0].inject(frame(1, mac(2), 60)));
    settled(&datapath, injected.load(SeqCst) + 1);
}

#[test]
fn ports_that_come_and_go_under_traffic_keep_their_place_in_the_ledger() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    let sender = add(&datapath, 1, roomy());
    let mut injected = 0;
    let mut received = 0;
    for round in 0..60 {
        let peer = add(&datapath, 2, roomy());
        for _ in 0..50 {
            injected += u64::from(sender.inject(frame(1, mac(2), 60)));
            injected += u64::from(peer.inject(frame(2, mac(1), 60)));
        }
        let removal = if round % 2 == 0 { Removal::Retire } else { Removal::Keep };
        assert!(datapath.remove_port(PortNo(2), removal));
        assert_eq!(peer.is_retired(), removal == Removal::Retire);
        // What the port had not handed out when it was removed never came in.
        injected -= peer.waiting() as u64;
        received += peer.collect().len() as u64;
    }
    assert!(!datapath.remove_port(PortNo(2), Removal::Keep));
    let total = settled(&datapath, injected);
    let ledger = datapath.counters();
    assert_eq!(ledger.ports.keys().collect::<Vec<_>>(), [&PortNo(1)]);
    let gone = total.drops.get(DropReason::PortGone);
    assert_eq!(received + gone, 60 * 50, "frames for port 2 arrived there or found it gone");
    assert_eq!(sender.collect().len() as u64 + received, total.tx_frames);
}

#[test]
fn two_workers_send_to_one_port_and_keep_the_order_of_each_source() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2, 3], true));
    let peers = [1, 2].map(|number| add(&datapath, number, roomy()));
    let sink = add(&datapath, 3, roomy());
    let workers: Vec<_> = datapath.ports().into_iter().map(|port| port.workers).collect();
    assert_eq!(workers[..2], [vec![0], vec![1]]);
    thread::scope(|scope| {
        for (peer, source) in peers.iter().zip([1, 2]) {
            scope.spawn(move || {
                for number in 0..5000u32 {
                    let mut bytes = frame(source, mac(3), 60);
                    bytes[14..18].copy_from_slice(&number.to_be_bytes());
                    assert!(peer.inject(bytes));
                }
            });
        }
    });
    settled(&datapath, 10_000);
    let mut next = BTreeMap::new();
    for frame in sink.collect() {
        let number = u32::from_be_bytes(frame.bytes[14..18].try_into().unwrap());
        let expected = next.entry(frame.bytes[11]).or_insert(0);
        assert_eq!(number, *expected);
        *expected += 1;
    }
    assert_eq!(next, BTreeMap::from([(1, 5000), (2, 5000)]));
}

#[test]
fn queues_of_one_port_are_spread_over_the_workers() {
    let datapath = datapath(2);
    for number in 1..=3 {
        add(&datapath, number, MemSpec { queues: 3, capacity_frames: 8 });
    }
    assert!(datapath.ports().iter().all(|port| port.workers == [0, 1]));
    for worker in datapath.workers() {
        assert_eq!(worker.ports, [1, 2, 3].map(PortNo));
    }
}

#[test]
fn an_idle_worker_sleeps_and_turns_only_for_what_wakes_it() {
    let config = Config { spin: Duration::ZERO, ..Config::on([allowed_cpus()[0]]) };
    let datapath = Datapath::start(&config).unwrap();
    datapath.set_program(program(1, &[1, 2], true));
    let [sender, receiver] = [1, 2].map(|number| add(&datapath, number, roomy()));
    let view = || datapath.workers().remove(0).activity;
    wait_until("the worker sleeps", || view().mode == Mode::Sleeping);
    let before = view();
    for _ in 0..10 {
        assert!(sender.inject(frame(1, mac(2), 60)));
        assert!(receiver.recv(PATIENCE).is_some());
        wait_until("the worker sleeps again", || view().mode == Mode::Sleeping);
    }
    let after = view();
    assert!(after.sleeps > before.sleeps, "{before:?} {after:?}");
    // Each frame costs a turn that finds it and one that finds nothing; a spinning worker makes thousands. Ageing may
    // wake it once a second on the way.
    assert!(after.turns - before.turns <= 100, "{before:?} {after:?}");
    assert_eq!(after.frames, 10);
    assert!(after.busy_cycles > 0 && datapath.workers()[0].cpu_time_ns > 0);
}

/// A device that has frames without a descriptor to say so, and that notices who touches it when it is closed.
#[derive(Default)]
struct Shy {
    waiting: AtomicU64,
    closed: AtomicBool,
    touched: AtomicU64,
    waker: std::sync::Mutex<Option<Waker>>,
}

impl Shy {
    fn touch(&self) {
        self.touched.fetch_add(u64::from(self.closed.load(SeqCst)), SeqCst);
    }

    fn device(self: &Arc<Self>) -> Device {
        Device {
            rx: vec![Box::new(ShyQueue(self.clone()))],
            tx: vec![Arc::new(ShyQueue(self.clone()))],
            handle: Box::new(ShyQueue(self.clone())),
        }
    }
}

struct ShyQueue(Arc<Shy>);

impl RxQueue for ShyQueue {
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        self.0.touch();
        let waiting = self.0.waiting.swap(0, SeqCst);
        for _ in 0..waiting {
            burst.push_owned(frame(1, mac(2), 60), Offload::NONE).unwrap();
        }
        if waiting > 0 {
            turn(burst);
            burst.clear();
        }
        PollReport { frames: waiting, bytes: 60 * waiting, ..PollReport::default() }
    }

    fn arm(&mut self) -> bool {
        self.0.touch();
        false
    }

    fn disarm(&mut self) {
        self.0.touch();
    }

    fn fd(&self) -> Option<RawFd> {
        self.0.touch();
        None
    }
}

impl TxQueue for ShyQueue {
    fn send(&self, _: &Burst, frames: &[u8]) -> SendReport {
        self.0.touch();
        SendReport { frames: frames.len() as u64, ..SendReport::default() }
    }
}

impl DeviceHandle for ShyQueue {
    fn set_waker(&self, wake: Waker) {
        *self.0.waker.lock().unwrap() = Some(wake);
    }

    fn link(&self) -> Link {
        Link::default()
    }

    fn retire(&self) {}
}

#[test]
fn a_device_wakes_the_worker_that_sleeps_beside_it() {
    let datapath = datapath(1);
    datapath.set_program(program(1, &[1, 2], true));
    let shy = Arc::new(Shy::default());
    datapath.add_port(PortNo(1), shy.device()).unwrap();
    let receiver = add(&datapath, 2, roomy());
    wait_until("the worker sleeps", || datapath.workers()[0].activity.mode == Mode::Sleeping);
    shy.waiting.store(3, SeqCst);
    shy.waker.lock().unwrap().as_ref().unwrap()();
    assert!(receiver.recv(PATIENCE).is_some());
    settled(&datapath, 3);
}

#[test]
fn a_removed_port_is_touched_by_no_worker() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], false));
    let flood = add(&datapath, 2, roomy());
    for _ in 0..50 {
        let shy = Arc::new(Shy::default());
        datapath.add_port(PortNo(1), shy.device()).unwrap();
        for _ in 0..20 {
            assert!(flood.inject(frame(2, MacAddr::BROADCAST, 60)));
        }
        assert!(datapath.remove_port(PortNo(1), Removal::Keep));
        shy.closed.store(true, SeqCst);
        // Two round trips through both workers: whoever still held the port would have used it by now.
        datapath.set_program(program(1, &[1, 2], false));
        datapath.set_program(program(1, &[1, 2], false));
        assert_eq!(shy.touched.load(SeqCst), 0);
        // Only this test and the removed port's waker, which died with its handle, knew the device.
        *shy.waker.lock().unwrap() = None;
        assert_eq!(Arc::strong_count(&shy), 1);
    }
    settled(&datapath, 50 * 20);
}

#[test]
fn a_trace_and_the_dumps_answer_while_workers_sleep() {
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    let [sender, receiver] = [1, 2].map(|number| add(&datapath, number, roomy()));
    assert!(sender.inject(frame(1, mac(2), 60)));
    assert!(receiver.recv(PATIENCE).is_some());
    wait_until("the workers sleep", || datapath.workers().iter().all(|w| w.activity.mode == Mode::Sleeping));
    let explained = datapath.trace(Entrance::Port(PortNo(1)), &frame(1, mac(2), 60)).unwrap();
    assert_eq!(explained.outputs.iter().map(|out| out.port).collect::<Vec<_>>(), [PortNo(2)]);
    let spoofed = datapath.trace(Entrance::Port(PortNo(1)), &frame(2, mac(2), 60)).unwrap();
    assert_eq!(spoofed.drop, Some(DropReason::SpoofedMac));
    assert!(datapath.flows(10).total >= 1);
    assert_eq!(datapath.stations().len(), 2);
    assert!(datapath.link(PortNo(1)).unwrap().up && datapath.link(PortNo(7)).is_none());
    assert_eq!(settled(&datapath, 1).tx_frames, 1, "a trace sends nothing");
}

#[test]
fn what_cannot_be_started_or_added_says_why() {
    assert!(matches!(Datapath::start(&Config::on([])), Err(StartError::NoCpu)));
    for cpu in [1023, usize::MAX] {
        let error = Datapath::start(&Config::on([allowed_cpus()[0], cpu])).unwrap_err();
        assert!(matches!(error, StartError::Cpu { worker: 1, .. }), "{error}");
    }
    let datapath = datapath(1);
    add(&datapath, 1, roomy());
    let open = || mem::open(roomy()).unwrap().0;
    assert_eq!(datapath.add_port(PortNo(1), open()), Err(AddPortError::Exists(PortNo(1))));
    let mute = Device { tx: Vec::new(), ..open() };
    assert_eq!(datapath.add_port(PortNo(2), mute), Err(AddPortError::NoTxQueue(PortNo(2))));
}

#[test]
fn a_datapath_that_was_shut_down_answers_without_hanging() {
    let datapath = datapath(2);
    let peer = add(&datapath, 1, roomy());
    datapath.shutdown();
    datapath.shutdown();
    assert!(!peer.is_retired());
    datapath.set_program(program(1, &[1], true));
    assert!(datapath.trace(Entrance::Port(PortNo(1)), &[0; 60]).is_none());
    assert!(datapath.flows(1).flows.is_empty() && datapath.ports().is_empty());
}
