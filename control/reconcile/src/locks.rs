//! How do calls for different containers run side by side, and those for one container one after the other?

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use model::ContainerId;

/// One lock for each container that something is being done to.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    held: Mutex<HashSet<ContainerId>>,
    released: Condvar,
}

/// The right to change one container's attachments, until dropped.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    locks: &'a Locks,
    container: ContainerId,
}

impl Locks {
    /// Waits for the container.
    pub(crate) fn lock(&self, container: &ContainerId) -> Guard<'_> {
        let mut held = self.held();
        while !held.insert(container.clone()) {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        Guard { locks: self, container: container.clone() }
    }

    /// The container, if nothing is being done to it.
    pub(crate) fn try_lock(&self, container: &ContainerId) -> Option<Guard<'_>> {
        let free = self.held().insert(container.clone());
        free.then(|| Guard { locks: self, container: container.clone() })
    }

    fn held(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.locks.held().remove(&self.container);
        self.locks.released.notify_all();
    }
}
