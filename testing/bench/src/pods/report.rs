//! What came out? Samples become medians within one label, and ratios of Millrace to each peer.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contender::{Contender, Spent};
use super::datagrams::{FRAME_BYTES, Flow};
use super::iperf::{Messages, Transfer};
use super::{Load, Measure, Sample, picture, table};
use crate::chart::Figure;
use crate::figures::{common_label, round};
use crate::machine::Machine;
use crate::probe::Label;
use crate::publish;
use crate::stats::{Spread, spread};

/// The row of the table of comparisons.
const ROW: &str = "pods";

/// All results of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) results: Vec<Outcome>,
    pub(super) ratios: Vec<Ratio>,
    #[serde(skip)]
    pub(super) messages: Messages,
}

/// One subject with one load.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Outcome {
    row: &'static str,
    pub(super) subject: Contender,
    pub(super) peer_version: String,
    /// Of UDP; for TCP the bytes of a message, which is no frame. The name is shared by all rows.
    frame_bytes: u64,
    flows: u32,
    load: &'static str,
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// Of the rate.
    pub(super) min: f64,
    /// Of the rate.
    pub(super) max: f64,
    pub(super) rounds: usize,
    /// None: no label in which all subjects were measured.
    pub(super) label: Option<Label>,
    #[serde(skip)]
    pub(super) kind: Load,
}

/// The medians of a load.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Figures {
    Stream {
        gbps: f64,
        /// CPU time of the switch's program for each GB received; zero for the kernel.
        switch_cpu_s_per_gb: f64,
        /// CPU time of everything on the machine for each GB received.
        machine_cpu_s_per_gb: f64,
        retransmits: f64,
    },
    Packets {
        mpps: f64,
        /// CPU time of the switch's program for each packet received; zero for the kernel.
        switch_cpu_ns_per_packet: f64,
        /// CPU time of everything on the machine for each packet received.
        machine_cpu_ns_per_packet: f64,
        lost_fraction: f64,
        /// Of the time: near 0, the sender is the limit.
        sender_waited_fraction: f64,
    },
}

/// Millrace over a peer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ratio {
    row: &'static str,
    pub(super) subject: Contender,
    frame_bytes: u64,
    flows: u32,
    metric: &'static str,
    pub(super) millrace_over_peer: f64,
    pub(super) peer: Contender,
    label: Option<Label>,
    #[serde(skip)]
    pub(super) kind: Load,
}

impl Report {
    /// Compares `samples`, each load within one label.
    pub(super) fn new(
        machine: Machine,
        messages: Messages,
        samples: &[Sample],
        versions: &[(Contender, String)],
    ) -> Self {
        let mut by_load: BTreeMap<Load, Vec<Sample>> = BTreeMap::new();
        for sample in samples {
            by_load.entry(sample.load).or_default().push(*sample);
        }
        let mut results = Vec::new();
        for (load, samples) in by_load {
            let labels: Vec<_> = samples.iter().map(|sample| (sample.contender, sample.label)).collect();
            let label = common_label(&labels);
            for (contender, version) in versions {
                let comparable: Vec<Measure> = samples
                    .iter()
                    .filter(|sample| sample.contender == *contender)
                    .filter(|sample| label.is_none_or(|label| sample.label == label))
                    .map(|sample| sample.measure)
                    .collect();
                let figures = figures(&comparable);
                results.extend(figures.map(|(figures, Spread { min, max, .. })| Outcome {
                    row: ROW,
                    subject: *contender,
                    peer_version: version.clone(),
                    frame_bytes: frame_bytes(load),
                    flows: 1,
                    load: name(load, messages),
                    figures,
                    min: round(min, 4),
                    max: round(max, 4),
                    rounds: comparable.len(),
                    label,
                    kind: load,
                }));
            }
        }
        let ratios = ratios(&results);
        Self { machine, results, ratios, messages }
    }
}

impl publish::Report for Report {
    fn name(&self) -> &'static str {
        ROW
    }

    fn text(&self) -> String {
        table::text(self)
    }

    fn figure(&self) -> Figure {
        picture::figure(self)
    }
}

impl Outcome {
    /// Gbit/s, or million packets per second.
    pub(super) fn rate(&self) -> f64 {
        match self.figures {
            Figures::Stream { gbps, .. } => gbps,
            Figures::Packets { mpps, .. } => mpps,
        }
    }

    fn metric(&self) -> &'static str {
        match self.figures {
            Figures::Stream { .. } => "gbps",
            Figures::Packets { .. } => "mpps",
        }
    }
}

fn frame_bytes(load: Load) -> u64 {
    match load {
        Load::Stream { message_bytes } => message_bytes,
        Load::Packets => FRAME_BYTES as u64,
    }
}

/// A load as programs read it.
fn name(load: Load, messages: Messages) -> &'static str {
    match (load, messages) {
        (Load::Stream { .. }, Messages::Apart) => "iperf3",
        (Load::Stream { .. }, Messages::Together) => "iperf3-coalesce",
        (Load::Packets, _) => "udp",
    }
}

/// The medians of samples of one subject and load, and what their rates vary between.
fn figures(samples: &[Measure]) -> Option<(Figures, Spread)> {
    let streams: Vec<(Transfer, Spent)> = samples.iter().filter_map(Measure::stream).collect();
    let packets: Vec<(Flow, Spent)> = samples.iter().filter_map(Measure::packets).collect();
    if packets.is_empty() { stream_figures(&streams) } else { packet_figures(&packets) }
}

fn stream_figures(samples: &[(Transfer, Spent)]) -> Option<(Figures, Spread)> {
    let over = |value: &dyn Fn(&(Transfer, Spent)) -> f64| spread(samples.iter().map(value));
    let rate = over(&|(transfer, _)| transfer.gbps)?;
    // Seconds for a GB are nanoseconds for a byte.
    let switch = over(&|(transfer, spent)| spent.switch_ns as f64 / transfer.bytes)?;
    let machine = over(&|(transfer, spent)| spent.machine_ns as f64 / transfer.bytes)?;
    let figures = Figures::Stream {
        gbps: round(rate.median, 3),
        switch_cpu_s_per_gb: round(switch.median, 3),
        machine_cpu_s_per_gb: round(machine.median, 3),
        retransmits: over(&|(transfer, _)| transfer.retransmits)?.median,
    };
    Some((figures, rate))
}

fn packet_figures(samples: &[(Flow, Spent)]) -> Option<(Figures, Spread)> {
    let over = |value: &dyn Fn(&(Flow, Spent)) -> f64| spread(samples.iter().map(value));
    let rate = over(&|(flow, _)| flow.mpps())?;
    let switch = over(&|(flow, spent)| spent.switch_ns as f64 / flow.packets as f64)?;
    let machine = over(&|(flow, spent)| spent.machine_ns as f64 / flow.packets as f64)?;
    let figures = Figures::Packets {
        mpps: round(rate.median, 4),
        switch_cpu_ns_per_packet: round(switch.median, 1),
        machine_cpu_ns_per_packet: round(machine.median, 1),
        lost_fraction: round(over(&|(flow, _)| flow.lost_fraction)?.median, 5),
        sender_waited_fraction: round(over(&|(flow, _)| flow.waited_fraction)?.median, 3),
    };
    Some((figures, rate))
}

impl Measure {
    fn stream(&self) -> Option<(Transfer, Spent)> {
        match self {
            Self::Stream { transfer, spent } => Some((*transfer, *spent)),
            Self::Packets { .. } => None,
        }
    }

    fn packets(&self) -> Option<(Flow, Spent)> {
        match self {
            Self::Packets { flow, spent } => Some((*flow, *spent)),
            Self::Stream { .. } => None,
        }
    }
}

fn ratios(results: &[Outcome]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for ours in results.iter().filter(|result| result.subject.is_millrace()) {
        let same = |result: &&Outcome| !result.subject.is_millrace() && result.kind == ours.kind;
        ratios.extend(results.iter().filter(same).map(|peer| Ratio {
            row: ROW,
            subject: ours.subject,
            frame_bytes: ours.frame_bytes,
            flows: ours.flows,
            metric: ours.metric(),
            millrace_over_peer: round(ours.rate() / peer.rate(), 3),
            peer: peer.subject,
            label: ours.label,
            kind: ours.kind,
        }));
    }
    ratios
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::publish::Report as _;

    const SPENT: Spent = Spent { switch_ns: 500_000_000, machine_ns: 2_000_000_000 };

    /// One message of 1500 B, at `gbps`.
    pub(in crate::pods) fn stream(contender: Contender, label: Label, gbps: f64) -> Sample {
        let transfer = Transfer { gbps, bytes: 1e9, retransmits: 0.0 };
        let load = Load::Stream { message_bytes: 1500 };
        Sample { load, contender, label, measure: Measure::Stream { transfer, spent: SPENT } }
    }

    /// Small packets at `mpps`.
    pub(in crate::pods) fn packets(contender: Contender, mpps: f64) -> Sample {
        let flow = Flow {
            packets: (1e6 * mpps) as u64,
            elapsed: Duration::from_secs(1),
            lost_fraction: 0.0,
            waited_fraction: 0.25,
        };
        let measure = Measure::Packets { flow, spent: SPENT };
        Sample { load: Load::Packets, contender, label: Label::Near, measure }
    }

    pub(in crate::pods) fn report(samples: &[Sample]) -> Report {
        let contenders =
            [Contender::MillraceTap, Contender::MillraceVduse, Contender::Veth, Contender::OvsTap];
        let versions = contenders.map(|who| (who, "1".into()));
        Report::new(Machine::example(), Messages::Apart, samples, &versions)
    }

    #[test]
    fn report_when_labels_differ_compares_within_one() {
        let report = report(&[
            stream(Contender::MillraceTap, Label::Near, 9.0),
            stream(Contender::MillraceTap, Label::Far, 3.0),
            stream(Contender::Veth, Label::Far, 2.0),
        ]);
        assert_eq!(report.results.len(), 2);
        assert_eq!(report.results[0].label, Some(Label::Far));
        assert_eq!(report.ratios[0].millrace_over_peer, 1.5);
    }

    #[test]
    fn report_when_no_label_is_common_takes_all() {
        let report = report(&[
            stream(Contender::MillraceTap, Label::Near, 9.0),
            stream(Contender::OvsTap, Label::Far, 3.0),
        ]);
        assert_eq!(report.results[0].label, None);
        assert_eq!(report.ratios[0].millrace_over_peer, 3.0);
    }

    #[test]
    fn json_when_written_has_the_agreed_shape() {
        let report = report(&[
            stream(Contender::MillraceTap, Label::Near, 9.0),
            stream(Contender::Veth, Label::Near, 3.0),
        ]);
        let json = serde_json::to_value(&report).unwrap();
        let result = json["results"][0].as_object().unwrap();
        for key in
            ["row", "subject", "peer_version", "frame_bytes", "flows", "load", "gbps", "min", "max", "rounds"]
        {
            assert!(result.contains_key(key), "{key}");
        }
        assert_eq!(result["switch_cpu_s_per_gb"].as_f64(), Some(0.5));
        assert_eq!(json["ratios"][0]["peer"], "veth-bridge");
        assert_eq!(json["ratios"][0]["metric"], "gbps");
        assert!(json["machine"].is_object());
    }

    #[test]
    fn json_of_packets_has_their_rate_and_cost_for_each_kind_of_port() {
        let report = report(&[
            packets(Contender::MillraceTap, 0.5),
            packets(Contender::MillraceVduse, 2.0),
            packets(Contender::Veth, 1.0),
        ]);
        assert_eq!(report.name(), "pods");
        let json = serde_json::to_value(&report).unwrap();
        let vduse = &json["results"][1];
        assert_eq!((&vduse["subject"], &vduse["load"]), (&"millrace-vduse".into(), &"udp".into()));
        assert_eq!((vduse["frame_bytes"].as_u64(), vduse["mpps"].as_f64()), (Some(64), Some(2.0)));
        assert_eq!(vduse["switch_cpu_ns_per_packet"].as_f64(), Some(250.0));
        assert!(vduse.get("gbps").is_none());
        let ratio = |index: usize| {
            let ratio = &json["ratios"][index];
            (ratio["subject"].as_str(), ratio["metric"].as_str(), ratio["millrace_over_peer"].as_f64())
        };
        assert_eq!(ratio(0), (Some("millrace"), Some("mpps"), Some(0.5)));
        assert_eq!(ratio(1), (Some("millrace-vduse"), Some("mpps"), Some(2.0)));
    }
}
