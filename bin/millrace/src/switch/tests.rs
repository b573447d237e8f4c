//! Does the datapath become what updates say, whatever they say? With ports in memory.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use local_api::switch_v1 as api;
use ports::Device;
use ports::mem::{self, MemPeer, MemSpec};
use wire::build::{self, Path};
use worker::{Config, Datapath, allowed_cpus};

use super::board::Board;
use super::devices::Devices;

const PATIENCE: Duration = Duration::from_secs(10);

/// Devices in memory, by the netdev's name.
#[derive(Default)]
struct Memory {
    peers: HashMap<String, MemPeer>,
    opened: Vec<String>,
    broken: HashSet<String>,
}

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Memory>>);

impl Shelf {
    fn peer(&self, netdev: &str) -> MemPeer {
        self.0.lock().unwrap().peers[netdev].clone()
    }

    fn opened(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().opened)
    }
}

impl Devices for Shelf {
    fn open(&self, port: &api::Port) -> Result<Device, String> {
        let name = netdev(port);
        let mut memory = self.0.lock().unwrap();
        if memory.broken.contains(&name) {
            return Err(format!("{name} is broken"));
        }
        let (device, peer) = mem::open(MemSpec::default()).map_err(|error| error.to_string())?;
        memory.peers.insert(name.clone(), peer);
        memory.opened.push(name);
        Ok(device)
    }
}

fn netdev(port: &api::Port) -> String {
    match &port.device {
        Some(api::port::Device::Tap(tap)) => tap.netdev.clone(),
        other => panic!("{other:?}"),
    }
}

fn board() -> (Board, Shelf) {
    let shelf = Shelf::default();
    let cpu = *allowed_cpus().last().unwrap();
    let datapath = Datapath::start(&Config::on([cpu])).unwrap();
    (Board::new(datapath, Box::new(shelf.clone())), shelf)
}

fn network() -> api::Network {
    api::Network {
        number: 1,
        name: "blue".into(),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 100,
        gateway: None,
        dhcp: None,
        overlay: None,
        localnet: None,
    }
}

fn mac(number: u32) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

fn port(number: u32) -> api::Port {
    let device = api::TapDevice { netns: String::new(), netdev: format!("dev{number}"), queues: 1 };
    api::Port {
        number,
        name: format!("pod{number}"),
        network: 1,
        macs: vec![mac(number)],
        ips: vec![format!("10.0.0.{number}")],
        port_security: true,
        mac_limit: 10,
        mtu_bytes: 1500,
        device: Some(api::port::Device::Tap(device)),
        ..api::Port::default()
    }
}

fn everything(to_version: u64, ports: impl IntoIterator<Item = api::Port>) -> api::ApplyRequest {
    let put_ports = ports.into_iter().collect();
    api::ApplyRequest { to_version, put_networks: vec![network()], put_ports, ..Default::default() }
}

fn ping(from: u32, to: u32) -> Vec<u8> {
    let path = Path {
        source_mac: mac(from).parse().unwrap(),
        destination_mac: mac(to).parse().unwrap(),
        source: format!("10.0.0.{from}").parse().unwrap(),
        destination: format!("10.0.0.{to}").parse().unwrap(),
    };
    build::echo_request(path, 1, 1, b"hello")
}

fn assert_passes(shelf: &Shelf, from: u32, to: u32) {
    let frame = ping(from, to);
    assert!(shelf.peer(&format!("dev{from}")).inject(frame.clone()));
    let got = shelf.peer(&format!("dev{to}")).recv(PATIENCE).expect("a frame");
    assert_eq!(got.bytes, frame);
}

fn errors(response: &api::ApplyResponse) -> Vec<(u32, &str)> {
    response
        .ports
        .iter()
        .filter(|port| !port.error.is_empty())
        .map(|port| (port.number, &*port.error))
        .collect()
}

#[test]
fn apply_when_everything_is_sent_moves_packets() {
    let (board, shelf) = board();
    let response = board.apply(&everything(5, [port(1), port(2)]));
    assert_eq!((response.version, response.resync, errors(&response)), (5, false, vec![]));
    assert_eq!(response.ports.len(), 2, "every port of the request has a result");
    assert_passes(&shelf, 1, 2);
    assert_passes(&shelf, 2, 1);
    assert_eq!(board.version(), 5);
}

#[test]
fn apply_when_the_version_is_not_ours_changes_nothing_and_asks_for_everything() {
    let (board, shelf) = board();
    board.apply(&everything(5, [port(1), port(2)]));
    shelf.opened();
    let late = api::ApplyRequest { from_version: 4, delete_ports: vec![1, 2], ..everything(6, [port(3)]) };
    let response = board.apply(&late);
    assert!(response.resync);
    assert_eq!(response.version, 5);
    assert_eq!(shelf.opened(), Vec::<String>::new());
    assert_passes(&shelf, 1, 2);
}

#[test]
fn apply_when_the_same_is_sent_again_opens_nothing() {
    let (board, shelf) = board();
    board.apply(&everything(1, [port(1), port(2)]));
    shelf.opened();
    board.apply(&everything(2, [port(1), port(2)]));
    board.apply(&api::ApplyRequest { from_version: 2, ..everything(3, [port(1)]) });
    assert_eq!(shelf.opened(), Vec::<String>::new());
    assert_passes(&shelf, 1, 2);
}

#[test]
fn apply_when_a_change_follows_leaves_what_it_does_not_name() {
    let (board, shelf) = board();
    board.apply(&everything(1, [port(1), port(2)]));
    let change = api::ApplyRequest {
        from_version: 1,
        to_version: 2,
        put_ports: vec![port(3)],
        delete_ports: vec![2],
        ..Default::default()
    };
    assert_eq!(errors(&board.apply(&change)), []);
    assert!(shelf.peer("dev2").is_retired(), "a deleted port's device goes for good");
    assert!(!shelf.peer("dev1").is_retired());
    assert_passes(&shelf, 1, 3);
}

#[test]
fn apply_when_everything_leaves_a_port_out_deletes_it() {
    let (board, shelf) = board();
    board.apply(&everything(1, [port(1), port(2)]));
    board.apply(&everything(2, [port(2)]));
    assert!(shelf.peer("dev1").is_retired());
    assert_eq!(board.ports().ports.len(), 1);
}

#[test]
fn apply_when_a_device_fails_leaves_the_others_alone_and_tries_again_when_asked() {
    let (board, shelf) = board();
    shelf.0.lock().unwrap().broken.insert("dev2".into());
    let response = board.apply(&everything(1, [port(1), port(2), port(3)]));
    assert_eq!(errors(&response), [(2, "dev2 is broken")]);
    assert_passes(&shelf, 1, 3);
    let state =
        board.ports().ports.into_iter().find(|state| state.port.as_ref().unwrap().number == 2).unwrap();
    assert_eq!((state.link_up, &*state.detail), (false, "dev2 is broken"));

    shelf.0.lock().unwrap().broken.clear();
    let again =
        api::ApplyRequest { from_version: 1, to_version: 2, put_ports: vec![port(2)], ..Default::default() };
    assert_eq!(errors(&board.apply(&again)), []);
    assert_passes(&shelf, 1, 2);
}

#[test]
fn apply_when_a_port_contradicts_another_keeps_the_one_that_works() {
    let (board, shelf) = board();
    board.apply(&everything(1, [port(2), port(3)]));
    let thief = api::Port { macs: vec![mac(2)], ..port(1) };
    let change =
        api::ApplyRequest { from_version: 1, to_version: 2, put_ports: vec![thief], ..Default::default() };
    let response = board.apply(&change);
    let [(1, error)] = errors(&response)[..] else { panic!("{response:?}") };
    assert!(error.contains("pod1") && error.contains("pod2"), "{error}");
    assert_passes(&shelf, 3, 2);
}

#[test]
fn apply_when_a_working_port_changes_to_contradict_another_the_other_keeps_working() {
    let (board, shelf) = board();
    board.apply(&everything(1, [port(1), port(2), port(3)]));
    let thief = api::Port { macs: vec![mac(1)], ..port(3) };
    let change =
        api::ApplyRequest { from_version: 1, to_version: 2, put_ports: vec![thief], ..Default::default() };
    assert!(matches!(errors(&board.apply(&change))[..], [(3, _)]));
    assert!(!shelf.peer("dev3").is_retired(), "it may yet be asked for rightly");
    assert_passes(&shelf, 2, 1);
}

#[test]
fn apply_when_a_contradiction_goes_the_port_comes_up() {
    let (board, shelf) = board();
    let thief = || api::Port { macs: vec![mac(2)], ..port(1) };
    board.apply(&everything(1, [port(2), thief(), port(3)]));
    let change = api::ApplyRequest {
        from_version: 1,
        to_version: 2,
        put_ports: vec![thief()],
        delete_ports: vec![2],
        ..Default::default()
    };
    assert_eq!(errors(&board.apply(&change)), []);
    assert!(shelf.opened().contains(&"dev1".to_owned()));
}

#[test]
fn apply_when_words_mean_nothing_names_the_field() {
    let (board, shelf) = board();
    let wrong = [
        (api::Port { macs: vec!["2:3".into()], ..port(4) }, "MAC \"2:3\""),
        (api::Port { ips: vec!["10.0.0".into()], ..port(5) }, "IP address \"10.0.0\""),
        (
            api::Port { vlan: Some(api::Vlan { untagged: 4095, ..Default::default() }), ..port(6) },
            "VLAN 4095",
        ),
        (api::Port { network: 9, ..port(7) }, "network 9"),
        (api::Port { number: 70_000, ..port(8) }, "port number 70000"),
        (api::Port { mtu_bytes: 1 << 20, ..port(9) }, "MTU"),
    ];
    let ports = wrong.iter().map(|(port, _)| port.clone()).chain([port(1), port(2)]);
    let response = board.apply(&everything(1, ports));
    for (port, text) in &wrong {
        let error = errors(&response).into_iter().find(|(number, _)| *number == port.number);
        assert!(error.is_some_and(|(_, error)| error.contains(text)), "{text}: {:?}", errors(&response));
    }
    assert_passes(&shelf, 1, 2);
}

#[test]
fn apply_when_the_device_changes_opens_it_anew_without_retiring_the_netdev() {
    let (board, shelf) = board();
    board.apply(&everything(1, [port(1), port(2)]));
    let before = shelf.peer("dev1");
    let mut wider = port(1);
    wider.device = Some(api::port::Device::Tap(api::TapDevice {
        netns: String::new(),
        netdev: "dev1".into(),
        queues: 2,
    }));
    let change =
        api::ApplyRequest { from_version: 1, to_version: 2, put_ports: vec![wider], ..Default::default() };
    assert_eq!(errors(&board.apply(&change)), []);
    assert!(!before.is_retired());
    assert_eq!(shelf.opened(), ["dev1", "dev2", "dev1"]);
    assert_passes(&shelf, 1, 2);
}

#[test]
fn apply_when_a_netdev_moves_to_another_number_keeps_it() {
    let (board, shelf) = board();
    board.apply(&everything(1, [port(1), port(2)]));
    let before = shelf.peer("dev1");
    board.apply(&everything(2, [api::Port { number: 9, ..port(1) }, port(2)]));
    assert!(!before.is_retired(), "the same netdev serves the new number");
    assert_passes(&shelf, 2, 1);
}

#[test]
fn ports_when_traffic_has_passed_balance_the_ledger() {
    let (board, shelf) = board();
    board.apply(&everything(1, [port(1), port(2), port(3)]));
    for _ in 0..10 {
        assert_passes(&shelf, 1, 2);
    }
    shelf.peer("dev3").inject(ping(1, 2));
    assert_passes(&shelf, 3, 1);
    board.apply(&api::ApplyRequest {
        from_version: 1,
        to_version: 2,
        delete_ports: vec![1],
        ..Default::default()
    });
    let total = board.ports().total.unwrap();
    let drops: u64 = total.drops.values().sum();
    assert_eq!(total.rx_frames, 12);
    assert_eq!(drops, 1, "port security: {:?}", total.drops);
    assert_eq!(total.rx_frames + total.copies, total.tx_frames + drops);
}

#[test]
fn ports_when_listed_name_the_worker_of_each_receive_queue() {
    let (board, shelf) = board();
    assert_eq!(errors(&board.apply(&everything(1, [port(1), port(2)]))), []);
    assert_passes(&shelf, 1, 2);
    let states = board.ports().ports;
    let queues: Vec<_> = states.iter().map(|state| &state.queues[..]).collect();
    let [[sender], [receiver]] = queues[..] else { panic!("{queues:?}") };
    assert_eq!((sender.worker, receiver.worker, sender.moves), (0, 0, 0));
    assert_eq!(receiver.busy_cycles, 0, "nothing came in by it");
}
