//! What identifies an interface of a pod, and of which kind is it?

use std::fmt;
use std::str::FromStr;

use crate::{ContainerId, IfName};

/// One interface of one container (CNI 1.1 §"Parameters": container id and interface name identify an attachment).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct AttachmentId {
    /// The container, a pod's sandbox.
    pub container: ContainerId,
    /// The interface in it.
    pub interface: IfName,
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of container {}", self.interface, self.container)
    }
}

/// The kind of interface a pod is given.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A kernel netdev.
    #[default]
    Tap,
    /// A vhost-user socket for a program or a virtual machine that brings its own virtio-net driver.
    VhostUser,
}

impl PortKind {
    /// The word for it in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::VhostUser => "vhost-user",
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no port kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no port kind: choose tap or vhost-user")]
pub struct UnknownPortKind(String);

impl FromStr for PortKind {
    type Err = UnknownPortKind;

    fn from_str(text: &str) -> Result<Self, UnknownPortKind> {
        [Self::Tap, Self::VhostUser]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownPortKind(text.to_owned()))
    }
}

/// The pod that a container belongs to, where the runtime says it (CNI_ARGS `K8S_POD_*`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; a safe path component.
    pub uid: Option<ContainerId>,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
