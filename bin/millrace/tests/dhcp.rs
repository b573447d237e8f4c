//! Do hosts that ask get their addresses and routes from the switch? Real clients in pods' namespaces: busybox' udhcpc,
//! ISC's dhclient, rdisc6, and the kernel's own router discovery.

mod node;

use std::process::Command;

use node::{Node, Pod, possible, wait_for, wait_for_ping};

const NETWORKS: &str = "
networks:
  - name: pods
    router: shop
    dhcp: true
    mtu: 1400
    subnets: [{subnet: 10.31.0.0/24, gateway: 10.31.0.1}, {subnet: 'fd00:31::/64', gateway: 'fd00:31::1'}]
    routes: [{dst: 0.0.0.0/0}, {dst: 10.99.0.0/16, gw: 10.31.0.9}, {dst: '::/0'}, {dst: 'fd00:99::/48'}]
    dns: {nameservers: [10.31.0.53, 'fd00:31::53'], domain: pods.example.org, search: [example.org, example.net]}
  - name: sockets
    router: shop
    subnets: [{subnet: 10.32.0.0/24, gateway: 10.32.0.1}]
";

/// A node with that network, one pod that has its addresses, and one that the runtime gave addresses which it has not: a
/// guest that is to ask.
struct Bed {
    node: Node,
    peer: Pod,
    guest: Pod,
    v4: std::net::Ipv4Addr,
    v6: String,
}

fn bed() -> Bed {
    let mut node = Node::new();
    std::fs::write(node.path("networks.yaml"), NETWORKS).unwrap();
    node.start_switch();
    node.start_agent();
    let (peer, guest) = (Pod::new("peer"), Pod::new("guest"));
    node.add(&peer, "pods");
    let given = node.add(&guest, "pods");
    let v4 = given.ipv4();
    let ips = given.result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap());
    let v6 = ips.filter_map(|ip| ip.split('/').next()).find(|ip| ip.contains(':')).unwrap().to_owned();
    Bed { node, peer, guest, v4, v6 }
}

impl Bed {
    /// Takes from the guest what the runtime gave it: the link-local address alone is left.
    fn forget(&self) {
        let netns = self.guest.netns();
        netns.ip("-4 addr flush dev eth0").unwrap();
        netns.ip("-6 addr flush dev eth0 scope global").unwrap();
        netns.ip("-6 route flush dev eth0 proto boot").unwrap();
        netns.ip("link set eth0 mtu 1300").unwrap();
        assert!(!self.ip("route").contains("default"), "{}", self.ip("route"));
    }

    fn ip(&self, words: &str) -> String {
        self.guest.netns().ip(words).unwrap()
    }

    /// Runs a client in the guest's namespace to its end, and what it said.
    fn ask(&self, program: &str, words: &str) -> String {
        let mut command = Command::new("timeout");
        command.args(["60", program]).args(words.split_whitespace());
        let output = self.guest.netns().run(move || command.output()).unwrap();
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{program} {words}: {}\n{said}", output.status);
        said
    }

    fn wait_until_usable(&self) {
        // Looking for duplicates takes a second.
        wait_for("no address to be tentative", || !self.ip("-6 addr show dev eth0").contains("tentative"));
    }
}

/// A script that does what clients' own do with what they were told, and writes that down.
fn script(bed: &Bed, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = bed.node.path(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn has(program: &str, test: &str) -> bool {
    possible(test) && lab::require(test, lab::program(program))
}

#[test]
fn udhcpc_gets_the_pods_address_and_all_that_the_network_says() {
    let test = "udhcpc_gets_the_pods_address_and_all_that_the_network_says";
    if !has("busybox", test) {
        return;
    }
    let bed = bed();
    bed.forget();
    let told = bed.node.path("told");
    let script = script(
        &bed,
        "udhcpc",
        &format!("[ \"$1\" = bound ] || exit 0\nset > {}\nip addr add $ip/$mask dev eth0", told.display()),
    );
    let options = "-O router -O dns -O domain -O search -O staticroutes -O mtu -O lease -O serverid";
    bed.ask("busybox", &format!("udhcpc -i eth0 -q -n -f -t 5 -T 2 -s {script} {options}"));
    let told = std::fs::read_to_string(told).unwrap();
    for line in [
        format!("ip='{}'", bed.v4),
        "mask='24'".into(),
        "router='10.31.0.1'".into(),
        "serverid='10.31.0.1'".into(),
        "dns='10.31.0.53'".into(),
        "domain='pods.example.org'".into(),
        "search='example.org example.net'".into(),
        "mtu='1400'".into(),
        "lease='86400'".into(),
        "staticroutes='0.0.0.0/0 10.31.0.1 10.99.0.0/16 10.31.0.9'".into(),
    ] {
        assert!(told.lines().any(|it| it == line), "{line} is not in:\n{told}");
    }
    wait_for_ping(&bed.peer, bed.v4);
    bed.node.assert_ledger_balances();
}

#[test]
fn dhclient_gets_the_pods_addresses_of_both_families_and_gives_them_back() {
    let test = "dhclient_gets_the_pods_addresses_of_both_families_and_gives_them_back";
    if !has("dhclient", test) {
        return;
    }
    let bed = bed();
    bed.forget();
    bed.wait_until_usable();
    let told = bed.node.path("told");
    let script = script(
        &bed,
        "dhclient-script",
        &format!(
            "set >> {}\n\
             [ -n \"$new_ip_address\" ] && ip addr replace $new_ip_address/24 dev eth0\n\
             [ -n \"$new_ip6_address\" ] && ip addr replace $new_ip6_address/$new_ip6_prefixlen dev eth0\nexit 0",
            told.display()
        ),
    );
    let folder = bed.node.path("").display().to_string();
    let files =
        |family: &str| format!("-lf {folder}/{family}.leases -pf {folder}/{family}.pid -sf {script} eth0");
    for family in ["-4", "-6"] {
        bed.ask("dhclient", &format!("{family} -1 -v {}", files(family)));
    }
    let addresses = bed.ip("addr show dev eth0");
    assert!(addresses.contains(&format!("inet {}/24", bed.v4)), "{addresses}");
    assert!(addresses.contains(&format!("inet6 {}/", bed.v6)), "{addresses}");
    let told = std::fs::read_to_string(told).unwrap();
    for line in [
        "new_dhcp_lease_time='86400'",
        "new_interface_mtu='1400'",
        "new_dhcp6_name_servers='fd00:31::53'",
        "new_dhcp6_domain_search='example.org. example.net.'",
    ] {
        assert!(told.lines().any(|it| it == line), "{line} is not in:\n{told}");
    }
    // A release of DHCPv6 is answered; DHCPv4 knows no answer.
    bed.ask("dhclient", &format!("-6 -r {}", files("-6")));
    bed.ask("dhclient", &format!("-4 -r -v {}", files("-4")));
    wait_for("the release to be counted", || {
        bed.node.get("ports").to_string().contains("\"dhcp_unanswered\":1")
    });
    bed.node.assert_ledger_balances();
}

#[test]
fn the_kernel_finds_its_router_and_keeps_the_routes_for_good() {
    let test = "the_kernel_finds_its_router_and_keeps_the_routes_for_good";
    if !possible(test) {
        return;
    }
    let bed = bed();
    bed.forget();
    let netns = bed.guest.netns();
    let (router, is_set) = ("net.ipv6.conf.eth0", |name: &str, value: &str| {
        netns.command("sysctl", &format!("-w net.ipv6.conf.eth0.{name}={value}")).unwrap();
    });
    assert!(netns.command("sysctl", &format!("{router}.forwarding")).unwrap().ends_with("0\n"));
    is_set("accept_ra", "2");
    is_set("accept_ra_rt_info_max_plen", "64");
    // A link that comes up asks.
    netns.ip("link set eth0 down").unwrap();
    netns.ip("link set eth0 up").unwrap();
    wait_for("the router to be found", || bed.ip("-6 route show default").contains("proto ra"));
    let default = bed.ip("-6 route show default");
    assert!(default.contains("via fe80::") && !default.contains("expires"), "for good: {default}");
    let routes = bed.ip("-6 route show proto ra");
    assert!(routes.contains("fd00:99::/48 via fe80::"), "{routes}");
    let on_link = bed.ip("-6 route show fd00:31::/64");
    assert!(on_link.contains("dev eth0") && !on_link.contains("expires"), "{on_link}");
    let addresses = bed.ip("-6 addr show dev eth0 scope global");
    assert!(!addresses.contains("inet6"), "nobody makes addresses by itself: {addresses}");
    // With the address that DHCPv6 would give it, it is reached from another network and by its router.
    netns.ip(&format!("addr add {}/128 dev eth0", bed.v6)).unwrap();
    bed.wait_until_usable();
    let answered = bed.ask("ping", "-c 1 -W 10 fd00:31::1");
    assert!(answered.contains("1 received"), "{answered}");
    wait_for("the router to be known as one", || {
        bed.ip("-6 neigh show dev eth0")
            .lines()
            .any(|line| line.starts_with("fe80::") && line.contains("router"))
    });
    bed.node.assert_ledger_balances();
}

#[test]
fn rdisc6_reads_what_the_switch_advertises() {
    let test = "rdisc6_reads_what_the_switch_advertises";
    if !has("rdisc6", test) {
        return;
    }
    let bed = bed();
    bed.forget();
    bed.wait_until_usable();
    let said = bed.ask("rdisc6", "-1 eth0");
    for words in [
        "Stateful address conf.    :          Yes",
        "Router lifetime           :        65535",
        "Prefix                   : fd00:31::/64",
        "On-link                 :          Yes",
        "Autonomous address conf.:           No",
        "MTU                      :         1400 bytes",
        "Recursive DNS server     : fd00:31::53",
        "DNS search list          : example.org example.net",
        "Route                    : ::/0",
        "Route                    : fd00:99::/48",
    ] {
        assert!(said.contains(words), "{words} is not in:\n{said}");
    }
    bed.node.assert_ledger_balances();
}

#[test]
fn a_trace_says_what_the_guest_is_told() {
    if !possible("a_trace_says_what_the_guest_is_told") {
        return;
    }
    let bed = bed();
    let ports = bed.node.get("ports");
    let port = ports["ports"]
        .as_array()
        .unwrap()
        .iter()
        .find(|port| port["name"].as_str().unwrap().contains("guest"));
    let port = port.unwrap_or_else(|| panic!("{ports}"))["name"].as_str().unwrap().to_owned();
    let link = bed.guest.netns().ip("-o link show dev eth0").unwrap();
    let mac: wire::MacAddr = link.split("link/ether ").nth(1).unwrap()[..17].parse().unwrap();
    let mut message = vec![0; wire::dhcpv4::FIXED_BYTES];
    let nobody = std::net::Ipv4Addr::UNSPECIFIED;
    let (operation, xid) = (wire::dhcpv4::REQUEST, [1, 2, 3, 4]);
    let discover =
        wire::dhcpv4::Repr { operation, xid, flags: 0, client: nobody, yours: nobody, relay: nobody, mac };
    discover.emit(&mut message);
    message.extend([wire::dhcpv4::option::MESSAGE_TYPE, 1, 1, wire::dhcpv4::option::END]);
    let path = wire::build::Path {
        source_mac: mac,
        destination_mac: wire::MacAddr::BROADCAST,
        source: nobody.into(),
        destination: std::net::Ipv4Addr::BROADCAST.into(),
    };
    let frame = wire::build::udp(path, (wire::dhcpv4::CLIENT_PORT, wire::dhcpv4::SERVER_PORT), &message);
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let output = bed.node.cli(&format!("trace --port {port} --hex {hex}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("answers OFFER: its port's address is {}", bed.v4)), "{said}");
}
