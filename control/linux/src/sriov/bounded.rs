//! How does a change of a function's driver, which may never come to its end, keep nobody for ever?
//!
//! The kernel takes a function from its driver only when its last user has let it go, and holds the function's lock until
//! then. So each change is made on a thread of its own, which is left to itself when its time is up; and as long as it
//! waits, no second one is sent after it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use reconcile::kernel::KernelError;

use model::PciAddress;

/// Longer than a card takes to reset a function and to start it anew.
const LIMIT: Duration = Duration::from_secs(30);

const REMEDY: &str = "a program or virtual machine has it, or its driver hangs: end that one (look at `fuser -v \
                      /dev/vfio/*` and at the kernel's log)";

/// The functions that are being changed.
static UNDER_WAY: Mutex<BTreeSet<PciAddress>> = Mutex::new(BTreeSet::new());

/// Changes the driver of a function, or gives up waiting for it.
pub(super) fn within<T: Send + 'static>(
    address: PciAddress,
    doing: &str,
    change: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, KernelError> {
    within_limit(LIMIT, address, doing, change)
}

fn within_limit<T: Send + 'static>(
    limit: Duration,
    address: PciAddress,
    doing: &str,
    change: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, KernelError> {
    let refused = |reason: String| KernelError::Refused { doing: doing.to_owned(), reason };
    if !under_way(|functions| functions.insert(address)) {
        return Err(refused(format!("an earlier change of its driver has not come to its end: {REMEDY}")));
    }
    let (answer, answered) = mpsc::channel();
    let call = move || {
        let result = change();
        under_way(|functions| functions.remove(&address));
        // Nobody listens any more, if it took too long.
        let _ = answer.send(result);
    };
    if let Err(error) = std::thread::Builder::new().name("pci".into()).spawn(call) {
        under_way(|functions| functions.remove(&address));
        return Err(refused(error.to_string()));
    }
    let too_long = || format!("the kernel has not come to its end within {} s: {REMEDY}", limit.as_secs());
    answered.recv_timeout(limit).unwrap_or_else(|_| Err(refused(too_long())))
}

fn under_way(change: impl FnOnce(&mut BTreeSet<PciAddress>) -> bool) -> bool {
    change(&mut UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_when_the_change_hangs_says_what_to_look_for_and_sends_no_second() {
        let address = "0000:01:10.2".parse().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let hang = move || {
            let _ = wait.recv();
            drop(ended);
            Ok(())
        };
        let error =
            within_limit(Duration::from_millis(1), address, "unbind it", hang).unwrap_err().to_string();
        assert!(error.starts_with("unbind it: ") && error.contains("/dev/vfio"), "{error}");
        let error = within(address, "bind it", || Ok(())).unwrap_err().to_string();
        assert!(error.contains("an earlier change"), "{error}");
        drop(go);
        assert!(end.recv().is_err());
        while within(address, "bind it", || Ok(7)) != Ok(7) {
            std::thread::yield_now();
        }
    }
}
