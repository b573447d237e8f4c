//! How does a call of the kernel that may never return keep nobody for ever?
//!
//! The kernel changes the vDPA bus under one lock, and waits under it for whoever serves a device: a process that hangs, or
//! a program that has a device's file open, holds up everybody. A call is made on a thread of its own, and left to itself
//! when its time is up; what it still does then is found, and undone, by who asks next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use reconcile::kernel::KernelError;

/// Longer than the kernel waits for one answer of a device of VDUSE (30 s, `VDUSE_MSG_DEFAULT_TIMEOUT`).
const LIMIT: Duration = Duration::from_secs(45);
/// Calls under way at a time: those of many pods that start together, but not one more with each that hangs.
const MAX_UNDER_WAY: usize = 128;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Does `work`, or gives up waiting for it.
pub(crate) fn within<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, KernelError> {
    within_limit(LIMIT, doing, work)
}

fn within_limit<T: Send + 'static>(
    limit: Duration,
    doing: &str,
    work: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, KernelError> {
    let refused = |reason: String| KernelError::Refused { doing: doing.to_owned(), reason };
    if UNDER_WAY.fetch_add(1, Ordering::Relaxed) >= MAX_UNDER_WAY {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        return Err(refused(format!("{MAX_UNDER_WAY} earlier calls of the kernel have not ended: {REMEDY}")));
    }
    let (answer, answered) = mpsc::channel();
    let call = move || {
        let result = work();
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        // Nobody listens any more, if it took too long.
        let _ = answer.send(result);
    };
    if let Err(error) = std::thread::Builder::new().name("vdpa".into()).spawn(call) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        return Err(refused(error.to_string()));
    }
    let too_long = || format!("the kernel has not come to an end within {} s: {REMEDY}", limit.as_secs());
    answered.recv_timeout(limit).unwrap_or_else(|_| Err(refused(too_long())))
}

const REMEDY: &str = "a process that serves a VDUSE device does not answer it, or a program has a /dev/vhost-vdpa file open \
                      whose device is to go (look at `fuser /dev/vduse/* /dev/vhost-vdpa-*`); end or restart that one";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_when_the_call_returns_gives_its_answer() {
        assert_eq!(within("count", || Ok(7)), Ok(7));
    }

    #[test]
    fn within_when_the_call_hangs_says_what_to_look_for() {
        let (go, wait) = mpsc::channel::<()>();
        let hang = move || {
            let _ = wait.recv();
            Ok(())
        };
        let error =
            within_limit(Duration::from_millis(1), "take it off the bus", hang).unwrap_err().to_string();
        assert!(error.starts_with("take it off the bus: ") && error.contains("/dev/vhost-vdpa"), "{error}");
        drop(go);
    }
}
