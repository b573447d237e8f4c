//! What does the slide about pods show? Panels of bars: small messages, large ones, which move ten times as much, and small
//! packets.

use super::Load;
use super::contender::Contender;
use super::datagrams::FRAME_BYTES;
use super::iperf::Messages;
use super::report::{Outcome, Report};
use crate::chart::{Bar, BarChart, BarSeries, Figure, Panel, size};
use crate::figures::distinct;

/// Messages from here on have a panel of their own.
const LARGE_BYTES: u64 = 4096;

/// The slide.
pub(super) fn figure(report: &Report) -> Figure {
    let panel = |title: &str, unit: &str, wanted: fn(Load) -> bool| {
        let results: Vec<&Outcome> = report.results.iter().filter(|result| wanted(result.kind)).collect();
        (!results.is_empty()).then(|| Panel::Bars(bars(title, unit, &results)))
    };
    let gbps = "Gbit/s, higher is better";
    let small = |load| matches!(load, Load::Stream { message_bytes } if message_bytes < LARGE_BYTES);
    let large = |load| matches!(load, Load::Stream { message_bytes } if message_bytes >= LARGE_BYTES);
    let panels = [
        panel("TCP, small messages", gbps, small),
        panel("TCP, large messages", gbps, large),
        panel("UDP, small packets", "Mpps, higher is better", |load| load == Load::Packets),
    ];
    Figure {
        title: "From pod to pod, kernel netdevs".into(),
        subtitle: subtitle(report),
        footer: format!(
            "{}, {} cores, {}. Interleaved samples, medians; the whisker is min to max.",
            report.machine.cpu, report.machine.cores, report.machine.kernel
        ),
        panels: panels.into_iter().flatten().collect(),
    }
}

fn subtitle(report: &Report) -> String {
    let manner = match report.messages {
        Messages::Apart => "TCP_NODELAY",
        Messages::Together => "small messages may be put together",
    };
    let is_packets = |result: &Outcome| result.kind == Load::Packets;
    let mut words = Vec::new();
    if !report.results.iter().all(is_packets) {
        words.push(format!("One TCP stream of iperf3, {manner}"));
    }
    if report.results.iter().any(is_packets) {
        words.push(format!("UDP one way, frames of {FRAME_BYTES} B"));
    }
    let ovs = report.results.iter().find(|result| result.subject == Contender::OvsTap);
    words.extend(ovs.map(|ovs| format!("OVS {}", ovs.peer_version)));
    words.join("; ")
}

/// One group per load, one bar per subject.
fn bars(title: &str, unit: &str, results: &[&Outcome]) -> BarChart {
    let loads = distinct(results.iter().map(|result| result.kind));
    let bar = |contender: Contender, load: Load| {
        let found = results.iter().find(|result| result.subject == contender && result.kind == load);
        found.map(|result| {
            let spread = (result.min < result.max).then_some((result.min, result.max));
            Bar { value: result.rate(), spread }
        })
    };
    let series = |contender: Contender| BarSeries {
        name: contender.title().into(),
        color: contender.color(),
        bars: loads.iter().map(|load| bar(contender, *load)).collect(),
    };
    BarChart {
        title: title.into(),
        unit: unit.into(),
        groups: loads.iter().map(|load| group(*load)).collect(),
        series: distinct(results.iter().map(|result| result.subject)).into_iter().map(series).collect(),
    }
}

fn group(load: Load) -> String {
    match load {
        Load::Stream { message_bytes } => size(message_bytes),
        Load::Packets => size(FRAME_BYTES as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{packets, report, stream};
    use super::*;
    use crate::probe::Label;

    #[test]
    fn chart_when_drawn_has_a_panel_for_each_kind_of_load() {
        let mut samples = vec![stream(Contender::MillraceTap, Label::Near, 9.0)];
        assert_eq!(figure(&report(&samples)).panels.len(), 1);
        let large = super::super::Sample { load: Load::Stream { message_bytes: 65_536 }, ..samples[0] };
        samples.extend([large, packets(Contender::MillraceTap, 1.0)]);
        assert_eq!(figure(&report(&samples)).panels.len(), 3);
        assert!(!subtitle(&report(&samples[2..])).contains("TCP"));
    }
}
