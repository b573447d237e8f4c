//! Which texts name a network, a container, an interface?

use std::fmt;
use std::str::FromStr;

/// Why a text is no legal name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// Longer than the kernel, a path or the specification allows.
    #[error("the {what} {name:?} is too long: at most {max} characters")]
    TooLong {
        /// What it was to name.
        what: &'static str,
        /// The text's beginning.
        name: String,
        /// The limit.
        max: usize,
    },
    /// A character that may not be in such a name, or not in front.
    #[error("the {what} {name:?} is not legal: {rule}")]
    Character {
        /// What it was to name.
        what: &'static str,
        /// The text.
        name: String,
        /// What is allowed.
        rule: &'static str,
    },
}

/// Declares a name: a string that was checked by `$check` when it was made.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A network's name (CNI 1.1 §"Network configuration format"): letters, digits, `_`, `.`, `-`, starting with a letter or
    /// digit, at most 128 characters.
    NetworkName, check_network
}
name! {
    /// A container's id as the runtime gives it (CNI 1.1 §"Parameters"); same shape as a network's name, at most 253
    /// characters. Always a safe path component.
    ContainerId, check_container
}
name! {
    /// An interface's name in a pod: 1 to 15 characters, none of them `/`, `:` or white space, not `.` or `..`
    /// (the kernel's rule, `dev_valid_name`, and CNI's).
    IfName, check_interface
}

/// Characters of a container's id that people and paths make do with.
const SHORT_ID_CHARS: usize = 12;

impl ContainerId {
    /// Its first twelve characters, as is the custom.
    pub fn short(&self) -> &str {
        // All its characters are of one byte.
        self.as_str().get(..SHORT_ID_CHARS).unwrap_or(self.as_str())
    }
}

const WORD_RULE: &str = "letters, digits, '_', '.' and '-', the first one a letter or digit";
const INTERFACE_RULE: &str = "no '/', no ':', no white space, and neither '.' nor '..'";

fn check_network(text: &str) -> Result<(), NameError> {
    check_word("network name", text, 128)
}

fn check_container(text: &str) -> Result<(), NameError> {
    check_word("container id", text, 253)
}

fn check_word(what: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    check_length(what, text, max)?;
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if legal && text.as_bytes()[0].is_ascii_alphanumeric() {
        return Ok(());
    }
    Err(NameError::Character { what, name: text.to_owned(), rule: WORD_RULE })
}

fn check_interface(text: &str) -> Result<(), NameError> {
    let what = "interface name";
    check_length(what, text, 15)?;
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if text == "." || text == ".." || text.contains(bad) {
        return Err(NameError::Character { what, name: text.to_owned(), rule: INTERFACE_RULE });
    }
    Ok(())
}

fn check_length(what: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > max {
        let name = text.chars().take(max.min(40)).collect();
        return Err(NameError::TooLong { what, name, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_when_at_the_bounds_are_legal() {
        assert!("a".parse::<NetworkName>().is_ok());
        assert!("0blue-net_1.x".parse::<NetworkName>().is_ok());
        assert!("x".repeat(128).parse::<NetworkName>().is_ok());
        assert!("x".repeat(253).parse::<ContainerId>().is_ok());
        assert!("abcdefghijklmno".parse::<IfName>().is_ok());
    }

    #[test]
    fn names_when_outside_of_the_bounds_are_refused() {
        assert_eq!("".parse::<NetworkName>(), Err(NameError::Empty("network name")));
        assert!(matches!("x".repeat(129).parse::<NetworkName>(), Err(NameError::TooLong { .. })));
        assert!(matches!("x".repeat(254).parse::<ContainerId>(), Err(NameError::TooLong { .. })));
        assert!(matches!("abcdefghijklmnop".parse::<IfName>(), Err(NameError::TooLong { .. })));
    }

    #[test]
    fn names_when_they_could_leave_their_directory_are_refused() {
        for text in ["../x", "a/b", ".", "..", "-a", "_a", "a b", "ä", "a\0"] {
            assert!(text.parse::<NetworkName>().is_err(), "{text:?}");
            assert!(text.parse::<ContainerId>().is_err(), "{text:?}");
        }
        for text in ["..", ".", "a/b", "a:b", "a b", "a\n", "a\0"] {
            assert!(text.parse::<IfName>().is_err(), "{text:?}");
        }
    }
}
