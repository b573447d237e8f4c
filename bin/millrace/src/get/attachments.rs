//! `millrace get attachments`: which interfaces do pods have, and in what state?

use local_api::agent_v1 as api;
use serde::Serialize;

use super::{GetArgs, join};
use crate::client;
use crate::output::Row;

#[derive(Serialize)]
struct Answer {
    attachments: Vec<Attachment>,
}

#[derive(Serialize)]
struct Attachment {
    pod: String,
    container_id: String,
    interface: String,
    network: String,
    port_kind: String,
    port_kind_reason: String,
    state: String,
    mac: String,
    addresses: Vec<String>,
    netns: String,
    socket_path: String,
    vdpa_device: String,
    device_path: String,
    pci_address: String,
    device_driver: String,
    port: u32,
    port_name: String,
}

impl From<api::Attachment> for Attachment {
    fn from(attachment: api::Attachment) -> Self {
        Self {
            pod: attachment.pod,
            container_id: attachment.container_id,
            interface: attachment.interface,
            network: attachment.network,
            port_kind: attachment.port_kind,
            port_kind_reason: attachment.port_kind_reason,
            state: attachment.state,
            mac: attachment.mac,
            addresses: attachment.addresses,
            netns: attachment.netns,
            socket_path: attachment.socket_path,
            vdpa_device: attachment.vdpa_device,
            device_path: attachment.device_path,
            pci_address: attachment.pci_address,
            device_driver: attachment.device_driver,
            port: attachment.port,
            port_name: attachment.port_name,
        }
    }
}

impl Attachment {
    /// The device behind it: the function of a card, the device of the vDPA bus, and the file of it.
    fn device(&self) -> String {
        let parts = [&self.pci_address, &self.vdpa_device, &self.device_driver, &self.device_path];
        let named: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).cloned().collect();
        if named.is_empty() { "-".into() } else { named.join(" ") }
    }
}

impl Row for Attachment {
    const HEADS: &'static [&'static str] = &[
        "POD",
        "CONTAINER",
        "INTERFACE",
        "NETWORK",
        "KIND",
        "DEVICE",
        "STATE",
        "MAC",
        "ADDRESSES",
        "PORT",
        "WHY",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            if self.pod.is_empty() { "-".into() } else { self.pod.clone() },
            self.container_id.chars().take(12).collect(),
            self.interface.clone(),
            self.network.clone(),
            self.port_kind.clone(),
            self.device(),
            self.state.clone(),
            self.mac.clone(),
            join(&self.addresses),
            if self.port == 0 { "-".into() } else { self.port.to_string() },
            if self.port_kind_reason.is_empty() { "-".into() } else { self.port_kind_reason.clone() },
        ]
    }
}

pub(super) async fn show(args: &GetArgs) -> anyhow::Result<()> {
    let answer = client::agent(&args.run_dir).list_attachments(api::ListAttachmentsRequest {}).await;
    let state = client::agent_says(answer, &args.run_dir)?;
    let answer = Answer { attachments: state.attachments.into_iter().map(Attachment::from).collect() };
    super::answer(args, &answer.attachments, "no attachments: no pod has an interface of ours", &answer)
}
