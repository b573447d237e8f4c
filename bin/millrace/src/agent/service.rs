//! What does the CLI ask of the agent?

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use local_api::agent_v1::agent_server::Agent;
use local_api::agent_v1::{self as proto};
use model::Subnet;
use reconcile::desired::{Desired, Known};
use reconcile::{Attachment, Engine, NodeView};
use tonic::{Request, Response, Status};

use super::networks::FileProblem;

/// The agent's service.
pub(crate) struct Service {
    engine: Arc<Engine>,
    switch_socket: PathBuf,
    networks_file: PathBuf,
    file_problem: FileProblem,
}

impl Service {
    /// The service of an engine.
    pub(crate) fn new(
        engine: Arc<Engine>,
        switch_socket: PathBuf,
        networks_file: PathBuf,
        file_problem: FileProblem,
    ) -> Self {
        Self { engine, switch_socket, networks_file, file_problem }
    }

    /// The index as it is now, read where waiting for the disk holds up nobody.
    async fn ask<T: Send + 'static>(
        &self,
        of: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let engine = Arc::clone(&self.engine);
        let asked = tokio::task::spawn_blocking(move || of(&engine)).await;
        asked.map_err(|error| Status::internal(error.to_string()))
    }
}

#[tonic::async_trait]
impl Agent for Service {
    async fn list_networks(
        &self,
        _: Request<proto::ListNetworksRequest>,
    ) -> Result<Response<proto::ListNetworksResponse>, Status> {
        let desired = self.ask(Engine::desired).await?;
        let networks = desired.networks().map(|known| network(known, &desired)).collect();
        Ok(Response::new(proto::ListNetworksResponse { networks }))
    }

    async fn list_nodes(
        &self,
        _: Request<proto::ListNodesRequest>,
    ) -> Result<Response<proto::ListNodesResponse>, Status> {
        let nodes = self.ask(Engine::nodes).await?;
        Ok(Response::new(proto::ListNodesResponse { nodes: nodes.iter().map(node).collect() }))
    }

    async fn list_attachments(
        &self,
        _: Request<proto::ListAttachmentsRequest>,
    ) -> Result<Response<proto::ListAttachmentsResponse>, Status> {
        let desired = self.ask(Engine::desired).await?;
        let attachments = desired.attachments().map(attachment).collect();
        Ok(Response::new(proto::ListAttachmentsResponse { attachments }))
    }

    async fn status(
        &self,
        _: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let mut problems = self.ask(Engine::problems).await?;
        let ready = problems.is_empty();
        problems.extend(self.file_problem.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let (instance, version) = self.ask(Engine::switch).await?;
        Ok(Response::new(proto::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            ready,
            problems,
            switch_socket: self.switch_socket.display().to_string(),
            switch_instance: instance.unwrap_or_default(),
            program_version: version,
            networks_file: self.networks_file.display().to_string(),
        }))
    }
}

fn network(known: &Known, desired: &Desired) -> proto::Network {
    let name = known.network.name();
    let spec = known.network.spec();
    let subnet = |subnet: &Subnet| proto::Subnet {
        subnet: subnet.net().to_string(),
        gateway: subnet.gateway().map(|gateway| gateway.to_string()).unwrap_or_default(),
        addresses: u64::try_from(subnet.count()).unwrap_or(u64::MAX),
        leased: desired.leases(name).filter(|(address, _)| subnet.net().contains(address)).count() as u64,
    };
    proto::Network {
        name: name.to_string(),
        number: known.number,
        port_kind: spec.port_kind.to_string(),
        mtu_bytes: known.network.mtu().get(),
        vlan: spec.vlan.unwrap_or(0).into(),
        subnets: known.network.subnets().iter().map(subnet).collect(),
        attachments: desired.attachments().filter(|attachment| attachment.network == *name).count() as u32,
        removed: !known.defined,
        topology: spec.topology.as_str().to_owned(),
        vni: spec.vni.unwrap_or(0),
    }
}

fn node(view: &NodeView) -> proto::Node {
    let hop = view.next_hop.as_ref();
    proto::Node {
        name: view.node.name().to_string(),
        number: view.node.number().into(),
        own: view.own,
        uplink: view.node.uplink().to_string(),
        address: view.address.map(|address| address.to_string()).unwrap_or_default(),
        next_hop: hop.and_then(|hop| hop.mac).map(|mac| mac.to_string()).unwrap_or_default(),
        mtu_bytes: hop.map_or(0, |hop| hop.mtu_bytes),
    }
}

fn attachment(attachment: &Attachment) -> proto::Attachment {
    let text = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
    let (vdpa, card) = (attachment.vdpa.as_ref(), attachment.card.as_ref());
    let vhost_vdpa = vdpa.and_then(|place| place.path.as_ref());
    let driver = card.and_then(|card| card.driver);
    proto::Attachment {
        container_id: attachment.id.container.to_string(),
        interface: attachment.id.interface.to_string(),
        network: attachment.network.to_string(),
        port_kind: attachment.kind.to_string(),
        state: attachment.state.as_str().to_owned(),
        mac: attachment.mac.to_string(),
        addresses: attachment.addresses.iter().map(|address| address.net.to_string()).collect(),
        netns: attachment.netns.display().to_string(),
        socket_path: text(attachment.vhost.as_ref().and_then(|files| files.socket.as_ref())),
        port: attachment.port.unwrap_or_default().into(),
        port_name: attachment.port_name(),
        pod: attachment.pod.as_ref().map(ToString::to_string).unwrap_or_default(),
        port_kind_reason: attachment.kind_reason.clone(),
        vdpa_device: vdpa.map(|place| place.device.clone()).unwrap_or_default(),
        device_path: text(vhost_vdpa.or(card.and_then(|card| card.group.as_ref()))),
        pci_address: card.map(|card| card.function.to_string()).unwrap_or_default(),
        device_driver: driver.map(|driver| driver.to_string()).unwrap_or_default(),
    }
}
