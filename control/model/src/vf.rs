//! What may a network's configuration ask of a virtual function?
//!
//! The fields, their names and their rules are those of sriov-cni, so that its configurations work as they are.

use std::fmt;

use serde::{Deserialize, Serialize};
use wire::MacAddr;

/// VLANs that a function may be in; 0: none, and 4095 is reserved (IEEE 802.1Q §9.6).
const MAX_VLAN: u32 = 4094;
/// Priorities of a tag: three bits.
const MAX_QOS: u32 = 7;

/// What is to be set of a virtual function. What is not given stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct VfConfig {
    /// Its address, which the card lets it use.
    pub mac: Option<MacAddr>,
    /// The VLAN that the card puts its frames into.
    pub vlan: Option<Vlan>,
    /// Whether the card drops frames from other addresses.
    pub spoof_check: Option<bool>,
    /// Whether it may do what only the node may else: another address, promiscuity.
    pub trust: Option<bool>,
    /// Its link.
    pub link_state: Option<VfLinkState>,
    /// What it may send at least, in Mbit/s; 0: nothing is kept for it.
    pub min_tx_rate_mbps: Option<u32>,
    /// What it may send at most, in Mbit/s; 0: no limit.
    pub max_tx_rate_mbps: Option<u32>,
}

/// The VLAN of a virtual function, which its user sees nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "WrittenVlan", into = "WrittenVlan")]
pub struct Vlan {
    id: u16,
    qos: u8,
    protocol: VlanProtocol,
}

/// The kind of tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VlanProtocol {
    /// A customer's.
    #[default]
    Dot1q,
    /// A provider's, outside of a customer's.
    Dot1ad,
}

/// The link of a virtual function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VfLinkState {
    /// As the card's own.
    #[default]
    Auto,
    /// Up, so that functions of one card reach each other without the wire.
    Enable,
    /// Down.
    Disable,
}

/// Why a configuration is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A VLAN that there is not.
    #[error("vlan {0}: VLANs go from 0, which is none, to {MAX_VLAN}")]
    Vlan(u32),
    /// A priority that there is not.
    #[error("vlanQoS {0}: priorities go from 0 to {MAX_QOS}")]
    Qos(u32),
    /// A kind of tag that there is not.
    #[error("vlanProto {0:?}: it is 802.1q or 802.1ad")]
    Protocol(String),
    /// A tag's parts without a VLAN.
    #[error("{0} is nothing without a vlan: give vlan, from 1 to {MAX_VLAN}, or leave {0} out")]
    NoVlan(&'static str),
    /// An address that no station can have.
    #[error("mac {0}: a function needs the address of one station")]
    Mac(MacAddr),
    /// No address at all.
    #[error("mac: {0}")]
    NoMac(#[from] wire::MacError),
    /// Neither on nor off.
    #[error("{0} {1:?}: it is on or off")]
    Switch(&'static str, String),
    /// A link that there is not.
    #[error("link_state {0:?}: it is auto, enable or disable")]
    LinkState(String),
    /// More is kept for it than it may use.
    #[error("min_tx_rate {0} is more than max_tx_rate {1}")]
    Rates(u32, u32),
}

impl Vlan {
    /// A VLAN; number 0: none.
    ///
    /// # Errors
    /// A number or priority that is none.
    pub fn new(id: u32, qos: u32, protocol: VlanProtocol) -> Result<Self, ConfigError> {
        if id > MAX_VLAN {
            return Err(ConfigError::Vlan(id));
        }
        if qos > MAX_QOS {
            return Err(ConfigError::Qos(qos));
        }
        Ok(Self { id: id as u16, qos: qos as u8, protocol })
    }

    /// Its number; 0: none.
    pub fn id(self) -> u16 {
        self.id
    }

    /// The priority of its frames.
    pub fn qos(self) -> u8 {
        self.qos
    }

    /// Its tag's kind.
    pub fn protocol(self) -> VlanProtocol {
        self.protocol
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vlan {}, vlanQoS {}, vlanProto {}", self.id, self.qos, self.protocol.as_str())
    }
}

impl VlanProtocol {
    /// As a configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dot1q => "802.1q",
            Self::Dot1ad => "802.1ad",
        }
    }

    fn parse(text: &str) -> Result<Self, ConfigError> {
        let all = [Self::Dot1q, Self::Dot1ad];
        let found = all.into_iter().find(|protocol| text.eq_ignore_ascii_case(protocol.as_str()));
        found.ok_or_else(|| ConfigError::Protocol(text.to_owned()))
    }
}

impl VfLinkState {
    /// As a configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }

    fn parse(text: &str) -> Result<Self, ConfigError> {
        let all = [Self::Auto, Self::Enable, Self::Disable];
        let found = all.into_iter().find(|state| text == state.as_str());
        found.ok_or_else(|| ConfigError::LinkState(text.to_owned()))
    }
}

/// A configuration as sriov-cni has it. An empty text is as none.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<u32>,
    #[serde(rename = "vlanQoS", skip_serializing_if = "Option::is_none")]
    vlan_qos: Option<u32>,
    #[serde(rename = "vlanProto", skip_serializing_if = "Option::is_none")]
    vlan_proto: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spoofchk: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_tx_rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tx_rate: Option<u32>,
}

/// A VLAN by itself.
#[derive(Debug, Serialize, Deserialize)]
struct WrittenVlan {
    id: u32,
    qos: u32,
    protocol: String,
}

impl TryFrom<WrittenVlan> for Vlan {
    type Error = ConfigError;

    fn try_from(written: WrittenVlan) -> Result<Self, ConfigError> {
        Self::new(written.id, written.qos, VlanProtocol::parse(&written.protocol)?)
    }
}

impl From<Vlan> for WrittenVlan {
    fn from(vlan: Vlan) -> Self {
        Self { id: vlan.id.into(), qos: vlan.qos.into(), protocol: vlan.protocol.as_str().to_owned() }
    }
}

impl TryFrom<Written> for VfConfig {
    type Error = ConfigError;

    fn try_from(written: Written) -> Result<Self, ConfigError> {
        let config = Self {
            vlan: vlan(&written)?,
            mac: text(&written.mac).map(mac).transpose()?,
            spoof_check: text(&written.spoofchk).map(|text| switch("spoofchk", text)).transpose()?,
            trust: text(&written.trust).map(|text| switch("trust", text)).transpose()?,
            link_state: text(&written.link_state).map(VfLinkState::parse).transpose()?,
            min_tx_rate_mbps: written.min_tx_rate,
            max_tx_rate_mbps: written.max_tx_rate,
        };
        match (config.min_tx_rate_mbps, config.max_tx_rate_mbps) {
            (Some(min), Some(max)) if max > 0 && min > max => Err(ConfigError::Rates(min, max)),
            _ => Ok(config),
        }
    }
}

impl From<VfConfig> for Written {
    fn from(config: VfConfig) -> Self {
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        Self {
            mac: config.mac.map(|mac| mac.to_string()),
            vlan: config.vlan.map(|vlan| vlan.id.into()),
            vlan_qos: config.vlan.map(|vlan| vlan.qos.into()),
            vlan_proto: config.vlan.map(|vlan| vlan.protocol.as_str().to_owned()),
            spoofchk: config.spoof_check.map(switch),
            trust: config.trust.map(switch),
            link_state: config.link_state.map(|state| state.as_str().to_owned()),
            min_tx_rate: config.min_tx_rate_mbps,
            max_tx_rate: config.max_tx_rate_mbps,
        }
    }
}

fn vlan(written: &Written) -> Result<Option<Vlan>, ConfigError> {
    let protocol = text(&written.vlan_proto).map(VlanProtocol::parse).transpose()?.unwrap_or_default();
    let vlan = Vlan::new(written.vlan.unwrap_or_default(), written.vlan_qos.unwrap_or_default(), protocol)?;
    match (vlan.id, vlan.qos, vlan.protocol) {
        (0, 1.., _) => Err(ConfigError::NoVlan("vlanQoS")),
        (0, _, VlanProtocol::Dot1ad) => Err(ConfigError::NoVlan("vlanProto")),
        _ => Ok(written.vlan.map(|_| vlan)),
    }
}

fn mac(text: &str) -> Result<MacAddr, ConfigError> {
    let mac: MacAddr = text.parse()?;
    if mac.is_unicast() { Ok(mac) } else { Err(ConfigError::Mac(mac)) }
}

fn switch(field: &'static str, text: &str) -> Result<bool, ConfigError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ConfigError::Switch(field, text.to_owned())),
    }
}

fn text(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<VfConfig, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn parse_when_it_is_sriov_cnis_takes_every_field() {
        let json = r#"{"type": "sriov", "name": "net", "mac": "CA:FE:C0:FF:EE:00", "vlan": 1000, "vlanQoS": 4, "vlanProto":
            "802.1AD", "spoofchk": "off", "trust": "on", "link_state": "enable", "min_tx_rate": 100, "max_tx_rate": 200}"#;
        let config = parse(json).unwrap();
        let expected = VfConfig {
            mac: Some("ca:fe:c0:ff:ee:00".parse().unwrap()),
            vlan: Some(Vlan { id: 1000, qos: 4, protocol: VlanProtocol::Dot1ad }),
            spoof_check: Some(false),
            trust: Some(true),
            link_state: Some(VfLinkState::Enable),
            min_tx_rate_mbps: Some(100),
            max_tx_rate_mbps: Some(200),
        };
        assert_eq!(config, expected);
        assert_eq!(parse(&serde_json::to_string(&config).unwrap()), Ok(config));
    }

    #[test]
    fn parse_when_nothing_is_given_changes_nothing() {
        for json in
            ["{}", r#"{"mac": "", "spoofchk": "", "vlanProto": "", "link_state": null, "vlan": null}"#]
        {
            assert_eq!(parse(json), Ok(VfConfig::default()), "{json}");
        }
        assert_eq!(serde_json::to_string(&VfConfig::default()).unwrap(), "{}");
        assert_eq!(parse(r#"{"vlan": 0}"#).unwrap().vlan, Some(Vlan::default()));
    }

    #[test]
    fn parse_when_a_value_is_bad_names_the_field() {
        for (json, words) in [
            (r#"{"vlan": 4095}"#, "vlan 4095"),
            (r#"{"vlan": -1}"#, "-1"),
            (r#"{"vlan": 5, "vlanQoS": 8}"#, "vlanQoS 8"),
            (r#"{"vlanQoS": 3}"#, "vlanQoS is nothing without a vlan"),
            (r#"{"vlan": 0, "vlanProto": "802.1ad"}"#, "vlanProto is nothing without a vlan"),
            (r#"{"vlan": 5, "vlanProto": "802.3"}"#, "vlanProto \"802.3\""),
            (r#"{"mac": "ff:ff:ff:ff:ff:ff"}"#, "mac ff:ff"),
            (r#"{"mac": "00:00:00:00:00:00"}"#, "mac 00:00"),
            (r#"{"mac": "x"}"#, "mac: \"x\""),
            (r#"{"spoofchk": "yes"}"#, "spoofchk \"yes\""),
            (r#"{"trust": "1"}"#, "trust \"1\""),
            (r#"{"link_state": "up"}"#, "link_state \"up\""),
            (r#"{"min_tx_rate": 10, "max_tx_rate": 5}"#, "min_tx_rate 10"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
