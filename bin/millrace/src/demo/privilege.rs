//! May the demo make namespaces? Root may; anybody else may in a user namespace of one's own, where the kernel allows it.

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

/// Makes this process root of its own user and network namespace, unless it is root already. Must run before any thread
/// is started.
///
/// # Errors
/// The kernel forbids user namespaces to this user; the message says what to do.
pub(super) fn gain() -> Result<&'static str> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if user.is_root() {
        return Ok("as root");
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).context(
        "this kernel lets only root make network namespaces (see kernel.unprivileged_userns_clone and AppArmor's \
         apparmor_restrict_unprivileged_userns): run the demo with sudo",
    )?;
    // user_namespaces(7): a group map may only be written once setgroups is denied.
    std::fs::write("/proc/self/setgroups", "deny").context("/proc/self/setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("/proc/self/uid_map")?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1")).context("/proc/self/gid_map")?;
    Ok("without privileges, in a user namespace of its own")
}
