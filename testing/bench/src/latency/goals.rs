//! Is it fast enough? What the project set out to reach, held against what was measured.

use serde::Serialize;

use super::Load;
use super::report::{Outcome, name, title};
use crate::pods::contender::Contender;

/// Time from a kick to the frame's arrival through a worker that slept.
const WAKE_US: f64 = 50.0;
/// Of one core, without traffic.
const IDLE_FRACTION: f64 = 0.01;

/// One goal.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Goal {
    #[serde(serialize_with = "name")]
    load: Load,
    metric: &'static str,
    /// Whose figure is the limit, if it is a peer's.
    peer: Option<Contender>,
    measured: f64,
    limit: f64,
    pub(super) met: bool,
}

impl Goal {
    /// The row of the table.
    pub(super) fn cells(&self) -> Vec<String> {
        let value = |value: f64| match self.metric {
            "cpu_fraction" => format!("{:.2} %", 100.0 * value),
            _ => format!("{value:.1} us"),
        };
        let metric = if self.metric == "cpu_fraction" { "CPU" } else { "p99" };
        vec![
            format!("{}: {metric}", title(self.load)),
            self.peer.map_or("a constant".into(), |peer| format!("p50 of {}", peer.title())),
            value(self.measured),
            value(self.limit),
            if self.met { "yes" } else { "no" }.into(),
        ]
    }
}

/// The goals for Millrace that `results` allow to judge.
pub(super) fn goals(results: &[Outcome]) -> Vec<Goal> {
    let ours = results.iter().filter(|result| result.subject.is_millrace());
    ours.flat_map(|ours| match ours.kind {
        Load::PodsBusy | Load::GuestsBusy => beside_peers(ours, results),
        Load::GuestsWake => below(ours, ("p99_us", ours.p99_us), WAKE_US),
        Load::PodsNone | Load::GuestsNone => below(ours, ("cpu_fraction", ours.cpu_fraction), IDLE_FRACTION),
        Load::PodsIdle => Vec::new(),
    })
    .collect()
}

/// Busy, our slowest are no slower than a peer's middle.
fn beside_peers(ours: &Outcome, results: &[Outcome]) -> Vec<Goal> {
    let peers = results.iter().filter(|peer| peer.kind == ours.kind && !peer.subject.is_millrace());
    peers
        .filter_map(|peer| {
            let (measured, limit) = (ours.p99_us?, peer.p50_us?);
            let peer = Some(peer.subject);
            Some(Goal { load: ours.kind, metric: "p99_us", peer, measured, limit, met: measured <= limit })
        })
        .collect()
}

fn below(ours: &Outcome, (metric, measured): (&'static str, Option<f64>), limit: f64) -> Vec<Goal> {
    let goal =
        |measured| Goal { load: ours.kind, metric, peer: None, measured, limit, met: measured < limit };
    measured.map(goal).into_iter().collect()
}
