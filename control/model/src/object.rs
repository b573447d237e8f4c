//! Which object is refused, for which of its fields, and what is to be done? What the errors of policy objects share.

use std::fmt;

use ipnet::IpNet;

/// An object that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {invalid}")]
pub struct ObjectError {
    /// Its kind and name, as written.
    pub object: String,
    /// The path of the field.
    pub field: String,
    /// What is wrong with it.
    pub invalid: InvalidField,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidField {
    /// A text that is no name (RFC 1123).
    #[error(
        "{text:?} is no name: write lower case letters, digits, '-' and '{also}', at most {max}, the first and last a letter or digit"
    )]
    Name {
        /// The text.
        text: String,
        /// A character that is allowed beside those of a label; `-` again where none is.
        also: char,
        /// The limit.
        max: usize,
    },
    /// A text that is no label's key.
    #[error(
        "{0:?} is no label's key: write NAME or DOMAIN/NAME, NAME of at most 63 letters, digits, '-', '_' and '.'"
    )]
    LabelKey(String),
    /// A text that is no label's value.
    #[error(
        "{0:?} is no label's value: write at most 63 letters, digits, '-', '_' and '.', the first and last a letter or digit"
    )]
    LabelValue(String),
    /// `In` or `NotIn` of nothing.
    #[error("is empty: the operators In and NotIn need a value")]
    NoValues,
    /// `Exists` or `DoesNotExist` of something.
    #[error("is not empty: the operators Exists and DoesNotExist take no values, remove them")]
    Values,
    /// A node has no address of its own for those who come from outside.
    #[error(
        "Local needs a nodePort in each port, to tell who comes to this node: give them one, or write Cluster"
    )]
    LocalWithoutNodePort,
    /// How long clients are kept, where they are not.
    #[error("is for sessionAffinity ClientIP: write that, or remove this")]
    WithoutAffinity,
    /// Clients are kept for no time, or for too long.
    #[error("{seconds} is no time to keep a client: choose 1 to {most} seconds")]
    AffinityTimeout {
        /// What was written.
        seconds: u32,
        /// The most.
        most: u32,
    },
    /// Not exactly one of several fields.
    #[error("has {given} of {fields}: write exactly one")]
    NotOne {
        /// How many it has.
        given: usize,
        /// The fields.
        fields: &'static str,
    },
    /// An `ipBlock` beside selectors.
    #[error("stands beside a selector: write them as two peers")]
    BlockAndSelector,
    /// Nothing is said.
    #[error("is empty: write {0}")]
    Empty(&'static str),
    /// An exception from what it is not in.
    #[error("{except} is not a part of {cidr}: remove it, or correct one of them")]
    NotExcept {
        /// The exception.
        except: IpNet,
        /// What it was to be in.
        cidr: IpNet,
    },
    /// A number that no port has.
    #[error("{0} is no port: choose 1 to 65535")]
    Port(u32),
    /// A text that names no port.
    #[error(
        "{0:?} is no port's name: write at most 15 lower case letters, digits and '-', a letter among them"
    )]
    PortName(String),
    /// An end without a numeric begin.
    #[error("needs a port by number: write port, or remove endPort")]
    EndWithoutPort,
    /// The last before the first.
    #[error("{last} lies before {first}: exchange them")]
    Backwards {
        /// The first port.
        first: u32,
        /// The last one.
        last: u32,
    },
    /// Out of the tier's order.
    #[error("{0} is no priority: choose 0 to 1000, where 0 is asked first")]
    Priority(u32),
    /// More than the API allows.
    #[error("has {count} entries: at most {max} are possible, split the object")]
    TooMany {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Longer than the API allows.
    #[error("has {count} characters: shorten it to {max}")]
    TooLong {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Networks in front of a pod.
    #[error("can be named by egress rules only: write the sources as namespaces or pods")]
    EgressOnly,
    /// Something of the API that is not here.
    #[error("is not supported: {0}")]
    Unsupported(&'static str),
    /// A name for a port of what has no named ports.
    #[error("names a port, and networks have no named ports: write tcp, udp or sctp with a number")]
    NamedPortOfNetwork,
    /// A text that names no network.
    #[error("{0}")]
    Network(crate::NameError),
    /// No pod can have it.
    #[error("{0} is no pod's address: write a unicast one, IPv4 not mapped to IPv6")]
    Address(std::net::IpAddr),
}

/// A field that is not legal, before the object's name is known.
#[derive(Debug)]
pub(crate) struct Wrong {
    field: String,
    invalid: InvalidField,
}

pub(crate) type Checked<T> = Result<T, Wrong>;

impl InvalidField {
    /// The fault, in a field.
    pub(crate) fn of(self, field: impl fmt::Display) -> Wrong {
        Wrong { field: field.to_string(), invalid: self }
    }
}

impl Wrong {
    /// The same, in an outer field.
    pub(crate) fn within(self, outer: impl fmt::Display) -> Self {
        Self { field: format!("{outer}.{}", self.field), invalid: self.invalid }
    }

    pub(crate) fn of_object(self, object: impl fmt::Display) -> ObjectError {
        ObjectError { object: object.to_string(), field: self.field, invalid: self.invalid }
    }
}

/// Checks all items of a list, whose faults are in `field[index]`.
pub(crate) fn each<T, U>(field: &str, items: &[T], check: impl Fn(&T) -> Checked<U>) -> Checked<Vec<U>> {
    let numbered = items.iter().enumerate();
    numbered
        .map(|(index, item)| check(item).map_err(|wrong| wrong.within(format_args!("{field}[{index}]"))))
        .collect()
}

/// Holds a list to a limit.
pub(crate) fn at_most<T>(field: &'static str, items: &[T], max: usize) -> Checked<()> {
    match items.len() {
        count if count > max => Err(InvalidField::TooMany { count, max }.of(field)),
        _ => Ok(()),
    }
}

/// A DNS label (RFC 1123 §2.1), as namespaces have.
pub(crate) fn check_label(field: &'static str, text: &str) -> Checked<()> {
    const MAX: usize = 63;
    if is_label(text, MAX) {
        return Ok(());
    }
    Err(InvalidField::Name { text: start(text), also: '-', max: MAX }.of(field))
}

/// A DNS subdomain (RFC 1123 §2.1), as most objects have.
pub(crate) fn check_subdomain(field: &'static str, text: &str) -> Checked<()> {
    if is_subdomain(text) {
        return Ok(());
    }
    Err(InvalidField::Name { text: start(text), also: '.', max: MAX_SUBDOMAIN }.of(field))
}

const MAX_SUBDOMAIN: usize = 253;

pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(|label| is_label(label, MAX_SUBDOMAIN))
}

fn is_label(text: &str, max: usize) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= max
        && bytes.iter().all(|byte| legal(*byte) || *byte == b'-')
        && [bytes.first(), bytes.last()].into_iter().flatten().all(|byte| legal(*byte))
}

/// What an error shows of a text that may be of any length.
pub(crate) fn start(text: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    text.chars().take(SHOWN_CHARS).collect()
}
