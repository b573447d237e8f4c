//! How does a report of pods read, as text?

use super::Load;
use super::contender::Contender;
use super::datagrams::FRAME_BYTES;
use super::iperf::Messages;
use super::report::{Figures, Outcome, Report};
use crate::chart::size;
use crate::figures::{distinct, table};

const STREAM_NOTES: &str = "\
Gbit/s: payload received, median. s/GB: seconds of CPU time for each GB, of the switch's program and of the whole machine.
";
const PACKET_NOTES: &str = "\
Mpps: million packets/s received, median. ns: CPU time for each, of the switch's program, and of the whole machine with both
pods' kernels and programs. sender waits: share of the time; near 0 %, the sender is the limit, and not the path.
";
const OVS_NOTES: &str = "\
OVS forwards by actions=NORMAL, between type=tap ports with userspace-tso, and between veth ends that a PMD polls.
";

/// The tables of both loads, and how to read them.
pub(super) fn text(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "\nFrom one kernel pod to another\n{} ({} cores, {} MHz), {}; switches on CPU {}, load anywhere\n",
        machine.cpu, machine.cores, machine.tsc_mhz, machine.kernel, machine.worker_cpu
    );
    let (packets, streams): (Vec<&Outcome>, Vec<&Outcome>) =
        report.results.iter().partition(|result| result.kind == Load::Packets);
    if !streams.is_empty() {
        let head = ["message", "subject", "cores", "Gbit/s", "(min..max)", "switch s/GB", "machine s/GB"];
        let table = part(report, &head, &streams);
        text +=
            &format!("\nTCP, one stream by iperf3; {}\n\n{table}\n{STREAM_NOTES}", manner(report.messages));
    }
    if !packets.is_empty() {
        let head = [
            "frames",
            "subject",
            "cores",
            "Mpps",
            "(min..max)",
            "switch ns",
            "machine ns",
            "lost",
            "sender waits",
        ];
        let table = part(report, &head, &packets);
        text += &format!("\nUDP, small packets one way, as many as arrive\n\n{table}\n{PACKET_NOTES}");
    }
    if report.results.iter().any(|result| result.subject == Contender::OvsTap) {
        text += OVS_NOTES;
    }
    text
}

/// How messages become frames, in words.
fn manner(messages: Messages) -> &'static str {
    match messages {
        Messages::Apart => "TCP_NODELAY (what waits still leaves together: a message is no frame)",
        Messages::Together => "the kernel may put small messages together",
    }
}

/// The table of one load: behind its figures a column for each kind of Millrace's ports, beside the peers.
fn part(report: &Report, head: &[&str], results: &[&Outcome]) -> String {
    let ours = distinct(results.iter().map(|result| result.subject).filter(|subject| subject.is_millrace()));
    let ratio_head = |subject: &Contender| match (ours.len(), subject) {
        (1, _) => "Millrace has",
        (_, Contender::MillraceVduse) => "VDUSE has",
        _ => "TAP has",
    };
    let head: Vec<&str> =
        head.iter().copied().chain(["samples"]).chain(ours.iter().map(ratio_head)).collect();
    let row = |result: &&Outcome| {
        let label = result.label.map_or("any".into(), |label| label.to_string());
        let (load, figures) = cells(result);
        let ratios = ours.iter().map(|subject| ratio(report, *subject, result));
        let before = [load, result.subject.title().into(), label];
        before.into_iter().chain(figures).chain([result.rounds.to_string()]).chain(ratios).collect()
    };
    table(&head, &results.iter().map(row).collect::<Vec<Vec<String>>>())
}

/// The load, and the figures of a result.
fn cells(result: &Outcome) -> (String, Vec<String>) {
    let Outcome { min, max, .. } = result;
    // The kernel's time stands in nobody's name.
    let switch = |text: String| if result.subject.is_kernel() { String::new() } else { text };
    let figures = match result.figures {
        Figures::Stream { gbps, switch_cpu_s_per_gb, machine_cpu_s_per_gb, .. } => vec![
            format!("{gbps:.2}"),
            format!("({min:.2}..{max:.2})"),
            switch(format!("{switch_cpu_s_per_gb:.2}")),
            format!("{machine_cpu_s_per_gb:.2}"),
        ],
        Figures::Packets {
            mpps,
            switch_cpu_ns_per_packet,
            machine_cpu_ns_per_packet,
            lost_fraction,
            sender_waited_fraction,
        } => vec![
            format!("{mpps:.3}"),
            format!("({min:.3}..{max:.3})"),
            switch(format!("{switch_cpu_ns_per_packet:.0}")),
            format!("{machine_cpu_ns_per_packet:.0}"),
            format!("{:.1} %", 100.0 * lost_fraction),
            format!("{:.0} %", 100.0 * sender_waited_fraction),
        ],
    };
    let load = match result.kind {
        Load::Stream { message_bytes } => size(message_bytes),
        Load::Packets => size(FRAME_BYTES as u64),
    };
    (load, figures)
}

/// What `subject` has of what `peer` has; nothing beside itself.
fn ratio(report: &Report, subject: Contender, peer: &Outcome) -> String {
    let same = report
        .ratios
        .iter()
        .find(|ratio| ratio.subject == subject && ratio.peer == peer.subject && ratio.kind == peer.kind);
    same.map_or(String::new(), |ratio| format!("{:.2}x of it", ratio.millrace_over_peer))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{packets, report, stream};
    use super::*;
    use crate::probe::Label;

    #[test]
    fn table_when_one_kind_of_port_is_there_compares_millrace() {
        let text = text(&report(&[
            stream(Contender::MillraceTap, Label::Near, 3.0),
            stream(Contender::Veth, Label::Near, 2.0),
        ]));
        assert!(text.contains("Millrace has") && text.contains("1.50x of it"), "{text}");
        assert!(!text.contains("UDP") && !text.contains("OVS"), "{text}");
    }

    #[test]
    fn table_when_both_kinds_of_port_are_there_compares_each() {
        let text = text(&report(&[
            packets(Contender::MillraceTap, 0.5),
            packets(Contender::MillraceVduse, 2.0),
            packets(Contender::OvsTap, 1.0),
        ]));
        let ovs = text.lines().find(|line| line.contains("OVS userspace")).unwrap();
        assert!(ovs.ends_with("0.50x of it  2.00x of it"), "{text}");
        assert!(["TAP has", "VDUSE has"].iter().all(|head| text.contains(head)) && !text.contains("TCP"));
    }
}
