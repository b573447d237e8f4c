//! Which names can a device have?

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::abi::NAME_MAX;

/// Where the devices of a kernel are.
pub(crate) const FOLDER: &str = "/dev/vduse";

/// Bytes that a name has at most: the kernel's `VDUSE_NAME_MAX` less its NUL.
pub const MAX_NAME_BYTES: usize = NAME_MAX - 1;

/// A device's name: the file under `/dev/vduse`, the folder under `/sys/class/vduse`, and what `vdpa dev add name` takes.
///
/// 1 to [`MAX_NAME_BYTES`] bytes of UTF-8 without `/` (which the kernel would change to `!`), white space or control
/// characters; not `.`, `..` or `control`. One name is one device in the whole kernel, in all its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName(String);

/// Why no device can have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes. The kernel would answer EINVAL.
    #[error("the name is empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`]. The kernel would cut it.
    #[error("the name has {0} bytes, more than {MAX_NAME_BYTES}")]
    TooLong(usize),
    /// A byte that is none of a file's name, or that nobody could write.
    #[error("the name has a {0:?}: '/', white space and control characters are not allowed")]
    Character(char),
    /// `.`, `..`, and `control`, which is the file that devices are created with.
    #[error("the name {0:?} is taken by the kernel: choose another")]
    Reserved(&'static str),
}

impl DeviceName {
    /// `name`, if a device can have it.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(name.len()));
        }
        let stranger = |c: &char| *c == '/' || c.is_whitespace() || c.is_control();
        if let Some(character) = name.chars().find(stranger) {
            return Err(NameError::Character(character));
        }
        if let Some(reserved) = [".", "..", "control"].into_iter().find(|reserved| **reserved == name) {
            return Err(NameError::Reserved(reserved));
        }
        Ok(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device's file, `/dev/vduse/NAME`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(FOLDER).join(&self.0)
    }

    /// As the kernel takes it: filled up with NULs.
    pub(crate) fn to_bytes(&self) -> [u8; NAME_MAX] {
        let mut bytes = [0; NAME_MAX];
        bytes[..self.0.len()].copy_from_slice(self.0.as_bytes());
        bytes
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl AsRef<str> for DeviceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_the_kernel_would_refuse_cut_or_change_are_refused() {
        let long = "x".repeat(256);
        let cases = [
            ("", NameError::Empty),
            (long.as_str(), NameError::TooLong(256)),
            ("a/b", NameError::Character('/')),
            ("a b", NameError::Character(' ')),
            ("a\0", NameError::Character('\0')),
            ("a\n", NameError::Character('\n')),
            (".", NameError::Reserved(".")),
            ("..", NameError::Reserved("..")),
            ("control", NameError::Reserved("control")),
        ];
        for (name, error) in cases {
            assert_eq!(DeviceName::new(name), Err(error), "{name:?}");
        }
    }

    #[test]
    fn a_name_of_the_longest_length_keeps_its_nul() {
        let name = DeviceName::new("x".repeat(MAX_NAME_BYTES)).unwrap();
        assert_eq!(name.to_bytes()[MAX_NAME_BYTES], 0);
        assert_eq!(name.to_bytes()[MAX_NAME_BYTES - 1], b'x');
    }

    proptest! {
        #[test]
        fn a_name_that_is_accepted_is_one_file_of_the_folder(text in ".*") {
            if let Ok(name) = DeviceName::new(text) {
                let path = name.path();
                prop_assert_eq!(path.parent(), Some(std::path::Path::new(FOLDER)));
                prop_assert_eq!(path.file_name().and_then(|file| file.to_str()), Some(name.as_str()));
                prop_assert_eq!(name.to_bytes()[NAME_MAX - 1], 0);
            }
        }
    }
}
