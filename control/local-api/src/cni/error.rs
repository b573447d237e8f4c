//! How is a failure told to the container runtime?

use serde_json::{Value, json};

use super::{SUPPORTED, Version};

/// An error code (§"Error"): below 100 the specification's, from 100 on Millrace's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u32);

impl Code {
    /// The configuration's version is not spoken.
    pub const INCOMPATIBLE_VERSION: Code = Code(1);
    /// A field that is not supported; the message has its key and value.
    pub const UNSUPPORTED_FIELD: Code = Code(2);
    /// The container does not exist: nothing to clean up.
    pub const UNKNOWN_CONTAINER: Code = Code(3);
    /// A CNI_* variable is missing or not legal.
    pub const INVALID_ENVIRONMENT: Code = Code(4);
    /// Something could not be read or written.
    pub const IO: Code = Code(5);
    /// Something could not be decoded.
    pub const DECODING: Code = Code(6);
    /// The network configuration is not legal.
    pub const INVALID_CONFIG: Code = Code(7);
    /// Temporary: try again later.
    pub const TRY_AGAIN: Code = Code(11);
    /// STATUS: ADD cannot be served.
    pub const NOT_AVAILABLE: Code = Code(50);
    /// STATUS: ADD cannot be served, and existing containers may be limited.
    pub const NOT_AVAILABLE_LIMITED: Code = Code(51);
    /// Millrace: the kernel refused.
    pub const KERNEL: Code = Code(100);
    /// Millrace: the switch refused.
    pub const SWITCH: Code = Code(101);
    /// Millrace: no address is left, or the one asked for is not to be had.
    pub const ADDRESS: Code = Code(102);
    /// Millrace: the interface exists already, or belongs to another network.
    pub const EXISTS: Code = Code(103);
    /// Millrace: CHECK found the attachment not as it was made.
    pub const DRIFT: Code = Code(104);
    /// Millrace: several things failed; the details have one line for each.
    pub const SEVERAL: Code = Code(105);
    /// Millrace: the device of a card is another pod's.
    pub const DEVICE_TAKEN: Code = Code(106);
    /// Millrace: a defect of Millrace itself.
    pub const INTERNAL: Code = Code(199);
}

/// A failure as the runtime sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct CniError {
    /// What kind of failure.
    pub code: Code,
    /// One sentence: what is wrong with which object, and the remedy.
    pub msg: String,
    /// More lines, or nothing.
    pub details: String,
}

impl CniError {
    /// A failure without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The version asked for is not spoken.
    pub fn incompatible(asked: &str) -> Self {
        let supported = SUPPORTED.map(Version::as_str).join(", ");
        Self::new(Code::INCOMPATIBLE_VERSION, format!("cniVersion {asked:?} is not supported"))
            .with_details(format!("supported are {supported}: set cniVersion to one of them"))
    }

    /// The error as the runtime reads it (§"Error").
    pub fn to_json(&self, version: Version) -> Value {
        let mut json = json!({
            "cniVersion": version.as_str(),
            "code": self.code.0,
            "msg": self.msg,
        });
        if !self.details.is_empty() {
            json["details"] = Value::from(self.details.as_str());
        }
        json
    }
}
