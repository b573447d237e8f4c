//! How does a directory of ours appear inside a pod's volume, and go again?

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use reconcile::kernel::KernelError;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use crate::refused;

/// Mounts `source` over `target` too.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<(), KernelError> {
    let doing = || format!("mount {} on {}", source.display(), target.display());
    try_bind(source, target).map_err(|error| refused(doing(), &error))
}

fn try_bind(source: &Path, target: &Path) -> io::Result<()> {
    let (from, onto) = (open_dir(source)?, open_dir(target)?);
    let (a, b) = (rustix::fs::fstat(&from)?, rustix::fs::fstat(&onto)?);
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
        return Ok(());
    }
    // By descriptor, so that what was looked at is what is mounted on: a link swapped in between changes nothing.
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&from, c"", clone)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&tree, c"", &onto, c"", flags)?)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Undoes [`bind`]. A file system of the pod's own under the same path (an emptyDir in memory) stays.
pub(crate) fn unbind(target: &Path) -> Result<(), KernelError> {
    try_unbind(target).map_err(|error| refused(format!("unmount {}", target.display()), &error))
}

fn try_unbind(target: &Path) -> io::Result<()> {
    let target = match target.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    while is_bind(&std::fs::read("/proc/self/mountinfo")?, &target) {
        // Detached: a program of the pod that still has the socket open must not keep the pod from going.
        unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// Whether the topmost mount on `target` is of a directory inside a file system rather than of a whole one
/// (proc_pid_mountinfo(5): the fourth field is the mount's root within its file system, the fifth where it is mounted).
fn is_bind(mountinfo: &[u8], target: &Path) -> bool {
    let on_target = |line: &&[u8]| {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (unescape(place) == target).then(|| root != b"/")
    };
    // Later mounts cover earlier ones, and are listed after them.
    mountinfo.split(|byte| *byte == b'\n').rev().find_map(|line| on_target(&line)).unwrap_or(false)
}

/// A path of mountinfo: blanks, tabs, line ends and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
            Some(escaped) => {
                path.push(escaped);
                rest = &after[3..];
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"22 1 0:20 / / rw - ext4 /dev/vda rw\n\
        30 22 0:21 / /pods/memory rw - tmpfs tmpfs rw\n\
        31 22 0:20 /run/vhost/1 /pods/disk rw - ext4 /dev/vda rw\n\
        32 30 0:20 /run/vhost/2 /pods/memory rw - ext4 /dev/vda rw\n\
        33 22 0:20 /x /pods/with\\040blank rw - ext4 /dev/vda rw\n";

    #[test]
    fn is_bind_when_ours_is_on_top_says_so() {
        assert!(is_bind(INFO, Path::new("/pods/disk")));
        assert!(is_bind(INFO, Path::new("/pods/memory")));
        assert!(is_bind(INFO, Path::new("/pods/with blank")));
    }

    #[test]
    fn is_bind_when_the_pod_has_its_own_file_system_says_no() {
        let without = INFO.split_inclusive(|byte| *byte == b'\n').take(2).collect::<Vec<_>>().concat();
        assert!(!is_bind(&without, Path::new("/pods/memory")));
        assert!(!is_bind(INFO, Path::new("/pods/none")));
    }

    #[test]
    fn unbind_when_nothing_is_there_succeeds() {
        unbind(Path::new("/nonexistent/volume")).unwrap();
    }
}
