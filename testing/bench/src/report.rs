//! What came out? Samples become results within one label, a table, JSON and a chart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use guest::load::Flows;
use serde::Serialize;

use crate::case::{Case, FrameKind, Work, short};
use crate::chart::{Bar, BarChart, BarSeries, Color, Figure, Panel};
use crate::figures::{common_label, distinct, round};
use crate::lab::Sample;
use crate::machine::Machine;
use crate::probe::Label;
use crate::publish;
use crate::stats::{Spread, spread};
use crate::subject::Subject;
use crate::traffic::LoadKind;

/// A row of the table of comparisons.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// In the JSON, and the picture's file name.
    pub(crate) name: &'static str,
    /// Above the table.
    pub(crate) title: &'static str,
    /// On the picture.
    pub(crate) slide: &'static str,
    /// How to read it.
    pub(crate) notes: &'static str,
}

/// The metric by which costs are compared.
const CYCLES: &str = "busy_cycles_per_packet";

/// All results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    results: Vec<Outcome>,
    ratios: Vec<Ratio>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<Kept>,
    #[serde(skip)]
    load: LoadKind,
    #[serde(skip)]
    row: Row,
}

/// One subject in one case.
#[derive(Debug, Clone, Serialize)]
struct Outcome {
    row: &'static str,
    subject: Subject,
    peer_version: String,
    frame_bytes: usize,
    flows: u32,
    load: &'static str,
    mpps: f64,
    gbps: f64,
    busy_cycles_per_packet: f64,
    busy_fraction: f64,
    /// Connections opened, used and closed in a second, in thousands; 0 where there are none.
    kconnections_per_s: f64,
    /// The worker's busy cycles for each of them.
    busy_cycles_per_connection: f64,
    /// Of the busy cycles per packet.
    min: f64,
    /// Of the busy cycles per packet.
    max: f64,
    rounds: usize,
    label: Label,
    /// Samples that something else on the worker's CPU disturbed: only when there were no others.
    disturbed: bool,
    /// While somebody attacked.
    attacked: bool,
    #[serde(skip)]
    case: Case,
    #[serde(skip)]
    lost_fraction: f64,
}

/// Millrace over a peer.
#[derive(Debug, Clone, Serialize)]
struct Ratio {
    row: &'static str,
    frame_bytes: usize,
    flows: u32,
    metric: &'static str,
    millrace_over_peer: f64,
    peer: Subject,
    label: Label,
    attacked: bool,
    #[serde(skip)]
    case: Case,
}

/// What an attack leaves of a subject: attacked over not attacked.
#[derive(Debug, Clone, Serialize)]
struct Kept {
    subject: Subject,
    packets: f64,
    cycles: f64,
}

impl Report {
    /// Compares `samples`, each case within the label of which there are most.
    pub(crate) fn new(
        machine: Machine,
        row: Row,
        load: LoadKind,
        samples: &[Sample],
        versions: &[(Subject, String)],
    ) -> Self {
        let mut by_case: BTreeMap<Case, Vec<&Sample>> = BTreeMap::new();
        for sample in samples {
            by_case.entry(sample.case).or_default().push(sample);
        }
        let mut results = Vec::new();
        for samples in by_case.values() {
            let (label, comparable) = comparable(samples);
            for (subject, samples) in by_subject(&comparable) {
                let version = versions.iter().find(|(of, _)| *of == subject);
                let version = version.map_or(String::new(), |(_, version)| version.clone());
                results.extend(outcome(subject, version, (row, load), label, &samples));
            }
        }
        let ratios = ratios(&results);
        let kept = kept(&results);
        Self { machine, results, ratios, kept, load, row }
    }

    fn line(&self, result: &Outcome) -> String {
        let cost = self.ratio(result, CYCLES);
        let mark = if result.disturbed { "*" } else { "" };
        format!(
            "{:<26} {:<5} {:<17} {:>8.2} {:>8.2} {:>8} {:>15} {:>5.0}% {:>7}  {}",
            result.case.title(),
            result.label,
            result.subject.title(),
            result.mpps,
            result.gbps,
            format!("{:.0}{mark}", result.busy_cycles_per_packet),
            format!("({:.0}..{:.0})", result.min, result.max),
            100.0 * result.busy_fraction,
            result.rounds,
            cost.map_or(String::new(), |ratio| format!("{ratio:.2}x of it")),
        )
        .trim_end()
        .to_owned()
    }

    fn ratio(&self, peer: &Outcome, metric: &str) -> Option<f64> {
        let same =
            |ratio: &&Ratio| ratio.peer == peer.subject && ratio.case == peer.case && ratio.metric == metric;
        self.ratios.iter().find(same).map(|ratio| ratio.millrace_over_peer)
    }

    /// Millrace's busy cycles per packet over those of OVS-DPDK as a learning switch, by case.
    pub(crate) fn cycle_ratios(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        let wanted = |ratio: &&Ratio| ratio.peer == Subject::OvsNormal && ratio.metric == CYCLES;
        self.ratios.iter().filter(wanted).map(|ratio| (ratio.case.title(), ratio.millrace_over_peer))
    }
}

impl publish::Report for Report {
    fn name(&self) -> &'static str {
        self.row.name
    }

    fn text(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "\n{}, load: {}\n{} ({} cores, {} MHz), {}; worker on CPU {}, load on CPU {}\n\n{:<26} {:<5} {:<17} {:>8} \
             {:>8} {:>8} {:>15} {:>6} {:>7}  {}\n",
            self.row.title,
            self.load.name(),
            machine.cpu,
            machine.cores,
            machine.tsc_mhz,
            machine.kernel,
            machine.worker_cpu,
            machine.load_cpu,
            "case",
            "cores",
            "subject",
            "Mpps",
            "Gbit/s",
            "cycles",
            "(min..max)",
            "busy",
            "samples",
            "Millrace costs",
        );
        for result in &self.results {
            // A write into a String cannot fail.
            let _ = writeln!(text, "{}", self.line(result));
        }
        text.push_str(
            "\ncycles: busy cycles of the worker per packet, median. cores: how far apart worker and load were \
             (round trip of a cache line).\n",
        );
        let _ = writeln!(text, "{}", self.row.notes);
        for result in self.results.iter().filter(|result| result.kconnections_per_s > 0.0) {
            let Outcome { kconnections_per_s, busy_cycles_per_connection: each, .. } = result;
            let of_core = machine.tsc_mhz as f64 * 1e3 / each;
            let (title, case) = (result.subject.title(), result.case.title());
            let _ = writeln!(
                text,
                "{title}, {case}: {kconnections_per_s:.1} thousand connections/s, {each:.0} cycles each: {of_core:.1} \
                 thousand/s of a busy core."
            );
        }
        for Kept { subject, packets, cycles } in &self.kept {
            let (title, share) = (subject.title(), 100.0 * packets);
            let _ = writeln!(
                text,
                "{title} under attack: {share:.0} % of its packets/s, {cycles:.2}x its cycles."
            );
        }
        if self.results.iter().any(|result| result.disturbed) {
            text.push_str(
                "* something else ran on the worker's CPU in every sample: take these figures with care.\n",
            );
        }
        for result in self.results.iter().filter(|result| result.lost_fraction > 0.001) {
            let lost = 100.0 * result.lost_fraction;
            let _ = writeln!(
                text,
                "! {} with {}: {lost:.2} % of the frames were lost.",
                result.subject.title(),
                result.case.title()
            );
        }
        text
    }

    fn figure(&self) -> Figure {
        let large = |result: &&Outcome| result.case.frame == FrameKind::Large;
        let plain: Vec<&Outcome> = self.results.iter().filter(|result| !large(result)).collect();
        let tso: Vec<&Outcome> = self.results.iter().filter(large).collect();
        let mut panels = Vec::new();
        // Under an attack a switch may do much else than forward: what a packet costs then is no picture.
        if !plain.is_empty() && self.kept.is_empty() {
            panels.push(Panel::Bars(bars(
                "Cost of a packet",
                "busy cycles, lower is better",
                &plain,
                |result| Bar { value: result.busy_cycles_per_packet, spread: Some((result.min, result.max)) },
            )));
        }
        if !plain.is_empty() {
            panels.push(Panel::Bars(bars(
                "Throughput",
                "million packets/s, higher is better",
                &plain,
                |result| Bar { value: result.mpps, spread: None },
            )));
        }
        if !tso.is_empty() {
            panels.push(Panel::Bars(bars(
                "TCP segments",
                "Gbit/s per busy core, higher is better",
                &tso,
                |result| Bar { value: result.gbps / result.busy_fraction.max(0.001), spread: None },
            )));
        }
        let peer = self.results.iter().find(|result| result.subject.is_ovs());
        let version = peer.map_or(String::new(), |peer| format!(", OVS {}", peer.peer_version));
        Figure {
            title: self.row.slide.into(),
            subtitle: format!("{}, {} load{version}", self.row.title, self.load.name()),
            footer: format!(
                "{}, {} MHz. Interleaved samples, medians; the whisker is min to max. Cores: {}.",
                self.machine.cpu,
                self.machine.tsc_mhz,
                labels(&self.results)
            ),
            panels,
        }
    }
}

fn labels(results: &[Outcome]) -> String {
    let labels = distinct(results.iter().map(|result| result.label));
    labels.iter().map(Label::to_string).collect::<Vec<_>>().join(", ")
}

fn bars(title: &str, unit: &str, results: &[&Outcome], bar: impl Fn(&Outcome) -> Bar) -> BarChart {
    let cases = distinct(results.iter().map(|result| result.case));
    let subjects = distinct(results.iter().map(|result| result.subject));
    let series = subjects
        .into_iter()
        .map(|subject| BarSeries {
            name: subject.title().into(),
            color: color(subject),
            bars: cases
                .iter()
                .map(|case| {
                    let found = |result: &&&Outcome| result.subject == subject && result.case == *case;
                    results.iter().find(found).map(|result| bar(result))
                })
                .collect(),
        })
        .collect();
    BarChart {
        title: title.into(),
        unit: unit.into(),
        groups: cases.iter().map(|case| name(*case, &cases)).collect(),
        series,
    }
}

/// What tells `case` from the others of its picture.
fn name(case: Case, all: &[Case]) -> String {
    match case {
        Case { attacked: true, .. } => "attacked".into(),
        Case { work: Work::Connections { requests }, .. } => format!("{requests} requests"),
        Case { work: Work::Denied, .. } => "denied".into(),
        _ if all.iter().any(|case| case.attacked) => "not attacked".into(),
        Case { flows: Flows::One, frame, .. } => frame.title(),
        Case { flows, .. } => short(flows.count()),
    }
}

fn color(subject: Subject) -> Color {
    match subject {
        Subject::Millrace => Color::MILLRACE,
        Subject::OvsNormal | Subject::OvsConntrack => Color::PEER,
        Subject::OvsInPort | Subject::OvsRules => Color::PEER_LIGHT,
        Subject::Limit => Color::PEER,
        Subject::Copy => Color::PEER_LIGHT,
    }
}

/// The samples to compare: of one label, undisturbed if there are such for every subject.
fn comparable<'a>(samples: &[&'a Sample]) -> (Label, Vec<&'a Sample>) {
    let quiet: Vec<&Sample> = samples.iter().copied().filter(|sample| !sample.is_disturbed()).collect();
    let subjects = by_subject(samples).len();
    for candidates in [quiet.as_slice(), samples] {
        let labels: Vec<_> = candidates.iter().map(|sample| (sample.subject, sample.label)).collect();
        if by_subject(candidates).len() == subjects
            && let Some(label) = common_label(&labels)
        {
            return (label, candidates.iter().copied().filter(|sample| sample.label == label).collect());
        }
    }
    (Label::Mix, samples.to_vec())
}

fn by_subject<'a>(samples: &[&'a Sample]) -> BTreeMap<Subject, Vec<&'a Sample>> {
    let mut groups: BTreeMap<Subject, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        groups.entry(sample.subject).or_default().push(sample);
    }
    groups
}

fn outcome(
    subject: Subject,
    peer_version: String,
    (row, load): (Row, LoadKind),
    label: Label,
    samples: &[&Sample],
) -> Option<Outcome> {
    let case = samples.first()?.case;
    let median = |value: &dyn Fn(&Sample) -> f64| spread(samples.iter().map(|sample| value(sample)));
    let rate = |sample: &Sample| sample.frames as f64 / sample.elapsed.as_secs_f64();
    let Spread { median: cycles, min, max } =
        median(&|sample| sample.worker.busy_cycles as f64 / sample.worker.frames as f64)?;
    let busy = median(&|sample| {
        let all = sample.worker.busy_cycles + sample.worker.idle_cycles;
        sample.worker.busy_cycles as f64 / all as f64
    })?;
    let lost: u64 = samples.iter().map(|sample| sample.lost).sum();
    let frames: u64 = samples.iter().map(|sample| sample.frames).sum();
    let pps = median(&rate)?.median;
    let connections = median(&|sample| sample.connections as f64 / sample.elapsed.as_secs_f64())?.median;
    let each = median(&|sample| sample.worker.busy_cycles as f64 / sample.connections as f64);
    Some(Outcome {
        row: row.name,
        subject,
        peer_version,
        frame_bytes: case.frame.bytes(),
        flows: case.flows.count(),
        load: load.name(),
        mpps: round(pps / 1e6, 3),
        gbps: round(pps * case.frame.bytes() as f64 * 8.0 / 1e9, 3),
        busy_cycles_per_packet: round(cycles, 1),
        busy_fraction: round(busy.median, 4),
        kconnections_per_s: round(connections / 1e3, 1),
        busy_cycles_per_connection: round(each.map_or(0.0, |each| each.median), 0),
        min: round(min, 1),
        max: round(max, 1),
        rounds: samples.len(),
        label,
        disturbed: samples.iter().any(|sample| sample.is_disturbed()),
        attacked: case.attacked,
        case,
        lost_fraction: lost as f64 / frames.max(1) as f64,
    })
}

fn ratios(results: &[Outcome]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for ours in results.iter().filter(|result| result.subject == Subject::Millrace) {
        let peers =
            results.iter().filter(|result| result.subject != Subject::Millrace && result.case == ours.case);
        for peer in peers {
            let mut metrics = vec![
                (CYCLES, ours.busy_cycles_per_packet / peer.busy_cycles_per_packet),
                ("mpps", ours.mpps / peer.mpps),
                ("gbps", ours.gbps / peer.gbps),
            ];
            if peer.kconnections_per_s > 0.0 {
                metrics.push(("connections", ours.kconnections_per_s / peer.kconnections_per_s));
                let each = ours.busy_cycles_per_connection / peer.busy_cycles_per_connection;
                metrics.push(("busy_cycles_per_connection", each));
            }
            ratios.extend(metrics.into_iter().map(|(metric, ratio)| Ratio {
                row: ours.row,
                frame_bytes: ours.frame_bytes,
                flows: ours.flows,
                metric,
                millrace_over_peer: round(ratio, 3),
                peer: peer.subject,
                label: ours.label,
                attacked: ours.attacked,
                case: ours.case,
            }));
        }
    }
    ratios
}

fn kept(results: &[Outcome]) -> Vec<Kept> {
    let of = |attacked: &Outcome| {
        let case = Case { attacked: false, ..attacked.case };
        let quiet = results.iter().find(|quiet| quiet.subject == attacked.subject && quiet.case == case)?;
        Some(Kept {
            subject: attacked.subject,
            packets: round(attacked.mpps / quiet.mpps, 3),
            cycles: round(attacked.busy_cycles_per_packet / quiet.busy_cycles_per_packet, 3),
        })
    };
    results.iter().filter(|result| result.attacked).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::publish::Report as _;
    use crate::subject::WorkerCounters;

    fn sample(subject: Subject, label: Label, cycles: u64, waited_ns: u64) -> Sample {
        Sample {
            case: Case::plain(FrameKind::Plain(64)),
            subject,
            label,
            frames: 1000,
            lost: 0,
            connections: 0,
            elapsed: Duration::from_millis(1),
            worker: WorkerCounters {
                frames: 1000,
                busy_cycles: 1000 * cycles,
                idle_cycles: 1000 * cycles,
                waited_ns,
            },
        }
    }

    fn report(samples: &[Sample]) -> Report {
        let versions = [(Subject::Millrace, "0.1".into()), (Subject::OvsNormal, "3.1".into())];
        Report::new(Machine::example(), crate::rows::VHOST, LoadKind::Light, samples, &versions)
    }

    #[test]
    fn report_when_labels_differ_compares_within_one() {
        let report = report(&[
            sample(Subject::Millrace, Label::Near, 100, 0),
            sample(Subject::OvsNormal, Label::Far, 600, 0),
            sample(Subject::Millrace, Label::Far, 300, 0),
            sample(Subject::OvsNormal, Label::Far, 500, 0),
            sample(Subject::OvsNormal, Label::Far, 700, 0),
        ]);
        assert!(report.results.iter().all(|result| result.label == Label::Far));
        assert_eq!(report.results[1].rounds, 3);
        assert_eq!(report.ratios[0].metric, "busy_cycles_per_packet");
        assert_eq!(report.ratios[0].millrace_over_peer, 0.5);
        assert!(report.text().contains("0.50x of it"), "{}", report.text());
    }

    #[test]
    fn report_when_a_case_is_attacked_says_what_is_left() {
        let mut attacked = sample(Subject::Millrace, Label::Near, 110, 0);
        attacked.case.attacked = true;
        attacked.elapsed *= 2;
        let report = report(&[sample(Subject::Millrace, Label::Near, 100, 0), attacked]);
        assert!(report.text().contains("Millrace under attack: 50 % of its packets/s, 1.10x its cycles."));
    }

    #[test]
    fn report_when_samples_are_disturbed_prefers_the_others() {
        let report = report(&[
            sample(Subject::Millrace, Label::Near, 900, 500_000),
            sample(Subject::Millrace, Label::Near, 100, 0),
            sample(Subject::OvsNormal, Label::Near, 200, 0),
        ]);
        assert_eq!(report.ratios[0].millrace_over_peer, 0.5);
        assert!(!report.results[0].disturbed);
    }

    #[test]
    fn json_when_written_has_the_agreed_shape() {
        let report = report(&[sample(Subject::Millrace, Label::Near, 100, 0)]);
        let json = serde_json::to_value(&report).unwrap();
        let result = json["results"][0].as_object().unwrap();
        for key in [
            "row",
            "subject",
            "peer_version",
            "frame_bytes",
            "flows",
            "load",
            "mpps",
            "gbps",
            "busy_cycles_per_packet",
            "busy_fraction",
            "min",
            "max",
            "rounds",
        ] {
            assert!(result.contains_key(key), "{key}");
        }
        assert!(json["machine"].is_object() && json["ratios"].is_array());
    }
}
