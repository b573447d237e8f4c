//! How are directories and files made and removed, where a pod may write into them too?
//!
//! A per-pod directory is shared with the pod, which may fill it with anything: symbolic links, mounts, directories a
//! million deep. Nothing here follows a link or enters a mount, and removal needs neither stack nor descriptors for depth.

use std::ffi::{CStr, CString};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use reconcile::kernel::{KernelError, Ownership};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::refused;

/// Entries that one removal takes away before it concludes that somebody adds them as fast.
const MAX_REMOVED: usize = 1 << 20;

/// Makes the directory with its parents.
pub(crate) fn make_dir(path: &Path, ownership: Ownership) -> Result<(), KernelError> {
    try_make_dir(path, ownership)
        .map_err(|error| refused(format!("make the directory {}", path.display()), &error))
}

fn try_make_dir(path: &Path, ownership: Ownership) -> io::Result<()> {
    make_parents(path)?;
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    // By descriptor: what is changed is the directory that was looked at.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let dir = rustix::fs::open(path, flags, Mode::empty())?;
    own(&dir, ownership)
}

fn make_parents(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    let mut missing = Vec::new();
    for ancestor in parent.ancestors() {
        if ancestor.as_os_str().is_empty() || ancestor.exists() {
            break;
        }
        missing.push(ancestor);
    }
    for ancestor in missing.into_iter().rev() {
        match std::fs::create_dir(ancestor) {
            // A second ADD made it at the same time, and sets the mode too.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        std::fs::set_permissions(ancestor, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn own(file: &OwnedFd, ownership: Ownership) -> io::Result<()> {
    let now = rustix::fs::fstat(file)?;
    // Without the check an unprivileged owner could not even confirm what is so already.
    if (now.st_uid, now.st_gid) != (ownership.uid, ownership.gid) {
        let (uid, gid) = (Uid::from_raw(ownership.uid), Gid::from_raw(ownership.gid));
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(ownership.mode & 0o7777))?)
}

/// Removes the directory and what is in it.
pub(crate) fn remove_dir(path: &Path) -> Result<(), KernelError> {
    match try_remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error)
            if error.kind() == ErrorKind::CrossesDevices || error.kind() == ErrorKind::ResourceBusy =>
        {
            Err(KernelError::Refused {
                doing: format!("remove the directory {}", path.display()),
                reason: "something is mounted in it: unmount that first (see /proc/self/mountinfo)".into(),
            })
        }
        result => result.map_err(|error| refused(format!("remove the directory {}", path.display()), &error)),
    }
}

fn try_remove_dir(path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let top = rustix::fs::open(path, flags, Mode::empty())?;
    let mut removed = 0;
    loop {
        let entries = entries(&top)?;
        if entries.is_empty() {
            return std::fs::remove_dir(path);
        }
        for (name, is_dir) in entries {
            removed += if is_dir { flatten(&top, &name, removed)? } else { unlink(&top, &name)? };
        }
        if removed > MAX_REMOVED {
            return Err(io::Error::other("it fills up as fast as it is emptied: stop what writes there"));
        }
    }
}

/// Removes the directory `name` of `top`. Its own directories move up into `top`, where the next pass finds them: depth
/// costs passes, not stack. Returns how many entries it touched; `serial` is unique to the call.
fn flatten(top: &OwnedFd, name: &CStr, serial: usize) -> io::Result<usize> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    // A mount point opens as what is mounted there: NO_XDEV refuses, and the removal stops.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let sub = rustix::fs::openat2(top, name, flags, Mode::empty(), resolve)?;
    let mut touched = 1;
    for (child, is_dir) in entries(&sub)? {
        touched += 1;
        if !is_dir {
            unlink(&sub, &child)?;
            continue;
        }
        // A name that is taken by a non-empty directory refuses the move; the next serial is another.
        let up = CString::new(format!(".removing-{}", serial + touched)).map_err(io::Error::other)?;
        rustix::fs::renameat(&sub, &child, top, &up)?;
    }
    rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)?;
    Ok(touched)
}

fn unlink(dir: &OwnedFd, name: &CStr) -> io::Result<usize> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(1),
        Err(errno) => Err(errno.into()),
    }
}

/// What is in the directory: names, and whether each is a directory.
fn entries(dir: &OwnedFd) -> io::Result<Vec<(CString, bool)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        found.push((name.to_owned(), kind == FileType::Directory));
    }
    Ok(found)
}

/// Writes the whole file: readers see all of it or none.
pub(crate) fn write(path: &Path, content: &[u8], ownership: Ownership) -> Result<(), KernelError> {
    try_write(path, content, ownership).map_err(|error| refused(format!("write {}", path.display()), &error))
}

fn try_write(path: &Path, content: &[u8], ownership: Ownership) -> io::Result<()> {
    make_parents(path)?;
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft: PathBuf = path.with_file_name(name);
    // A draft left behind by a crash, or a link planted under its name, goes first; `create_new` follows nothing.
    remove_if_there(&draft)?;
    let written = write_draft(&draft, content, ownership).and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = remove_if_there(&draft);
    }
    written
}

fn write_draft(draft: &Path, content: &[u8], ownership: Ownership) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(content)?;
    let file = OwnedFd::from(file);
    own(&file, ownership)
}

/// Removes the file or socket.
pub(crate) fn remove(path: &Path) -> Result<(), KernelError> {
    remove_if_there(path).map_err(|error| refused(format!("remove {}", path.display()), &error))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn ours(mode: u32) -> Ownership {
        let uid = rustix::process::geteuid().as_raw();
        Ownership { uid, gid: rustix::process::getegid().as_raw(), mode }
    }

    #[test]
    fn make_dir_when_asked_twice_leaves_the_second_mode() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b/c");
        make_dir(&path, ours(0o700)).unwrap();
        make_dir(&path, ours(0o750)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o750);
        assert_eq!(std::fs::metadata(scratch.path().join("a")).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn make_dir_when_a_link_is_in_the_way_refuses() {
        let scratch = tempfile::tempdir().unwrap();
        symlink("/", scratch.path().join("pod")).unwrap();
        let error = make_dir(&scratch.path().join("pod"), ours(0o777)).unwrap_err();
        assert!(error.to_string().contains("pod"), "{error}");
    }

    #[test]
    fn remove_dir_when_it_is_deeper_than_any_path_removes_it_all() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("pod");
        std::fs::create_dir(&path).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut here = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        for _ in 0..1000 {
            rustix::fs::mkdirat(&here, "deep", Mode::RWXU).unwrap();
            here = rustix::fs::openat(&here, "deep", flags, Mode::empty()).unwrap();
        }
        drop(here);
        remove_dir(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn remove_dir_when_it_holds_links_leaves_what_they_name() {
        let scratch = tempfile::tempdir().unwrap();
        let (path, other) = (scratch.path().join("pod"), scratch.path().join("other"));
        std::fs::create_dir_all(path.join("x/y")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("precious"), "kept").unwrap();
        symlink(&other, path.join("x/link")).unwrap();
        remove_dir(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(std::fs::read_to_string(other.join("precious")).unwrap(), "kept");
    }

    #[test]
    fn remove_dir_when_it_is_not_there_succeeds() {
        remove_dir(Path::new("/nonexistent/pod")).unwrap();
    }

    #[test]
    fn write_when_the_file_exists_replaces_it_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("dir/info.json");
        write(&path, b"a longer first version", ours(0o600)).unwrap();
        write(&path, b"second", ours(0o640)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }
}
