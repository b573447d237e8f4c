//! How is the kernel's tree of devices read, while devices come and go?

use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::io::Errno;

/// The names in a folder; none if it is not there.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = missing_is_none(std::fs::read_dir(folder))?.into_iter().flatten();
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The last name of what a link points to; `None` if there is no such link.
pub(crate) fn link_name(link: &Path) -> io::Result<Option<String>> {
    let target = missing_is_none(std::fs::read_link(link))?;
    Ok(target.and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned())))
}

/// A device that is not there, or no longer, is an answer.
pub(crate) fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        // What sysfs says of a device whose folder is open still.
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}
