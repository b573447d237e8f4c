//! Does the user want to stop? Ctrl-C ends a benchmark between two samples, so that everything it made is taken down. All
//! that is waited for has a deadline, so that this is soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{SigId, flag, low_level};

/// Notes SIGINT and SIGTERM while it lives.
#[derive(Debug)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    handlers: Vec<SigId>,
}

impl Interrupt {
    /// Begins to listen.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let mut interrupt = Self { asked, handlers: Vec::new() };
        for signal in [SIGINT, SIGTERM] {
            interrupt.handlers.push(flag::register(signal, Arc::clone(&interrupt.asked))?);
        }
        Ok(interrupt)
    }

    /// An error once the user wants to stop.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.asked.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}
