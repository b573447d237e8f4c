//! How is the kernel asked about a netdev by its name (netdevice(7))?

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, ifreq};

/// A netdev name that fits `ifreq`: 1 to 15 bytes, none of which means something to the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Name(CString);

impl Name {
    /// `name`, if a netdev can have it (`dev_valid_name`; '%' would make it a template).
    pub(crate) fn new(name: &str) -> Option<Self> {
        let fits = (1..libc::IFNAMSIZ).contains(&name.len()) && name != "." && name != "..";
        let clean =
            !name.bytes().any(|b| matches!(b, b'/' | b':' | b'%') || b.is_ascii_whitespace() || b == 0x0b);
        (fits && clean).then(|| CString::new(name).ok()).flatten().map(Self)
    }

    /// The name that the kernel wrote into `request`.
    pub(crate) fn read(request: &ifreq) -> io::Result<Self> {
        let bytes: Vec<u8> = request.ifr_name.iter().map(|c| *c as u8).collect();
        let name = CStr::from_bytes_until_nul(&bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self(name.to_owned()))
    }

    /// As text, for people.
    pub(crate) fn to_string_lossy(&self) -> std::borrow::Cow<'_, str> {
        self.0.to_string_lossy()
    }

    /// An `ifreq` that names it.
    pub(crate) fn request(&self) -> ifreq {
        // SAFETY: `ifreq` is plain old data; all zeroes is one of its values.
        let mut request: ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.0.as_bytes()) {
            *to = *from as libc::c_char;
        }
        request
    }
}

/// `ioctl(fd, code, &mut ifreq)`.
///
/// # Safety
/// `code` must take a pointer to an `ifreq`.
pub(crate) unsafe fn ioctl(fd: BorrowedFd<'_>, code: libc::Ioctl, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: the caller vouches for `code`; the pointer is to one live, exclusive `ifreq`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The flags (IFF_UP, IFF_RUNNING) of the netdev `name` in the namespace of the socket `control`.
pub(crate) fn flags_of(control: &OwnedFd, name: &Name) -> io::Result<c_int> {
    let mut request = name.request();
    // SAFETY: SIOCGIFFLAGS takes an `ifreq` and writes its flags.
    unsafe { ioctl(control.as_fd(), libc::SIOCGIFFLAGS, &mut request)? };
    // SAFETY: the kernel wrote this member; any 16 bits are one of its values.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(c_int::from(flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_would_refuse_or_expand_is_refused() {
        for bad in ["", ".", "..", "a/b", "a:b", "eth%d", "a b", "sixteen-bytes-xx", "a\0b", "tab\t"] {
            assert!(Name::new(bad).is_none(), "{bad:?}");
        }
        for good in ["e", "eth0", "fifteen-bytes-x", "net1.5"] {
            assert!(Name::new(good).is_some(), "{good:?}");
        }
    }
}
