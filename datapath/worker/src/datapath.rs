//! How does control speak to the workers?
//!
//! Every change is obeyed by all workers before the call returns, so that its effects are complete: a program that was
//! set is what every frame goes by, a port that was removed is touched by nobody. The calls block for about a turn of
//! the slowest worker; call them from async code by `spawn_blocking`.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use ports::{Device, DeviceHandle, Link, RxQueue};
use rustix::thread::Pid;
use vswitch::program::{PortNo, ProgramSpec};
use vswitch::{Explanation, FlowView, Now, Program, Shared, StationView, Switch};

use crate::counters::{Counters, Ledger, PortCells, WorkerCells, WorkerView};
use crate::forward::{Exit, Forwarder};
use crate::mailbox::{Outbox, mailbox};
use crate::start::{Config, Seat, StartError, cpu_time_ns};
use crate::turn::{Entry, Worker};

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
    /// The worker of each receive queue.
    polled_by: Vec<usize>,
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
        let mut workers = self.polled_by.clone();
        workers.sort_unstable();
        workers.dedup();
        workers
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

    /// Forwards by `program` from now on: once this returns, every worker does.
    pub fn set_program(&self, program: Arc<Program>) {
        let mut control = self.control();
        self.all(|_| {
            let program = program.clone();
            move |worker: &mut Worker| worker.forwarder.switch.set_program(program)
        });
        control.program = program;
    }

    /// The program that was set last.
    pub fn program(&self) -> Arc<Program> {
        self.control().program.clone()
    }

    /// Puts `device` to work as port `port`. Each receive queue goes to the worker that has the fewest of this port's,
    /// then the fewest at all.
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
        let polled_by = self.spread(&control, rx.len());
        self.set_waker(&*handle, &polled_by);
        let mut queues = self.by_worker(rx, &polled_by);
        self.all(|number| {
            let exit = Exit { queue: tx[number % tx.len()].clone(), cells: cells[number].clone() };
            let entries: Vec<Entry> = std::mem::take(&mut queues[number])
                .into_iter()
                .map(|queue| Entry { port, queue, cells: cells[number].clone() })
                .collect();
            move |worker: &mut Worker| worker.join(port, exit, entries)
        });
        control.ports.insert(port, Port { handle, cells, polled_by });
        Ok(())
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
            let ports = control.ports.iter().filter(move |(_, port)| port.polled_by.contains(&number));
            ports.map(|(&port, _)| port).collect()
        };
        let view = |(number, worker): (usize, &Handle)| WorkerView {
            number,
            cpu: worker.cpu,
            turns: worker.cells.turns.get(),
            frames: worker.cells.frames.get(),
            busy_cycles: worker.cells.busy_cycles.get(),
            idle_cycles: worker.cells.idle_cycles.get(),
            sleeps: worker.cells.sleeps.get(),
            cpu_time_ns: cpu_time_ns(worker.tid),
            ports: polled(number),
            microflow_hits: worker.cells.microflow_hits.get(),
            megaflow_hits: worker.cells.megaflow_hits.get(),
            misses: worker.cells.misses.get(),
            mode: worker.cells.mode(),
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

    /// Explains what would happen to a frame of these bytes that comes in by `port`, without sending it. `None` after
    /// [`Datapath::shutdown`].
    pub fn trace(&self, port: PortNo, bytes: &[u8]) -> Option<Explanation> {
        let (bytes, now) = (bytes.to_vec(), self.now());
        let first = self.workers.first()?;
        let explain = move |worker: &mut Worker| worker.forwarder.switch.explain(port, &bytes, now);
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
        for &worker in control.ports.values().flat_map(|port| &port.polled_by) {
            load[worker].1 += 1;
        }
        let mut take = || {
            let least = (0..load.len()).min_by_key(|&worker| load[worker]).unwrap_or(0);
            load[least].0 += 1;
            load[least].1 += 1;
            least
        };
        (0..queues).map(|_| take()).collect()
    }

    fn by_worker(&self, rx: Vec<Box<dyn RxQueue>>, polled_by: &[usize]) -> Vec<Vec<Box<dyn RxQueue>>> {
        let mut queues: Vec<Vec<_>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (queue, &worker) in rx.into_iter().zip(polled_by) {
            queues[worker].push(queue);
        }
        queues
    }

    fn set_waker(&self, handle: &dyn DeviceHandle, polled_by: &[usize]) {
        let polls = |(number, worker): (usize, &Handle)| {
            polled_by.contains(&number).then(|| worker.outbox.signal.clone())
        };
        let signals: Vec<_> = self.workers.iter().enumerate().filter_map(polls).collect();
        handle.set_waker(Arc::new(move || signals.iter().for_each(|signal| signal.wake())));
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
