//! Who is compared: two pods, and what connects them.

use lab::Netns;
use serde::Serialize;

use super::nodes::Underlay;
use super::vduse::VduseSwitch;
use crate::chart::Color;
use crate::cpu;
use crate::millrace_switch::SwitchProcess;
use crate::netns;
use crate::ovs_daemon::Daemon;
use crate::process::Process;

/// What connects the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Contender {
    /// Millrace on TAP netdevs, with its whole pipeline on.
    #[serde(rename = "millrace")]
    MillraceTap,
    /// The same on virtio netdevs, whose devices are in the switch.
    #[serde(rename = "millrace-vduse")]
    MillraceVduse,
    /// The same on vhost-user sockets, for other ends than pods: no load has both.
    #[serde(rename = "millrace")]
    MillraceVhost,
    /// On two nodes, through Geneve tunnels.
    #[serde(rename = "millrace-geneve")]
    MillraceGeneve,
    /// On two nodes, by VXLAN: the kernel alone.
    #[serde(rename = "vxlan")]
    Vxlan,
    /// A veth pair per pod and a Linux bridge: the kernel alone.
    #[serde(rename = "veth-bridge")]
    Veth,
    /// OVS's userspace datapath on TAP devices, with userspace-tso.
    #[serde(rename = "ovs-tap")]
    OvsTap,
    /// OVS-DPDK on veth ends, which a PMD polls by AF_PACKET.
    #[serde(rename = "ovs-af-packet")]
    OvsAfPacket,
    /// OVS-DPDK on vhost-user sockets.
    #[serde(rename = "ovs-dpdk")]
    OvsVhost,
}

impl Contender {
    /// As people say it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::MillraceTap => "Millrace, TAP",
            Self::MillraceVduse => "Millrace, VDUSE",
            Self::MillraceVhost => "Millrace, vhost-user",
            Self::MillraceGeneve => "Millrace, TAP + Geneve",
            Self::Vxlan => "veth + bridge + VXLAN",
            Self::Veth => "veth + bridge",
            Self::OvsTap => "OVS userspace, TAP + TSO",
            Self::OvsAfPacket => "OVS-DPDK, af_packet",
            Self::OvsVhost => "OVS-DPDK, vhost-user",
        }
    }

    /// Not a peer.
    pub(crate) fn is_millrace(self) -> bool {
        matches!(self, Self::MillraceTap | Self::MillraceVduse | Self::MillraceVhost | Self::MillraceGeneve)
    }

    /// The kernel does it all, whose time stands in nobody's name.
    pub(crate) fn is_kernel(self) -> bool {
        matches!(self, Self::Veth | Self::Vxlan)
    }

    /// In charts.
    pub(crate) fn color(self) -> Color {
        match self {
            Self::MillraceTap | Self::MillraceVhost | Self::MillraceGeneve => Color::MILLRACE,
            Self::MillraceVduse => Color::MILLRACE_LIGHT,
            Self::Veth | Self::Vxlan => Color::KERNEL,
            Self::OvsTap | Self::OvsVhost => Color::PEER,
            Self::OvsAfPacket => Color::PEER_LIGHT,
        }
    }
}

/// What runs, and is gone when it is dropped.
#[derive(Debug)]
pub(crate) enum Parts {
    /// A `millrace switch`.
    Millrace(SwitchProcess),
    /// The same, with what it has made in the kernel.
    MillraceVduse(VduseSwitch),
    /// The same on two nodes.
    Nodes {
        /// One each.
        switches: Vec<SwitchProcess>,
        /// Where they run.
        _underlay: Underlay,
    },
    /// Nothing but the kernels of two nodes.
    Vxlan {
        /// Where they are.
        _underlay: Underlay,
    },
    /// Nothing but the kernel.
    Bridge {
        /// Where the bridge is.
        _netns: Netns,
    },
    /// An Open vSwitch.
    Ovs(Daemon),
}

/// CPU time that was used, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// By a switch's program; zero for the kernel, whose time stands in nobody's name.
    pub(crate) switch_ns: u64,
    /// By everything on the machine.
    pub(crate) machine_ns: u64,
}

impl Spent {
    /// What was spent after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            switch_ns: self.switch_ns.saturating_sub(before.switch_ns),
            machine_ns: self.machine_ns.saturating_sub(before.machine_ns),
        }
    }
}

/// Two pods that are connected.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) contender: Contender,
    pub(crate) version: String,
    // Before the pods: what it has put into them it takes away itself.
    parts: Parts,
    pub(crate) pods: [Netns; 2],
}

impl Link {
    /// Takes what was built.
    pub(crate) fn new(contender: Contender, version: String, parts: Parts, pods: [Netns; 2]) -> Self {
        Self { contender, version, parts, pods }
    }

    fn switches(&self) -> Vec<&Process> {
        match &self.parts {
            Parts::Millrace(switch) => vec![switch.process()],
            Parts::MillraceVduse(vduse) => vec![vduse.switch().process()],
            Parts::Nodes { switches, .. } => switches.iter().map(SwitchProcess::process).collect(),
            Parts::Ovs(daemon) => vec![daemon.switch()],
            Parts::Bridge { .. } | Parts::Vxlan { .. } => Vec::new(),
        }
    }

    /// Takes the CPU away from it.
    pub(crate) fn pause(&self) {
        self.switches().into_iter().for_each(Process::pause);
    }

    /// Gives the CPU back, and waits until frames pass.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.switches().into_iter().for_each(Process::resume);
        match &mut self.parts {
            Parts::Millrace(switch) => switch.check()?,
            Parts::MillraceVduse(vduse) => vduse.switch_mut().check()?,
            Parts::Nodes { switches, .. } => switches.iter_mut().try_for_each(SwitchProcess::check)?,
            Parts::Ovs(daemon) => daemon.check()?,
            Parts::Bridge { .. } | Parts::Vxlan { .. } => {}
        }
        netns::await_path(&self.pods)
    }

    /// CPU time so far.
    pub(crate) fn spent(&self) -> Spent {
        Spent { switch_ns: self.cpu_ns(), machine_ns: cpu::machine_ns() }
    }

    /// CPU time that its programs have used; zero for the kernel, whose time stands in nobody's name.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.switches().into_iter().map(|switch| cpu::process_ns(switch.id())).sum()
    }
}
