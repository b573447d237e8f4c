//! `millrace get flows`: what do the workers' flow caches hold?

use local_api::switch_v1 as api;
use serde::Serialize;

use super::{GetArgs, age};
use crate::client;
use crate::output::Row;

#[derive(Serialize)]
struct Answer {
    flows: Vec<Flow>,
    /// All entries held, those that are not shown included.
    total: u64,
}

#[derive(Serialize)]
struct Flow {
    worker: u32,
    r#match: String,
    actions: String,
    frames: u64,
    bytes: u64,
    idle_ms: u64,
}

impl Row for Flow {
    const HEADS: &'static [&'static str] = &["WORKER", "FRAMES", "BYTES", "IDLE", "MATCH", "ACTIONS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.worker.to_string(),
            self.frames.to_string(),
            self.bytes.to_string(),
            age(self.idle_ms),
            self.r#match.clone(),
            self.actions.clone(),
        ]
    }
}

pub(super) async fn show(args: &GetArgs) -> anyhow::Result<()> {
    let request = api::ListFlowsRequest { limit: args.limit.max(1) };
    let answer = client::switch(&args.run_dir).list_flows(request).await;
    let state = client::switch_says(answer, &args.run_dir)?;
    let flow = |flow: api::Flow| Flow {
        worker: flow.worker,
        r#match: flow.r#match,
        actions: flow.actions,
        frames: flow.frames,
        bytes: flow.bytes,
        idle_ms: flow.idle_ms,
    };
    let mut flows: Vec<Flow> = state.flows.into_iter().map(flow).collect();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.frames));
    let answer = Answer { flows, total: state.total };
    super::answer(args, &answer.flows, "no flows: nothing has moved for a while", &answer)
}
