//! How does a call of the container runtime become one of the engine, and the engine's answer one for the runtime?

use std::collections::BTreeSet;
use std::path::Path;

use local_api::cni::{
    AddResult, Answer, Call, CniError, Code, Command, Dns, Interface, Ip, Request, Route, Version,
    version_of, versions_answer,
};
use model::{AttachmentId, DeviceRequest, MtuBytes, NetworkName, PodRef};
use reconcile::datapath::DatapathError;
use reconcile::delegate::DelegateError;
use reconcile::record::Delegation;
use reconcile::{AddRequest, AttachError, Attachment, Engine, ProgramError, ReserveError};
use serde_json::Value;

use super::delegate::execute;

/// Serves one call; whatever fails becomes an error that the runtime can read.
pub(crate) fn serve(engine: &Engine, request: &Request) -> Answer {
    let version = version_of(&request.stdin);
    match answer(engine, request) {
        Ok(Some(json)) => Answer { exit_code: 0, stdout: json.to_string().into_bytes() },
        Ok(None) => Answer::default(),
        Err(error) => {
            tracing::info!(command = request.var("CNI_COMMAND"), code = error.code.0, %error, details = %error.details, "refused");
            Answer { exit_code: 1, stdout: error.to_json(version).to_string().into_bytes() }
        }
    }
}

fn answer(engine: &Engine, request: &Request) -> Result<Option<Value>, CniError> {
    let call = Call::parse(request)?;
    match call.command {
        Command::Add => add(engine, &call, request).map(Some),
        Command::Del => del(engine, &call, request).map(|()| None),
        Command::Check => check(engine, &call, request).map(|()| None),
        Command::Gc => gc(engine, &call, request).map(|()| None),
        Command::Status => status(engine, &call, request).map(|()| None),
        Command::Version => Ok(Some(versions_answer(Some(call.version.as_str())))),
    }
}

fn add(engine: &Engine, call: &Call, request: &Request) -> Result<Value, CniError> {
    let mut result = call.conf.prev_result()?.unwrap_or_default();
    let attachment = engine.add(&add_request(call, request)?).map_err(|error| attach_error(&error))?;
    result.append(add_result(&attachment));
    Ok(result.to_json(call.version))
}

fn del(engine: &Engine, call: &Call, request: &Request) -> Result<(), CniError> {
    let id = attachment_id(call)?;
    // §"DEL": delegated plugins hear of it even where nothing is known, for their ADD may have been all that was done.
    let forgotten = engine.find(&id).is_none();
    let mut errors: Vec<CniError> =
        engine.del(&id).err().into_iter().flatten().map(|error| attach_error(&error)).collect();
    if forgotten && let Some(delegation) = delegation(call, request) {
        errors.extend(execute(&delegation, Command::Del).err().map(|error| delegate_error(&error)));
    }
    all_of(errors)
}

fn check(engine: &Engine, call: &Call, request: &Request) -> Result<(), CniError> {
    let id = attachment_id(call)?;
    let invalid = |msg: &str| CniError::new(Code::INVALID_CONFIG, msg);
    let said = call
        .conf
        .prev_result()?
        .ok_or_else(|| invalid("prevResult: is missing: CHECK needs the result of ADD"))?;
    let netns = call.netns.as_deref().unwrap_or(Path::new(""));
    let drifted = |drift: Vec<String>| {
        CniError::new(Code::DRIFT, format!("{id} is not as it was made")).with_details(drift.join("\n"))
    };
    let attachment = engine.check(&id, netns).map_err(drifted)?;
    let drift = compare(&said, &attachment);
    if !drift.is_empty() {
        return Err(drifted(drift));
    }
    forward(call, request)
}

fn gc(engine: &Engine, call: &Call, request: &Request) -> Result<(), CniError> {
    let missing =
        || CniError::new(Code::INVALID_CONFIG, "cni.dev/valid-attachments: is missing: GC needs it");
    let valid = call.conf.valid_attachments.as_ref().ok_or_else(missing)?;
    let valid: BTreeSet<_> =
        valid.iter().map(|kept| (kept.container_id.clone(), kept.ifname.clone())).collect();
    let mut errors = Vec::new();
    for (id, error) in engine.gc(&config_name(call)?, &valid).err().into_iter().flatten() {
        let error = attach_error(&error);
        errors.push(CniError { msg: format!("{id}: {}", error.msg), ..error });
    }
    errors.extend(forward(call, request).err());
    all_of(errors)
}

fn status(engine: &Engine, call: &Call, request: &Request) -> Result<(), CniError> {
    let mut problems = engine.problems();
    let network = network_name(call)?;
    if problems.is_empty() && !engine.desired().network(&network).is_some_and(|known| known.defined) {
        problems.push(format!("network {network:?} is not defined in the agent's networks file"));
    }
    if !problems.is_empty() {
        return Err(CniError::new(Code::NOT_AVAILABLE, problems.join("; ")));
    }
    forward(call, request)
}

/// Asks the delegated plugin the same. One that is too old to know the operation has nothing to say.
fn forward(call: &Call, request: &Request) -> Result<(), CniError> {
    let Some(delegation) = delegation(call, request) else { return Ok(()) };
    match execute(&delegation, call.command) {
        Err(error) if error.code == Code::INVALID_ENVIRONMENT.0 && call.version >= Version::V1_1_0 => {
            tracing::debug!(%error, "the IPAM plugin does not know the operation");
            Ok(())
        }
        Err(error) => Err(delegate_error(&error)),
        Ok(_) => Ok(()),
    }
}

fn add_request(call: &Call, request: &Request) -> Result<AddRequest, CniError> {
    let invalid = |error: &dyn std::fmt::Display| CniError::new(Code::INVALID_CONFIG, error.to_string());
    let netns = call.netns.clone().filter(|netns| netns.is_absolute());
    let netns =
        netns.ok_or_else(|| CniError::new(Code::INVALID_ENVIRONMENT, "CNI_NETNS: is no absolute path"))?;
    let kind = call.conf.port_kind.as_deref().map(str::parse).transpose();
    let mac = call.mac()?.map(str::parse).transpose();
    let device = device(call, request)?;
    let of_device = device.as_ref().and_then(|device| device.settings.mac);
    let dns = dns(&call.conf.dns).map_err(|error| invalid(&error))?;
    Ok(AddRequest {
        id: attachment_id(call)?,
        config: config_name(call)?,
        network: network_name(call)?,
        kind: kind.map_err(|error| invalid(&format!("portKind: {error}")))?,
        netns,
        pod: pod(call),
        mac: mac.map_err(|error: wire::MacError| invalid(&error))?.or(of_device),
        device,
        addresses: call.ips()?,
        dns: Some(dns).filter(|dns| !dns.is_empty()),
        device_info_file: call.conf.device_info_file()?,
        delegation: delegation(call, request),
    })
}

/// The device of a card, with what SR-IOV CNI's keys say of it.
fn device(call: &Call, request: &Request) -> Result<Option<DeviceRequest>, CniError> {
    let invalid = |key: &str, error: &dyn std::fmt::Display| {
        CniError::new(Code::INVALID_CONFIG, format!("{key}{error}"))
    };
    let Some(id) = call.conf.device_id()? else { return Ok(None) };
    let driver = call.conf.driver.as_deref().filter(|driver| !driver.is_empty()).map(str::parse).transpose();
    let mtu = |bytes| {
        MtuBytes::new(bytes)
            .ok_or_else(|| invalid("mtu: ", &format!("{bytes} is not from 68 to 65521 bytes")))
    };
    Ok(Some(DeviceRequest {
        function: id.parse().map_err(|error: model::AddressError| invalid("deviceID: ", &error))?,
        driver: driver.map_err(|error: model::UnknownDriver| invalid("driver: ", &error))?,
        mtu: call.conf.mtu.map(mtu).transpose()?,
        settings: serde_json::from_slice(&request.stdin).map_err(|error| invalid("", &error))?,
    }))
}

fn attachment_id(call: &Call) -> Result<AttachmentId, CniError> {
    let invalid = |error: model::NameError| CniError::new(Code::INVALID_ENVIRONMENT, error.to_string());
    Ok(AttachmentId {
        container: call.container_id.parse().map_err(invalid)?,
        interface: call.ifname.parse().map_err(invalid)?,
    })
}

fn config_name(call: &Call) -> Result<NetworkName, CniError> {
    call.conf
        .name
        .parse()
        .map_err(|error: model::NameError| CniError::new(Code::INVALID_CONFIG, format!("name: {error}")))
}

fn network_name(call: &Call) -> Result<NetworkName, CniError> {
    let name = call.conf.network.as_deref().unwrap_or(&call.conf.name);
    name.parse()
        .map_err(|error: model::NameError| CniError::new(Code::INVALID_CONFIG, format!("network: {error}")))
}

fn pod(call: &Call) -> Option<PodRef> {
    let args = &call.args;
    Some(PodRef {
        namespace: args.pod_namespace.clone()?,
        name: args.pod_name.clone()?,
        uid: args.pod_uid.as_deref().and_then(|uid| uid.parse().ok()),
    })
}

/// The call that a delegated IPAM plugin is to get; `None` where Millrace's own IPAM serves.
fn delegation(call: &Call, request: &Request) -> Option<Delegation> {
    let plugin =
        call.conf.ipam.as_ref().map(|ipam| ipam.plugin.clone()).filter(|plugin| !plugin.is_empty())?;
    let env = request.env.iter().filter(|(key, _)| key.starts_with("CNI_") && key != "CNI_COMMAND");
    Some(Delegation { plugin, env: env.cloned().collect(), config: request.stdin.clone() })
}

/// Name resolution as control keeps it.
///
/// # Errors
/// A server that is no address: the text says which.
pub(crate) fn dns(dns: &Dns) -> Result<model::Dns, String> {
    let server = |text: &String| text.parse().map_err(|_| format!("dns.nameservers: {text:?} is no address"));
    Ok(model::Dns {
        nameservers: dns.nameservers.iter().map(server).collect::<Result<_, _>>()?,
        domain: Some(dns.domain.clone()).filter(|domain| !domain.is_empty()),
        search: dns.search.clone(),
        options: dns.options.clone(),
    })
}

fn add_result(attachment: &Attachment) -> AddResult {
    let interface = Interface {
        name: attachment.id.interface.to_string(),
        mac: attachment.mac.to_string(),
        mtu: Some(attachment.mtu_bytes),
        sandbox: attachment.netns.to_string_lossy().into_owned(),
        socket_path: attachment.vhost.as_ref().and_then(|files| files.socket.clone()),
        pci_id: attachment.card.as_ref().map(|card| card.function.to_string()),
    };
    let ip = |address: &reconcile::record::Address| Ip {
        address: address.net,
        gateway: address.gateway,
        interface: Some(0),
    };
    let dns = &attachment.dns;
    AddResult {
        interfaces: vec![interface],
        ips: attachment.addresses.iter().map(ip).collect(),
        routes: attachment.routes.iter().map(|route| Route::new(route.destination, route.gateway)).collect(),
        dns: Dns {
            nameservers: dns.nameservers.iter().map(ToString::to_string).collect(),
            domain: dns.domain.clone().unwrap_or_default(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        },
    }
}

/// Where what the runtime remembers differs from what is.
fn compare(said: &AddResult, attachment: &Attachment) -> Vec<String> {
    let is = add_result(attachment);
    let mut drift = Vec::new();
    for ours in &is.interfaces {
        let named = |other: &&Interface| other.name == ours.name && other.sandbox == ours.sandbox;
        match said.interfaces.iter().find(named) {
            None => drift.push(format!("prevResult has no interface {} in {}", ours.name, ours.sandbox)),
            Some(other) if !other.mac.eq_ignore_ascii_case(&ours.mac) => {
                drift.push(format!(
                    "prevResult has MAC {} for {}, which has {}",
                    other.mac, ours.name, ours.mac
                ));
            }
            Some(_) => {}
        }
    }
    let unsaid = is.ips.iter().filter(|ours| !said.ips.iter().any(|other| other.address == ours.address));
    drift.extend(unsaid.map(|ours| format!("prevResult lacks address {}", ours.address)));
    drift
}

fn attach_error(error: &AttachError) -> CniError {
    let code = match error {
        AttachError::NoSandbox(_) => Code::UNKNOWN_CONTAINER,
        AttachError::Exists(_) => Code::EXISTS,
        AttachError::Reserve(reason) => reserve_code(reason),
        AttachError::Delegate(error) => return delegate_error(error),
        AttachError::Kernel(_) => Code::KERNEL,
        AttachError::Program(ProgramError::Datapath(DatapathError::Unreachable(_))) => Code::TRY_AGAIN,
        AttachError::Program(_) => Code::SWITCH,
        AttachError::Store(_) => Code::IO,
    };
    CniError::new(code, error.to_string())
}

fn reserve_code(reason: &ReserveError) -> Code {
    match reason {
        ReserveError::DeviceTaken { .. } => Code::DEVICE_TAKEN,
        ReserveError::UnknownNetwork { .. }
        | ReserveError::NoDevice(_)
        | ReserveError::DeviceOfKind { .. }
        | ReserveError::DriverOfKind { .. }
        | ReserveError::PassesSwitch { .. }
        | ReserveError::QueuesOfKind { .. }
        | ReserveError::WrongPrefix { .. }
        | ReserveError::NoPrefix { .. }
        | ReserveError::NotAStation(_)
        | ReserveError::SocketPath(_) => Code::INVALID_CONFIG,
        ReserveError::AddressTaken { .. }
        | ReserveError::AddressNotAllowed { .. }
        | ReserveError::Exhausted { .. }
        | ReserveError::MacTaken { .. } => Code::ADDRESS,
        ReserveError::NoPort => Code::SWITCH,
        ReserveError::KindNotHere { .. } => Code::KERNEL,
    }
}

fn delegate_error(error: &DelegateError) -> CniError {
    CniError::new(Code(error.code), error.to_string())
}

/// One error stays itself; several become one with a line for each.
fn all_of(mut errors: Vec<CniError>) -> Result<(), CniError> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        count => {
            // If any of them is temporary, calling again is of use.
            let temporary = errors.iter().any(|error| error.code == Code::TRY_AGAIN);
            let code = if temporary { Code::TRY_AGAIN } else { Code::SEVERAL };
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Err(CniError::new(code, format!("{count} things failed, the first: {}", lines[0]))
                .with_details(lines.join("\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{DeviceDriver, VlanProtocol};
    use serde_json::json;

    use super::*;

    fn asked(conf: &Value) -> Result<AddRequest, CniError> {
        let mut whole = json!({"cniVersion": "1.1.0", "name": "pods", "deviceID": "0000:01:10.2"});
        whole.as_object_mut().unwrap().extend(conf.as_object().unwrap().clone());
        let env =
            [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "net1"), ("CNI_NETNS", "/ns")];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let request = Request { env, stdin: whole.to_string().into_bytes() };
        add_request(&Call::parse(&request)?, &request)
    }

    #[test]
    fn add_request_when_it_is_sriov_cnis_takes_its_keys() {
        let conf = json!({"deviceID": "0000:AF:06.0", "driver": "vfio-pci", "mtu": 9000, "vlan": 5, "vlanQoS": 3,
                          "vlanProto": "802.1ad", "mac": "02:00:00:00:00:01", "spoofchk": "off", "trust": "on",
                          "pciBusID": "0000:AF:06.0", "logLevel": "debug"});
        let request = asked(&conf).unwrap();
        let device = request.device.unwrap();
        assert_eq!(
            (device.function.to_string().as_str(), device.driver),
            ("0000:af:06.0", Some(DeviceDriver::VfioPci))
        );
        assert_eq!(
            (device.mtu.map(MtuBytes::get), request.mac),
            (Some(9000), Some("02:00:00:00:00:01".parse().unwrap()))
        );
        let vlan = device.settings.vlan.unwrap();
        assert_eq!((vlan.id(), vlan.qos(), vlan.protocol()), (5, 3, VlanProtocol::Dot1ad));
        assert_eq!((device.settings.spoof_check, device.settings.trust), (Some(false), Some(true)));
        let by_runtime =
            asked(&json!({"mac": "02:00:00:00:00:01", "runtimeConfig": {"mac": "02:00:00:00:00:02"}}));
        assert_eq!(by_runtime.unwrap().mac, Some("02:00:00:00:00:02".parse().unwrap()));
        assert_eq!(asked(&json!({"deviceID": "", "vlan": 5})).unwrap().device, None);
    }

    #[test]
    fn add_request_when_a_field_of_the_device_is_hostile_names_it() {
        let long = "0".repeat(5000);
        for (conf, words) in [
            (
                json!({"deviceID": "../../0000:01:10.2"}),
                "deviceID: \"../../0000:01:10.2\" is not a PCI address",
            ),
            (json!({"deviceID": "0000:01:10.2\0"}), "deviceID"),
            (json!({"deviceID": "0000:01:10.2/../../x"}), "deviceID"),
            (json!({"deviceID": "0000:01:20.0"}), "devices go to 1f"),
            (json!({"deviceID": long}), "deviceID"),
            (json!({"runtimeConfig": {"deviceID": "vhost-user-1"}}), "deviceID: \"vhost-user-1\""),
            (json!({"driver": "../igb"}), "driver: \"../igb\" is no driver to choose"),
            (json!({"driver": "vfio_pci"}), "vfio-pci, virtio_vdpa or vhost_vdpa"),
            (json!({"mtu": 67}), "mtu: 67"),
            (json!({"mtu": 65_522}), "mtu: 65522"),
            (json!({"mtu": -1}), "-1"),
            (json!({"vlan": 4095}), "vlan 4095"),
            (json!({"vlan": "5"}), "invalid type: string"),
            (json!({"vlan": 5, "vlanQoS": 8}), "vlanQoS 8"),
            (json!({"mac": "ff:ff:ff:ff:ff:ff"}), "mac ff:ff"),
            (json!({"trust": "yes"}), "trust \"yes\""),
            (json!({"link_state": "up"}), "link_state \"up\""),
            (json!({"min_tx_rate": 9, "max_tx_rate": 8}), "min_tx_rate 9"),
            (json!({"portKind": "vf"}), "portKind: \"vf\" is no port kind"),
        ] {
            let error = asked(&conf).unwrap_err();
            assert!([Code::INVALID_CONFIG, Code::DECODING].contains(&error.code), "{conf}: {error:?}");
            assert!(error.msg.contains(words), "{conf}: {error}");
        }
    }
}
