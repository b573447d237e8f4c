//! How are the settings of a virtual function read and changed, by the netdev of its physical one?
//!
//! Each is changed by a message of its own (`IFLA_VFINFO_LIST`): the kernel stops at the first that the driver refuses, and
//! does not say which that was.

use std::fmt;

use reconcile::kernel::KernelError;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate, VfInfoSpoofCheck, VfInfoTrust,
    VfVlan, VfVlanInfo,
};
use rtnetlink::packet_route::link::{VfLinkState as LinkStateNumber, VlanProtocol as ProtocolNumber};
use rustix::io::Errno;
use wire::MacAddr;

use super::link::{self, Change};
use super::sysfs::Sysfs;
use super::vf::Vf;
use crate::netns::Netns;
use model::{VfConfig, VfLinkState, Vlan, VlanProtocol};
use reconcile::cards::{VfSettings, VfState};

/// One setting, as it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Mac(MacAddr),
    Vlan(Vlan),
    Rates { min_mbps: u32, max_mbps: u32 },
    SpoofCheck(bool),
    Trust(bool),
    LinkState(VfLinkState),
}

/// In the words of a configuration.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switch = |on: bool| if on { "on" } else { "off" };
        match self {
            Self::Mac(mac) => write!(f, "mac {mac}"),
            Self::Vlan(vlan) => vlan.fmt(f),
            Self::Rates { min_mbps, max_mbps } => write!(f, "min_tx_rate {min_mbps}, max_tx_rate {max_mbps}"),
            Self::SpoofCheck(on) => write!(f, "spoofchk {}", switch(*on)),
            Self::Trust(on) => write!(f, "trust {}", switch(*on)),
            Self::LinkState(state) => write!(f, "link_state {}", state.as_str()),
        }
    }
}

/// The settings as they are.
pub(super) fn read(vf: &Vf) -> Result<VfSettings, KernelError> {
    let doing = || format!("{vf}: read its settings");
    let functions =
        link::functions(&Netns::own()?, vf.pf_link).map_err(|errno| link::refused(doing(), errno))?;
    let function = functions.iter().find(|function| is_of(function, vf.index));
    let reason = || {
        format!(
            "the driver of {} does not list it: it was removed, or the driver has no settings",
            vf.pf_netdev
        )
    };
    let function = function.ok_or_else(|| KernelError::Refused { doing: doing(), reason: reason() })?;
    settings_of(function).map_err(|reason| KernelError::Refused { doing: doing(), reason })
}

/// Sets what is given.
pub(super) fn configure(vf: &Vf, config: &VfConfig) -> Result<(), KernelError> {
    let now = read(vf)?;
    wanted(config, &now).into_iter().try_for_each(|setting| set(vf, setting))
}

/// Makes all of them be as they were before; every refusal is told.
pub(super) fn restore(vf: &Vf, before: &VfState) -> Vec<KernelError> {
    let now = match read(vf) {
        Ok(now) => now,
        Err(error) => return vec![error],
    };
    let mut to_be = before.settings.clone();
    if has_own_choice(&now, before) {
        to_be.mac = now.mac;
    }
    let tell = differences(&now, &to_be).into_iter().filter_map(|setting| set(vf, setting).err());
    tell.collect()
}

/// Whether the address that the card tells of is the one that the function chose, as it may. A card that is told to forget
/// that one passes the function nothing more, until its driver starts anew.
fn has_own_choice(now: &VfSettings, before: &VfState) -> bool {
    before.settings.mac == MacAddr::default()
        && before.netdev.as_ref().is_some_and(|netdev| netdev.mac == now.mac)
}

/// What a configuration asks for and is not so yet. An address is set in any case: the card tells of one that the function
/// chose itself as of one that it must have.
fn wanted(config: &VfConfig, now: &VfSettings) -> Vec<Setting> {
    let mut to_be = now.clone();
    to_be.vlan = config.vlan.unwrap_or(now.vlan);
    to_be.min_tx_rate_mbps = config.min_tx_rate_mbps.unwrap_or(now.min_tx_rate_mbps);
    to_be.max_tx_rate_mbps = config.max_tx_rate_mbps.unwrap_or(now.max_tx_rate_mbps);
    to_be.spoof_check = config.spoof_check.unwrap_or(now.spoof_check);
    to_be.trust = config.trust.unwrap_or(now.trust);
    to_be.link_state = config.link_state.unwrap_or(now.link_state);
    let mut settings = differences(now, &to_be);
    settings.extend(config.mac.map(Setting::Mac));
    settings
}

fn differences(now: &VfSettings, to_be: &VfSettings) -> Vec<Setting> {
    let (min_mbps, max_mbps) = (to_be.min_tx_rate_mbps, to_be.max_tx_rate_mbps);
    let has_rates = (now.min_tx_rate_mbps, now.max_tx_rate_mbps) == (min_mbps, max_mbps);
    let settings = [
        (now.vlan == to_be.vlan, Setting::Vlan(to_be.vlan)),
        (now.mac == to_be.mac, Setting::Mac(to_be.mac)),
        (has_rates, Setting::Rates { min_mbps, max_mbps }),
        (now.spoof_check == to_be.spoof_check, Setting::SpoofCheck(to_be.spoof_check)),
        (now.trust == to_be.trust, Setting::Trust(to_be.trust)),
        (now.link_state == to_be.link_state, Setting::LinkState(to_be.link_state)),
    ];
    settings.into_iter().filter(|(is_so, _)| !is_so).map(|(_, setting)| setting).collect()
}

fn set(vf: &Vf, setting: Setting) -> Result<(), KernelError> {
    let list = LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![info(vf.index, setting)])]);
    let change = Change::new().index(vf.pf_link).append_extra_attribute(list);
    link::set(&Netns::own()?, change).map_err(|errno| refused(vf, setting, errno))
}

fn refused(vf: &Vf, setting: Setting, errno: Errno) -> KernelError {
    let doing = format!("{vf}: set {setting}");
    let driver = Sysfs::of_kernel().driver(vf.pf).ok().flatten().unwrap_or_default();
    let pf = &vf.pf_netdev;
    let remedy = match (errno, setting) {
        (Errno::OPNOTSUPP, _) => {
            format!("the driver {driver} of {pf} cannot do that: leave it out of the configuration")
        }
        (Errno::PROTONOSUPPORT, _) => {
            format!("the driver {driver} of {pf} has no such tags: leave vlanProto out")
        }
        (Errno::INVAL, Setting::Rates { .. }) => format!(
            "the driver {driver} of {pf} takes rates up to the link's speed, where it takes them, and some take them only with \
             the link up: `ip link set {pf} up`, or leave them out of the configuration"
        ),
        (Errno::INVAL, _) => format!("the driver {driver} of {pf} does not take this value"),
        _ => return link::refused(doing, errno),
    };
    KernelError::Refused { doing, reason: format!("{}: {remedy}", std::io::Error::from(errno)) }
}

fn info(index: u32, setting: Setting) -> VfInfo {
    match setting {
        Setting::Mac(mac) => VfInfo::Mac(VfInfoMac::new(index, &mac.0)),
        Setting::Vlan(vlan) => {
            let protocol = match vlan.protocol() {
                VlanProtocol::Dot1q => ProtocolNumber::Ieee8021Q,
                VlanProtocol::Dot1ad => ProtocolNumber::Ieee8021Ad,
            };
            let vlan = VfVlanInfo::new(index, vlan.id().into(), vlan.qos().into(), protocol);
            VfInfo::VlanList(vec![VfVlan::Info(vlan)])
        }
        Setting::Rates { min_mbps, max_mbps } => VfInfo::Rate(VfInfoRate::new(index, min_mbps, max_mbps)),
        Setting::SpoofCheck(on) => VfInfo::SpoofCheck(VfInfoSpoofCheck::new(index, on)),
        Setting::Trust(on) => VfInfo::Trust(VfInfoTrust::new(index, on)),
        Setting::LinkState(state) => {
            let state = match state {
                VfLinkState::Auto => LinkStateNumber::Auto,
                VfLinkState::Enable => LinkStateNumber::Enable,
                VfLinkState::Disable => LinkStateNumber::Disable,
            };
            VfInfo::LinkState(VfInfoLinkState::new(index, state))
        }
    }
}

fn is_of(function: &LinkVfInfo, index: u32) -> bool {
    function.0.iter().any(|info| matches!(info, VfInfo::Mac(mac) if mac.vf_id == index))
}

/// The settings that the kernel lists. What a driver does not tell is as if it were off.
fn settings_of(function: &LinkVfInfo) -> Result<VfSettings, String> {
    let mut settings = VfSettings {
        mac: MacAddr::default(),
        vlan: Vlan::default(),
        spoof_check: false,
        trust: false,
        link_state: VfLinkState::Auto,
        min_tx_rate_mbps: 0,
        max_tx_rate_mbps: 0,
    };
    for info in &function.0 {
        match info {
            VfInfo::Mac(found) => settings.mac.0.copy_from_slice(&found.mac[..MacAddr::BYTES]),
            VfInfo::VlanList(vlans) => settings.vlan = vlan_of(vlans)?,
            VfInfo::Rate(rate) => {
                (settings.min_tx_rate_mbps, settings.max_tx_rate_mbps) = (rate.min_tx_rate, rate.max_tx_rate);
            }
            VfInfo::SpoofCheck(check) => settings.spoof_check = check.enabled,
            VfInfo::Trust(trust) => settings.trust = trust.enabled,
            VfInfo::LinkState(found) => settings.link_state = link_state_of(found.state),
            _ => {}
        }
    }
    Ok(settings)
}

fn vlan_of(vlans: &[VfVlan]) -> Result<Vlan, String> {
    let found = vlans.iter().find_map(|vlan| match vlan {
        VfVlan::Info(info) => Some(*info),
        _ => None,
    });
    let Some(found) = found else { return Ok(Vlan::default()) };
    // Drivers leave the kind of tag as it is where there is none.
    let protocol = match found.protocol {
        ProtocolNumber::Ieee8021Ad if found.vlan_id != 0 => VlanProtocol::Dot1ad,
        _ => VlanProtocol::Dot1q,
    };
    Vlan::new(found.vlan_id, found.qos, protocol)
        .map_err(|error| format!("its driver tells of what there is not: {error}"))
}

fn link_state_of(number: LinkStateNumber) -> VfLinkState {
    match number {
        LinkStateNumber::Enable => VfLinkState::Enable,
        LinkStateNumber::Disable => VfLinkState::Disable,
        _ => VfLinkState::Auto,
    }
}

#[cfg(test)]
mod tests {
    use reconcile::cards::NetdevState;

    use super::*;

    fn before() -> VfSettings {
        VfSettings {
            mac: MacAddr::default(),
            vlan: Vlan::default(),
            spoof_check: true,
            trust: false,
            link_state: VfLinkState::Auto,
            min_tx_rate_mbps: 10,
            max_tx_rate_mbps: 0,
        }
    }

    #[test]
    fn settings_when_written_and_read_are_the_same() {
        let after = VfSettings {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            vlan: Vlan::new(5, 3, VlanProtocol::Dot1ad).unwrap(),
            spoof_check: false,
            trust: true,
            link_state: VfLinkState::Disable,
            min_tx_rate_mbps: 7,
            max_tx_rate_mbps: 9,
        };
        let infos: Vec<_> =
            differences(&before(), &after).into_iter().map(|setting| info(3, setting)).collect();
        assert_eq!(infos.len(), 6);
        let function = LinkVfInfo(infos);
        assert!(is_of(&function, 3) && !is_of(&function, 2));
        assert_eq!(settings_of(&function), Ok(after.clone()));
        assert_eq!(differences(&after, &after), []);
    }

    #[test]
    fn has_own_choice_when_the_card_tells_of_the_netdevs_address_only() {
        let (own, set) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let netdev = NetdevState {
            name: "eth2".into(),
            mac: own,
            mtu_bytes: 1500,
            up: false,
            promiscuous: false,
            all_multicast: false,
        };
        let free = VfState { settings: before(), driver: None, driver_override: None, netdev: Some(netdev) };
        let tells = |mac| VfSettings { mac, ..before() };
        assert!(has_own_choice(&tells(own), &free));
        assert!(!has_own_choice(&tells(set), &free), "an earlier user's");
        let bound = VfState { settings: tells(set), ..free.clone() };
        assert!(!has_own_choice(&tells(own), &bound), "it had to have another one");
        assert!(!has_own_choice(&tells(own), &VfState { netdev: None, ..free }));
    }

    #[test]
    fn wanted_when_one_rate_is_given_keeps_the_other() {
        let config = VfConfig { max_tx_rate_mbps: Some(100), ..VfConfig::default() };
        assert_eq!(wanted(&config, &before()), [Setting::Rates { min_mbps: 10, max_mbps: 100 }]);
    }

    #[test]
    fn wanted_when_it_is_so_already_asks_for_nothing_but_the_address() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let config =
            VfConfig { mac: Some(mac), spoof_check: Some(true), trust: Some(false), ..VfConfig::default() };
        assert_eq!(wanted(&config, &VfSettings { mac, ..before() }), [Setting::Mac(mac)]);
        assert_eq!(wanted(&VfConfig::default(), &before()), []);
    }

    #[test]
    fn settings_when_a_driver_tells_nonsense_are_refused() {
        let vlan = VfVlan::Info(VfVlanInfo::new(0, 5000, 0, ProtocolNumber::Ieee8021Q));
        let error = settings_of(&LinkVfInfo(vec![VfInfo::VlanList(vec![vlan])])).unwrap_err();
        assert!(error.contains("vlan 5000"), "{error}");
    }
}
