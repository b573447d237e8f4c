//! What did the demo measure, and which picture shows it?

use std::path::Path;

use anyhow::{Context, Result};
use bench::chart::{Bar, BarChart, BarSeries, Color, Figure, Panel};

use super::screen::{Steps, detail, outcome, size};

/// The charts' file name, without its ending.
const CHART: &str = "millrace-demo";

/// TCP at one message size.
pub(super) struct TcpRow {
    pub(super) message_bytes: usize,
    /// Gbit/s between the pods.
    pub(super) millrace: f64,
    /// Gbit/s over veth + bridge.
    pub(super) veth: f64,
}

impl TcpRow {
    /// The row of the table.
    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            size(self.message_bytes),
            format!("{:.2}", self.millrace),
            format!("{:.2}", self.veth),
            format!("{:.2}x", self.millrace / self.veth.max(1e-9)),
        ]
    }
}

/// The small-packet run.
pub(super) struct PacketRate {
    /// Million packets per second.
    pub(super) mpps: f64,
    pub(super) busy_cycles_per_packet: f64,
}

/// All of it.
#[derive(Default)]
pub(super) struct Report {
    pub(super) tcp: Vec<TcpRow>,
    pub(super) packets: Option<PacketRate>,
}

impl Report {
    /// Writes the charts to `folder` and says where they are.
    pub(super) fn write(&self, folder: &Path, steps: &mut Steps) -> Result<()> {
        steps.begin("the picture");
        self.figure().write(folder, CHART).with_context(|| format!("the charts in {}", folder.display()))?;
        outcome("");
        for ending in ["svg", "png"] {
            detail(&folder.join(format!("{CHART}.{ending}")).display().to_string());
        }
        Ok(())
    }

    fn figure(&self) -> Figure {
        let rate = self.packets.as_ref().map_or(String::new(), |packets| {
            format!(
                " · 64-byte packets through a vhost-user pod: {:.1} million/s, {:.0} cycles each",
                packets.mpps, packets.busy_cycles_per_packet
            )
        });
        Figure {
            title: "Pod to pod through Millrace".into(),
            subtitle: format!("TCP, one stream, by message size{rate}"),
            footer: format!("millrace demo · veth + Linux bridge in the same run · {}", processor()),
            panels: vec![Panel::Bars(BarChart {
                title: "TCP between two kernel pods".into(),
                unit: "Gbit/s, higher is better".into(),
                groups: self.tcp.iter().map(|row| size(row.message_bytes)).collect(),
                series: vec![
                    self.series("Millrace (TAP)", Color::MILLRACE, |row| row.millrace),
                    self.series("veth + Linux bridge", Color::KERNEL, |row| row.veth),
                ],
            })],
        }
    }

    fn series(&self, name: &str, color: Color, value: impl Fn(&TcpRow) -> f64) -> BarSeries {
        let bars = self.tcp.iter().map(|row| Some(Bar { value: value(row), spread: None })).collect();
        BarSeries { name: name.into(), color, bars }
    }
}

/// The processor's name, for the footer.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name));
    name.map_or_else(|| "unknown processor".to_owned(), |name| name.trim().to_owned())
}
