//! How does a result look in each version of CNI?
//!
//! | field | 0.3.x, 0.4.0 | 1.0.0 | 1.1.0 |
//! |---|---|---|---|
//! | `ips[].version` | "4" or "6" | - | - |
//! | `interfaces[].mtu, socketPath, pciID` | - | - | yes |
//! | `routes[].mtu, advmss, priority, table, scope` | - | - | yes |

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Version;

/// The result of ADD (§"ADD Success"), in the words of the newest version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddResult {
    /// Interfaces that were made, in the pod and on the node.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses that were given.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Ip>,
    /// Routes that were made.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name resolution.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// An interface that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its station address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes (1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The pod's network namespace; empty: the interface is on the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Its vhost-user socket (1.1).
    #[serde(rename = "socketPath", default, skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<PathBuf>,
    /// Its PCI address (1.1).
    #[serde(rename = "pciID", default, skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
}

/// An address that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The router of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The interface that has it, as an index in `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<u32>,
}

/// A route that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The path MTU in bytes (1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The largest TCP segment to announce (1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric (1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table (1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope (1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

/// Name resolution.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dns {
    /// Servers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search domains, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddResult {
    /// The result in the words of `version`; what that version has no words for is left out.
    pub fn to_json(&self, version: Version) -> Value {
        let mut result = self.clone();
        if version < Version::V1_1_0 {
            for interface in &mut result.interfaces {
                (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
            }
            for route in &mut result.routes {
                *route = Route::new(route.dst, route.gw);
            }
        }
        let mut value = json!(result);
        value["cniVersion"] = Value::from(version.as_str());
        if version < Version::V1_0_0 {
            let written = value.get_mut("ips").and_then(Value::as_array_mut);
            for (ip, written) in self.ips.iter().zip(written.into_iter().flatten()) {
                written["version"] = Value::from(if ip.address.addr().is_ipv4() { "4" } else { "6" });
            }
        }
        value
    }

    /// Reads a result. One reader serves all spoken versions: they differ only in fields that are missing.
    ///
    /// # Errors
    /// It names a version that is not spoken, or is no result: the text says which field.
    pub fn from_json(value: &Value) -> Result<Self, ResultError> {
        if let Some(text) = value.get("cniVersion").and_then(Value::as_str) {
            Version::parse(text).ok_or_else(|| ResultError::Version(text.to_owned()))?;
        } else if value.get("ip4").is_some() || value.get("ip6").is_some() {
            return Err(ResultError::Version(format!("before {}", Version::V0_3_0)));
        }
        Self::deserialize(value).map_err(|error| ResultError::Shape(error.to_string()))
    }

    /// Reads a result as a plugin printed it.
    ///
    /// # Errors
    /// As [`AddResult::from_json`], or it is no JSON.
    pub fn from_slice(stdout: &[u8]) -> Result<Self, ResultError> {
        let value = serde_json::from_slice(stdout).map_err(|error| ResultError::Shape(error.to_string()))?;
        Self::from_json(&value)
    }

    /// Appends what a later plugin of the chain made: its interfaces behind those that are there.
    pub fn append(&mut self, later: AddResult) {
        let base = self.interfaces.len() as u32;
        self.interfaces.extend(later.interfaces);
        let shift = |ip: Ip| Ip { interface: ip.interface.map(|index| index.saturating_add(base)), ..ip };
        self.ips.extend(later.ips.into_iter().map(shift));
        self.routes.extend(later.routes);
        if !later.dns.is_empty() {
            self.dns = later.dns;
        }
    }
}

impl Route {
    /// A route with all else as the kernel has it.
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

/// A list that a plugin wrote as null is empty.
fn or_null<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Why a JSON value is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// Of a version that is not spoken.
    #[error("cniVersion {0:?} of the result is not supported")]
    Version(String),
    /// Not of the shape of a result.
    #[error("{0}")]
    Shape(String),
}
