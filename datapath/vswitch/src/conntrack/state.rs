//! How far is a connection, and how long may it be idle there?

/// What a connection's packets have shown so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Packets one way only (UDP, echo, and what has no states of its own).
    Unreplied,
    /// Packets both ways.
    Replied,
    /// Both ways for longer than a question and its answer take.
    Stream,
    /// TCP: a SYN.
    SynSent,
    /// TCP: a SYN from each end.
    SimultaneousOpen,
    /// TCP: a SYN and its SYN-ACK.
    SynReceived,
    /// TCP and SCTP: data may flow.
    Established,
    /// TCP: a FIN that is not acknowledged.
    FinWait,
    /// TCP: a FIN that is; the other end goes on.
    CloseWait,
    /// TCP: FINs from both ends, not both acknowledged.
    LastAck,
    /// TCP: both are. What still comes is old.
    TimeWait,
    /// TCP: a RST. SCTP: an ABORT, or all has been said.
    Closed,
    /// SCTP: an INIT.
    CookieWait,
    /// SCTP: the cookie has come back.
    CookieEchoed,
    /// SCTP: an end shuts down.
    Shutdown,
    /// SCTP: so does the other.
    ShutdownAck,
}

impl State {
    const ALL: [Self; 16] = [
        Self::Unreplied,
        Self::Replied,
        Self::Stream,
        Self::SynSent,
        Self::SimultaneousOpen,
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
        Self::CookieWait,
        Self::CookieEchoed,
        Self::Shutdown,
        Self::ShutdownAck,
    ];

    /// The state whose number is in the low bits.
    #[inline]
    pub(super) fn from_bits(bits: u32) -> Self {
        Self::ALL[bits as usize % Self::ALL.len()]
    }

    /// True if losing the connection costs nobody much: no end has answered for certain yet, or all has been said.
    pub(super) fn is_dispensable(self) -> bool {
        match self {
            Self::Unreplied
            | Self::SynSent
            | Self::SimultaneousOpen
            | Self::SynReceived
            | Self::TimeWait
            | Self::Closed
            | Self::CookieWait
            | Self::CookieEchoed => true,
            Self::Replied
            | Self::Stream
            | Self::Established
            | Self::FinWait
            | Self::CloseWait
            | Self::LastAck
            | Self::Shutdown
            | Self::ShutdownAck => false,
        }
    }

    /// For people: the words of Linux's `conntrack -L`, where it has one.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unreplied => "UNREPLIED",
            Self::Replied => "REPLIED",
            Self::Stream => "ASSURED",
            Self::SynSent => "SYN_SENT",
            Self::SimultaneousOpen => "SYN_SENT2",
            Self::SynReceived => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Shutdown => "SHUTDOWN",
            Self::ShutdownAck => "SHUTDOWN_ACK_SENT",
        }
    }
}

/// By which rules a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    Other,
    Udp,
    Echo,
    Tcp,
    Sctp,
}

impl Class {
    const ALL: [Self; 5] = [Self::Other, Self::Udp, Self::Echo, Self::Tcp, Self::Sctp];

    #[inline]
    pub(super) fn from_bits(bits: u32) -> Self {
        Self::ALL[bits as usize % Self::ALL.len()]
    }
}

/// After how many milliseconds without a packet a connection is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) tcp_syn_sent_ms: u64,
    pub(crate) tcp_syn_received_ms: u64,
    pub(crate) tcp_established_ms: u64,
    /// Picked up in its middle, and seen from one end only.
    pub(crate) tcp_unacknowledged_ms: u64,
    pub(crate) tcp_fin_wait_ms: u64,
    pub(crate) tcp_close_wait_ms: u64,
    pub(crate) tcp_last_ack_ms: u64,
    pub(crate) tcp_time_wait_ms: u64,
    pub(crate) tcp_closed_ms: u64,
    pub(crate) udp_ms: u64,
    pub(crate) udp_stream_ms: u64,
    pub(crate) icmp_ms: u64,
    pub(crate) sctp_handshake_ms: u64,
    pub(crate) sctp_established_ms: u64,
    pub(crate) sctp_shutdown_ms: u64,
    pub(crate) sctp_closed_ms: u64,
    pub(crate) generic_ms: u64,
}

impl Default for Timeouts {
    /// Linux's (Documentation/networking/nf_conntrack-sysctl.rst), which applications have come to rely on.
    fn default() -> Self {
        const S: u64 = 1000;
        Self {
            tcp_syn_sent_ms: 120 * S,
            tcp_syn_received_ms: 60 * S,
            tcp_established_ms: 432_000 * S,
            tcp_unacknowledged_ms: 300 * S,
            tcp_fin_wait_ms: 120 * S,
            tcp_close_wait_ms: 60 * S,
            tcp_last_ack_ms: 30 * S,
            tcp_time_wait_ms: 120 * S,
            tcp_closed_ms: 10 * S,
            udp_ms: 30 * S,
            udp_stream_ms: 120 * S,
            icmp_ms: 30 * S,
            sctp_handshake_ms: 3 * S,
            sctp_established_ms: 210 * S,
            sctp_shutdown_ms: 3 * S,
            sctp_closed_ms: 10 * S,
            generic_ms: 600 * S,
        }
    }
}

impl Timeouts {
    /// The one of a connection of `class` in `state`.
    #[inline]
    pub(super) fn of(&self, class: Class, state: State, is_replied: bool) -> u64 {
        match class {
            Class::Tcp => self.of_tcp(state, is_replied),
            Class::Udp if state == State::Stream => self.udp_stream_ms,
            Class::Udp => self.udp_ms,
            Class::Echo => self.icmp_ms,
            Class::Sctp => self.of_sctp(state),
            Class::Other => self.generic_ms,
        }
    }

    #[inline]
    fn of_tcp(&self, state: State, is_replied: bool) -> u64 {
        match state {
            State::Established if is_replied => self.tcp_established_ms,
            State::SynSent | State::SimultaneousOpen => self.tcp_syn_sent_ms,
            State::SynReceived => self.tcp_syn_received_ms,
            State::FinWait => self.tcp_fin_wait_ms,
            State::CloseWait => self.tcp_close_wait_ms,
            State::LastAck => self.tcp_last_ack_ms,
            State::TimeWait => self.tcp_time_wait_ms,
            State::Closed => self.tcp_closed_ms,
            _ => self.tcp_unacknowledged_ms,
        }
    }

    fn of_sctp(&self, state: State) -> u64 {
        match state {
            State::Established => self.sctp_established_ms,
            State::Shutdown | State::ShutdownAck => self.sctp_shutdown_ms,
            State::Closed => self.sctp_closed_ms,
            _ => self.sctp_handshake_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_classes_survive_their_bits() {
        for state in State::ALL {
            assert_eq!(State::from_bits(state as u32), state);
        }
        let labels: std::collections::HashSet<_> = State::ALL.iter().map(|state| state.label()).collect();
        assert_eq!(labels.len(), State::ALL.len());
        for class in Class::ALL {
            assert_eq!(Class::from_bits(class as u32), class);
        }
    }

    #[test]
    fn a_connection_seen_from_one_end_is_not_kept_for_days() {
        let timeouts = Timeouts::default();
        assert_eq!(timeouts.of(Class::Tcp, State::Established, true), 5 * 24 * 3_600_000);
        assert_eq!(timeouts.of(Class::Tcp, State::Established, false), 300_000);
    }
}
