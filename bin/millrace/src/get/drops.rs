//! `millrace get drops`: which packets ended in the switch, and why?

use frame::DropReason;
use local_api::switch_v1 as api;
use serde::Serialize;

use super::GetArgs;
use crate::client;
use crate::output::Row;

#[derive(Serialize)]
struct Answer {
    drops: Vec<Drop>,
}

/// Frames that came in by one port and ended for one reason.
#[derive(Serialize)]
struct Drop {
    /// `None`: all ports that were removed since the switch started.
    port: Option<String>,
    reason: String,
    frames: u64,
    meaning: &'static str,
}

impl Row for Drop {
    const HEADS: &'static [&'static str] = &["PORT", "REASON", "FRAMES", "MEANING"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.port.clone().unwrap_or_else(|| "(removed ports)".into()),
            self.reason.clone(),
            self.frames.to_string(),
            self.meaning.to_owned(),
        ]
    }
}

/// The sentence of a reason's label.
fn meaning(label: &str) -> &'static str {
    let reason = DropReason::ALL.into_iter().find(|reason| reason.label() == label);
    reason.map_or("a reason of another version of the switch", DropReason::sentence)
}

pub(super) async fn show(args: &GetArgs) -> anyhow::Result<()> {
    let answer = client::switch(&args.run_dir).list_ports(api::ListPortsRequest {}).await;
    let state = client::switch_says(answer, &args.run_dir)?;
    let mut removed = state.total.unwrap_or_default().drops;
    let mut drops = Vec::new();
    for port in state.ports {
        let name = port.port.unwrap_or_default().name;
        for (reason, frames) in port.counters.unwrap_or_default().drops {
            if let Some(rest) = removed.get_mut(&reason) {
                *rest = rest.saturating_sub(frames);
            }
            drops.push(Drop { port: Some(name.clone()), meaning: meaning(&reason), reason, frames });
        }
    }
    let removed = removed.into_iter().filter(|(_, frames)| *frames > 0);
    drops.extend(removed.map(|(reason, frames)| Drop {
        port: None,
        meaning: meaning(&reason),
        reason,
        frames,
    }));
    drops.sort_by(|a, b| {
        b.frames.cmp(&a.frames).then_with(|| (&a.port, &a.reason).cmp(&(&b.port, &b.reason)))
    });
    let answer = Answer { drops };
    super::answer(args, &answer.drops, "no packet was dropped", &answer)
}
