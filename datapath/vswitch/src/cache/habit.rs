//! What have a port's frames looked like lately, and what is done with frames that look so?

use frame::{Burst, PEEK_BYTES};

use super::table::Entry;
use super::template::Template;
use crate::actions::{Actions, Output};
use crate::key::{FlowKey, Mask};
use crate::outputs::{Egress, Outputs, pop_tag};
use crate::parse::Packet;
use crate::program::PortNo;

/// The looks of frames that one megaflow answers, and its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habit {
    template: Template,
    /// The megaflow's key and its place.
    pub(crate) key: FlowKey,
    pub(crate) at: usize,
    actions: Actions,
    port: PortNo,
    egress: Egress,
}

/// The frames of a burst that look as usual.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Alike {
    /// Frame `n` is one if bit `n` is set.
    set: u32,
    /// How many they are.
    pub(crate) frames: usize,
    /// Of all of them.
    pub(crate) bytes: u64,
}

impl Alike {
    #[inline(always)]
    pub(crate) fn has(&self, frame: usize) -> bool {
        self.set >> frame & 1 != 0
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, frame: usize, bytes: usize) {
        self.set |= 1 << frame;
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

impl Habit {
    /// Frames that look like the one of which `bytes` are the first, and `packet` what they say. The megaflow at `at`
    /// with the mask `mask` answered it. `None` if that is no habit for a template: it does not go to one port, or
    /// frames of its kind are not described.
    pub(crate) fn new(
        (bytes, packet): (&[u8; PEEK_BYTES], &Packet),
        (megaflow, at): (&Entry, usize),
        mask: &Mask,
    ) -> Option<Habit> {
        let actions = megaflow.actions;
        let Output::Port { port, tagged, mtu_bytes } = actions.output else { return None };
        let template = Template::new(bytes, packet, mask, mtu_bytes)?;
        let egress = actions.offer(packet, tagged, mtu_bytes).ok()?;
        Some(Habit { template, key: megaflow.key, at, actions, port, egress })
    }

    /// True if `megaflow`, whose place it is, still is the one whose answer this is.
    pub(crate) fn is_of(&self, megaflow: &Entry) -> bool {
        megaflow.key == self.key && megaflow.actions == self.actions
    }

    /// The frames of `burst` that look so.
    #[inline]
    pub(crate) fn select(&self, burst: &Burst) -> Alike {
        let mut alike = Alike::default();
        for frame in 0..burst.len() {
            let len = burst.frame_len(frame);
            if let Some(bytes) = burst.peek(frame)
                && self.template.matches(bytes, len)
                && burst.offload(frame).gso.is_none()
            {
                alike.add(frame, len);
            }
        }
        alike
    }

    /// Carries the decision out on frame `frame` of `burst`, which is one of those.
    #[inline]
    pub(crate) fn perform(&self, burst: &mut Burst, frame: usize, out: &mut Outputs) {
        if self.actions.strip {
            pop_tag(burst, frame);
        }
        out.push(self.port, self.egress, frame);
    }

    /// As [`Habit::perform`], on all frames of `burst`; there is no output yet.
    #[inline]
    pub(crate) fn perform_on_all(&self, burst: &mut Burst, out: &mut Outputs) {
        if self.actions.strip {
            (0..burst.len()).for_each(|frame| pop_tag(burst, frame));
        }
        out.push_all(self.port, self.egress, burst.len());
    }
}
