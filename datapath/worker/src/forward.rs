//! What happens to a burst between its port and the ports it leaves by?

use std::sync::Arc;

use frame::{BURST_FRAMES, Burst, DropCounts, DropReason};
use ports::{SendReport, TxQueue};
use vswitch::program::PortNo;
use vswitch::{Egress, Group, Now, Outputs, ProcessReport, Program, Switch, Undo};

use crate::counters::PortCells;

/// Where a burst comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) port: PortNo,
    /// The number, below [`Exit::queues`]' length, of the transmit queue by which its frames leave each port. It stays
    /// the receive queue's when another worker polls that: a flow that changed its transmit queue could be overtaken
    /// by itself in a guest with several.
    pub(crate) lane: usize,
}

/// A port, as a worker sends by it.
pub(crate) struct Exit {
    /// The transmit queue of each lane: as many as there are workers.
    pub(crate) queues: Arc<[Arc<dyn TxQueue>]>,
    /// What this worker counts for the port.
    pub(crate) cells: Arc<PortCells>,
}

/// A worker's switch and the ports that it sends by.
pub(crate) struct Forwarder {
    pub(crate) switch: Switch,
    outputs: Outputs,
    /// By port number.
    exits: Vec<Option<Exit>>,
}

impl Forwarder {
    pub(crate) fn new(switch: Switch) -> Self {
        Self { switch, outputs: Outputs::default(), exits: Vec::new() }
    }

    /// Sends by `exit` what is for `port` from now on.
    pub(crate) fn open(&mut self, port: PortNo, exit: Exit) {
        let index = usize::from(port.0);
        if self.exits.len() <= index {
            self.exits.resize_with(index + 1, || None);
        }
        self.exits[index] = Some(exit);
    }

    /// Gives up the way out by `port`; frames for it end as [`DropReason::PortGone`] from now on.
    pub(crate) fn close(&mut self, port: PortNo) -> Option<Exit> {
        self.exits.get_mut(usize::from(port.0))?.take()
    }

    /// Runs the switch over the burst that came in by `source`, and sends each group of frames that it decided on.
    #[inline]
    pub(crate) fn forward(
        &mut self,
        burst: &mut Burst,
        source: Source,
        now: Now,
        report: &mut ProcessReport,
    ) {
        self.outputs.clear();
        self.switch.process(burst, source.port, now, &mut self.outputs, report);
        for group in self.outputs.groups() {
            let frames = group.frames();
            let Some(Some(exit)) = self.exits.get(usize::from(group.port.0)) else {
                report.drops.add(DropReason::PortGone, frames.len() as u64);
                continue;
            };
            let queue = &exit.queues[source.lane];
            let sent = if group.egress == Egress::Plain {
                queue.send(burst, frames)
            } else {
                reshaped(group, burst, queue, self.switch.program())
            };
            exit.cells.sent(&sent);
            if sent.frames != frames.len() as u64 {
                report.drops.merge(&sent.drops);
            }
        }
    }
}

/// Sends frames that leave in another shape than they came in.
fn reshaped(group: &Group, burst: &mut Burst, queue: &Arc<dyn TxQueue>, program: &Program) -> SendReport {
    let mut ready = [0; BURST_FRAMES];
    let mut undo = [Undo::Nothing; BURST_FRAMES];
    let (mut count, mut refused) = (0, DropCounts::default());
    for &frame in group.frames() {
        match group.egress.apply(burst, frame.into(), program) {
            Ok(back) => {
                (ready[count], undo[count]) = (frame, back);
                count += 1;
            }
            Err(reason) => refused.add(reason, 1),
        }
    }
    let mut sent = queue.send(burst, &ready[..count]);
    for (&frame, back) in ready[..count].iter().zip(&undo) {
        back.undo(burst, frame.into());
    }
    sent.drops.merge(&refused);
    sent
}
