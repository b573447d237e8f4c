//! What is sent in one sample: frames of which size, of how many flows, with or without somebody who attacks.

use std::net::Ipv4Addr;

use guest::NetHeader;
use guest::load::Flows;

use crate::millrace::IPS;
use crate::subject::MACS;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;
/// Payload of a TCP segment at an MTU of 1500.
const MSS_BYTES: u16 = 1460;
/// Segments in one large frame: 64 KB less what the last one would exceed.
const SEGMENTS: usize = 44;

/// One line of a row's table, for each subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Case {
    pub(crate) frame: FrameKind,
    pub(crate) flows: Flows,
    /// A third port sends crafted headers meanwhile.
    pub(crate) attacked: bool,
    pub(crate) work: Work,
}

/// What the frames are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Work {
    /// To be forwarded, each by itself.
    Frames,
    /// TCP connections to a service, each with so many requests.
    Connections { requests: u32 },
    /// First packets of connections that a policy denies.
    Denied,
}

impl Work {
    /// Connections that are mostly established.
    pub(crate) const LONG: Self = Self::Connections { requests: 100 };
    /// Packets of a connection with one request.
    pub(crate) const PACKETS: u64 = guest::connections::OTHER_PACKETS + 2;
}

impl Case {
    /// Frames of one flow, and nobody attacks.
    pub(crate) fn plain(frame: FrameKind) -> Self {
        Self { frame, flows: Flows::One, attacked: false, work: Work::Frames }
    }

    /// As the table names it.
    pub(crate) fn title(self) -> String {
        let frame = self.frame.title();
        let attack = if self.attacked { ", attacked" } else { "" };
        match self.work {
            Work::Frames => {}
            Work::Connections { requests: 1 } => return "new connections, 1 request".into(),
            Work::Connections { requests } => return format!("connections, {requests} requests"),
            Work::Denied => return "denied connections".into(),
        }
        match self.flows {
            Flows::One => format!("{frame}{attack}"),
            Flows::Connections(count) => format!("{frame}, {} flows{attack}", short(count)),
            Flows::Stations(count) => format!("{frame}, {} pairs{attack}", short(count)),
        }
    }

    /// The frame from one guest to the other.
    pub(crate) fn frame(self, from: usize) -> (NetHeader, Vec<u8>) {
        let station = |side: usize| match self.flows {
            Flows::Stations(_) => station(side, 0),
            _ => wire::MacAddr(MACS[side]),
        };
        self.frame.frame(path(from, station))
    }

    /// Frames by which every station behind guest `from` is learned, and one that the other guest receives.
    pub(crate) fn hellos(self, from: usize) -> Vec<Vec<u8>> {
        let sources = match self.flows {
            Flows::Stations(pairs) => {
                (0..Flows::stations(pairs)).map(|number| station(from, number)).collect()
            }
            _ => vec![wire::MacAddr(MACS[from])],
        };
        let frame = |source| {
            let station = |side: usize| if side == from { source } else { wire::MacAddr(MACS[side]) };
            FrameKind::Plain(60).frame(path(from, station)).1
        };
        sources.into_iter().map(frame).collect()
    }
}

fn path(from: usize, station: impl Fn(usize) -> wire::MacAddr) -> wire::build::Path {
    let to = 1 - from;
    wire::build::Path {
        source_mac: station(from),
        destination_mac: station(to),
        source: address(from).into(),
        destination: address(to).into(),
    }
}

/// One of the stations behind guest `side`, when there are many.
fn station(side: usize, number: u32) -> wire::MacAddr {
    let [high, low] = (number as u16).to_be_bytes();
    wire::MacAddr([2, 0, 1, side as u8, high, low])
}

/// 1000 as 1k.
pub(crate) fn short(count: u32) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

fn address(index: usize) -> Ipv4Addr {
    IPS[index].parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// What frames are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// UDP, so many bytes from the Ethernet header on, without the check sequence.
    Plain(u16),
    /// TCP, 64 KB to be segmented.
    Large,
}

impl std::str::FromStr for FrameKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(bytes @ 60..=1514) => Ok(Self::Plain(bytes)),
            Err(_) if text.eq_ignore_ascii_case("tso") => Ok(Self::Large),
            _ => Err("a frame is 60 to 1514 bytes long, or `tso`".into()),
        }
    }
}

impl FrameKind {
    /// As the table names it.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Plain(bytes) => format!("{bytes} B"),
            Self::Large => "64 KB TSO".into(),
        }
    }

    /// From the first byte of the Ethernet header to the last of the payload.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.into(),
            Self::Large => ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES + SEGMENTS * usize::from(MSS_BYTES),
        }
    }

    /// The frame on `path`.
    fn frame(self, path: wire::build::Path) -> (NetHeader, Vec<u8>) {
        match self {
            Self::Plain(_) => {
                let payload = vec![0; self.bytes() - ETHERNET_BYTES - IPV4_BYTES - UDP_BYTES];
                (NetHeader::default(), wire::build::udp(path, (40_000, 5_000), &payload))
            }
            Self::Large => {
                let header = wire::tcp::Repr {
                    source_port: 40_000,
                    destination_port: 5_000,
                    sequence: 1,
                    acknowledgement: 1,
                    flags: wire::tcp::Flags::ACK,
                    window: 65_535,
                    urgent: 0,
                    options: &[],
                };
                let payload = vec![0; SEGMENTS * usize::from(MSS_BYTES)];
                let mut frame = wire::build::tcp(path, &header, &payload);
                let start = ETHERNET_BYTES + IPV4_BYTES;
                // Left partial, as a kernel leaves it: only the pseudo header's sum.
                let len = (frame.len() - start) as u16;
                let pseudo = wire::checksum::pseudo_v4(address(0), address(1), wire::IpProtocol::TCP, len);
                frame[start + 16..start + 18].copy_from_slice(&pseudo.fold().to_be_bytes());
                (NetHeader::tcp_segments(NetHeader::GSO_TCPV4, start as u16, MSS_BYTES), frame)
            }
        }
    }
}
