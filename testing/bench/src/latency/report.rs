//! What came out? Samples become medians within one label, goals that are met or not, a table, JSON and a chart.

use serde::Serialize;

use super::echo::MESSAGE_BYTES;
use super::goals::{Goal, goals};
use super::guests::FRAME_BYTES;
use super::{Load, Measure, Sample};
use crate::chart::{Bar, BarChart, BarSeries, Figure, Panel};
use crate::figures::{common_label, distinct, round, table};
use crate::machine::Machine;
use crate::pods::contender::Contender;
use crate::probe::Label;
use crate::publish;
use crate::stats::spread;

/// The row of the table of comparisons.
const ROW: &str = "latency";
/// The longest whisker of a chart, in heights of its highest bar.
const WHISKER: f64 = 2.0;

/// All results of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    results: Vec<Outcome>,
    ratios: Vec<Ratio>,
    goals: Vec<Goal>,
}

/// One subject with one load.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Outcome {
    row: &'static str,
    pub(super) subject: Contender,
    peer_version: String,
    frame_bytes: usize,
    flows: u32,
    #[serde(rename = "load", serialize_with = "name")]
    pub(super) kind: Load,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_us: Option<f64>,
    /// Of one core, without traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_fraction: Option<f64>,
    /// Of the median times, or of the fractions.
    min: f64,
    /// Of the median times, or of the fractions.
    max: f64,
    rounds: usize,
    /// Packets timed, in all rounds.
    packets: usize,
    /// None: no label in which all subjects were measured.
    label: Option<Label>,
}

/// Millrace over a peer.
#[derive(Debug, Clone, Serialize)]
struct Ratio {
    row: &'static str,
    #[serde(serialize_with = "name")]
    load: Load,
    frame_bytes: usize,
    flows: u32,
    metric: &'static str,
    millrace_over_peer: f64,
    peer: Contender,
    label: Option<Label>,
}

/// A load as people say it.
pub(super) fn title(load: Load) -> &'static str {
    match load {
        Load::PodsBusy => "pods, busy",
        Load::PodsIdle => "pods, idle",
        Load::PodsNone => "pods, no traffic",
        Load::GuestsBusy => "guests, busy",
        Load::GuestsWake => "guests, wake",
        Load::GuestsNone => "guests, no traffic",
    }
}

/// A load as programs read it.
pub(super) fn name<S: serde::Serializer>(load: &Load, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match load {
        Load::PodsBusy => "pods-tcp-rr",
        Load::PodsIdle => "pods-tcp-rr-idle",
        Load::PodsNone => "pods-none",
        Load::GuestsBusy => "vhost-ping",
        Load::GuestsWake => "vhost-wake",
        Load::GuestsNone => "vhost-none",
    })
}

impl Report {
    /// Compares `samples`, each load within one label.
    pub(super) fn new(machine: Machine, samples: &[Sample], versions: &[(Contender, String)]) -> Self {
        let mut results = Vec::new();
        for load in Load::PODS.into_iter().chain(Load::GUESTS) {
            let of_load: Vec<Sample> = samples.iter().filter(|sample| sample.load == load).copied().collect();
            let labels: Vec<_> = of_load.iter().map(|sample| (sample.contender, sample.label)).collect();
            // Without traffic it does not matter where the cores are.
            let label = if load.is_watch() { None } else { common_label(&labels) };
            for contender in distinct(of_load.iter().map(|sample| sample.contender)) {
                let comparable: Vec<Sample> = of_load
                    .iter()
                    .filter(|sample| sample.contender == contender)
                    .filter(|sample| label.is_none_or(|label| sample.label == label))
                    .copied()
                    .collect();
                let version = versions.iter().find(|(of, _)| *of == contender);
                let version = version.map_or(String::new(), |(_, version)| version.clone());
                results.extend(outcome(version, label, &comparable));
            }
        }
        let (ratios, goals) = (ratios(&results), goals(&results));
        Self { machine, results, ratios, goals }
    }

    fn cells(&self, result: &Outcome) -> Vec<String> {
        let time = |time: Option<f64>| time.map_or(String::new(), |time| format!("{time:.1}"));
        let same = |ratio: &&Ratio| {
            ratio.load == result.kind && ratio.peer == result.subject && ratio.metric == "p50_us"
        };
        let ratio = self.ratios.iter().find(same);
        vec![
            title(result.kind).into(),
            result.subject.title().into(),
            result.label.map_or("any".into(), |label| label.to_string()),
            time(result.p50_us),
            result.p50_us.map_or(String::new(), |_| format!("({:.1}..{:.1})", result.min, result.max)),
            time(result.p99_us),
            result.cpu_fraction.map_or(String::new(), |cpu| format!("{:.2} %", 100.0 * cpu)),
            result.rounds.to_string(),
            ratio.map_or(String::new(), |ratio| format!("{:.2}x of it", ratio.millrace_over_peer)),
        ]
    }

    /// One group per load, one bar per subject: the median, with a whisker to the 99th percentile.
    fn bars(&self, title: &str, loads: &[(Load, &str); 2]) -> BarChart {
        let of_panel = |result: &&Outcome| loads.iter().any(|(load, _)| *load == result.kind);
        let contenders = distinct(self.results.iter().filter(of_panel).map(|result| result.subject));
        let highest =
            self.results.iter().filter(of_panel).filter_map(|result| result.p50_us).fold(0.0, f64::max);
        let bar = |contender: Contender, load: Load| {
            let same = |result: &&Outcome| result.subject == contender && result.kind == load;
            let result = self.results.iter().find(same)?;
            let (p50, p99) = (result.p50_us?, result.p99_us?);
            // Beside an outlier of milliseconds, microseconds would not be seen.
            Some(Bar { value: p50, spread: Some((p50, p99.min(WHISKER * highest))) })
        };
        let series = |contender: Contender| BarSeries {
            // The panel says which ends.
            name: if contender.is_millrace() { "Millrace" } else { contender.title() }.into(),
            color: contender.color(),
            bars: loads.iter().map(|(load, _)| bar(contender, *load)).collect(),
        };
        BarChart {
            title: title.into(),
            unit: "microseconds, lower is better".into(),
            groups: loads.iter().map(|(_, name)| (*name).into()).collect(),
            series: contenders.into_iter().map(series).collect(),
        }
    }
}

impl publish::Report for Report {
    fn name(&self) -> &'static str {
        ROW
    }

    fn text(&self) -> String {
        let machine = &self.machine;
        let head =
            ["load", "subject", "cores", "p50 us", "(min..max)", "p99 us", "CPU", "samples", "Millrace p50"];
        let rows: Vec<Vec<String>> = self.results.iter().map(|result| self.cells(result)).collect();
        let goals: Vec<Vec<String>> = self.goals.iter().map(Goal::cells).collect();
        format!(
            "\nLatency and idleness\n{} ({} cores, {} MHz), {}; workers on CPU {}, load on CPU {}\n\n{}\n{}\npods: TCP \
             questions of {MESSAGE_BYTES} B and their answers, back to back (busy), or one each 10 ms (idle). guests: a \
             frame of {FRAME_BYTES} B to and fro,\neach guest blocks until it is signalled (busy), or one way, each 10 \
             ms, to a guest that looks all the time (wake).\nCPU: of one core, while nothing is sent: the whole program \
             between pods, the workers between guests.\n",
            machine.cpu,
            machine.cores,
            machine.tsc_mhz,
            machine.kernel,
            machine.worker_cpu,
            machine.load_cpu,
            table(&head, &rows),
            table(&["goal", "against", "measured", "limit", "met"], &goals),
        )
    }

    fn figure(&self) -> Figure {
        let panel = |title: &str, loads: [(Load, &str); 2]| {
            let chart = self.bars(title, &loads);
            (!chart.series.is_empty()).then_some(Panel::Bars(chart))
        };
        let panels = [
            panel("Kernel pods, TCP round trip", [(Load::PodsBusy, "busy"), (Load::PodsIdle, "idle")]),
            panel(
                "vhost-user guests",
                [(Load::GuestsBusy, "busy, round trip"), (Load::GuestsWake, "wake, one way")],
            ),
        ];
        Figure {
            title: "How long a small packet takes".into(),
            subtitle: format!(
                "Median; the whisker goes to the 99th percentile, but not beyond {WHISKER} times the highest bar"
            ),
            footer: format!(
                "{}, {} cores, {}. Interleaved samples, medians. Idle and wake: a packet each 10 ms.",
                self.machine.cpu, self.machine.cores, self.machine.kernel
            ),
            panels: panels.into_iter().flatten().collect(),
        }
    }
}

fn outcome(peer_version: String, label: Option<Label>, samples: &[Sample]) -> Option<Outcome> {
    let first = samples.first()?;
    let us = |ns: u64| ns as f64 / 1e3;
    let median = |value: &dyn Fn(&Measure) -> Option<f64>| {
        spread(samples.iter().filter_map(|sample| value(&sample.measure)))
    };
    let p50 = median(&|measure| match measure {
        Measure::Times { p50, .. } => Some(us(*p50)),
        Measure::Cpu(_) => None,
    });
    let p99 = median(&|measure| match measure {
        Measure::Times { p99, .. } => Some(us(*p99)),
        Measure::Cpu(_) => None,
    });
    let cpu = median(&|measure| match measure {
        Measure::Cpu(fraction) => Some(*fraction),
        Measure::Times { .. } => None,
    });
    let packets = samples.iter().map(|sample| match sample.measure {
        Measure::Times { count, .. } => count,
        Measure::Cpu(_) => 0,
    });
    let range = p50.or(cpu)?;
    let pods = Load::PODS.contains(&first.load);
    Some(Outcome {
        row: ROW,
        subject: first.contender,
        peer_version,
        frame_bytes: if pods { MESSAGE_BYTES } else { FRAME_BYTES },
        flows: 1,
        kind: first.load,
        p50_us: p50.map(|p50| round(p50.median, 2)),
        p99_us: p99.map(|p99| round(p99.median, 2)),
        cpu_fraction: cpu.map(|cpu| round(cpu.median, 5)),
        min: round(range.min, 5),
        max: round(range.max, 5),
        rounds: samples.len(),
        packets: packets.sum(),
        label,
    })
}

fn ratios(results: &[Outcome]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for ours in results.iter().filter(|result| result.subject.is_millrace()) {
        let same = |result: &&Outcome| !result.subject.is_millrace() && result.kind == ours.kind;
        for peer in results.iter().filter(same) {
            let metrics = [
                ("p50_us", ours.p50_us, peer.p50_us),
                ("p99_us", ours.p99_us, peer.p99_us),
                ("cpu_fraction", ours.cpu_fraction, peer.cpu_fraction.filter(|cpu| *cpu > 0.0)),
            ];
            ratios.extend(metrics.into_iter().filter_map(|(metric, ours_is, peer_is)| {
                Some(Ratio {
                    row: ROW,
                    load: ours.kind,
                    frame_bytes: ours.frame_bytes,
                    flows: ours.flows,
                    metric,
                    millrace_over_peer: round(ours_is? / peer_is?, 3),
                    peer: peer.subject,
                    label: ours.label,
                })
            }));
        }
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Report as _;

    fn sample(load: Load, contender: Contender, measure: Measure) -> Sample {
        Sample { load, contender, label: Label::Near, measure }
    }

    fn times(p50_us: u64, p99_us: u64) -> Measure {
        Measure::Times { p50: 1000 * p50_us, p99: 1000 * p99_us, count: 100 }
    }

    fn report() -> Report {
        let samples = [
            sample(Load::PodsBusy, Contender::MillraceTap, times(10, 20)),
            sample(Load::PodsBusy, Contender::Veth, times(30, 40)),
            sample(Load::GuestsWake, Contender::MillraceVhost, times(20, 60)),
            sample(Load::GuestsNone, Contender::MillraceVhost, Measure::Cpu(0.002)),
            sample(Load::GuestsNone, Contender::OvsVhost, Measure::Cpu(1.0)),
        ];
        Report::new(Machine::example(), &samples, &[(Contender::Veth, "6.18".into())])
    }

    #[test]
    fn report_when_compared_tells_ratios_and_goals() {
        let report = report();
        assert_eq!(report.ratios[0].millrace_over_peer, 0.333);
        let met: Vec<bool> = report.goals.iter().map(|goal| goal.met).collect();
        assert_eq!(met, [true, false, true], "{}", report.text());
        assert!(report.text().contains("0.33x of it"), "{}", report.text());
    }

    #[test]
    fn json_when_written_has_the_agreed_shape() {
        let json = serde_json::to_value(report()).unwrap();
        let busy = &json["results"][0];
        assert_eq!((&busy["row"], &busy["load"]), (&"latency".into(), &"pods-tcp-rr".into()));
        assert_eq!((busy["p50_us"].as_f64(), busy["p99_us"].as_f64()), (Some(10.0), Some(20.0)));
        assert!(busy.get("cpu_fraction").is_none());
        let last = json["results"].as_array().unwrap().last().unwrap();
        assert_eq!(last["cpu_fraction"].as_f64(), Some(1.0));
        assert!(json["ratios"].is_array() && json["goals"].is_array() && json["machine"].is_object());
    }

    #[test]
    fn chart_when_drawn_has_a_panel_for_each_kind_of_ends() {
        assert_eq!(report().figure().panels.len(), 2);
    }
}
