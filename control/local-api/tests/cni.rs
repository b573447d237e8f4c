//! The container runtime's contract: results in each version as they were written down, error codes, frames.
#![allow(clippy::needless_pass_by_value, reason = "json!() at the call reads better than &json!()")]

use local_api::cni::{
    AddResult, Answer, Call, CniError, Code, Command, Dns, FrameError, HEADER_BYTES, Interface, Ip,
    MAX_FRAME_BYTES, NetConf, Request, Route, SUPPORTED, Version, fuzz, payload_len, read_frame,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn result() -> AddResult {
    AddResult {
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: Some(9000),
            sandbox: "/run/netns/a".into(),
            socket_path: Some("/run/millrace/vhost/a/eth0".into()),
            pci_id: None,
        }],
        ips: vec![
            Ip {
                address: "10.1.0.5/24".parse().unwrap(),
                gateway: Some("10.1.0.1".parse().unwrap()),
                interface: Some(0),
            },
            Ip { address: "fd00::5/64".parse().unwrap(), gateway: None, interface: Some(0) },
        ],
        routes: vec![Route {
            mtu: Some(1400),
            ..Route::new("0.0.0.0/0".parse().unwrap(), Some("10.1.0.1".parse().unwrap()))
        }],
        dns: Dns { nameservers: vec!["10.1.0.53".into()], ..Dns::default() },
    }
}

#[test]
fn result_when_written_in_1_1_0_has_all_fields() {
    let golden = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{
            "name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 9000, "sandbox": "/run/netns/a",
            "socketPath": "/run/millrace/vhost/a/eth0"
        }],
        "ips": [
            {"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0},
            {"address": "fd00::5/64", "interface": 0}
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400}],
        "dns": {"nameservers": ["10.1.0.53"]}
    });
    assert_eq!(result().to_json(Version::V1_1_0), golden);
}

#[test]
fn result_when_written_in_1_0_0_leaves_out_what_is_newer() {
    let golden = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/a"}],
        "ips": [
            {"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0},
            {"address": "fd00::5/64", "interface": 0}
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
        "dns": {"nameservers": ["10.1.0.53"]}
    });
    assert_eq!(result().to_json(Version::V1_0_0), golden);
}

#[test]
fn result_when_written_before_1_0_0_has_the_family_of_each_address() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let json = result().to_json(version);
        assert_eq!(json["cniVersion"], version.as_str());
        assert_eq!((&json["ips"][0]["version"], &json["ips"][1]["version"]), (&json!("4"), &json!("6")));
        assert!(json["interfaces"][0].get("mtu").is_none());
        assert!(json["interfaces"][0].get("socketPath").is_none());
    }
}

#[test]
fn result_when_read_in_any_version_is_the_one_written() {
    for version in SUPPORTED {
        let json = result().to_json(version);
        let read = AddResult::from_json(&json).unwrap();
        assert_eq!(read.to_json(version), json);
        assert_eq!(read.ips, result().ips);
    }
}

#[test]
fn result_when_empty_has_no_nulls_and_nulls_are_read_as_empty() {
    for version in SUPPORTED {
        assert_eq!(AddResult::default().to_json(version), json!({"cniVersion": version.as_str()}));
    }
    let nulls = r#"{"cniVersion":"1.0.0","interfaces":null,"ips":null,"routes":null,"dns":null}"#;
    assert_eq!(AddResult::from_slice(nulls.as_bytes()), Ok(AddResult::default()));
}

#[test]
fn result_when_of_0_2_0_or_broken_is_refused() {
    for text in [
        r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"}}"#,
        r#"{"ip4":{"ip":"10.0.0.2/24"}}"#,
        r#"{"cniVersion":"9.0.0"}"#,
        r#"{"ips":[{"address":"10.0.0.2"}]}"#,
        r#"{"ips":[{"address":"10.0.0.2/33"}]}"#,
        r#"{"ips":[{"address":"10.0.0.2/24","interface":-1}]}"#,
        "[]x",
        "",
    ] {
        assert!(AddResult::from_slice(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn append_when_a_plugin_ran_before_keeps_its_interfaces_in_front() {
    let mut chain = result();
    chain.append(AddResult {
        interfaces: vec![Interface { name: "net1".into(), ..Interface::default() }],
        ..result()
    });
    assert_eq!(chain.interfaces.len(), 2);
    assert_eq!(
        chain.ips.iter().map(|ip| ip.interface).collect::<Vec<_>>(),
        [Some(0), Some(0), Some(1), Some(1)]
    );
}

#[test]
fn error_when_told_has_the_shape_of_the_specification() {
    let error = CniError::new(Code::TRY_AGAIN, "not now").with_details("later");
    let golden = json!({"cniVersion": "1.0.0", "code": 11, "msg": "not now", "details": "later"});
    assert_eq!(error.to_json(Version::V1_0_0), golden);
}

fn request(command: &str, conf: Value) -> Request {
    let env = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=123;MAC=02:00:00:00:00:09;IP=10.1.0.9",
        ),
    ];
    Request {
        env: env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        stdin: conf.to_string().into_bytes(),
    }
}

fn without(mut request: Request, name: &str) -> Request {
    request.env.retain(|(key, _)| key != name);
    request
}

fn code(request: &Request) -> u32 {
    Call::parse(request).map_or_else(|error| error.code.0, |_| 0)
}

#[test]
fn call_when_complete_is_understood() {
    let conf = json!({"cniVersion": "1.1.0", "name": "blue", "type": "millrace-cni", "unknown": {"a": 1}});
    let call = Call::parse(&request("ADD", conf)).unwrap();
    assert_eq!((call.command, call.version, call.ifname.as_str()), (Command::Add, Version::V1_1_0, "eth0"));
    assert_eq!(call.args.pod_name.as_deref(), Some("web"));
    assert_eq!(call.mac().unwrap(), Some("02:00:00:00:00:09"));
    assert_eq!(call.ips().unwrap(), [("10.1.0.9".parse().unwrap(), None)]);
}

#[test]
fn call_when_capabilities_are_given_prefers_them_to_cni_args() {
    let conf = json!({
        "cniVersion": "1.1.0", "name": "blue",
        "runtimeConfig": {"mac": "02:00:00:00:00:0a", "ips": ["10.1.0.8/24", "fd00::8/64"], "CNIDeviceInfoFile": "/a/b"},
        "args": {"cni": {"ips": ["10.1.0.7"]}}
    });
    let call = Call::parse(&request("ADD", conf)).unwrap();
    assert_eq!(call.mac().unwrap(), Some("02:00:00:00:00:0a"));
    assert_eq!(call.ips().unwrap()[0], ("10.1.0.8".parse().unwrap(), Some(24)));
    assert_eq!(call.conf.device_info_file().unwrap(), Some("/a/b".into()));
    let conf = json!({"cniVersion": "1.1.0", "name": "blue", "args": {"cni": {"ips": ["10.1.0.7"]}}});
    let call = Call::parse(&request("ADD", conf)).unwrap();
    assert_eq!(call.ips().unwrap(), [("10.1.0.7".parse().unwrap(), None)]);
}

#[test]
fn call_when_version_is_not_spoken_gives_code_1() {
    for version in ["0.2.0", "2.0.0", "", "x"] {
        let error = Call::parse(&request("ADD", json!({"cniVersion": version, "name": "a"}))).unwrap_err();
        assert_eq!(error.code, Code::INCOMPATIBLE_VERSION);
        assert!(error.details.contains("1.1.0"));
    }
    assert_eq!(code(&request("ADD", json!({"name": "a"}))), 1);
    assert_eq!(code(&request("CHECK", json!({"cniVersion": "0.3.1", "name": "a"}))), 1);
    assert_eq!(code(&request("GC", json!({"cniVersion": "1.0.0", "name": "a"}))), 1);
    assert_eq!(code(&request("STATUS", json!({"cniVersion": "1.0.0", "name": "a"}))), 1);
}

#[test]
fn call_when_a_capability_is_not_supported_gives_code_2_with_key_and_value() {
    let conf = |runtime: Value| json!({"cniVersion": "1.1.0", "name": "a", "runtimeConfig": runtime});
    let ports = json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]});
    let error = Call::parse(&request("ADD", conf(ports.clone()))).unwrap_err();
    assert_eq!(error.code, Code::UNSUPPORTED_FIELD);
    assert!(error.msg.contains("portMappings") && error.msg.contains("\"hostPort\":80"), "{error}");
    assert_eq!(
        code(&request("ADD", conf(json!({"portMappings": [], "bandwidth": null, "deviceID": ""})))),
        0
    );
    assert_eq!(code(&request("ADD", conf(json!({"bandwidth": {"ingressRate": 1}})))), 2);
    assert_eq!(code(&request("ADD", json!({"cniVersion": "1.1.0", "name": "a", "ipMasq": true}))), 2);
    assert_eq!(code(&request("DEL", conf(ports))), 0, "what was never made can be removed");
}

#[test]
fn call_when_a_variable_is_missing_gives_code_4() {
    let conf = json!({"cniVersion": "1.1.0", "name": "a"});
    for (command, name) in [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("CHECK", "CNI_NETNS"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
        ("ADD", "CNI_COMMAND"),
    ] {
        let error = Call::parse(&without(request(command, conf.clone()), name)).unwrap_err();
        assert_eq!(error.code, Code::INVALID_ENVIRONMENT, "{command} {name}");
        assert!(error.msg.contains(name));
    }
    assert_eq!(
        code(&without(request("DEL", conf.clone()), "CNI_NETNS")),
        0,
        "DEL when the namespace is gone"
    );
    assert_eq!(code(&request("MOVE", conf.clone())), 4);
    let mut bad_args = request("ADD", conf);
    bad_args.env.last_mut().unwrap().1 = "nonsense".into();
    assert_eq!(code(&bad_args), 4);
}

#[test]
fn call_when_configuration_is_wrong_gives_codes_6_and_7() {
    let mut no_json = request("ADD", json!({}));
    no_json.stdin = b"{".to_vec();
    assert_eq!(code(&no_json), 6);
    assert_eq!(code(&request("ADD", json!({"cniVersion": "1.1.0", "name": 5}))), 6);
    assert_eq!(code(&request("ADD", json!({"cniVersion": "1.1.0"}))), 7);
    let conf = |runtime: Value| json!({"cniVersion": "1.1.0", "name": "a", "runtimeConfig": runtime});
    let parse = |runtime: Value| Call::parse(&request("ADD", conf(runtime))).unwrap();
    assert_eq!(parse(json!({"mac": 5})).mac().unwrap_err().code, Code::INVALID_CONFIG);
    assert_eq!(parse(json!({"ips": ["ten"]})).ips().unwrap_err().code, Code::INVALID_CONFIG);
    assert_eq!(parse(json!({"ips": "10.0.0.1"})).ips().unwrap_err().code, Code::INVALID_CONFIG);
    for path in ["relative", "/a/../b"] {
        let file = parse(json!({"CNIDeviceInfoFile": path})).conf.device_info_file();
        assert_eq!(file.unwrap_err().code, Code::INVALID_CONFIG);
    }
}

#[test]
fn device_id_when_the_runtime_gives_it_is_before_the_configurations() {
    let parse = |id: Value, runtime: Value| {
        let conf = json!({"cniVersion": "1.1.0", "name": "a", "deviceID": id, "runtimeConfig": {"deviceID": runtime}});
        Call::parse(&request("ADD", conf)).unwrap().conf.device_id().map(|id| id.map(str::to_owned))
    };
    let (multus, capability) = (json!("0000:01:10.0"), json!("0000:01:10.2"));
    assert_eq!(parse(multus.clone(), Value::Null), Ok(Some("0000:01:10.0".to_owned())));
    assert_eq!(parse(multus, capability.clone()), Ok(Some("0000:01:10.2".to_owned())));
    assert_eq!(parse(Value::Null, capability), Ok(Some("0000:01:10.2".to_owned())));
    for nothing in [Value::Null, json!("")] {
        assert_eq!(parse(nothing.clone(), nothing), Ok(None));
    }
    for hostile in [json!(5), json!(["0000:01:10.2"]), json!({"a": 1}), json!(true)] {
        assert_eq!(parse(Value::Null, hostile).unwrap_err().code, Code::INVALID_CONFIG);
    }
    let conf = json!({"cniVersion": "1.1.0", "name": "a", "deviceID": 5});
    assert_eq!(code(&request("ADD", conf)), 6);
}

#[test]
fn valid_attachments_when_absent_or_null_are_told_apart() {
    let parse = |json: Value| NetConf::parse(json.to_string().as_bytes()).unwrap().0.valid_attachments;
    assert_eq!(parse(json!({"cniVersion": "1.1.0"})), None, "GC must not take this for `remove everything`");
    assert_eq!(parse(json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": null})), Some(vec![]));
    let listed = parse(
        json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}),
    );
    assert_eq!(listed.unwrap()[0].ifname, "eth0");
}

#[test]
fn frame_when_hostile_is_refused_before_it_is_read() {
    assert_eq!(payload_len([2, 0, 0, 0, 0]), Err(FrameError::Version(2)));
    assert_eq!(payload_len([1, 0xff, 0xff, 0xff, 0xff]), Err(FrameError::TooLong(u32::MAX as usize)));
    assert!(payload_len([1, 0, 0x20, 0, 0]).is_ok_and(|length| length == MAX_FRAME_BYTES));
    assert!(read_frame(&mut &b"\x01\0\0\0\x05abc"[..]).is_err());
    assert_eq!(Request::decode(b""), Err(FrameError::Truncated));
    assert_eq!(Request::decode(&[33]), Err(FrameError::TooManyVariables(33)));
    assert_eq!(Request::decode(&[1, 0, 5, b'a']), Err(FrameError::Truncated));
    assert_eq!(Request::decode(&[1, 0, 1, 0xff, 0, 0]), Err(FrameError::NotText));
    assert_eq!(Answer::decode(b""), Err(FrameError::Truncated));
}

#[test]
fn frame_when_a_variable_is_too_long_leaves_it_out() {
    let request =
        Request { env: vec![("K".into(), "x".repeat(70_000)), ("L".into(), "y".into())], stdin: vec![1] };
    let decoded = Request::decode(&request.encode()[HEADER_BYTES..]).unwrap();
    assert_eq!((decoded.var("K"), decoded.var("L")), (None, Some("y")));
    assert_eq!(decoded.stdin, [1]);
}

proptest! {
    #[test]
    fn request_survives_the_wire(
        env in proptest::collection::vec((".{0,20}", ".{0,50}"), 0..32),
        stdin in proptest::collection::vec(any::<u8>(), 0..500),
    ) {
        let request = Request { env, stdin };
        let frame = request.encode();
        let payload = read_frame(&mut frame.as_slice()).unwrap();
        prop_assert_eq!(Request::decode(&payload).unwrap(), request);
    }

    #[test]
    fn answer_survives_the_wire(exit_code in any::<u8>(), stdout in proptest::collection::vec(any::<u8>(), 0..500)) {
        let answer = Answer { exit_code, stdout };
        let payload = read_frame(&mut answer.encode().as_slice()).unwrap();
        prop_assert_eq!(Answer::decode(&payload).unwrap(), answer);
    }

    #[test]
    fn anything_that_comes_in_is_read_without_a_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&data);
    }

    #[test]
    fn a_result_with_bytes_changed_is_read_without_a_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = result().to_json(Version::V1_1_0).to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        fuzz(&text);
    }
}
