//! How does control speak to the workers?
//!
//! Every change is obeyed by all workers before the call returns, so that its effects are complete: a program that was
//! set is what every frame goes by, a port that was removed is touched by nobody. The calls block for about a turn of
//! the slowest worker; call them from async code by `spawn_blocking`.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use ports::{Device, DeviceHandle, Link, RxQueue, cycles};
use rustix::thread::Pid;
use vswitch::program::{PortNo, ProgramSpec};
use vswitch::{Entrance, Explanation, FlowView, Now, Program, Shared, StationView, Switch};

use crate::counters::{Counters, Ledger, PortCells, WorkerCells, WorkerView};
use crate::entry::{Entry, QueueCells, QueueId, Quiet};
use crate::forward::{Exit, Forwarder, Source};
use crate::mailbox::{Outbox, mailbox};
use crate::start::{Config, Seat, StartError, cpu_time_ns};
use crate::turn::Worker;

/// Flows that one dump takes from a worker: it writes them between two turns, about a microsecond each.
pub const MAX_FLOWS: usize = 1000;

/// Why a port was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddPortError {
    /// The number is taken: remove that port first.
    #[error("port {} exists already", .0.0)]
    Exists(PortNo),
    /// The device has no transmit queue.
    #[error("the device of port {} has no transmit queue", .0.0)]
    NoTxQueue(PortNo),
}

/// Why a queue was not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// There is no such port, or it has no such receive queue (any more).
    #[error("port {} has no receive queue {}", .0.port.0, .0.queue)]
    NoQueue(QueueId),
    /// There is no such worker.
    #[error("there is no worker {0}")]
    NoWorker(usize),
    /// The datapath was shut down meanwhile.
    #[error("the workers have ended")]
    Ended,
}

/// What becomes of the device of a port that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The device is closed, but what survives a restart of the switch stays (a persistent netdev).
    Keep,
    /// The device is deleted for good.
    Retire,
}

/// A port, as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    /// Its number.
    pub port: PortNo,
    /// What moved through it.
    pub counters: Counters,
    /// Its link as it is now.
    pub link: Link,
    /// The workers that poll it.
    pub workers: Vec<usize>,
    /// Its receive queues, in order.
    pub queues: Vec<QueueView>,
}

/// A receive queue, as a person asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueView {
    /// Which it is.
    pub id: QueueId,
    /// The worker that polls it.
    pub worker: usize,
    /// Cycles that its bursts have cost, by the time stamp counter.
    pub busy_cycles: u64,
    /// Times that it was moved from one worker to another.
    pub moves: u64,
}

/// What the workers' flow caches hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowDump {
    /// Entries with the number of the worker that holds them.
    pub flows: Vec<(usize, FlowView)>,
    /// All entries held, those that were not asked for included.
    pub total: usize,
}

struct Port {
    handle: Box<dyn DeviceHandle>,
    /// By worker.
    cells: Vec<Arc<PortCells>>,
    queues: Vec<Queue>,
}

/// A receive queue, as control sees it.
struct Queue {
    /// Shared with the device's waker.
    worker: Arc<AtomicUsize>,
    load: Arc<QueueCells>,
    moves: u64,
    /// The queue itself, until a program has its port.
    resting: Option<Box<dyn RxQueue>>,
}

impl Port {
    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for cells in &self.cells {
            sum.merge(&cells.read());
        }
        sum
    }

    fn workers(&self) -> Vec<usize> {
        let mut workers: Vec<usize> = self.queues.iter().map(Queue::worker).collect();
        workers.sort_unstable();
        workers.dedup();
        workers
    }

    fn queues(&self, port: PortNo) -> Vec<QueueView> {
        let view = |(queue, of): (usize, &Queue)| QueueView {
            id: QueueId { port, queue },
            worker: of.worker(),
            busy_cycles: of.load.busy_cycles.get(),
            moves: of.moves,
        };
        self.queues.iter().enumerate().map(view).collect()
    }

    /// Takes the queues that rest, and adds each to those that its worker is to poll.
    fn start(&mut self, port: PortNo, entries: &mut [Vec<Entry>]) {
        for (number, queue) in self.queues.iter_mut().enumerate() {
            let Some(rx) = queue.resting.take() else { continue };
            let worker = queue.worker();
            entries[worker].push(Entry {
                id: QueueId { port, queue: number },
                source: Source { port, lane: worker },
                queue: rx,
                cells: self.cells[worker].clone(),
                load: queue.load.clone(),
                quiet: Quiet::default(),
            });
        }
    }
}

impl Queue {
    fn new(rx: Box<dyn RxQueue>, worker: usize) -> Self {
        let worker = Arc::new(AtomicUsize::new(worker));
        Self { worker, load: Arc::default(), moves: 0, resting: Some(rx) }
    }

    fn worker(&self) -> usize {
        self.worker.load(SeqCst)
    }
}

/// What only control sees, behind one lock that no worker takes.
struct Control {
    program: Arc<Program>,
    ports: BTreeMap<PortNo, Port>,
    /// What moved through ports that are gone: the balance holds for ever.
    removed: Counters,
}

/// A worker, as control sees it.
struct Handle {
    cpu: usize,
    /// The thread, as the kernel numbers it.
    tid: Pid,
    outbox: Outbox,
    cells: Arc<WorkerCells>,
}

/// The workers and the ports that they poll. Shared freely between threads.
pub struct Datapath {
    workers: Vec<Handle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<Shared>,
    control: Mutex<Control>,
    /// Where all workers count their time from.
    start: Instant,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Datapath {
    /// Starts the workers, without a port and with an empty program.
    ///
    /// # Errors
    /// A CPU that cannot be had, or no thread or descriptor left; nothing runs then.
    #[allow(clippy::disallowed_methods, reason = "the one start that all workers count their time from")]
    pub fn start(config: &Config) -> Result<Datapath, StartError> {
        if config.cpus.is_empty() {
            return Err(StartError::NoCpu);
        }
        let program =
            Program::build(ProgramSpec::default()).expect("an empty program has nothing to contradict");
        let shared = Shared::new();
        let start = Instant::now();
        let mut datapath = Datapath {
            workers: Vec::new(),
            threads: Mutex::default(),
            shared: shared.clone(),
            control: Mutex::new(Control {
                program: program.clone(),
                ports: BTreeMap::new(),
                removed: Counters::default(),
            }),
            start,
        };
        for (number, &cpu) in config.cpus.iter().enumerate() {
            let (outbox, inbox) =
                mailbox().map_err(|source| StartError::Resources { worker: number, source })?;
            let cells = Arc::new(WorkerCells::default());
            let seat = Seat { number, cpu, inbox, cells: cells.clone(), start, spin: config.spin };
            let switch = Switch::new(shared.clone(), program.clone(), random_seed());
            // Dropping `datapath` on the way out stops the workers that run already.
            let (tid, thread) = seat.start(Forwarder::new(switch))?;
            datapath.workers.push(Handle { cpu, tid, outbox, cells });
            datapath.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(datapath)
    }

    /// Forwards by `program` from now on: once this returns, every worker does. Ports that it is the first to have are polled
    /// from now on.
    pub fn set_program(&self, program: Arc<Program>) {
        let mut control = self.control();
        self.all(|_| {
            let program = program.clone();
            move |worker: &mut Worker| worker.forwarder.switch.set_program(program)
        });
        control.program = program;
        self.poll_known(&mut control);
    }

    /// Has the workers poll the queues of ports that the program has. Not before: what waits in them since a restart would
    /// find no network; nor before all workers can send by all ports.
    fn poll_known(&self, control: &mut Control) {
        let mut entries: Vec<Vec<Entry>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (&number, port) in &mut control.ports {
            if control.program.spec().ports.contains_key(&number) {
                port.start(number, &mut entries);
            }
        }
        if entries.iter().any(|entries| !entries.is_empty()) {
            self.all(|number| {
                let entries = std::mem::take(&mut entries[number]);
                move |worker: &mut Worker| worker.poll(entries)
            });
        }
    }

    /// The program that was set last.
    pub fn program(&self) -> Arc<Program> {
        self.control().program.clone()
    }

    /// Puts `device` to work as port `port`: frames leave by it from now on, and come in by it once the program has the port.
    /// Each receive queue goes to the worker that has the fewest of this port's, then the fewest at all.
    ///
    /// # Errors
    /// The number is taken, or the device cannot send; the device is dropped then, without being retired.
    pub fn add_port(&self, port: PortNo, device: Device) -> Result<(), AddPortError> {
        let mut control = self.control();
        if control.ports.contains_key(&port) {
            return Err(AddPortError::Exists(port));
        }
        let Device { rx, tx, handle } = device;
        if tx.is_empty() {
            return Err(AddPortError::NoTxQueue(port));
        }
        let cells: Vec<_> = self.workers.iter().map(|_| Arc::new(PortCells::default())).collect();
        let spread = self.spread(&control, rx.len());
        let queues: Vec<Queue> =
            rx.into_iter().zip(spread).map(|(rx, worker)| Queue::new(rx, worker)).collect();
        self.set_waker(&*handle, &queues);
        let lanes: Arc<[_]> = tx.iter().cycle().take(self.workers.len()).cloned().collect();
        self.all(|number| {
            let exit = Exit { queues: lanes.clone(), cells: cells[number].clone() };
            move |worker: &mut Worker| worker.forwarder.open(port, exit)
        });
        control.ports.insert(port, Port { handle, cells, queues });
        self.poll_known(&mut control);
        Ok(())
    }

    /// Has worker `to` poll the receive queue `id` from now on, at a burst's boundary: what came in by it before has
    /// been sent, nothing is lost, and its flows keep their order. The worker that had it hands it over directly, so
    /// that it waits for a turn of both and not for the caller.
    ///
    /// # Errors
    /// There is no such queue or worker, or none any more.
    pub fn move_queue(&self, id: QueueId, to: usize) -> Result<(), MoveError> {
        let mut control = self.control();
        let target = self.workers.get(to).ok_or(MoveError::NoWorker(to))?;
        let port = control.ports.get_mut(&id.port).ok_or(MoveError::NoQueue(id))?;
        let queue = port.queues.get_mut(id.queue).ok_or(MoveError::NoQueue(id))?;
        // Before the hand-over: whichever worker the device's waker wakes from now on comes to ask the device anew.
        let from = queue.worker.swap(to, SeqCst);
        if from == to {
            return Ok(());
        }
        queue.moves += 1;
        if queue.resting.is_some() {
            return Ok(());
        }
        let (outbox, cells) = (target.outbox.clone(), port.cells[to].clone());
        let hand_over = move |worker: &mut Worker| {
            let entry = Entry { cells, ..worker.release(id)? };
            Some(outbox.ask(move |worker| worker.adopt(entry)))
        };
        let handed_over = self.workers[from].outbox.ask(hand_over).recv().ok().flatten();
        handed_over.and_then(|adopted| adopted.recv().ok()).ok_or(MoveError::Ended)
    }

    /// Every receive queue, by port and number, with its worker and what it has cost.
    pub fn queues(&self) -> Vec<QueueView> {
        self.control().ports.iter().flat_map(|(&number, port)| port.queues(number)).collect()
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Takes `port` out of the datapath and closes its device. Once this returns, no worker touches it. False if there
    /// is no such port.
    pub fn remove_port(&self, port: PortNo, removal: Removal) -> bool {
        let mut control = self.control();
        let Some(gone) = control.ports.remove(&port) else { return false };
        // What the workers hand back is dropped here, so that no worker waits for a device to close.
        drop(self.all(|_| move |worker: &mut Worker| worker.leave(port)));
        control.removed.merge(&gone.counters());
        // Deleting a netdev takes the kernel milliseconds: other ports need not wait for it.
        drop(control);
        if removal == Removal::Retire {
            gone.handle.retire();
        }
        true
    }

    /// What has moved and what ended, by port and in total.
    pub fn counters(&self) -> Ledger {
        let control = self.control();
        let mut ledger = Ledger { ports: BTreeMap::new(), total: control.removed };
        for (&number, port) in &control.ports {
            let counters = port.counters();
            ledger.total.merge(&counters);
            ledger.ports.insert(number, counters);
        }
        ledger
    }

    /// Every port with its counters and link.
    pub fn ports(&self) -> Vec<PortView> {
        let control = self.control();
        let view = |(&number, port): (&PortNo, &Port)| PortView {
            port: number,
            counters: port.counters(),
            link: port.handle.link(),
            workers: port.workers(),
            queues: port.queues(number),
        };
        control.ports.iter().map(view).collect()
    }

    /// The link of `port`, `None` if there is no such port.
    pub fn link(&self, port: PortNo) -> Option<Link> {
        self.control().ports.get(&port).map(|port| port.handle.link())
    }

    /// What the workers do.
    pub fn workers(&self) -> Vec<WorkerView> {
        let control = self.control();
        let polled = |number| {
            let ports = control.ports.iter().filter(move |(_, port)| port.workers().contains(&number));
            ports.map(|(&port, _)| port).collect()
        };
        let view = |(number, worker): (usize, &Handle)| WorkerView {
            number,
            cpu: worker.cpu,
            cpu_time_ns: cpu_time_ns(worker.tid),
            ports: polled(number),
            activity: worker.cells.read(cycles::now()),
        };
        self.workers.iter().enumerate().map(view).collect()
    }

    /// Up to `limit` entries of each worker's flow caches, and never more than [`MAX_FLOWS`].
    pub fn flows(&self, limit: usize) -> FlowDump {
        let (now, limit) = (self.now(), limit.min(MAX_FLOWS));
        let dumps = self.all(|_| {
            move |worker: &mut Worker| {
                let switch = &worker.forwarder.switch;
                (switch.flow_count(), switch.flows(now, limit))
            }
        });
        let mut dump = FlowDump::default();
        for (worker, (count, flows)) in dumps {
            dump.total += count;
            dump.flows.extend(flows.into_iter().map(|flow| (worker, flow)));
        }
        dump
    }

    /// The stations that the networks know: those that the program names, then those that were learned.
    pub fn stations(&self) -> Vec<StationView> {
        let mut stations = self.program().stations();
        stations.extend(self.shared.stations(self.now()));
        stations
    }

    /// Explains what would happen to a frame of these bytes that comes in now, without sending it. `None` after
    /// [`Datapath::shutdown`].
    pub fn trace(&self, entrance: Entrance, bytes: &[u8]) -> Option<Explanation> {
        let (bytes, now) = (bytes.to_vec(), self.now());
        let first = self.workers.first()?;
        let explain = move |worker: &mut Worker| worker.forwarder.switch.explain(entrance, &bytes, now);
        first.outbox.ask(explain).recv().ok()
    }

    /// Stops the workers and waits for them. Devices close, netdevs that are persistent stay. Idempotent.
    pub fn shutdown(&self) {
        drop(self.all(|_| Worker::stop));
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A worker that panicked has said so on stderr; there is nothing left to stop.
            let _ = thread.join();
        }
        self.control().ports.clear();
    }

    fn now(&self) -> Now {
        Now { ms: self.start.elapsed().as_millis() as u64 }
    }

    /// The state of control. A panic under the lock leaves it whole: each change is one insert or remove.
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has every worker run its command, at the same time, and waits for all answers. A worker that has ended gives
    /// none.
    fn all<T, F>(&self, mut command: impl FnMut(usize) -> F) -> Vec<(usize, T)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Worker) -> T + Send + 'static,
    {
        let asked: Vec<(usize, Receiver<T>)> =
            self.workers.iter().enumerate().map(|(n, worker)| (n, worker.outbox.ask(command(n)))).collect();
        asked.into_iter().filter_map(|(n, answer)| answer.recv().ok().map(|answer| (n, answer))).collect()
    }

    /// The worker of each of `queues` new receive queues of one port.
    fn spread(&self, control: &Control, queues: usize) -> Vec<usize> {
        // (queues of this port, queues at all) by worker.
        let mut load = vec![(0, 0); self.workers.len()];
        for queue in control.ports.values().flat_map(|port| &port.queues) {
            load[queue.worker()].1 += 1;
        }
        let mut take = || {
            let least = (0..load.len()).min_by_key(|&worker| load[worker]).unwrap_or(0);
            load[least].0 += 1;
            load[least].1 += 1;
            least
        };
        (0..queues).map(|_| take()).collect()
    }

    /// Has the device wake whichever workers poll its queues then.
    fn set_waker(&self, handle: &dyn DeviceHandle, queues: &[Queue]) {
        let signals: Vec<_> = self.workers.iter().map(|worker| worker.outbox.signal.clone()).collect();
        let workers: Vec<_> = queues.iter().map(|queue| queue.worker.clone()).collect();
        handle.set_waker(Arc::new(move || {
            let polls = |number| workers.iter().any(|worker| worker.load(SeqCst) == number);
            signals
                .iter()
                .enumerate()
                .filter(|(number, _)| polls(*number))
                .for_each(|(_, signal)| signal.wake());
        }));
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// A seed that a sender cannot guess.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
