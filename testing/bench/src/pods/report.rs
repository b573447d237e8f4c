//! What came out? Samples become medians within one label, a table, JSON and a chart.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::Sample;
use super::contender::Contender;
use super::iperf::Messages;
use crate::chart::{Bar, BarChart, BarSeries, Figure, Panel};
use crate::figures::{common_label, distinct, round, table};
use crate::machine::Machine;
use crate::probe::Label;
use crate::stats::spread;

/// The row of the table of comparisons.
const ROW: &str = "pods";
/// Messages from here on have a panel of their own: they move ten times as much.
const LARGE_BYTES: u64 = 4096;

/// All results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    results: Vec<Outcome>,
    ratios: Vec<Ratio>,
    #[serde(skip)]
    messages: Messages,
}

/// One subject with one message size.
#[derive(Debug, Clone, Serialize)]
struct Outcome {
    row: &'static str,
    subject: Contender,
    peer_version: String,
    /// Bytes of a message, not of a frame; the name is shared by all rows.
    frame_bytes: u64,
    flows: u32,
    load: &'static str,
    gbps: f64,
    /// Of the Gbit/s.
    min: f64,
    /// Of the Gbit/s.
    max: f64,
    rounds: usize,
    /// CPU time of the switch's program for each GB received; zero for the kernel.
    switch_cpu_s_per_gb: f64,
    /// CPU time of everything on the machine for each GB received.
    machine_cpu_s_per_gb: f64,
    retransmits: f64,
    /// None: no label in which all subjects were measured.
    label: Option<Label>,
}

/// Millrace over a peer.
#[derive(Debug, Clone, Serialize)]
struct Ratio {
    row: &'static str,
    frame_bytes: u64,
    flows: u32,
    metric: &'static str,
    millrace_over_peer: f64,
    peer: Contender,
    label: Option<Label>,
}

impl Report {
    /// Compares `samples`, each message size within one label.
    pub(crate) fn new(
        machine: Machine,
        messages: Messages,
        samples: &[Sample],
        versions: &[(Contender, String)],
    ) -> Self {
        let mut by_size: BTreeMap<u64, Vec<Sample>> = BTreeMap::new();
        for sample in samples {
            by_size.entry(sample.message_bytes).or_default().push(*sample);
        }
        let mut results = Vec::new();
        for samples in by_size.values() {
            let labels: Vec<_> = samples.iter().map(|sample| (sample.contender, sample.label)).collect();
            let label = common_label(&labels);
            for (contender, version) in versions {
                let comparable: Vec<Sample> = samples
                    .iter()
                    .filter(|sample| sample.contender == *contender)
                    .filter(|sample| label.is_none_or(|label| sample.label == label))
                    .copied()
                    .collect();
                let outcome = outcome(messages, label, &comparable);
                results.extend(outcome.map(|outcome| Outcome { peer_version: version.clone(), ..outcome }));
            }
        }
        let ratios = ratios(&results);
        Self { machine, results, ratios, messages }
    }

    /// The table, to stdout.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(self.text().as_bytes()).context("cannot write to stdout")
    }

    fn text(&self) -> String {
        let machine = &self.machine;
        let head = [
            "message",
            "subject",
            "cores",
            "Gbit/s",
            "(min..max)",
            "switch s/GB",
            "machine s/GB",
            "samples",
            "Millrace has",
        ];
        let rows: Vec<Vec<String>> = self.results.iter().map(|result| self.cells(result)).collect();
        let manner = match self.messages {
            Messages::Apart => "TCP_NODELAY (what waits still leaves together: a message is no frame)",
            Messages::Together => "the kernel may put small messages together",
        };
        format!(
            "\nTCP between two kernel pods, one stream by iperf3; {manner}\n{} ({} cores, {} MHz), {}; switches on CPU \
             {}, load anywhere\n\n{}\nGbit/s: payload received, median. s/GB: seconds of CPU time for each GB, of the \
             switch's program and of the whole machine.\nOVS forwards by actions=NORMAL, between type=tap ports with \
             userspace-tso, and between veth ends that a PMD polls.\n",
            machine.cpu,
            machine.cores,
            machine.tsc_mhz,
            machine.kernel,
            machine.worker_cpu,
            table(&head, &rows),
        )
    }

    fn cells(&self, result: &Outcome) -> Vec<String> {
        let same = |ratio: &&Ratio| ratio.peer == result.subject && ratio.frame_bytes == result.frame_bytes;
        let ratio = self.ratios.iter().find(same);
        vec![
            size(result.frame_bytes),
            result.subject.title().into(),
            result.label.map_or("any".into(), |label| label.to_string()),
            format!("{:.2}", result.gbps),
            format!("({:.2}..{:.2})", result.min, result.max),
            if result.subject == Contender::Veth {
                String::new()
            } else {
                format!("{:.2}", result.switch_cpu_s_per_gb)
            },
            format!("{:.2}", result.machine_cpu_s_per_gb),
            result.rounds.to_string(),
            ratio.map_or(String::new(), |ratio| format!("{:.2}x of it", ratio.millrace_over_peer)),
        ]
    }

    /// The picture: pods.svg and pods.png.
    pub(crate) fn write_chart(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the directory {}", folder.display()))?;
        self.figure().write(folder, ROW)
    }

    fn figure(&self) -> Figure {
        let (small, large): (Vec<&Outcome>, Vec<&Outcome>) =
            self.results.iter().partition(|result| result.frame_bytes < LARGE_BYTES);
        let panel = |title: &str, results: Vec<&Outcome>| {
            (!results.is_empty()).then(|| Panel::Bars(bars(title, &results)))
        };
        let peer = self.results.iter().find(|result| result.subject == Contender::OvsTap);
        let version = peer.map_or(String::new(), |peer| format!(", OVS {}", peer.peer_version));
        let manner = match self.messages {
            Messages::Apart => "TCP_NODELAY",
            Messages::Together => "small messages may be put together",
        };
        Figure {
            title: "TCP from pod to pod".into(),
            subtitle: format!("Kernel netdevs, one stream by message size, {manner}{version}"),
            footer: format!(
                "{}, {} cores, {}. iperf3, interleaved samples, medians; the whisker is min to max.",
                self.machine.cpu, self.machine.cores, self.machine.kernel
            ),
            panels: [panel("Small messages", small), panel("Large messages", large)]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

/// One group per message size, one bar per subject.
fn bars(title: &str, results: &[&Outcome]) -> BarChart {
    let sizes = distinct(results.iter().map(|result| result.frame_bytes));
    let contenders = distinct(results.iter().map(|result| result.subject));
    let bar = |contender: Contender, bytes: u64| {
        let found = results.iter().find(|result| result.subject == contender && result.frame_bytes == bytes);
        found.map(|result| {
            let spread = (result.min < result.max).then_some((result.min, result.max));
            Bar { value: result.gbps, spread }
        })
    };
    let series = |contender: Contender| BarSeries {
        name: contender.title().into(),
        color: contender.color(),
        bars: sizes.iter().map(|bytes| bar(contender, *bytes)).collect(),
    };
    BarChart {
        title: title.into(),
        unit: "Gbit/s, higher is better".into(),
        groups: sizes.iter().map(|bytes| size(*bytes)).collect(),
        series: contenders.into_iter().map(series).collect(),
    }
}

/// Bytes as people say them: 64 B, 16 KB.
fn size(bytes: u64) -> String {
    if bytes >= 1024 && bytes.is_multiple_of(1024) {
        format!("{} KB", bytes / 1024)
    } else {
        format!("{bytes} B")
    }
}

fn outcome(messages: Messages, label: Option<Label>, samples: &[Sample]) -> Option<Outcome> {
    let first = samples.first()?;
    let median = |value: &dyn Fn(&Sample) -> f64| spread(samples.iter().map(value));
    let rate = median(&|sample| sample.transfer.gbps)?;
    // Seconds for a GB are nanoseconds for a byte.
    let switch = median(&|sample| sample.switch_cpu_ns as f64 / sample.transfer.bytes)?;
    let machine = median(&|sample| sample.machine_cpu_ns as f64 / sample.transfer.bytes)?;
    Some(Outcome {
        row: ROW,
        subject: first.contender,
        peer_version: String::new(),
        frame_bytes: first.message_bytes,
        flows: 1,
        load: match messages {
            Messages::Apart => "iperf3",
            Messages::Together => "iperf3-coalesce",
        },
        gbps: round(rate.median, 3),
        min: round(rate.min, 3),
        max: round(rate.max, 3),
        rounds: samples.len(),
        switch_cpu_s_per_gb: round(switch.median, 3),
        machine_cpu_s_per_gb: round(machine.median, 3),
        retransmits: median(&|sample| sample.transfer.retransmits)?.median,
        label,
    })
}

fn ratios(results: &[Outcome]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for ours in results.iter().filter(|result| result.subject == Contender::Millrace) {
        let same = |result: &&Outcome| {
            result.subject != Contender::Millrace && result.frame_bytes == ours.frame_bytes
        };
        ratios.extend(results.iter().filter(same).map(|peer| Ratio {
            row: ROW,
            frame_bytes: ours.frame_bytes,
            flows: ours.flows,
            metric: "gbps",
            millrace_over_peer: round(ours.gbps / peer.gbps, 3),
            peer: peer.subject,
            label: ours.label,
        }));
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::iperf::Transfer;

    fn sample(contender: Contender, label: Label, gbps: f64) -> Sample {
        Sample {
            message_bytes: 1500,
            contender,
            label,
            transfer: Transfer { gbps, bytes: 1e9, retransmits: 0.0 },
            switch_cpu_ns: 500_000_000,
            machine_cpu_ns: 2_000_000_000,
        }
    }

    fn report(samples: &[Sample]) -> Report {
        let versions = [Contender::Millrace, Contender::Veth, Contender::OvsTap].map(|who| (who, "1".into()));
        Report::new(Machine::example(), Messages::Apart, samples, &versions)
    }

    #[test]
    fn report_when_labels_differ_compares_within_one() {
        let report = report(&[
            sample(Contender::Millrace, Label::Near, 9.0),
            sample(Contender::Millrace, Label::Far, 3.0),
            sample(Contender::Veth, Label::Far, 2.0),
        ]);
        assert_eq!(report.results.len(), 2);
        assert_eq!(report.results[0].label, Some(Label::Far));
        assert_eq!(report.results[0].switch_cpu_s_per_gb, 0.5);
        assert_eq!(report.ratios[0].millrace_over_peer, 1.5);
        assert!(report.text().contains("1.50x of it"), "{}", report.text());
    }

    #[test]
    fn report_when_no_label_is_common_takes_all() {
        let report = report(&[
            sample(Contender::Millrace, Label::Near, 9.0),
            sample(Contender::OvsTap, Label::Far, 3.0),
        ]);
        assert_eq!(report.results[0].label, None);
        assert_eq!(report.ratios[0].millrace_over_peer, 3.0);
    }

    #[test]
    fn json_when_written_has_the_agreed_shape() {
        let report = report(&[
            sample(Contender::Millrace, Label::Near, 9.0),
            sample(Contender::Veth, Label::Near, 3.0),
        ]);
        let json = serde_json::to_value(&report).unwrap();
        let result = json["results"][0].as_object().unwrap();
        for key in
            ["row", "subject", "peer_version", "frame_bytes", "flows", "load", "gbps", "min", "max", "rounds"]
        {
            assert!(result.contains_key(key), "{key}");
        }
        assert_eq!(json["ratios"][0]["peer"], "veth-bridge");
        assert_eq!(json["ratios"][0]["metric"], "gbps");
        assert!(json["machine"].is_object());
    }

    #[test]
    fn chart_when_drawn_has_a_panel_for_each_kind_of_message() {
        let mut samples = vec![sample(Contender::Millrace, Label::Near, 9.0)];
        assert_eq!(report(&samples).figure().panels.len(), 1);
        samples.push(Sample { message_bytes: 65_536, ..samples[0] });
        assert_eq!(report(&samples).figure().panels.len(), 2);
    }
}
