//! Which packet does a person mean? A few words, filled up from what switches know of their ports.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use clap::Args;
use local_api::switch_v1::Port;
use wire::MacAddr;
use wire::build::{self, Path};

use super::first_hop::first_hop;
use super::place::{Place, Station};

/// The largest payload that fits an IP packet with its headers.
const MAX_PAYLOAD_BYTES: u16 = 65_000;
/// A client's port that nobody expects a service at (RFC 6335 §6).
const SOURCE_PORT: u16 = 50_000;

/// The packet, in words or in hex.
#[derive(Debug, Args)]
pub(super) struct PacketArgs {
    /// The whole frame in hexadecimal, from its destination MAC on; blanks and colons are ignored
    #[arg(long, value_name = "HEX", conflicts_with_all = ["to", "ip", "kind", "vlan", "payload_bytes"])]
    hex: Option<String>,
    /// Who sends it: a pod of this node (NAMESPACE/NAME), a port, or an address of one. With --port, a MAC: the source, if it
    /// is not the port's own
    #[arg(long, value_name = "POD|PORT|IP|MAC", conflicts_with = "uplink")]
    from: Option<String>,
    /// Whom it is for: an IP address, a pod or a port of a node that is asked, or a MAC [default: everybody]
    #[arg(long, value_name = "IP|POD|PORT|MAC")]
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
    /// TCP (a SYN, unless it has a payload): the destination port, or source and destination port
    #[arg(long, value_name = "[SPORT,]DPORT")]
    tcp: Option<TransportPorts>,
    /// UDP: the destination port, or source and destination port
    #[arg(long, value_name = "[SPORT,]DPORT")]
    udp: Option<TransportPorts>,
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

/// Source and destination port of TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TransportPorts(u16, u16);

impl FromStr for TransportPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(',') {
            return text.parse().map(|Pair(source, destination)| Self(source, destination));
        }
        let destination = text.trim().parse().map_err(|error| format!("{text:?}: {error}"))?;
        Ok(Self(SOURCE_PORT, destination))
    }
}

/// The frame that `args` describe, and the port of the first of `places` by which it comes in: the one that is called `port`,
/// else the sender's.
///
/// # Errors
/// The words are of no packet, or of nobody who is known.
pub(super) fn build(
    args: &PacketArgs,
    port: Option<&str>,
    places: &[Place],
) -> anyhow::Result<(Port, Vec<u8>)> {
    let here = places.first().context("no switch to ask")?;
    let (sender, claimed) = sender(args.from.as_deref(), port, here)?;
    if args.hex.is_some() {
        return Ok((sender.clone(), from_hex(args)?));
    }
    let source = Station::of(sender);
    let source_mac = claimed.or(source.mac).with_context(|| {
        format!("port {} has no MAC address of its own: say which with --port {0} --from MAC", sender.name)
    })?;
    let frame = match args.kind.arp {
        Some(target) => {
            let sender = source.ips.iter().find_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            });
            build::arp_request(source_mac, sender.unwrap_or(Ipv4Addr::UNSPECIFIED), target)
        }
        None => ip_frame(args, sender, source_mac, places)?,
    };
    Ok((sender.clone(), args.vlan.map_or(frame.clone(), |vlan| build::tagged(vlan, &frame))))
}

/// The port by which the packet comes in, and the source MAC that it is to have if that is not the port's.
fn sender<'a>(
    from: Option<&str>,
    port: Option<&str>,
    here: &'a Place,
) -> anyhow::Result<(&'a Port, Option<MacAddr>)> {
    let called = |name: &str| here.port(name)?.ok_or_else(|| here.unknown(name));
    match (from, port) {
        (None, None) => bail!("who sends it? Say so with --from POD, or the port with --port"),
        (None, Some(port)) => Ok((called(port)?, None)),
        (Some(from), Some(port)) => {
            let mac = from.parse().ok();
            let mac = mac
                .with_context(|| format!("--from {from:?} is no MAC, and --port says whose the packet is"))?;
            Ok((called(port)?, Some(mac)))
        }
        (Some(from), None) => {
            let at =
                |ip| here.port_at(ip).with_context(|| format!("no port of this node has the address {ip}"));
            if let Ok(ip) = from.parse::<IpAddr>() {
                return Ok((at(ip)?, None));
            }
            if let Ok(mac) = from.parse::<MacAddr>() {
                let owner = here.ports.iter().find(|port| Station::of(port).mac == Some(mac));
                return Ok((
                    owner.with_context(|| format!("no port lists {mac}: say which with --port"))?,
                    None,
                ));
            }
            Ok((called(from)?, None))
        }
    }
}

fn ip_frame(
    args: &PacketArgs,
    sender: &Port,
    source_mac: MacAddr,
    places: &[Place],
) -> anyhow::Result<Vec<u8>> {
    let to = destination(args.to.as_deref(), places)?;
    let (source, destination) = match args.ip {
        Some(Pair(source, destination)) => (source, destination),
        None => meet(&Station::of(sender).ips, &to.ips)
            .context("no addresses of one IP family are known for both sides: say which with --ip SRC,DST")?,
    };
    ensure!(source.is_ipv4() == destination.is_ipv4(), "{source} and {destination} are of two IP families");
    let destination_mac = to.mac.map_or_else(|| first_hop(sender, destination, places), Ok)?;
    let path = Path { source_mac, destination_mac, source, destination };
    let payload = vec![0; args.payload_bytes.into()];
    Ok(match (args.kind.tcp, args.kind.udp) {
        (Some(TransportPorts(from, to)), _) if payload.is_empty() => build::tcp_syn(path, (from, to)),
        (Some(TransportPorts(from, to)), _) => {
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
        (None, Some(TransportPorts(from, to))) => build::udp(path, (from, to), &payload),
        (None, None) => build::echo_request(path, 1, 1, &payload),
    })
}

/// Whom `--to` means; with a MAC only if the person says one.
fn destination(to: Option<&str>, places: &[Place]) -> anyhow::Result<Station> {
    let Some(to) = to else {
        return Ok(Station { mac: Some(MacAddr::BROADCAST), ips: vec![Ipv4Addr::BROADCAST.into()] });
    };
    if let Ok(ip) = to.parse::<IpAddr>() {
        return Ok(Station { mac: None, ips: vec![ip] });
    }
    if let Ok(mac) = to.parse::<MacAddr>() {
        let stations = places.iter().flat_map(|place| &place.ports).map(Station::of);
        let owner = stations.into_iter().find(|station| station.mac == Some(mac));
        return Ok(Station { mac: Some(mac), ips: owner.map(|owner| owner.ips).unwrap_or_default() });
    }
    for place in places {
        if let Some(port) = place.port(to)? {
            let station = Station::of(port);
            // Without an address there is no way but straight to it.
            let mac = station.mac.filter(|_| station.ips.is_empty());
            return Ok(Station { mac, ..station });
        }
    }
    bail!(
        "--to {to:?} is no MAC, no IP address, and no pod or port of a node that is asked: name its address, or its node with --node"
    )
}

/// The first pair of one IP family.
fn meet(sources: &[IpAddr], destinations: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    sources.iter().find_map(|source| {
        let same = destinations.iter().find(|destination| destination.is_ipv4() == source.is_ipv4());
        same.map(|destination| (*source, *destination))
    })
}

/// The frame that `--hex` is.
///
/// # Errors
/// It is none.
pub(super) fn from_hex(args: &PacketArgs) -> anyhow::Result<Vec<u8>> {
    let text = args.hex.as_deref().unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use local_api::switch_v1 as api;

    use super::super::words;
    use super::*;
    use crate::run_dir::RunDir;

    #[derive(Debug, Parser)]
    struct Words {
        #[arg(long)]
        port: Option<String>,
        #[arg(long)]
        uplink: bool,
        #[command(flatten)]
        packet: PacketArgs,
    }

    fn port(number: u32, name: &str, network: u32, ips: &[&str]) -> Port {
        Port {
            number,
            name: name.into(),
            network,
            macs: vec![format!("02:00:00:00:00:{number:02x}")],
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            ..Port::default()
        }
    }

    fn place(name: &str, ports: Vec<Port>) -> Place {
        let gateway = api::Gateway {
            mac: "02:ff:00:00:00:01".into(),
            addresses: vec!["10.1.0.1/24".into(), "fd00::1/64".into()],
            ..api::Gateway::default()
        };
        let network = |number, name: &str, gateway| api::Network {
            number,
            name: name.into(),
            gateway,
            ..api::Network::default()
        };
        Place {
            name: Some(name.into()),
            run_dir: RunDir { run_dir: "/run/millrace".into() },
            ports,
            networks: vec![network(1, "pods", Some(gateway)), network(2, "flat", None)],
        }
    }

    /// The port that it comes in by, and its summary.
    fn packet(words: &str) -> anyhow::Result<(String, String)> {
        let args = Words::try_parse_from(["trace"].into_iter().chain(words.split_whitespace()))?;
        let here = vec![
            port(1, "shop/web/eth0", 1, &["10.1.0.2", "fd00::2"]),
            port(2, "shop/db/eth0", 1, &["fd00::3", "10.1.0.3"]),
            port(3, "shop/web/net1", 2, &["10.9.0.3"]),
            port(4, "shop/odd/net1", 2, &["10.9.0.4"]),
            port(5, "shop/odd/net2", 2, &["10.9.0.5"]),
        ];
        let there =
            vec![port(7, "shop/far/eth0", 1, &["10.1.1.2"]), port(8, "shop/far/net1", 2, &["10.9.0.8"])];
        let places = [place("node-1", here), place("node-2", there)];
        let (port, frame) = build(&args.packet, args.port.as_deref(), &places)?;
        let stations = wire::ethernet::View::new(&frame)?;
        let ends = format!("({} to {})", stations.source(), stations.destination());
        Ok((port.name, format!("{} {ends}", words::packet(&frame))))
    }

    #[track_caller]
    fn told(words: &str) -> (String, String) {
        packet(words).unwrap()
    }

    #[track_caller]
    fn refused(words: &str) -> String {
        packet(words).unwrap_err().to_string()
    }

    #[test]
    fn build_when_only_pods_are_named_takes_addresses_from_both() {
        let (port, text) = told("--from shop/web --to shop/db --tcp 80");
        assert_eq!(port, "shop/web/eth0");
        assert_eq!(
            text,
            "TCP from 10.1.0.2 port 50000 to 10.1.0.3 port 80 (02:00:00:00:00:01 to 02:00:00:00:00:02)"
        );
        assert_eq!(told("--port 1 --to shop/db/eth0 --tcp 50000,80"), (port, text));
    }

    #[test]
    fn build_when_the_destination_is_not_on_the_subnet_sends_to_the_gateway() {
        for to in ["172.30.0.10", "10.1.1.2", "shop/far"] {
            let (_, text) = told(&format!("--from 10.1.0.2 --to {to} --udp 53"));
            assert!(text.ends_with("(02:00:00:00:00:01 to 02:ff:00:00:00:01)"), "{to}: {text}");
        }
        let (_, text) = told("--from shop/web --to 10.1.0.1");
        assert!(text.ends_with("to 02:ff:00:00:00:01)"), "the gateway itself: {text}");
    }

    #[test]
    fn build_when_a_network_has_no_gateway_finds_the_station_on_any_node() {
        let (port, text) = told("--from shop/web/net1 --to 10.9.0.8");
        assert_eq!(port, "shop/web/net1");
        assert!(text.ends_with("(02:00:00:00:00:03 to 02:00:00:00:00:08)"), "{text}");
    }

    #[test]
    fn build_when_an_ip_is_named_finds_its_mac_and_family() {
        let (_, text) = told("--from shop/web --to fd00::3 --vlan 7");
        assert_eq!(
            text,
            "ICMPv6 echo request from fd00::2 to fd00::3 in VLAN 7 (02:00:00:00:00:01 to 02:00:00:00:00:02)"
        );
    }

    #[test]
    fn build_when_the_source_is_claimed_keeps_the_port() {
        let (port, text) = told("--port shop/web/eth0 --from 02:00:00:00:00:99 --to shop/db");
        assert_eq!(port, "shop/web/eth0");
        assert!(text.contains("(02:00:00:00:00:99 to "), "{text}");
        assert!(refused("--port 1 --from shop/db --to 10.1.0.3").contains("no MAC"));
    }

    #[test]
    fn build_when_nobody_is_meant_says_who_could_be() {
        assert!(refused("--to 10.1.0.3").contains("--from POD"));
        assert!(refused("--from shop/nobody --to 10.1.0.3").contains("shop/web/eth0"));
        assert!(refused("--from shop/odd --to 10.9.0.8").contains("shop/odd/net1, shop/odd/net2"));
        assert!(refused("--from 10.1.1.2 --to 10.1.0.3").contains("no port of this node has"));
        assert!(refused("--from shop/web --to shop/nobody").contains("--node"));
    }

    #[test]
    fn build_when_hex_is_given_takes_it_as_it_is() {
        let bytes = |words: &str| {
            let args = Words::try_parse_from(["trace"].into_iter().chain(words.split_whitespace()))?;
            from_hex(&args.packet)
        };
        assert_eq!(bytes("--hex 00:ff:0A").unwrap(), [0, 255, 10]);
        assert!(bytes("--hex 0ff").is_err());
        assert!(bytes("--hex zz").is_err());
        assert!(bytes("--hex 00 --vlan 3").is_err());
    }

    #[test]
    fn build_when_the_families_differ_says_so() {
        let error = refused("--from shop/web --to shop/db --ip 10.1.0.2,fd00::3");
        assert!(error.contains("two IP families"), "{error}");
    }

    #[test]
    fn build_when_nobody_on_the_subnet_has_the_address_says_what_to_do() {
        let error = refused("--from shop/web --to 10.1.0.99");
        assert!(error.contains("--to MAC") && error.contains("--node"), "{error}");
    }

    #[test]
    fn build_when_no_receiver_is_named_sends_to_everybody() {
        let (_, text) = told("--from shop/web --udp 68,67");
        assert!(text.ends_with("to ff:ff:ff:ff:ff:ff)"), "{text}");
    }
}
