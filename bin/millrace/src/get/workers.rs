//! `millrace get workers`: what do the threads that move packets do?

use local_api::switch_v1 as api;
use serde::Serialize;

use super::{GetArgs, join};
use crate::client;
use crate::output::Row;

#[derive(Serialize)]
struct Answer {
    workers: Vec<Worker>,
}

#[derive(Serialize)]
struct Worker {
    number: u32,
    cpu: u32,
    mode: String,
    ports: Vec<u32>,
    turns: u64,
    frames: u64,
    busy_cycles: u64,
    idle_cycles: u64,
    sleep_cycles: u64,
    sleeps: u64,
    cpu_time_ns: u64,
    microflow_hits: u64,
    megaflow_hits: u64,
    misses: u64,
}

impl Worker {
    /// Busy cycles per frame.
    fn cost(&self) -> String {
        self.busy_cycles.checked_div(self.frames).map_or("-".into(), |cycles| cycles.to_string())
    }

    /// Shares of its time, in percent: moving frames, polling in vain, asleep.
    fn shares(&self) -> [String; 3] {
        let all = self.busy_cycles + self.idle_cycles;
        let empty = self.idle_cycles.saturating_sub(self.sleep_cycles);
        [self.busy_cycles, empty, self.sleep_cycles].map(|part| percent(part, all))
    }

    /// The share of frames that a cache answered, in percent.
    fn hits(&self) -> String {
        let hits = self.microflow_hits + self.megaflow_hits;
        percent(hits, hits + self.misses)
    }
}

fn percent(part: u64, all: u64) -> String {
    if all == 0 { "-".into() } else { format!("{:.1}%", 100.0 * part as f64 / all as f64) }
}

impl Row for Worker {
    const HEADS: &'static [&'static str] = &[
        "WORKER",
        "CPU",
        "MODE",
        "BUSY",
        "EMPTY",
        "ASLEEP",
        "FRAMES",
        "CYCLES/FRAME",
        "CACHE HITS",
        "SLEEPS",
        "CPU TIME",
        "PORTS",
    ];

    fn cells(&self) -> Vec<String> {
        let [busy, empty, asleep] = self.shares();
        vec![
            self.number.to_string(),
            self.cpu.to_string(),
            self.mode.clone(),
            busy,
            empty,
            asleep,
            self.frames.to_string(),
            self.cost(),
            self.hits(),
            self.sleeps.to_string(),
            format!("{:.2}s", self.cpu_time_ns as f64 / 1e9),
            join(&self.ports),
        ]
    }
}

pub(super) async fn show(args: &GetArgs) -> anyhow::Result<()> {
    let answer = client::switch(&args.run_dir).list_workers(api::ListWorkersRequest {}).await;
    let state = client::switch_says(answer, &args.run_dir)?;
    let worker = |worker: api::WorkerState| Worker {
        number: worker.number,
        cpu: worker.cpu,
        mode: worker.mode,
        ports: worker.ports,
        turns: worker.turns,
        frames: worker.frames,
        busy_cycles: worker.busy_cycles,
        idle_cycles: worker.idle_cycles,
        sleep_cycles: worker.sleep_cycles,
        sleeps: worker.sleeps,
        cpu_time_ns: worker.cpu_time_ns,
        microflow_hits: worker.microflow_hits,
        megaflow_hits: worker.megaflow_hits,
        misses: worker.misses,
    };
    let answer = Answer { workers: state.workers.into_iter().map(worker).collect() };
    super::answer(args, &answer.workers, "no workers", &answer)
}
