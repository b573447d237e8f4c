//! Where do frontend and switch meet? A socket that the switch made, or one that it looks for.
//!
//! The directory may belong to a pod, which can replace what lies in it at any moment. So the socket file is opened
//! without following links, checked to be a socket, and only then given its owner and mode, through that descriptor;
//! and listening begins after that, so that nobody connects before. A file is removed only if it is a socket, and at the
//! end only if it is the one that was made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Role, VhostUserError};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 8;

/// One port's place to meet.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// The switch made the socket.
    Created(Listener),
    /// The program makes the socket.
    Remote(PathBuf),
}

impl Endpoint {
    pub(super) fn open(path: &Path, role: Role) -> Result<Self, VhostUserError> {
        match role {
            Role::Create { uid, gid, mode } => Listener::create(path, uid, gid, mode).map(Endpoint::Created),
            Role::Connect => Ok(Endpoint::Remote(path.to_owned())),
        }
    }

    /// What a port without frontend waits for, in words.
    pub(super) fn waiting(&self) -> String {
        match self {
            Endpoint::Created(listener) => {
                format!("waiting for a program to connect to {}", listener.path.display())
            }
            Endpoint::Remote(path) => format!("waiting for a program to create {}", path.display()),
        }
    }
}

/// A listening socket and the file it is reached by. Dropping it removes the file, if it is still this one.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    id: FileId,
}

impl Listener {
    fn create(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<Self, VhostUserError> {
        remove_stale(path)?;
        let failed = |step, errno: Errno| failed(step, path, errno);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| failed("make a socket for", errno))?;
        let address = SocketAddrUnix::new(path).map_err(|errno| failed("name", errno))?;
        rustix::net::bind(&socket, &address).map_err(|errno| match errno {
            Errno::ADDRINUSE => VhostUserError::Busy(path.to_owned()),
            errno => failed("bind", errno),
        })?;
        let file = SocketFile::open(path).map_err(|errno| failed("find", errno))?;
        let listener = Self { socket: socket.into(), path: path.to_owned(), id: file.id };
        // From here on the listener's drop removes the file.
        file.give(uid, gid, mode).map_err(|errno| failed("set owner and mode of", errno))?;
        rustix::net::listen(&listener.socket, BACKLOG).map_err(|errno| failed("listen on", errno))?;
        Ok(listener)
    }

    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().map(|(stream, _address)| stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Ok(stat) = stat_link(&self.path)
            && is_socket(&stat)
            && FileId::of(&stat) == self.id
        {
            // Gone already is as good as removed.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Connects without waiting: a full backlog is an error to try again after, like a missing socket.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Makes room for a socket at `path`: removes one that nobody listens on any more.
fn remove_stale(path: &Path) -> Result<(), VhostUserError> {
    let stat = match stat_link(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("look at", path, errno)),
    };
    if !is_socket(&stat) {
        return Err(VhostUserError::NotASocket(path.to_owned()));
    }
    match connect(path) {
        Ok(_) | Err(Errno::AGAIN) => Err(VhostUserError::Busy(path.to_owned())),
        Err(Errno::CONNREFUSED) => match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove the old", path, errno)),
        },
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("ask who listens on", path, errno)),
    }
}

/// Which file it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// A socket's file, held so that nobody can put another in its place.
struct SocketFile {
    fd: OwnedFd,
    id: FileId,
}

impl SocketFile {
    fn open(path: &Path) -> Result<Self, Errno> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if !is_socket(&stat) {
            return Err(Errno::NOTSOCK);
        }
        Ok(Self { fd, id: FileId::of(&stat) })
    }

    fn give(&self, uid: u32, gid: u32, mode: u32) -> Result<(), Errno> {
        let (owner, group) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(&self.fd, "", Some(owner), Some(group), AtFlags::EMPTY_PATH)?;
        // chmod(2) refuses descriptors of O_PATH, but not their names in /proc. It comes last, because a change of owner
        // clears bits of the mode.
        let name = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::chmod(name.as_str(), Mode::from_raw_mode(mode & 0o7777))
    }
}

fn stat_link(path: &Path) -> Result<Stat, Errno> {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

fn failed(step: &'static str, path: &Path, errno: Errno) -> VhostUserError {
    VhostUserError::Socket { step, path: path.to_owned(), source: errno.into() }
}
