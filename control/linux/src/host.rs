//! How does the node's kernel take on what pods send out, and hand in what is for services?
//!
//! By one table of nftables, `inet millrace`, written as a whole in one transaction by `nft`, as kube-proxy and others do: who
//! looks for a reason finds it with `nft list table inet millrace`. Nothing else of the node's rules is touched.
//!
//! ```text
//! from outside, and from the node  ->  services     destination: from a node port or an external address to the service's
//! towards mp0                      ->  postrouting  source: what is the node's own has the node's address there
//! out of pods, towards others      ->  postrouting  source: the node's, or the gateway's
//! ```

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use model::Protocol;
use reconcile::kernel::{Forward, HostRules, KernelError};

use crate::outside;

/// Of the kernel's forwarding of packets, by family.
const FORWARDING: [(bool, &str); 2] =
    [(true, "/proc/sys/net/ipv4/ip_forward"), (false, "/proc/sys/net/ipv6/conf/all/forwarding")];

/// Makes the rules be these; none: no table of ours is left.
pub(crate) fn put(rules: Option<&HostRules>) -> Result<(), KernelError> {
    if let Some(rules) = rules {
        forward(rules)?;
    }
    nft("inet millrace", &script(rules))?;
    outside::put(rules)
}

/// The kernel forwards packets of the families that the node has on its network. One that did not before goes on to listen to
/// router advertisements: the node's own way out may have come by one.
fn forward(rules: &HostRules) -> Result<(), KernelError> {
    for (is_v4, path) in FORWARDING {
        let is_needed = rules.own.iter().any(|own| own.is_ipv4() == is_v4);
        let is_on = || std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
        if !is_needed || is_on() {
            continue;
        }
        if !is_v4 {
            listen_to_advertisements()?;
        }
        write(path, "1")?;
    }
    Ok(())
}

/// Interfaces that listen while the kernel does not forward (1) listen while it does, too (2).
fn listen_to_advertisements() -> Result<(), KernelError> {
    let dir = "/proc/sys/net/ipv6/conf";
    let entries = std::fs::read_dir(dir).map_err(|error| refused(format!("read {dir}"), &error))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path().join("accept_ra"))) {
        if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
            write(&path, "2")?;
        }
    }
    Ok(())
}

pub(crate) fn nft(table: &str, script: &str) -> Result<(), KernelError> {
    let doing = || format!("write the table `{table}` of nftables");
    let child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            refused(doing(), &"there is no program `nft`: install the package nftables")
        }
        _ => refused(doing(), &error),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it did not read, it says why below.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| refused(doing(), &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(refused(doing(), &said.lines().next().unwrap_or("nft says nothing")))
}

/// Changes a setting of the kernel.
pub(crate) fn write(path: impl AsRef<Path>, text: &str) -> Result<(), KernelError> {
    let path = path.as_ref();
    std::fs::write(path, text).map_err(|error| refused(format!("write {text} to {}", path.display()), &error))
}

pub(crate) fn refused(doing: String, reason: &dyn std::fmt::Display) -> KernelError {
    KernelError::Refused { doing, reason: reason.to_string() }
}

/// What `nft` is told: the table anew, in the place of the one that was there.
pub(crate) fn script(rules: Option<&HostRules>) -> String {
    // To delete a table that is not there is an error; to add one that is there, none.
    let mut script = "add table inet millrace\ndelete table inet millrace\n".to_owned();
    if let Some(rules) = rules {
        // Writing to a string does not fail.
        let _ = table(rules, &mut script);
    }
    script
}

fn table(rules: &HostRules, out: &mut String) -> std::fmt::Result {
    writeln!(out, "table inet millrace {{")?;
    for is_v4 in [true, false] {
        maps(rules, is_v4, out)?;
    }
    writeln!(out, "  chain services {{")?;
    for is_v4 in [true, false] {
        let Words { digit, ip, .. } = words(is_v4);
        writeln!(out, "    dnat {ip} to {ip} daddr . meta l4proto . th dport map @external{digit}")?;
        writeln!(
            out,
            "    meta nfproto ipv{digit} fib daddr type local dnat {ip} to meta l4proto . th dport map @nodeports{digit}"
        )?;
    }
    writeln!(out, "  }}")?;
    writeln!(
        out,
        "  chain prerouting {{\n    type nat hook prerouting priority dstnat\n    jump services\n  }}"
    )?;
    writeln!(out, "  chain output {{\n    type nat hook output priority -100\n    jump services\n  }}")?;
    writeln!(out, "  chain postrouting {{\n    type nat hook postrouting priority srcnat")?;
    for is_v4 in [true, false] {
        sources(rules, is_v4, out)?;
    }
    writeln!(out, "  }}")?;
    outside::leaving(rules, out)?;
    writeln!(out, "}}")
}

/// The words of a family.
pub(crate) struct Words {
    digit: u8,
    pub(crate) ip: &'static str,
    address: &'static str,
}

pub(crate) fn words(is_v4: bool) -> Words {
    match is_v4 {
        true => Words { digit: 4, ip: "ip", address: "ipv4_addr" },
        false => Words { digit: 6, ip: "ip6", address: "ipv6_addr" },
    }
}

fn maps(rules: &HostRules, is_v4: bool, out: &mut String) -> std::fmt::Result {
    let Words { digit, address, .. } = words(is_v4);
    let of_family = |forward: &&Forward| forward.to.0.is_ipv4() == is_v4;
    let elements = |has_address: bool| {
        let forwards = rules.forwards.iter().filter(of_family);
        let mut elements: Vec<String> = forwards
            .filter(|forward| forward.address.is_some() == has_address)
            .map(|Forward { address, protocol, port, to: (to, to_port) }| {
                let at = address.map(|address| format!("{address} . ")).unwrap_or_default();
                format!("{at}{} . {port} : {to} . {to_port}", protocol_word(*protocol))
            })
            .collect();
        // Of two services with one port, which the switch refuses the second of, one element: two would be refused both.
        elements.sort_unstable();
        elements.dedup_by_key(|element| element.split(" : ").next().map(str::to_owned));
        elements.join(", ")
    };
    for (name, key, has_address) in [("nodeports", "", false), ("external", &*format!("{address} . "), true)]
    {
        writeln!(out, "  map {name}{digit} {{")?;
        writeln!(out, "    type {key}inet_proto . inet_service : {address} . inet_service")?;
        let elements = elements(has_address);
        if !elements.is_empty() {
            writeln!(out, "    elements = {{ {elements} }}")?;
        }
        writeln!(out, "  }}")?;
    }
    let nets = rules.cluster.iter().filter(|net| net.addr().is_ipv4() == is_v4);
    let nets: Vec<String> = nets.map(ToString::to_string).collect();
    writeln!(out, "  set pods{digit} {{\n    type {address}\n    flags interval\n    auto-merge")?;
    if !nets.is_empty() {
        writeln!(out, "    elements = {{ {} }}", nets.join(", "))?;
    }
    writeln!(out, "  }}")
}

fn sources(rules: &HostRules, is_v4: bool, out: &mut String) -> std::fmt::Result {
    let Words { digit, ip, .. } = words(is_v4);
    let (interface, of_family) = (&rules.interface, |address: &&IpAddr| address.is_ipv4() == is_v4);
    if let Some(own) = rules.own.iter().find(of_family) {
        writeln!(
            out,
            "    oifname \"{interface}\" fib saddr type local {ip} saddr != {own} snat {ip} to {own}"
        )?;
    }
    if let Some(translated) = &rules.translated {
        let leaves = format!("oifname != \"{interface}\" {ip} saddr @pods{digit} {ip} daddr != @pods{digit}");
        let to = translated.to.iter().find(of_family);
        if let Some(outside) = &rules.outside {
            // Those behind are the switch's.
            let ports = format!("1024-{}", outside.ports.start() - 1);
            let verb = match to {
                Some(IpAddr::V4(to)) => format!("snat ip to {to}:{ports}"),
                Some(IpAddr::V6(to)) => format!("snat ip6 to [{to}]:{ports}"),
                None => format!("masquerade to :{ports}"),
            };
            writeln!(out, "    {leaves} meta l4proto {{ tcp, udp, sctp }} th sport 1024-65535 {verb}")?;
        }
        let verb = to.map_or("masquerade".to_owned(), |to| format!("snat {ip} to {to}"));
        writeln!(out, "    {leaves} {verb}")?;
    }
    Ok(())
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

#[cfg(test)]
mod tests {
    use reconcile::kernel::Translated;

    use super::*;

    fn rules() -> HostRules {
        let forward = |address: Option<&str>, port, to: &str| Forward {
            address: address.map(|it| it.parse().unwrap()),
            protocol: Protocol::Tcp,
            port,
            to: (to.parse().unwrap(), port),
        };
        HostRules {
            interface: "mp0".to_owned(),
            own: vec!["10.128.2.2".parse().unwrap(), "fd00:128:0:1::2".parse().unwrap()],
            cluster: vec!["10.128.0.0/14".parse().unwrap(), "fd00:128::/48".parse().unwrap()],
            translated: Some(Translated { to: vec!["192.0.2.50".parse().unwrap()] }),
            forwards: vec![
                forward(None, 30_080, "169.254.169.4"),
                forward(None, 30_080, "fd69::4"),
                forward(Some("203.0.113.9"), 80, "172.30.0.10"),
                forward(Some("203.0.113.9"), 80, "172.30.0.11"),
            ],
            outside: None,
        }
    }

    #[test]
    fn the_table_is_written_anew_and_says_each_thing_once() {
        let script = script(Some(&rules()));
        assert!(
            script.starts_with("add table inet millrace\ndelete table inet millrace\ntable inet millrace {")
        );
        for line in [
            "elements = { tcp . 30080 : 169.254.169.4 . 30080 }",
            "elements = { tcp . 30080 : fd69::4 . 30080 }",
            "elements = { 203.0.113.9 . tcp . 80 : 172.30.0.10 . 80 }",
            "oifname \"mp0\" fib saddr type local ip saddr != 10.128.2.2 snat ip to 10.128.2.2",
            "oifname != \"mp0\" ip saddr @pods4 ip daddr != @pods4 snat ip to 192.0.2.50",
            "oifname != \"mp0\" ip6 saddr @pods6 ip6 daddr != @pods6 masquerade",
        ] {
            assert_eq!(script.matches(line).count(), 1, "{line} in {script}");
        }
        let nothing = super::script(None);
        assert_eq!(nothing.lines().count(), 2);
    }
}
