//! What does the network configuration say?

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{AddResult, CniError, Code, Dns, Version};

/// A plugin's configuration as the runtime hands it over (§"Execution Protocol"). Keys of other plugins and of the runtime
/// that mean nothing here are ignored, as the specification asks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConf {
    /// The name of the configuration, for which GC is asked.
    #[serde(default)]
    pub name: String,
    /// The Millrace network; none: the one called `name`.
    pub network: Option<String>,
    /// `auto`, `tap`, `vduse`, `vhost-user`, `vdpa-vhost`, `sriov` or `vdpa`; none: as the network says.
    pub port_kind: Option<String>,
    /// Who is to drive the pod's device of a card: `vfio-pci`, `virtio_vdpa` or `vhost_vdpa`; none: who does already.
    pub driver: Option<String>,
    /// The largest IP packet of the pod's device of a card; none: as the network says.
    pub mtu: Option<u32>,
    /// The agent's socket.
    pub agent_socket: Option<PathBuf>,
    /// The delegated IPAM plugin; none: Millrace's own.
    pub ipam: Option<Ipam>,
    /// Name resolution to report instead of the network's.
    #[serde(default)]
    pub dns: Dns,
    /// Whether to masquerade: not supported.
    #[serde(default)]
    pub ip_masq: bool,
    /// `cni.dev/valid-attachments` of GC. A runtime without any writes null.
    #[serde(rename = "cni.dev/valid-attachments", default, deserialize_with = "null_is_empty")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
    #[serde(rename = "deviceID")]
    device_id: Option<String>,
    #[serde(default)]
    runtime_config: Map<String, Value>,
    #[serde(default)]
    args: Value,
    prev_result: Option<Value>,
    cni_version: Option<String>,
}

/// The delegated IPAM plugin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ipam {
    /// The plugin's name in CNI_PATH.
    #[serde(rename = "type", default)]
    pub plugin: String,
}

/// An attachment that is to stay (§"GC").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct ValidAttachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface.
    pub ifname: String,
}

/// The capabilities of `runtimeConfig` that are honoured.
const CAPABILITIES: [&str; 4] = ["mac", "ips", "deviceID", "CNIDeviceInfoFile"];

impl NetConf {
    /// Reads stdin and the version it is in.
    ///
    /// # Errors
    /// Code 6 (no JSON of that shape) or 1 (a version that is not spoken).
    pub fn parse(stdin: &[u8]) -> Result<(Self, Version), CniError> {
        let conf: Self = serde_json::from_slice(stdin).map_err(|error| {
            CniError::new(Code::DECODING, format!("the network configuration cannot be read: {error}"))
        })?;
        // §"Network configuration format": a configuration without a version is of 0.2.0 or older.
        let asked = conf.cni_version.as_deref().unwrap_or("");
        let version = Version::parse(asked).ok_or_else(|| CniError::incompatible(asked))?;
        Ok((conf, version))
    }

    /// Refuses what was asked for and cannot be given: leaving it out in silence would make a pod that is not as promised.
    ///
    /// # Errors
    /// Code 2, with the key and its value.
    pub fn require_supported(&self) -> Result<(), CniError> {
        let unsupported = |key: &str, value: &dyn std::fmt::Display, remedy: &str| {
            let msg = format!("{key}: {value} is not supported: {remedy}");
            Err(CniError::new(Code::UNSUPPORTED_FIELD, msg))
        };
        if self.ip_masq {
            return unsupported("ipMasq", &true, "remove it, and masquerade outside of the pod network");
        }
        for (key, value) in &self.runtime_config {
            if !CAPABILITIES.contains(&key.as_str()) && !is_nothing(value) {
                let remedy = "remove the capability from the network configuration";
                return unsupported(&format!("runtimeConfig.{key}"), value, remedy);
            }
        }
        Ok(())
    }

    /// The station address that was asked for: `runtimeConfig.mac`, else `args.cni.mac`, as text.
    ///
    /// # Errors
    /// Code 7: it is no text.
    pub fn mac(&self) -> Result<Option<&str>, CniError> {
        match self.asked("mac") {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(CniError::new(
                Code::INVALID_CONFIG,
                format!("runtimeConfig.mac: {other} is not text: write \"02:00:00:00:00:01\""),
            )),
        }
    }

    /// The addresses that were asked for: `runtimeConfig.ips`, else `args.cni.ips`; with or without prefix length.
    ///
    /// # Errors
    /// Code 7: one of them is no address.
    pub fn ips(&self) -> Result<Vec<String>, CniError> {
        let Some(value) = self.asked("ips") else { return Ok(Vec::new()) };
        serde_json::from_value(value.clone()).map_err(|_| {
            let msg = format!("runtimeConfig.ips: {value} is no list of addresses: write [\"10.1.0.9/24\"]");
            CniError::new(Code::INVALID_CONFIG, msg)
        })
    }

    /// The device of a card that the runtime chose for the pod: `runtimeConfig.deviceID`, else `deviceID`, as Multus writes it.
    ///
    /// # Errors
    /// Code 7: it is no text.
    pub fn device_id(&self) -> Result<Option<&str>, CniError> {
        match self.runtime_config.get("deviceID").filter(|value| !is_nothing(value)) {
            None => Ok(self.device_id.as_deref().filter(|id| !id.is_empty())),
            Some(Value::String(id)) => Ok(Some(id)),
            Some(other) => {
                let msg = format!("runtimeConfig.deviceID: {other} is not text: write \"0000:01:10.2\"");
                Err(CniError::new(Code::INVALID_CONFIG, msg))
            }
        }
    }

    /// The file that the device-info is to be written to (NPWG device-info-spec 1.1.0 §3).
    ///
    /// # Errors
    /// Code 7: it is no absolute path without `..`.
    pub fn device_info_file(&self) -> Result<Option<PathBuf>, CniError> {
        let Some(value) = self.runtime_config.get("CNIDeviceInfoFile").filter(|value| !is_nothing(value))
        else {
            return Ok(None);
        };
        let path = value.as_str().map(PathBuf::from).filter(|path| {
            path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir)
        });
        path.map(Some).ok_or_else(|| {
            let msg = format!("runtimeConfig.CNIDeviceInfoFile: {value} is no absolute path");
            CniError::new(Code::INVALID_CONFIG, msg)
        })
    }

    /// The result of the plugins before this one, or of the ADD that CHECK is about.
    ///
    /// # Errors
    /// Code 6: it is no result.
    pub fn prev_result(&self) -> Result<Option<AddResult>, CniError> {
        let Some(value) = self.prev_result.as_ref().filter(|value| !value.is_null()) else { return Ok(None) };
        let result = AddResult::from_json(value);
        result
            .map(Some)
            .map_err(|error| CniError::new(Code::DECODING, format!("prevResult cannot be read: {error}")))
    }

    fn asked(&self, key: &str) -> Option<&Value> {
        let by_runtime = self.runtime_config.get(key).filter(|value| !is_nothing(value));
        by_runtime.or_else(|| self.args.get("cni")?.get(key).filter(|value| !is_nothing(value)))
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<ValidAttachment>>, D::Error> {
    Ok(Some(Option::deserialize(from)?.unwrap_or_default()))
}

/// True for what a runtime writes when nobody asked: null, "", [], {}.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// An address that was asked for: `10.1.0.9/24`, or `10.1.0.9` whose prefix length is the subnet's.
pub(super) fn parse_address(text: &str) -> Option<(std::net::IpAddr, Option<u8>)> {
    match text.parse::<IpNet>() {
        Ok(net) => Some((net.addr(), Some(net.prefix_len()))),
        Err(_) => text.parse().ok().map(|address| (address, None)),
    }
}
