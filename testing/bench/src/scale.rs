//! What do the sizes of a cluster cost the switch of one node? `millrace bench scale`.
//!
//! A real switch is given so many services, policies and identities beside those of the row `connections`, and then, one at a
//! time, changes: over its socket, as the agent does it, from the call to the answer, when all workers forward by the new
//! program. Then come the connections of that row.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use guest::load::Flows;
use local_api::switch_v1 as api;
use serde::Serialize;

use crate::case::{Case, FrameKind, Work, short};
use crate::chart::{Bar, BarChart, BarSeries, Color, Figure, Panel};
use crate::figures::{quantile, round, say, table};
use crate::hugepages::HugePages;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::millrace::Millrace;
use crate::options::{Files, Place, Samples};
use crate::probe;
use crate::process::Priority;
use crate::publish::{self, publish};
use crate::services::{self, ROUTER};
use crate::stats::spread;
use crate::subject::{Switch, WorkerCounters};
use crate::traffic::{LoadKind, Traffic};

const HUGE_PAGES: u64 = 64;
/// Changes of each kind, and for how long at most.
const CHANGES: u32 = 100;
const CHANGING: Duration = Duration::from_secs(10);
const QUICK_ROUNDS: usize = 1;
/// The first number of what is there beside the measured services.
const FIRST: u32 = 100_000;

const EXAMPLES: &str = "\
Examples:
  millrace bench scale                          10 to 100 000 services, policies and identities
  millrace bench scale --sizes 1000 --quick     a first look

It needs root, two CPUs and 128 MiB for huge pages.";

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ScaleArgs {
    /// Numbers of services, and as many policies and identities
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000,100000", value_name = "N,...")]
    pub sizes: Vec<u32>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub samples: Samples,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub place: Place,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub files: Files,
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    /// An endpoint of a service comes or goes.
    Service,
    /// A rule of a policy is another.
    Policy,
    /// An address has another identity.
    Identity,
}

impl Change {
    const ALL: [Self; 3] = [Self::Service, Self::Policy, Self::Identity];

    fn title(self) -> &'static str {
        match self {
            Self::Service => "a service",
            Self::Policy => "a policy",
            Self::Identity => "an identity",
        }
    }

    /// The request for change `number` among `size`.
    fn request(self, size: u32, number: u32, from_version: u64) -> api::ApplyRequest {
        let mut request =
            api::ApplyRequest { from_version, to_version: from_version + 1, ..Default::default() };
        // Not the same one again and again, and never as it was.
        let at = number.wrapping_mul(7919) % size;
        match self {
            Self::Service => request.put_services.push(service(at, 1 + number % 2)),
            Self::Policy => request.put_policies.push(policy(at, number)),
            Self::Identity => request.put_identities.push(identity(at, FIRST + size + number)),
        }
        request
    }
}

/// One size.
#[derive(Debug, Serialize)]
struct Outcome {
    size: u32,
    /// The whole program, from nothing.
    build_ms: f64,
    /// The switch's resident memory without its program, and with it.
    empty_mib: f64,
    memory_mib: f64,
    changes: BTreeMap<Change, Times>,
    /// Busy cycles of the worker: per connection with one request, and per packet of those with many.
    cycles_per_connection: f64,
    cycles_per_packet: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Times {
    p50_ms: f64,
    p99_ms: f64,
    count: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    results: Vec<Outcome>,
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or the switch failed, or the user stopped it.
pub fn run(args: &ScaleArgs) -> anyhow::Result<()> {
    let mut args = args.clone();
    args.samples = args.samples.normalized(QUICK_ROUNDS)?;
    args.place.cpus.check()?;
    ensure!(args.sizes.iter().all(|size| (1..=1 << 20).contains(size)), "sizes are 1 to a million");
    let interrupt = Interrupt::listen()?;
    let _pages = HugePages::reserve(HUGE_PAGES)?;
    let machine = Machine::here(args.place.cpus.measured.worker_cpu, args.place.cpus.load_cpu);
    let _priority = Priority::raise()?;
    probe::pin(args.place.cpus.load_cpu)?;
    let results =
        args.sizes.iter().map(|size| measure(&args, *size, &interrupt)).collect::<Result<_, _>>()?;
    publish(&Report { machine, results }, &args.files)
}

fn measure(args: &ScaleArgs, size: u32, interrupt: &Interrupt) -> anyhow::Result<Outcome> {
    let cpus = &args.place.cpus;
    say(&format!("{} of each", short(size)));
    let mut switch = Millrace::empty(&cpus.measured.program()?, cpus.measured.worker_cpu, cpus.load_cpu)?;
    let empty_mib = switch.memory_mib()?;
    let request = everything(&switch, size);
    let start = Instant::now();
    switch.apply(request)?;
    let build_ms = start.elapsed().as_secs_f64() * 1e3;
    let memory_mib = switch.memory_mib()?;
    let mut version = 1;
    let mut changes = BTreeMap::new();
    for change in Change::ALL {
        changes.insert(change, change_often(&mut switch, change, size, &mut version, interrupt)?);
    }
    let mut cycles = |work| packets(args, &mut switch, work, interrupt);
    Ok(Outcome {
        size,
        build_ms: round(build_ms, 1),
        empty_mib: round(empty_mib, 1),
        memory_mib: round(memory_mib, 1),
        changes,
        cycles_per_connection: cycles(Work::Connections { requests: 1 })? * Work::PACKETS as f64,
        cycles_per_packet: cycles(Work::LONG)?,
    })
}

/// The program of the row `connections`, and so many of each beside.
fn everything(switch: &Millrace, size: u32) -> api::ApplyRequest {
    let mut request = services::program(&switch.sockets());
    request.put_services.extend((0..size).map(|at| service(at, 2)));
    request.put_policies.extend((0..size).map(|at| policy(at, 0)));
    request.put_identities.extend((0..size).map(|at| identity(at, FIRST + at)));
    request
}

fn address(block: u8, at: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(block) << 24 | at)
}

/// A service with so many endpoints, which no other has.
fn service(at: u32, endpoints: u32) -> api::Service {
    let endpoint = |number| api::Endpoint { address: address(20, 2 * at + number).to_string(), port: 8080 };
    api::Service {
        number: FIRST + at,
        name: format!("service-{at}"),
        scope: Some(api::service::Scope::Router(ROUTER)),
        frontends: vec![api::Frontend { address: address(30, at).to_string(), protocol: 6, port: 80 }],
        endpoints: (0..endpoints).map(endpoint).collect(),
        affinity_timeout_s: 0,
    }
}

/// A policy of two rules, one of them about port `variant`.
fn policy(at: u32, variant: u32) -> api::Policy {
    let rule = |name: &str, peer: u32, port: u32| api::Rule {
        name: format!("policy-{at}/{name}"),
        peers: Some(api::Peers { identities: vec![peer] }),
        ports: Some(api::PortRanges {
            ranges: vec![api::PortRange { protocol: 6, first: port, last: port }],
        }),
        action: api::RuleAction::Allow.into(),
    };
    api::Policy {
        number: FIRST + at,
        name: format!("group-{at}"),
        egress: Vec::new(),
        ingress: vec![api::Tier {
            rules: vec![rule("a", FIRST + at, 80), rule("b", FIRST + at + 1, 1000 + variant % 1000)],
            isolated_by: format!("policy-{at}"),
        }],
    }
}

fn identity(at: u32, number: u32) -> api::Identity {
    api::Identity {
        scope: Some(api::identity::Scope::Router(ROUTER)),
        addresses: format!("{}/32", address(20, at)),
        identity: number,
    }
}

fn change_often(
    switch: &mut Millrace,
    change: Change,
    size: u32,
    version: &mut u64,
    interrupt: &Interrupt,
) -> anyhow::Result<Times> {
    let begin = Instant::now();
    let mut times_us = Vec::new();
    while (times_us.len() as u32) < CHANGES && begin.elapsed() < CHANGING {
        interrupt.check()?;
        let request = change.request(size, times_us.len() as u32, *version);
        let start = Instant::now();
        switch.apply(request)?;
        times_us.push(start.elapsed().as_micros() as u64);
        *version += 1;
    }
    times_us.sort_unstable();
    let at =
        |share| quantile(&times_us, share).map(|us| round(us as f64 / 1e3, 2)).context("nothing changed");
    Ok(Times { p50_ms: at(0.5)?, p99_ms: at(0.99)?, count: times_us.len() })
}

/// Busy cycles per packet of `work`, median.
fn packets(
    args: &ScaleArgs,
    switch: &mut Millrace,
    work: Work,
    interrupt: &Interrupt,
) -> anyhow::Result<f64> {
    let flows = Flows::Connections(services::exchange(work).tuples());
    let case = Case { flows, work, ..Case::plain(FrameKind::Plain(64)) };
    let mut traffic = Traffic::start(LoadKind::Tcp, case, switch.sockets(), args.place.cpus.load_cpu)?;
    let mut costs = Vec::new();
    for _ in 0..args.samples.repeats.rounds {
        interrupt.check()?;
        traffic.prepare()?;
        let mut before = WorkerCounters::default();
        traffic.run(Duration::from_millis(args.samples.sample_ms), &mut || {
            before = switch.counters()?;
            Ok(())
        })?;
        let worker = switch.counters()?.since(before);
        traffic.settle()?;
        costs.push(worker.busy_cycles as f64 / worker.frames as f64);
    }
    Ok(round(spread(costs).context("nothing was forwarded")?.median, 1))
}

/// What a bar shows.
type Value<'a> = &'a dyn Fn(&Outcome) -> f64;

impl publish::Report for Report {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn text(&self) -> String {
        let head = [
            "of each",
            "program ms",
            "MiB",
            "changed",
            "p50 ms",
            "p99 ms",
            "changes",
            "connection",
            "packet",
        ];
        let mut rows = Vec::new();
        for result in &self.results {
            for (change, times) in &result.changes {
                let is_first = *change == Change::Service;
                let once = |text: String| if is_first { text } else { String::new() };
                rows.push(vec![
                    once(short(result.size)),
                    once(format!("{:.0}", result.build_ms)),
                    once(format!("{:.0}", result.memory_mib)),
                    change.title().into(),
                    format!("{:.2}", times.p50_ms),
                    format!("{:.2}", times.p99_ms),
                    times.count.to_string(),
                    once(format!("{:.0}", result.cycles_per_connection)),
                    once(format!("{:.0}", result.cycles_per_packet)),
                ]);
            }
        }
        let Machine { cpu, cores, tsc_mhz, kernel, .. } = &self.machine;
        let empty = self.results.first().map_or(0.0, |result| result.empty_mib);
        format!(
            "\nservices, policies and identities, so many of each, in the switch of one node\n{cpu} ({cores} cores, \
             {tsc_mhz} MHz), {kernel}\n\n{}\nprogram: from nothing to forwarding by it. MiB: of the switch, which has \
             {empty:.0} without a program. changed: one of them, from the call to the answer.\nconnection, packet: the \
             worker's busy cycles for a connection of the row \"connections\" with one request, and for each packet of \
             those with a hundred.\n",
            table(&head, &rows)
        )
    }

    fn figure(&self) -> Figure {
        let panel = |title: &str, unit: &str, series: Vec<(&str, Color, Value<'_>)>| {
            let bars = |value: Value<'_>| {
                let bar = |result: &Outcome| Some(Bar { value: value(result), spread: None });
                self.results.iter().map(bar).collect()
            };
            Panel::Bars(BarChart {
                title: title.into(),
                unit: unit.into(),
                groups: self.results.iter().map(|result| short(result.size)).collect(),
                series: series
                    .into_iter()
                    .map(|(name, color, value)| BarSeries { name: name.into(), color, bars: bars(value) })
                    .collect(),
            })
        };
        let p99 =
            |change: Change| move |result: &Outcome| result.changes.get(&change).map_or(0.0, |it| it.p99_ms);
        Figure {
            title: "Services, policies, identities".into(),
            subtitle: "so many of each, in the switch of one node".into(),
            footer: format!("{}, {} MHz.", self.machine.cpu, self.machine.tsc_mhz),
            panels: vec![
                panel(
                    "One change",
                    "ms until all forward by it, 99th percentile",
                    vec![
                        ("a service", Color::MILLRACE, &p99(Change::Service)),
                        ("a policy", Color::PEER, &p99(Change::Policy)),
                        ("an identity", Color::PEER_LIGHT, &p99(Change::Identity)),
                    ],
                ),
                panel(
                    "A new connection",
                    "busy cycles",
                    vec![("eight packets", Color::MILLRACE, &|result| result.cycles_per_connection)],
                ),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_of_what_is_there_and_never_as_it_was() {
        for change in Change::ALL {
            let requests: Vec<_> = (0..3).map(|number| change.request(1, number, 1)).collect();
            assert!(requests.windows(2).all(|pair| pair[0] != pair[1]), "{change:?}");
        }
        assert_ne!(Change::Service.request(1, 0, 1).put_services[0], service(0, 2));
    }
}
