//! `millrace top`: what moves right now? Two samples of the counters, and their difference by time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use local_api::switch_v1 as api;

use crate::client;
use crate::output::{self, Row};
use crate::run_dir::RunDir;

const EXAMPLES: &str = "\
Examples:
  millrace top                     until Ctrl-C
  millrace top --once              one sample, for scripts
  millrace top --interval 0.2";

/// How to watch.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    run_dir: RunDir,
    /// Seconds between two samples
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Print one sample and end
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.05..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("0.05 to 3600 seconds are possible".into())
    }
}

/// Back to the upper left corner, and everything after it gone: less flicker than clearing first.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\n";
const CLEAR_REST: &str = "\x1b[J";

/// The counters at one moment.
struct Sample {
    at: Instant,
    ports: Vec<api::PortState>,
    total: api::Counters,
    workers: Vec<api::WorkerState>,
}

impl Sample {
    #[allow(clippy::disallowed_methods, reason = "rates are by the time between two answers")]
    async fn take(run_dir: &RunDir) -> anyhow::Result<Self> {
        let mut switch = client::switch(run_dir);
        let ports = client::switch_says(switch.list_ports(api::ListPortsRequest {}).await, run_dir)?;
        let at = Instant::now();
        let workers = client::switch_says(switch.list_workers(api::ListWorkersRequest {}).await, run_dir)?;
        let total = ports.total.unwrap_or_default();
        Ok(Self { at, ports: ports.ports, total, workers: workers.workers })
    }
}

/// Shows rates until nobody wants them any more.
///
/// # Errors
/// The switch does not answer.
pub(crate) async fn run(args: &TopArgs) -> anyhow::Result<()> {
    let pause = Duration::from_secs_f64(args.interval);
    let mut before = Sample::take(&args.run_dir).await?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        let after = Sample::take(&args.run_dir).await?;
        let screen = screen(&before, &after);
        if args.once {
            return output::print(&screen);
        }
        output::print(&format!("{HOME}{}{CLEAR_REST}", screen.replace('\n', CLEAR_LINE)))?;
        before = after;
    }
}

fn screen(before: &Sample, after: &Sample) -> String {
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let per_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
    let (old, new) = (&before.total, &after.total);
    format!(
        "in {}  out {}  dropped {}\n\n{}\n{}",
        rate(per_second(old.rx_frames, new.rx_frames), per_second(old.rx_bytes, new.rx_bytes)),
        rate(per_second(old.tx_frames, new.tx_frames), per_second(old.tx_bytes, new.tx_bytes)),
        frames(per_second(dropped(Some(old)), dropped(Some(new)))),
        output::table(&port_rates(before, after, seconds), "no ports"),
        output::table(&worker_rates(before, after, seconds), "no workers"),
    )
}

struct PortRate {
    name: String,
    link: &'static str,
    rx_frames: f64,
    rx_bytes: f64,
    tx_frames: f64,
    tx_bytes: f64,
    dropped: f64,
    workers: String,
}

impl Row for PortRate {
    const HEADS: &'static [&'static str] =
        &["PORT", "LINK", "RX PKT/S", "RX BIT/S", "TX PKT/S", "TX BIT/S", "DROPPED/S", "WORKER"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.link.into(),
            scaled(self.rx_frames),
            scaled(self.rx_bytes * 8.0),
            scaled(self.tx_frames),
            scaled(self.tx_bytes * 8.0),
            scaled(self.dropped),
            self.workers.clone(),
        ]
    }
}

fn port_rates(before: &Sample, after: &Sample, seconds: f64) -> Vec<PortRate> {
    let number = |state: &api::PortState| state.port.as_ref().map(|port| port.number);
    let old: HashMap<_, _> =
        before.ports.iter().map(|state| (number(state), state.counters.as_ref())).collect();
    let rate = |state: &api::PortState| {
        let new = state.counters.clone().unwrap_or_default();
        let old = old.get(&number(state)).copied().flatten().cloned().unwrap_or_default();
        // A port that was opened anew counts from 0.
        let per_second = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
        PortRate {
            name: state.port.as_ref().map(|port| port.name.clone()).unwrap_or_default(),
            link: if state.link_up { "up" } else { "down" },
            rx_frames: per_second(old.rx_frames, new.rx_frames),
            rx_bytes: per_second(old.rx_bytes, new.rx_bytes),
            tx_frames: per_second(old.tx_frames, new.tx_frames),
            tx_bytes: per_second(old.tx_bytes, new.tx_bytes),
            dropped: per_second(dropped(Some(&old)), dropped(Some(&new))),
            workers: placement(&state.queues),
        }
    };
    after.ports.iter().map(rate).collect()
}

/// The worker of each of a port's receive queues.
fn placement(queues: &[api::QueueState]) -> String {
    if queues.is_empty() {
        return "-".into();
    }
    queues.iter().map(|queue| queue.worker.to_string()).collect::<Vec<_>>().join(",")
}

fn dropped(counters: Option<&api::Counters>) -> u64 {
    counters.map_or(0, |counters| counters.drops.values().sum())
}

struct WorkerRate {
    number: u32,
    cpu: u32,
    mode: String,
    busy_percent: f64,
    empty_percent: f64,
    asleep_percent: f64,
    cpu_percent: f64,
    frames: f64,
    cycles_per_frame: Option<f64>,
}

impl Row for WorkerRate {
    const HEADS: &'static [&'static str] =
        &["WORKER", "CPU", "MODE", "BUSY", "EMPTY", "ASLEEP", "CPU TIME", "PKT/S", "CYCLES/PKT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.cpu.to_string(),
            self.mode.clone(),
            format!("{:.0}%", self.busy_percent),
            format!("{:.0}%", self.empty_percent),
            format!("{:.0}%", self.asleep_percent),
            format!("{:.0}%", self.cpu_percent),
            scaled(self.frames),
            self.cycles_per_frame.map_or("-".into(), |cycles| format!("{cycles:.0}")),
        ]
    }
}

fn worker_rates(before: &Sample, after: &Sample, seconds: f64) -> Vec<WorkerRate> {
    let pairs = after.workers.iter().filter_map(|new| {
        let old = before.workers.iter().find(|old| old.number == new.number)?;
        Some((old, new))
    });
    let rate = |(old, new): (&api::WorkerState, &api::WorkerState)| {
        let since = |old: u64, new: u64| new.saturating_sub(old) as f64;
        let busy = since(old.busy_cycles, new.busy_cycles);
        let idle = since(old.idle_cycles, new.idle_cycles);
        let asleep = since(old.sleep_cycles, new.sleep_cycles).min(idle);
        let percent = |part: f64| if busy + idle > 0.0 { 100.0 * part / (busy + idle) } else { 0.0 };
        let frames = since(old.frames, new.frames);
        WorkerRate {
            number: new.number,
            cpu: new.cpu,
            mode: new.mode.clone(),
            busy_percent: percent(busy),
            empty_percent: percent(idle - asleep),
            asleep_percent: percent(asleep),
            cpu_percent: since(old.cpu_time_ns, new.cpu_time_ns) / seconds / 1e7,
            frames: frames / seconds,
            cycles_per_frame: (frames > 0.0).then(|| busy / frames),
        }
    };
    pairs.map(rate).collect()
}

fn rate(frames_per_second: f64, bytes_per_second: f64) -> String {
    format!("{} ({}bit/s)", frames(frames_per_second), scaled(bytes_per_second * 8.0))
}

fn frames(per_second: f64) -> String {
    format!("{} pkt/s", scaled(per_second))
}

/// Three digits and the unit's prefix.
fn scaled(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2}G", v / 1e9),
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e3 => format!("{:.1}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_when_large_has_a_prefix() {
        assert_eq!([0.0, 999.0, 12_345.0, 2.5e6, 9.9e9].map(scaled), ["0", "999", "12.3k", "2.50M", "9.90G"]);
    }

    #[test]
    fn interval_when_it_would_spin_is_refused() {
        assert!(interval("0").is_err());
        assert!(interval("-1").is_err());
        assert!(interval("NaN").is_err());
        assert_eq!(interval("0.5"), Ok(0.5));
    }

    #[test]
    fn screen_when_a_port_moves_shows_its_rates() {
        #[allow(clippy::disallowed_methods, reason = "a sample has a time")]
        let start = Instant::now();
        let sample = |second: u64, frames: u64| Sample {
            at: start + Duration::from_secs(second),
            ports: vec![api::PortState {
                port: Some(api::Port { number: 1, name: "web/eth0".into(), ..api::Port::default() }),
                counters: Some(api::Counters {
                    rx_frames: frames,
                    rx_bytes: frames * 100,
                    ..Default::default()
                }),
                link_up: true,
                queues: [0, 1].map(|worker| api::QueueState { worker, ..Default::default() }).into(),
                ..Default::default()
            }],
            total: api::Counters { rx_frames: frames, rx_bytes: frames * 100, ..Default::default() },
            workers: vec![api::WorkerState {
                mode: "polling".into(),
                frames,
                busy_cycles: frames * 60,
                idle_cycles: frames * 140,
                sleep_cycles: frames * 100,
                ..Default::default()
            }],
        };
        let text = screen(&sample(0, 0), &sample(2, 20_000));
        assert!(text.starts_with("in 10.0k pkt/s (8.00Mbit/s)"), "{text}");
        assert!(text.contains("web/eth0  up       10.0k     8.00M"), "{text}");
        assert!(text.contains("DROPPED/S  WORKER") && text.contains("0  0,1\n"), "{text}");
        let worker = text.lines().last().unwrap_or_default();
        let cells: Vec<&str> = worker.split_whitespace().collect();
        assert_eq!(cells, ["0", "0", "polling", "30%", "20%", "50%", "0%", "10.0k", "60"]);
    }
}
