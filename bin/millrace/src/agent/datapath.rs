//! The engine's switch, over gRPC.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use local_api::switch_v1::switch_client::SwitchClient;
use local_api::switch_v1::{self as proto, port::Device as ProtoDevice};
use reconcile::datapath::{
    Applied, Datapath, DatapathError, Device, Port, SwitchInfo, Take, Update, VhostUserRole,
};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use vswitch::program::{HostSpec, NodeSpec, PortNo, RouterNo, UnderlaySpec, VlanMode};

use super::policy;
use crate::said::network;

/// How long the switch may take. Opening a port is milliseconds; a full program of a large node is a second.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A full program of a large node is below; gRPC's usual limit is not.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A switch process behind a socket.
pub(crate) struct GrpcSwitch {
    client: SwitchClient<Channel>,
    socket: PathBuf,
    runtime: tokio::runtime::Handle,
}

impl GrpcSwitch {
    /// The switch behind `channel`. Calls must come from threads that may block.
    pub(crate) fn new(channel: Channel, socket: &Path, runtime: tokio::runtime::Handle) -> Self {
        let client = SwitchClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self { client, socket: socket.to_owned(), runtime }
    }

    fn ask<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, DatapathError> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, call).await });
        match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(DatapathError::Unreachable(format!(
                "it takes longer than {TIMEOUT:?} on {}: see its log",
                self.socket.display()
            ))),
        }
    }

    fn failed(&self, status: &Status) -> DatapathError {
        match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented => {
                DatapathError::Refused(status.message().to_owned())
            }
            Code::Unavailable => DatapathError::Unreachable(format!(
                "nobody answers on {}: start one with `millrace switch`",
                self.socket.display()
            )),
            _ => DatapathError::Unreachable(format!("{}: {}", self.socket.display(), status.message())),
        }
    }
}

impl Datapath for GrpcSwitch {
    fn info(&self) -> Result<SwitchInfo, DatapathError> {
        let mut client = self.client.clone();
        let info = self.ask(client.info(proto::InfoRequest {}))?;
        Ok(SwitchInfo { instance: info.instance, program_version: info.program_version })
    }

    fn apply(&self, update: &Update) -> Result<Applied, DatapathError> {
        let mut client = self.client.clone();
        let answer = self.ask(client.apply(request(update)))?;
        if answer.resync {
            return Ok(Applied::Resync);
        }
        for network in answer.networks.iter().filter(|network| !network.error.is_empty()) {
            // The networks file is checked; what is left are networks that it no longer has.
            let reason = &network.error;
            tracing::warn!(
                network = network.number,
                reason,
                "the network lacks its gateway, its part on other nodes or its DHCP"
            );
        }
        for reason in &answer.object_errors {
            tracing::warn!(reason, "the switch cannot take a policy or a service");
        }
        if !answer.underlay_error.is_empty() {
            tracing::warn!(reason = answer.underlay_error, "there are no tunnels to other nodes");
        }
        let failed = answer.ports.into_iter().filter(|port| !port.error.is_empty());
        let failed = failed.map(|port| (PortNo(port.number as u16), port.error)).collect();
        Ok(Applied::Done { instance: answer.instance, failed })
    }

    fn ports(&self) -> Result<BTreeSet<PortNo>, DatapathError> {
        let mut client = self.client.clone();
        let answer = self.ask(client.list_ports(proto::ListPortsRequest {}))?;
        // One that could not be opened is told of too, without counters.
        let open = answer.ports.into_iter().filter(|state| state.counters.is_some());
        Ok(open.filter_map(|state| Some(PortNo(state.port?.number as u16))).collect())
    }
}

fn request(update: &Update) -> proto::ApplyRequest {
    proto::ApplyRequest {
        from_version: update.from_version,
        to_version: update.to_version,
        put_networks: update
            .put_networks
            .iter()
            .map(|spec| network(spec, update.localnets.get(&spec.number)))
            .collect(),
        delete_networks: update.delete_networks.iter().map(|number| number.0).collect(),
        put_ports: update.put_ports.iter().map(port).collect(),
        delete_ports: update.delete_ports.iter().map(|number| u32::from(number.0)).collect(),
        underlay: update.underlay.as_ref().map(underlay),
        put_policies: update.put_policies.iter().map(policy::policy).collect(),
        delete_policies: update.delete_policies.iter().map(|policy| policy.0).collect(),
        put_identities: update.put_identities.iter().map(policy::identity).collect(),
        delete_identities: update.delete_identities.iter().map(|place| policy::place(*place)).collect(),
        put_services: update.put_services.iter().map(policy::service).collect(),
        delete_services: update.delete_services.iter().map(|service| service.0).collect(),
        host: update.host.as_ref().map(host),
    }
}

fn host(spec: &HostSpec) -> proto::Host {
    let (first, last) = (*spec.nat_ports.start(), *spec.nat_ports.end());
    let source = |(router, addresses): (&RouterNo, &Vec<IpAddr>)| proto::Source {
        router: router.0,
        addresses: addresses.iter().map(ToString::to_string).collect(),
    };
    proto::Host {
        port: spec.port.0.into(),
        first_nat_port: first.into(),
        last_nat_port: last.into(),
        sources: spec.sources.iter().map(source).collect(),
        elsewhere: spec.elsewhere.iter().map(ToString::to_string).collect(),
    }
}

fn underlay(spec: &UnderlaySpec) -> proto::Underlay {
    let node = |spec: &NodeSpec| proto::Node {
        number: spec.number.0.into(),
        name: spec.name.clone(),
        address: spec.address.to_string(),
        source: spec.source.to_string(),
        source_mac: spec.source_mac.to_string(),
        next_hop: spec.next_hop.map(|mac| mac.to_string()).unwrap_or_default(),
        mtu_bytes: spec.mtu_bytes,
    };
    proto::Underlay { port: spec.port.0.into(), nodes: spec.nodes.values().map(node).collect() }
}

fn port(port: &Port) -> proto::Port {
    let spec = &port.spec;
    proto::Port {
        number: spec.number.0.into(),
        name: spec.name.clone(),
        network: spec.network.0,
        vlan: Some(vlan(&spec.vlan)),
        macs: spec.macs.iter().map(ToString::to_string).collect(),
        ips: spec.ips.iter().map(ToString::to_string).collect(),
        port_security: spec.port_security,
        mac_limit: spec.mac_limit,
        isolated: spec.isolated,
        mtu_bytes: spec.mtu_bytes,
        policy: spec.policy.map_or(0, |policy| policy.0),
        device: Some(device(&port.device)),
    }
}

fn vlan(mode: &VlanMode) -> proto::Vlan {
    let number = |vlan: &Option<vswitch::program::VlanId>| vlan.map_or(0, |vlan| u32::from(vlan.get()));
    match mode {
        VlanMode::Access(vlan) => proto::Vlan { trunk: false, untagged: number(vlan), allowed: Vec::new() },
        VlanMode::Trunk { allowed, native } => proto::Vlan {
            trunk: true,
            untagged: number(native),
            allowed: allowed.iter().map(|vlan| u32::from(vlan.get())).collect(),
        },
    }
}

fn taken(netdev: String, take: &Take) -> proto::NetdevDevice {
    match take {
        // Not by a packet socket: what a pod sends is not for the host, which would answer and forward it.
        Take::All => proto::NetdevDevice {
            netdev,
            all: true,
            mode: proto::NetdevMode::Xdp.into(),
            ..Default::default()
        },
        Take::Ours { vlans } => proto::NetdevDevice {
            netdev,
            udp_ports: vec![wire::geneve::PORT.into()],
            vlans: vlans.iter().map(|vlan| u32::from(*vlan)).collect(),
            ..Default::default()
        },
    }
}

fn device(device: &Device) -> ProtoDevice {
    match device {
        Device::Tap { netns, netdev, queues } => ProtoDevice::Tap(proto::TapDevice {
            netns: netns.to_string_lossy().into_owned(),
            netdev: netdev.clone(),
            queues: *queues,
        }),
        Device::Netdev { netdev, take } => ProtoDevice::Netdev(taken(netdev.clone(), take)),
        Device::Vduse { name } => ProtoDevice::Vduse(proto::VduseDevice { name: name.clone() }),
        Device::VhostUser { socket, role, queues } => {
            let owner = match role {
                VhostUserRole::Listen(owner) => Some(owner),
                VhostUserRole::Connect => None,
            };
            ProtoDevice::VhostUser(proto::VhostUserDevice {
                socket_path: socket.to_string_lossy().into_owned(),
                connect: owner.is_none(),
                uid: owner.map_or(0, |owner| owner.uid),
                gid: owner.map_or(0, |owner| owner.gid),
                mode: owner.map_or(0, |owner| owner.mode),
                queues: *queues,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_when_all_is_by_xdp_which_leaves_the_host_nothing() {
        let device = taken("ens3f0_0".to_owned(), &Take::All);
        assert!(device.all && device.udp_ports.is_empty() && device.mode() == proto::NetdevMode::Xdp);
        let device = taken("eth0".to_owned(), &Take::Ours { vlans: vec![7] });
        assert!(!device.all && device.mode() == proto::NetdevMode::Auto);
        assert_eq!((device.udp_ports, device.vlans), (vec![u32::from(wire::geneve::PORT)], vec![7]));
    }
}
