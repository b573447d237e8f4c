//! Who is compared: two pods, and what connects them.

use lab::Netns;
use serde::Serialize;

use crate::chart::Color;
use crate::cpu;
use crate::millrace_switch::SwitchProcess;
use crate::netns;
use crate::ovs_daemon::Daemon;
use crate::process::Process;

/// What connects the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Contender {
    /// Millrace, with its whole pipeline on.
    #[serde(rename = "millrace")]
    Millrace,
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
            Self::Millrace => "Millrace",
            Self::Veth => "veth + bridge",
            Self::OvsTap => "OVS userspace, TAP + TSO",
            Self::OvsAfPacket => "OVS-DPDK, af_packet",
            Self::OvsVhost => "OVS-DPDK, vhost-user",
        }
    }

    /// In charts.
    pub(crate) fn color(self) -> Color {
        match self {
            Self::Millrace => Color::MILLRACE,
            Self::Veth => Color::KERNEL,
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
    /// Nothing but the kernel.
    Bridge {
        /// Where the bridge is.
        _netns: Netns,
    },
    /// An Open vSwitch.
    Ovs(Daemon),
}

/// Two pods that are connected.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) contender: Contender,
    pub(crate) version: String,
    parts: Parts,
    pub(crate) pods: [Netns; 2],
}

impl Link {
    /// Takes what was built.
    pub(crate) fn new(contender: Contender, version: String, parts: Parts, pods: [Netns; 2]) -> Self {
        Self { contender, version, parts, pods }
    }

    fn switch(&self) -> Option<&Process> {
        match &self.parts {
            Parts::Millrace(switch) => Some(switch.process()),
            Parts::Ovs(daemon) => Some(daemon.switch()),
            Parts::Bridge { .. } => None,
        }
    }

    /// Takes the CPU away from it.
    pub(crate) fn pause(&self) {
        self.switch().into_iter().for_each(Process::pause);
    }

    /// Gives the CPU back, and waits until frames pass.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        match &mut self.parts {
            Parts::Millrace(switch) => {
                switch.process().resume();
                switch.check()?;
            }
            Parts::Ovs(daemon) => {
                daemon.switch().resume();
                daemon.check()?;
            }
            Parts::Bridge { .. } => {}
        }
        netns::await_path(&self.pods)
    }

    /// CPU time that its program has used; zero for the kernel, whose time stands in nobody's name.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.switch().map_or(0, |switch| cpu::process_ns(switch.id()))
    }
}
