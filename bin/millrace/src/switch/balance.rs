//! When do receive queues move between the workers? Measured and decided about once a second.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};
use worker::placement::{Balancer, INTERVAL, Move};

use super::board::Board;

/// Moves queues as the loads say, until the runtime ends.
pub(super) async fn run(board: Arc<Board>) {
    let mut balancer = Balancer::default();
    let mut ticks = interval(INTERVAL);
    // Loads are by the time that went by: a step that comes late measures as well.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let board = board.clone();
        // Moves wait for a turn of the workers.
        let step = tokio::task::spawn_blocking(move || {
            let moves = balancer.step(&board.datapath);
            (balancer, moves)
        });
        let Ok((next, moves)) = step.await else { return };
        balancer = next;
        moves.iter().for_each(tell);
    }
}

fn tell(moved: &Move) {
    let Move { id, to } = moved;
    tracing::info!(
        port = id.port.0,
        queue = id.queue,
        worker = to,
        "receive queue moved: its worker was overloaded"
    );
}
