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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A kernel netdev: a TAP of the switch.
    Tap,
    /// A kernel netdev: a virtio device that the switch serves through VDUSE.
    Vduse,
    /// A vhost-user socket for a program or a virtual machine that brings its own virtio-net driver.
    VhostUser,
    /// `/dev/vhost-vdpa-N` for such a program or virtual machine: a device of VDUSE, without a netdev.
    VdpaVhost,
    /// A virtual function of a card (SR-IOV): its netdev, or the function itself by vfio. The switch sees nothing of it.
    Sriov,
    /// A vDPA device of a function of a card: its netdev, or `/dev/vhost-vdpa-N`. The switch sees nothing of it.
    Vdpa,
}

impl PortKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Tap, Self::Vduse, Self::VhostUser, Self::VdpaVhost, Self::Sriov, Self::Vdpa];

    /// The word for it in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Vduse => "vduse",
            Self::VhostUser => "vhost-user",
            Self::VdpaVhost => "vdpa-vhost",
            Self::Sriov => "sriov",
            Self::Vdpa => "vdpa",
        }
    }

    /// Whether the switch serves it through VDUSE, so that it is a device of the kernel's vDPA bus.
    pub fn is_vduse(self) -> bool {
        matches!(self, Self::Vduse | Self::VdpaVhost)
    }

    /// Whether the switch serves a program: the pod gets a file or socket, and no netdev.
    pub fn is_for_programs(self) -> bool {
        matches!(self, Self::VhostUser | Self::VdpaVhost)
    }

    /// Whether it is a device of a card, which has no port in the switch.
    pub fn is_of_card(self) -> bool {
        matches!(self, Self::Sriov | Self::Vdpa)
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind that is asked for: one, or the best that the node has.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub enum KindChoice {
    /// The device that the runtime gives the pod; none: a kernel netdev, of VDUSE where the node has it, else a TAP.
    #[default]
    Auto,
    /// This one, or none.
    Only(PortKind),
}

impl KindChoice {
    /// The word for it in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Only(kind) => kind.as_str(),
        }
    }

    /// Whether an interface of that kind is what this asks for.
    pub fn allows(self, kind: PortKind) -> bool {
        match self {
            Self::Auto => matches!(kind, PortKind::Vduse | PortKind::Tap) || kind.is_of_card(),
            Self::Only(only) => only == kind,
        }
    }

    /// True for the default, which is not written: an agent of before it reads what it wrote itself.
    pub(crate) fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl fmt::Display for KindChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no port kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no port kind: choose auto, tap, vduse, vhost-user, vdpa-vhost, sriov or vdpa")]
pub struct UnknownPortKind(String);

impl FromStr for KindChoice {
    type Err = UnknownPortKind;

    fn from_str(text: &str) -> Result<Self, UnknownPortKind> {
        let all = PortKind::ALL.map(Self::Only);
        std::iter::once(Self::Auto)
            .chain(all)
            .find(|choice| choice.as_str() == text)
            .ok_or_else(|| UnknownPortKind(text.to_owned()))
    }
}

impl TryFrom<String> for KindChoice {
    type Error = UnknownPortKind;

    fn try_from(text: String) -> Result<Self, UnknownPortKind> {
        text.parse()
    }
}

impl From<KindChoice> for String {
    fn from(choice: KindChoice) -> String {
        choice.as_str().to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_choice_when_written_and_read_is_the_same() {
        for choice in std::iter::once(KindChoice::Auto).chain(PortKind::ALL.map(KindChoice::Only)) {
            assert_eq!(choice.as_str().parse(), Ok(choice));
            assert_eq!(serde_yaml_ng::to_string(&choice).unwrap().trim(), choice.as_str());
        }
        let error = "ipvlan".parse::<KindChoice>().unwrap_err().to_string();
        assert!(error.contains("choose auto, tap, vduse, vhost-user, vdpa-vhost, sriov or vdpa"), "{error}");
    }

    #[test]
    fn port_kind_when_stored_has_its_word() {
        for kind in PortKind::ALL {
            assert_eq!(serde_yaml_ng::to_string(&kind).unwrap().trim(), kind.as_str());
        }
    }
}
