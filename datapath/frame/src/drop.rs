//! Why did a frame end here? One enum for every reason the product knows.

/// The named end of a frame that was not transmitted. Each variant is one metric label ([`DropReason::label`]) and one
/// sentence of a trace ([`DropReason::sentence`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than its own headers say.
    Truncated,
    /// A header contradicts itself (version, length, data offset).
    Malformed,
    /// The frame's source MAC is a group address or zero.
    BadSourceMac,
    /// The receiving port is in no network.
    NoNetwork,
    /// The VLAN tag is not one the port carries.
    VlanNotAllowed,
    /// Port security: the source MAC is not the port's.
    SpoofedMac,
    /// Port security: the source IP, or the sender an ARP or ND message claims, is not the port's.
    SpoofedIp,
    /// Port security: it speaks as a router or a DHCP server, which the network has in the switch (RFC 6104, RFC 7610).
    RogueServer,
    /// The destination is the port the frame came from.
    SamePort,
    /// Unknown destination, and the network does not flood.
    UnknownDestination,
    /// There is nobody else in the network to flood to.
    NoReceiver,
    /// The ports it came from and goes to are both isolated.
    Isolated,
    /// A link-local control frame (STP, LLDP, pause) that a switch must not forward.
    LinkLocal,
    /// Longer than the destination port's MTU, and not segmentable.
    TooBig,
    /// The destination port exists but nobody is attached to it or its link is down.
    PortDown,
    /// The destination port was removed while the frame was on its way.
    PortGone,
    /// The destination's ring or queue stayed full through the bounded retry.
    RingFull,
    /// The source ring handed out a descriptor that breaks the virtio rules.
    BadDescriptor,
    /// The virtio-net header contradicts the frame (checksum offset, GSO size).
    BadOffload,
    /// More segments than a frame may have.
    TooManySegments,
    /// The kernel refused the frame (errno counted by the port).
    KernelRefused,
    /// It is for another subnet, and the router has none that holds its destination.
    NoRoute,
    /// It is for a subnet of the router, in which no port has its destination.
    NoNeighbor,
    /// It has passed as many routers as it may.
    TtlExpired,
    /// It is for the gateway itself, which offers no such service.
    ForGateway,
    /// A tunnel's packet from an address that is no node's.
    NotANode,
    /// A tunnel's packet of a network that is not on this node.
    UnknownVni,
    /// A tunnel's packet whose headers ask for what is not offered here.
    BadTunnel,
    /// It does not fit the state of its connection, or is of none and may not open one.
    OutOfState,
    /// Its port, its zone or the switch has as many connections as it may.
    ConnectionLimit,
    /// Its source is to be translated, and no port is free for it.
    NoNatPort,
    /// Its source is to be translated, and cannot be: a protocol without ports, or a fragment before its first.
    NotTranslatable,
    /// A policy does not allow its connection.
    PolicyDenied,
    /// Nobody serves the service's address and port that it is for.
    NoEndpoint,
    /// It is a message of DHCP that the switch takes and has no answer to.
    DhcpUnanswered,
    /// Its port was told its addresses as often as it may be for now.
    AnswerLimit,
    /// Dropped on purpose by an injected fault (tests only).
    Fault,
}

impl DropReason {
    /// Every reason, in the order of its number.
    pub const ALL: [DropReason; 37] = [
        Self::Truncated,
        Self::Malformed,
        Self::BadSourceMac,
        Self::NoNetwork,
        Self::VlanNotAllowed,
        Self::SpoofedMac,
        Self::SpoofedIp,
        Self::RogueServer,
        Self::SamePort,
        Self::UnknownDestination,
        Self::NoReceiver,
        Self::Isolated,
        Self::LinkLocal,
        Self::TooBig,
        Self::PortDown,
        Self::PortGone,
        Self::RingFull,
        Self::BadDescriptor,
        Self::BadOffload,
        Self::TooManySegments,
        Self::KernelRefused,
        Self::NoRoute,
        Self::NoNeighbor,
        Self::TtlExpired,
        Self::ForGateway,
        Self::NotANode,
        Self::UnknownVni,
        Self::BadTunnel,
        Self::OutOfState,
        Self::ConnectionLimit,
        Self::NoNatPort,
        Self::NotTranslatable,
        Self::PolicyDenied,
        Self::NoEndpoint,
        Self::DhcpUnanswered,
        Self::AnswerLimit,
        Self::Fault,
    ];

    /// The metric label: short, stable, lower case with underscores.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::BadSourceMac => "bad_source_mac",
            Self::NoNetwork => "no_network",
            Self::VlanNotAllowed => "vlan_not_allowed",
            Self::SpoofedMac => "spoofed_mac",
            Self::SpoofedIp => "spoofed_ip",
            Self::RogueServer => "rogue_server",
            Self::SamePort => "same_port",
            Self::UnknownDestination => "unknown_destination",
            Self::NoReceiver => "no_receiver",
            Self::Isolated => "isolated",
            Self::LinkLocal => "link_local",
            Self::TooBig => "too_big",
            Self::PortDown => "port_down",
            Self::PortGone => "port_gone",
            Self::RingFull => "ring_full",
            Self::BadDescriptor => "bad_descriptor",
            Self::BadOffload => "bad_offload",
            Self::TooManySegments => "too_many_segments",
            Self::KernelRefused => "kernel_refused",
            Self::NoRoute => "no_route",
            Self::NoNeighbor => "no_neighbor",
            Self::TtlExpired => "ttl_expired",
            Self::ForGateway => "for_gateway",
            Self::NotANode => "not_a_node",
            Self::UnknownVni => "unknown_vni",
            Self::BadTunnel => "bad_tunnel",
            Self::OutOfState => "out_of_state",
            Self::ConnectionLimit => "connection_limit",
            Self::NoNatPort => "no_nat_port",
            Self::NotTranslatable => "not_translatable",
            Self::PolicyDenied => "policy_denied",
            Self::NoEndpoint => "no_endpoint",
            Self::DhcpUnanswered => "dhcp_unanswered",
            Self::AnswerLimit => "answer_limit",
            Self::Fault => "fault",
        }
    }

    /// The sentence a trace ends with.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Truncated => "the frame is shorter than its own headers say",
            Self::Malformed => "a header of the frame contradicts itself",
            Self::BadSourceMac => "its source MAC is a group address or zero, which no station may use",
            Self::NoNetwork => "the port it came in on belongs to no network",
            Self::VlanNotAllowed => "its VLAN is not one that the port carries",
            Self::SpoofedMac => "its source MAC is not one of the port's: port security",
            Self::SpoofedIp => "the IP address it claims is not one of the port's: port security",
            Self::RogueServer => {
                "its port speaks as a router or a DHCP server, which the network has in the switch"
            }
            Self::SamePort => "its destination is behind the port it came from",
            Self::UnknownDestination => "nobody knows its destination, and this network does not flood",
            Self::NoReceiver => "there is nobody else in the network to receive it",
            Self::Isolated => "the ports it came from and goes to are both isolated",
            Self::LinkLocal => "it is a link-local control frame, which a switch does not forward",
            Self::TooBig => "it is longer than the destination port's MTU and cannot be segmented",
            Self::PortDown => "the destination port has nobody attached or its link is down",
            Self::PortGone => "the destination port was removed",
            Self::RingFull => "the destination's ring stayed full",
            Self::BadDescriptor => "the source's ring held a descriptor that breaks the virtio rules",
            Self::BadOffload => "its virtio-net header contradicts the frame",
            Self::TooManySegments => "it is scattered over more segments than a frame may have",
            Self::KernelRefused => "the kernel refused it",
            Self::NoRoute => "its router has no subnet that holds its destination",
            Self::NoNeighbor => "its destination's subnet is here, but no port has the address",
            Self::TtlExpired => "it has passed as many routers as it may",
            Self::ForGateway => "it is for the gateway itself, which offers no such service",
            Self::NotANode => "it is a tunnel's packet from an address that is no node's",
            Self::UnknownVni => "it is a tunnel's packet of a network that is not on this node",
            Self::BadTunnel => "it is a tunnel's packet whose headers ask for what is not offered here",
            Self::OutOfState => "it does not fit the state of its connection, and opens none",
            Self::ConnectionLimit => "its port, its zone or the switch has as many connections as it may",
            Self::NoNatPort => "its source is to be translated, and no port is free for it",
            Self::NotTranslatable => {
                "its source is to be translated, and it has no ports, or is a fragment before its first"
            }
            Self::PolicyDenied => "a policy does not allow its connection",
            Self::NoEndpoint => "nobody serves the service's address and port that it is for",
            Self::DhcpUnanswered => "it is a message of DHCP that the switch takes and has no answer to",
            Self::AnswerLimit => "its port was told its addresses as often as it may be in this second",
            Self::Fault => "a test injected this fault",
        }
    }
}

/// How many frames ended for each reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl Default for DropCounts {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl DropCounts {
    /// Counts `frames` more for `reason`.
    pub fn add(&mut self, reason: DropReason, frames: u64) {
        self.0[reason as usize] += frames;
    }

    /// Frames that ended for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Frames that ended for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &DropCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The reasons that have a count, with it.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.get(reason))).filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_at_its_own_number() {
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }

    #[test]
    fn labels_are_unique() {
        let labels: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }
}
