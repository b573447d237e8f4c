//! Which versions of CNI are spoken?

use std::fmt;

use serde_json::{Value, json};

/// A version of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: adds CHECK.
    V0_4_0,
    /// 1.0.0: `ips` without `version`.
    V1_0_0,
    /// 1.1.0: adds GC and STATUS, and `mtu`, `socketPath`, `pciID` of interfaces.
    V1_1_0,
}

/// All versions spoken, oldest first.
pub const SUPPORTED: [Version; 5] =
    [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];

impl Version {
    /// The version as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version with that text, if it is spoken.
    pub fn parse(text: &str) -> Option<Self> {
        SUPPORTED.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The version to tell an error in when a configuration cannot be served: its own, or the newest where that is not known.
pub fn version_of(stdin: &[u8]) -> Version {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        cni_version: String,
    }
    let found: Option<Versioned> = serde_json::from_slice(stdin).ok();
    found.and_then(|found| Version::parse(&found.cni_version)).unwrap_or(Version::V1_1_0)
}

/// The answer to VERSION (§"VERSION Success"): in the version asked in, or the newest where that one is not spoken.
pub fn versions_answer(asked: Option<&str>) -> Value {
    let version = asked.and_then(Version::parse).unwrap_or(Version::V1_1_0);
    json!({
        "cniVersion": version.as_str(),
        "supportedVersions": SUPPORTED.map(Version::as_str),
    })
}
