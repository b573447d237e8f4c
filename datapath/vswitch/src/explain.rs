//! What would happen to a frame, in words?

use frame::DropReason;

use crate::outputs::Egress;
use crate::program::PortNo;

/// What one stage says about a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The stage: `parse`, `admit`, `security`, `learn`, `forward`, `output`.
    pub stage: &'static str,
    /// What it found, for people.
    pub sentence: String,
}

/// The way of one frame through the switch, dry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// The stages' sentences, in order.
    pub steps: Vec<Step>,
    /// Who would send it, and how.
    pub outputs: Vec<(PortNo, Egress)>,
    /// Why it would end, if it would.
    pub drop: Option<DropReason>,
}
