//! Frames into a switch with all kinds of ports: nothing panics, and every frame has a fate.

use std::net::IpAddr;
use std::sync::Arc;

use frame::{Burst, Checksum, Gso, GsoKind, Offload};
use vswitch::program::{
    DhcpSpec, GatewaySpec, NetworkNo, NetworkSpec, PortNo, PortSpec, Prefix, ProgramSpec, RouterNo, VlanId,
    VlanMode,
};
use vswitch::{CacheSizes, Now, Outputs, ProcessReport, Program, Shared, Switch};
use wire::MacAddr;

use crate::input::Input;

/// Soon full, and made in no time, which is what each input begins with.
const SMALL: CacheSizes = CacheSizes { megaflows: 32, microflows: 32 };

/// Records of a port, an offload, a length, and as many bytes; every third burst a while later.
pub(crate) fn run(bytes: &[u8]) {
    let mut world = World::new();
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        world.burst(&mut input);
    }
}

struct World {
    switch: Switch,
    shared: Arc<Shared>,
    burst: Burst,
    outputs: Outputs,
    now: Now,
}

impl World {
    fn new() -> Self {
        let shared = Shared::new();
        #[allow(clippy::expect_used, reason = "the program is a constant")]
        let program = Program::build(spec()).expect("a valid program");
        let switch = Switch::with_caches(SMALL, Arc::clone(&shared), program, 7);
        Self { switch, shared, burst: Burst::new(), outputs: Outputs::default(), now: Now { ms: 1 } }
    }

    /// One burst of up to four frames, all from one port.
    fn burst(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        let port = PortNo(u16::from(choice & 7));
        for _ in 0..=(choice >> 3 & 3) {
            let offload = offload(input);
            let len = usize::from(input.u16() & 0x3ff);
            let frame = input.bytes(len).to_vec();
            // The explanation walks the same stages and must not panic either.
            let explanation = self.switch.explain(port, &frame, self.now);
            assert!(explanation.drop.is_some() || !explanation.outputs.is_empty());
            let _ = self.burst.push_owned(frame, offload);
        }
        let frames = self.burst.len() as u64;
        let senders: Vec<_> = (0..self.burst.len()).map(|frame| mac_at(self.burst.head(frame), 6)).collect();
        let mut report = ProcessReport::default();
        self.outputs.clear();
        self.switch.process(&mut self.burst, port, self.now, &mut self.outputs, &mut report);
        let sent: usize = self.outputs.groups().iter().map(|group| group.frames().len()).sum();
        assert_eq!(frames + report.copies, sent as u64 + report.drops.total(), "frames without a fate");
        for group in self.outputs.groups() {
            for frame in group.frames().iter().map(|frame| usize::from(*frame)) {
                // But for the switch's answer to who sent it, which is in its place.
                let is_answer = mac_at(self.burst.head(frame), 0) == senders[frame]
                    || [&[0x33, 0x33][..], &[0xff; 6]]
                        .iter()
                        .any(|to| self.burst.head(frame).starts_with(to));
                assert!(group.port != port || is_answer, "a frame goes back to where it came from");
            }
        }
        self.burst.clear();
        if choice & 0x20 != 0 {
            self.now.ms += 40_000;
            self.switch.sweep(self.now, 4096);
        }
        assert!(self.shared.stations(self.now).len() <= 64, "more stations than all limits allow");
    }
}

fn mac_at(head: &[u8], at: usize) -> Option<[u8; 6]> {
    head.get(at..)?.first_chunk().copied()
}

fn offload(input: &mut Input<'_>) -> Offload {
    let choice = input.u8();
    if choice < 0x80 {
        return Offload::NONE;
    }
    let kinds = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpFragment, GsoKind::UdpSegment];
    let gso = Gso { kind: kinds[usize::from(choice & 3)], size: input.u16(), ecn: false, headers_bytes: 54 };
    Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso), ..Offload::NONE }
}

/// Of both networks one router, with the addresses that the frames of the corpus are for.
fn gateway(network: u32) -> GatewaySpec {
    let network = network as u8;
    let prefixes = [
        (IpAddr::from([10, 0, network, 1]), 24),
        (IpAddr::from([0xfd00, network.into(), 0, 0, 0, 0, 0, 1]), 64),
    ];
    GatewaySpec {
        mac: MacAddr([2, 0, 0, 0, 0xff, network]),
        addresses: prefixes.map(|(address, len)| Prefix { address, len }).into(),
        router: RouterNo(1),
        routes: Vec::new(),
    }
}

/// For the addresses that ports list, whose subnet no gateway is of.
fn dhcp(network: u32) -> DhcpSpec {
    let gateway = gateway(network);
    let default = |prefix: &Prefix| {
        let all = match prefix.address {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        (Prefix { address: all, len: 0 }, prefix.address)
    };
    DhcpSpec {
        mac: gateway.mac,
        servers: vec![Prefix { address: [10, 0, 0, 254].into(), len: 24 }],
        routes: gateway.addresses.iter().map(default).collect(),
        nameservers: vec![[10, 0, 0, 53].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 0x53].into()],
        domain: None,
        search: vec!["example.org".to_owned()],
    }
}

fn spec() -> ProgramSpec {
    let mut spec = ProgramSpec { version: 1, ..ProgramSpec::default() };
    for (number, flood_unknown) in [(1, true), (2, false)] {
        let network = NetworkSpec {
            number: NetworkNo(number),
            name: format!("network-{number}"),
            flood_unknown,
            mac_age_ms: 30_000,
            mac_limit: 8,
            gateway: Some(gateway(number)),
            dhcp: Some(dhcp(number)),
            overlay: None,
        };
        spec.networks.insert(network.number, network);
    }
    let vlan = |id| VlanId::new(id);
    let modes = [
        VlanMode::Access(None),
        VlanMode::Access(vlan(7)),
        VlanMode::Trunk { allowed: vec![], native: None },
        VlanMode::Trunk { allowed: vlan(7).into_iter().chain(vlan(8)).collect(), native: vlan(7) },
        VlanMode::Access(None),
        VlanMode::Access(None),
    ];
    for (index, vlan) in modes.into_iter().enumerate() {
        let number = index as u16;
        let port = PortSpec {
            number: PortNo(number),
            name: format!("port-{number}"),
            network: NetworkNo(1 + u32::from(number == 5)),
            vlan,
            macs: vec![MacAddr([2, 0, 0, 0, 0, number as u8])],
            ips: vec![
                IpAddr::from([10, 0, 0, number as u8]),
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number]),
            ],
            port_security: number.is_multiple_of(2),
            mac_limit: 4,
            isolated: number == 1 || number == 4,
            mtu_bytes: 1500,
            policy: None,
        };
        spec.ports.insert(port.number, port);
    }
    spec
}
