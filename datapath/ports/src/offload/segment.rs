//! How is a large frame cut?
use std::ops::ControlFlow;

use frame::{Checksum, DropReason, Gather, Gso, Offload};

use super::{Capabilities, Scratch};

/// Cuts `frame` into pieces.
pub(super) fn cut(
    _frame: &Gather<'_>,
    _gso: Gso,
    _checksum: Checksum,
    _capabilities: &Capabilities,
    _scratch: &mut Scratch,
    _emit: &mut dyn FnMut(Gather<'_>, Offload) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, DropReason> {
    Err(DropReason::BadOffload)
}
