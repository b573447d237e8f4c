//! Which packet does a person mean? A few words, filled up from what the switch knows of its ports.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use clap::Args;
use local_api::switch_v1::Port;
use wire::build::{self, Path};
use wire::{EtherType, MacAddr, arp, ethernet, ipv4, ipv6};

/// The largest payload that fits an IP packet with its headers.
const MAX_PAYLOAD_BYTES: u16 = 65_000;

/// The packet, in words or in hex.
#[derive(Debug, Args)]
pub(super) struct PacketArgs {
    /// The whole frame in hexadecimal, from its destination MAC on; blanks and colons are ignored
    #[arg(long, value_name = "HEX", conflicts_with_all = ["from", "to", "ip", "kind", "vlan", "payload_bytes"])]
    hex: Option<String>,
    /// The source MAC [default: the port's own]
    #[arg(long, value_name = "MAC")]
    from: Option<MacAddr>,
    /// Whom the packet is for: a MAC, an IP address, or a port's name [default: everybody]
    #[arg(long, value_name = "MAC|IP|PORT")]
    to: Option<String>,
    /// Source and destination IP address [default: the ports' own]
    #[arg(long, value_name = "SRC,DST")]
    ip: Option<Pair<IpAddr>>,
    #[command(flatten)]
    kind: Kind,
    /// Tagged with this VLAN
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(0..=4095))]
    vlan: Option<u16>,
    /// Bytes of payload after the last header
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=i64::from(MAX_PAYLOAD_BYTES)))]
    payload_bytes: u16,
}

#[derive(Debug, Args)]
#[group(id = "kind", multiple = false)]
struct Kind {
    /// TCP (a SYN, unless it has a payload): source and destination port
    #[arg(long, value_name = "SPORT,DPORT")]
    tcp: Option<Pair<u16>>,
    /// UDP: source and destination port
    #[arg(long, value_name = "SPORT,DPORT")]
    udp: Option<Pair<u16>>,
    /// An ICMP echo request; what is sent when nothing else is said
    #[arg(long)]
    ping: bool,
    /// An ARP request for this address
    #[arg(long, value_name = "IP")]
    arp: Option<Ipv4Addr>,
}

/// Two values with a comma between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair<T>(T, T);

impl<T: FromStr> FromStr for Pair<T>
where
    T::Err: std::fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, second) =
            text.split_once(',').ok_or("two values with a comma between them are needed")?;
        let parse = |part: &str| part.trim().parse().map_err(|error| format!("{part:?}: {error}"));
        Ok(Self(parse(first)?, parse(second)?))
    }
}

/// The frame that `args` describe, as it comes in by `port`.
pub(super) fn build(args: &PacketArgs, port: &Port, ports: &[Port]) -> anyhow::Result<Vec<u8>> {
    if let Some(hex) = &args.hex {
        return from_hex(hex);
    }
    let source = Station::of(port);
    let source_mac = args.from.or(source.mac).with_context(|| {
        format!("port {} has no MAC address of its own: say which with --from MAC", port.name)
    })?;
    let frame = match args.kind.arp {
        Some(target) => {
            let sender = source.ips.iter().find_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            });
            build::arp_request(source_mac, sender.unwrap_or(Ipv4Addr::UNSPECIFIED), target)
        }
        None => ip_frame(args, source_mac, &source, ports)?,
    };
    Ok(args.vlan.map_or(frame.clone(), |vlan| build::tagged(vlan, &frame)))
}

fn ip_frame(
    args: &PacketArgs,
    source_mac: MacAddr,
    source: &Station,
    ports: &[Port],
) -> anyhow::Result<Vec<u8>> {
    let to = destination(args.to.as_deref(), ports)?;
    let destination_mac = to.mac.unwrap_or(MacAddr::BROADCAST);
    let (source, destination) = match args.ip {
        Some(Pair(source, destination)) => (source, destination),
        None => meet(&source.ips, &to.ips)
            .context("no addresses of one IP family are known for both sides: say which with --ip SRC,DST")?,
    };
    ensure!(source.is_ipv4() == destination.is_ipv4(), "{source} and {destination} are of two IP families");
    let path = Path { source_mac, destination_mac, source, destination };
    let payload = vec![0; args.payload_bytes.into()];
    Ok(match (args.kind.tcp, args.kind.udp) {
        (Some(Pair(from, to)), _) if payload.is_empty() => build::tcp_syn(path, (from, to)),
        (Some(Pair(from, to)), _) => {
            let header = wire::tcp::Repr {
                source_port: from,
                destination_port: to,
                sequence: 1,
                acknowledgement: 1,
                flags: wire::tcp::Flags::ACK,
                window: u16::MAX,
                urgent: 0,
                options: &[],
            };
            build::tcp(path, &header, &payload)
        }
        (None, Some(Pair(from, to))) => build::udp(path, (from, to), &payload),
        (None, None) => build::echo_request(path, 1, 1, &payload),
    })
}

/// What is known of one side.
#[derive(Debug, Default)]
struct Station {
    mac: Option<MacAddr>,
    ips: Vec<IpAddr>,
}

impl Station {
    fn of(port: &Port) -> Self {
        Self {
            mac: port.macs.first().and_then(|mac| mac.parse().ok()),
            ips: port.ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        }
    }
}

/// Whom `--to` means.
fn destination(to: Option<&str>, ports: &[Port]) -> anyhow::Result<Station> {
    let Some(to) = to else {
        return Ok(Station { mac: None, ips: vec![Ipv4Addr::BROADCAST.into()] });
    };
    if let Some(port) = ports.iter().find(|port| port.name == to) {
        return Ok(Station::of(port));
    }
    let stations = || ports.iter().map(Station::of);
    if let Ok(ip) = to.parse::<IpAddr>() {
        let owner = stations().find(|station| station.ips.contains(&ip));
        let mac = owner.and_then(|station| station.mac).with_context(|| {
            format!("no port has the address {ip}: say the next station with --to MAC, and --ip SRC,{ip}")
        })?;
        return Ok(Station { mac: Some(mac), ips: vec![ip] });
    }
    if let Ok(mac) = to.parse::<MacAddr>() {
        let owner = stations().find(|station| station.mac == Some(mac));
        return Ok(Station { mac: Some(mac), ips: owner.map(|owner| owner.ips).unwrap_or_default() });
    }
    bail!("--to {to:?} is no MAC, no IP address and no port's name")
}

/// The first pair of one IP family.
fn meet(sources: &[IpAddr], destinations: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    sources.iter().find_map(|source| {
        let same = destinations.iter().find(|destination| destination.is_ipv4() == source.is_ipv4());
        same.map(|destination| (*source, *destination))
    })
}

fn from_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    ensure!(
        digits.len().is_multiple_of(2),
        "--hex has {} digits: two are needed for each byte",
        digits.len()
    );
    let byte = |pair: &[char]| {
        let text: String = pair.iter().collect();
        u8::from_str_radix(&text, 16).with_context(|| format!("--hex: {text:?} is no byte"))
    };
    digits.chunks(2).map(byte).collect()
}

/// The frame in one line, for the explanation's head.
pub(super) fn summary(frame: &[u8]) -> String {
    let Ok(view) = ethernet::View::new(frame) else {
        return format!("A frame of {} bytes", frame.len());
    };
    let what = inner(view.ether_type(), view.payload());
    format!("{what} of {} bytes from {} to {}", frame.len(), view.source(), view.destination())
}

fn inner(ether_type: EtherType, payload: &[u8]) -> String {
    match ether_type {
        EtherType::VLAN if payload.len() >= 4 => {
            let id = u16::from_be_bytes([payload[0], payload[1]]) & 0x0fff;
            let inner_type = EtherType(u16::from_be_bytes([payload[2], payload[3]]));
            format!("{} in VLAN {id}", inner(inner_type, &payload[4..]))
        }
        EtherType::IPV4 => ipv4::View::new(payload).map_or("A broken IPv4 packet".into(), |ip| {
            format!("An IPv4 packet ({}, {} > {})", protocol(ip.protocol()), ip.source(), ip.destination())
        }),
        EtherType::IPV6 => ipv6::View::new(payload).map_or("A broken IPv6 packet".into(), |ip| {
            format!("An IPv6 packet ({}, {} > {})", protocol(ip.next_header()), ip.source(), ip.destination())
        }),
        EtherType::ARP => arp::View::new(payload).map_or("A broken ARP packet".into(), |arp| {
            format!("An ARP packet ({} asks for {})", arp.sender_ip(), arp.target_ip())
        }),
        EtherType(other) => format!("A frame of type {other:#06x}"),
    }
}

fn protocol(protocol: wire::IpProtocol) -> String {
    match protocol {
        wire::IpProtocol::TCP => "TCP".into(),
        wire::IpProtocol::UDP => "UDP".into(),
        wire::IpProtocol::ICMP => "ICMP".into(),
        wire::IpProtocol::ICMPV6 => "ICMPv6".into(),
        wire::IpProtocol::SCTP => "SCTP".into(),
        wire::IpProtocol(other) => format!("protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        packet: PacketArgs,
    }

    fn port(number: u32, name: &str, mac: &str, ips: &[&str]) -> Port {
        Port {
            number,
            name: name.into(),
            macs: vec![mac.into()],
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            ..Port::default()
        }
    }

    fn frame(words: &str) -> anyhow::Result<Vec<u8>> {
        let args = Words::try_parse_from(["trace"].into_iter().chain(words.split_whitespace()))?;
        let ports = [
            port(1, "web/eth0", "02:00:00:00:00:01", &["10.1.0.2", "fd00::2"]),
            port(2, "db/eth0", "02:00:00:00:00:02", &["fd00::3", "10.1.0.3"]),
        ];
        build(&args.packet, &ports[0], &ports)
    }

    #[test]
    fn build_when_only_the_other_port_is_named_takes_addresses_from_both() {
        let text = summary(&frame("--to db/eth0 --tcp 40000,80").unwrap());
        assert!(text.starts_with("An IPv4 packet (TCP, 10.1.0.2 > 10.1.0.3)"), "{text}");
        assert!(text.ends_with("from 02:00:00:00:00:01 to 02:00:00:00:00:02"), "{text}");
    }

    #[test]
    fn build_when_an_ip_is_named_finds_its_mac_and_family() {
        let text = summary(&frame("--to fd00::3 --vlan 7").unwrap());
        assert!(text.starts_with("An IPv6 packet (ICMPv6, fd00::2 > fd00::3) in VLAN 7"), "{text}");
    }

    #[test]
    fn build_when_hex_is_given_takes_it_as_it_is() {
        assert_eq!(frame("--hex 00:ff:0A").unwrap(), [0, 255, 10]);
        assert!(frame("--hex 0ff").is_err());
        assert!(frame("--hex zz").is_err());
        assert!(frame("--hex 00 --vlan 3").is_err());
    }

    #[test]
    fn build_when_the_families_differ_says_so() {
        let error = frame("--to db/eth0 --ip 10.1.0.2,fd00::3").unwrap_err().to_string();
        assert!(error.contains("two IP families"), "{error}");
    }

    #[test]
    fn build_when_nobody_has_the_address_says_what_to_do() {
        let error = frame("--to 10.9.9.9").unwrap_err().to_string();
        assert!(error.contains("--to MAC"), "{error}");
    }

    #[test]
    fn build_when_no_receiver_is_named_sends_to_everybody() {
        let text = summary(&frame("--udp 68,67").unwrap());
        assert!(text.ends_with("to ff:ff:ff:ff:ff:ff"), "{text}");
    }
}
