//! Is what a network with DHCP says what the switch is told, and can the switch tell it?

use model::{Network, Networks};
use proptest::prelude::*;
use vswitch::Program;
use vswitch::program::{NetworkSpec, ProgramSpec};

use crate::desired::{Desired, Known};
use crate::program::network;

/// What the switch is told of the network that `fields` make; `None` if they make none.
fn told(fields: &str) -> Option<NetworkSpec> {
    let text = format!("networks: [{{name: pods, dhcp: true, router: shop, {fields}}}]");
    let networks = Networks::parse(&text).ok()?;
    let defined: Vec<Network> = networks.iter().map(|it| Network::clone(it)).collect();
    let known = Known { number: 7, network: defined[0].clone().into(), defined: true, overlay_port: None };
    Some(network(&known, &Desired::default()))
}

#[test]
fn hosts_are_told_what_a_cni_result_says() {
    let spec = told(
        "subnets: [{subnet: 10.0.0.0/24, gateway: 10.0.0.1}, {subnet: 'fd00::/64', gateway: 'fd00::1'}],
         routes: [{dst: 0.0.0.0/0}, {dst: 'fd00:9::/48', gw: 'fd00::9'}],
         dns: {nameservers: [10.0.0.53], domain: a.example, search: [b.example]}",
    );
    let spec = spec.unwrap();
    let dhcp = spec.dhcp.unwrap();
    assert_eq!(dhcp.mac, spec.gateway.unwrap().mac);
    let servers: Vec<_> = dhcp.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.1/24"]);
    let routes: Vec<_> = dhcp.routes.iter().map(|(to, via)| format!("{to} {via}")).collect();
    assert_eq!(routes, ["0.0.0.0/0 10.0.0.1", "fd00:9::/48 fd00::9"]);
    assert_eq!((dhcp.nameservers.len(), dhcp.domain.as_deref()), (1, Some("a.example")));
    assert_eq!(dhcp.search, ["b.example"]);
}

proptest! {
    #[test]
    fn what_the_model_takes_the_switch_can_tell(
        v4 in 0_usize..30, v6 in 0_usize..20, routes in 0_usize..12, search in 0_usize..8, domain in 0_usize..60,
    ) {
        let servers: Vec<String> = (0..v4).map(|at| format!("10.0.0.{at}"))
            .chain((0..v6).map(|at| format!("'fd00::{at}'"))).collect();
        let routes: Vec<String> = (0..routes).map(|at| format!("{{dst: 10.{at}.0.0/16, gw: 10.200.0.{at}}}"))
            .chain((0..routes / 2).map(|at| format!("{{dst: 'fd00:{at}::/48'}}"))).collect();
        let search = vec!["some.example.org"; search];
        let domain = "d".repeat(domain.clamp(1, 60));
        let spec = told(&format!(
            "subnets: [{{subnet: 10.250.0.0/24, gateway: 10.250.0.1}}, {{subnet: 'fd00:77::/64', gateway: 'fd00:77::1'}}],
             routes: [{}], dns: {{nameservers: [{}], search: [{}], domain: {domain}}}",
            routes.join(", "), servers.join(", "), search.join(", "),
        ));
        if let Some(spec) = spec {
            let mut program = ProgramSpec::default();
            program.networks.insert(spec.number, spec);
            prop_assert!(Program::build(program).is_ok());
        }
    }
}
